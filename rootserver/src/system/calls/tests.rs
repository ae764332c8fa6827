//! Which calls are found, and when nobody looks.

use super::*;
use crate::supervise::{Event, Order};
use crate::system::arming::{Armed, Doom};
use crate::system::lending::tests::{World, in_world};
use crate::window::Memory;
use core::sync::atomic::Ordering::Relaxed;
use libipc::control::Misbehaviour;
use libipc::trigger::Moment;
use skink_abi::MessageInfo;
use std::boxed::Box;
use std::vec::Vec as StdVec;

const SERVER: ServerId = ServerId(0);
const CLIENT: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);

#[repr(align(4096))]
struct Page([u8; 4096]);

fn tcb(server: ServerId, thread: u64) -> u64 {
    kit_cptr(server.0, kit::TCBS + thread).0
}

/// Has a thread stand in a call by this slot.
fn stands(world: &World, server: ServerId, thread: u64, slot: u64, words: &[u64]) {
    let mut registers = [7; REGISTER_WORDS];
    registers[CALL_NUMBER] = Syscall::Call as u64;
    registers[CALL_CAP] = slot;
    registers[CALL_INFO] = MessageInfo::new(0x5000, words.len(), 0).0;
    for (place, word) in CALL_WORDS.into_iter().zip(words) {
        registers[place] = *word;
    }
    world.model.borrow_mut().registers.insert(tcb(server, thread), registers);
}

fn sessions(calls: &[Call]) -> StdVec<u8> {
    calls.iter().map(|call| call.session).collect()
}

#[test]
fn what_was_received_and_not_answered_is_found_and_nothing_else() {
    in_world(|mut world| {
        let slots = [0, 1].map(|number: usize| world.system.sessions[number].client_slot);
        stands(&world, CLIENT, 0, slots[0], &[1, 2]);
        // It waits in the queue.
        stands(&world, CLIENT, 1, slots[0], &[1, 2]);
        stands(&world, OTHER, 0, slots[1], &[1, 2]);
        // It calls something else.
        stands(&world, OTHER, 1, slots[1] + 1, &[1, 2]);
        // What looks like a call of the server's own is none by a session with it.
        stands(&world, SERVER, 0, slots[0], &[1, 2]);
        world.model.borrow_mut().received =
            [(CLIENT, 0), (OTHER, 0)].map(|(s, t)| tcb(s, t)).into();
        let calls = world.system.declare(SERVER, Cause::Fault);
        assert_eq!(sessions(&calls), [0, 1]);
        assert_eq!(calls[0].label, 0x5000);
        assert_eq!(world.system.declare(SERVER, Cause::Fault), [], "they know already");
    });
}

#[test]
fn a_request_is_told_from_another_by_what_is_in_it() {
    in_world(|mut world| {
        let slot = world.system.sessions[0].client_slot;
        let mut seen = std::collections::BTreeSet::new();
        for words in [&[][..], &[1], &[1, 0], &[0, 1], &[1, 0, 0], &[1, 0, 0, 9]] {
            stands(&world, CLIENT, 0, slot, words);
            world.model.borrow_mut().received = [tcb(CLIENT, 0)].into();
            let calls = world.system.declare(SERVER, Cause::Fault);
            assert!(seen.insert(calls[0].request), "{words:?}");
        }
    });
}

#[test]
fn deaths_that_somebody_ordered_are_no_calls() {
    in_world(|mut world| {
        let mut page: &'static mut [u8] = &mut Box::leak(Box::new(Page([0; 4096]))).0;
        world.system.servers[0].control = Memory::of_test(&mut page);
        let slot = world.system.sessions[0].client_slot;
        let declare = |world: &mut World, cause| {
            stands(world, CLIENT, 0, slot, &[]);
            world.model.borrow_mut().received = [tcb(CLIENT, 0)].into();
            world.system.declare(SERVER, cause).len()
        };
        for cause in [Cause::Killed, Cause::Restarted, Cause::Group(OTHER)] {
            assert_eq!(declare(&mut world, cause), 0, "{cause:?}");
        }
        for cause in [Cause::Fault, Cause::Budget, Cause::Heartbeat, Cause::Panic, Cause::Exit(1)] {
            assert_eq!(declare(&mut world, cause), 1, "{cause:?}");
        }
        let doom = Doom { order: 1, how: Misbehaviour::Hang };
        world.system.servers[0].doom = Some(doom);
        assert_eq!(declare(&mut world, Cause::Fault), 0);
        world.system.servers[0].doom = None;
        // What the page says counts only if it was armed.
        let control = world.system.servers[0].control().unwrap();
        control.fired.store(Moment::Reply as u32 + 1, Relaxed);
        assert_eq!(declare(&mut world, Cause::Panic), 1);
        let how = Misbehaviour::Panic;
        let armed = Armed { moment: Moment::Reply, at: 1, every: 0, left: 1, how, order: 1 };
        world.system.servers[0].armed = Some(armed);
        assert_eq!(declare(&mut world, Cause::Panic), 0);
    });
}

#[test]
fn the_client_is_told_of_its_own_call_by_its_own_slot() {
    in_world(|mut world| {
        world.system.supervisor = crate::supervise::Supervisor::new(&world.system.manifest);
        let slot = world.system.sessions[0].client_slot;
        let sent = digest(MessageInfo::new(0x5000, 1, 0), &[1, 7, 7, 7]);
        for _ in 0..3 {
            assert!(!world.system.take_poison(CLIENT, slot, sent));
            stands(&world, CLIENT, 0, slot, &[1]);
            world.model.borrow_mut().received = [tcb(CLIENT, 0)].into();
            let calls = world.system.declare(SERVER, Cause::Fault);
            let mut actions = crate::supervise::Actions::new();
            let seen = crate::supervise::Seen { calls: &calls, ..Default::default() };
            for event in [Event::Order(SERVER, Order::Start), Event::Boot, Event::Started(SERVER)] {
                let nothing = crate::supervise::Seen::default();
                world.system.supervisor.step(0, event, nothing, &mut actions);
            }
            world.system.supervisor.step(0, Event::Died(SERVER, Cause::Fault), seen, &mut actions);
            world.system.supervisor.step(
                1 << 40,
                Event::TimerFired,
                Default::default(),
                &mut actions,
            );
        }
        for (client, slot) in [(OTHER, slot), (CLIENT, slot + 1), (CLIENT, 0), (ServerId(9), slot)]
        {
            assert!(!world.system.take_poison(client, slot, sent), "{client:?} {slot}");
        }
        assert!(!world.system.take_poison(CLIENT, slot, sent + 1), "another request");
        assert!(world.system.take_poison(CLIENT, slot, sent));
    });
}
