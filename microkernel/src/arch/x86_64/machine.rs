//! The machine contract on x86_64.
//!
//! Table index `i` of an interrupt is vector `32 + i`. Memory types, ports and console are those
//! of a PC. The machine ends by QEMU's `isa-debug-exit` at port 0xf4, whose exit status is
//! `code * 2 + 1`.

use skink_abi::invocation::{MemoryType, Trigger};
use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr2;

use super::apic::{self, Apic};
use super::context::Context;
use super::cpu::{Features, halt, load_cr3, set_fs_base};
use super::fpu::{Fpu, FpuState};
use super::idt::vector;
use super::ioapic::IoApic;
use super::paging::{Tagging, WINDOW, X86Paging, cr3};
use super::pit::{Rates, tsc};
use super::{percpu, serial};
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::time::Scale;
use crate::machine::{Irq, MAX_IRQS, Machine, Paging, Ticks, Trap};
use crate::obj::Obj;
use crate::object::tcb::Tcb;

/// Port of QEMU's `isa-debug-exit`.
const DEBUG_EXIT: u16 = 0xf4;
const NS_PER_SECOND: u64 = 1_000_000_000;
/// Address spaces are not tagged until PCIDs have run on hardware: the emulator has none.
const TAGGING: Tagging = Tagging::Off;
/// Entries of the root table, and where the kernel's begin.
const ROOT_ENTRIES: usize = 512;
const _: () = assert!(size_of::<Context>() == 192 && core::mem::offset_of!(Tcb, context) == 0);

/// What raises an interrupt of the table.
#[derive(Clone, Copy)]
enum Source {
    Free,
    Message,
    Wired { line: u32, trigger: Trigger },
}

/// The machine.
pub struct X86 {
    apic: Apic,
    ioapic: IoApic,
    sources: [Source; MAX_IRQS],
    fpu: Fpu,
    kernel_root: PhysAddr,
    active: Asid,
    deadline: Option<Ticks>,
    ticks_per_ns: Scale,
    ns_per_tick: Scale,
}

/// The address of the last page fault.
pub fn fault_address() -> u64 {
    Cr2::read_raw()
}

/// Ends QEMU with status `code * 2 + 1`; without its device, halts.
pub fn exit(code: u8) -> ! {
    // SAFETY: the port is QEMU's exit device or nothing.
    unsafe { Port::new(DEBUG_EXIT).write(code) };
    halt()
}

impl X86 {
    /// Takes over the interrupt controllers; `kernel_root` is the root table in use.
    pub fn new(features: Features, mut apic: Apic, rates: Rates, kernel_root: PhysAddr) -> X86 {
        if features.tsc_deadline {
            apic.use_deadline();
        } else {
            apic.use_count(Scale::new(rates.tsc, rates.apic));
        }
        X86 {
            apic,
            ioapic: IoApic::new(),
            sources: [Source::Free; MAX_IRQS],
            fpu: Fpu::new(features),
            kernel_root,
            active: Asid(0),
            deadline: None,
            ticks_per_ns: Scale::new(NS_PER_SECOND, rates.tsc),
            ns_per_tick: Scale::new(rates.tsc, NS_PER_SECOND),
        }
    }

    /// Takes an interrupt from the controllers and says what it means.
    pub fn accept(&mut self, number: u64) -> Trap {
        if number >= vector::FIRST_SPURIOUS {
            return Trap::Spurious;
        }
        let trap = if number == vector::TIMER {
            self.accept_timer()
        } else {
            self.accept_device((number - vector::FIRST_INTERRUPT) as u16)
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

    fn accept_device(&mut self, index: u16) -> Trap {
        match self.sources[usize::from(index)] {
            Source::Free => return Trap::Spurious,
            Source::Wired { line, trigger: Trigger::LevelHigh | Trigger::LevelLow } => {
                self.ioapic.mask(line)
            }
            Source::Wired { .. } | Source::Message => {}
        }
        Trap::Interrupt(Irq(index))
    }

    /// Gives a free index to a source.
    fn claim(&mut self, source: Source) -> Option<Irq> {
        let devices = (vector::FIRST_DEVICE - vector::FIRST_INTERRUPT) as usize
            ..(vector::FIRST_SPURIOUS - vector::FIRST_INTERRUPT) as usize;
        let index = devices.into_iter().find(|i| matches!(self.sources[*i], Source::Free))?;
        self.sources[index] = source;
        self.apic.expect(vector_of(index));
        Some(Irq(index as u16))
    }

    fn line_of(&self, irq: Irq) -> Option<u32> {
        match self.sources.get(usize::from(irq.0)) {
            Some(Source::Wired { line, .. }) => Some(*line),
            _ => None,
        }
    }
}

fn vector_of(index: usize) -> u64 {
    vector::FIRST_INTERRUPT + index as u64
}

impl Machine for X86 {
    type Context = Context;
    type FpuState = FpuState;
    type Paging = X86Paging;

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
        tsc()
    }

    fn ticks_from_ns(&self, ns: u64) -> Ticks {
        self.ticks_per_ns.apply_ceil(ns)
    }

    fn ns_from_ticks(&self, ticks: Ticks) -> u64 {
        self.ns_per_tick.apply(ticks)
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
        // SAFETY: both are whole tables in the window; the caller owns the new one.
        unsafe {
            table.write_bytes(0, X86Paging::ROOT_USER_ENTRIES);
            for index in X86Paging::ROOT_USER_ENTRIES..ROOT_ENTRIES {
                table.add(index).write(kernel.add(index).read());
            }
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

    fn claim_line(&mut self, line: u32, trigger: Trigger) -> Option<Irq> {
        if line >= self.ioapic.lines() {
            return None;
        }
        let taken = (0..MAX_IRQS)
            .map(|index| Irq(index as u16))
            .find(|irq| self.line_of(*irq) == Some(line));
        if taken.is_some() {
            return taken;
        }
        let irq = self.claim(Source::Wired { line, trigger })?;
        let vector = vector_of(usize::from(irq.0)) as u8;
        self.ioapic.route(line, vector, trigger, self.apic.id());
        Some(irq)
    }

    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)> {
        let irq = self.claim(Source::Message)?;
        // Fixed delivery, edge, to this CPU (Intel SDM vol. 3 §11.11).
        let address = apic::REGISTERS | u64::from(self.apic.id()) << 12;
        Some((irq, address, vector_of(usize::from(irq.0))))
    }

    fn release_irq(&mut self, irq: Irq) {
        self.mask(irq);
        if let Some(source) = self.sources.get_mut(usize::from(irq.0)) {
            *source = Source::Free;
        }
    }

    fn mask(&mut self, irq: Irq) {
        if let Some(line) = self.line_of(irq) {
            self.ioapic.mask(line);
        }
    }

    fn unmask(&mut self, irq: Irq) {
        if let Some(line) = self.line_of(irq) {
            self.ioapic.unmask(line);
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.apic.is_pending()
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
        let Some(tcb) = thread else {
            return percpu::set_context_end(0);
        };
        percpu::set_context_end(tcb.addr().0 + size_of::<Context>() as u64);
        // SAFETY: only the kernel, which runs this, touches a live thread's context.
        set_fs_base(unsafe { (*tcb.context.get()).tls });
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
        serial::write(bytes);
    }

    fn exit(&mut self, code: u8) -> ! {
        exit(code)
    }
}

/// Memory types that the encoder knows are those of the ABI.
const _: () = assert!(MemoryType::ALL.len() == 3);
