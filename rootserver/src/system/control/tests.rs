//! Who is heard by the root server as a client that complains.

use super::*;
use crate::supervise::{Action, Actions};
use crate::system::lending::tests::{World, in_world};

const SERVER: ServerId = ServerId(0);
/// Its edge says that it may complain.
const BELIEVED: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);

/// The world of [`in_world`], all of whose servers run for the supervisor too.
fn running(world: &mut World) {
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
