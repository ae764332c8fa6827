//! Tests of supervision: named cases, and random events against the invariants.

use super::pulse::Duty;
use super::*;
use proptest::prelude::*;
use skink_manifest::{Experiment, Group, Privileges, Server, Strategy as GroupStrategy};
use std::vec::Vec as StdVec;

mod complaints;
mod groups;
mod poison;

const MS: u64 = 1_000_000;

pub(crate) fn server(name: &str, restart: Restart) -> Server {
    Server {
        name: name.try_into().unwrap(),
        binary: name.try_into().unwrap(),
        is_slot: false,
        args: Default::default(),
        priority: 100,
        budget_us: 1000,
        period_us: 1000,
        quota_bytes: 1 << 20,
        stack_bytes: 16384,
        heap_bytes: 0,
        extra_threads: 0,
        replies: 1,
        fpu: false,
        devices: Default::default(),
        ports: Default::default(),
        lines: Default::default(),
        provides: Default::default(),
        dma_bytes: 0,
        survivor_bytes: 0,
        privileges: Privileges::default(),
        restart,
        group: None,
        intensity: 3,
        intensity_period_ms: 1000,
        backoff_ms: 10,
        backoff_max_ms: 50,
        heartbeat_ms: 0,
    }
}

pub(crate) fn group(name: &str, strategy: GroupStrategy, parent: Option<u8>) -> Group {
    Group {
        name: name.try_into().unwrap(),
        strategy,
        parent,
        intensity: 2,
        intensity_period_ms: 10_000,
        backoff_ms: 20,
        backoff_max_ms: 100,
    }
}

fn manifest(servers: &[Server]) -> Manifest {
    Manifest {
        version: skink_manifest::VERSION,
        target: "host".try_into().unwrap(),
        experiment: None,
        groups: Default::default(),
        servers: servers.iter().cloned().collect(),
        edges: Default::default(),
    }
}

fn with_device(mut server: Server) -> Server {
    let device = skink_manifest::Device::Virtio { kind: 2, index: 0, optional: false, vectors: 2 };
    server.devices.push(device).unwrap();
    server
}

fn step(supervisor: &mut Supervisor, now_ns: u64, event: Event) -> StdVec<Action> {
    let mut actions = Actions::new();
    supervisor.step(now_ns, event, Seen::default(), &mut actions);
    actions.iter().copied().collect()
}

/// Boots one server and reports it started.
fn running(server: Server) -> Supervisor {
    let mut supervisor = Supervisor::new(&manifest(&[server]));
    assert_eq!(step(&mut supervisor, 0, Event::Boot), [Action::Start(A, 1)]);
    step(&mut supervisor, 0, Event::Started(A));
    supervisor
}

const A: ServerId = ServerId(0);

#[test]
fn a_death_is_followed_by_a_restart_after_the_delay() {
    let mut s = running(server("a", Restart::Permanent));
    let actions = step(&mut s, 5, Event::Died(A, Cause::Fault));
    let due = 5 + 10 * MS;
    let expected =
        [Action::TearDown(A, Cause::Fault), Action::TellBackoff(A, 10 * MS), Action::ArmTimer(due)];
    assert_eq!(actions, expected);
    // A second report of the same death changes nothing.
    assert_eq!(step(&mut s, 6, Event::Died(A, Cause::Fault)), []);
    // Too early: nothing is due, the wish is renewed.
    assert_eq!(step(&mut s, due - 1, Event::TimerFired), [Action::ArmTimer(due)]);
    assert_eq!(step(&mut s, due, Event::TimerFired), [Action::Start(A, 2)]);
    assert_eq!(s.state(A), State::Starting);
}

#[test]
fn a_slot_waits_for_a_program_and_each_has_a_history_of_its_own() {
    let slot = Server { is_slot: true, ..server("slot", Restart::Temporary) };
    let mut s = Supervisor::new(&manifest(&[slot]));
    assert_eq!(step(&mut s, 0, Event::Boot), []);
    assert_eq!(s.state(A), State::Failed(Failure::NoProgram));
    let program = Server { intensity: 1, backoff_ms: 0, ..server("p", Restart::Permanent) };
    s.occupy(A, &program, None);
    let actions = step(&mut s, 5, Event::Order(A, Order::Start));
    assert_eq!(actions, [Action::Revive(A), Action::Start(A, 1)]);
    step(&mut s, 5, Event::Started(A));
    // Nobody takes the place of one that runs.
    s.occupy(A, &server("q", Restart::Temporary), None);
    let actions = step(&mut s, 6, Event::Died(A, Cause::Fault));
    assert_eq!(actions, [Action::TearDown(A, Cause::Fault), Action::Start(A, 2)]);
    step(&mut s, 6, Event::Started(A));
    let actions = step(&mut s, 7, Event::Died(A, Cause::Fault));
    assert!(actions.contains(&Action::MarkFailed(A, Failure::Intensity)), "{actions:?}");
    // The next one may die as often, and its incarnations go on counting.
    s.occupy(A, &program, None);
    step(&mut s, 8, Event::Order(A, Order::Start));
    assert_eq!(s.incarnation(A), 3);
    step(&mut s, 8, Event::Started(A));
    step(&mut s, 9, Event::Died(A, Cause::Fault));
    assert_eq!(s.state(A), State::Starting);
}

