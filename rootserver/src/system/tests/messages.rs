//! Messages of servers and of the kernel, and who is believed.

use super::*;
use crate::system::dispatch::{Sender, TIMER_BIT};
use libipc::events::SIGNAL;
use libipc::{Message, buffer};
use skink_abi::{Fault, MessageInfo};
use skink_protocols::control::{Cause as Told, CrashRecord};

fn message(badge: u64, label: u64, words: [u64; 4]) -> Message {
    Message { badge, info: MessageInfo::new(label, 5, 0), words }
}

fn fault(server: ServerId, thread: u8, incarnation: u32, kind: Fault) -> Message {
    buffer::set_word(4, 44);
    message(Sender::Fault(server.0, thread).badge(incarnation), kind.raw(), [11, 22, 0x5000, 33])
}

fn last(world: &World) -> CrashRecord {
    world.system.crashes.get(0).unwrap().clone()
}

#[test]
fn a_fault_ends_its_server_and_is_recorded() {
    booted(|mut world| {
        let page_fault = fault(FILES, 0, 1, Fault::PageFault);
        assert!(world.system.on_message(&page_fault).is_none());
        assert!(!world.system.is_running(FILES) && world.system.is_running(DISK));
        let Told::Fault(record) = last(&world).cause else { panic!() };
        assert_eq!((record.kind, record.address), (Fault::PageFault.raw(), 0x5000));
        assert_eq!((record.syndrome, record.detail), (33, 44));
    });
}

#[test]
fn nobody_speaks_for_another_instance() {
    booted(|mut world| {
        let badge = |incarnation| Sender::Supervisor(FILES.0).badge(incarnation);
        for stale in [0, 2] {
            world.system.on_message(&fault(FILES, 0, stale, Fault::PageFault));
            world.system.on_message(&message(badge(stale), 1, [0; 4]));
        }
        world.system.on_message(&message(0, 1, [0; 4]));
        assert_eq!(world.system.crashes.count(), 0);
        assert!(world.system.is_running(FILES));
        // A slot without a program is nobody.
        world.system.on_message(&fault(SLOT, 0, 0, Fault::PageFault));
        assert_eq!(world.system.crashes.count(), 0);
    });
}

#[test]
fn a_used_up_budget_is_a_death_only_without_progress() {
    booted(|mut world| {
        let timeout = fault(DISK, 2, 1, Fault::Timeout);
        let answer = world.system.on_message(&timeout).unwrap();
        assert_eq!((answer.0.length(), answer.0.label()), (0, 0));
        assert!(world.system.is_running(DISK));
        assert!(world.system.on_message(&timeout).is_none());
        assert_eq!(last(&world).cause, Told::BudgetExhausted);
        // Any other fault is one, whatever progress there was.
        world.system.on_message(&fault(FILES, 0, 1, Fault::Exception));
        assert!(!world.system.is_running(FILES));
    });
}

#[test]
fn who_calls_a_server_that_was_given_up_is_answered() {
    booted(|mut world| {
        let call = message(Sender::Unavailable(DISK.0).badge(0), 1, [0; 4]);
        assert!(world.system.on_message(&call).is_some());
        assert_eq!(world.system.crashes.count(), 0);
    });
}

#[test]
fn what_is_due_is_done_when_the_timer_fires_and_no_other_signal_does_it() {
    booted(|mut world| {
        world.system.event(Event::Died(FILES, Cause::Fault));
        let State::Backoff { until_ns } = world.system.supervisor.state(FILES) else { panic!() };
        while libipc::time::now_ns() <= until_ns {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let signal = |bits| message(SIGNAL | bits, 0, [0; 4]);
        assert!(world.system.on_message(&signal(TIMER_BIT << 1)).is_none());
        assert!(!world.system.is_running(FILES));
        assert!(world.system.on_message(&signal(TIMER_BIT)).is_none());
        assert!(world.system.is_running(FILES));
        assert_eq!(world.system.servers[FILES.index()].incarnation, 2);
    });
}

#[test]
fn an_announced_end_has_the_reason_of_the_page() {
    use core::sync::atomic::Ordering::Relaxed;
    use libipc::control::ExitReason;
    for (reason, told) in [
        (0, Told::Exit(5)),
        (ExitReason::Exit as u32, Told::Exit(5)),
        (ExitReason::Panic as u32, Told::Panic),
        (ExitReason::OutOfMemory as u32, Told::OutOfMemory),
        (ExitReason::Killed as u32, Told::Killed),
        (ExitReason::OutOfCapabilities as u32, Told::OutOfCapabilities),
        (ExitReason::DeviceSilent as u32, Told::DeviceSilent),
        (99, Told::Exit(5)),
    ] {
        booted(move |mut world| {
            world.page(SHELL).exit_reason.store(reason, Relaxed);
            world.system.on_exit(SHELL, 5);
            assert_eq!(last(&world).cause, told);
        });
    }
}

#[test]
fn a_device_can_be_made_mute_only_where_somebody_waits_for_it() {
    use core::sync::atomic::Ordering::Relaxed;
    use libipc::control::Misbehaviour;
    use skink_protocols::control::{ControlError, KillSpec, When};
    booted(|mut world| {
        let spec =
            KillSpec { when: When::Now, how: Misbehaviour::MuteDevice, ..KillSpec::default() };
        assert_eq!(world.system.kill(DISK, &spec), Err(ControlError::NoDeadline));
        world.page(DISK).has_deadline.store(1, Relaxed);
        assert!(world.system.kill(DISK, &spec).is_ok());
        assert_eq!(world.page(DISK).at_once.load(Relaxed), Misbehaviour::MuteDevice as u32);
    });
}

#[test]
fn a_death_at_anothers_moment_is_recorded_with_that_moment() {
    use libipc::trigger::Moment;
    use skink_protocols::control::{At, KillSpec, When};
    booted(|mut world| {
        let at = At { moment: Moment::Reply, number: 3 };
        let spec =
            KillSpec { when: When::Other("files".try_into().unwrap(), at), ..KillSpec::default() };
        world.system.kill(DISK, &spec).unwrap();
        let reached = |count| arming::Reached { server: FILES, moment: Moment::Reply, count };
        world.system.reached(reached(2));
        assert!(world.system.is_running(DISK));
        world.system.reached(reached(3));
        assert!(!world.system.is_running(DISK));
        let placed = last(&world).placed.unwrap();
        assert_eq!(
            (placed.server.as_str(), placed.moment, placed.count),
            ("files", Moment::Reply, 3)
        );
    });
}
