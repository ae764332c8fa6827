//! The random system calls of a thread: pointers that mostly resolve, invocations that mostly fit
//! the capability, arguments that are mostly right.

use skink_abi::invocation::Trigger;
use skink_abi::{Invocation as I, MessageInfo, ObjectType, Syscall};

use super::names::{self, Name, Place};
use super::rng::Rng;
use super::swarm::Swarm;
use super::world::{Call, WHOLE, invocation};
use crate::cap::{Cap, CapType as T};

/// Priorities that threads get: few, so that many are equals.
pub const PRIORITIES: [u64; 3] = [10, 20, 30];
/// Addresses at which things are mapped.
pub const ADDRESSES: [u64; 5] = [PLACE, PLACE, PLACE + 0x1000, 0x1000, 0x4000_0000];
/// Where each space has a frame from the beginning.
pub const PLACE: u64 = 0x20_0000;
const BUDGETS: [u64; 4] = [50_000, 100_000, 300_000, 1_000_000];
const EDGES: [u64; 9] = [0, 1, 2, 63, 64, 65, 1 << 32, 1 << 63, u64::MAX];
/// What threads make of Untyped, with its size.
const OBJECTS: [(ObjectType, u64); 16] = [
    (ObjectType::Untyped, 11),
    (ObjectType::Untyped, 12),
    (ObjectType::CNode, 1),
    (ObjectType::CNode, 2),
    (ObjectType::CNode, 4),
    (ObjectType::Tcb, 0),
    (ObjectType::Tcb, 0),
    (ObjectType::Endpoint, 0),
    (ObjectType::Notification, 0),
    (ObjectType::Reply, 0),
    (ObjectType::SchedContext, 0),
    (ObjectType::Timer, 0),
    (ObjectType::VSpace, 0),
    (ObjectType::PageTable, 0),
    (ObjectType::Frame, 12),
    (ObjectType::Frame, 12),
];

const CNODE: [I; 13] = [
    I::CNodeRevoke,
    I::CNodeRevoke,
    I::CNodeDelete,
    I::CNodeDelete,
    I::CNodeDelete,
    I::CNodeCancelBadgedSends,
    I::CNodeCopy,
    I::CNodeCopy,
    I::CNodeMint,
    I::CNodeMint,
    I::CNodeMove,
    I::CNodeMutate,
    I::CNodeRotate,
];
const TCB: [I; 17] = [
    I::TcbReadRegisters,
    I::TcbWriteRegisters,
    I::TcbSetSpace,
    I::TcbSetSpace,
    I::TcbSetIpcBuffer,
    I::TcbSetPriority,
    I::TcbSetMcPriority,
    I::TcbSetSchedParams,
    I::TcbSetFaultEndpoint,
    I::TcbSetTimeoutEndpoint,
    I::TcbSuspend,
    I::TcbResume,
    I::TcbResume,
    I::TcbBindNotification,
    I::TcbUnbindNotification,
    I::TcbSetFlags,
    I::TcbSetTlsBase,
];
const CONTEXT: [I; 4] = [
    I::SchedContextBind,
    I::SchedContextUnbindObject,
    I::SchedContextUnbind,
    I::SchedContextConsumed,
];
const LOG: [I; 2] = [I::LogWrite, I::LogStatistics];