#[test]
fn too_many_deaths_in_a_period_are_the_end_and_the_operator_can_begin_again() {
    let mut s = running(server("a", Restart::Permanent));
    let mut now = 0;
    for death in 1..=4 {
        let actions = step(&mut s, now, Event::Died(A, Cause::Fault));
        let gives_up = actions.contains(&Action::MarkFailed(A, Failure::Intensity));
        assert_eq!(gives_up, death == 4);
        now += 50 * MS;
        step(&mut s, now, Event::TimerFired);
        step(&mut s, now, Event::Started(A));
    }
    assert_eq!(s.state(A), State::Failed(Failure::Intensity));
    assert_eq!(step(&mut s, now + 10_000 * MS, Event::TimerFired), []);
    let actions = step(&mut s, now, Event::Order(A, Order::Restart));
    assert_eq!(actions, [Action::Revive(A), Action::Start(A, 5)]);
}

#[test]
fn deaths_that_are_far_apart_are_tolerated_for_ever() {
    let mut s = running(server("a", Restart::Permanent));
    for n in 0..100u64 {
        let now = n * 2000 * MS;
        step(&mut s, now, Event::Died(A, Cause::Panic));
        let actions = step(&mut s, now + 10 * MS, Event::TimerFired);
        assert_eq!(actions, [Action::Start(A, n as u32 + 2)]);
        step(&mut s, now + 10 * MS, Event::Started(A));
    }
}

/// A server that dies a tenth of a millisecond after each start, for ten seconds: what it is then, and
/// how often it was started.
fn dies_at_once(entry: Server, experiment: Option<Experiment>) -> (Supervisor, usize) {
    let mut all = manifest(&[entry]);
    all.experiment = experiment;
    let mut s = Supervisor::new(&all);
    step(&mut s, 0, Event::Boot);
    let (mut now, mut starts) = (0, 0);
    while now < 10_000 * MS {
        if s.state(A) == State::Starting {
            step(&mut s, now, Event::Started(A));
            starts += 1;
            now += MS / 10;
            step(&mut s, now, Event::Died(A, Cause::Panic));
        } else {
            now += MS / 10;
            step(&mut s, now, Event::TimerFired);
        }
    }
    (s, starts)
}

#[test]
fn whoever_dies_at_once_again_and_again_is_given_up_whatever_the_period() {
    for (intensity, period) in [(3, 0), (3, 1), (255, 0), (u16::MAX, 0), (u16::MAX, 1), (100, 1000)]
    {
        let entry = Server {
            intensity,
            intensity_period_ms: period,
            backoff_ms: 0,
            backoff_max_ms: 0,
            ..server("a", Restart::Permanent)
        };
        let (s, starts) = dies_at_once(entry, None);
        assert_eq!(s.state(A), State::Failed(Failure::Intensity), "{intensity} in {period} ms");
        assert_eq!(starts, usize::from(intensity.min(255)) + 1);
    }
}

#[test]
fn an_experiment_gives_nobody_up_and_leaves_the_cpu_to_others() {
    let (s, starts) = dies_at_once(server("a", Restart::Permanent), Some(Experiment::KILLS));
    assert!(matches!(s.state(A), State::Backoff { .. } | State::Starting | State::Running));
    // One in 16 ms, and a few more at first.
    assert!((600..640).contains(&starts), "{starts} starts in ten seconds");
}

#[test]
fn heartbeats_are_not_more_frequent_than_the_root_server_can_bear() {
    for (wanted, kept) in [(1, 20), (19, 20), (20, 20), (50, 50)] {
        let mut s = Supervisor::new(&manifest(&[Server {
            heartbeat_ms: wanted,
            ..server("a", Restart::Permanent)
        }]));
        step(&mut s, 0, Event::Boot);
        assert_eq!(step(&mut s, 0, Event::Started(A)), [Action::ArmTimer(kept * MS)]);
    }
}

