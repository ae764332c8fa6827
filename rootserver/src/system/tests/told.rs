//! What is told to whoever may ask: `ps`, one server, its capabilities, what is free.

use super::*;
use crate::arch::{CALL_CAP, CALL_NUMBER, REGISTER_WORDS};
use crate::plan::kit;
use crate::supervise::Order;
use skink_abi::{Invocation, Syscall};
use skink_protocols::control::{
    CAPABILITIES_PER_PAGE, Capability, ControlError, Held, ServerState,
};
use std::string::String;

/// The control page's counters, CPU time and memory, in a line of `ps`.
#[test]
fn a_line_of_ps_tells_what_a_server_does_and_has() {
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        let page = world.page(DISK);
        page.in_flight.store(5, Relaxed);
        let scheduling = kit_cptr(DISK.0, kit::SCHED_CONTEXTS + 2).0;
        world.machine.borrow_mut().consumed_ns.insert(scheduling, 77);
        let status = world.system.status_of(DISK).unwrap();
        assert_eq!((status.name.as_str(), status.state), ("disk", ServerState::Running));
        assert_eq!((status.incarnation, status.restarts, status.priority), (1, 0, 190));
        assert_eq!((status.cpu_ns, status.in_flight, status.interrupts), (77, 5, 0));
        let own = &world.system.servers[DISK.index()];
        // The quota; the pristine image, start info, control page and DMA memory.
        let lasting = own.pristine.len() + own.info.memory.len() + 4096 + 8192;
        assert_eq!(status.memory_bytes, (1 << 20) + lasting as u64);
        world.system.tear_down(DISK, Cause::Killed, 0);
        world.system.event(Event::Died(FILES, Cause::Killed));
        world.system.supervisor.load(&world.system.manifest);
        assert_eq!(world.system.status_of(ServerId(9)), None);
    });
}

#[test]
fn states_have_the_words_of_the_protocol() {
    booted(|mut world| {
        let told = |world: &World| world.system.status_of(FILES).unwrap().state;
        assert_eq!(told(&world), ServerState::Running);
        world.system.event(Event::Died(FILES, Cause::Fault));
        assert_eq!(told(&world), ServerState::BackingOff);
        let service = world.system.service(FILES).unwrap();
        assert_eq!(service.reason, "died");
        assert!((1..=10_000_000).contains(&service.starts_in_ns), "{}", service.starts_in_ns);
        world.system.event(Event::Order(FILES, Order::Stop));
        assert_eq!(told(&world), ServerState::Exited);
        world.system.event(Event::Order(FILES, Order::Start));
        assert_eq!(told(&world), ServerState::Running);
        let restart = |world: &mut World| {
            world.system.event(Event::Order(DISK, Order::Stop));
            world.system.event(Event::Order(DISK, Order::Start));
            let service = world.system.service(DISK).unwrap();
            assert_eq!(service.starts_in_ns, 0);
            (service.status.state, std::format!("{}", service.reason))
        };
        let error = (Invocation::TcbSetSpace, skink_abi::Error::InvalidArgument);
        world.machine.borrow_mut().refuses = Some(error);
        let words = |why: Failure| String::from(why.words());
        assert_eq!(restart(&mut world), (ServerState::Failed, words(Failure::CannotStart)));
        world.machine.borrow_mut().refuses = None;
        assert_eq!(restart(&mut world), (ServerState::Running, String::new()));
        world.system.servers[DISK.index()].is_quarantined = true;
        let quarantined = words(Failure::DeviceQuarantined);
        assert_eq!(restart(&mut world), (ServerState::Quarantined, quarantined));
    });
}

#[test]
fn a_server_is_told_with_its_policy_holdings_and_neighbours() {
    booted(|world| {
        let service = world.system.service(FILES).unwrap();
        assert_eq!((service.reason.as_str(), service.starts_in_ns), ("", 0));
        let policy = &service.policy;
        assert_eq!(
            (policy.restart, policy.deaths, policy.intensity),
            (Restart::Permanent, 0, Some(3))
        );
        assert_eq!((policy.period_ms, policy.backoff_ms, policy.backoff_max_ms), (1000, 10, 50));
        assert_eq!((policy.heartbeat_ms, policy.group.as_str()), (100, ""));
        let holdings = &service.holdings;
        assert_eq!((holdings.quota_bytes, holdings.survivor_bytes), (1 << 20, 8192));
        assert_eq!((holdings.dma_bytes, holdings.quarantined_bytes), (0, 0));
        assert_eq!((holdings.devices, holdings.port_ranges, holdings.interrupts), (0, 0, 0));
        assert_eq!(holdings.privileges.as_str(), "boot-image");
        let names =
            |all: &[Name]| -> StdVec<String> { all.iter().map(|n| n.as_str().into()).collect() };
        assert_eq!(names(&service.needs), ["disk"]);
        // Twice the same session's client is told once; nobody is in the slot.
        assert_eq!(names(&service.needed_by), ["shell"]);
        let shell = world.system.service(SHELL).unwrap();
        assert_eq!(shell.holdings.privileges.as_str(), "log control");
        assert_eq!((shell.needs.len(), shell.needed_by.len()), (1, 0));
        assert_eq!(world.system.service(DISK).unwrap().holdings.dma_bytes, 8192);
        assert!(world.system.service(ServerId(9)).is_none());
    });
}

