//! A thief copies everything that an instance holds; the instance ends; nothing of it is left, and
//! everybody else has what they had. Played on a model of the kernel's derivation.

use super::*;
use crate::arch::{CALL_NUMBER, REGISTER_WORDS};
use crate::supervise::tests::server;
use crate::system::prepare::Draft;
use crate::system::setup;
use libipc::arch::{Registers, Request, with_kernel};
use libipc::buffer;
use libipc::start::slot;
use skink_abi::bootinfo::slot as boot;
use skink_abi::message::buffer::SEND_CAPS;
use skink_abi::{Error, Invocation, Syscall};
use skink_manifest::{Edge, Restart};
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

/// A slot: the CNode by which it is named, and the index there.
type Place = (u64, u64);
/// The root server's own CNode, and one of the thief's.
const ROOT: u64 = 0;
const THIEF: u64 = 0xbad;
/// Slots of the root CNode.
const ROOT_ENDPOINT: u64 = 0;
const HANDLER: u64 = 102;
const PORTS: u64 = 103;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    /// Of this server; of the root server without.
    Endpoint(Option<u8>),
    /// Of instance number `.1` of server `.0`.
    Notification(u8, u32),
    /// A TCB, CNode or the like in this place, made for an instance.
    Made(u64),
    Log,
    Interrupt,
    Ports,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    object: Object,
    badge: u64,
    rights: CapRights,
    parent: Option<Place>,
    /// What is derived from it is its child.
    is_revocable: bool,
}

/// Who holds what, and what was derived from what.
#[derive(Default)]
pub(in crate::system) struct Model {
    held: BTreeMap<Place, Held>,
    cancelled: Vec<Place>,
    empty_messages: usize,
    /// Of threads, by the pointer to their TCB.
    pub registers: BTreeMap<u64, [u64; REGISTER_WORDS]>,
    /// Threads whose calls a server has received: woken when what its replies are made of is revoked.
    pub received: Vec<u64>,
}

impl Model {
    fn put(&mut self, place: Place, object: Object) {
        let rights = CapRights::all();
        let new = Held { object, badge: 0, rights, parent: None, is_revocable: true };
        assert!(self.held.insert(place, new).is_none(), "{place:x?} is full");
    }

    fn copy(&mut self, to: Place, from: Place, rights: CapRights, badge: u64) -> Result<(), Error> {
        let source = *self.held.get(&from).ok_or(Error::InvalidCapability)?;
        if self.held.contains_key(&to) {
            return Err(Error::DeleteFirst);
        }
        let has_badge =
            matches!(source.object, Object::Endpoint(_) | Object::Notification(..) | Object::Log);
        assert!(badge == 0 || !has_badge || source.badge == 0, "a badge is given once");
        let badge = if badge == 0 { source.badge } else { badge };
        let parent = if source.is_revocable { Some(from) } else { source.parent };
        let is_revocable = has_badge && badge != source.badge;
        let rights = rights & source.rights;
        self.held.insert(to, Held { badge, rights, parent, is_revocable, ..source });
        Ok(())
    }

    fn delete(&mut self, place: Place) {
        if let Some(gone) = self.held.remove(&place) {
            for held in self.held.values_mut().filter(|held| held.parent == Some(place)) {
                held.parent = gone.parent;
            }
        }
    }

    fn revoke(&mut self, place: Place) {
        let is_child = |(_, held): &(&Place, &Held)| held.parent == Some(place);
        while let Some(child) = self.held.iter().find(is_child).map(|(child, _)| *child) {
            self.revoke(child);
            self.delete(child);
        }
    }

    fn wake_callers(&mut self) {
        for tcb in std::mem::take(&mut self.received) {
            if let Some(words) = self.registers.get_mut(&tcb) {
                words[CALL_NUMBER] = Error::ReplyLost.raw();
            }
        }
    }

    /// Answers with the registers of a thread.
    fn read_registers(&self, tcb: u64) -> Registers {
        let words = self.registers.get(&tcb).copied().unwrap_or([u64::MAX; REGISTER_WORDS]);
        let mut answer =
            Registers { info: MessageInfo::new(0, words.len(), 0), ..Default::default() };
        for (index, word) in words.into_iter().enumerate() {
            match answer.words.get_mut(index) {
                Some(register) => *register = word,
                None => buffer::set_word(index, word),
            }
        }
        answer
    }

