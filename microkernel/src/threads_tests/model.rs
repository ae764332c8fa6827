//! A naive model of IPC: plain vectors, no queues, no links.
//!
//! It says who waits where, who holds whose time, and what each thread's registers show. It
//! knows nothing of the kernel's structures; a waiter is found by looking at all threads.

use alloc::vec::Vec;

use skink_abi::Error;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Inactive,
    Ready,
    Send(usize),
    Receive(usize),
    Reply(usize),
    Wait(usize),
}

/// Registers: status, badge, first word, length.
pub type Regs = [u64; 4];

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Call,
    Send,
    NbSend,
    NbSendDonate,
}

#[derive(Clone, Debug)]
pub struct Thread {
    pub state: State,
    pub priority: u8,
    pub regs: Regs,
    pub sc: Option<usize>,
    pub reply: Option<usize>,
    pub bound: Option<usize>,
    /// Its server was declared dead while it held the context that this thread had lent it.
    pub is_owed: bool,
    /// When it joined the queue that it is in.
    pub since: u64,
    /// What it sends while it waits to send: badge, word, how.
    pub message: (u64, u64, How),
}

/// A scheduling context: its holder, who lent it (the last at the end), its notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub holder: Option<usize>,
    pub lenders: Vec<usize>,
    pub notification: Option<usize>,
    /// All who lent it have ended.
    pub is_orphan: bool,
}

/// A notification: bits if it is active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    pub bits: Option<u64>,
    pub context: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub threads: Vec<Thread>,
    pub contexts: Vec<Context>,
    pub notifications: Vec<Signals>,
    clock: u64,
}

impl Model {
    pub fn add_thread(&mut self, priority: u8) {
        let id = self.threads.len();
        self.threads.push(Thread {
            state: State::Ready,
            priority,
            regs: [0; 4],
            sc: Some(id),
            reply: None,
            bound: None,
            is_owed: false,
            since: 0,
            message: (0, 0, How::Send),
        });
        self.contexts.push(Context { holder: Some(id), ..Context::default() });
    }

    pub fn is_schedulable(&self, t: usize) -> bool {
        self.threads[t].state == State::Ready && self.threads[t].sc.is_some()
    }

    /// Those in a state, in the order in which they are served.
    pub fn waiters(&self, state: State) -> Vec<usize> {
        let mut all: Vec<usize> =
            (0..self.threads.len()).filter(|t| self.threads[*t].state == state).collect();
        all.sort_by_key(|t| (255 - self.threads[*t].priority, self.threads[*t].since));
        all
    }

    fn join(&mut self, t: usize, state: State) {
        self.clock += 1;
        self.threads[t].since = self.clock;
        self.threads[t].state = state;
    }

    fn fail(&mut self, t: usize, error: Error) {
        self.threads[t].regs = [error.raw(), 0, 0, 0];
    }

    /// Ends what a thread waits for.
    fn cut(&mut self, t: usize) {
        self.threads[t].state = State::Inactive;
        self.threads[t].reply = None;
    }

    fn wake_with(&mut self, t: usize, error: Error) {
        self.cut(t);
        self.fail(t, error);
        self.threads[t].state = State::Ready;
    }

    fn deliver(&mut self, to: usize, badge: u64, word: u64) {
        self.threads[to].regs = [0, badge, word, 1];
    }

    pub fn send(&mut self, t: usize, ep: usize, badge: u64, word: u64, how: How) {
        let receivers = self.waiters(State::Receive(ep));
        if let Some(to) = receivers.first().copied() {
            let offered = self.threads[to].reply.take();
            self.threads[to].state = State::Ready;
            self.deliver(to, badge, word);
            self.settle(t, to, offered, how);
        } else if matches!(how, How::Call | How::Send) {
            self.threads[t].message = (badge, word, how);
            self.join(t, State::Send(ep));
        } else if how == How::NbSend {
            self.threads[t].regs[0] = 0;
        }
    }

    fn settle(&mut self, from: usize, to: usize, offered: Option<usize>, how: How) {
        let lends = self.threads[to].sc.is_none() && self.threads[from].sc.is_some();
        if how != How::Call {
            if how != How::NbSendDonate {
                self.threads[from].regs[0] = 0;
            }
            self.threads[from].state = State::Ready;
            if lends && how == How::NbSendDonate {
                let sc = self.threads[from].sc.take();
                self.give(sc.unwrap(), to);
            }
            return;
        }
        let Some(reply) = offered else {
            return self.wake_with(from, Error::ReplyLost);
        };
        self.threads[from].state = State::Reply(reply);
        self.threads[from].reply = Some(reply);
        if lends {
            let sc = self.threads[from].sc.take().unwrap();
            self.contexts[sc].lenders.push(from);
            self.threads[from].is_owed = false;
            self.give(sc, to);
        }
    }

    fn give(&mut self, sc: usize, to: usize) {
        if let Some(holder) = self.contexts[sc].holder.replace(to) {
            self.threads[holder].sc = None;
        }
        self.threads[to].sc = Some(sc);
    }

