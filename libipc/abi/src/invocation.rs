//! What a `call` on a kernel object's capability asks for: the label of the message.
//!
//! Arguments are message words (`w0`, `w1`, …) and capabilities sent along (`c0`, `c1`, …).
//! Results are message words of the answer. *index/depth* name a slot below a CNode capability:
//! `depth` bits of `index` are resolved from it (depth 64 resolves a whole `CPtr`).

use crate::numbered;

numbered! {
    /// Invocations. One list for all objects, so that a wrong object is
    /// [`crate::Error::IllegalOperation`] and never another operation.
    pub enum Invocation: u64 {
        // ---- Untyped ----
        /// `c0` destination root CNode; `w0` [`crate::ObjectType`], `w1` size_bits, `w2` index and
        /// `w3` depth of the destination CNode below `c0` (depth 0: `c0` itself), `w4` first slot in it, `w5` count
        /// (1 to 256). Memory is zeroed. Device memory gives frames and Untyped only.
        UntypedRetype = 1,

        // ---- CNode (the invoked capability is the destination CNode) ----
        /// `w0` index, `w1` depth: delete all capabilities derived from the one there.
        CNodeRevoke = 16,
        /// `w0` index, `w1` depth: empty the slot; the last capability destroys the object.
        CNodeDelete = 17,
        /// `w0` index, `w1` depth of the destination; `c0` source root, `w2` index, `w3` depth of
        /// the source; `w4` rights to keep.
        CNodeCopy = 18,
        /// As `CNodeCopy`, with `w5` the badge (endpoint, notification, log) or guard (CNode:
        /// bits 0 to 5 guard size, then the guard).
        CNodeMint = 19,
        /// As `CNodeCopy` without rights; the source slot becomes empty.
        CNodeMove = 20,
        /// As `CNodeMove`, with `w4` the guard of a CNode; a badge in place is refused, as in seL4.
        CNodeMutate = 21,
        /// Destination `w0`/`w1` (its place), `c0` pivot root `w2`/`w3`, `c1` source root
        /// `w4`/`w5`: source moves to pivot, pivot to destination, atomically.
        CNodeRotate = 22,
        /// `w0` index, `w1` depth: cancel the queued sends made with this badge.
        CNodeCancelBadgedSends = 23,

        // ---- Tcb ----
        /// `w0` 1 to suspend first, `w1` words wanted (a prefix of the architecture's register
        /// file, see `libipc`): registers in the answer.
        TcbReadRegisters = 32,
        /// `w0` 1 to resume afterwards, `w1` count, then the registers.
        TcbWriteRegisters = 33,
        /// `c0` CSpace root (a CNode), `c1` VSpace; `w0` guard of the CSpace root (format as
        /// `CNodeMint`, 0 keeps it). Both must be real; there is no null space. `DeleteFirst` if
        /// the thread holds the last capability of the CNode that it has: this destroys none.
        TcbSetSpace = 34,
        /// `c0` IPC buffer frame (RAM, 4 KiB), `w0` its address in the VSpace (0 and no
        /// capability: none).
        TcbSetIpcBuffer = 35,
        /// `c0` authority Tcb, `w0` priority (0 to 255, at most the authority's MCP).
        TcbSetPriority = 36,
        /// `c0` authority Tcb, `w0` maximum controlled priority.
        TcbSetMcPriority = 37,
        /// `c0` authority Tcb, `c1` fault endpoint (optional by count); `w0` MCP, `w1` priority;
        /// `c2` SchedContext (optional by count).
        TcbSetSchedParams = 38,
        /// `c0` fault endpoint with write and grant or grant-reply right; none to clear.
        TcbSetFaultEndpoint = 39,
        /// `c0` timeout endpoint; none to clear.
        TcbSetTimeoutEndpoint = 40,
        /// Stop the thread; a call in progress is cancelled.
        TcbSuspend = 41,
        /// Make the thread runnable (restarts the interrupted system call).
        TcbResume = 42,
        /// `c0` notification that the thread also receives on every `recv`.
        TcbBindNotification = 43,
        /// Undo it.
        TcbUnbindNotification = 44,
        /// `w0` bits to clear, `w1` bits to set ([`TCB_FLAG_FPU`]); answer: the flags.
        TcbSetFlags = 45,
        /// `w0` TLS base (x86_64 FS base, aarch64 TPIDR_EL0).
        TcbSetTlsBase = 46,

        // ---- SchedControl, SchedContext ----
        /// `c0` SchedContext; `w0` budget ns, `w1` period ns (equal: round robin with that
        /// time slice), `w2` badge for timeout faults.
        SchedControlConfigure = 64,
        /// `c0` Tcb or Notification.
        SchedContextBind = 65,
        /// `c0` Tcb or Notification.
        SchedContextUnbindObject = 66,
        /// Unbind from whatever it is bound to.
        SchedContextUnbind = 67,
        /// Answer: `w0` nanoseconds consumed since the object was made (monotonic).
        SchedContextConsumed = 68,

        // ---- Paging ----
        /// `c0` VSpace; `w0` address.
        PageTableMap = 80,
        /// Everything below is unmapped too.
        PageTableUnmap = 81,
        /// `c0` VSpace; `w0` address, `w1` rights (bit 0 write, bit 1 read, bit 2 execute),
        /// `w2` [`MemoryType`]. Maps, or changes the rights of the same mapping.
        FrameMap = 82,
        /// No error if it is not mapped.
        FrameUnmap = 83,
        /// Answer: `w0` physical address, `w1` size_bits.
        FrameGetAddress = 84,
        /// Invoked on `AsidControl`: `c0` Untyped of 4 KiB, `c1` destination root, `w0` index,
        /// `w1` depth: a pool of 512 address space identifiers.
        AsidControlMakePool = 85,
        /// Invoked on an `AsidPool`: `c0` VSpace that has none yet.
        AsidPoolAssign = 86,

        // ---- Interrupts ----
        /// Invoked on `IrqControl`: `w0` line (x86_64 GSI; aarch64 INTID), `w1` [`Trigger`],
        /// `c0` destination root, `w2` index, `w3` depth.
        IrqControlGet = 96,
        /// Invoked on `IrqControl`: `c0` destination root, `w0` index, `w1` depth: an edge
        /// interrupt of its own. Answer: `w0` MSI address, `w1` MSI data.
        IrqControlGetMsi = 97,
        /// Let the line fire again.
        IrqHandlerAck = 98,
        /// `c0` notification, signalled with its badge at each interrupt.
        IrqHandlerSetNotification = 99,
        /// No notification; the line is masked.
        IrqHandlerClear = 100,
        /// Answer: `w0` interrupts delivered since the handler was made.
        IrqHandlerCount = 101,

        // ---- I/O ports (x86_64) ----
        /// Invoked on `IoPortControl`: `w0` first, `w1` last port; `c0` destination root, `w2`
        /// index, `w3` depth.
        IoPortControlIssue = 112,
        /// `w0` port, `w1` bytes (1, 2, 4). Answer: `w0` the value.
        IoPortIn = 113,
        /// `w0` port, `w1` bytes, `w2` value.
        IoPortOut = 114,

        // ---- Timer ----
        /// `w0` deadline, nanoseconds on the clock of the boot info; in the past: fires at once.
        /// Arming an armed timer moves it.
        TimerArm = 128,
        /// Answer: `w0` 1 if it was armed.
        TimerCancel = 129,
        /// `c0` notification, signalled with its badge when the timer fires; none to clear.
        TimerSetNotification = 130,

        // ---- Log (the kernel's debug console) ----
        /// `w0` bytes (1 to 3,960); then the bytes, eight to a word, little endian. Answer: `w0`
        /// bytes written, from the first on; fewer than asked for, but at least 256, if an
        /// interrupt waits.
        LogWrite = 144,
        /// Answer: `w0` bytes of kernel log ever written, `w1` objects alive, `w2` system calls
        /// since boot, `w3` nanoseconds in which nobody had anything to do.
        LogStatistics = 145,

        // ---- MachineControl ----
        /// `w0` code (0 to [`exit_code::MAX`], and none of the kernel's own, which are
        /// `InvalidArgument`): end the machine (QEMU's debug exit device, semihosting or PSCI).
        MachineControlExit = 160,
        /// Check the kernel's invariants now, with interrupts off; a broken one is a kernel panic.
        MachineControlCheck = 161,
    }
}