/// A server with intensity 1 whose instances die during these calls, 20 ms one after the other; what
/// it is then.
fn dies_during(calls: &[Call]) -> Supervisor {
    let entry = Server { intensity: 1, backoff_ms: 0, ..server("a", Restart::Permanent) };
    let mut s = running(entry);
    for (now, call) in (1..).map(|n| n * 20 * MS).zip(calls) {
        let seen = Seen { calls: core::slice::from_ref(call), ..Seen::default() };
        s.step(now, Event::Died(A, Cause::Panic), seen, &mut Actions::new());
        step(&mut s, now, Event::Started(A));
    }
    s
}

#[test]
fn deaths_during_one_call_are_the_calls_and_not_the_servers() {
    let call = |request| Call { client: ServerId(1), session: 4, label: 9, request };
    let [first, second] = [1, 2].map(call);
    let failed = State::Failed(Failure::Intensity);
    assert_eq!(dies_during(&[first, second]).state(A), failed, "two calls, a death each");
    let mut s = dies_during(&[first; 3]);
    assert_eq!((s.state(A), s.policy(A, 60 * MS).1), (State::Running, 0), "none is charged");
    assert!(s.take_poison(4, 1, A) && !s.take_poison(4, 1, A));
    // Ten different calls that kill three times each do the server no harm.
    let many: StdVec<Call> = (0..30).map(|n| call(n / 3)).collect();
    let s = dies_during(&many);
    assert_eq!((s.state(A), s.incarnation(A)), (State::Running, 31));
    assert_eq!(s.deaths_during(&call(9)), 3);
    // One that killed once, and then let the server live, is a death as any other.
    let s = dies_during(&[first]);
    assert_eq!(s.policy(A, 20 * MS).1, 1);
}

#[test]
fn restart_types_decide_what_an_exit_means() {
    let cases = [
        (Restart::Permanent, Cause::Exit(0), true),
        (Restart::Transient, Cause::Exit(0), false),
        (Restart::Transient, Cause::Exit(1), true),
        (Restart::Transient, Cause::Fault, true),
        (Restart::Temporary, Cause::Fault, false),
    ];
    for (restart, cause, again) in cases {
        let mut s = running(server("a", restart));
        step(&mut s, 0, Event::Died(A, cause));
        assert_eq!(s.state(A) != State::Failed(Failure::Stopped), again, "{restart:?} {cause:?}");
    }
}

#[test]
fn an_experiment_restarts_at_once_and_for_ever() {
    let mut m = manifest(&[server("a", Restart::Permanent)]);
    m.experiment = Some(Experiment::KILLS);
    let mut s = Supervisor::new(&m);
    step(&mut s, 0, Event::Boot);
    step(&mut s, 0, Event::Started(A));
    for n in 0..1000 {
        let actions = step(&mut s, 0, Event::Order(A, Order::Kill));
        assert_eq!(actions, [Action::TearDown(A, Cause::Killed), Action::Start(A, n + 2)]);
        step(&mut s, 0, Event::Started(A));
    }
}

#[test]
fn a_driver_waits_for_its_device_and_its_clients_do_not() {
    let servers =
        [with_device(server("driver", Restart::Permanent)), server("client", Restart::Permanent)];
    let mut s = Supervisor::new(&manifest(&servers));
    assert_eq!(step(&mut s, 0, Event::Boot), [Action::Start(ServerId(1), 1)]);
    let mut without = s.clone();
    assert_eq!(step(&mut s, 1, Event::DeviceReady(A)), [Action::Start(A, 1)]);
    assert_eq!(step(&mut s, 2, Event::DeviceReady(A)), []);
    let marked = [Action::MarkFailed(A, Failure::NoDevice)];
    assert_eq!(step(&mut without, 1, Event::NoDevice(A)), marked);
    assert_eq!(step(&mut without, 1, Event::Order(A, Order::Restart)), []);
}

