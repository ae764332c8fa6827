//! The machine contract on x86_64.
//!
//! Table index `i` of an interrupt is vector `32 + i`. Memory types, ports and console are those
//! of a PC.

use core::ops::Range;

use skink_abi::invocation::{MemoryType, Trigger};
use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::instructions::tlb;

use super::apic::{self, Apic};
use super::clock::{Rates, tsc};
use super::context::Context;
use super::cpu::{Features, clear_selectors, load_cr3, set_fs_base};
use super::fpu::X86Fpu;
use super::ioapic::IoApic;
use super::paging::{Tagging, X86Paging, cr3};
use super::syndrome::vector;
use super::{percpu, power};
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::console::Console;
use crate::arch::irq_table::{IrqSlots, IrqTable, Source};
use crate::arch::launch::KERNEL_BASE;
use crate::arch::time::Clock;
use crate::arch::window::WINDOW;
use crate::machine::{Irq, Machine, Ticks, Trap};
use crate::obj::Obj;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;

/// Address spaces are not tagged until PCIDs have run on hardware: the emulator has none.
const TAGGING: Tagging = Tagging::Off;
/// Entries of the root table, and where the kernel's begin.
const ROOT_ENTRIES: usize = 512;
const _: () = assert!(size_of::<Context>() == 192 && core::mem::offset_of!(Tcb, context) == 0);

/// The machine.
pub struct X86 {
    apic: Apic,
    ioapic: IoApic,
    irqs: IrqTable,
    fpu: X86Fpu,
    kernel_root: PhysAddr,
    active: Asid,
    deadline: Option<Ticks>,
    clock: Clock,
}

impl X86 {
    /// Takes over the interrupt controllers; `kernel_root` is the root table in use.
    pub fn new(features: Features, mut apic: Apic, rates: Rates, kernel_root: PhysAddr) -> X86 {
        match rates.apic {
            None => apic.use_deadline(),
            Some(scale) => apic.use_count(scale),
        }
        X86 {
            apic,
            ioapic: IoApic::new(),
            irqs: IrqTable::EMPTY,
            fpu: X86Fpu::new(features),
            kernel_root,
            active: Asid(0),
            deadline: None,
            clock: Clock::new(rates.tsc),
        }
    }

    /// Takes an interrupt from the controllers and says what it means.
    pub fn accept(&mut self, number: u64) -> Trap {
        if number < vector::FIRST_DEVICE {
            return Trap::Spurious; // It is not in service, so that its end would be another's.
        }
        let trap = if number == vector::TIMER {
            self.accept_timer()
        } else {
            self.accept_device(Irq((number - vector::FIRST_INTERRUPT) as u16))
        };
        self.apic.end_of_interrupt();
        trap
    }

    /// A timer that cannot count as far as its deadline is armed again.
    fn accept_timer(&mut self) -> Trap {
        let now = self.now();
        match self.deadline {
            Some(deadline) if now < deadline => {
                self.apic.arm(now, deadline);
                Trap::Spurious
            }
            _ => {
                self.deadline = None;
                Trap::Timer
            }
        }
    }

    fn accept_device(&mut self, irq: Irq) -> Trap {
        match self.irqs.source(irq) {
            None => return Trap::Spurious,
            Some(Source::Line(line, Trigger::LevelHigh | Trigger::LevelLow)) => {
                self.ioapic.mask(line);
            }
            Some(Source::Line(..) | Source::Message) => {}
        }
        Trap::Interrupt(irq)
    }

    /// Gives a free index to a source.
    fn claim(&mut self, source: Source) -> Option<Irq> {
        const DEVICES: Range<u16> = (vector::FIRST_DEVICE - vector::FIRST_INTERRUPT) as u16
            ..(vector::DEVICES_END - vector::FIRST_INTERRUPT) as u16;
        let irq = self.irqs.claim(source, DEVICES)?;
        self.apic.expect(vector_of(irq));
        Some(irq)
    }
}

fn vector_of(irq: Irq) -> u64 {
    vector::FIRST_INTERRUPT + u64::from(irq.0)
}

static IRQ_SLOTS: IrqSlots = IrqSlots::new();

impl Machine for X86 {
    type Context = Context;
    type Fpu = X86Fpu;
    type Paging = X86Paging;

    #[inline(always)]
    fn kernel_addr(&self, addr: PhysAddr) -> KernelAddr {
        // The window holds all of RAM.
        KernelAddr(addr.0.wrapping_add(WINDOW))
    }

    #[inline(always)]
    fn phys_addr(&self, addr: KernelAddr) -> PhysAddr {
        PhysAddr(addr.0.wrapping_sub(WINDOW))
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        tsc()
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        self.deadline = deadline;
        match deadline {
            Some(deadline) => self.apic.arm(self.now(), deadline),
            None => self.apic.disarm(),
        }
    }