/// `TcbSetFlags`: the thread has FPU/SIMD state, saved and restored by the kernel.
pub const TCB_FLAG_FPU: u64 = 1;

/// Codes with which the machine ends.
pub mod exit_code {
    /// The shell's, in place of 0: something that was written is not on the disk.
    pub const UNSYNCED: u8 = 0x3c;
    /// The kernel's own: it cannot boot (a damaged image, too little memory).
    pub const CANNOT_BOOT: u8 = 0x3d;
    /// The kernel's own: it panicked.
    pub const PANIC: u8 = 0x3e;
    /// The greatest.
    pub const MAX: u8 = 127;
}

/// `FrameMap` rights.
pub mod map_rights {
    /// Stores are allowed.
    pub const WRITE: u64 = 1;
    /// Loads are allowed.
    pub const READ: u64 = 2;
    /// Instruction fetches are allowed; never together with `WRITE`.
    pub const EXECUTE: u64 = 4;
}

numbered! {
    /// How a mapped frame is cached.
    pub enum MemoryType: u64 {
        /// Write-back, coherent.
        Normal = 0,
        /// Device memory: uncached, not reordered, not gathered.
        Device = 1,
        /// Uncached but gathering (x86_64 write-combining, aarch64 normal non-cacheable).
        WriteCombining = 2,
    }
}

numbered! {
    /// How a wired interrupt signals.
    pub enum Trigger: u64 {
        /// A pulse.
        EdgeHigh = 0,
        /// Asserted until the device is served.
        LevelHigh = 1,
        /// Asserted low, as PCI INTx.
        LevelLow = 2,
    }
}

/// Words of `TcbReadRegisters` and `TcbWriteRegisters`, per architecture, in this order.
pub mod registers {
    /// Index of the instruction pointer, on both architectures.
    pub const IP: usize = 0;
    /// Index of the stack pointer.
    pub const SP: usize = 1;
    /// Index of the flags (RFLAGS; SPSR). Only condition flags and the like can be set.
    pub const FLAGS: usize = 2;
    /// Index of the TLS base.
    pub const TLS: usize = 3;
    /// Index of the first general register. x86_64: rax rbx rcx rdx rsi rdi rbp r8 … r15.
    /// aarch64: x0 … x30.
    pub const GENERAL: usize = 4;
    /// Words on x86_64.
    pub const X86_64_WORDS: usize = GENERAL + 15;
    /// Words on aarch64.
    pub const AARCH64_WORDS: usize = GENERAL + 31;
}
