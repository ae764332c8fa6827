//! What a test finds: an Untyped of its own, control capabilities, its image, helper threads.
//!
//! A test runs in a process made for it alone. Its CNode has the fixed slots of [`slot`]; its
//! start page ([`Start`]) says what its image consists of, so that it can make further address
//! spaces in which the same code and data are mapped: helper threads talk to the test through
//! plain statics, whichever space they run in.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::cap::{self, Cap, SlotPath};
use libipc::{arch, buffer, raw};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CPtr, CapRights, Error, MessageInfo, ObjectType};

/// Fixed slots of a test's CNode.
pub mod slot {
    pub const TCB: u64 = 1;
    pub const CNODE: u64 = 2;
    pub const VSPACE: u64 = 3;
    /// Where the verdict goes.
    pub const RESULT: u64 = 4;
    pub const UNTYPED: u64 = 5;
    pub const LOG: u64 = 6;
    pub const SCHED_CONTROL: u64 = 7;
    pub const ASID_POOL: u64 = 8;
    pub const IRQ_CONTROL: u64 = 9;
    pub const IO_PORT_CONTROL: u64 = 10;
    pub const ASID_CONTROL: u64 = 11;
    /// A device Untyped of 2 MiB or more, with [`crate::arch::NOTHING_AT`] in it if there is one.
    pub const DEVICE: u64 = 12;
    pub const SCHED_CONTEXT: u64 = 13;
    /// Only in tests about it.
    pub const MACHINE_CONTROL: u64 = 14;
    pub const FIRST_FREE: u64 = 64;
    /// The frames of the image, in the order of the start page.
    pub const IMAGE: u64 = 2048;
}

/// Log2 of the slots of a test's CNode.
pub const CNODE_BITS: u8 = 12;
/// Log2 of the bytes of a test's Untyped.
pub const UNTYPED_BITS: u8 = 22;
/// Where the start page is mapped, read-only.
pub const START_PAGE: u64 = 0x6000_0000;
/// Where a process' first stack ends.
pub const STACK_TOP: u64 = 0x5000_0000;
/// Pages of a first stack.
pub const STACK_PAGES: u64 = 8;
/// Where the IPC buffer of the first thread is.
pub const BUFFER: u64 = 0x5800_0000;
/// Helper threads' stacks and buffers begin here, one mebibyte apart.
const HELPERS: u64 = 0x7000_0000;
/// Free for tests to map things at, with no paging structures present.
pub const PLAYGROUND: u64 = 0x10_0000_0000;
/// Priority of the test's first thread.
pub const PRIORITY: u8 = 100;

/// Labels of the message that ends a test.
pub mod verdict {
    pub const PASSED: u64 = 1;
    /// The words are the bytes of the reason.
    pub const FAILED: u64 = 2;
}

/// The start page.
#[repr(C)]
pub struct Start {
    pub counter_hz: u64,
    pub counter_base: u64,
    /// 1 on a kernel that checks its invariants after every trap, which takes time.
    pub is_debug: u64,
    /// 1 if the machine makes interrupts of messages, as its firmware says.
    pub has_messages: u64,
    /// The seed and the number of programs that the fuzzer asks for.
    pub seed: u64,
    pub rounds: u64,
    pub segment_count: u64,
    pub segments: [Segment; 8],
}

/// A run of pages of the image; its frames are in consecutive slots.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Segment {
    pub vaddr: u64,
    pub pages: u64,
    pub rights: u64,
    pub first_slot: u64,
}

/// The start page of this process.
pub fn start() -> &'static Start {
    // SAFETY: the driver maps and fills the page before the process starts, and nobody writes it.
    unsafe { &*(START_PAGE as *const Start) }
}

/// A test.
pub struct Test {
    /// Stable: scripts may name it.
    pub id: &'static str,
    /// What holds.
    pub sentence: &'static str,
    /// The test itself; it panics where the sentence does not hold.
    pub run: fn(&mut Env),
}

