//! [`HostMachine`]: the machine contract on emulated hardware.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::Cell;

use skink_abi::invocation::Trigger;

use super::context::HostContext;
use super::memory::{Memory, SPOILT};
use super::paging::{HostPaging, permissions};
use super::tlb::{Access, Tlb, Translation};
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::time::Clock;
use crate::machine::{Entry, Fpu, Irq, MAX_IRQS, Machine, Paging, Ticks};
use crate::obj::Obj;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;

/// An interrupt line or message of the emulated controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIrq {
    /// The wired line; `None` for a message.
    pub line: Option<u32>,
    /// Whether it is held back.
    pub is_masked: bool,
}

/// The emulated FPU.
#[derive(Default)]
pub struct HostFpu {
    /// Its registers.
    pub registers: [u64; 4],
    /// Whether instructions that use them work.
    pub is_on: bool,
}

impl Fpu for HostFpu {
    type State = [u64; 4];

    unsafe fn save(&mut self, state: *mut [u64; 4]) {
        // SAFETY: by the caller's promise.
        unsafe { state.write(self.registers) }
    }
    unsafe fn load(&mut self, state: *const [u64; 4]) {
        self.is_on = true;
        // SAFETY: by the caller's promise.
        self.registers = unsafe { state.read() };
    }
    unsafe fn init(&mut self, state: *mut [u64; 4]) {
        // SAFETY: by the caller's promise.
        unsafe { state.write([0; 4]) }
    }
    fn disable(&mut self) {
        self.is_on = false;
    }
    fn enable(&mut self) {
        self.is_on = true;
    }
}

/// The words of a page.
type Page = [u64; 512];

/// Wired lines of the emulated interrupt controller.
pub const LINES: u32 = 32;

/// The emulated machine. Public fields are what tests set and look at.
pub struct HostMachine {
    memory: Memory,
    /// Pages as they are behind the caches, where that is known: what the kernel wrote is here
    /// once it was cleaned.
    behind: BTreeMap<u64, Page>,
    tlb: Tlb,
    /// The counter; one tick is one nanosecond.
    pub now: Ticks,
    /// By how much each reading of the counter moves it on, so that time passes within a call.
    pub tick: Ticks,
    /// What that has added to `now`; see [`HostMachine::settle`].
    passed: Cell<Ticks>,
    /// What `set_deadline` was told last.
    pub deadline: Option<Ticks>,
    /// The space that the CPU runs in; `None`: the kernel's own.
    pub active: Option<(PhysAddr, Asid)>,
    /// Memory for the slots of interrupts.
    irq_slots: Memory,
    /// Claimed interrupts by index.
    pub irqs: [Option<HostIrq>; MAX_IRQS],
    /// Preemption points that pass before one stops; `None`: no interrupt waits.
    pub preempt_after: Cell<Option<u32>>,
    /// Preemption points asked so far.
    pub preemption_points: Cell<u64>,
    /// Mappings for code that the machine was told of.
    pub code_mappings: u32,
    /// The FPU.
    pub fpu: HostFpu,
    /// The thread that the trap exit returns to.
    pub current: Option<Obj<Tcb>>,
    /// I/O ports: the last value written.
    pub ports: BTreeMap<u16, u32>,
    /// The debug console.
    pub log: Vec<u8>,
}

impl HostMachine {
    /// A machine with so much RAM, from physical address 0.
    pub fn new(ram_bytes: usize) -> HostMachine {
        let irq_slots = Memory::zeroed(MAX_IRQS * size_of::<CapSlot>());
        HostMachine::on(Memory::new(ram_bytes), irq_slots)
    }