#[test]
fn sessions_are_told_with_who_waits_in_them() {
    booted(|world| {
        let told = world.system.sessions_told(FILES, 0);
        assert_eq!(told.len(), 2, "none of the empty slot");
        let slot = world.system.sessions[2].client_slot;
        let mut words = [0; REGISTER_WORDS];
        (words[CALL_NUMBER], words[CALL_CAP]) = (Syscall::Call as u64, slot);
        let tcb = kit_cptr(SHELL.0, kit::TCBS).0;
        world.machine.borrow_mut().registers.insert(tcb, words);
        let told = world.system.sessions_told(FILES, 0);
        for (index, session) in told.iter().enumerate() {
            assert_eq!((session.client.as_str(), session.edge.as_str()), ("shell", "files"));
            assert_eq!((usize::from(session.index), session.shared_bytes), (index, 4096));
            assert_eq!(session.badge, world.system.sessions[1 + index].badge);
            assert!(session.is_client_alive);
            assert_eq!(session.waiting, index as u32);
        }
        assert_eq!(world.system.sessions_told(FILES, 1)[..], told[1..]);
        assert_eq!(world.system.sessions_told(FILES, 2).len(), 0);
        assert_eq!(world.system.sessions_told(SHELL, 0).len(), 0);
        assert_eq!(world.system.called_by(SHELL, 0), Some(slot));
        // Who has gone on is in no call.
        words[CALL_NUMBER] = Syscall::Recv as u64;
        world.machine.borrow_mut().registers.insert(tcb, words);
        assert_eq!(world.system.called_by(SHELL, 0), None);
        assert_eq!(world.system.sessions_told(FILES, 0)[1].waiting, 0);
    });
}

#[test]
fn nobody_waits_in_the_session_of_a_dead_client() {
    booted(|mut world| {
        world.system.event(Event::Died(SHELL, Cause::Killed));
        let told = world.system.sessions_told(FILES, 0);
        assert!(told.iter().all(|session| !session.is_client_alive && session.waiting == 0));
    });
}

#[test]
fn capabilities_are_told_with_what_each_is() {
    booted(|world| {
        let of = |server: ServerId| {
            let mut all: StdVec<Capability> = StdVec::new();
            loop {
                let page = world.system.capabilities(server, all.len() as u32);
                assert!(page.len() <= CAPABILITIES_PER_PAGE);
                if page.is_empty() {
                    break all;
                }
                all.extend(page);
            }
        };
        let named = |all: &[Capability], held: &Held| {
            all.iter().filter(|capability| capability.held == *held).count()
        };
        let disk = of(DISK);
        for n in 0..3 {
            assert_eq!(named(&disk, &Held::Thread(n)), 1, "thread {n}");
            assert_eq!(named(&disk, &Held::Timer(n)), 1, "timer {n}");
            assert_eq!(named(&disk, &Held::Notification(n)), 1, "notification {n}");
        }
        for held in [Held::CSpace, Held::Supervisor, Held::Endpoint, Held::Reply] {
            assert_eq!(named(&disk, &held), 1, "{held:?}");
        }
        assert_eq!(named(&disk, &Held::Log), 0);
        assert_eq!(named(&disk, &Held::Doorbell("files".try_into().unwrap())), 1);
        assert_eq!(disk.len(), 14, "{disk:?}");

        let files = of(FILES);
        let session = Held::Session("block".try_into().unwrap(), "disk".try_into().unwrap());
        assert_eq!((named(&files, &session), named(&files, &Held::Reply)), (1, 3));
        // The driver's, the shell's two, the slot's.
        let bells = files.iter().filter(|c| matches!(c.held, Held::Doorbell(_)));
        assert_eq!(bells.clone().count(), 4);
        assert!(bells.clone().all(|bell| bell.badge.is_power_of_two() && bell.badge >= 1 << 16));
        assert!(files.is_sorted_by_key(|capability| capability.slot));
        let shell = of(SHELL);
        assert_eq!(named(&shell, &Held::Log), 1);
        let guard = shell.iter().find(|c| c.held == Held::CSpace).unwrap().badge;
        assert_eq!(guard, u64::from(64 - world.system.servers[SHELL.index()].plan.cspace_radix));
        assert_eq!(of(SLOT), [], "nothing was granted yet");
    });
}