/// A server with a heartbeat every 20 ms that was asked for its first at 20 ms; fires the timer at
/// 40 ms, 60 ms and so on, when these are its pulses.
fn heartbeats<const N: usize>(pulses: [Pulse; N]) -> [Action; N] {
    let beating = Server { heartbeat_ms: 20, ..server("a", Restart::Permanent) };
    let mut s = Supervisor::new(&manifest(&[beating]));
    step(&mut s, 0, Event::Boot);
    assert_eq!(step(&mut s, 0, Event::Started(A)), [Action::ArmTimer(20 * MS)]);
    let mut fire = |now, pulse: Pulse| {
        let mut actions = Actions::new();
        let seen = Seen { pulses: &[pulse], ..Seen::default() };
        s.step(now, Event::TimerFired, seen, &mut actions);
        actions[0]
    };
    assert_eq!(fire(20 * MS, Pulse::default()), Action::Ping(A));
    core::array::from_fn(|i| fire((40 + 20 * i as u64) * MS, pulses[i]))
}

#[test]
fn a_missed_heartbeat_is_a_death() {
    let pulse = |answered, turn_ns| Pulse { answered, turn_ns, duty: Duty::Serving };
    let dead = Action::Declare(A, Cause::Heartbeat);
    assert_eq!(heartbeats([pulse(1, 5), pulse(2, 9)]), [Action::Ping(A); 2]);
    assert_eq!(heartbeats([pulse(1, 5), pulse(1, 9)]), [Action::Ping(A), dead]);
    assert_eq!(heartbeats([pulse(0, 5), pulse(0, 5)])[0], dead);
}

#[test]
fn who_is_late_or_excused_is_not_dead() {
    let pulse = |turn_ns, duty| Pulse { answered: 0, turn_ns, duty };
    let waits = |due| Action::ArmTimer(due * MS);
    let dead = Action::Declare(A, Cause::Heartbeat);
    // Those above it had the CPU all the time, then it was its turn.
    let late = [pulse(0, Duty::Serving), pulse(3, Duty::Serving)];
    assert_eq!(heartbeats(late), [waits(60), dead]);
    // Excused for a part of the second interval, perhaps for nearly all of it; then a whole one in which it
    // could have answered.
    let excused = [pulse(3, Duty::Excused), pulse(4, Duty::Serving), pulse(5, Duty::Serving)];
    assert_eq!(heartbeats(excused), [waits(60), waits(80), dead]);
    let on_time = [pulse(3, Duty::Excused), Pulse { answered: 1, turn_ns: 9, duty: Duty::Serving }];
    assert_eq!(heartbeats(on_time), [waits(60), Action::Ping(A)]);
}

/// A client's call ends with its server; it has not run since, and its heartbeat is due.
#[test]
fn who_waited_for_a_server_that_died_is_given_an_interval_to_answer() {
    let client = Server { heartbeat_ms: 20, ..server("b", Restart::Permanent) };
    let mut needs = manifest(&[server("a", Restart::Permanent), client]);
    needs.edges = [groups::edge(1, 0)].into_iter().collect();
    let mut s = Supervisor::new(&needs);
    let b = ServerId(1);
    step(&mut s, 0, Event::Boot);
    step(&mut s, 0, Event::Started(A));
    step(&mut s, 0, Event::Started(b));
    let fire = |s: &mut Supervisor, now, turn_ns| {
        let mut actions = Actions::new();
        let pulses = [Pulse::default(), Pulse { turn_ns, ..Pulse::default() }];
        s.step(now, Event::TimerFired, Seen { pulses: &pulses, ..Seen::default() }, &mut actions);
        actions[0]
    };
    assert_eq!(fire(&mut s, 20 * MS, 0), Action::Ping(b));
    step(&mut s, 39 * MS, Event::Died(A, Cause::Killed));
    let declared = Action::Declare(b, Cause::Heartbeat);
    assert_ne!(fire(&mut s, 40 * MS, 19), declared);
    assert_eq!(fire(&mut s, 60 * MS, 39), declared);
}

#[test]
fn a_start_that_fails_is_not_tried_again() {
    let mut s = Supervisor::new(&manifest(&[server("a", Restart::Permanent)]));
    step(&mut s, 0, Event::Boot);
    let actions = step(&mut s, 0, Event::StartFailed(A, Failure::CannotStart));
    assert_eq!(actions, [Action::MarkFailed(A, Failure::CannotStart)]);
    assert_eq!(step(&mut s, 0, Event::Boot), []);
}

