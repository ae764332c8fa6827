//! Groups: named cases of each strategy, and random groups, graphs and events.

use super::*;
use skink_manifest::{Edge, SessionGrant};

const DRIVER: ServerId = ServerId(0);
const FS: ServerId = ServerId(1);
const SHELL: ServerId = ServerId(2);
const HELLO: ServerId = ServerId(3);

pub(super) fn edge(client: u8, server: u8) -> Edge {
    Edge {
        name: "x".try_into().unwrap(),
        client,
        server,
        protocol: "p".try_into().unwrap(),
        sessions: 1,
        shared_bytes: 0,
        dma: false,
        grant: SessionGrant::default(),
        may_complain: false,
    }
}

/// The driver, `fs` that needs it, the shell that needs `fs`, and one that needs nobody; all in the
/// last of these groups.
fn system(groups: &[Group]) -> Manifest {
    let member = |name| Server {
        group: groups.len().checked_sub(1).map(|last| last as u8),
        ..server(name, Restart::Permanent)
    };
    let mut manifest = manifest(&["driver", "fs", "shell", "hello"].map(member));
    manifest.groups = groups.iter().cloned().collect();
    manifest.edges = [edge(1, 0), edge(2, 1)].into_iter().collect();
    manifest
}

/// All of it, running.
fn all_running(manifest: &Manifest) -> Supervisor {
    let mut supervisor = Supervisor::new(manifest);
    step(&mut supervisor, 0, Event::Boot);
    settle(&mut supervisor, 0);
    supervisor
}

/// Reports everybody who starts as started.
fn settle(supervisor: &mut Supervisor, now: u64) {
    for id in supervisor.ids() {
        if supervisor.state(id) == State::Starting {
            step(supervisor, now, Event::Started(id));
        }
    }
}

