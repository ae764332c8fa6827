//! The machine contract on aarch64.
//!
//! Lines are the interrupt numbers of the GIC; only those shared by all CPUs can be claimed. There
//! are no I/O ports.

use skink_abi::invocation::{MemoryType, Trigger};

use super::boot::Handover;
use super::context::Context;
use super::cpu;
use super::fpu::{Fpu, FpuState};
use super::gic::{FIRST_SHARED, Gic};
use super::paging::{ArmPaging, WINDOW};
use super::{percpu, power, serial, timer};
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::time::Scale;
use crate::machine::{Irq, MAX_IRQS, Machine, Ticks, Trap};
use crate::obj::Obj;
use crate::object::tcb::Tcb;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// In the table by interrupt number: it is not claimed.
const NOWHERE: u16 = u16::MAX;
/// Interrupt numbers that a GIC can have.
const MAX_LINES: usize = 1020;
const _: () = assert!(core::mem::offset_of!(Tcb, context) == 0);

/// What raises an interrupt of the table.
#[derive(Clone, Copy)]
enum Source {
    Free,
    Message { line: u32 },
    Wired { line: u32, trigger: Trigger },
}

impl Source {
    fn line(self) -> Option<u32> {
        match self {
            Source::Free => None,
            Source::Message { line } | Source::Wired { line, .. } => Some(line),
        }
    }
}

/// The machine.
pub struct Arm {
    gic: Gic,
    timer_line: u32,
    sources: [Source; MAX_IRQS],
    /// The table's index by interrupt number.
    indices: [u16; MAX_LINES],
    fpu: Fpu,
    empty_root: PhysAddr,
    ticks_per_ns: Scale,
    ns_per_tick: Scale,
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
            sources: [Source::Free; MAX_IRQS],
            indices: [NOWHERE; MAX_LINES],
            fpu: Fpu::new(),
            empty_root,
            ticks_per_ns: Scale::new(NS_PER_SECOND, counter_hz),
            ns_per_tick: Scale::new(counter_hz, NS_PER_SECOND),
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
        let index = self.indices[line as usize];
        let source = self.sources.get(usize::from(index));
        match source.copied().unwrap_or(Source::Free) {
            Source::Free => {
                self.gic.mask(line);
                return Trap::Spurious;
            }
            Source::Wired { trigger: Trigger::LevelHigh | Trigger::LevelLow, .. } => {
                self.gic.mask(line)
            }
            Source::Wired { .. } | Source::Message { .. } => {}
        }
        Trap::Interrupt(Irq(index))
    }

    /// Gives a free index to a source, whose line nobody has.
    fn claim(&mut self, source: Source, line: u32, trigger: Trigger) -> Option<Irq> {
        let is_free = |source: &Source| matches!(source, Source::Free);
        let index = self.sources.iter().position(is_free)?;
        self.sources[index] = source;
        self.indices[line as usize] = index as u16;
        self.gic.mask(line);
        self.gic.configure(line, trigger);
        Some(Irq(index as u16))
    }

    fn line_of(&self, irq: Irq) -> Option<u32> {
        self.sources.get(usize::from(irq.0))?.line()
    }
}

impl Machine for Arm {
    type Context = Context;
    type FpuState = FpuState;
    type Paging = ArmPaging;

    #[inline(always)]
    fn kernel_addr(&self, addr: PhysAddr) -> KernelAddr {
        KernelAddr(addr.0 + WINDOW)
    }

    #[inline(always)]
    fn phys_addr(&self, addr: KernelAddr) -> PhysAddr {
        PhysAddr(addr.0 - WINDOW)
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        timer::now()
    }

    fn ticks_from_ns(&self, ns: u64) -> Ticks {
        self.ticks_per_ns.apply_ceil(ns)
    }

    fn ns_from_ticks(&self, ticks: Ticks) -> u64 {
        self.ns_per_tick.apply(ticks)
    }

    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        match deadline {
            Some(deadline) => timer::arm(deadline),
            None => timer::disarm(),
        }
    }

    fn init_root_table(&mut self, table: PhysAddr) {
        let table = self.kernel_addr(table).0 as *mut [u64; 512];
        // SAFETY: a whole table in the window, which the caller owns. Nothing of the kernel's is
        // in it: that is the other half.
        unsafe { table.write_bytes(0, 1) };
        cpu::publish_entry();
    }

    #[inline(always)]
    fn write_entry(&mut self, slot: KernelAddr, entry: u64) {
        // SAFETY: the caller names an entry of a page table in the window. Volatile: the CPU
        // reads it too.
        unsafe { (slot.0 as *mut u64).write_volatile(entry) };
        cpu::publish_entry();
    }

    #[inline(always)]
    fn activate(&mut self, root: PhysAddr, asid: Asid) {
        cpu::load_root(root, asid);
    }

    fn activate_kernel(&mut self) {
        cpu::load_root(self.empty_root, Asid(0));
    }

    fn flush_page(&mut self, asid: Asid, addr: UserAddr) {
        cpu::flush_page(asid, addr);
    }

    fn flush_asid(&mut self, asid: Asid) {
        cpu::flush_asid(asid);
    }

    fn clean_frame(&mut self, addr: KernelAddr, bytes: usize) {
        cpu::synchronise_instructions(addr.0, bytes as u64);
    }

    fn claim_line(&mut self, line: u32, trigger: Trigger) -> Option<Irq> {
        if !(FIRST_SHARED..self.gic.lines()).contains(&line) {
            return None;
        }
        let index = self.indices[line as usize];
        if index != NOWHERE {
            return Some(Irq(index));
        }
        self.claim(Source::Wired { line, trigger }, line, trigger)
    }

    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)> {
        let messages = self.gic.messages()?;
        let end = (messages.first + messages.count).min(self.gic.lines());
        let line = (messages.first..end).find(|line| self.indices[*line as usize] == NOWHERE)?;
        let irq = self.claim(Source::Message { line }, line, Trigger::EdgeHigh)?;
        Some((irq, messages.address(), line.into()))
    }

    fn release_irq(&mut self, irq: Irq) {
        self.mask(irq);
        if let Some(line) = self.line_of(irq) {
            self.indices[line as usize] = NOWHERE;
            self.sources[usize::from(irq.0)] = Source::Free;
        }
    }

    fn mask(&mut self, irq: Irq) {
        if let Some(line) = self.line_of(irq) {
            self.gic.mask(line);
        }
    }

    fn unmask(&mut self, irq: Irq) {
        if let Some(line) = self.line_of(irq) {
            self.gic.unmask(line);
        }
    }

    fn interrupt_pending(&self) -> bool {
        cpu::interrupt_pending()
    }

    unsafe fn save_fpu(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise.
        unsafe { self.fpu.save(state) };
    }

    unsafe fn load_fpu(&mut self, state: *const FpuState) {
        // SAFETY: the caller's promise.
        unsafe { self.fpu.load(state) };
    }

    unsafe fn init_fpu(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise.
        unsafe { self.fpu.init(state) };
    }

    fn enable_fpu(&mut self) {
        self.fpu.enable();
    }

    fn disable_fpu(&mut self) {
        self.fpu.disable();
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
        serial::write(bytes);
    }

    fn exit(&mut self, code: u8) -> ! {
        power::exit(code)
    }
}

/// Memory types that the encoder knows are those of the ABI.
const _: () = assert!(MemoryType::ALL.len() == 3);