/// The invocations that a kind of capability knows.
fn invocations(cap: &Cap) -> &'static [I] {
    match cap {
        Cap::Untyped { .. } => &[I::UntypedRetype],
        Cap::CNode { .. } => &CNODE,
        Cap::Tcb(_) => &TCB,
        Cap::SchedControl => &[I::SchedControlConfigure],
        Cap::SchedContext(_) => &CONTEXT,
        Cap::PageTable { .. } => &[I::PageTableMap, I::PageTableMap, I::PageTableUnmap],
        Cap::Frame { .. } => &[I::FrameMap, I::FrameMap, I::FrameUnmap, I::FrameGetAddress],
        Cap::AsidControl => &[I::AsidControlMakePool],
        Cap::AsidPool { .. } => &[I::AsidPoolAssign],
        Cap::IrqControl => &[I::IrqControlGet, I::IrqControlGet, I::IrqControlGetMsi],
        Cap::IrqHandler(_) => &[
            I::IrqHandlerAck,
            I::IrqHandlerSetNotification,
            I::IrqHandlerClear,
            I::IrqHandlerCount,
        ],
        Cap::IoPortControl => &[I::IoPortControlIssue],
        Cap::IoPort { .. } => &[I::IoPortIn, I::IoPortOut],
        Cap::Timer(_) => &[I::TimerArm, I::TimerArm, I::TimerCancel, I::TimerSetNotification],
        Cap::Log { .. } => &LOG,
        _ => &[],
    }
}

/// Makes calls for a thread that can name `names`.
pub struct Caller<'a> {
    pub rng: &'a mut Rng,
    pub swarm: &'a Swarm,
    pub names: &'a [Name],
    pub now: u64,
}

/// Arguments of an invocation while they are put together.
#[derive(Default)]
struct Args {
    words: [u64; 8],
    length: usize,
    caps: [u64; 3],
    count: usize,
}

impl Args {
    fn words(&mut self, words: &[u64]) -> &mut Args {
        self.words[self.length..][..words.len()].copy_from_slice(words);
        self.length += words.len();
        self
    }

    fn cap(&mut self, cptr: u64) -> &mut Args {
        self.caps[self.count] = cptr;
        self.count += 1;
        self
    }
}

