//! The bare-metal kernel: binds the library to the machine's entry and to panics.
//!
//! Not here: anything else. On the host it is an empty program; the kernel's logic is tested as
//! a library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare {
    use skink_kernel::arch::{panic, start};

    /// Called by the boot assembly with the physical address of what the loader
    /// says (PVH start info, device tree).
    #[unsafe(no_mangle)]
    extern "C" fn kernel_start(handover: u64) -> ! {
        start::start(handover)
    }

    #[panic_handler]
    fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
        panic::panic(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
