//! Programs from a disk: loading, the life in a slot, and that nothing is left of it.

use super::*;
use crate::custody::Owner;
use crate::plan::kit;
use crate::supervise::Order;
use skink_abi::{Invocation, PAGE_SIZE};
use skink_manifest::SessionGrant;
use skink_protocols::control::{
    MAX_FILE, ProgramEntry, ProgramNeed, ProgramState, RunError, Started,
};

fn entry(name: &str) -> ProgramEntry {
    let need = ProgramNeed {
        name: "data".try_into().unwrap(),
        server: "files".try_into().unwrap(),
        protocol: "file".try_into().unwrap(),
        shared_bytes: 0,
        grant: SessionGrant::default(),
    };
    ProgramEntry {
        name: name.try_into().unwrap(),
        needs: [need].as_slice().try_into().unwrap(),
        survivor_bytes: 8192,
        stack_bytes: 16384,
        heap_bytes: 8192,
        ..ProgramEntry::default()
    }
}

/// Loads the test's program; its load's number.
fn load(world: &mut World) -> u32 {
    let file = program();
    let number = world.system.load(SHELL, file.len() as u32).unwrap();
    for (i, piece) in file.chunks(1000).enumerate() {
        world.system.load_piece(SHELL, number, i as u32 * 1000, piece).unwrap();
    }
    number
}

fn run(world: &mut World, entry: &ProgramEntry) -> Result<Started, RunError> {
    let number = load(world);
    world.system.run_program(SHELL, number, entry)
}

fn free(world: &World) -> (u64, u64) {
    (world.system.custody.untyped.free_bytes(), world.system.custody.slots.free())
}

#[test]
fn a_file_is_loaded_piece_by_piece_by_one_server_at_a_time() {
    booted(|mut world| {
        let before = free(&world);
        for size in [0, MAX_FILE + 1] {
            assert_eq!(world.system.load(SHELL, size), Err(RunError::FileSize));
        }
        let number = world.system.load(SHELL, 5000).unwrap();
        assert_eq!(world.system.load(SHELL, 10), Err(RunError::Busy));
        let piece = |world: &mut World, owner, number, offset, bytes: &[u8]| {
            world.system.load_piece(owner, number, offset, bytes)
        };
        assert_eq!(piece(&mut world, FILES, number, 0, &[1]), Err(RunError::NoLoad));
        assert_eq!(piece(&mut world, SHELL, number + 1, 0, &[1]), Err(RunError::NoLoad));
        assert_eq!(piece(&mut world, SHELL, number, 1, &[1]), Err(RunError::BadPiece));
        assert_eq!(piece(&mut world, SHELL, number, 0, &[1; 4096]), Ok(()));
        assert_eq!(piece(&mut world, SHELL, number, 0, &[1]), Err(RunError::BadPiece));
        assert_eq!(piece(&mut world, SHELL, number, 4096, &[2; 905]), Err(RunError::BadPiece));
        assert_eq!(piece(&mut world, SHELL, number, 4096, &[2; 904]), Ok(()));
        let (memory, size) = world.system.loaded().unwrap();
        assert_eq!(size, 5000);
        memory.with_slice(|bytes| {
            assert_eq!((bytes[4095], bytes[4096], bytes[4999], bytes[5000]), (1, 2, 2, 0));
        });
        assert_eq!(world.system.unload(FILES, number), Err(RunError::NoLoad));
        assert_eq!(world.system.unload(SHELL, number), Ok(()));
        assert_eq!(world.system.unload(SHELL, number), Err(RunError::NoLoad));
        assert!(world.system.loaded().is_none());
        assert_eq!(free(&world), before);
        assert_eq!(world.system.load(SHELL, MAX_FILE), Ok(number + 1));
    });
}

#[test]
fn what_a_dead_server_was_loading_is_forgotten_and_nothing_of_others() {
    booted(|mut world| {
        let before = free(&world);
        load(&mut world);
        world.system.forget_load_of(FILES);
        assert!(world.system.loaded().is_some());
        world.system.event(Event::Died(SHELL, Cause::Killed));
        assert!(world.system.loaded().is_none());
        assert_eq!(free(&world), before);
    });
}

#[test]
fn a_program_gets_what_its_entry_says_and_prints_into_its_session() {
    booted(|mut world| {
        let started = run(&mut world, &entry("hello")).unwrap();
        assert_eq!(started.name, "hello");
        assert_eq!(started.output, world.system.sessions[4].badge);
        assert!(world.system.is_running(SLOT) && !world.system.is_vacant(SLOT));
        assert!(world.system.loaded().is_none(), "the load is over");
        assert_eq!(world.system.find("hello"), Ok(SLOT));
        let number = started.number;
        assert_eq!(world.system.program_state(number), ProgramState::Running { serves: false });
        world.page(SLOT).ready_ns.store(1, core::sync::atomic::Ordering::Relaxed);
        assert_eq!(world.system.program_state(number), ProgramState::Running { serves: true });
        assert_eq!(world.system.program_state(number + 1), ProgramState::Unknown);
        // The edges that it asked for have its names; a second program finds no slot.
        assert!(world.system.is_granted(2) && world.system.is_granted(3));
        assert_eq!(world.system.manifest.edges[2].name, "data");
        assert_eq!(run(&mut world, &entry("other")), Err(RunError::NoSlot));
        assert!(world.system.loaded().is_none());
    });
}

