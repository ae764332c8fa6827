//! The contract between kernel and user space: every number and layout that both sides agree on.
//!
//! Terms and semantics are seL4's (MCS variant) unless a page says otherwise. The crate has no
//! code beyond encoding and decoding, allocates nothing, and builds for every host and target.
//!
//! * [`syscall`]: system call numbers and the register convention of each architecture.
//! * [`message`]: [`MessageInfo`], message registers, the IPC buffer.
//! * [`cap`]: [`CPtr`], [`Badge`], [`CapRights`], [`ObjectType`].
//! * [`invocation`]: what a `call` on a kernel object's capability asks for.
//! * [`error`]: why a system call failed, and what happened to the message.
//! * [`fault`]: the messages that a fault handler receives.
//! * [`bootinfo`]: what the kernel tells the root task.
//! * [`bootimage`]: the container that the host tool packs and the kernel and root task read.
//! * [`exec`]: the frames between the host tool and the shell on the second serial port.
//! * [`pattern`]: the content of the file that the host tool has the shell's measurements read.
//!
//! Not here: anything that only user programs share (that is `libipc`).
#![no_std]
#![forbid(unsafe_code)]

pub mod bootimage;
pub mod bootinfo;
pub mod cap;
pub mod error;
pub mod exec;
pub mod fault;
pub mod invocation;
pub mod message;
pub mod pattern;
pub mod syscall;

pub use cap::{Badge, CPtr, CapRights, ObjectType, Slot};
pub use error::Error;
pub use fault::Fault;
pub use invocation::Invocation;
pub use message::MessageInfo;
pub use syscall::Syscall;

/// Size in bytes of the smallest page and of the IPC buffer.
pub const PAGE_SIZE: usize = 4096;
/// Log2 of [`PAGE_SIZE`].
pub const PAGE_BITS: u8 = 12;
/// Bytes of one capability slot.
pub const SLOT_SIZE: usize = 32;
/// Log2 of [`SLOT_SIZE`].
pub const SLOT_BITS: u8 = 5;

/// Declares a field-less enum with explicit numbers, and the checked conversion from a number.
macro_rules! numbered {
    ($(#[$meta:meta])* $vis:vis enum $name:ident : $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $value:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr($repr)]
        $vis enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// Every value, in numeric order of declaration.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The value with this number, if there is one.
            pub const fn from_raw(raw: $repr) -> Option<Self> {
                $(if raw == $value { return Some($name::$variant); })*
                None
            }

            /// The number that stands for this value at the ABI.
            pub const fn raw(self) -> $repr {
                self as $repr
            }
        }
    };
}
pub(crate) use numbered;
