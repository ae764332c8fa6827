//! The single entry from the architecture: one trap, one decision, one exit.
//!
//! Each system call looks up everything that it names before it does anything, so that a call
//! that faults has done nothing and can be repeated. Status and results are written to the
//! caller's registers last: a call that blocks or is preempted leaves them as they were given,
//! so that moving the instruction pointer back repeats it.

use skink_abi::{CPtr, CapRights, Error, Fault, MessageInfo, Syscall};

use crate::Kernel;
use crate::cap::Cap;
use crate::fault::{self, Phase};
use crate::invocation::{Answer, Failure};
use crate::ipc::{self, Blocking, SEND_DONATE};
use crate::machine::{Machine, Trap, UserContext};
use crate::obj::Obj;
use crate::object::endpoint::Endpoint;
use crate::object::irq;
use crate::object::notification::{self, Notification};
use crate::object::reply::Reply;
use crate::object::tcb::{Context, SEND_CALL, SEND_GRANT, SEND_GRANT_REPLY, Tcb, ThreadState};
use crate::slot::CapSlot;

/// Writes a failure to a thread's registers.
pub fn fail(regs: &mut Context, error: Error, detail: [u64; 2]) {
    regs.set_status(error.raw());
    regs.set_badge(0);
    regs.set_message_info(MessageInfo(0));
    for (index, word) in [detail[0], detail[1], 0, 0].into_iter().enumerate() {
        regs.set_mr(index, word);
    }
}

fn fail_thread(tcb: Obj<Tcb>, error: Error, detail: [u64; 2]) {
    tcb.regs(|regs| fail(regs, error, detail));
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Call,
    Send,
    /// Failures are errors; without a receiver the message is dropped.
    NbSend,
    /// As `NbSend`, and the scheduling context goes to a receiver without one.
    NbSendDonate,
}

impl Mode {
    fn blocking(self) -> Blocking {
        match self {
            Mode::Call | Mode::Send => Blocking::Yes,
            Mode::NbSend | Mode::NbSendDonate => Blocking::No,
        }
    }
}

/// A pointer that a call names, in which of its phases, and whether that phase may block.
type Named = (u64, Phase, Blocking);

/// What is missing.
enum Lack {
    /// There is no capability of the kind.
    Cap { bits_left: u8 },
    /// It has not this right.
    Right(CapRights),
}

/// Whether the system call goes on to its next phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    /// The thread's registers or state say what came of it.
    Over,
}

/// What a receiving call receives from.
enum Source {
    /// With the low word of its capability.
    Endpoint(Obj<Endpoint>, u32),
    Notification(Obj<Notification>),
}

/// Whether a receiving call takes a reply object along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    Reply,
    Nothing,
}

impl Kernel {
    /// Handles one trap. Afterwards the machine knows who runs next ([`crate::machine::Machine::set_current`]),
    /// in whose space, and until when.
    #[inline(always)]
    pub fn handle(&mut self, trap: Trap) {
        if trap == Trap::Syscall {
            if !self.handle_syscall_fast() {
                self.syscall_slow();
            }
        } else {
            self.event(trap);
        }
    }

    #[inline(never)]
    pub(crate) fn syscall_slow(&mut self) {
        self.syscalls = self.syscalls.wrapping_add(1);
        if let Some(tcb) = self.cpu.current {
            self.syscall(tcb);
        }
        self.schedule();
        self.check_if_debug();
    }

    #[inline(never)]
    fn event(&mut self, trap: Trap) {
        match trap {
            Trap::Fault(kind, words) => {
                if let Some(tcb) = self.cpu.current {
                    fault::raise(self, tcb, kind, words);
                }
            }
            Trap::Interrupt(irq) => irq::deliver(self, irq),
            Trap::Timer => self.on_timer(),
            Trap::Syscall | Trap::Spurious => {}
        }
        self.schedule();
        self.check_if_debug();
    }

    /// Debug images check the invariants after every trap. The time that takes is nobody's: it
    /// is not charged to the thread that runs next.
    #[inline]
    pub(crate) fn check_if_debug(&mut self) {
        if cfg!(feature = "debug") {
            let start = self.machine.now();
            self.check_invariants();
            self.forgive(self.machine.now() - start);
        }
    }

