//! The tenant: one instance after the other has the same session of the console. Each begins with its
//! memory full of secrets, then has another thread write what everybody may see, and ends while that
//! is under way. The secrets of a successor are on the terminal only if the console goes on with its
//! memory in a dead one's name.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use libipc::events;
use libipc::start::StartInfo;
use libipc::{Shared, thread};
use skink_protocols::Span;
use skink_protocols::console::{Channel, ConsoleClient};

/// What nobody may see; each bit turned, so that no other memory has it by chance.
const SECRET_TURNED: u64 = !u64::from_le_bytes(*b"!SeCrEt!");
/// What everybody may see.
const OPEN: u64 = u64::from_le_bytes(*b"-tenant\n");
/// The secrets stay for so long before anything is written: a program may die once a second.
const KEPT_NS: u64 = 1_000_000_000;
/// A write may take so long until it is begun again.
const TURN_NS: u64 = 500_000;
/// Writes of one instance at most.
const WRITES: u32 = 20;

fn fill(memory: &Shared, value: u64) {
    for word in 0..memory.size() / 8 {
        memory.word(word * 8).store(value, Relaxed);
    }
}

/// One life.
pub fn run(start: &'static StartInfo) -> i32 {
    static IS_WRITING: AtomicBool = AtomicBool::new(false);
    let client = ConsoleClient::new(start.session("console", 0).expect("a session of the console"));
    let memory = client.session().shared;
    fill(&memory, !SECRET_TURNED);
    events::main().sleep_ns(KEPT_NS);
    let mut position = client.attach(Channel::Terminal).expect("the terminal").write;
    fill(&memory, OPEN);
    let kit = start.threads.first().expect("a thread");
    let write = move |_: &events::Events| {
        for _ in 0..WRITES {
            let span = Span { offset: 0, length: memory.size() as u32 };
            IS_WRITING.store(true, Relaxed);
            let written = client.write(Channel::Terminal, position, span);
            IS_WRITING.store(false, Relaxed);
            match written {
                Ok(end) => position = end,
                Err(error) => panic!("write to the terminal: {error}"),
            }
        }
    };
    thread::start(kit, write).expect("a thread");
    for _ in 0..WRITES {
        events::main().sleep_ns(TURN_NS);
        if IS_WRITING.load(Relaxed) {
            break;
        }
    }
    1
}