    fn on(memory: Memory, irq_slots: Memory) -> HostMachine {
        HostMachine {
            memory,
            behind: BTreeMap::new(),
            tlb: Tlb::default(),
            now: 0,
            tick: 0,
            passed: Cell::new(0),
            deadline: None,
            active: None,
            irq_slots,
            irqs: [None; MAX_IRQS],
            preempt_after: Cell::new(None),
            preemption_points: Cell::new(0),
            code_mappings: 0,
            fpu: HostFpu::default(),
            current: None,
            ports: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Adds the time that passed within calls to `now`.
    pub fn settle(&mut self) {
        self.now += self.passed.take();
    }

    /// Another machine with the memory of this one, which keeps its place but not its content:
    /// two kernels, one after the other, have their objects at the same addresses.
    pub fn again(self) -> HostMachine {
        let HostMachine { mut memory, mut irq_slots, .. } = self;
        memory.fill(SPOILT);
        irq_slots.fill(0);
        HostMachine::on(memory, irq_slots)
    }

    /// Whether the TLB remembers what the page tables do not say (any more): `root_of` tells the
    /// root table of a live address space.
    ///
    /// # Errors
    /// The space and the address of such a translation.
    pub fn check_tlb(
        &self,
        root_of: impl Fn(Asid) -> Option<PhysAddr>,
    ) -> Result<(), (Asid, UserAddr)> {
        let is_stale = |(asid, addr, translation): &(Asid, UserAddr, Translation)| {
            root_of(*asid).and_then(|root| self.walk(root, *addr)) != Some(*translation)
        };
        self.tlb.all().find(is_stale).map_or(Ok(()), |(asid, addr, _)| Err((asid, addr)))
    }

    /// Bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Lets `points` preemption points pass, and reports an interrupt at the next.
    pub fn preempt_after(&self, points: u32) {
        self.preempt_after.set(Some(points));
    }

    /// A user's access: by the TLB if it knows the page, else by the page tables, which the TLB
    /// then remembers. `None`: a page fault.
    pub fn access(
        &mut self,
        root: PhysAddr,
        asid: Asid,
        addr: UserAddr,
        access: Access,
    ) -> Option<PhysAddr> {
        let translation = match self.tlb.get(asid, addr) {
            Some(cached) => cached,
            None => {
                let found = self.walk(root, addr)?;
                self.tlb.fill(asid, addr, found);
                found
            }
        };
        translation.allows(access).then(|| translation.page.offset(addr.0 & 0xfff))
    }

    /// What the page tables say, without the TLB.
    pub fn walk(&self, root: PhysAddr, addr: UserAddr) -> Option<Translation> {
        let mut table = root;
        for level in 0..HostPaging::LEVELS {
            let shift = 12 + 9 * (HostPaging::LEVELS - 1 - level);
            let entry = self.read_word(table.offset((addr.0 >> shift & 511) * 8));
            match HostPaging::decode(entry, level) {
                Entry::Empty => return None,
                Entry::Table(next) => table = next,
                Entry::Page(base) => {
                    let within = addr.0 & ((1 << shift) - 1) & !0xfff;
                    let rights = permissions(entry);
                    let page = base.offset(within);
                    return Some(Translation { page, size_bits: shift as u8, rights });
                }
            }
        }
        None
    }

    /// Reads physical memory.
    ///
    /// # Panics
    /// If it is no RAM.
    pub fn read_word(&self, addr: PhysAddr) -> u64 {
        assert!(self.memory.contains(addr, 8), "read of {addr:?}, which is no RAM");
        // SAFETY: inside the emulated RAM.
        unsafe { (self.memory.kernel_addr(addr).0 as *const u64).read_unaligned() }
    }

    /// Reads physical memory past the caches, as through an uncached mapping; `None` where nobody
    /// has ever written to behind them.
    pub fn read_uncached(&self, addr: PhysAddr) -> Option<u64> {
        let page = self.behind.get(&(addr.0 >> 12))?;
        Some(page[(addr.0 & 0xfff) as usize / 8])
    }

    /// Writes physical memory, as a user or device would: no cache holds it back.
    ///
    /// # Panics
    /// If it is no RAM.
    pub fn write_word(&mut self, addr: PhysAddr, value: u64) {
        assert!(self.memory.contains(addr, 8), "write to {addr:?}, which is no RAM");
        // SAFETY: inside the emulated RAM.
        unsafe { (self.memory.kernel_addr(addr).0 as *mut u64).write_unaligned(value) }
        let page = self.behind.entry(addr.0 >> 12).or_insert([u64::MAX; 512]);
        page[(addr.0 & 0xfff) as usize / 8] = value;
    }

    /// Copies bytes into physical memory (a boot loader's work).
    ///
    /// # Panics
    /// If it is no RAM.
    pub fn load(&mut self, addr: PhysAddr, bytes: &[u8]) {
        assert!(self.memory.contains(addr, bytes.len() as u64), "load to {addr:?}: no RAM");
        let to = self.memory.kernel_addr(addr).0 as *mut u8;
        // SAFETY: inside the emulated RAM, and `bytes` is not part of it.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn claim(&mut self, line: Option<u32>) -> Option<Irq> {
        let index = self.irqs.iter().position(Option::is_none)?;
        self.irqs[index] = Some(HostIrq { line, is_masked: true });
        Some(Irq(index as u16))
    }

    fn set_mask(&mut self, irq: Irq, is_masked: bool) {
        if let Some(entry) = &mut self.irqs[usize::from(irq.0)] {
            entry.is_masked = is_masked;
        }
    }
}

impl Machine for HostMachine {
    type Context = HostContext;
    type Fpu = HostFpu;
    type Paging = HostPaging;
    const HAS_PORTS: bool = true;

    fn kernel_addr(&self, addr: PhysAddr) -> KernelAddr {
        self.memory.kernel_addr(addr)
    }
    fn phys_addr(&self, addr: KernelAddr) -> PhysAddr {
        self.memory.phys_addr(addr)
    }

    fn now(&self) -> Ticks {
        let passed = self.passed.get();
        self.passed.set(passed + self.tick);
        self.now + passed
    }
    fn clock(&self) -> Clock {
        Clock::new(1_000_000_000)
    }
    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        self.deadline = deadline;
    }

    fn init_root_table(&mut self, table: PhysAddr) {
        // The kernel's half, marked so that tests see that it stays.
        for entry in HostPaging::ROOT_USER_ENTRIES as u64..512 {
            self.write_word(table.offset(entry * 8), u64::MAX << 48);
        }
    }
    fn write_entry(&mut self, slot: KernelAddr, entry: u64) {
        let slot = self.phys_addr(slot);
        assert!(entry == 0 || self.read_word(slot) == 0, "make without break");
        self.write_word(slot, entry);
    }
    fn activate(&mut self, root: PhysAddr, asid: Asid) {
        assert_ne!(self.active, Some((root, asid)), "activate is for changes only");
        self.active = Some((root, asid));
    }
    fn activate_kernel(&mut self) {
        self.active = None;
    }
    fn flush_page(&mut self, asid: Asid, addr: UserAddr) {
        self.tlb.flush_page(asid, addr);
    }
    fn flush_asid(&mut self, asid: Asid) {
        self.tlb.flush_asid(asid);
    }
    fn clean_frame(&mut self, addr: KernelAddr, bytes: usize) {
        let base = self.phys_addr(addr);
        assert!(self.memory.contains(base, bytes as u64));
        for page in base.0 >> 12..(base.0 + bytes as u64).div_ceil(4096) {
            let from = self.memory.kernel_addr(PhysAddr(page << 12)).0 as *const Page;
            // SAFETY: a page of the emulated RAM.
            self.behind.insert(page, unsafe { from.read() });
        }
    }

    fn code_mapped(&mut self) {
        self.code_mappings += 1;
    }

    fn claim_line(&mut self, line: u32, _: Trigger) -> Option<Irq> {
        let taken = |irq: &Option<HostIrq>| irq.is_some_and(|i| i.line == Some(line));
        if line >= LINES {
            return None;
        }
        match self.irqs.iter().position(taken) {
            Some(index) => Some(Irq(index as u16)),
            None => self.claim(Some(line)),
        }
    }
    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)> {
        let irq = self.claim(None)?;
        Some((irq, 0xfee0_0000, u64::from(irq.0)))
    }
    fn irq_slot(&self, irq: Irq) -> Obj<CapSlot> {
        let offset = usize::from(irq.0) * size_of::<CapSlot>();
        // SAFETY: empty slots at first, in memory that lives as long as the machine.
        unsafe { Obj::from_addr(self.irq_slots.kernel_addr(PhysAddr(offset as u64))) }
    }
    fn release_irq(&mut self, irq: Irq) {
        self.irqs[usize::from(irq.0)] = None;
    }
    fn mask(&mut self, irq: Irq) {
        self.set_mask(irq, true);
    }
    fn unmask(&mut self, irq: Irq) {
        self.set_mask(irq, false);
    }
    fn interrupt_pending(&self) -> bool {
        self.preemption_points.set(self.preemption_points.get() + 1);
        let left = self.preempt_after.get();
        self.preempt_after.set(left.and_then(|points| points.checked_sub(1)));
        left == Some(0)
    }

    fn fpu(&mut self) -> &mut HostFpu {
        &mut self.fpu
    }

    fn set_current(&mut self, thread: Option<Obj<Tcb>>) {
        self.current = thread;
    }

    fn port_in(&mut self, port: u16, _: u8) -> u32 {
        self.ports.get(&port).copied().unwrap_or(0)
    }
    fn port_out(&mut self, port: u16, _: u8, value: u32) {
        self.ports.insert(port, value);
    }

    fn log(&mut self, bytes: &[u8]) {
        self.log.extend_from_slice(bytes);
    }
    fn exit(&mut self, code: u8) -> ! {
        panic!("the emulated machine ended with code {code}")
    }
}