#[test]
fn a_pulse_has_the_turns_of_the_server_and_of_those_below() {
    use crate::supervise::pulse::Duty;
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        {
            let mut machine = world.machine.borrow_mut();
            machine.statistics = [0, 0, 0, 5000];
            for (server, ns) in [(DISK, 1), (FILES, 20), (SHELL, 300)] {
                machine.consumed_ns.insert(kit_cptr(server.0, kit::SCHED_CONTEXTS).0, ns);
            }
        }
        let page = world.page(FILES);
        page.heartbeats.store(7, Relaxed);
        let pulses = world.system.pulses();
        // The shell is below both, and has no heartbeats itself.
        assert_eq!((pulses[0].answered, pulses[0].turn_ns), (0, 5321));
        assert_eq!((pulses[1].answered, pulses[1].turn_ns), (7, 5320));
        assert_eq!((pulses[2], pulses[3]), Default::default());
        assert_eq!(pulses[1].duty, Duty::Serving);

        let duty = |world: &World| world.system.pulses()[FILES.index()].duty;
        let now = libipc::time::now_ns();
        for (until, expected) in [
            (0, Duty::Serving),
            (now + 30_000_000_000, Duty::Excused),
            (now + 120_000_000_000, Duty::Serving),
        ] {
            page.busy_until_ns.store(until, Relaxed);
            assert_eq!(duty(&world), expected, "{until}");
        }
        page.busy_until_ns.store(0, Relaxed);
        // Who stands in a call to another server is excused; in one to anything else not.
        let slot = world.system.sessions[0].client_slot;
        for (called, expected) in [(slot, Duty::Excused), (slot + 1, Duty::Serving)] {
            let mut words = [0; REGISTER_WORDS];
            (words[CALL_NUMBER], words[CALL_CAP]) = (Syscall::Call as u64, called);
            let tcb = kit_cptr(FILES.0, kit::TCBS).0;
            world.machine.borrow_mut().registers.insert(tcb, words);
            assert_eq!(duty(&world), expected, "{called}");
        }
        world.system.event(Event::Died(FILES, Cause::Killed));
        assert_eq!(world.system.pulses()[FILES.index()], Default::default());
    });
}

#[test]
fn a_server_that_needs_none_of_its_calls_stands_in_the_session_of_nobody() {
    booted(|mut world| {
        // The slot of a session that is not prepared is 0; a call by 0 is none of it.
        world.system.sessions[0].client_slot = 0;
        let mut words = [0; REGISTER_WORDS];
        words[CALL_NUMBER] = Syscall::Call as u64;
        let tcb = kit_cptr(FILES.0, kit::TCBS).0;
        world.machine.borrow_mut().registers.insert(tcb, words);
        let duty = world.system.pulses()[FILES.index()].duty;
        assert_eq!(duty, crate::supervise::pulse::Duty::Serving);
    });
}

#[test]
fn what_runs_is_said_at_the_start() {
    booted(|mut world| {
        world.system.say_start();
        assert_eq!(world.said(), "root: host: 3 servers, 1 slots for programs, 4 edges\n");
        world.system.manifest.experiment = Some(skink_manifest::Experiment::KILLS);
        world.system.say_start();
        let said = world.said();
        let lines: StdVec<String> = said.lines().map(String::from).collect();
        assert_eq!(lines[1], "root: experiment: unlimited intensity true, back-off 0 ms");
        assert_eq!(lines.len(), 2);
    });
}

#[test]
fn there_is_life_while_anybody_runs_or_will() {
    booted(|mut world| {
        for server in [DISK, FILES, SHELL] {
            assert!(world.system.has_life());
            world.system.event(Event::Order(server, Order::Stop));
        }
        assert!(!world.system.has_life());
    });
}

#[test]
fn the_timer_is_armed_for_when_something_is_due() {
    booted(|mut world| {
        world.asked();
        world.system.event(Event::Died(SHELL, Cause::Fault));
        let asked = world.asked();
        let armed = asked.iter().rfind(|asked| asked.what == Invocation::TimerArm).unwrap();
        assert_eq!(armed.cap, world.system.facts.unwrap().timer);
        let State::Backoff { until_ns } = world.system.supervisor.state(SHELL) else { panic!() };
        assert!(armed.words[0] <= until_ns, "{} {until_ns}", armed.words[0]);
    });
}

#[test]
fn names_find_servers_and_no_empty_slots() {
    booted(|world| {
        assert_eq!(world.system.find("files"), Ok(FILES));
        assert_eq!(world.system.find("nobody"), Err(ControlError::UnknownServer));
        assert_eq!(world.system.find("p0"), Err(ControlError::UnknownServer));
        assert_eq!(world.system.known().collect::<StdVec<_>>(), [DISK, FILES, SHELL]);
        assert_eq!((world.system.name(FILES), world.system.name(ServerId(9))), ("files", "?"));
    });
}

#[test]
fn every_reason_fits_what_is_told() {
    for why in [
        Failure::Intensity,
        Failure::NoDevice,
        Failure::CannotStart,
        Failure::DeviceQuarantined,
        Failure::Stopped,
        Failure::NoProgram,
    ] {
        assert!(why.words().len() <= skink_protocols::control::MAX_REASON, "{why:?}");
    }
}