    fn syscall(&mut self, tcb: Obj<Tcb>) {
        let (number, cptr) = tcb.regs(|regs| (regs.syscall(), regs.cptr()));
        let Some(call) = Syscall::from_raw(number) else {
            return fault::raise(self, tcb, Fault::UnknownSyscall, [number, 0, 0]);
        };
        let done = match call {
            Syscall::Call => {
                self.send_phase(tcb, cptr, Mode::Call);
                Next::Over
            }
            Syscall::Send => self.send_phase(tcb, cptr, Mode::Send),
            Syscall::NbSend => self.send_phase(tcb, cptr, Mode::NbSend),
            Syscall::Signal => self.signal(tcb, cptr),
            Syscall::ReplyRecv => self.reply_recv(tcb, cptr),
            Syscall::NbSendRecv => self.nb_send_recv(tcb, cptr),
            Syscall::Recv => self.receive_phase(tcb, cptr, Offer::Reply, Blocking::Yes),
            Syscall::NbRecv => self.receive_phase(tcb, cptr, Offer::Reply, Blocking::No),
            Syscall::Wait => self.receive_phase(tcb, cptr, Offer::Nothing, Blocking::Yes),
            Syscall::Poll => self.receive_phase(tcb, cptr, Offer::Nothing, Blocking::No),
            Syscall::Yield => {
                self.yield_now(tcb);
                Next::Continue
            }
        };
        if done == Next::Continue {
            tcb.regs(|regs| regs.set_status(0));
        }
    }

    /// The slot that an invoked pointer names, if it holds a capability.
    fn invoked(&self, tcb: Obj<Tcb>, cptr: u64) -> Result<Obj<CapSlot>, u8> {
        match self.lookup(tcb, CPtr(cptr)) {
            Ok(slot) if !slot.is_empty() => Ok(slot),
            Ok(_) => Err(0),
            Err(failure) => Err(failure.bits_left),
        }
    }

    /// What a call names lacks something: a fault if the call may block, else an error.
    fn refuse(&mut self, tcb: Obj<Tcb>, (cptr, phase, blocking): Named, lack: Lack) {
        let (error, detail, bits_left) = match lack {
            Lack::Cap { bits_left } => {
                (Error::InvalidCapability, [0, u64::from(bits_left)], bits_left)
            }
            Lack::Right(right) => (Error::InsufficientRights, [u64::from(right.bits()), 0], 0),
        };
        match blocking {
            Blocking::Yes => fault::cap_fault(self, tcb, cptr, phase, bits_left),
            Blocking::No => fail_thread(tcb, error, detail),
        }
    }

    fn send_phase(&mut self, tcb: Obj<Tcb>, cptr: u64, mode: Mode) -> Next {
        let slot = match self.invoked(tcb, cptr) {
            Ok(slot) => slot,
            Err(left) => {
                let named = (cptr, Phase::Send, mode.blocking());
                self.refuse(tcb, named, Lack::Cap { bits_left: left });
                return Next::Over;
            }
        };
        match slot.cap.get().unpack() {
            Cap::Endpoint { endpoint, badge, rights } => {
                self.send_message(tcb, (cptr, endpoint, badge, rights), mode)
            }
            Cap::Notification { notification, badge, rights } => {
                self.send_signal(tcb, (cptr, notification, badge, rights), mode)
            }
            Cap::Reply(reply) => {
                ipc::reply(self, tcb, reply);
                if mode == Mode::Call {
                    answer(tcb, Answer::default());
                }
                Next::Continue
            }
            Cap::Null | Cap::Zombie { .. } => {
                let named = (cptr, Phase::Send, mode.blocking());
                self.refuse(tcb, named, Lack::Cap { bits_left: 0 });
                Next::Over
            }
            _ => self.invoke(tcb, slot, mode),
        }
    }

    fn send_message(
        &mut self,
        tcb: Obj<Tcb>,
        (cptr, endpoint, badge, rights): (u64, Obj<Endpoint>, u64, CapRights),
        mode: Mode,
    ) -> Next {
        let answer_rights = CapRights::GRANT | CapRights::GRANT_REPLY;
        let needed = match mode {
            Mode::Call if !rights.intersects(answer_rights) => CapRights::GRANT_REPLY,
            _ if !rights.contains(CapRights::WRITE) => CapRights::WRITE,
            _ => CapRights::empty(),
        };
        if !needed.is_empty() {
            self.refuse(tcb, (cptr, Phase::Send, mode.blocking()), Lack::Right(needed));
            return Next::Over;
        }
        let mut flags = match mode {
            Mode::Call => SEND_CALL,
            Mode::NbSendDonate => SEND_DONATE,
            Mode::Send | Mode::NbSend => 0,
        };
        if rights.contains(CapRights::GRANT) {
            flags |= SEND_GRANT;
            if let Err((index, left)) = self.check_sent_caps(tcb) {
                fail_thread(tcb, Error::InvalidCapability, [index, u64::from(left)]);
                return Next::Over;
            }
        }
        if rights.contains(CapRights::GRANT_REPLY) {
            flags |= SEND_GRANT_REPLY;
        }
        ipc::send(self, tcb, endpoint, badge, flags, mode.blocking());
        if tcb.state.get() == ThreadState::Ready && mode != Mode::Call {
            return Next::Continue;
        }
        Next::Over
    }

