//! Random system calls of a few threads, and a supervisor's operations between them, against
//! the naive model; on the fast path and on the slow one. After each step all invariants hold
//! and kernel and model agree on everything that the model knows.

use proptest::prelude::*;
use skink_abi::Syscall;

use super::model::{How, Model, State};
use super::*;

/// One operation, in raw numbers that are fitted to what exists.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    what: u8,
    a: u8,
    b: u8,
    c: u8,
}

pub const THREADS: usize = 6;
const ENDPOINTS: usize = 2;
const NOTIFICATIONS: usize = 2;
const REPLIES: usize = 4;
const PRIORITIES: [u8; 3] = [10, 20, 30];
/// Slices that do not end: the model knows no time.
const LONG_NS: u64 = 3_600_000_000_000;
/// Badge of the second capability of endpoint `e` is `BADGE + e`.
const BADGE: u64 = 100;

/// Kernel and model.
pub struct Twin {
    pub w: World,
    pub model: Model,
    pub threads: Vec<Thread>,
    /// An unbadged and a badged capability each.
    pub endpoints: Vec<[u64; 2]>,
    pub notifications: Vec<u64>,
    pub replies: Vec<u64>,
    pub contexts: Vec<u64>,
    pub count: u64,
}

impl Twin {
    pub fn new(fast: bool) -> Twin {
        let mut w = World::new();
        w.fast = fast;
        let mut model = Model::default();
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                let priority = PRIORITIES[t % 2];
                model.add_thread(priority);
                let thread = w.thread(priority);
                w.configure(thread.sc, LONG_NS, LONG_NS);
                thread
            })
            .collect();
        model.notifications.resize(NOTIFICATIONS, Default::default());
        let endpoints = (0..ENDPOINTS)
            .map(|e| {
                let ep = w.endpoint();
                [ep, w.mint(ep, BADGE + e as u64, ALL)]
            })
            .collect();
        let notifications = (0..NOTIFICATIONS).map(|_| w.notification()).collect();
        let replies = (0..REPLIES).map(|_| w.reply()).collect();
        let contexts = threads.iter().map(|thread| thread.sc).collect();
        Twin { w, model, threads, endpoints, notifications, replies, contexts, count: 0 }
    }

    pub fn current(&self) -> Option<usize> {
        let current = self.w.kernel.cpu.current?;
        self.threads.iter().position(|thread| thread.tcb == current)
    }

    /// Does one operation on both.
    pub fn step(&mut self, op: Op) {
        self.count += 1;
        match (op.what % 32, self.current()) {
            (0..20, Some(t)) => self.system_call(t, op),
            (0..20, None) => self.resume(usize::from(op.a) % THREADS),
            _ => self.supervise(op),
        }
        self.model.settle_lenders();
        self.compare();
    }

    /// An equal of the current thread runs instead, so that not only the kernel chooses.
    fn vary_current(&mut self, t: usize, op: Op) -> usize {
        let wanted = usize::from(op.c >> 4) % THREADS;
        let equal = self.model.threads[wanted].priority == self.model.threads[t].priority;
        if equal && self.model.is_schedulable(wanted) { wanted } else { t }
    }

    fn system_call(&mut self, t: usize, op: Op) {
        let t = self.vary_current(t, op);
        let ep = usize::from(op.a) % ENDPOINTS;
        let badged = usize::from(op.a >> 4) % 2;
        let n = usize::from(op.a) % NOTIFICATIONS;
        let reply = usize::from(op.b) % (REPLIES + 1);
        let offered = (reply < REPLIES).then_some(reply);
        let word = self.count;
        let call = Call {
            cptr: self.endpoints[ep][badged],
            length: 1,
            mr: [word, 0, 0, 0],
            reply: offered.map_or(0, |reply| self.replies[reply]),
            receive: self.endpoints[usize::from(op.c) % ENDPOINTS][0],
            ..Call::default()
        };
        self.model.threads[t].regs = [0xdead, self.model.threads[t].regs[1], word, 1];
        let badge = if badged == 1 { BADGE + ep as u64 } else { 0 };
        let is_other = self
            .model
            .threads
            .iter()
            .enumerate()
            .any(|(other, thread)| other != t && thread.bound == Some(n));
        let on_notification = Call { cptr: self.notifications[n], length: 0, ..call };
        let number = match op.what % 20 {
            0..4 => {
                self.model.send(t, ep, badge, word, How::Call);
                Syscall::Call
            }
            4 => {
                self.model.send(t, ep, badge, word, How::Send);
                Syscall::Send
            }
            5 => {
                self.model.send(t, ep, badge, word, How::NbSend);
                Syscall::NbSend
            }
            6 => {
                self.model.send(t, ep, badge, word, How::NbSendDonate);
                self.model.receive(t, usize::from(op.c) % ENDPOINTS, offered, true);
                Syscall::NbSendRecv
            }
            7..10 => {
                self.model.receive(t, ep, offered, true);
                Syscall::Recv
            }
            10 => {
                self.model.receive(t, ep, offered, false);
                Syscall::NbRecv
            }
            11..15 => {
                if let Some(reply) = offered {
                    self.model.reply(t, reply, word);
                }
                self.model.receive(t, ep, offered, true);
                Syscall::ReplyRecv
            }
            15 => return self.reply_only(t, offered.unwrap_or(0), call),
            16 => {
                self.model.threads[t].regs = [0, self.model.threads[t].regs[1], word, 0];
                self.model.signal(n, 0);
                return self.w.syscall(self.threads[t], Syscall::Signal, on_notification);
            }
            17 | 18 if !is_other => {
                self.model.threads[t].regs[3] = 0;
                self.model.wait(t, n, op.what % 20 == 17);
                let number = if op.what % 20 == 17 { Syscall::Wait } else { Syscall::Poll };
                return self.w.syscall(self.threads[t], number, on_notification);
            }
            _ => {
                self.model.threads[t].regs[0] = 0;
                Syscall::Yield
            }
        };
        self.w.syscall(self.threads[t], number, call);
    }

    fn reply_only(&mut self, t: usize, reply: usize, call: Call) {
        self.model.threads[t].regs[0] = 0;
        self.model.reply(t, reply, call.mr[0]);
        let call = Call { cptr: self.replies[reply], ..call };
        self.w.syscall(self.threads[t], Syscall::Send, call);
    }

    fn resume(&mut self, t: usize) {
        self.model.resume(t);
        self.w.resume(self.threads[t]);
    }

    fn supervise(&mut self, op: Op) {
        let t = usize::from(op.a) % THREADS;
        let (ep, n) = (usize::from(op.b) % ENDPOINTS, usize::from(op.b) % NOTIFICATIONS);
        let (thread, sc) = (self.threads[t], usize::from(op.b) % THREADS);
        match op.what % 32 {
            20 => {
                self.model.suspend(t);
                self.w.suspend(thread);
            }
            21 => self.resume(t),
            22 => self.renew_reply(usize::from(op.b) % REPLIES),
            23 if op.c < 64 => self.renew_endpoint(ep),
            23 if op.c < 128 => self.renew_notification(n),
            23 => {
                self.model.cancel_badged(ep, BADGE + ep as u64);
                let words = [self.endpoints[ep][1], WHOLE];
                self.w.invoke(NODE, Invocation::CNodeCancelBadgedSends, &words, &[]);
            }
            24 => {
                let priority = PRIORITIES[usize::from(op.b) % PRIORITIES.len()];
                self.model.set_priority(t, priority);
                let words = [u64::from(priority)];
                self.w.invoke(thread.cap, Invocation::TcbSetPriority, &words, &[thread.cap]);
            }
            25 => self.bind_notification(t, n),
            26 | 27 => {
                let bound = self.model.bind_context(sc, t);
                self.bind(sc, thread.cap, bound);
            }
            28 => {
                self.model.unbind_context(sc);
                self.w.invoke(self.contexts[sc], Invocation::SchedContextUnbind, &[], &[]);
            }
            29 => {
                let bound = self.model.bind_context_to_notification(sc, n);
                self.bind(sc, self.notifications[n], bound);
            }
            30 if op.c < 64 => self.renew_thread(t),
            30 if op.c < 96 => self.renew_context(sc),
            30 if op.c < 128 => self.crash(),
            _ => {
                let bits = u64::from(op.c);
                let badged = self.w.mint(self.notifications[n], bits | 1, ALL);
                let Cap::Notification { notification, badge, .. } = self.w.cap(badged) else {
                    panic!("no notification")
                };
                self.model.signal(n, badge);
                crate::object::notification::signal(&mut self.w.kernel, notification, badge);
                self.w.kernel.schedule();
                self.w.delete(badged);
                self.w.pass(SLICE_NS / 3);
            }
        }
    }

    fn bind(&mut self, sc: usize, to: u64, expected: bool) {
        let bind = Invocation::SchedContextBind;
        let result = self.w.try_invoke(self.contexts[sc], bind, &[], &[to]);
        assert_eq!(result.is_ok(), expected);
    }

    /// The current thread faults; nobody handles it.
    fn crash(&mut self) {
        if let Some(t) = self.current() {
            self.model.suspend(t);
            self.w.trap(Trap::Fault(skink_abi::Fault::PageFault, [0; 3]));
        }
    }

    fn bind_notification(&mut self, t: usize, n: usize) {
        let cap = self.threads[t].cap;
        if self.model.threads[t].bound.take().is_some() {
            self.w.invoke(cap, Invocation::TcbUnbindNotification, &[], &[]);
            return;
        }
        let taken = self.model.threads.iter().any(|thread| thread.bound == Some(n));
        let is_free = !taken && self.model.waiters(State::Wait(n)).is_empty();
        let bind = Invocation::TcbBindNotification;
        let result = self.w.try_invoke(cap, bind, &[], &[self.notifications[n]]);
        assert_eq!(result.is_ok(), is_free);
        if is_free {
            self.model.threads[t].bound = Some(n);
            // A thread that already receives is told at once.
            if let (State::Receive(_), Some(bits)) =
                (self.model.threads[t].state, self.model.notifications[n].bits)
            {
                self.model.notifications[n].bits = None;
                self.model.signal(n, bits);
            }
        }
    }

    fn renew_reply(&mut self, reply: usize) {
        self.model.lose_reply(reply);
        self.w.delete(self.replies[reply]);
        self.w.make_at(ObjectType::Reply, self.replies[reply]);
    }

    fn renew_endpoint(&mut self, ep: usize) {
        self.model.cancel(&[State::Send(ep), State::Receive(ep)]);
        let [plain, badged] = self.endpoints[ep];
        self.w.invoke(NODE, Invocation::CNodeRevoke, &[plain, WHOLE], &[]);
        self.w.delete(plain);
        self.w.make_at(ObjectType::Endpoint, plain);
        let words = [badged, WHOLE, plain, WHOLE, ALL, BADGE + ep as u64];
        self.w.invoke(NODE, Invocation::CNodeMint, &words, &[NODE]);
    }

    fn renew_notification(&mut self, n: usize) {
        self.model.end_notification(n);
        self.w.delete(self.notifications[n]);
        self.w.make_at(ObjectType::Notification, self.notifications[n]);
    }

    fn renew_context(&mut self, sc: usize) {
        self.model.unbind_context(sc);
        self.w.delete(self.contexts[sc]);
        self.w.make_at(ObjectType::SchedContext, self.contexts[sc]);
        self.w.configure(self.contexts[sc], LONG_NS, LONG_NS);
    }

    fn renew_thread(&mut self, t: usize) {
        let old = self.threads[t];
        self.model.end_thread(t, 10);
        self.w.delete(old.cap);
        self.w.make_at(ObjectType::Tcb, old.cap);
        self.w.invoke(old.cap, Invocation::TcbSetSpace, &[0], &[NODE, old.space]);
        let Cap::Tcb(tcb) = self.w.cap(old.cap) else { panic!("no thread was made") };
        tcb.mcp.set(255);
        self.w.kernel.set_priority(tcb, 10);
        self.w.kernel.schedule();
        self.threads[t].tcb = tcb;
    }
}

/// Does a sequence from a world where two threads are passive servers.
pub fn run(ops: &[Op], fast: bool) {
    let mut twin = Twin::new(fast);
    for (server, endpoint) in [(1, 0), (3, 1)] {
        let t = server;
        twin.w.focus(twin.threads[t]);
        twin.step(Op { what: 7, a: endpoint, b: endpoint, c: (t as u8) << 4 });
        twin.step(Op { what: 28, a: 0, b: t as u8, c: 0 });
    }
    for op in ops {
        twin.step(*op);
    }
}

fn op() -> impl Strategy<Value = Op> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(what, a, b, c)| Op {
        what,
        a,
        b,
        c,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn random_sequences_agree_with_the_model(
        ops in proptest::collection::vec(op(), 1..150),
        fast: bool,
    ) {
        run(&ops, fast);
    }
}