    fn init_root_table(&mut self, table: PhysAddr) {
        let kernel = self.kernel_addr(self.kernel_root).0 as *const u64;
        let table = self.kernel_addr(table).0 as *mut u64;
        for index in [WINDOW, KERNEL_BASE].map(|address| (address >> 39) as usize % ROOT_ENTRIES) {
            // SAFETY: both are whole tables in the window; the caller owns the new one.
            unsafe { table.add(index).write(kernel.add(index).read()) };
        }
    }

    #[inline(always)]
    fn write_entry(&mut self, slot: KernelAddr, entry: u64) {
        // SAFETY: the caller names an entry of a page table in the window. Volatile: the CPU
        // reads it too.
        unsafe { (slot.0 as *mut u64).write_volatile(entry) };
    }

    #[inline(always)]
    fn activate(&mut self, root: PhysAddr, asid: Asid) {
        self.active = asid;
        clear_selectors();
        // SAFETY: root tables are made by `init_root_table`, so the kernel stays mapped.
        unsafe { load_cr3(cr3(root, asid, TAGGING)) };
    }

    fn activate_kernel(&mut self) {
        self.activate(self.kernel_root, Asid(0));
    }

    fn flush_page(&mut self, asid: Asid, addr: UserAddr) {
        // Without tags, other spaces have no cached translations.
        const { assert!(matches!(TAGGING, Tagging::Off), "other spaces must be flushed by tag") };
        if asid == self.active {
            tlb::flush(VirtAddr::new_truncate(addr.0));
        }
    }

    fn flush_asid(&mut self, asid: Asid) {
        const { assert!(matches!(TAGGING, Tagging::Off), "other spaces must be flushed by tag") };
        if asid == self.active {
            tlb::flush_all();
        }
    }

    fn clean_frame(&mut self, _addr: KernelAddr, _bytes: usize) {
        // Instruction fetches are coherent with stores (Intel SDM vol. 3 §12.6).
    }

    fn code_mapped(&mut self) {}

    fn claim_line(&mut self, line: u32, trigger: Trigger) -> Option<Irq> {
        if line >= self.ioapic.lines() {
            return None;
        }
        if let Some(taken) = self.irqs.of_line(line) {
            return Some(taken);
        }
        let irq = self.claim(Source::Line(line, trigger))?;
        self.ioapic.route(line, vector_of(irq) as u8, trigger, self.apic.id());
        Some(irq)
    }

    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)> {
        let irq = self.claim(Source::Message)?;
        // Fixed delivery, edge, to this CPU (Intel SDM vol. 3 §11.11).
        let address = apic::REGISTERS | u64::from(self.apic.id()) << 12;
        Some((irq, address, vector_of(irq)))
    }

    fn irq_slot(&self, irq: Irq) -> Obj<CapSlot> {
        IRQ_SLOTS.slot(irq)
    }

    fn release_irq(&mut self, irq: Irq) {
        self.mask(irq);
        self.irqs.release(irq);
    }

    fn mask(&mut self, irq: Irq) {
        if let Some(line) = self.irqs.line(irq) {
            self.ioapic.mask(line);
        }
    }

    fn unmask(&mut self, irq: Irq) {
        if let Some(line) = self.irqs.line(irq) {
            self.ioapic.unmask(line);
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.apic.is_pending()
    }

    #[inline(always)]
    fn fpu(&mut self) -> &mut X86Fpu {
        &mut self.fpu
    }

    #[inline(always)]
    fn set_current(&mut self, thread: Option<Obj<Tcb>>) {
        let Some(tcb) = thread else {
            return percpu::set_context_end(0);
        };
        percpu::set_context_end(tcb.addr().0.wrapping_add(size_of::<Context>() as u64));
        // SAFETY: only the kernel, which runs this, touches a live thread's context.
        set_fs_base(unsafe { &*tcb.context.get() });
    }

    fn port_in(&mut self, port: u16, bytes: u8) -> u32 {
        // SAFETY: whoever asks holds the capability for the port; none of the kernel's own
        // devices' ports has an effect on its memory.
        unsafe {
            match bytes {
                1 => Port::<u8>::new(port).read().into(),
                2 => Port::<u16>::new(port).read().into(),
                _ => Port::<u32>::new(port).read(),
            }
        }
    }

    fn port_out(&mut self, port: u16, bytes: u8, value: u32) {
        // SAFETY: as `port_in`.
        unsafe {
            match bytes {
                1 => Port::new(port).write(value as u8),
                2 => Port::new(port).write(value as u16),
                _ => Port::new(port).write(value),
            }
        }
    }

    const HAS_PORTS: bool = true;

    fn log(&mut self, bytes: &[u8]) {
        Console::write(bytes);
    }

    fn exit(&mut self, code: u8) -> ! {
        power::exit(code)
    }
}

/// Memory types that the encoder knows are those of the ABI.
const _: () = assert!(MemoryType::ALL.len() == 3);
