//! Spoiled survivor regions, and clients that die.

use super::super::helpers::pattern;
use super::world::{CALLER, Client, REGION_BYTES, Step, World};
use skink_protocols::file::{Access, Create, FileError, FileSystemServer, RequestId};

fn busy_world(seed: u64) -> World {
    let mut world = World::new(seed);
    for step in [
        Step::MakeDirectory { path: 1 },
        Step::Open { path: 0, create: Create::IfMissing },
        Step::Write { file: 0, position: 0, len: 20_000, seed: 1 },
        Step::Sync,
        Step::Write { file: 0, position: 100, len: 20_000, seed: 2 },
        Step::Open { path: 2, create: Create::IfMissing },
        Step::Write { file: 1, position: 0, len: 9_000, seed: 3 },
    ] {
        world.call(&step, Client::CallsAgain);
    }
    world
}

/// A word of the region is changed: the state is discarded, and the disk is as the last `sync`
/// left it or later, never something else; or the word did not matter.
#[test]
fn a_spoiled_region_is_not_believed() {
    let mut discarded = 0;
    for word in (0..REGION_BYTES / 8).step_by(61).chain(0..64).chain(8..400) {
        let mut world = busy_world(word as u64);
        let at = world.survivor.word(word * 8);
        let old = at.load(std::sync::atomic::Ordering::Relaxed);
        at.store(old ^ 1 << (word * 7 % 64), std::sync::atomic::Ordering::Relaxed);
        world.restart();
        if world.server().status(CALLER, "/DIR").is_err() || !world.handles_work() {
            discarded += 1;
            let opened = world
                .server()
                .open(CALLER, "/A.TXT", Access::Write, Create::Never, RequestId::NONE)
                .expect("what was synced is there");
            assert!(opened.metadata.size >= 20_000, "{}", opened.metadata.size);
            world.server().sync(CALLER).expect("and can be synced");
        } else {
            world.check_tree();
            world.finish();
        }
    }
    assert!(discarded > 100, "{discarded}");
}

/// Version, size, buffers, check.
#[test]
fn every_word_of_the_header_counts() {
    for word in 0..4 {
        for bit in [0, 5, 31, 40, 63] {
            let mut world = busy_world(1);
            let at = world.survivor.word(word * 8);
            at.fetch_xor(1 << bit, std::sync::atomic::Ordering::Relaxed);
            world.restart();
            assert!(!world.handles_work(), "word {word}, bit {bit}");
            assert_eq!(world.server().status(CALLER, "/A.TXT").map(|m| m.size), Ok(20_000));
        }
    }
}

#[test]
fn random_bytes_are_no_state() {
    for seed in 0..20 {
        let mut world = busy_world(seed);
        world.survivor.write(0, &pattern(REGION_BYTES, seed));
        world.restart();
        assert_eq!(world.server().status(CALLER, "/A.TXT").map(|m| m.size), Ok(20_000));
        assert!(!world.handles_work());
    }
}

#[test]
fn handles_of_a_client_that_died_are_closed_also_when_the_server_died_too() {
    for server_dies in [false, true] {
        let mut world = busy_world(1);
        let handles = world.restart_client();
        if server_dies {
            world.restart();
            world.server().status(CALLER, "/").unwrap();
        } else {
            world.sessions_changed();
        }
        for handle in handles {
            let status = world.server().handle_status(CALLER, handle);
            assert_eq!(status, Err(FileError::BadHandle));
        }
        // Nothing is open, so this is not `Busy`.
        world.server().remove(CALLER, "/A.TXT", RequestId(99)).unwrap();
        world.restart();
        let gone = world.server().status(CALLER, "/A.TXT");
        assert_eq!(gone, Err(FileError::NotFound));
    }
}

#[test]
fn a_request_is_executed_once_and_answered_again_by_the_successor() {
    let mut world = World::new(1);
    let server = world.server();
    server.make_directory(CALLER, "/x", RequestId(5)).unwrap();
    server.make_directory(CALLER, "/x", RequestId(5)).unwrap();
    assert_eq!(server.make_directory(CALLER, "/x", RequestId(6)), Err(FileError::Exists));
    let first = server.open(CALLER, "/y", Access::Write, Create::IfMissing, RequestId(7)).unwrap();
    world.restart();
    let server = world.server();
    let again = server.open(CALLER, "/y", Access::Write, Create::IfMissing, RequestId(7)).unwrap();
    assert_eq!(again, first);
    server.close(CALLER, first.handle).unwrap();
    world.restart();
    let server = world.server();
    assert_eq!(server.close(CALLER, first.handle), Ok(()), "the answer was lost");
    server.remove(CALLER, "/x", RequestId(8)).unwrap();
    world.restart();
    let server = world.server();
    server.remove(CALLER, "/x", RequestId(8)).unwrap();
    assert_eq!(server.remove(CALLER, "/x", RequestId(9)), Err(FileError::NotFound));
}