#[test]
fn an_edge_that_is_not_asked_for_is_not_given() {
    booted(|mut world| {
        let none = ProgramEntry { needs: Default::default(), ..entry("hello") };
        run(&mut world, &none).unwrap();
        assert!(!world.system.is_granted(2) && world.system.is_granted(3));
        assert!(world.system.is_granted(0), "servers have theirs always");
        assert_eq!(world.system.service(SLOT).unwrap().needs.len(), 1);
    });
}

#[test]
fn a_grant_is_the_slots_or_the_less_that_was_asked_for() {
    booted(|mut world| {
        let less = SessionGrant { access: skink_manifest::Access::Read, ..Default::default() };
        let mut asking = entry("hello");
        asking.needs[0].grant = less.clone();
        run(&mut world, &asking).unwrap();
        assert_eq!(world.system.grant_of(2), less);
        assert_eq!(world.system.grant_of(1), SessionGrant::default());
        world.system.event(Event::Order(SLOT, Order::Stop));
        assert_eq!(world.system.grant_of(2), SessionGrant::default());
    });
}

#[test]
fn what_is_incomplete_or_refused_or_no_program_starts_nothing_and_keeps_nothing() {
    booted(|mut world| {
        let before = free(&world);
        let number = world.system.load(SHELL, 100).unwrap();
        world.system.load_piece(SHELL, number, 0, &[1; 99]).unwrap();
        assert_eq!(world.system.run_program(SHELL, number, &entry("x")), Err(RunError::Incomplete));
        assert_eq!(free(&world), before);
        let too_much = ProgramEntry { memory_bytes: 1 << 40, ..entry("x") };
        assert!(matches!(run(&mut world, &too_much), Err(RunError::Refused(_))));
        assert!(world.system.is_vacant(SLOT));
        assert_eq!(free(&world), before);
        let number = world.system.load(SHELL, 100).unwrap();
        world.system.load_piece(SHELL, number, 0, &[1; 100]).unwrap();
        let refused = world.system.run_program(SHELL, number, &entry("x")).unwrap_err();
        assert!(matches!(refused, RunError::Refused(_)), "{refused:?}");
        assert!(world.system.is_vacant(SLOT));
        assert_eq!(free(&world), before);
        // None of this is in the way of the next.
        assert!(run(&mut world, &entry("x")).is_ok());
    });
}

#[test]
fn each_end_is_told_and_everything_comes_back() {
    booted(|mut world| {
        let before = free(&world);
        let mut numbers = StdVec::new();
        for (cause, state) in [
            (Cause::Exit(0), ProgramState::Exited(0)),
            (Cause::Exit(7), ProgramState::Exited(7)),
            (Cause::Killed, ProgramState::Stopped),
            (Cause::Restarted, ProgramState::Stopped),
            (Cause::Fault, ProgramState::Died),
        ] {
            let started = run(&mut world, &entry("hello")).unwrap();
            assert!(free(&world).0 < before.0);
            world.system.event(Event::Died(SLOT, cause));
            assert_eq!(world.system.program_state(started.number), state, "{cause:?}");
            assert!(world.system.is_vacant(SLOT) && !world.system.is_running(SLOT));
            assert_eq!(free(&world), before, "{cause:?}");
            assert_eq!(world.system.custody.untyped.bytes_of(Owner::Program(SLOT.0)), 0);
            assert!(world.system.find("hello").is_err());
            let own = &world.system.servers[SLOT.index()];
            assert!(own.quota.is_none() && own.pristine.is_empty() && own.threads.is_empty());
            assert!(!own.is_prepared && own.plan.mappings.is_empty());
            numbers.push((started.number, state));
        }
        // All of these are remembered; of many the last sixteen.
        for (number, state) in &numbers {
            assert_eq!(world.system.program_state(*number), *state);
        }
        for _ in 0..12 {
            run(&mut world, &entry("hello")).unwrap();
            world.system.event(Event::Died(SLOT, Cause::Exit(0)));
        }
        assert_eq!(world.system.program_state(numbers[0].0), ProgramState::Unknown);
        assert_eq!(world.system.program_state(numbers[1].0), ProgramState::Exited(7));
    });
}

#[test]
fn a_program_that_dies_too_often_is_given_up() {
    booted(|mut world| {
        let permanent =
            ProgramEntry { restart: Restart::Permanent, intensity: 0, ..entry("hello") };
        let started = run(&mut world, &permanent).unwrap();
        world.system.event(Event::Died(SLOT, Cause::Fault));
        assert_eq!(world.system.program_state(started.number), ProgramState::GivenUp);
        assert!(world.system.is_vacant(SLOT));
    });
}