/// A test, for the tables of [`crate::cases`].
pub const fn test(id: &'static str, sentence: &'static str, run: fn(&mut Env)) -> Test {
    Test { id, sentence, run }
}

/// The state of the process that a test runs in.
pub struct Env {
    next_slot: u64,
    helpers: u64,
}

/// A helper thread: its parts, so that tests can take them away.
#[derive(Clone, Copy)]
pub struct Thread {
    pub tcb: Cap<cap::Tcb>,
    pub context: Cap<cap::SchedContext>,
    pub vspace: Cap<cap::VSpace>,
    stack_top: u64,
    buffer_vaddr: u64,
}

/// Where a helper thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// In the address space of the test.
    Same,
    /// In one of its own, with the same image mapped.
    Other,
}

/// Which object a capability type stands for.
pub trait Object {
    const TYPE: ObjectType;
}

macro_rules! objects {
    ($($name:ident)*) => { $(impl Object for cap::$name { const TYPE: ObjectType = ObjectType::$name; })* };
}
objects!(Tcb Endpoint Notification Reply SchedContext Timer VSpace PageTable);

impl Env {
    /// The environment of a fresh process.
    pub const fn new() -> Env {
        Env { next_slot: slot::FIRST_FREE, helpers: 0 }
    }

    pub fn cnode(&self) -> Cap<cap::CNode> {
        Cap::from_slot(slot::CNODE)
    }

    pub fn vspace(&self) -> Cap<cap::VSpace> {
        Cap::from_slot(slot::VSPACE)
    }

    pub fn tcb(&self) -> Cap<cap::Tcb> {
        Cap::from_slot(slot::TCB)
    }

    pub fn untyped(&self) -> Cap<cap::Untyped> {
        Cap::from_slot(slot::UNTYPED)
    }

    pub fn sched_control(&self) -> Cap<cap::SchedControl> {
        Cap::from_slot(slot::SCHED_CONTROL)
    }

    pub fn log(&self) -> Cap<cap::Log> {
        Cap::from_slot(slot::LOG)
    }

    /// The slot `index` of the test's CNode as a path.
    pub fn path(&self, index: u64) -> SlotPath {
        self.cnode().slot(CPtr(index))
    }

    /// An empty slot, never handed out before.
    pub fn slot(&mut self) -> u64 {
        self.slots(1)
    }

    /// The first of `count` empty slots in a row.
    pub fn slots(&mut self, count: u64) -> u64 {
        let first = self.next_slot;
        self.next_slot += count;
        assert!(self.next_slot <= slot::IMAGE, "the test ran out of slots");
        first
    }

    /// Makes an object.
    pub fn make<T: Object>(&mut self) -> Cap<T> {
        let slot = self.slot();
        self.untyped().retype(T::TYPE, 0, self.cnode(), slot, 1).expect("retype");
        Cap::from_slot(slot)
    }

    /// Makes an object whose size the maker says (Untyped, CNode, Frame).
    pub fn make_sized<T>(&mut self, object: ObjectType, size_bits: u8) -> Cap<T> {
        let slot = self.slot();
        self.untyped().retype(object, size_bits, self.cnode(), slot, 1).expect("retype");
        Cap::from_slot(slot)
    }

    /// Makes a frame of 4 KiB.
    pub fn frame(&mut self) -> Cap<cap::Frame> {
        self.make_sized(ObjectType::Frame, 12)
    }

    /// Mints a badged copy of an endpoint or notification capability.
    pub fn badge<T>(&mut self, of: Cap<T>, badge: u64) -> Cap<T> {
        self.mint(of, CapRights::all(), badge)
    }

    /// Mints a copy with these rights and this badge; 0 copies, since a badge is set once.
    pub fn mint<T>(&mut self, of: Cap<T>, rights: CapRights, badge: u64) -> Cap<T> {
        let slot = self.slot();
        let from = self.path(of.cptr().0);
        let minted = match badge {
            0 => self.path(slot).copy(from, rights),
            badge => self.path(slot).mint(from, rights, skink_abi::Badge(badge)),
        };
        minted.expect("mint");
        Cap::from_slot(slot)
    }

