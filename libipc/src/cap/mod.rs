//! Typed capabilities: [`Cap<T>`] is a capability pointer whose kind of object is known at
//! compile time, with one method for each system call and invocation of that object.
//!
//! A `Cap` is a name, not an owner: copying it copies no capability, dropping it deletes none.
//! A wrong name or kind is an error of the kernel, never unsoundness of the kernel.
//!
//! Not memory-safe in the letter: unmapping one's own stack, or writing another thread's
//! registers, is possible with the right capabilities, as writing `/proc/self/mem` is elsewhere.
//! Servers hold no such capabilities; the root server takes care.

mod cnode;
mod device;
mod ipc;
mod memory;
mod tcb;

pub use cnode::SlotPath;
pub use device::LOG_MAX_BYTES;
pub use ipc::message_info;
pub use memory::CNodePath;
pub use tcb::Then;

use crate::buffer;
use crate::raw::{self, Message, SysResult};
use core::fmt;
use core::marker::PhantomData;
use skink_abi::{CPtr, Invocation, MessageInfo};

/// A capability pointer to an object of kind `T`.
#[repr(transparent)]
pub struct Cap<T> {
    cptr: CPtr,
    kind: PhantomData<fn() -> T>,
}

impl<T> Cap<T> {
    /// Names the capability at `cptr`, which the caller believes to be of kind `T`.
    pub const fn new(cptr: CPtr) -> Self {
        Cap { cptr, kind: PhantomData }
    }

    /// Names the capability in slot `index` of a CSpace whose pointers are slot indices.
    pub const fn from_slot(index: u64) -> Self {
        Cap::new(CPtr(index))
    }

    /// The pointer itself.
    pub const fn cptr(self) -> CPtr {
        self.cptr
    }

    /// The same pointer, believed to be of kind `U`.
    pub const fn cast<U>(self) -> Cap<U> {
        Cap::new(self.cptr)
    }
}

impl<T> Clone for Cap<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cap<T> {}

impl<T> PartialEq for Cap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cptr == other.cptr
    }
}

impl<T> Eq for Cap<T> {}

impl<T> fmt::Debug for Cap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = core::any::type_name::<T>();
        let short = name.rsplit("::").next().unwrap_or(name);
        write!(f, "Cap<{short}>({:#x})", self.cptr.0)
    }
}

/// Declares the empty types that mark kinds of object.
macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        $($(#[$meta])* #[derive(Clone, Copy, Debug)] pub enum $name {})*
    };
}

kinds! {
    /// Raw memory that other objects are made of.
    Untyped,
    /// A table of capability slots.
    CNode,
    /// A thread.
    Tcb,
    /// A synchronous rendezvous.
    Endpoint,
    /// A word of signal bits.
    Notification,
    /// The right to answer one caller.
    Reply,
    /// A budget of time per period.
    SchedContext,
    /// Makes budgets.
    SchedControl,
    /// A one-shot timer.
    Timer,
    /// The root of an address space.
    VSpace,
    /// A paging structure.
    PageTable,
    /// A page of memory.
    Frame,
    /// Makes interrupt handlers.
    IrqControl,
    /// One interrupt.
    IrqHandler,
    /// Makes I/O port ranges (x86_64).
    IoPortControl,
    /// A range of I/O ports (x86_64).
    IoPort,
    /// Makes pools of address space identifiers.
    AsidControl,
    /// A pool of address space identifiers.
    AsidPool,
    /// The kernel's debug console.
    Log,
    /// Ends the machine.
    MachineControl,
}

/// Invokes `cap` with words and capabilities; the first four words travel in registers.
#[inline(always)]
pub(crate) fn invoke(
    cap: CPtr,
    invocation: Invocation,
    words: &[u64],
    caps: &[CPtr],
) -> SysResult<Message> {
    let mut registers = [0; 4];
    for (i, &word) in words.iter().enumerate() {
        match registers.get_mut(i) {
            Some(register) => *register = word,
            None => buffer::set_word(i, word),
        }
    }
    buffer::set_send_caps(caps);
    let info = MessageInfo::new(invocation.raw(), words.len(), caps.len());
    raw::call(cap, info, registers)
}

/// As [`invoke`], where only success matters.
#[inline(always)]
pub(crate) fn run(
    cap: CPtr,
    invocation: Invocation,
    words: &[u64],
    caps: &[CPtr],
) -> SysResult<()> {
    invoke(cap, invocation, words, caps).map(|_| ())
}