    fn in_cnode(&self, cnode: u64) -> Vec<(u64, Held)> {
        let inside = self.held.iter().filter(|(place, _)| place.0 == cnode);
        inside.map(|(place, held)| (place.1, *held)).collect()
    }

    fn invoke(&mut self, trap: &Request) -> Result<(), Error> {
        let word = |index| trap.words.get(index).copied().unwrap_or_else(|| buffer::word(index));
        let place = (trap.cap, word(0));
        let source = (buffer::word(SEND_CAPS), word(2));
        let rights = CapRights::from_bits_truncate(word(4) as u8);
        match Invocation::from_raw(trap.info.label()).unwrap() {
            Invocation::CNodeCopy => self.copy(place, source, rights, 0)?,
            Invocation::CNodeMint => self.copy(place, source, rights, word(5))?,
            Invocation::CNodeDelete => self.delete(place),
            Invocation::CNodeRevoke => {
                self.revoke(place);
                if place == (ROOT, kit_cptr(0, kit::REPLIES).0) {
                    self.wake_callers();
                }
            }
            Invocation::CNodeCancelBadgedSends => self.cancelled.push(place),
            Invocation::TcbSuspend | Invocation::SchedContextConsumed => {}
            Invocation::LogWrite => return Err(Error::InvalidCapability),
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}

fn cspace(server: u8) -> u64 {
    kit_cptr(server, kit::CSPACE).0
}

/// Server 0 with a log, an interrupt and ports; clients 1 (with a log) and 2.
pub(in crate::system) struct World {
    pub system: Box<System>,
    pub model: Rc<RefCell<Model>>,
}

impl World {
    fn new(model: Rc<RefCell<Model>>) -> World {
        let mut system = Box::new(System::EMPTY);
        for (name, log) in [("s", true), ("c", true), ("d", false)] {
            let mut server = server(name, Restart::Permanent);
            server.privileges.log = log;
            system.manifest.servers.push(server).unwrap();
        }
        system.custody.slots.manage(500..600);
        model.borrow_mut().put((ROOT, ROOT_ENDPOINT), Object::Endpoint(None));
        model.borrow_mut().put((ROOT, boot::LOG), Object::Log);
        model.borrow_mut().put((ROOT, HANDLER), Object::Interrupt);
        model.borrow_mut().put((ROOT, PORTS), Object::Ports);
        for index in 0..3 {
            let own = &mut system.servers[usize::from(index)];
            (own.slots, own.endpoint) = (1000 + u64::from(index) * 10, 200 + u64::from(index));
            own.plan.cspace_radix = 7;
            for _ in 0..=index {
                own.threads.push(Default::default()).unwrap();
            }
            let (slots, endpoint) = (own.slots, own.endpoint);
            model.borrow_mut().put((ROOT, endpoint), Object::Endpoint(Some(index)));
            system.mint_lasting(index, slots, endpoint).unwrap();
        }
        for (number, client) in [(0u8, 1u8), (1, 2)] {
            let edge = Edge {
                name: "x".try_into().unwrap(),
                client,
                server: 0,
                protocol: "p".try_into().unwrap(),
                sessions: 1,
                shared_bytes: 0,
                dma: false,
                grant: Default::default(),
                may_complain: client == 1,
            };
            system.manifest.edges.push(edge).unwrap();
            let cap = 300 + u64::from(number) * 3;
            let badge = setup::session_badge(number, 0);
            system.mint(cap, 200, CapRights::all(), badge).unwrap();
            let bell = |cap, bit| Doorbell { cap, held: 0, bit };
            let (client_bell, server_bell) = (bell(cap + 1, 16), bell(cap + 2, 16 + number));
            let shared = crate::custody::Frames::NONE;
            let session = Session {
                edge: number,
                index: 0,
                cap,
                badge,
                shared,
                client_bell,
                server_bell,
                client_slot: 0,
            };
            system.sessions.push(session).unwrap();
        }
        for index in 0..3 {
            let mut draft = Draft::new(index);
            system.fixed_grants(&draft).unwrap();
            system.sessions_of(&mut draft).unwrap();
            if index == 0 {
                system.add_interrupt(&mut draft, HANDLER).unwrap();
                system.grant(0, draft.take_slot(), From::Lent(PORTS), CapRights::all()).unwrap();
            }
        }
        let mut world = World { system, model };
        (0..3).for_each(|index| world.start(index));
        world
    }

    /// What `instance` does with capabilities.
    fn start(&mut self, index: u8) {
        self.system.servers[usize::from(index)].incarnation += 1;
        let incarnation = self.system.servers[usize::from(index)].incarnation;
        for slot in [kit::TCBS, kit::CSPACE, kit::TIMERS] {
            self.model.borrow_mut().put((ROOT, kit_cptr(index, slot).0), Object::Made(slot));
        }
        let own = (ROOT, kit_cptr(index, kit::NOTIFICATIONS).0);
        self.model.borrow_mut().put(own, Object::Notification(index, incarnation));
        self.system.make_badged(index).unwrap();
        self.system.fill_cspace(index).unwrap();
        self.system.servers[usize::from(index)].is_built = true;
        self.system.give_bells(ServerId(index));
    }

    /// What `teardown` does with capabilities.
    fn end(&mut self, index: u8) {
        self.system.servers[usize::from(index)].is_built = false;
        self.system.end_grants(index);
        let mut model = self.model.borrow_mut();
        for slot in 0..kit::TABLES {
            let place = (ROOT, kit_cptr(index, slot).0);
            if model.held.get(&place).is_some_and(|held| held.parent.is_none()) {
                model.revoke(place);
            }
            model.delete(place);
        }
        for (slot, _) in model.in_cnode(cspace(index)) {
            model.delete((cspace(index), slot));
        }
        drop(model);
        self.system.expel_receivers(ServerId(index));
    }

    /// Copies all that a server holds, and copies the copies.
    fn steal(&mut self, index: u8) -> usize {
        let mut model = self.model.borrow_mut();
        let loot = model.in_cnode(cspace(index));
        for (slot, held) in &loot {
            model.copy((THIEF, *slot), (cspace(index), *slot), held.rights, 0).unwrap();
            model.copy((THIEF, *slot + 1000), (THIEF, *slot), held.rights, 0).unwrap();
        }
        loot.len()
    }

    fn objects(&self, cnode: u64) -> Vec<(u64, Object)> {
        let model = self.model.borrow();
        model.in_cnode(cnode).into_iter().map(|(slot, held)| (slot, held.object)).collect()
    }
}

/// Runs `test` with a world on its model.
pub(in crate::system) fn in_world(test: fn(World)) {
    let run = move || {
        let model = Rc::new(RefCell::new(Model::default()));
        let kernel = model.clone();
        let traps = move |trap: Request| {
            let mut answer = Registers::default();
            match trap.number {
                Syscall::Call if trap.info.label() == Invocation::TcbReadRegisters.raw() => {
                    answer = kernel.borrow().read_registers(trap.cap);
                }
                Syscall::Call => {
                    if let Err(error) = kernel.borrow_mut().invoke(&trap) {
                        answer.status = error.raw();
                    }
                }
                Syscall::Signal => {}
                Syscall::NbSend => kernel.borrow_mut().empty_messages += 1,
                other => panic!("{other:?}"),
            }
            answer
        };
        with_kernel(traps, || test(World::new(model)));
    };
    // All state of the root server is made on the stack first.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap();
    if let Err(cause) = thread.join() {
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn nothing_that_an_instance_passed_on_outlives_it() {
    in_world(|mut world| {
        for index in [0, 1, 2, 0, 1] {
            let before: Vec<_> = (0..3).map(|index| world.objects(cspace(index))).collect();
            let loot = world.steal(index);
            assert!(loot >= 7, "{loot} capabilities of {index}");
            world.end(index);
            assert_eq!(world.objects(THIEF), [], "after the end of {index}");
            let leads_to =
                |object: &Object| matches!(object, Object::Notification(of, _) if *of == index);
            for other in (0..3).filter(|other| *other != index) {
                let mut left = before[usize::from(other)].clone();
                left.retain(|(_, object)| !leads_to(object));
                assert_eq!(world.objects(cspace(other)), left, "of {other}, without {index}");
            }
            world.start(index);
            // Everybody has all again, and doorbells lead to the new instance.
            for other in 0..3u8 {
                let now = world.objects(cspace(other));
                let was = &before[usize::from(other)];
                assert_eq!(now.len(), was.len());
                for ((slot, object), (was_in, was)) in now.iter().zip(was) {
                    assert_eq!(slot, was_in);
                    match object {
                        Object::Notification(of, instance) if *of == index => {
                            assert_eq!(
                                *instance,
                                world.system.servers[usize::from(index)].incarnation
                            );
                        }
                        _ => assert_eq!(object, was),
                    }
                }
            }
        }
    });
}

#[test]
fn calls_by_a_dead_clients_session_are_cancelled_and_receivers_are_sent_away() {
    in_world(|mut world| {
        world.end(1);
        let own = (ROOT, world.system.sessions[0].cap);
        assert_eq!(world.model.borrow().cancelled, [own]);
        // The threads of servers 0 and 2.
        assert_eq!(world.model.borrow().empty_messages, 1 + 3);
    });
}

#[test]
fn badges_of_notifications_are_marked_and_no_other_and_supervisors_are_named_by_instance() {
    in_world(|mut world| {
        let supervisor = |world: &World| {
            let model = world.model.borrow();
            model.held[&(cspace(0), slot::SUPERVISOR.0)].badge
        };
        let first = supervisor(&world);
        world.end(0);
        world.start(0);
        assert_ne!(supervisor(&world), first);
        let mut marked = 0;
        for held in world.model.borrow().held.values() {
            match held.object {
                // Without a badge it signals nothing.
                Object::Notification(..) if held.badge == 0 => {}
                Object::Notification(..) => {
                    assert_ne!(held.badge & MARK, 0, "{held:x?}");
                    marked += 1;
                }
                _ => assert_eq!(held.badge & MARK, 0, "{held:x?}"),
            }
        }
        // Timer, heartbeat and sessions of three; an interrupt; four doorbells, here and there.
        assert_eq!(marked, 3 * 3 + 1 + 4 * 2);
    });
}

#[test]
fn of_a_closed_session_nothing_is_left_until_it_is_opened() {
    use crate::supervise::poison::Call;
    use crate::supervise::{Action, Actions, Cause, Event, Seen};
    in_world(|mut world| {
        let client = ServerId(1);
        world.system.supervisor.load(&world.system.manifest);
        let call = Call { client, session: 0, label: 7, request: 9 };
        let mut step = |now, event, calls: &[Call]| {
            let mut actions = Actions::new();
            let seen = Seen { calls, ..Seen::default() };
            world.system.supervisor.step(now, event, seen, &mut actions);
            actions
        };
        step(0, Event::Boot, &[]);
        let closes = |n: u64| {
            step(n << 27, Event::TimerFired, &[]);
            step(n << 27, Event::Started(ServerId(0)), &[]);
            let actions = step(n << 27, Event::Died(ServerId(0), Cause::Fault), &[call]);
            actions.contains(&Action::CloseSession(0))
        };
        assert!((0..10).any(closes));

        let held = world.system.sessions[0].client_slot;
        let endpoint = |world: &World, cnode| {
            let model = world.model.borrow();
            model.held.get(&(cnode, held)).map(|held| held.object)
        };
        let neighbours = world.objects(cspace(2));
        world.steal(1);
        let session = Object::Endpoint(Some(0));
        assert_eq!(endpoint(&world, THIEF), Some(session));
        world.system.close_session(0);
        assert_eq!(world.model.borrow().cancelled, [(ROOT, world.system.sessions[0].cap)]);
        assert!(!world.objects(THIEF).iter().any(|(_, object)| *object == session));
        assert_eq!(endpoint(&world, cspace(1)), Some(Object::Endpoint(None)));
        // What stands in its place ends with the client as all else does, and its next instance is not
        // let in either.
        world.model.borrow_mut().held.retain(|place, _| place.0 != THIEF);
        world.steal(1);
        world.end(1);
        assert_eq!(world.objects(THIEF), []);
        world.start(1);
        assert_eq!(endpoint(&world, cspace(1)), Some(Object::Endpoint(None)));
        let mut actions = Actions::new();
        world.system.supervisor.step(u64::MAX, Event::TimerFired, Seen::default(), &mut actions);
        assert!(actions.contains(&Action::OpenSession(0)));
        world.model.borrow_mut().held.retain(|place, _| place.0 != THIEF);
        world.steal(1);
        world.system.open_session(0);
        assert_eq!(endpoint(&world, cspace(1)), Some(session));
        assert_eq!(endpoint(&world, THIEF), None, "a copy of what stood in its place");
        assert_eq!(world.objects(cspace(2)), neighbours);
    });
}
