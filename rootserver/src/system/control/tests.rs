//! Who is heard by the root server as a client that complains.

use super::*;
use crate::supervise::{Action, Actions};
use crate::system::lending::tests::{World, in_world};
use crate::system::slots::Slot;

const SERVER: ServerId = ServerId(0);
/// Its edge says that it may complain.
const BELIEVED: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);

/// The world of [`in_world`], all of whose servers run for the supervisor too.
pub(in crate::system) fn running(world: &mut World) {
    world.system.supervisor.load(&world.system.manifest);
    let mut step = |event| {
        let mut actions = Actions::new();
        world.system.supervisor.step(0, event, Default::default(), &mut actions);
    };
    step(Event::Boot);
    [SERVER, BELIEVED, OTHER].into_iter().for_each(|server| step(Event::Started(server)));
}

#[test]
fn who_may_not_complain_is_refused_and_its_server_runs_on() {
    in_world(|mut world| {
        running(&mut world);
        let nobody = Caller(0);
        let mut call = Call { system: &mut world.system, caller: OTHER, ended: false };
        assert_eq!(call.expect_answer(nobody, "x", 1), Err(EdgeError::NotPermitted));
        let complained = call.complain(nobody, "x", 1, Misconduct::Late);
        assert_eq!(complained, Err(EdgeError::NotPermitted));
        assert_eq!(call.complain(nobody, "y", 1, Misconduct::Late), Err(EdgeError::UnknownEdge));
        assert_eq!(call.peer_state(nobody, "x").map(|state| state.incarnation), Ok(1));
        let mut actions = Actions::new();
        let (later, seen) = (u64::MAX, Default::default());
        world.system.supervisor.step(later, Event::TimerFired, seen, &mut actions);
        let ends = |action: &Action| matches!(action, Action::TearDown(..));
        assert!(!actions.iter().any(ends), "nothing was expected: {actions:?}");
        let mut call = Call { system: &mut world.system, caller: BELIEVED, ended: false };
        assert_eq!(call.expect_answer(nobody, "x", u64::MAX), Ok(()));
    });
}

/// Nobody has this program yet, and [`OTHER`] is its slot.
const PROGRAM: u32 = 7;

#[test]
fn a_program_is_stopped_by_its_number_and_who_has_its_place_goes_on() {
    in_world(|mut world| {
        running(&mut world);
        world.system.manifest.servers[BELIEVED.index()].privileges.control = true;
        world.system.servers[OTHER.index()].slot = Some(Slot::of_test(PROGRAM));
        let nobody = Caller(0);
        let mut call = Call { system: &mut world.system, caller: BELIEVED, ended: false };
        // It has ended, and another program has its slot, and so its name if it has one like it.
        for number in [PROGRAM - 1, PROGRAM + 1, 0] {
            assert_eq!(call.stop_program(nobody, number), Err(ControlError::NotRunning));
            assert!(call.system.is_running(OTHER));
        }
        let mut stranger = Call { system: call.system, caller: SERVER, ended: false };
        assert_eq!(stranger.stop_program(nobody, PROGRAM), Err(ControlError::NotPermitted));
        assert!(world.system.is_running(OTHER));
        let mut call = Call { system: &mut world.system, caller: BELIEVED, ended: false };
        assert_eq!(call.stop_program(nobody, PROGRAM), Ok(()));
        assert!(!call.system.is_running(OTHER) && call.system.is_running(SERVER));
        assert_eq!(call.stop_program(nobody, PROGRAM), Err(ControlError::NotRunning));
    });
}

mod shell {
    //! What the shell may ask for, and nobody else.

    use super::*;
    use crate::system::tests::{DISK, FILES, SHELL, SLOT, World, booted};
    use skink_abi::Invocation;
    use skink_protocols::control::{Cause as Told, ProgramEntry, ServerState, When};

    const NOBODY: Caller = Caller(0);