fn any_event(servers: u8) -> impl Strategy<Value = Event> {
    let id = (0..servers + 1).prop_map(ServerId);
    let cause = prop_oneof![
        Just(Cause::Fault),
        Just(Cause::Exit(0)),
        Just(Cause::Exit(3)),
        Just(Cause::Killed)
    ];
    let order =
        prop_oneof![Just(Order::Kill), Just(Order::Restart), Just(Order::Stop), Just(Order::Start)];
    prop_oneof![
        1 => Just(Event::Boot),
        4 => id.clone().prop_map(Event::Started),
        1 => id.clone().prop_map(|s| Event::StartFailed(s, Failure::CannotStart)),
        6 => (id.clone(), cause).prop_map(|(s, c)| Event::Died(s, c)),
        1 => id.clone().prop_map(Event::DeviceReady),
        1 => id.clone().prop_map(Event::NoDevice),
        6 => Just(Event::TimerFired),
        1 => (id.clone(), order).prop_map(|(s, o)| Event::Order(s, o)),
        1 => (id.clone(), id.clone(), 1..6u32).prop_map(|(c, s, n)| complaints::event(c, s, n)),
        1 => (id.clone(), id, 0..9 * MS).prop_map(|(c, s, at)| complaints::expects(c, s, at)),
    ]
}

/// A naive account of what the world sees: who runs, who died when.
#[derive(Default)]
struct World {
    alive: [bool; 4],
    restarts: [StdVec<u64>; 4],
    armed: Option<u64>,
}

proptest! {
    #[test]
    fn random_events_keep_the_invariants(
        events in prop::collection::vec((any_event(4), 0u64..30 * MS), 1..300),
    ) {
        let servers = [
            server("a", Restart::Permanent),
            with_device(server("b", Restart::Permanent)),
            server("c", Restart::Transient),
            server("d", Restart::Temporary),
        ];
        let mut supervisor = Supervisor::new(&manifest(&servers));
        let mut world = World::default();
        let mut now = 0;
        for (event, later) in events {
            now += later;
            let before: [State; 4] = core::array::from_fn(|i| supervisor.state(ServerId(i as u8)));
            if event == Event::TimerFired {
                world.armed = None;
            }
            let actions = step(&mut supervisor, now, event);
            for action in actions {
                match action {
                    Action::TearDown(s, _) => {
                        prop_assert!(world.alive[s.index()], "torn down twice");
                        world.alive[s.index()] = false;
                    }
                    Action::Start(s, incarnation) => {
                        prop_assert!(!world.alive[s.index()], "started twice");
                        prop_assert_eq!(incarnation, supervisor.incarnation(s));
                        world.alive[s.index()] = true;
                        match event {
                            Event::Order(_, Order::Restart | Order::Start) => {
                                world.restarts[s.index()].clear();
                            }
                            // Bounded by the clients' side.
                            Event::Complaint(_) => {}
                            Event::TimerFired if before[s.index()] == State::Running => {}
                            _ => world.restarts[s.index()].push(now),
                        }
                    }
                    Action::MarkFailed(s, _) => world.alive[s.index()] = false,
                    Action::TellBackoff(_, delay) => prop_assert!(delay <= 50 * MS),
                    Action::ArmTimer(at) => {
                        prop_assert!(world.armed.is_none_or(|armed| at < armed));
                        world.armed = Some(at);
                    }
                    Action::Revive(_)
                    | Action::Ping(_)
                    | Action::Declare(..)
                    | Action::CloseSession(_)
                    | Action::OpenSession(_)
                    | Action::TellIgnored(..) => {}
                }
            }
            for i in 0..4u8 {
                let (id, old) = (ServerId(i), before[i as usize]);
                let alive = matches!(supervisor.state(id), State::Running | State::Starting);
                prop_assert_eq!(alive, world.alive[i as usize]);
                // Intensity: at most 3 restarts (and the first start) within any 1,000 ms.
                let starts = &world.restarts[i as usize];
                let recent = starts.iter().filter(|at| **at + 1000 * MS > now).count();
                prop_assert!(recent <= 5, "{recent} starts of {i} within the period");
                // Nobody is touched by what happens to another.
                let concerns = match event {
                    Event::Boot | Event::TimerFired => true,
                    Event::Started(s) | Event::StartFailed(s, _) | Event::Died(s, _)
                    | Event::DeviceReady(s) | Event::NoDevice(s) | Event::Order(s, _) => s == id,
                    Event::Complaint(complaint) => complaint.server == id,
                    Event::Expects(..) => false,
                };
                prop_assert!(concerns || supervisor.state(id) == old);
                // Nobody who waits for a restart is forgotten.
                if let State::Backoff { until_ns } = supervisor.state(id) {
                    prop_assert!(world.armed.is_some_and(|armed| armed <= until_ns));
                    prop_assert!(until_ns <= now + 50 * MS);
                }
            }
        }
    }
}
