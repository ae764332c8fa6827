//! The machine contract on aarch64.
//!
//! Lines are the interrupt numbers of the GIC; only those shared by all CPUs can be claimed. There
//! are no I/O ports.

use aarch64_cpu::asm::barrier::{ISHST, SY, dsb, isb};
use skink_abi::invocation::{MemoryType, Trigger};

use super::boot::Handover;
use super::context::Context;
use super::cpu;
use super::fpu::ArmFpu;
use super::gic::{FIRST_SHARED, Gic};
use super::paging::ArmPaging;
use super::{percpu, power, timer};
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::console::Console;
use crate::arch::irq_table::{IrqSlots, IrqTable, Source};
use crate::arch::time::Clock;
use crate::arch::window::WINDOW;
use crate::machine::{Irq, MAX_IRQS, Machine, Ticks, Trap};
use crate::obj::Obj;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;

/// Interrupt numbers that a GIC can have.
const MAX_LINES: usize = 1020;
const _: () = assert!(core::mem::offset_of!(Tcb, context) == 0);

/// The machine.
pub struct Arm {
    gic: Gic,
    timer_line: u32,
    irqs: IrqTable,
    /// The table's index by interrupt number, so that an arrival needs no search.
    indices: [Option<Irq>; MAX_LINES],
    fpu: ArmFpu,
    empty_root: PhysAddr,
    clock: Clock,
}

impl Arm {
    /// Takes over the interrupt controller. `empty_root` is a root table that maps nothing;
    /// `counter_hz` is not 0.
    pub fn new(handover: &Handover, empty_root: PhysAddr, counter_hz: u64) -> Arm {
        let mut gic = Gic::new(handover.gic);
        gic.unmask(handover.timer);
        Arm {
            gic,
            timer_line: handover.timer,
            irqs: IrqTable::EMPTY,
            indices: [None; MAX_LINES],
            fpu: ArmFpu::new(),
            empty_root,
            clock: Clock::new(counter_hz),
        }
    }

    /// Takes an interrupt from the controller and says what it means.
    pub fn accept(&mut self) -> Trap {
        let Some((word, line)) = self.gic.acknowledge() else {
            return Trap::Spurious;
        };
        let trap = if line == self.timer_line {
            timer::disarm();
            Trap::Timer
        } else {
            self.accept_device(line)
        };
        self.gic.end(word);
        trap
    }

    fn accept_device(&mut self, line: u32) -> Trap {
        let irq = self.indices[line as usize];
        match irq.and_then(|irq| self.irqs.source(irq)) {
            Some(Source::Line(_, Trigger::EdgeHigh)) => {}
            _ => self.gic.mask(line),
        }
        irq.map_or(Trap::Spurious, Trap::Interrupt)
    }

    /// Gives a free index to a line that nobody has.
    fn claim(&mut self, line: u32, trigger: Trigger) -> Option<Irq> {
        let irq = self.irqs.claim(Source::Line(line, trigger), 0..MAX_IRQS as u16)?;
        self.indices[line as usize] = Some(irq);
        self.gic.mask(line);
        self.gic.configure(line, trigger);
        Some(irq)
    }
}

static IRQ_SLOTS: IrqSlots = IrqSlots::new();

impl Machine for Arm {
    type Context = Context;
    type Fpu = ArmFpu;
    type Paging = ArmPaging;

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
        timer::now()
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        match deadline {
            Some(deadline) => timer::arm(deadline),
            None => timer::disarm(),
        }
    }

    fn init_root_table(&mut self, _: PhysAddr) {
        // Nothing of the kernel's is in it: that is the other half. What cleared it is done before a
        // walk begins there (Arm ARM §K13.5.3).
        dsb(ISHST);
    }

    #[inline(always)]
    fn write_entry(&mut self, slot: KernelAddr, entry: u64) {
        cpu::store_entry(slot.0 as *mut u64, entry);
    }

    #[inline(always)]
    fn activate(&mut self, root: PhysAddr, asid: Asid) {
        cpu::load_root(root, asid);
    }

    fn activate_kernel(&mut self) {
        cpu::load_root(self.empty_root, Asid(0));
        // Walks of the old tables end before their memory may become something else.
        isb(SY);
    }

    fn flush_page(&mut self, asid: Asid, addr: UserAddr) {
        cpu::flush_page(asid, addr);
    }

    fn flush_asid(&mut self, asid: Asid) {
        cpu::flush_asid(asid);
    }

    fn clean_frame(&mut self, addr: KernelAddr, bytes: usize) {
        cpu::synchronise(addr.0, bytes as u64);
    }

    fn code_mapped(&mut self) {
        cpu::forget_aliased_instructions();
    }

    fn claim_line(&mut self, line: u32, trigger: Trigger) -> Option<Irq> {
        if !(FIRST_SHARED..self.gic.lines()).contains(&line) {
            return None;
        }
        self.indices[line as usize].or_else(|| self.claim(line, trigger))
    }

    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)> {
        let messages = self.gic.messages()?;
        let end = (messages.first + messages.count).min(self.gic.lines());
        let line = (messages.first..end).find(|line| self.indices[*line as usize].is_none())?;
        let irq = self.claim(line, Trigger::EdgeHigh)?;
        Some((irq, messages.address(), line.into()))
    }

    fn irq_slot(&self, irq: Irq) -> Obj<CapSlot> {
        IRQ_SLOTS.slot(irq)
    }

    fn release_irq(&mut self, irq: Irq) {
        self.mask(irq);
        if let Some(line) = self.irqs.line(irq) {
            self.indices[line as usize] = None;
        }
        self.irqs.release(irq);
    }

    fn mask(&mut self, irq: Irq) {
        if let Some(line) = self.irqs.line(irq) {
            self.gic.mask(line);
        }
    }

    fn unmask(&mut self, irq: Irq) {
        if let Some(line) = self.irqs.line(irq) {
            self.gic.unmask(line);
        }
    }

    fn interrupt_pending(&self) -> bool {
        cpu::interrupt_pending()
    }

    #[inline(always)]
    fn fpu(&mut self) -> &mut ArmFpu {
        &mut self.fpu
    }

    #[inline(always)]
    fn set_current(&mut self, thread: Option<Obj<Tcb>>) {
        let context = thread.map_or(core::ptr::null_mut(), |tcb| tcb.context.get());
        percpu::BOOT_CPU.set_context(context);
    }

    fn port_in(&mut self, _port: u16, _bytes: u8) -> u32 {
        0
    }

    fn port_out(&mut self, _port: u16, _bytes: u8, _value: u32) {}

    const HAS_PORTS: bool = false;

    fn log(&mut self, bytes: &[u8]) {
        Console::write(bytes);
    }

    fn exit(&mut self, code: u8) -> ! {
        power::exit(code)
    }
}

/// Memory types that the encoder knows are those of the ABI.
const _: () = assert!(MemoryType::ALL.len() == 3);
