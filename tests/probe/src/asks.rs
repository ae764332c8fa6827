//! A client that is in nobody's way: it asks its servers for something small all the time, and measures
//! how long each takes to answer.

use libipc::cap::{Cap, Log};
use libipc::start::{StartInfo, slot};
use libipc::{events, time};
use skink_protocols::console::{Channel, ConsoleClient};
use skink_protocols::file::{FileError, FileSystemClient};
use skink_protocols::hello::HelloClient;

/// Between two rounds.
const PAUSE_NS: u64 = 1_000_000;
/// What is asked of a disk: the second is there on every disk that this is used on, and sound.
const PATHS: [&str; 2] = ["/SMALL/NONE", "/SMALL/S.TXT"];

/// Time in which somebody had something to do: instructions, where they are counted.
fn busy_ns() -> u64 {
    let idle_ns = Cap::<Log>::new(slot::LOG).statistics().map_or(0, |statistics| statistics[3]);
    time::now_ns().saturating_sub(idle_ns)
}

/// The longest that a server has taken so far.
struct Longest {
    name: &'static str,
    busy_ns: u64,
}

impl Longest {
    fn new(name: &'static str) -> Self {
        Longest { name, busy_ns: 0 }
    }

    /// Asks; tells of it if no answer took longer.
    fn ask(&mut self, ask: impl FnOnce() -> bool) {
        let before = busy_ns();
        let is_answered = ask();
        let took = busy_ns() - before;
        if !is_answered {
            log::error!("asks {} in vain", self.name);
        }
        if took > self.busy_ns {
            self.busy_ns = took;
            log::info!("asks {}: {took} busy-ns", self.name);
        }
    }
}

/// Whether a file server said something about a path: what it holds is not the point.
fn is_told<T>(answer: Result<T, FileError>) -> bool {
    !matches!(answer, Err(FileError::Ipc(_)))
}

/// Asks for ever.
pub fn asks(start: &'static StartInfo) {
    let session = |edge| start.session(edge, 0).expect("an edge of this name");
    let (disk, boot) = (session("disk"), session("boot"));
    let (disk, boot) = (FileSystemClient::new(disk), FileSystemClient::new(boot));
    let hello = HelloClient::new(session("hello"));
    let console = ConsoleClient::new(session("terminal"));
    let mut longest = ["disk", "boot", "hello", "console"].map(Longest::new);
    // Whoever asks a disk first waits until it has been looked over.
    let _ = disk.status(PATHS[0]);
    loop {
        for path in PATHS {
            longest[0].ask(|| is_told(disk.status(path)));
        }
        longest[1].ask(|| is_told(boot.status("/NONE")));
        longest[2].ask(|| hello.add(1, 2) == Ok(3));
        longest[3].ask(|| console.attach(Channel::Terminal).is_ok());
        events::main().sleep_ns(PAUSE_NS);
    }
}