    /// Deletes a capability.
    pub fn delete<T>(&self, cap: Cap<T>) {
        self.path(cap.cptr().0).delete().expect("delete");
    }

    /// Maps all missing paging structures for `vaddr` in `vspace`.
    pub fn map_tables(
        &mut self,
        vspace: Cap<cap::VSpace>,
        vaddr: u64,
        frame: Cap<cap::Frame>,
        rights: u64,
    ) {
        for _ in 0..4 {
            match frame.map(vspace, vaddr, rights, MemoryType::Normal) {
                Ok(()) => return,
                Err(e) if e.error == Error::MissingPageTable => {
                    let table: Cap<cap::PageTable> = self.make();
                    table.map(vspace, vaddr).expect("map a paging structure");
                }
                Err(e) => panic!("map {vaddr:#x}: {e}"),
            }
        }
        panic!("map {vaddr:#x}: paging structures without end");
    }

    /// A new address space with an identifier, empty.
    pub fn empty_vspace(&mut self) -> Cap<cap::VSpace> {
        let vspace = self.make();
        Cap::<cap::AsidPool>::from_slot(slot::ASID_POOL).assign(vspace).expect("assign");
        vspace
    }

    /// A new address space in which the test's image and start page are mapped.
    pub fn vspace_with_image(&mut self) -> Cap<cap::VSpace> {
        let vspace = self.empty_vspace();
        let start = start();
        for segment in &start.segments[..start.segment_count as usize] {
            for page in 0..segment.pages {
                let copy = self.copy(segment.first_slot + page);
                self.map_tables(vspace, segment.vaddr + (page << 12), copy, segment.rights);
            }
        }
        vspace
    }

    fn copy(&mut self, of: u64) -> Cap<cap::Frame> {
        let slot = self.slot();
        self.path(slot).copy(self.path(of), CapRights::all()).expect("copy");
        Cap::from_slot(slot)
    }

    /// A thread that is ready but for its registers: stack, IPC buffer, CSpace (the test's), a
    /// scheduling context of 10 ms round robin, faults to `fault` if there is one.
    pub fn thread(
        &mut self,
        space: Space,
        priority: u8,
        fault: Option<Cap<cap::Endpoint>>,
    ) -> Thread {
        let vspace = match space {
            Space::Same => self.vspace(),
            Space::Other => self.vspace_with_image(),
        };
        let base = HELPERS + self.helpers * 0x10_0000;
        self.helpers += 1;
        assert!(self.helpers <= MAX_HELPERS as u64, "the test has too many helpers");
        let stack_top = base + 0x8000;
        for page in 0..4 {
            let frame = self.frame();
            let rights = map_rights::READ | map_rights::WRITE;
            self.map_tables(vspace, stack_top - 0x4000 + (page << 12), frame, rights);
        }
        let buffer = self.frame();
        let buffer_vaddr = base + 0xf000;
        self.map_tables(vspace, buffer_vaddr, buffer, map_rights::READ | map_rights::WRITE);
        let tcb: Cap<cap::Tcb> = self.make();
        let context: Cap<cap::SchedContext> = self.make();
        tcb.set_space(self.cnode(), u64::from(64 - CNODE_BITS), vspace).expect("set space");
        tcb.set_ipc_buffer(Some((buffer, buffer_vaddr))).expect("set buffer");
        self.sched_control().configure(context, 10_000_000, 10_000_000, 0).expect("configure");
        tcb.set_sched_params(self.tcb(), 254, priority, None).expect("set priority");
        tcb.set_fault_endpoint(fault).expect("set fault endpoint");
        context.bind(tcb).expect("bind");
        Thread { tcb, context, vspace, stack_top, buffer_vaddr }
    }