#[test]
fn what_the_slot_counted_before_is_not_the_programs() {
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        let again = ProgramEntry { restart: Restart::Permanent, ..entry("one") };
        run(&mut world, &again).unwrap();
        let context = kit_cptr(SLOT.0, kit::SCHED_CONTEXTS).0;
        world.machine.borrow_mut().consumed_ns.insert(context, 500);
        world.page(SLOT).loops.store(9, Relaxed);
        assert_eq!((world.system.cpu_ns_told(SLOT), world.system.told(SLOT, 1)), (500, 1));
        world.system.event(Event::Died(SLOT, Cause::Exit(1)));
        assert!(world.system.latest_record(SLOT).is_some());
        // The scheduling context of the next instance is a new one.
        world.machine.borrow_mut().consumed_ns.insert(context, 0);
        world.system.event(Event::Order(SLOT, Order::Stop));
        world.machine.borrow_mut().consumed_ns.insert(context, 30);
        run(&mut world, &entry("two")).unwrap();
        assert_eq!((world.system.cpu_ns(SLOT), world.system.cpu_ns_told(SLOT)), (530, 30));
        assert_eq!(world.page(SLOT).loops.load(Relaxed), 0);
        assert!(world.system.latest_record(SLOT).is_none());
        let status = world.system.status_of(SLOT).unwrap();
        assert_eq!((status.name.as_str(), status.incarnation, status.restarts), ("two", 1, 0));
    });
}

#[test]
fn shared_memory_is_cleared_before_the_next_program_sees_it() {
    booted(|mut world| {
        let frames = |world: &World, session: usize| {
            let shared = world.system.sessions[session].shared;
            shared.first..shared.first + shared.count
        };
        let mine = [frames(&world, 3), frames(&world, 4)];
        let other = frames(&world, 1);
        assert_eq!(mine.clone().map(|range| range.count()), [2, 1]);
        for frame in mine.iter().cloned().flatten().chain(other.clone()) {
            world.machine.borrow_mut().frames.insert(frame, std::vec![7; PAGE_SIZE]);
        }
        let only_output = ProgramEntry { needs: Default::default(), ..entry("hello") };
        run(&mut world, &only_output).unwrap();
        let holds =
            |world: &World, frame: u64| world.machine.borrow().frames[&frame][PAGE_SIZE - 1];
        assert_eq!(holds(&world, mine[1].start), 0);
        for frame in mine[0].clone().chain(other.clone()) {
            assert_eq!(holds(&world, frame), 7, "it is not this program's");
        }
        world.system.event(Event::Died(SLOT, Cause::Exit(0)));
        run(&mut world, &entry("hello")).unwrap();
        for frame in mine[0].clone() {
            assert_eq!(holds(&world, frame), 0);
        }
        assert_eq!(holds(&world, other.start), 7);
    });
}

#[test]
fn after_a_program_its_sessions_name_no_slots() {
    booted(|mut world| {
        run(&mut world, &entry("hello")).unwrap();
        let held = |world: &World| {
            let its = [world.system.sessions[3], world.system.sessions[4]];
            its.map(|session| (session.client_slot, session.server_bell.held))
        };
        assert!(held(&world).iter().all(|(slot, bell)| *slot != 0 && *bell != 0));
        let neighbours = world.system.sessions[1].client_slot;
        world.system.event(Event::Died(SLOT, Cause::Exit(0)));
        assert_eq!(held(&world), [(0, 0); 2]);
        assert_eq!(world.system.sessions[1].client_slot, neighbours);
    });
}

#[test]
fn permits_tell_what_a_program_would_get() {
    booted(|world| {
        let permits = world.system.permits(&entry("x")).unwrap();
        let told: StdVec<_> = permits
            .iter()
            .map(|permit| (permit.name.as_str(), permit.server.as_str(), permit.protocol.as_str()))
            .collect();
        assert_eq!(told, [("data", "files", "file"), ("output", "shell", "output")]);
        assert!(world.system.is_vacant(SLOT) && !world.system.is_granted(2));
        let too_much = ProgramEntry { memory_bytes: 1 << 40, ..entry("x") };
        assert!(matches!(world.system.permits(&too_much), Err(RunError::Refused(_))));
    });
}

#[test]
fn a_pane_that_is_given_back_shows_the_next_file_where_the_last_one_was() {
    booted(|mut world| {
        let at = |world: &mut World| {
            run(world, &entry("hello")).unwrap();
            let base = world.system.servers[SLOT.index()].pristine;
            world.system.event(Event::Died(SLOT, Cause::Exit(0)));
            std::format!("{base:?}")
        };
        let first = at(&mut world);
        world.asked();
        assert_eq!(at(&mut world), first);
        let tables = world
            .machine
            .borrow()
            .all(Invocation::PageTableMap)
            .iter()
            .filter(|asked| asked.caps == [boot::VSPACE])
            .count();
        assert_eq!(tables, 0, "showing something there takes no memory");
    });
}