    /// Checks that all capabilities to be sent are there: the number of the first that is not,
    /// from 1, and the bits left.
    fn check_sent_caps(&self, tcb: Obj<Tcb>) -> Result<(), (u64, u8)> {
        let count = tcb.regs(|regs| regs.message_info()).caps();
        if count == 0 {
            return Ok(());
        }
        let Some(buffer) = ipc::buffer_of(self, tcb) else {
            return Ok(());
        };
        for index in 0..count {
            // SAFETY: at most `MAX_CAPS` words from `SEND_CAPS` are metadata of the buffer.
            let cptr =
                unsafe { ipc::read_word(buffer, skink_abi::message::buffer::SEND_CAPS + index) };
            self.invoked(tcb, cptr).map_err(|left| (index as u64 + 1, left))?;
        }
        Ok(())
    }

    fn send_signal(
        &mut self,
        tcb: Obj<Tcb>,
        (cptr, notification, badge, rights): (u64, Obj<Notification>, u64, CapRights),
        mode: Mode,
    ) -> Next {
        if !rights.contains(CapRights::WRITE) {
            let named = (cptr, Phase::Send, mode.blocking());
            self.refuse(tcb, named, Lack::Right(CapRights::WRITE));
            return Next::Over;
        }
        notification::signal(self, notification, badge);
        if mode == Mode::Call {
            answer(tcb, Answer::default());
        }
        Next::Continue
    }

    fn signal(&mut self, tcb: Obj<Tcb>, cptr: u64) -> Next {
        let cap = self.invoked(tcb, cptr).map(|slot| slot.cap.get().unpack());
        match cap {
            Ok(Cap::Notification { notification, badge, rights }) => {
                self.send_signal(tcb, (cptr, notification, badge, rights), Mode::NbSend)
            }
            other => {
                let lack = Lack::Cap { bits_left: other.err().unwrap_or(0) };
                self.refuse(tcb, (cptr, Phase::Send, Blocking::No), lack);
                Next::Over
            }
        }
    }

    /// Invokes a kernel object. A `call` gets the answer; a send only the status.
    fn invoke(&mut self, tcb: Obj<Tcb>, slot: Obj<CapSlot>, mode: Mode) -> Next {
        self.cpu.invoker = Some(tcb);
        let outcome = crate::decode::invoke(self, tcb, slot);
        if self.cpu.invoker.take().is_none() {
            // The caller ended itself: its registers may be gone.
            return Next::Over;
        }
        match outcome {
            Ok(words) if mode == Mode::Call => {
                answer(tcb, words);
                Next::Over
            }
            Ok(_) => Next::Continue,
            Err(Failure::Error(error, detail)) => {
                fail_thread(tcb, error, detail);
                Next::Over
            }
            Err(Failure::Preempted) => {
                tcb.regs(|regs| regs.rewind_syscall());
                Next::Over
            }
        }
    }

    /// What a receiving call names; `None` after a fault or error.
    fn source(&mut self, tcb: Obj<Tcb>, cptr: u64, blocking: Blocking) -> Option<Source> {
        let invoked = self.invoked(tcb, cptr).map(|slot| slot.cap.get());
        let (rights, source) = match invoked.map(|cap| (cap.unpack(), cap.0 as u32)) {
            Ok((Cap::Endpoint { endpoint, rights, .. }, word)) => {
                (rights, Source::Endpoint(endpoint, word))
            }
            Ok((Cap::Notification { notification, rights, .. }, _))
                if notification.bound.get().is_none_or(|bound| bound == tcb) =>
            {
                (rights, Source::Notification(notification))
            }
            other => {
                let left = other.err().unwrap_or(0);
                self.refuse(tcb, (cptr, Phase::Receive, blocking), Lack::Cap { bits_left: left });
                return None;
            }
        };
        if !rights.contains(CapRights::READ) {
            self.refuse(tcb, (cptr, Phase::Receive, blocking), Lack::Right(CapRights::READ));
            return None;
        }
        Some(source)
    }

