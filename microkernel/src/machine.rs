//! The contract between generic kernel code and an architecture.
//!
//! Three backends implement it: `arch::x86_64`, `arch::aarch64` and `arch::host`, an emulated
//! machine for tests. A backend has no policy; generic code has no `target_arch`.

use skink_abi::invocation::{MemoryType, Trigger};
use skink_abi::{Fault, MessageInfo};

use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::time::Clock;
use crate::obj::Obj;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;

/// Ticks of the machine's counter (TSC, CNTVCT) since boot.
pub type Ticks = u64;

/// Index of an interrupt in the kernel's table: what `IrqHandler` capabilities name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Irq(pub u16);

/// Interrupts that the kernel's table has room for.
pub const MAX_IRQS: usize = 224;

/// Why a trap happened, decoded by the backend from its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call; its number and arguments are in the context.
    Syscall,
    /// A fault of the current thread. Words as [`skink_abi::fault`] lists them (address,
    /// syndrome, detail).
    Fault(Fault, [u64; 3]),
    /// An interrupt of the table; the backend has masked a level line and ended the interrupt.
    Interrupt(Irq),
    /// The one-shot timer of [`Machine::set_deadline`].
    Timer,
    /// Nothing to do.
    Spurious,
}

/// The user register file, in terms of meaning. It is the first field of the TCB
/// (`repr(C)`), so that the trap entry can save to it by offset.
pub trait UserContext: Default {
    /// Message registers by index, 0 to `REGISTER_WORDS - 1`.
    fn mr(&self, index: usize) -> u64;
    /// Sets a message register.
    fn set_mr(&mut self, index: usize, value: u64);
    /// System call number.
    fn syscall(&self) -> u64;
    /// The capability invoked.
    fn cptr(&self) -> u64;
    /// The `Reply` capability of a receiving call.
    fn reply_cptr(&self) -> u64;
    /// The capability that `NbSendRecv` receives from.
    fn receive_cptr(&self) -> u64;
    /// The message info given.
    fn message_info(&self) -> MessageInfo;
    /// Sets status (0 or an error's number).
    fn set_status(&mut self, status: u64);
    /// Sets the badge delivered.
    fn set_badge(&mut self, badge: u64);
    /// Sets the message info delivered.
    fn set_message_info(&mut self, info: MessageInfo);
    /// Instruction pointer.
    fn ip(&self) -> u64;
    /// Stack pointer.
    fn sp(&self) -> u64;
    /// Makes the thread repeat its system call when it runs next (preempted operations): moves
    /// the instruction pointer back to the system call instruction.
    fn rewind_syscall(&mut self);
    /// The first argument registers of a new thread's entry point.
    fn set_entry(&mut self, ip: UserAddr, sp: UserAddr, argument: u64);
    /// Words of `TcbReadRegisters`, in the order of `skink_abi::invocation::registers`.
    const WORDS: usize;
    /// Reads word `index`.
    fn read_register(&self, index: usize) -> u64;
    /// Writes word `index`, keeping every privileged bit as it must be (flags) and refusing
    /// nothing: a non-canonical instruction pointer faults when it is used.
    fn write_register(&mut self, index: usize, value: u64);
}

/// Rights of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePermissions {
    /// Stores.
    pub write: bool,
    /// Loads (a mapping without it and without `execute` is refused before it gets here).
    pub read: bool,
    /// Instruction fetches.
    pub execute: bool,
}

/// What a page-table entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped.
    Empty,
    /// The next table.
    Table(PhysAddr),
    /// A page.
    Page(PhysAddr),
}

/// The shape of the page tables: pure encoders, tested on every host.
///
/// Level 0 is the root; a page at the last level has 4 KiB, one level above 2 MiB, then 1 GiB.
/// Every table has 512 entries of 8 bytes.
pub trait Paging {
    /// Levels of tables, root included (4 on both architectures).
    const LEVELS: usize;
    /// First address that users may map: null, with any usual offset, is a fault for everybody.
    const USER_BOTTOM: u64 = 2 << 20;
    /// First address that users may not map.
    const USER_TOP: u64;
    /// Entries of the root table that belong to users; the rest is the kernel's.
    const ROOT_USER_ENTRIES: usize;
    /// The entry that points to a table.
    fn table_entry(table: PhysAddr) -> u64;
    /// The entry of a page at `level`.
    fn page_entry(base: PhysAddr, level: usize, rights: PagePermissions, memory: MemoryType)
    -> u64;
    /// What an entry at `level` says.
    fn decode(entry: u64, level: usize) -> Entry;
}

