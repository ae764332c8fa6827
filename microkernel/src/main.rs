//! The bare-metal kernel: binds the library to the machine's entry and to panics.
//!
//! Not here: anything else. On the host it is an empty program; the kernel's logic is tested as
//! a library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod bare {
    use skink_kernel::arch::x86_64::{panic, start};

    /// Called by the boot assembly with the physical address of the PVH start info.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_start(start_info: u64) -> ! {
        start::start(start_info)
    }

    #[panic_handler]
    fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
        panic::panic(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