    /// The reply object that a call names: `Some(None)` for the null pointer, `None` after a
    /// fault or error.
    fn named_reply(
        &mut self,
        tcb: Obj<Tcb>,
        phase: Phase,
        blocking: Blocking,
    ) -> Option<Option<Obj<Reply>>> {
        let cptr = tcb.regs(|regs| regs.reply_cptr());
        if CPtr(cptr) == CPtr::NULL {
            return Some(None);
        }
        match self.invoked(tcb, cptr).map(|slot| slot.cap.get().unpack()) {
            Ok(Cap::Reply(reply)) => Some(Some(reply)),
            other => {
                let lack = Lack::Cap { bits_left: other.err().unwrap_or(0) };
                self.refuse(tcb, (cptr, phase, blocking), lack);
                None
            }
        }
    }

    fn receive_phase(
        &mut self,
        tcb: Obj<Tcb>,
        cptr: u64,
        offer: Offer,
        blocking: Blocking,
    ) -> Next {
        if let Some((source, offered)) = self.source_and_offer(tcb, cptr, offer, blocking) {
            self.receive_from(tcb, source, offered, blocking);
        }
        Next::Over
    }

    /// What a receiving call names, with its reply object; `None` after a fault or error.
    fn source_and_offer(
        &mut self,
        tcb: Obj<Tcb>,
        cptr: u64,
        offer: Offer,
        blocking: Blocking,
    ) -> Option<(Source, Option<Obj<Reply>>)> {
        let source = self.source(tcb, cptr, blocking)?;
        let offered = match (offer, &source) {
            (Offer::Reply, Source::Endpoint(..)) => {
                self.named_reply(tcb, Phase::Receive, blocking)?
            }
            _ => None,
        };
        Some((source, offered))
    }

    /// Sends and goes on to receive. What it receives from is looked up before it sends, so that
    /// a call that faults has done nothing; and after it, because what it sent may have been an
    /// invocation that took it away (an error then, since it has sent), or that stopped the thread.
    fn nb_send_recv(&mut self, tcb: Obj<Tcb>, cptr: u64) -> Next {
        let from = tcb.regs(|regs| regs.receive_cptr());
        let sends = self.invoked(tcb, cptr).is_ok();
        if sends && self.source_and_offer(tcb, from, Offer::Reply, Blocking::Yes).is_none()
            || self.send_phase(tcb, cptr, Mode::NbSendDonate) == Next::Over
        {
            return Next::Over;
        }
        if tcb.state.get() != ThreadState::Ready {
            fail_thread(tcb, Error::Cancelled, [0, 0]);
        } else if let Some((source, offered)) =
            self.source_and_offer(tcb, from, Offer::Reply, Blocking::No)
        {
            self.receive_from(tcb, source, offered, Blocking::Yes);
        }
        Next::Over
    }

    fn receive_from(
        &mut self,
        tcb: Obj<Tcb>,
        source: Source,
        offered: Option<Obj<Reply>>,
        blocking: Blocking,
    ) {
        let received = match source {
            Source::Endpoint(endpoint, word) => {
                ipc::receive(self, tcb, (endpoint, word), offered, blocking)
            }
            Source::Notification(notification) => {
                match (notification::take(notification, tcb), blocking) {
                    (true, _) => Ok(()),
                    (false, Blocking::No) => Err(Error::WouldBlock),
                    (false, Blocking::Yes) => {
                        notification::join(self, notification, tcb);
                        Ok(())
                    }
                }
            }
        };
        if let Err(error) = received {
            fail_thread(tcb, error, [0, 0]);
        }
    }

    fn reply_recv(&mut self, tcb: Obj<Tcb>, cptr: u64) -> Next {
        let Some(source) = self.source(tcb, cptr, Blocking::Yes) else {
            return Next::Over;
        };
        let Some(named) = self.named_reply(tcb, Phase::Send, Blocking::Yes) else {
            return Next::Over;
        };
        if let Some(reply) = named {
            ipc::reply(self, tcb, reply);
        }
        self.receive_from(tcb, source, named, Blocking::Yes);
        Next::Over
    }
}

/// Gives a `call` its answer.
fn answer(tcb: Obj<Tcb>, answer: Answer) {
    tcb.regs(|regs| {
        regs.set_status(0);
        regs.set_badge(0);
        regs.set_message_info(MessageInfo::new(0, answer.length, 0));
        for (index, word) in answer.words.into_iter().enumerate() {
            regs.set_mr(index, word);
        }
    });
}
