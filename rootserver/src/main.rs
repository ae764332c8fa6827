//! The root server's entry point: adopts what the kernel gave it, sets the system up, serves.
//!
//! libipc's allocator is never given memory: the root server has no heap. (`goblin` wants one to be
//! there; the loader's way through it allocates nothing.) Ends the machine by itself only where nothing could run: see [`rootserver::exit`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare {
    use core::panic::PanicInfo;

    use libipc::cap::{self, Cap};
    use libipc::{arch, buffer, startup, time};
    use rootserver::exit;
    use rootserver::say;
    use rootserver::supervise::Event;
    use rootserver::system::System;
    use rootserver::window::Global;
    use skink_abi::bootinfo::{BootInfo, slot as boot};

    static SYSTEM: Global<System> = Global::new(System::EMPTY);

    libipc::entry!(main);

    extern "C" fn main(info: u64, _: u64) -> ! {
        // SAFETY: the kernel passes the address of the boot info, mapped read-only for ever.
        let info = unsafe { &*(info as usize as *const BootInfo) };
        let tcb = Cap::<cap::Tcb>::from_slot(boot::TCB);
        let buffer_set = tcb.set_tls_base(info.ipc_buffer);
        // SAFETY: the kernel mapped the buffer; the thread pointer was just set to it.
        unsafe { buffer::adopt(info.ipc_buffer) };
        startup::set_panic_hook(panicked);
        time::set_clock(info.counter_hz, info.counter_base);
        if let Err(error) = buffer_set {
            say!("the IPC buffer cannot be used: {error}");
            end(exit::SETUP_FAILED);
        }
        // SAFETY: `main` is entered once.
        let system = unsafe { SYSTEM.take() };
        if let Err(error) = system.set_up(info) {
            say!("the system cannot start: {error}");
            end(exit::SETUP_FAILED);
        }
        system.say_start();
        system.assign_platform();
        system.event(Event::Boot);
        if !system.has_life() {
            say!("no server could be started: see the lines above");
            end(exit::NOTHING_RUNS);
        }
        system.run()
    }

    fn end(code: u8) -> ! {
        let _ = Cap::<cap::MachineControl>::from_slot(boot::MACHINE_CONTROL).exit(code);
        arch::undefined_instruction()
    }

    fn panicked(info: &PanicInfo) -> ! {
        say!("PANIC: {info}");
        end(exit::PANIC)
    }
}

/// The root server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
