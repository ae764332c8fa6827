//! What a program does with a session of `fs` that means harm to its neighbours, and the neighbour.

use alloc::format;
use alloc::vec::Vec;

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

/// The root directory's cluster, and those behind it, of the files that were put on the disk first.
const CLUSTERS: core::ops::Range<u16> = 2..10;

/// A slot of a FAT32 directory.
fn slot(name: &str, attributes: u8, first: u16) -> [u8; 32] {
    let mut slot = [0; 32];
    slot[..11].copy_from_slice(format!("{name:<11}").as_bytes());
    slot[11] = attributes;
    slot[26..28].copy_from_slice(&first.to_le_bytes());
    slot[28..30].copy_from_slice(&512u16.to_le_bytes());
    slot
}

/// Writes a directory into its file, with entries that name others' clusters, and tries to have it
/// taken for one.
pub fn forges(start: &'static StartInfo, edge: &str, path: &str) {
    let fs = files(start, edge);
    let open = |path: &str| fs.open(path, Access::Write, Create::Never, request());
    let own = open(path).expect("a file").handle;
    let mut done = 0;
    for cluster in CLUSTERS {
        let dots = [slot(".", 0x10, cluster), slot("..", 0x10, 0)];
        let others = CLUSTERS.map(|first| slot(&format!("X{first}"), 0x20, first));
        let bytes: Vec<u8> = dots.into_iter().chain(others).flatten().collect();
        let span = Span { offset: 0, length: bytes.len() as u32 };
        fs.session().shared.write(0, &bytes);
        fs.write(own, 0, span).expect("a write to its own file");
        done += u32::from(fs.list(path, 0, span).is_ok());
        done += u32::from(fs.make_directory(&format!("{path}/D"), request()).is_ok());
        for other in CLUSTERS.map(|first| format!("{path}/X{first}")) {
            if let Ok(opened) = open(&other) {
                done += 1;
                let _ = (fs.write(opened.handle, 0, span), fs.truncate(opened.handle, 0));
            }
            done += u32::from(fs.status(&other).is_ok());
            done += u32::from(fs.rename(&other, "/STOLEN", request()).is_ok());
            done += u32::from(fs.remove(&other, request()).is_ok());
        }
    }
    libipc::println!("forges {done}");
}

/// Tries to reach the file `name` of the volume's root from a session of a folder, and to change what
/// it may only read: its own folder's `OWN`.
pub fn strays(start: &'static StartInfo, edge: &str, name: &str) {
    let fs = files(start, edge);
    let open = |path: &str, access, create| fs.open(path, access, create, request()).is_ok();
    let mut done = 0;
    for up in ["/", "/../", "/../../", "/./../", "//../", "/OWN/../../", "/NONE/../../"] {
        let path = format!("{up}{name}");
        done += u32::from(open(&path, Access::Read, Create::Never));
        done += u32::from(fs.status(&path).is_ok());
        done += u32::from(fs.remove(&path, request()).is_ok());
        done += u32::from(fs.rename(&path, "/STOLEN", request()).is_ok());
    }
    done += u32::from(open("/OWN", Access::Write, Create::Never));
    done += u32::from(open("/NEW", Access::Read, Create::IfMissing));
    done += u32::from(open("/OWN", Access::Read, Create::Truncate));
    done += u32::from(fs.make_directory("/D", request()).is_ok());
    done += u32::from(fs.rename("/OWN", "/OTHER", request()).is_ok());
    done += u32::from(fs.remove("/OWN", request()).is_ok());
    let own = open("/OWN", Access::Read, Create::Never);
    libipc::println!("strays {done}, and has its own: {own}");
}
