//! The emulated machine: what kernel tests run on.
//!
//! Physical memory is a heap allocation, the TLB is a map that only flushes empty, time stands
//! still until a test moves it, and an interrupt "arrives" when a test says so. It punishes
//! misuse: a translation that the kernel forgot to flush is found by [`HostMachine::access`].
//!
//! Not here: user code. Tests play the user by writing registers and calling the kernel.

pub mod context;
pub mod machine;
pub mod memory;
pub mod paging;
pub mod tlb;

pub use context::HostContext;
pub use machine::HostMachine;
pub use paging::HostPaging;
pub use tlb::Access;