/// FPU and SIMD registers. The kernel itself does not use them.
pub trait Fpu {
    /// Their content, for a TCB.
    type State;
    /// Saves the CPU's state.
    ///
    /// # Safety
    /// `state` is valid for writes, and the FPU is enabled.
    unsafe fn save(&mut self, state: *mut Self::State);
    /// Loads it, and enables the FPU for the thread that runs next.
    ///
    /// # Safety
    /// `state` is valid for reads and was written by `save` or `init`.
    unsafe fn load(&mut self, state: *const Self::State);
    /// Writes the architecture's initial state.
    ///
    /// # Safety
    /// `state` is valid for writes.
    unsafe fn init(&mut self, state: *mut Self::State);
    /// FPU instructions fault from now on. Free if they do already.
    fn disable(&mut self);
    /// FPU instructions work again; the CPU's state is what it was. Free if they do already.
    fn enable(&mut self);
}

/// The machine itself.
pub trait Machine {
    /// The user register file.
    type Context: UserContext;
    /// FPU and SIMD registers.
    type Fpu: Fpu;
    /// Page-table encoders.
    type Paging: Paging;

    /// Where the kernel sees physical memory. RAM and device memory that the boot mapped.
    fn kernel_addr(&self, addr: PhysAddr) -> KernelAddr;
    /// The inverse.
    fn phys_addr(&self, addr: KernelAddr) -> PhysAddr;

    /// The counter, in ticks since boot.
    fn now(&self) -> Ticks;
    /// How the counter runs.
    fn clock(&self) -> Clock;
    /// Arms the one-shot timer, or stops it.
    fn set_deadline(&mut self, deadline: Option<Ticks>);

    /// Makes zeroed memory the root table of a new address space: the kernel's own part is as in
    /// every other.
    fn init_root_table(&mut self, table: PhysAddr);
    /// Stores a page-table entry (with the barriers that the architecture wants). An entry that
    /// says something is replaced by an empty one only, and that by another after the
    /// translations were forgotten: a CPU may have both of two (Arm: break before make).
    fn write_entry(&mut self, slot: KernelAddr, entry: u64);
    /// Switches the CPU to an address space. Called only if it differs from the current one.
    fn activate(&mut self, root: PhysAddr, asid: Asid);
    /// Switches to the kernel's own space (no user mappings).
    fn activate_kernel(&mut self);
    /// Forgets cached translations of one page (of any size) of a space.
    fn flush_page(&mut self, asid: Asid, addr: UserAddr);
    /// Forgets all cached translations of a space.
    fn flush_asid(&mut self, asid: Asid);
    /// Called after memory was zeroed or filled that users will see, perhaps as instructions or
    /// past the caches.
    fn clean_frame(&mut self, addr: KernelAddr, bytes: usize);
    /// Called after a mapping was made through which users fetch instructions. They have cleaned
    /// what they stored; what a cache remembers of the memory by other addresses is forgotten here.
    fn code_mapped(&mut self);

    /// Claims wired line `line` and gives it a table index; masked until `unmask`.
    ///
    /// `None`: no such line, or no index is left. A line that is taken gives the same index.
    fn claim_line(&mut self, line: u32, trigger: Trigger) -> Option<Irq>;
    /// Claims an index for a message-signalled interrupt: index, MSI address, MSI data.
    fn claim_msi(&mut self) -> Option<(Irq, u64, u64)>;
    /// Where the kernel keeps the capability of what an interrupt signals; empty at first. It is
    /// no part of the machine's value, since other slots are linked with it while that is borrowed.
    fn irq_slot(&self, irq: Irq) -> Obj<CapSlot>;
    /// Gives an index back; the line is masked.
    fn release_irq(&mut self, irq: Irq);
    /// Masks an interrupt.
    fn mask(&mut self, irq: Irq);
    /// Lets an interrupt fire (again).
    fn unmask(&mut self, irq: Irq);
    /// Whether an interrupt waits: long operations then stop at their preemption point.
    fn interrupt_pending(&self) -> bool;

    /// The FPU of the CPU.
    fn fpu(&mut self) -> &mut Self::Fpu;

    /// Told which thread the trap exit will return to (per-CPU pointer to its context, kernel
    /// stack, TLS base); `None`: idle.
    fn set_current(&mut self, thread: Option<Obj<Tcb>>);

    /// Reads an I/O port (`bytes` 1, 2 or 4); 0 where there are none.
    fn port_in(&mut self, port: u16, bytes: u8) -> u32;
    /// Writes an I/O port.
    fn port_out(&mut self, port: u16, bytes: u8, value: u32);
    /// Whether the machine has I/O ports at all.
    const HAS_PORTS: bool;

    /// Writes to the debug console.
    fn log(&mut self, bytes: &[u8]);
    /// Ends the machine with an exit code (0 to 127).
    fn exit(&mut self, code: u8) -> !;
}