    pub fn receive(&mut self, t: usize, ep: usize, offered: Option<usize>, blocking: bool) {
        if let Some(reply) = offered {
            self.lose_reply(reply);
        }
        if let Some(n) = self.threads[t].bound
            && self.take(n, t)
        {
            return;
        }
        if let Some(from) = self.waiters(State::Send(ep)).first().copied() {
            let (badge, word, how) = self.threads[from].message;
            if how == How::Call && offered.is_some() && self.threads[from].sc.is_some() {
                self.hand_back(t);
            }
            self.deliver(t, badge, word);
            self.settle(from, t, offered, how);
        } else if blocking {
            self.hand_back(t);
            self.threads[t].reply = offered;
            self.join(t, State::Receive(ep));
        } else {
            self.fail(t, Error::WouldBlock);
        }
    }

    /// The thread that offers a reply object or waits on it.
    pub fn reply_thread(&self, reply: usize) -> Option<usize> {
        (0..self.threads.len()).find(|t| self.threads[*t].reply == Some(reply))
    }

    pub fn lose_reply(&mut self, reply: usize) {
        let Some(t) = self.reply_thread(reply) else {
            return;
        };
        if self.threads[t].state == State::Reply(reply) {
            self.threads[t].is_owed = self.last_lent(t).is_some();
            self.wake_with(t, Error::ReplyLost);
        } else {
            self.wake_with(t, Error::Cancelled);
        }
    }

    /// The context of which a thread is the last lender.
    fn last_lent(&self, t: usize) -> Option<usize> {
        self.contexts.iter().position(|sc| sc.lenders.last() == Some(&t))
    }

    fn has_lost_lender(&self, sc: usize) -> bool {
        self.contexts[sc].lenders.last().is_some_and(|t| self.is_lost(*t))
    }

    fn return_to_lender(&mut self, sc: usize) {
        if let Some(lender) = self.contexts[sc].lenders.pop() {
            self.give(sc, lender);
        }
    }

    fn is_lost(&self, t: usize) -> bool {
        !matches!(self.threads[t].state, State::Reply(_))
    }

    /// After each operation: who is suspended above a lost lender has no claim, and a lost lender
    /// has its time back unless the holder uses it.
    pub fn settle_lenders(&mut self) {
        for sc in 0..self.contexts.len() {
            let all = &self.contexts[sc].lenders;
            let has_claim = |place: usize| {
                let is_suspended = self.threads[all[place]].state == State::Inactive;
                place == 0 || !is_suspended || !self.is_lost(all[place - 1])
            };
            let dropped: Vec<_> =
                (0..all.len()).filter(|place| !has_claim(*place)).map(|p| all[p]).collect();
            for t in dropped {
                self.forget_lender(t);
            }
            if self.has_lost_lender(sc) && !self.is_in_use(sc) {
                self.return_to_lender(sc);
            }
            let holder = self.contexts[sc].holder;
            let receives =
                holder.is_some_and(|t| matches!(self.threads[t].state, State::Receive(_)));
            if self.contexts[sc].is_orphan && self.contexts[sc].lenders.is_empty() && receives {
                self.contexts[sc].is_orphan = false;
                self.release(sc);
            }
        }
    }

    /// Whether the holder of a context with a lost lender has to end something first.
    fn is_in_use(&self, sc: usize) -> bool {
        let lender = &self.threads[*self.contexts[sc].lenders.last().unwrap()];
        self.contexts[sc].holder.is_some_and(|t| match self.threads[t].state {
            State::Ready | State::Send(_) | State::Reply(_) => true,
            // It may yet answer, unless it was declared dead.
            State::Wait(_) => lender.state != State::Ready || !lender.is_owed,
            State::Inactive | State::Receive(_) => false,
        })
    }

    fn hand_back(&mut self, t: usize) {
        let Some(sc) = self.threads[t].sc else { return };
        if self.has_lost_lender(sc) {
            let waits = matches!(self.threads[t].state, State::Wait(_));
            if !waits || !self.is_in_use(sc) {
                self.return_to_lender(sc);
            }
        } else if self.contexts[sc].lenders.is_empty() {
            let waits = matches!(self.threads[t].state, State::Wait(_));
            let context = &mut self.contexts[sc];
            if context.notification.is_some() || !waits && core::mem::take(&mut context.is_orphan) {
                self.release(sc);
            }
        }
    }

    /// Nobody holds the context.
    pub fn release(&mut self, sc: usize) {
        if let Some(holder) = self.contexts[sc].holder.take() {
            self.threads[holder].sc = None;
        }
    }

    pub fn reply(&mut self, t: usize, reply: usize, word: u64) {
        let caller = self
            .reply_thread(reply)
            .filter(|caller| self.threads[*caller].state == State::Reply(reply));
        match caller {
            Some(caller) => {
                self.threads[caller].reply = None;
                self.threads[caller].state = State::Ready;
                self.deliver(caller, 0, word);
                if let Some(sc) = self.last_lent(caller) {
                    self.return_to_lender(sc);
                }
            }
            None => {
                if let Some(sc) = self.threads[t].sc
                    && self.has_lost_lender(sc)
                {
                    self.return_to_lender(sc);
                }
            }
        }
    }

