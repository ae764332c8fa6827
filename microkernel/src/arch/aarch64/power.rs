//! The end of the machine: semihosting's exit, which carries a code, else PSCI.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use super::boot::Conduit;

/// Semihosting: `SYS_EXIT` with reason and code (Arm semihosting 2.0, §6.4).
const SYS_EXIT: u64 = 0x18;
const APPLICATION_EXIT: u64 = 0x2_0026;
/// PSCI: `SYSTEM_OFF` (Arm DEN 0022 §5.9).
const SYSTEM_OFF: u64 = 0x8400_0008;

/// How PSCI is called: 0 not at all, 1 `hvc`, 2 `smc`; [`EXITING`] is added while the machine is
/// asked to end.
static STATE: AtomicU8 = AtomicU8::new(0);
const EXITING: u8 = 0x80;

/// Says how PSCI is called.
pub fn init(conduit: Option<Conduit>) {
    let state = match conduit {
        None => 0,
        Some(Conduit::Hypervisor) => 1,
        Some(Conduit::Monitor) => 2,
    };
    STATE.store(state, Ordering::Relaxed);
}

/// Whether the kernel was about to end: a trap then means that there is no semihosting.
pub fn is_exiting() -> bool {
    STATE.load(Ordering::Relaxed) & EXITING != 0
}

/// Ends QEMU with status `code * 2 + 1`, as the other architecture's does; without semihosting,
/// powers off (the trap handler goes on with [`off`]).
pub fn exit(code: u8) -> ! {
    STATE.fetch_or(EXITING, Ordering::Relaxed);
    let block = [APPLICATION_EXIT, u64::from(code) << 1 | 1];
    // SAFETY: the call reads the block and does not return; where there is no semihosting it is
    // an undefined instruction, whose handler ends here.
    unsafe {
        asm!("hlt #0xf000", in("x0") SYS_EXIT, in("x1") &raw const block,
            lateout("x0") _, options(nostack))
    };
    off()
}

/// Powers off; halts where that fails.
pub fn off() -> ! {
    let state = STATE.load(Ordering::Relaxed) & !EXITING;
    // SAFETY: the device tree said that this call exists; it does not return. The calling
    // convention (SMCCC) lets it change x0 to x17.
    unsafe {
        match state {
            1 => asm!("hvc #0", in("x0") SYSTEM_OFF, clobber_abi("C")),
            2 => asm!("smc #0", in("x0") SYSTEM_OFF, clobber_abi("C")),
            _ => {}
        }
    }
    loop {
        aarch64_cpu::asm::wfi();
    }
}