impl Caller<'_> {
    /// A call of some kind.
    pub fn call(&mut self) -> Call {
        let Swarm { invoke, message, garbage, .. } = *self.swarm;
        let at = self.rng.below(invoke + message + garbage);
        match () {
            () if at < invoke => self.invoke().unwrap_or_else(|| self.message()),
            () if at < invoke + message => self.message(),
            () => self.garbage(),
        }
    }

    fn edge(&mut self) -> u64 {
        if self.rng.chance(70) { self.rng.pick(&EDGES) } else { self.rng.next() }
    }

    /// A pointer to anything, or nowhere.
    fn any(&mut self) -> u64 {
        match self.rng.any(self.names) {
            Some(name) if !self.rng.chance(10) => name.cptr,
            _ if self.rng.chance(50) => self.rng.below(32),
            _ => self.edge(),
        }
    }

    /// A pointer to a capability of a kind, mostly.
    fn some(&mut self, kind: T) -> u64 {
        if self.rng.chance(self.swarm.wrong) {
            return self.any();
        }
        match names::of_kind(self.rng, self.names, kind) {
            Some(name) => name.cptr,
            None => self.any(),
        }
    }

    /// A place that is full or empty, mostly.
    fn place(&mut self, full: bool) -> Place {
        let full = full != self.rng.chance(self.swarm.wrong);
        let node = names::of_kind(self.rng, self.names, T::CNode);
        match node.and_then(|node| names::place_in(self.rng, &node, full)) {
            Some(place) if !self.rng.chance(self.swarm.wrong) => place,
            _ => Place { root: self.some(T::CNode), index: self.any(), depth: WHOLE },
        }
    }

    fn garbage(&mut self) -> Call {
        Call {
            number: self.rng.below(14),
            cptr: self.any(),
            info: MessageInfo(self.rng.next() >> self.rng.below(60)),
            mr: [(); 4].map(|()| self.edge()),
            reply: self.any(),
            receive: self.any(),
            more: [(); 4].map(|()| self.edge()),
            caps: [(); 3].map(|()| self.any()),
            window: [(); 3].map(|()| self.any()),
        }
    }

    /// An invocation of something that can be invoked.
    fn invoke(&mut self) -> Option<Call> {
        let mut on = self.rng.any(self.names)?;
        for _ in 0..4 {
            if !invocations(&on.cap).is_empty() && !self.rng.chance(self.swarm.favour) {
                break;
            }
            let kind = self.rng.pick(&self.swarm.favourites);
            on = match names::of_kind(self.rng, self.names, kind) {
                Some(name) => name,
                None => self.rng.any(self.names)?,
            };
        }
        let what = self.rng.any(invocations(&on.cap))?;
        let mut call = self.invocation(&on, what);
        call.number = match self.rng.below(20) {
            0 => Syscall::Send,
            1 => Syscall::NbSend,
            2..6 => Syscall::NbSendRecv,
            _ => Syscall::Call,
        }
        .raw();
        call.receive = self.source();
        call.reply = self.reply();
        Some(call)
    }

    fn invocation(&mut self, on: &Name, what: I) -> Call {
        let mut args = Args::default();
        let on_cptr = self.arguments(on, what, &mut args);
        if self.rng.chance(self.swarm.wrong) && args.length > 0 {
            let index = self.rng.below(args.length as u64) as usize;
            args.words[index] = self.edge();
        }
        invocation(on_cptr, what, &args.words[..args.length], &args.caps[..args.count])
    }

    /// The arguments; the result is the pointer to invoke.
    fn arguments(&mut self, on: &Name, what: I, args: &mut Args) -> u64 {
        match what {
            I::UntypedRetype => self.retype(args),
            I::CNodeRevoke | I::CNodeDelete | I::CNodeCancelBadgedSends => {
                let place = self.place(true);
                args.words(&[place.index, place.depth]);
                return place.root;
            }
            I::CNodeCopy | I::CNodeMint | I::CNodeMove | I::CNodeMutate | I::CNodeRotate => {
                return self.slots(what, args);
            }
            I::SchedControlConfigure => {
                let [budget, period] = self.budget();
                args.words(&[budget, period, 7]).cap(self.some(T::SchedContext));
            }
            I::SchedContextBind | I::SchedContextUnbindObject => {
                let kind = if self.rng.chance(60) { T::Tcb } else { T::Notification };
                args.cap(self.some(kind));
            }
            I::PageTableMap => {
                args.words(&[self.rng.pick(&ADDRESSES)]).cap(self.some(T::VSpace));
            }
            I::FrameMap => {
                let addr = self.rng.pick(&ADDRESSES);
                let rights = self.rng.pick(&[2, 3, 3, 4, 6]);
                args.words(&[addr, rights, self.rng.below(3)]).cap(self.some(T::VSpace));
            }
            I::AsidControlMakePool => {
                let place = self.place(false);
                args.words(&[place.index, place.depth]);
                args.cap(self.some(T::Untyped)).cap(place.root);
            }
            I::AsidPoolAssign => {
                args.cap(self.some(T::VSpace));
            }
            I::IrqControlGet | I::IoPortControlIssue | I::IrqControlGetMsi => {
                let place = self.place(false);
                let first = match what {
                    I::IrqControlGet => {
                        let trigger = self.rng.pick(Trigger::ALL).raw();
                        [1 + self.rng.below(6), trigger]
                    }
                    _ => [[0x60, 0x64], [0x60, 0x64], [0x3f8, 0x3ff]][self.rng.below(3) as usize],
                };
                if what != I::IrqControlGetMsi {
                    args.words(&first);
                }
                args.words(&[place.index, place.depth]).cap(place.root);
            }
            I::IoPortIn | I::IoPortOut => {
                args.words(&[self.rng.pick(&[0x60, 0x64, 0x3f8]), 1, self.rng.below(256)]);
            }
            I::TimerArm => {
                let ahead = self.rng.pick(&[0, 1_000, 50_000, 200_000, 5_000_000]);
                args.words(&[self.now + ahead]);
            }
            I::IrqHandlerSetNotification | I::TimerSetNotification if !self.rng.chance(10) => {
                args.cap(self.some(T::Notification));
            }
            I::LogWrite => {
                args.words(&[1 + self.rng.below(24), 1, 2, 3]);
            }
            _ => self.thread(what, args),
        }
        on.cptr
    }

    fn retype(&mut self, args: &mut Args) {
        let (kind, bits) = self.rng.pick(&OBJECTS);
        let node = names::of_kind(self.rng, self.names, T::CNode);
        let (first, count) = match node {
            Some(node) => names::run_in(self.rng, &node, 3),
            None => (0, 1),
        };
        let cptr = node.map_or(0, |node| node.cptr);
        args.words(&[kind.raw(), bits, 0, 0, first, count]).cap(cptr);
    }

    /// A guard for a CNode: such that it resolves a whole pointer, or a part of one.
    fn guard(&mut self) -> u64 {
        let bits = self.rng.pick(&[63, 62, 61, 60, 59, 60, 0, 1, 30]);
        let guard = if self.rng.chance(80) { 0 } else { self.rng.below(4) };
        bits | guard << 6
    }

    fn badge_or_guard(&mut self) -> u64 {
        if self.rng.chance(50) { 1 + self.rng.below(7) } else { self.guard() }
    }

    fn slots(&mut self, what: I, args: &mut Args) -> u64 {
        let (dest, source) = (self.place(false), self.place(true));
        args.words(&[dest.index, dest.depth]);
        if what == I::CNodeRotate {
            args.words(&[source.index, source.depth]).cap(source.root);
            let third = self.place(true);
            args.words(&[third.index, third.depth]).cap(third.root);
            return dest.root;
        }
        args.words(&[source.index, source.depth]).cap(source.root);
        let rights = if self.rng.chance(70) { 15 } else { self.rng.below(16) };
        match what {
            I::CNodeCopy => args.words(&[rights]),
            I::CNodeMint => args.words(&[rights, self.badge_or_guard()]),
            I::CNodeMutate => args.words(&[self.guard()]),
            _ => args,
        };
        dest.root
    }

    fn budget(&mut self) -> [u64; 2] {
        let budget = self.rng.pick(&BUDGETS);
        let times = if self.rng.chance(self.swarm.round_robin) { 1 } else { 2 + self.rng.below(9) };
        [budget, budget * times]
    }

    fn thread(&mut self, what: I, args: &mut Args) {
        let priority = self.rng.pick(&PRIORITIES);
        match what {
            I::TcbReadRegisters => {
                args.words(&[self.rng.below(2), self.rng.pick(&[1, 3, 5])]);
            }
            I::TcbWriteRegisters => {
                let count = self.rng.below(5);
                args.words(&[self.rng.below(2), count, 0x1000, 0x2000, 3, 4][..2 + count as usize]);
            }
            I::TcbSetSpace => {
                let guard = if self.rng.chance(50) { 0 } else { self.guard() };
                args.words(&[guard]).cap(self.some(T::CNode)).cap(self.some(T::VSpace));
            }
            I::TcbSetIpcBuffer => {
                args.words(&[0x1000]);
                if !self.rng.chance(10) {
                    args.cap(self.some(T::Frame));
                }
            }
            I::TcbSetPriority | I::TcbSetMcPriority => {
                args.words(&[priority]).cap(self.some(T::Tcb));
            }
            I::TcbSetSchedParams => {
                args.words(&[priority, priority]).cap(self.some(T::Tcb));
                if self.rng.chance(60) {
                    args.cap(self.some(T::Endpoint));
                    if self.rng.chance(60) {
                        args.cap(self.some(T::SchedContext));
                    }
                }
            }
            I::TcbSetFaultEndpoint | I::TcbSetTimeoutEndpoint if !self.rng.chance(10) => {
                args.cap(self.some(T::Endpoint));
            }
            I::TcbBindNotification => {
                args.cap(self.some(T::Notification));
            }
            I::TcbSetFlags => {
                args.words(&[self.rng.below(2), self.rng.below(2)]);
            }
            I::TcbSetTlsBase => {
                args.words(&[0x7000]);
            }
            _ => {}
        }
    }

    fn source(&mut self) -> u64 {
        let first = if self.rng.chance(80) { T::Endpoint } else { T::Notification };
        for kind in [first, T::Endpoint, T::Notification] {
            if let Some(name) = names::of_kind(self.rng, self.names, kind) {
                return name.cptr;
            }
        }
        self.any()
    }

    fn reply(&mut self) -> u64 {
        let reply = names::of_kind(self.rng, self.names, T::Reply);
        match reply {
            Some(reply) if !self.rng.chance(10) => reply.cptr,
            _ if self.rng.chance(self.swarm.wrong) => self.any(),
            _ => 0,
        }
    }

    /// Whom a message goes to, or from whom it is waited for: of what can be named, mostly.
    fn message_to(&mut self) -> (Syscall, u64) {
        let at = self.rng.below(20);
        let kind = match at {
            0..12 => T::Endpoint,
            12 => T::Reply,
            13..18 => T::Notification,
            _ => return (Syscall::Yield, 0),
        };
        let has = |kind| self.names.iter().any(|name| names::is(&name.cap, kind));
        let other = [T::Endpoint, T::Notification].into_iter().find(|kind| has(*kind));
        let (kind, at) = match (has(kind), other) {
            (true, _) => (kind, at),
            (false, Some(T::Endpoint)) => (T::Endpoint, self.rng.below(12)),
            (false, Some(_)) => (T::Notification, 13 + self.rng.below(5)),
            (false, None) => return (Syscall::Yield, 0),
        };
        let number = match at {
            0..4 => Syscall::Call,
            4 => Syscall::Send,
            5 => Syscall::NbSend,
            6 | 13 => Syscall::NbSendRecv,
            7 => Syscall::Recv,
            8 => Syscall::NbRecv,
            9..12 => Syscall::ReplyRecv,
            12 => Syscall::Send,
            14 | 15 => Syscall::Signal,
            16 => Syscall::Wait,
            _ => Syscall::Poll,
        };
        (number, self.some(kind))
    }

    /// The endpoint on which most threads meet: of those that they can name the first made.
    fn meeting_point(&self) -> Option<u64> {
        let addr = |name: &Name| match name.cap {
            Cap::Endpoint { endpoint, .. } => endpoint.addr().0,
            _ => u64::MAX,
        };
        let endpoints = self.names.iter().filter(|name| names::is(&name.cap, T::Endpoint));
        endpoints.min_by_key(|name| addr(name)).map(|name| name.cptr)
    }

    /// What a client or a server does over and over.
    pub fn role(&mut self, is_server: bool) -> Call {
        let mut call = self.message();
        if let (Some(endpoint), true) = (self.meeting_point(), self.rng.chance(80)) {
            let number = match (is_server, self.rng.below(10)) {
                (true, 0) => Syscall::Recv,
                (true, _) => Syscall::ReplyRecv,
                (false, 0) => Syscall::Send,
                (false, 1) => Syscall::NbSendRecv,
                (false, _) => Syscall::Call,
            };
            (call.number, call.cptr) = (number.raw(), endpoint);
            if self.rng.chance(60) {
                call.info = MessageInfo::new(1, 1, 0);
            }
        }
        call
    }

    /// A message, a signal, an answer, or waiting for one.
    pub fn message(&mut self) -> Call {
        let length = self.rng.pick(&[0, 1, 1, 4, 6, 8]);
        let caps = if self.rng.chance(80) { 0 } else { self.rng.below(4) as usize };
        let label = if self.rng.chance(97) { self.rng.below(3) } else { (1 << 50) - 1 };
        let (number, cptr) = self.message_to();
        let window = self.place(false);
        Call {
            number: number.raw(),
            cptr,
            info: MessageInfo::new(label, length, caps),
            mr: [self.rng.next(), 2, 3, 4],
            reply: self.reply(),
            receive: self.source(),
            more: [5, 6, 7, 8],
            caps: [(); 3].map(|()| self.any()),
            window: [window.root, self.rng.below(8), self.rng.below(4)],
        }
    }
}
