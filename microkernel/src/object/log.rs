//! The debug console, as a capability: text for whoever watches the machine, and a few figures
//! about the whole of it.
//!
//! The figures are the one thing that its holder learns of others: sums, of no thread or object
//! in particular. Whom that is too much does not get the capability.

use skink_abi::syscall::REGISTER_WORDS;
use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::ipc;
use crate::machine::Machine;
use crate::obj::Obj;
use crate::slot::CapSlot;

/// Bytes of one `LogWrite` at most: what fits behind the length word.
pub const MAX_BYTES: u64 = 3960;
/// Bytes of one `LogWrite` that no interrupt stops, so that ordinary lines stay whole.
const WHOLE_BYTES: u64 = 256;

/// Writes text, tells figures.
///
/// # Errors
/// As the arguments demand.
pub fn invoke(
    kernel: &mut Kernel,
    _slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    match invocation {
        Invocation::LogWrite => write(kernel, arguments),
        Invocation::LogStatistics => {
            let idle_ns = kernel.machine.clock().ns_from_ticks(kernel.cpu.idle);
            let words = [kernel.logged, kernel.objects, kernel.syscalls, idle_ns];
            Ok(Answer { length: 4, words })
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}

/// Writes until an interrupt waits, and says how much: the UART is slow, and polled.
fn write(kernel: &mut Kernel, arguments: &Arguments) -> Outcome {
    let [bytes] = arguments.take()?;
    if !(1..=MAX_BYTES).contains(&bytes) {
        return Err(Failure::Error(Error::RangeError, [1, MAX_BYTES]));
    }
    let words = bytes.div_ceil(8) as usize;
    if arguments.length < 1 + words {
        return Err(Error::TruncatedMessage.into());
    }
    let mut written = 0;
    for index in 1..=words {
        if written >= WHOLE_BYTES && kernel.machine.interrupt_pending() {
            break;
        }
        let word = match arguments.buffer {
            // SAFETY: `index` is at most the message's length, below the buffer's words.
            Some(buffer) if index >= REGISTER_WORDS => unsafe { ipc::read_word(buffer, index) },
            _ => arguments.words[index],
        };
        let next = (bytes - written).min(8);
        kernel.machine.log(&word.to_le_bytes()[..next as usize]);
        written += next;
    }
    kernel.logged += written;
    Ok(Answer::word(written))
}
