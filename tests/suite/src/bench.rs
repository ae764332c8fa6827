//! Instruction counts of the kernel's operations, as `sample ID VALUE UNIT` lines.
//!
//! Meant for `-icount shift=0`, where the counter advances one for each instruction: 50 batches
//! of 2,000 operations, the empty loop subtracted.

use libipc::cap::{self, Cap};
use libipc::{arch, buffer, raw};
use skink_abi::{CPtr, MessageInfo};

use crate::cases::echo_server;
use crate::driver::print_from_test;
use crate::env::{Env, Space, Test};

const BATCHES: usize = 50;
const OPERATIONS: u64 = 2_000;

/// The benchmark runs as a test of its own.
pub static BENCH: Test = Test { id: "BENCH", sentence: "measured", run };

fn measure(env: &Env, id: &str, mut operation: impl FnMut()) {
    let empty = batch(|| {
        core::hint::black_box(());
    });
    batch(&mut operation);
    for _ in 0..BATCHES {
        let cost = batch(&mut operation).saturating_sub(empty);
        let hundredths = cost * 100 / OPERATIONS;
        let (whole, part) = (hundredths / 100, hundredths % 100);
        print_from_test(env, format_args!("sample {id} {whole}.{part:02} instructions"));
    }
}

fn batch(mut operation: impl FnMut()) -> u64 {
    let start = arch::counter();
    for _ in 0..OPERATIONS {
        operation();
    }
    arch::counter() - start
}

fn run(env: &mut Env) {
    measure(env, "ipc.null", || {
        let _ = raw::nb_send(CPtr::NULL, MessageInfo::new(0, 0, 0), [0; 4]);
    });
    for (space, name) in [(Space::Other, "cross"), (Space::Same, "same")] {
        let endpoint: Cap<cap::Endpoint> = env.make();
        let reply: Cap<cap::Reply> = env.make();
        let server = env.spawn(space, 101, echo_server, endpoint.cptr().0 | reply.cptr().0 << 16);
        let call = |length| {
            let _ = endpoint.call(MessageInfo::new(1, length, 0), [0; 4]);
        };
        // Let it reach its receive, then make it a passive server.
        call(0);
        server.make_passive();
        for words in [0usize, 4, 64] {
            let id: &str = match (words, name) {
                (0, "cross") => "ipc.call.w0.cross",
                (4, "cross") => "ipc.call.w4.cross",
                (64, "cross") => "ipc.call.w64.cross",
                (0, _) => "ipc.call.w0.same",
                (4, _) => "ipc.call.w4.same",
                _ => "ipc.call.w64.same",
            };
            for word in 4..words {
                buffer::set_word(word, 1);
            }
            measure(env, id, || call(words));
        }
    }
    let notification: Cap<cap::Notification> = env.make();
    measure(env, "ntfn.signal.nowaiter", || {
        let _ = notification.signal();
    });
    measure(env, "ntfn.poll.empty", || {
        let _ = notification.poll();
    });
    measure(env, "sched.yield", raw::yield_now);
}