    pub fn signal(&mut self, n: usize, bits: u64) {
        let waiter = self.waiters(State::Wait(n)).first().copied();
        let bound = (0..self.threads.len()).find(|t| {
            self.threads[*t].bound == Some(n) && matches!(self.threads[*t].state, State::Receive(_))
        });
        let Some(t) = waiter.or(bound).filter(|_| self.notifications[n].bits.is_none()) else {
            *self.notifications[n].bits.get_or_insert(0) |= bits;
            return;
        };
        self.cut(t);
        self.threads[t].state = State::Ready;
        self.show_signal(t, bits);
        if let Some(sc) = self.notifications[n].context
            && self.contexts[sc].holder.is_none()
            && self.threads[t].sc.is_none()
        {
            self.give(sc, t);
        }
    }

    fn show_signal(&mut self, t: usize, bits: u64) {
        let word = self.threads[t].regs[2];
        self.threads[t].regs = [0, bits, word, 0];
    }

    fn take(&mut self, n: usize, t: usize) -> bool {
        let taken = self.notifications[n].bits.take();
        if let Some(bits) = taken {
            self.show_signal(t, bits);
        }
        taken.is_some()
    }

    pub fn wait(&mut self, t: usize, n: usize, blocking: bool) {
        if self.take(n, t) {
            return;
        }
        if blocking {
            self.join(t, State::Wait(n));
            self.hand_back(t);
        } else {
            self.fail(t, Error::WouldBlock);
        }
    }

    pub fn suspend(&mut self, t: usize) {
        self.cut(t);
    }

    pub fn resume(&mut self, t: usize) {
        if self.threads[t].state != State::Ready {
            self.cut(t);
            self.threads[t].state = State::Ready;
        }
    }

    pub fn set_priority(&mut self, t: usize, priority: u8) {
        self.clock += 1;
        self.threads[t].priority = priority;
        self.threads[t].since = self.clock;
    }

    /// An endpoint or notification ends: who is in one of the states gets `Cancelled`.
    pub fn cancel(&mut self, states: &[State]) {
        for t in 0..self.threads.len() {
            if states.contains(&self.threads[t].state) {
                self.wake_with(t, Error::Cancelled);
            }
        }
    }

    pub fn cancel_badged(&mut self, ep: usize, badge: u64) {
        for t in self.waiters(State::Send(ep)) {
            if self.threads[t].message.0 == badge {
                self.wake_with(t, Error::Cancelled);
            }
        }
    }

    /// Whether it could be bound, and was.
    pub fn bind_context(&mut self, sc: usize, t: usize) -> bool {
        let context = &self.contexts[sc];
        if context.holder.is_some()
            || context.notification.is_some()
            || self.threads[t].sc.is_some()
        {
            return false;
        }
        self.forget_lender(t);
        self.contexts[sc].lenders.clear();
        self.contexts[sc].is_orphan = false;
        self.give(sc, t);
        true
    }

    fn forget_lender(&mut self, t: usize) {
        for context in &mut self.contexts {
            if let Some(place) = context.lenders.iter().position(|lender| *lender == t) {
                context.lenders.remove(place);
                context.is_orphan |= context.lenders.is_empty();
            }
        }
    }

    pub fn bind_context_to_notification(&mut self, sc: usize, n: usize) -> bool {
        let context = &self.contexts[sc];
        if context.holder.is_some()
            || context.notification.is_some()
            || self.notifications[n].context.is_some()
        {
            return false;
        }
        self.contexts[sc].notification = Some(n);
        self.notifications[n].context = Some(sc);
        true
    }

    pub fn unbind_context(&mut self, sc: usize) {
        self.release(sc);
        self.contexts[sc].lenders.clear();
        self.contexts[sc].is_orphan = false;
        if let Some(n) = self.contexts[sc].notification.take() {
            self.notifications[n].context = None;
        }
    }

    pub fn end_notification(&mut self, n: usize) {
        self.cancel(&[State::Wait(n)]);
        for thread in &mut self.threads {
            thread.bound = thread.bound.filter(|bound| *bound != n);
        }
        if let Some(sc) = self.notifications[n].context {
            self.contexts[sc].notification = None;
        }
        self.notifications[n] = Signals::default();
    }

    /// A thread ends, and a new one (suspended, without anything) takes its number.
    pub fn end_thread(&mut self, t: usize, priority: u8) {
        self.cut(t);
        self.forget_lender(t);
        if let Some(sc) = self.threads[t].sc {
            self.release(sc);
            if let Some(lender) = self.contexts[sc].lenders.last().copied() {
                if matches!(self.threads[lender].state, State::Reply(_)) {
                    self.wake_with(lender, Error::ReplyLost);
                }
                self.return_to_lender(sc);
            }
        }
        let thread = &mut self.threads[t];
        thread.priority = priority;
        thread.bound = None;
        thread.is_owed = false;
        thread.regs = [0; 4];
    }
}