fn torn_down(actions: &[Action]) -> StdVec<(ServerId, Cause)> {
    let pick = |action: &Action| match *action {
        Action::TearDown(server, cause) => Some((server, cause)),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

fn started(actions: &[Action]) -> StdVec<ServerId> {
    let pick = |action: &Action| match *action {
        Action::Start(server, _) => Some(server),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

/// Lets `server` die at `now`; who was taken down, and who is started when it is time.
fn die(s: &mut Supervisor, now: u64, server: ServerId) -> (StdVec<ServerId>, StdVec<ServerId>) {
    let actions = step(s, now, Event::Died(server, Cause::Fault));
    let down = torn_down(&actions);
    assert_eq!(down[0], (server, Cause::Fault), "the dead one first");
    assert!(down[1..].iter().all(|(_, cause)| *cause == Cause::Group(server)));
    let later = step(s, now + 100 * MS, Event::TimerFired);
    settle(s, now + 100 * MS);
    (down.into_iter().map(|(server, _)| server).collect(), started(&later))
}

#[test]
fn each_strategy_restarts_its_own() {
    use GroupStrategy::*;
    let cases = [
        (OneForOne, DRIVER, [DRIVER].as_slice()),
        (RestForOne, DRIVER, &[DRIVER, SHELL, FS]),
        (RestForOne, FS, &[FS, SHELL]),
        (RestForOne, SHELL, &[SHELL]),
        (OneForAll, SHELL, &[SHELL, HELLO, FS, DRIVER]),
    ];
    for (strategy, dead, expected) in cases {
        let mut s = all_running(&system(&[group("g", strategy, None)]));
        let (down, up) = die(&mut s, 0, dead);
        assert_eq!(down, expected, "{strategy:?}: the dead one, then the last started first");
        let mut in_order = expected.to_vec();
        in_order.sort();
        assert_eq!(up, in_order, "{strategy:?}: all together, needs first");
    }
}

#[test]
fn who_is_outside_or_down_is_not_touched() {
    let mut manifest = system(&[group("g", GroupStrategy::OneForAll, None)]);
    manifest.servers[2].group = None;
    manifest.servers[3].restart = Restart::Temporary;
    let mut s = all_running(&manifest);
    step(&mut s, 0, Event::Order(FS, Order::Stop));
    let (down, up) = die(&mut s, 0, DRIVER);
    assert_eq!((down, up), (vec_of([DRIVER, HELLO]), vec_of([DRIVER])));
    assert_eq!(s.state(FS), State::Failed(Failure::Stopped), "stopped by the operator");
    assert_eq!(s.state(HELLO), State::Failed(Failure::Stopped), "temporary");
    let actions = step(&mut s, 0, Event::Order(FS, Order::Start));
    assert_eq!(actions, [Action::Revive(FS), Action::Start(FS, 2)]);
    assert_eq!(step(&mut s, 0, Event::Order(FS, Order::Start)), [], "it runs");
}

fn vec_of<const N: usize>(servers: [ServerId; N]) -> StdVec<ServerId> {
    servers.to_vec()
}

#[test]
fn too_many_deaths_escalate_to_the_group_and_then_it_is_given_up() {
    let mut s = all_running(&system(&[group("g", GroupStrategy::OneForOne, None)]));
    let mut now = 0;
    // Three are the server's own affair; the fourth is the group's, which has two of them.
    for death in 1..=11 {
        now += 101 * MS;
        let (down, up) = die(&mut s, now, DRIVER);
        let whole = death % 4 == 0;
        assert_eq!(down.len(), if whole { 4 } else { 1 }, "death {death}");
        assert_eq!(up.len(), down.len());
    }
    let actions = step(&mut s, now + 101 * MS, Event::Died(DRIVER, Cause::Fault));
    assert_eq!(torn_down(&actions).len(), 4);
    for id in s.ids() {
        assert!(actions.contains(&Action::MarkFailed(id, Failure::Intensity)));
        assert_eq!(s.state(id), State::Failed(Failure::Intensity));
    }
    let actions = step(&mut s, now + 200 * MS, Event::Order(HELLO, Order::Start));
    assert_eq!(actions, [Action::Revive(HELLO), Action::Start(HELLO, 4)]);
}

#[test]
fn a_parent_restarts_its_child_as_a_whole() {
    let mut parent = group("parent", GroupStrategy::OneForAll, None);
    parent.intensity = 1;
    let mut child = group("child", GroupStrategy::OneForOne, Some(0));
    child.intensity = 0;
    let mut manifest = system(&[parent, child]);
    manifest.servers[2].group = Some(0);
    manifest.servers[3].group = None;
    let mut s = all_running(&manifest);
    let mut now = 0;
    for _ in 0..3 {
        now += 101 * MS;
        assert_eq!(die(&mut s, now, DRIVER).0, [DRIVER]);
    }
    now += 101 * MS;
    assert_eq!(die(&mut s, now, DRIVER).0, [DRIVER, SHELL, FS], "one_for_all of the parent");
    for _ in 0..3 {
        now += 101 * MS;
        assert_eq!(die(&mut s, now, DRIVER).0, [DRIVER], "histories are clean");
    }
    step(&mut s, now + 101 * MS, Event::Died(DRIVER, Cause::Fault));
    let states = [DRIVER, FS, SHELL].map(|id| s.state(id));
    assert_eq!(states, [State::Failed(Failure::Intensity); 3]);
    assert_eq!(s.state(HELLO), State::Running, "everybody else goes on");
}

#[test]
fn deaths_at_once_and_during_recovery_resolve() {
    for second in [FS, SHELL, DRIVER] {
        let mut s = all_running(&system(&[group("g", GroupStrategy::RestForOne, None)]));
        step(&mut s, 0, Event::Died(FS, Cause::Fault));
        // Dead already, waiting, or needed by those that wait.
        step(&mut s, 1, Event::Died(second, Cause::Fault));
        let actions = step(&mut s, 50 * MS, Event::TimerFired);
        // One of them dies again before it has reported its start.
        step(&mut s, 50 * MS, Event::Died(started(&actions)[0], Cause::Panic));
        for round in 1..10 {
            settle(&mut s, (50 + 50 * round) * MS);
            step(&mut s, (50 + 50 * round) * MS, Event::TimerFired);
        }
        for id in s.ids() {
            assert_eq!(s.state(id), State::Running, "{id:?} after {second:?}");
        }
    }
}

/// A group's strategy, and its parent as a distance.
type AnyGroup = (GroupStrategy, Option<u8>);

#[derive(Clone, Debug)]
struct Plan {
    groups: StdVec<AnyGroup>,
    /// For each server its group, those that it needs as bits, whether it is temporary.
    servers: StdVec<(Option<u8>, u8, bool)>,
}

impl Plan {
    fn manifest(&self, intensity: u16) -> Manifest {
        let mut servers = StdVec::new();
        let mut edges = heapless::Vec::new();
        for (index, (its_group, needs, temporary)) in self.servers.iter().enumerate() {
            let restart = if *temporary { Restart::Temporary } else { Restart::Permanent };
            let group = its_group.filter(|_| !self.groups.is_empty());
            let group = group.map(|group| group % self.groups.len() as u8);
            servers.push(Server { group, intensity, ..server("s", restart) });
            for other in (0..index as u8).filter(|other| needs >> other & 1 != 0) {
                let _ = edges.push(edge(index as u8, other));
            }
        }
        let mut manifest = manifest(&servers);
        for (index, (strategy, up)) in self.groups.iter().enumerate() {
            let parent = up.and_then(|up| (index as u8).checked_sub(1 + up));
            manifest.groups.push(group("g", *strategy, parent)).unwrap();
        }
        manifest.edges = edges;
        manifest
    }
}

fn any_plan() -> impl Strategy<Value = Plan> {
    use GroupStrategy::*;
    let strategy = prop_oneof![Just(OneForOne), Just(RestForOne), Just(OneForAll)];
    let groups = prop::collection::vec((strategy, prop::option::of(0u8..3)), 0..4);
    let server = (prop::option::weighted(0.8, 0u8..4), any::<u8>(), prop::bool::weighted(0.15));
    (groups, prop::collection::vec(server, 6))
        .prop_map(|(groups, servers)| Plan { groups, servers })
}

/// The groups that a server is in, from its own upwards.
fn chain(manifest: &Manifest, server: ServerId) -> StdVec<u8> {
    let mut all = StdVec::new();
    let mut next = manifest.servers[server.index()].group;
    while let Some(group) = next {
        all.push(group);
        next = manifest.groups[usize::from(group)].parent;
    }
    all
}

fn needs(manifest: &Manifest, client: ServerId, server: ServerId) -> bool {
    let direct = |edge: &&Edge| edge.client == client.0;
    let mut edges = manifest.edges.iter().filter(direct);
    edges.any(|e| e.server == server.0 || needs(manifest, ServerId(e.server), server))
}

/// Who is down after the death of `dead` alone, told as simply as can be.
fn expected_down(manifest: &Manifest, dead: ServerId) -> StdVec<ServerId> {
    let own = manifest.servers[dead.index()].group;
    let strategy = own.map(|group| manifest.groups[usize::from(group)].strategy);
    let goes = |other: &ServerId| {
        let is_member = own.is_some_and(|own| chain(manifest, *other).contains(&own));
        *other == dead
            || is_member
                && match strategy {
                    Some(GroupStrategy::OneForAll) => true,
                    Some(GroupStrategy::RestForOne) => needs(manifest, *other, dead),
                    _ => false,
                }
    };
    (0..manifest.servers.len() as u8).map(ServerId).filter(goes).collect()
}

/// Lets time pass without deaths until nothing is due.
fn calm(s: &mut Supervisor, now: &mut u64) {
    for _ in 0..20 {
        settle(s, *now);
        *now += 100 * MS;
        step(s, *now, Event::TimerFired);
    }
    settle(s, *now);
}

proptest! {
    #[test]
    fn exactly_the_strategys_set_goes_down(plan in any_plan(), dead in 0u8..6) {
        let manifest = plan.manifest(3);
        let dead = ServerId(dead);
        let mut s = all_running(&manifest);
        let actions = step(&mut s, 0, Event::Died(dead, Cause::Fault));
        let mut down: StdVec<_> = torn_down(&actions).into_iter().map(|(s, _)| s).collect();
        down.sort();
        let temporary = manifest.servers[dead.index()].restart == Restart::Temporary;
        let expected = if temporary { vec_of([dead]) } else { expected_down(&manifest, dead) };
        prop_assert_eq!(down, expected);
    }

    #[test]
    fn random_deaths_in_random_groups_resolve(
        plan in any_plan(),
        events in prop::collection::vec((any_event(6), 0u64..20 * MS), 1..200),
    ) {
        let manifest = plan.manifest(3);
        let mut s = all_running(&manifest);
        let mut alive = [true; 6];
        let mut now = 0;
        for (event, later) in events {
            now += later;
            let actions = step(&mut s, now, event);
            for (server, _) in torn_down(&actions) {
                prop_assert!(core::mem::replace(&mut alive[server.index()], false), "down twice");
                // Nobody but the one of the event, and those of a group of its.
                if let Event::Died(dead, _) | Event::Order(dead, Order::Kill) = event {
                    let shared = chain(&manifest, dead);
                    let related = chain(&manifest, server).iter().any(|g| shared.contains(g));
                    prop_assert!(server == dead || related, "{server:?} for {dead:?}");
                }
            }
            let up = started(&actions);
            prop_assert!(up.is_sorted(), "needs first: {:?}", up);
            for server in up {
                prop_assert!(!core::mem::replace(&mut alive[server.index()], true), "up twice");
            }
            for action in actions {
                match action {
                    Action::TellBackoff(_, delay) => prop_assert!(delay <= 100 * MS),
                    // What could not be started was never up.
                    Action::MarkFailed(server, Failure::CannotStart) => {
                        alive[server.index()] = false;
                    }
                    Action::MarkFailed(server, Failure::Intensity) => {
                        // The whole of a group up to the top is given up, or one without a group.
                        let top = chain(&manifest, server).last().copied();
                        let failed = |id: &ServerId| matches!(s.state(*id), State::Failed(_));
                        let members = s.ids().filter(|id| {
                            *id == server || top.is_some() && chain(&manifest, *id).last().copied() == top
                        });
                        prop_assert!(members.into_iter().all(|id| failed(&id)));
                    }
                    _ => {}
                }
            }
            for id in s.ids() {
                let runs = matches!(s.state(id), State::Running | State::Starting);
                prop_assert_eq!(runs, alive[id.index()]);
            }
        }
        calm(&mut s, &mut now);
        for id in s.ids() {
            let over = matches!(s.state(id), State::Running | State::Failed(_));
            prop_assert!(over, "{id:?} is {:?} when all is quiet", s.state(id));
        }
    }

    #[test]
    fn endless_deaths_end(plan in any_plan(), deaths in prop::collection::vec(0u8..6, 500)) {
        let manifest = plan.manifest(3);
        let mut s = all_running(&manifest);
        let mut starts = [0; 6];
        // One a millisecond: whoever goes on dying is given up within the periods.
        for (now, dead) in deaths.into_iter().enumerate() {
            let now = now as u64 * MS;
            for event in [Event::TimerFired, Event::Died(ServerId(dead), Cause::Fault)] {
                for server in started(&step(&mut s, now, event)) {
                    starts[server.index()] += 1;
                }
                settle(&mut s, now);
            }
        }
        // Each death of a server or group restarts one at most once; a server has 3 deaths and each
        // group around it 2, between which histories are clean.
        let bound = |id: ServerId| 6 * 4 * 3u32.pow(chain(&manifest, id).len() as u32);
        for id in s.ids() {
            prop_assert!(starts[id.index()] <= bound(id), "{} starts of {id:?}", starts[id.index()]);
        }
    }
}
