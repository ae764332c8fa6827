//! The x86_64 backend: a PC with local APIC, I/O APIC and 16550, booted by PVH.
//!
//! Pure and tested on every host: [`boot`] (what the loader says), [`context`] (user registers),
//! [`paging`] (page-table entries), [`syndrome`] (what an exception means), [`calibration`] (how
//! fast a counter counts). The rest touches the machine and exists on the bare target only:
//! `start` (from the loader to the first thread), `trap` (entries and exits), `percpu`, `gdt`,
//! `idt`, `cpu` (features and control registers), `fpu`, `apic`, `ioapic`, `clock` (the TSC, with
//! `hpet` and `pit` to calibrate it), `serial`, `machine` (the contract), `power` (the end of the
//! machine), `dump` (of a panic).
//!
//! Deliberately not here: several CPUs (the per-CPU structure is ready), ACPI (the I/O APIC is
//! taken at its architectural address 0xFEC00000 with interrupt base 0; user space reads the
//! tables), legacy interrupts by the 8259.

pub mod boot;
pub mod calibration;
pub mod context;
pub mod paging;
pub mod syndrome;

/// Files that contain machine code or talk to the machine.
macro_rules! bare {
    ($($vis:vis mod $name:ident;)*) => {
        $(#[cfg(all(target_os = "none", target_arch = "x86_64"))] $vis mod $name;)*
    };
}

bare! {
    mod apic;
    mod clock;
    mod cpu;
    pub(super) mod dump;
    mod fpu;
    mod gdt;
    mod hpet;
    mod idt;
    mod ioapic;
    pub mod machine;
    pub(super) mod percpu;
    mod pit;
    pub(super) mod power;
    pub(super) mod serial;
    pub mod start;
    pub(super) mod trap;
}
