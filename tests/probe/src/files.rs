//! What a program does with a session of `fs` that means harm to its neighbours, and the neighbour.

use libipc::events;
use libipc::start::StartInfo;
use skink_protocols::Span;
use skink_protocols::file::client::request;
use skink_protocols::file::{Access, Create, FileSystemClient, Handle};

const SPAN: Span = Span { offset: 0, length: 11 };
/// Numbers below its own that `steals` tries, and above.
const NEAR: u64 = 300;

fn files(start: &'static StartInfo, edge: &str) -> FileSystemClient {
    FileSystemClient::new(start.session(edge, 0).expect("an edge of this name"))
}

/// Has a file open for so long, and then writes to it.
pub fn keeps(start: &'static StartInfo, edge: &str, path: &str, ms: u64) {
    let fs = files(start, edge);
    let open = fs.open(path, Access::Write, Create::IfMissing, request()).expect("a file");
    fs.session().shared.write(0, b"the secret\n");
    fs.write(open.handle, 0, SPAN).expect("a write");
    events::main().sleep_ns(ms * 1_000_000);
    let kept = fs.handle_status(open.handle).map(|status| status.size);
    libipc::println!("keeps {kept:?}");
}

/// Tries everything with every handle near one of its own.
pub fn steals(start: &'static StartInfo, edge: &str, path: &str) {
    let fs = files(start, edge);
    let own = fs.open(path, Access::Read, Create::Never, request()).expect("a file").handle.0;
    let near = (own.saturating_sub(NEAR)..own + NEAR).filter(|number| *number != own);
    let edges = [0, 1, u64::MAX, own ^ 1 << 32, own << 32];
    let mut done = 0;
    for handle in near.chain(edges).map(Handle) {
        fs.session().shared.write(0, b"OVERWRITTEN");
        done += u32::from(fs.read(handle, 0, SPAN).is_ok());
        done += u32::from(fs.write(handle, 0, SPAN).is_ok());
        done += u32::from(fs.truncate(handle, 1).is_ok());
        done += u32::from(fs.handle_status(handle).is_ok());
        done += u32::from(fs.close(handle).is_ok());
    }
    libipc::println!("steals {done}, and has its own: {}", fs.close(Handle(own)).is_ok());
}

/// Takes all handles that it gets, and keeps them for so long.
pub fn hoards(start: &'static StartInfo, edge: &str, path: &str, ms: u64) {
    let fs = files(start, edge);
    let mut opens = (0..10_000).map(|_| fs.open(path, Access::Read, Create::Never, request()));
    let refused = opens.position(|open| open.is_err());
    libipc::println!("hoards {}", refused.is_some_and(|count| (1..64).contains(&count)));
    events::main().sleep_ns(ms * 1_000_000);
}
