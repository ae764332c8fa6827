//! How a guest ended, from QEMU's exit status and messages.
//!
//! The guest says how by a code of its own, which QEMU makes its status: on x86_64 the device
//! `isa-debug-exit` makes it `code << 1 | 1`; on aarch64 the kernel gives semihosting's exit that
//! same value. So a guest's status is odd, and QEMU's own failures are told from `code` 0 by what
//! QEMU printed.

use crate::workspace::Arch;
use skink_abi::invocation::exit_code;
use std::process::ExitStatus;

/// The guest's code for a kernel panic, which no program can give.
pub const PANIC_CODE: i32 = exit_code::PANIC as i32;
/// The guest's code when the kernel finds that it cannot boot, which no program can give either.
pub const CANNOT_BOOT_CODE: i32 = exit_code::CANNOT_BOOT as i32;
/// The guest's code when its last sync failed.
pub const UNSYNCED_CODE: i32 = exit_code::UNSYNCED as i32;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It shut down.
    Clean,
    /// It shut down, and something that was written is not on the disk.
    Unsynced,
    /// The kernel panicked: always a bug of the kernel.
    KernelPanic,
    /// The kernel could not boot; it has said why.
    CannotBoot,
    /// It ended with a code of its own.
    Code(i32),
    /// The machine was reset, which this machine is not allowed: a triple fault, perhaps.
    Reset,
    /// QEMU itself failed.
    Qemu(i32),
    /// A signal ended QEMU.
    Signal,
}

impl Ending {
    /// From QEMU's status and what it printed.
    pub fn of(arch: Arch, status: ExitStatus, messages: &str) -> Ending {
        match status.code() {
            None => Ending::Signal,
            Some(0) if was_told_to_end(messages) => Ending::Signal,
            Some(0) => match arch {
                Arch::X86_64 => Ending::Reset,
                // PSCI's SYSTEM_OFF, which the kernel calls where there is no semihosting. It never
                // asks for a reset, and no program can.
                Arch::Aarch64 => Ending::Clean,
            },
            Some(1) if is_complaint(messages) => Ending::Qemu(1),
            Some(code) if code & 1 == 0 => Ending::Qemu(code),
            Some(code) => match code >> 1 {
                0 => Ending::Clean,
                UNSYNCED_CODE => Ending::Unsynced,
                PANIC_CODE => Ending::KernelPanic,
                CANNOT_BOOT_CODE => Ending::CannotBoot,
                code => Ending::Code(code),
            },
        }
    }

    /// What the tool's own exit code is for it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Ending::Clean => 0,
            Ending::Unsynced => 1,
            Ending::KernelPanic => 3,
            Ending::CannotBoot | Ending::Code(_) => 4,
            Ending::Reset | Ending::Qemu(_) | Ending::Signal => 5,
        }
    }
}

/// Whether QEMU's messages have an error, not warnings alone.
fn is_complaint(messages: &str) -> bool {
    let begins = |line: &str| line.starts_with("qemu-system-") || line.starts_with("qemu:");
    messages.lines().any(|line| begins(line) && !line.contains("warning:"))
}

/// Whether QEMU ended in good order because somebody sent it a signal.
fn was_told_to_end(messages: &str) -> bool {
    messages.lines().any(|line| line.contains("terminating on signal"))
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Ending::Clean => f.write_str("the guest shut down"),
            Ending::Unsynced => {
                f.write_str("the guest shut down, and what was written is not all on the disk")
            }
            Ending::KernelPanic => f.write_str("kernel panic"),
            Ending::CannotBoot => f.write_str("the kernel could not boot"),
            Ending::Code(code) => write!(f, "the guest ended with code {code}"),
            Ending::Reset => f.write_str("the guest reset the machine (a triple fault?)"),
            Ending::Qemu(code) => write!(f, "QEMU failed with status {code}"),
            Ending::Signal => f.write_str("QEMU was ended by a signal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn endings_are_told_apart_on_each_machine() {
        for arch in Arch::ALL {
            let of = |code: i32| Ending::of(arch, ExitStatus::from_raw(code << 8), "");
            assert_eq!(of(1), Ending::Clean);
            assert_eq!(of(125), Ending::KernelPanic);
            assert_eq!(of(123), Ending::CannotBoot);
            assert_eq!((of(121), of(121).exit_code()), (Ending::Unsynced, 1));
            assert_eq!(of(3), Ending::Code(1));
            assert_eq!(of(2), Ending::Qemu(2));
            assert_eq!(Ending::of(arch, ExitStatus::from_raw(9), ""), Ending::Signal);
            let complained = "qemu-system-x: -drive: no such file";
            assert_eq!(Ending::of(arch, ExitStatus::from_raw(1 << 8), complained), Ending::Qemu(1));
            for said in ["could not open kernel file 'k'", "invalid kernel header"] {
                let complained = format!("qemu: {said}");
                let of = Ending::of(arch, ExitStatus::from_raw(1 << 8), &complained);
                assert_eq!(of, Ending::Qemu(1), "{complained}");
            }
            let warned = "qemu-system-x: warning: old\nother";
            assert_eq!(Ending::of(arch, ExitStatus::from_raw(1 << 8), warned), Ending::Clean);
            let told = "qemu-system-x: terminating on signal 15 from pid 1";
            assert_eq!(Ending::of(arch, ExitStatus::from_raw(0), told), Ending::Signal);
        }
        let off = |arch| Ending::of(arch, ExitStatus::from_raw(0), "");
        assert_eq!(off(Arch::X86_64), Ending::Reset);
        assert_eq!(off(Arch::Aarch64), Ending::Clean);
    }
}
