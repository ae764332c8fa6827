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
