//! Where deaths are placed, and what becomes of each order.

use super::*;
use crate::system::lending::tests::{World, in_world};
use crate::window::Memory;
use skink_manifest::Experiment;
use std::boxed::Box;

const VICTIM: ServerId = ServerId(0);
const OTHER: ServerId = ServerId(1);

#[repr(align(4096))]
struct Page([u8; 4096]);

/// The system, whose first two servers get control pages.
fn with_pages(world: &mut World) -> &mut System {
    for server in [VICTIM, OTHER] {
        let mut page: &'static mut [u8] = &mut Box::leak(Box::new(Page([0; 4096]))).0;
        world.system.servers[server.index()].control = Memory::of_test(&mut page);
    }
    &mut world.system
}

fn counts(system: &System, number: u64) -> (u32, u32, u32) {
    let record = system.orders.get(number).unwrap();
    (record.reached, record.died, record.missed)
}

fn at(when: fn(At) -> When, how: Misbehaviour) -> KillSpec {
    let next = At { moment: Moment::Reply, number: 1 };
    KillSpec { when: when(next), how, ..KillSpec::default() }
}

/// The server passes the moments until one is to be told of; it does what its trigger says.
fn pass(system: &System, server: ServerId) {
    let page = system.servers[server.index()].control().unwrap();
    let count = page.pass(Moment::Reply).expect("it is the next one");
    page.take(Moment::Reply, count);
}

#[test]
fn a_death_is_of_the_order_that_explains_it_and_every_other_is_missed() {
    in_world(|mut world| {
        let system = with_pages(&mut world);
        system.manifest.servers[VICTIM.index()].heartbeat_ms = 100;
        let hang = system.kill(VICTIM, &at(When::Own, Misbehaviour::Hang)).unwrap();
        assert_eq!(system.settle_orders(VICTIM, Cause::Fault, None), None, "it was not due");
        assert_eq!(counts(system, hang), (0, 0, 0));
        pass(system, VICTIM);
        assert_eq!(system.settle_orders(VICTIM, Cause::Heartbeat, None), Some(hang));
        assert_eq!(counts(system, hang), (1, 1, 0));
        // Its moment came, and it died of something else before it was noticed that it hangs.
        system.servers[VICTIM.index()].control().unwrap().fired.store(0, Relaxed);
        let again = system.kill(VICTIM, &at(When::Own, Misbehaviour::Hang)).unwrap();
        pass(system, VICTIM);
        assert_eq!(system.settle_orders(VICTIM, Cause::Restarted, Some(77)), Some(77));
        assert_eq!(counts(system, again), (1, 0, 1));
        assert_eq!(counts(system, hang), (1, 1, 0));
    });
}

#[test]
fn what_is_refused_disarmed_or_replaced_is_said() {
    in_world(|mut world| {
        let system = with_pages(&mut world);
        let withdrawn = |system: &System, number| system.orders.get(number).unwrap().withdrawn;
        let how = Misbehaviour::MuteDevice;
        let error = system.kill(VICTIM, &at(When::Own, how)).unwrap_err();
        assert_eq!(error, ControlError::NoDeadline);
        assert_eq!(withdrawn(system, 1), Some(Withdrawn::Refused(error)));
        let first = system.kill(VICTIM, &at(When::Own, Misbehaviour::Kill)).unwrap();
        let second = system.kill(VICTIM, &at(When::Own, Misbehaviour::Kill)).unwrap();
        assert_eq!(withdrawn(system, first), Some(Withdrawn::Replaced));
        assert_eq!(withdrawn(system, second), None);
        system.disarm(VICTIM);
        assert_eq!(withdrawn(system, second), Some(Withdrawn::Disarmed));
        let disarm = KillSpec { when: When::Never, ..KillSpec::default() };
        let third = system.kill(VICTIM, &at(When::Own, Misbehaviour::Kill)).unwrap();
        assert_eq!(system.kill(VICTIM, &disarm), Ok(0));
        assert_eq!(withdrawn(system, third), Some(Withdrawn::Disarmed));
    });
}

#[test]
fn a_moment_of_another_at_which_nobody_runs_is_missed() {
    in_world(|mut world| {
        let system = with_pages(&mut world);
        let name = system.name(OTHER).try_into().unwrap();
        let next = At { moment: Moment::Reply, number: 1 };
        let spec = KillSpec { when: When::Other(name, next), ..KillSpec::default() };
        system.servers[VICTIM.index()].is_built = false;
        let order = system.kill(VICTIM, &spec).unwrap();
        system.reached(Reached { server: OTHER, moment: Moment::Reply, count: 1 });
        assert_eq!(counts(system, order), (1, 0, 1));
    });
}

#[test]
fn a_root_server_that_ignores_orders_says_that_they_succeed() {
    in_world(|mut world| {
        let system = with_pages(&mut world);
        let broken = Broken::OrdersIgnored;
        system.manifest.experiment = Some(Experiment { broken, ..Experiment::KILLS });
        let order = system.kill(VICTIM, &at(When::Own, Misbehaviour::Kill)).unwrap();
        assert_eq!((counts(system, order), system.servers[0].armed), ((0, 0, 0), None));
    });
}

fn spec(every: u64, times: u32) -> KillSpec {
    KillSpec { every, times, ..KillSpec::default() }
}

#[test]
fn numbers_count_from_now_and_then_from_each_death() {
    let at = At { moment: Moment::Ring, number: 5 };
    let once = Armed::new(at, 100, &spec(0, 1), 7);
    assert_eq!((once.at, once.left, once.next(105)), (105, 1, None));
    let thrice = Armed::new(at, 100, &spec(10, 3), 8);
    let second = thrice.next(105).unwrap();
    assert_eq!((second.at, second.left), (115, 2));
    let third = second.next(117).unwrap();
    assert_eq!((third.at, third.left, third.next(127)), (127, 1, None));
    let endless = Armed::new(at, 0, &spec(1, 0), 9);
    assert_eq!(endless.next(5).unwrap().left, Armed::ENDLESS);
    let far = At { number: u64::MAX, ..at };
    assert_eq!(Armed::new(far, 7, &spec(0, 1), 10).at, u64::MAX);
    assert_eq!((once.order, second.order, third.order), (7, 8, 8));
}
