//! The aarch64 backend: a machine with GICv2 or GICv3, generic timer and PL011, booted as a Linux
//! `Image` with a device tree.
//!
//! Pure and tested on every host: [`boot`] (what the device tree says), [`context`] (user
//! registers), [`paging`] (page-table entries), [`syndrome`] (what an exception means). The rest
//! touches the machine and exists on the bare target only: `start` (from the loader to the first
//! thread), `trap` (entries and exits), `percpu`, `cpu` (features and control registers), `fpu`,
//! `gic`, `timer`, `serial`, `machine` (the contract), `power` (the end of the machine), `dump`
//! (of a panic).
//!
//! Deliberately not here: several CPUs, the ITS of GICv3 (messages work with the v2m frame of
//! GICv2), SVE and SME (their instructions fault).

pub mod boot;
pub mod context;
pub mod paging;
pub mod syndrome;

/// Files that contain machine code or talk to the machine.
macro_rules! bare {
    ($($vis:vis mod $name:ident;)*) => {
        $(#[cfg(all(target_os = "none", target_arch = "aarch64"))] $vis mod $name;)*
    };
}

bare! {
    mod cpu;
    pub(super) mod dump;
    mod fpu;
    mod gic;
    pub mod machine;
    pub(super) mod percpu;
    pub(super) mod power;
    pub(super) mod serial;
    pub mod start;
    mod timer;
    pub(super) mod trap;
}