    /// Makes a helper at `priority` and starts it.
    pub fn spawn(&mut self, space: Space, priority: u8, body: fn(u64), argument: u64) -> Thread {
        let fault = Cap::from_slot(slot::RESULT);
        let thread = self.thread(space, priority, Some(fault));
        thread.start(body, argument);
        thread
    }
}

impl Thread {
    /// Starts it in `body(argument)`. When `body` returns the thread suspends itself.
    pub fn start(&self, body: fn(u64), argument: u64) {
        let index = (self.buffer_vaddr - HELPERS) >> 20;
        let helper = &RUNNING[index as usize];
        helper.body.store(body as usize as u64, Relaxed);
        helper.argument.store(argument, Relaxed);
        helper.buffer.store(self.buffer_vaddr, Relaxed);
        helper.tcb.store(self.tcb.cptr().0, Relaxed);
        let registers =
            arch::thread_registers(trampoline, self.stack_top, self.buffer_vaddr, [index, 0]);
        self.tcb.write_registers(cap::Then::Act, &registers).expect("start a helper");
    }

    /// Makes it a passive thread once it waits: takes its scheduling context away.
    pub fn make_passive(&self) {
        self.context.unbind().expect("unbind");
    }

    /// The top of its stack.
    pub fn stack_top(&self) -> u64 {
        self.stack_top
    }
}

/// Helpers at most.
const MAX_HELPERS: usize = 16;

/// What a helper needs to begin; in the image's data, which all spaces of a test share.
struct Running {
    body: AtomicU64,
    argument: AtomicU64,
    buffer: AtomicU64,
    tcb: AtomicU64,
}

static RUNNING: [Running; MAX_HELPERS] = [const {
    Running {
        body: AtomicU64::new(0),
        argument: AtomicU64::new(0),
        buffer: AtomicU64::new(0),
        tcb: AtomicU64::new(0),
    }
}; MAX_HELPERS];

/// First code of a helper: its IPC buffer, then the body; at the end it suspends itself.
extern "C" fn trampoline(index: u64, _: u64) -> ! {
    let helper = &RUNNING[index as usize];
    // SAFETY: `Thread::start` set FS to the helper's buffer, which is mapped.
    unsafe { arch::set_user_pointer(helper.buffer.load(Relaxed) as *mut u64) };
    // SAFETY: `Thread::start` stored a `fn(u64)`.
    let body: fn(u64) = unsafe { core::mem::transmute(helper.body.load(Relaxed) as usize) };
    body(helper.argument.load(Relaxed));
    let _ = Cap::<cap::Tcb>::from_slot(helper.tcb.load(Relaxed)).suspend();
    arch::undefined_instruction()
}

/// Nanoseconds on the kernel's clock.
pub fn now_ns() -> u64 {
    let start = start();
    let ticks = arch::counter().wrapping_sub(start.counter_base);
    (u128::from(ticks) * 1_000_000_000 / u128::from(start.counter_hz)) as u64
}

/// A text of bounded size, for reasons.
pub struct Text {
    bytes: [u8; 400],
    length: usize,
}

impl Text {
    pub const fn new() -> Text {
        Text { bytes: [0; 400], length: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.length;
        let take = room.min(text.len());
        self.bytes[self.length..self.length + take].copy_from_slice(&text.as_bytes()[..take]);
        self.length += take;
        Ok(())
    }
}

/// Ends the test: its reason to the driver, from whichever thread.
pub fn finish(label: u64, reason: &[u8]) -> ! {
    let mut words = [0u64; 4];
    for (i, chunk) in reason.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(bytes);
        match words.get_mut(i + 1) {
            Some(register) => *register = word,
            None => buffer::set_word(i + 1, word),
        }
    }
    words[0] = reason.len() as u64;
    let info = MessageInfo::new(label, 1 + reason.len().div_ceil(8), 0);
    let _ = raw::call(CPtr(slot::RESULT), info, words);
    arch::undefined_instruction()
}