    fn by(world: &mut World, caller: ServerId) -> Call<'_> {
        Call { system: &mut world.system, caller, ended: false }
    }

    #[test]
    fn who_has_not_the_privilege_is_refused_everything() {
        booted(|mut world| {
            let mut call = by(&mut world, DISK);
            let no = ControlError::NotPermitted;
            let refused = RunError::Control(no);
            let entry = ProgramEntry::default;
            assert_eq!(call.status(NOBODY, 0).unwrap_err(), no);
            assert_eq!(call.kill(NOBODY, "files", KillSpec::default()).unwrap_err(), no);
            assert_eq!(call.restart(NOBODY, "files").unwrap_err(), no);
            assert_eq!(call.stop(NOBODY, "files").unwrap_err(), no);
            assert_eq!(call.start(NOBODY, "files").unwrap_err(), no);
            assert_eq!(call.service(NOBODY, "files").unwrap_err(), no);
            let sessions = ControlServer::sessions(&mut call, NOBODY, "files", 0);
            assert_eq!(sessions.unwrap_err(), no);
            assert_eq!(call.capabilities(NOBODY, "files", 0).unwrap_err(), no);
            assert_eq!(call.crash(NOBODY, 0).unwrap_err(), no);
            assert_eq!(call.crash_count(NOBODY).unwrap_err(), no);
            assert_eq!(call.order(NOBODY, 1).unwrap_err(), no);
            assert_eq!(call.order_count(NOBODY).unwrap_err(), no);
            assert_eq!(call.free(NOBODY).unwrap_err(), no);
            assert_eq!(call.load(NOBODY, 1).unwrap_err(), refused);
            assert_eq!(call.load_piece(NOBODY, 1, 0, &[]).unwrap_err(), refused);
            assert_eq!(call.unload(NOBODY, 1).unwrap_err(), refused);
            assert_eq!(call.run(NOBODY, 1, entry()).unwrap_err(), refused);
            assert_eq!(call.permits(NOBODY, entry()).unwrap_err(), refused);
            assert_eq!(call.program(NOBODY, 1).unwrap_err(), no);
            assert_eq!(call.shutdown(NOBODY, 0).unwrap_err(), no);
            assert!(world.system.is_running(FILES));
            assert!(world.asked().iter().all(|a| a.what != Invocation::MachineControlExit));
        });
    }

    #[test]
    fn ps_lists_servers_in_their_order_and_ends() {
        booted(|mut world| {
            let mut call = by(&mut world, SHELL);
            let name = |call: &mut Call<'_>, index| {
                call.status(NOBODY, index).unwrap().map(|status| status.name.as_str().to_owned())
            };
            use std::borrow::ToOwned;
            for (index, expected) in [(0, "disk"), (1, "files"), (2, "shell")] {
                assert_eq!(name(&mut call, index).as_deref(), Some(expected));
            }
            assert_eq!(name(&mut call, 3), None);
        });
    }

    #[test]
    fn servers_are_stopped_started_and_restarted_and_each_is_an_order() {
        booted(|mut world| {
            let mut call = by(&mut world, SHELL);
            assert_eq!(call.start(NOBODY, "files"), Err(ControlError::Running));
            assert_eq!(call.start(NOBODY, "nobody"), Err(ControlError::UnknownServer));
            assert_eq!(call.restart(NOBODY, "files"), Ok(()));
            assert_eq!(call.system.servers[FILES.index()].incarnation, 2);
            assert_eq!(call.stop(NOBODY, "files"), Ok(()));
            assert!(!call.system.is_running(FILES));
            assert_eq!(call.stop(NOBODY, "files"), Err(ControlError::NotRunning));
            assert_eq!(call.start(NOBODY, "files"), Ok(()));
            assert!(call.system.is_running(FILES));
            assert_eq!(call.crash_count(NOBODY), Ok(2));
            assert_eq!(call.order_count(NOBODY), Ok(2));
            let order = call.order(NOBODY, 2).unwrap().unwrap();
            assert_eq!((order.server.as_str(), order.reached, order.died), ("files", 1, 1));
            assert!(call.order(NOBODY, 3).unwrap().is_none());
            let (latest, first) = (call.crash(NOBODY, 0), call.crash(NOBODY, 1));
            assert_eq!(latest.unwrap().unwrap().order, Some(2));
            assert_eq!(first.unwrap().unwrap().cause, Told::Restarted);
            assert!(call.crash(NOBODY, 2).unwrap().is_none());
            // One that cannot start is told.
            assert_eq!(call.stop(NOBODY, "disk"), Ok(()));
            call.system.servers[DISK.index()].is_quarantined = true;
            assert_eq!(call.start(NOBODY, "disk"), Err(ControlError::NotRunning));
            assert_eq!(call.restart(NOBODY, "disk"), Err(ControlError::NotRunning));
        });
    }

    #[test]
    fn a_server_is_killed_now_or_the_order_is_refused() {
        booted(|mut world| {
            let mut call = by(&mut world, SHELL);
            let now = KillSpec { when: When::Now, ..KillSpec::default() };
            let number = call.kill(NOBODY, "disk", now.clone()).unwrap();
            assert!(!call.system.is_running(DISK));
            let record = call.crash(NOBODY, 0).unwrap().unwrap();
            assert_eq!((record.cause, record.order), (Told::Killed, Some(number)));
            assert_eq!(call.kill(NOBODY, "disk", now), Err(ControlError::NotRunning));
            let refused = call.order(NOBODY, number + 1).unwrap().unwrap();
            assert_eq!((refused.reached, refused.died), (0, 0));
            assert!(refused.withdrawn.is_some());
        });
    }

    #[test]
    fn what_is_free_is_told() {
        booted(|mut world| {
            let slots = world.system.custody.slots.free();
            let bytes = world.system.custody.untyped.free_bytes();
            world.set_statistics([1, 222, 3, 4]);
            let free = by(&mut world, SHELL).free(NOBODY).unwrap();
            assert_eq!((free.ram_bytes, free.untyped_bytes, free.slots), (1 << 27, bytes, slots));
            assert_eq!((free.objects, free.frames, free.interrupts), (222, 0, 0));
            // Each thread has a timer.
            assert_eq!((free.timers, free.sessions), (5, 5));
        });
    }

    #[test]
    fn one_server_is_told_with_sessions_and_capabilities() {
        booted(|mut world| {
            let mut call = by(&mut world, SHELL);
            let service = call.service(NOBODY, "disk").unwrap();
            assert_eq!(service.status.state, ServerState::Running);
            assert_eq!(call.service(NOBODY, "p0").unwrap_err(), ControlError::UnknownServer);
            let sessions = ControlServer::sessions(&mut call, NOBODY, "files", 1).unwrap();
            assert_eq!(sessions.len(), 1);
            let first = call.capabilities(NOBODY, "disk", 0).unwrap();
            let second = call.capabilities(NOBODY, "disk", 1).unwrap();
            assert_eq!(first[1..], second[..first.len() - 1]);
            // What an empty slot's last program held is still told; there was none.
            assert_eq!(call.capabilities(NOBODY, "p0", 0).unwrap().len(), 0);
            let unknown = call.capabilities(NOBODY, "nobody", 0).unwrap_err();
            assert_eq!(unknown, ControlError::UnknownServer);
        });
    }

    #[test]
    fn shutdown_ends_the_machine_with_its_code() {
        booted(|mut world| {
            assert_eq!(by(&mut world, SHELL).shutdown(NOBODY, 7), Ok(()));
            assert_eq!(world.said(), "root: shutdown with code 7\n");
            let asked = world.asked();
            let end = asked.iter().find(|a| a.what == Invocation::MachineControlExit).unwrap();
            assert_eq!((end.cap, &end.words[..]), (boot::MACHINE_CONTROL, &[7][..]));
        });
    }

    #[test]
    fn a_server_hears_of_its_sessions_and_of_its_peers() {
        booted(|mut world| {
            let mut call = by(&mut world, FILES);
            let sessions = SupervisorServer::sessions(&mut call, NOBODY, 0).unwrap();
            assert_eq!(sessions.len(), 3);
            let alive: std::vec::Vec<_> = sessions.iter().map(|s| s.is_alive).collect();
            assert_eq!(alive, [true, true, false], "nobody is in the slot");
            assert_eq!(sessions[0].incarnation, 1);
            let rest = SupervisorServer::sessions(&mut call, NOBODY, 2).unwrap();
            assert_eq!(rest[..], sessions[2..]);
            let peer = call.peer_state(NOBODY, "block").unwrap();
            assert_eq!((peer.incarnation, peer.is_given_up), (1, false));
            let unknown = call.peer_state(NOBODY, "files");
            assert_eq!(unknown.unwrap_err(), EdgeError::UnknownEdge);
            call.system.event(Event::Order(DISK, Order::Stop));
            assert!(call.peer_state(NOBODY, "block").unwrap().is_given_up);
            // A program has the edges only that it was given.
            let mut call = by(&mut world, SLOT);
            assert_eq!(call.peer_state(NOBODY, "output").unwrap_err(), EdgeError::UnknownEdge);
        });
    }

    #[test]
    fn who_may_complain_is_believed_of_the_instance_that_it_names() {
        booted(|mut world| {
            let mut call = by(&mut world, FILES);
            assert_eq!(call.complain(NOBODY, "block", 0, Misconduct::Late), Ok(()));
            assert!(call.system.is_running(DISK), "of an earlier instance");
            assert_eq!(call.complain(NOBODY, "block", 1, Misconduct::Late), Ok(()));
            let record = world.system.crashes.get(0).unwrap();
            assert_eq!(record.cause, Told::Complaint(Misconduct::Late));
            assert_eq!(record.message.as_str(), "files");
        });
    }

    #[test]
    fn an_answer_that_is_expected_and_does_not_come_is_a_complaint() {
        booted(|mut world| {
            let mut call = by(&mut world, FILES);
            assert_eq!(call.expect_answer(NOBODY, "block", 1), Ok(()));
            std::thread::sleep(std::time::Duration::from_millis(2));
            world.system.event(Event::TimerFired);
            let record = world.system.crashes.get(0).unwrap();
            assert_eq!(record.cause, Told::Complaint(Misconduct::Late));
        });
        // One that is no longer expected is none.
        booted(|mut world| {
            let mut call = by(&mut world, FILES);
            assert_eq!(call.expect_answer(NOBODY, "block", 1), Ok(()));
            assert_eq!(call.expect_answer(NOBODY, "block", 0), Ok(()));
            std::thread::sleep(std::time::Duration::from_millis(2));
            world.system.event(Event::TimerFired);
            assert_eq!(world.system.crashes.count(), 0);
        });
    }

    #[test]
    fn an_end_is_not_answered() {
        booted(|mut world| {
            let mut call = by(&mut world, FILES);
            call.exit(NOBODY, 3);
            assert!(call.ended);
            assert_eq!(world.system.crashes.get(0).unwrap().cause, Told::Exit(3));
        });
    }
}
