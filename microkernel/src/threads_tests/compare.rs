//! Kernel and model side by side: states, registers, queues, contexts.

use super::model::State;
use super::property::{THREADS, Twin};
use super::*;

impl Twin {
    fn thread_of(&self, tcb: Option<Obj<Tcb>>) -> Option<usize> {
        self.threads.iter().position(|thread| Some(thread.tcb) == tcb)
    }

    /// Asserts that both agree on everything that the model knows.
    pub fn compare(&self) {
        for (t, thread) in self.threads.iter().enumerate() {
            let model = &self.model.threads[t];
            assert_eq!(self.state(thread.tcb), model.state, "state of thread {t}");
            let regs = thread.tcb.regs(|r| [r.status, r.badge, r.mr[0], r.info.length() as u64]);
            assert_eq!(regs, model.regs, "registers of thread {t}, {:?}", model.state);
            assert_eq!(thread.tcb.priority.get(), model.priority);
            let reply = thread.tcb.reply.get();
            let reply = self.replies.iter().position(
                |slot| matches!(self.w.cap(*slot), Cap::Reply(object) if Some(object) == reply),
            );
            assert_eq!(reply, model.reply, "reply object of thread {t}");
        }
        for (index, slot) in self.contexts.iter().enumerate() {
            let Cap::SchedContext(sc) = self.w.cap(*slot) else { panic!("no context") };
            let model = &self.model.contexts[index];
            assert_eq!(self.thread_of(sc.tcb.get()), model.holder, "holder of context {index}");
            let mut lenders = Vec::new();
            let mut next = sc.lender.get();
            while let Some(lender) = next {
                lenders.insert(0, self.thread_of(Some(lender)).expect("a known lender"));
                next = lender.lender_below.get();
            }
            assert_eq!(lenders, model.lenders, "lenders of context {index}");
        }
        self.compare_queues();
        let runnable = (0..THREADS).filter(|t| self.model.is_schedulable(*t));
        let top = runnable.map(|t| self.model.threads[t].priority).max();
        let current = self.current();
        assert_eq!(current.map(|t| self.model.threads[t].priority), top, "who runs");
        assert!(current.is_none_or(|t| self.model.is_schedulable(t)));
    }

    fn compare_queues(&self) {
        for (ep, [slot, _]) in self.endpoints.iter().enumerate() {
            let Cap::Endpoint { endpoint, .. } = self.w.cap(*slot) else { panic!() };
            let mut expected = self.model.waiters(State::Send(ep));
            expected.extend(self.model.waiters(State::Receive(ep)));
            assert_eq!(self.queue(endpoint.queue.head.get()), expected, "queue of endpoint {ep}");
        }
        for (n, slot) in self.notifications.iter().enumerate() {
            let Cap::Notification { notification, .. } = self.w.cap(*slot) else { panic!() };
            let expected = self.model.waiters(State::Wait(n));
            assert_eq!(self.queue(notification.queue.head.get()), expected);
            let bits = notification.active.get().then(|| notification.pending.get());
            assert_eq!(bits, self.model.notifications[n].bits, "bits of notification {n}");
        }
    }

    fn queue(&self, head: Option<Obj<Tcb>>) -> Vec<usize> {
        let mut all = Vec::new();
        let mut level = head;
        while let Some(first) = level {
            let mut tcb = Some(first);
            while let Some(here) = tcb {
                all.extend(self.thread_of(Some(here)));
                tcb = here.next.get().filter(|next| *next != first);
            }
            level = first.head_next.get();
        }
        all
    }

    fn state(&self, tcb: Obj<Tcb>) -> State {
        let endpoint = || {
            let wanted = tcb.endpoint.get();
            let is_it = |slots: &[u64; 2]| matches!(self.w.cap(slots[0]), Cap::Endpoint { endpoint, .. } if Some(endpoint) == wanted);
            self.endpoints.iter().position(is_it).expect("a known endpoint")
        };
        match tcb.state.get() {
            ThreadState::Inactive => State::Inactive,
            ThreadState::Ready => State::Ready,
            ThreadState::BlockedOnSend => State::Send(endpoint()),
            ThreadState::BlockedOnReceive => State::Receive(endpoint()),
            ThreadState::BlockedOnReply => {
                let wanted = tcb.reply.get();
                let is_it = |slot: &u64| matches!(self.w.cap(*slot), Cap::Reply(reply) if Some(reply) == wanted);
                State::Reply(self.replies.iter().position(is_it).expect("a known reply object"))
            }
            ThreadState::BlockedOnNotification => {
                let wanted = tcb.waiting_on.get();
                let is_it = |slot: &u64| matches!(self.w.cap(*slot), Cap::Notification { notification, .. } if Some(notification) == wanted);
                State::Wait(self.notifications.iter().position(is_it).expect("a known one"))
            }
        }
    }
}
