//! Threads.

use core::cell::{Cell, UnsafeCell};

use crate::arch::Current;
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::sched_context::SchedContext;
use crate::slot::CapSlot;

/// The user register file of this build's architecture.
pub type Context = <Current as Machine>::Context;
/// The FPU state of this build's architecture.
pub type FpuState = <Current as Machine>::FpuState;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// Made or suspended; not runnable.
    Inactive,
    /// Runnable (it runs if it has a scheduling context with budget).
    Ready,
    /// In an endpoint's queue, to send.
    BlockedOnSend,
    /// In an endpoint's queue, to receive.
    BlockedOnReceive,
    /// Waits for an answer through a reply object (of a call or of a fault).
    BlockedOnReply,
    /// In a notification's queue.
    BlockedOnNotification,
}

/// The capabilities that a thread itself holds, by index into [`Tcb::slots`].
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TcbSlot {
    CSpace = 0,
    VSpace = 1,
    Buffer = 2,
    FaultEndpoint = 3,
    TimeoutEndpoint = 4,
}

/// Slots in a TCB.
pub const TCB_SLOTS: usize = 5;

/// A thread, 2 KiB. The context comes first: trap entries save to it by offset.
#[repr(C, align(64))]
pub struct Tcb {
    /// User registers.
    pub context: UnsafeCell<Context>,
    /// Capabilities that the thread holds.
    pub slots: [CapSlot; TCB_SLOTS],
    /// What it does.
    pub state: Cell<ThreadState>,
    /// Priority, 0 to 255.
    pub priority: Cell<u8>,
    /// Maximum controlled priority.
    pub mcp: Cell<u8>,
    /// Whether it is linked into a ready queue.
    pub queued: Cell<bool>,
    /// `skink_abi::invocation::TCB_FLAG_…`.
    pub flags: Cell<u64>,
    /// Links of the ready queue, or of the wait queue it is in.
    pub next: Cell<Option<Obj<Tcb>>>,
    /// See `next`.
    pub prev: Cell<Option<Obj<Tcb>>>,
    /// Links between priority heads of a wait queue.
    pub head_next: Cell<Option<Obj<Tcb>>>,
    /// See `head_next`.
    pub head_prev: Cell<Option<Obj<Tcb>>>,
    /// The endpoint it is blocked on.
    pub endpoint: Cell<Option<Obj<Endpoint>>>,
    /// The notification it is blocked on.
    pub waiting_on: Cell<Option<Obj<Notification>>>,
    /// Badge of the capability it sends with, while blocked.
    pub badge: Cell<u64>,
    /// Bits of how it sends: see the constants `SEND_…`.
    pub send_flags: Cell<u8>,
    /// The notification bound to it.
    pub bound: Cell<Option<Obj<Notification>>>,
    /// Its time.
    pub sched_context: Cell<Option<Obj<SchedContext>>>,
    /// The reply object that it offered to `recv`, or waits on.
    pub reply: Cell<Option<Obj<Reply>>>,
    /// A fault that waits to be sent or answered: kind (0 none) and its words.
    pub fault: Cell<[u64; 6]>,
    /// FPU state, valid if the flag is set.
    pub fpu: UnsafeCell<FpuState>,
}

/// The blocked sender did `call`.
pub const SEND_CALL: u8 = 1;
/// It may send capabilities.
pub const SEND_GRANT: u8 = 2;
/// It may hand out the right to answer.
pub const SEND_GRANT_REPLY: u8 = 4;
/// What it sends is its fault.
pub const SEND_FAULT: u8 = 8;
