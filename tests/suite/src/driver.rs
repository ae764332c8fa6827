//! The root task of the suite: a fresh process for each test, a verdict, and all back again.

mod load;

use core::cell::Cell;
use core::fmt::Write;

use libipc::cap::{self, Cap, SlotPath, Then};
use libipc::{Message, arch, buffer};
use skink_abi::bootimage::Header;
use skink_abi::bootinfo::{BootInfo, UntypedDesc, slot as boot};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{Badge, CPtr, CapRights, Error, Fault, ObjectType};

use crate::env::{self, CNODE_BITS, Env, Start, Text, UNTYPED_BITS, slot, verdict};
use crate::{bench, cases, fuzz};

/// Milliseconds that a test may take.
const TIME_LIMIT_MS: u64 = 10_000;
/// Bit of the timer in the driver's notification.
const TIMEOUT: u64 = 1;
/// Badge of a test's verdict; its faults come with the same.
const TEST_BADGE: u64 = 0x100;
/// Where the driver maps a frame for a moment.
const SCRATCH: u64 = 0x7f00_0000;
/// Where it maps the firmware's table: in the same paging structure.
const TABLE: u64 = 0x7f00_1000;
/// Pages that the firmware's table can have.
const TABLE_PAGES: u64 = 511;

/// Capabilities that there is one of: a test has them while it runs. In the test, in the driver.
fn lent() -> impl Iterator<Item = (u64, u64)> {
    let everywhere = [(slot::IRQ_CONTROL, boot::IRQ_CONTROL)];
    everywhere.into_iter().chain(crate::arch::LENT.iter().copied())
}

/// Slots of the driver's own CNode, above what the kernel filled.
struct Slots {
    endpoint: u64,
    notification: u64,
    badged_notification: u64,
    timer: u64,
    reply: u64,
    pool: u64,
    badged: u64,
    scratch: u64,
    /// A run for the pages of the firmware's table.
    table: u64,
    /// A run for the parts of a process; emptied by revoking `pool`.
    parts: u64,
}

/// The root task's view of the machine, and its own capabilities.
pub struct Driver {
    info: &'static BootInfo,
    slots: Slots,
    /// Whether the machine makes interrupts of messages.
    has_messages: bool,
    /// What the next test's start page asks for: a seed and a number of programs.
    asked: Cell<(u64, u64)>,
}

/// The capabilities of one test's process.
struct Process {
    tcb: Cap<cap::Tcb>,
    cnode: Cap<cap::CNode>,
    next: u64,
}

/// First code of the root task.
pub extern "C" fn main(info: u64, _: u64) -> ! {
    // SAFETY: the kernel passes the address of the boot info, mapped read-only for ever.
    let info = unsafe { &*(info as *const BootInfo) };
    let tcb = Cap::<cap::Tcb>::from_slot(boot::TCB);
    tcb.set_tls_base(info.ipc_buffer).expect("set the TLS base");
    // SAFETY: the kernel mapped the buffer; the TLS base was just set to it.
    unsafe { arch::set_user_pointer(info.ipc_buffer as *mut u64) };
    libipc::startup::set_panic_hook(panicked);
    let driver = Driver::new(info);
    let filter = driver.file("args").unwrap_or(b"");
    let filter = core::str::from_utf8(filter).unwrap_or("").trim();
    if filter.starts_with("fuzz") {
        fuzz::run(&driver, filter);
    } else if filter == "bench" {
        driver.run(&bench::BENCH);
    } else {
        driver.run_all(filter);
    }
    end(0)
}

/// Ends the machine.
pub fn end(code: u8) -> ! {
    let _ = Cap::<cap::MachineControl>::from_slot(boot::MACHINE_CONTROL).exit(code);
    arch::undefined_instruction()
}

pub fn log() -> Cap<cap::Log> {
    Cap::from_slot(boot::LOG)
}

pub fn own_cnode() -> Cap<cap::CNode> {
    Cap::from_slot(boot::CNODE)
}

pub fn own_path(index: u64) -> SlotPath {
    own_cnode().slot(CPtr(index))
}

pub fn print(text: core::fmt::Arguments<'_>) {
    let mut line = Text::new();
    let _ = line.write_fmt(text);
    let _ = line.write_str("\n");
    let _ = log().write(line.as_bytes());
}

/// Prints one line on the kernel's log, from a test's process.
pub fn print_from_test(env: &Env, text: core::fmt::Arguments<'_>) {
    let mut line = Text::new();
    let _ = line.write_fmt(text);
    let _ = line.write_str("\n");
    let _ = env.log().write(line.as_bytes());
}

impl Driver {
    fn new(info: &'static BootInfo) -> Driver {
        let first = info.first_empty_slot;
        let slots = Slots {
            endpoint: first,
            notification: first + 1,
            badged_notification: first + 2,
            timer: first + 3,
            reply: first + 4,
            pool: first + 5,
            badged: first + 6,
            scratch: first + 7,
            table: first + 16,
            parts: first + 16 + TABLE_PAGES,
        };
        let mut driver = Driver { info, slots, has_messages: true, asked: Cell::new((0, 0)) };
        let source = driver.untyped(UNTYPED_BITS + 2);
        let make = |object, bits, slot| {
            source.retype(object, bits, own_cnode(), slot, 1).expect("make the driver's objects")
        };
        make(ObjectType::Untyped, UNTYPED_BITS + 1, driver.slots.pool);
        make(ObjectType::Endpoint, 0, driver.slots.endpoint);
        make(ObjectType::Notification, 0, driver.slots.notification);
        make(ObjectType::Timer, 0, driver.slots.timer);
        make(ObjectType::Reply, 0, driver.slots.reply);
        make(ObjectType::Frame, 12, driver.slots.scratch);
        let mint = |to, of, badge| {
            own_path(to).mint(own_path(of), CapRights::all(), Badge(badge)).expect("mint")
        };
        mint(driver.slots.badged, driver.slots.endpoint, TEST_BADGE);
        mint(driver.slots.badged_notification, driver.slots.notification, TIMEOUT);
        let notification = Cap::from_slot(driver.slots.notification);
        Cap::<cap::Tcb>::from_slot(boot::TCB).bind_notification(notification).expect("bind");
        let badged = Cap::from_slot(driver.slots.badged_notification);
        driver.timer().set_notification(Some(badged)).expect("set the timer's notification");
        // The paging structures under the scratch address stay; the frame is taken out again.
        let scratch: Cap<cap::Frame> = Cap::from_slot(driver.slots.scratch);
        let mut table = first + 8;
        while let Err(error) = scratch.map(driver.vspace(), SCRATCH, 3, MemoryType::Normal) {
            assert_eq!(error.error, Error::MissingPageTable);
            make(ObjectType::PageTable, 0, table);
            Cap::<cap::PageTable>::from_slot(table).map(driver.vspace(), SCRATCH).expect("map");
            table += 1;
        }
        scratch.unmap().expect("unmap");
        if info.firmware_table_size <= (TABLE_PAGES - 1) << 12 {
            driver.has_messages = crate::arch::has_messages(driver.firmware_table());
        }
        driver
    }

    /// What the kernel says about the machine.
    pub fn info(&self) -> &'static BootInfo {
        self.info
    }

    /// The first slot of its CNode behind those that it uses itself.
    pub fn first_free_slot(&self) -> u64 {
        self.slots.parts
    }

    fn vspace(&self) -> Cap<cap::VSpace> {
        Cap::from_slot(boot::VSPACE)
    }

    fn timer(&self) -> Cap<cap::Timer> {
        Cap::from_slot(self.slots.timer)
    }

    /// The smallest Untyped of RAM with at least `2^bits` bytes.
    fn untyped(&self, bits: u8) -> Cap<cap::Untyped> {
        let list = &self.info.untyped_list[..self.info.untyped.count as usize];
        let fits = |(_, u): &(usize, &UntypedDesc)| u.is_device == 0 && u.size_bits >= bits;
        let (index, _) = list
            .iter()
            .enumerate()
            .filter(fits)
            .min_by_key(|(_, u)| u.size_bits)
            .expect("enough RAM");
        Cap::from_slot(self.info.untyped.first_slot + index as u64)
    }

    /// A device Untyped in which the machine has nothing, else any large one.
    pub fn device(&self) -> Option<u64> {
        let list = &self.info.untyped_list[..self.info.untyped.count as usize];
        let is_large = |u: &UntypedDesc| u.is_device == 1 && u.size_bits >= 21;
        let is_empty = |u: &UntypedDesc| {
            is_large(u) && crate::arch::NOTHING_AT.wrapping_sub(u.paddr) >> u.size_bits == 0
        };
        let found = list.iter().position(is_empty).or_else(|| list.iter().position(is_large))?;
        Some(self.info.untyped.first_slot + found as u64)
    }

    /// The firmware's table, mapped read-only; empty where its size is not known. It is reserved
    /// memory, so Untypeds of its own tile its pages.
    fn firmware_table(&self) -> &'static [u8] {
        let info = self.info;
        let (first, end) = (info.firmware_table, info.firmware_table + info.firmware_table_size);
        let list = &info.untyped_list[..info.untyped.count as usize];
        for (index, u) in list.iter().enumerate() {
            if u.is_device == 0 || u.paddr < first & !0xfff || u.paddr >= end {
                continue;
            }
            let untyped: Cap<cap::Untyped> = Cap::from_slot(info.untyped.first_slot + index as u64);
            for paddr in (u.paddr..end.min(u.paddr + (1 << u.size_bits))).step_by(4096) {
                let page = (paddr >> 12) - (first >> 12);
                let slot = self.slots.table + page;
                let retyped = untyped.retype(ObjectType::Frame, 12, own_cnode(), slot, 1);
                retyped.expect("a frame of the firmware's table");
                let frame: Cap<cap::Frame> = Cap::from_slot(slot);
                let at = TABLE + (page << 12);
                let rights = map_rights::READ;
                frame.map(self.vspace(), at, rights, MemoryType::Normal).expect("map the table");
            }
        }
        let (start, size) = (TABLE + (first & 0xfff), end - first);
        // SAFETY: just mapped, for ever; nobody writes there.
        unsafe { core::slice::from_raw_parts(start as *const u8, size as usize) }
    }

    pub fn image(&self) -> &'static [u8] {
        let (address, size) = (self.info.boot_image_vaddr, self.info.boot_image_size);
        // SAFETY: the kernel maps the boot image there, read-only, for ever.
        unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) }
    }

    /// A file of the boot image.
    fn file(&self, name: &str) -> Option<&'static [u8]> {
        let image = self.image();
        let header = Header::parse(image).expect("a boot image");
        let file = (0..header.file_count)
            .map(|i| header.file(image, i).expect("a file entry"))
            .find(|file| file.name() == name)?;
        image.get(file.offset as usize..(file.offset + file.size) as usize)
    }

    fn run_all(&self, filter: &str) {
        if filter == "--list" {
            print(format_args!("SUITE begin {}", cases::all().count()));
            cases::all().for_each(|t| print(format_args!("TEST {} listed {}", t.id, t.sentence)));
            return print(format_args!("SUITE end"));
        }
        let chosen = || cases::all().filter(move |t| filter.is_empty() || t.id.starts_with(filter));
        print(format_args!("SUITE begin {}", chosen().count()));
        let (mut passed, mut failed) = (0, 0);
        for test in chosen() {
            let ok = self.run(test);
            if ok { passed += 1 } else { failed += 1 }
        }
        print(format_args!("SUITE end {passed} passed, {failed} failed"));
    }

    /// Executes random programs in a process of their own; whether they did no harm.
    pub fn run_programs(&self, seed: u64, rounds: u64) -> bool {
        self.asked.set((seed, rounds));
        self.run(&cases::code::ASKED)
    }

    /// Runs one test; prints its line.
    fn run(&self, test: &'static env::Test) -> bool {
        let before = log().statistics().expect("statistics")[1];
        let process = self.start(test);
        let limit = if test.id == "BENCH" { 100 } else { 1 };
        let deadline = self.now_ns() + limit * TIME_LIMIT_MS * 1_000_000;
        self.timer().arm(deadline).expect("arm");
        let message = Cap::<cap::Endpoint>::from_slot(self.slots.endpoint)
            .recv(Cap::from_slot(self.slots.reply))
            .expect("receive the verdict");
        let mut reason = Text::new();
        self.judge(&message, &mut reason);
        let _ = self.timer().cancel();
        let _ = process.tcb.suspend();
        for (at, home) in lent() {
            let at = process.cnode.slot_at(at, CNODE_BITS);
            own_path(home).move_(at).expect("take a control capability back");
        }
        own_path(self.slots.pool).revoke().expect("take everything back");
        Cap::<cap::MachineControl>::from_slot(boot::MACHINE_CONTROL).check().expect("check");
        for slot in self.slots.parts..process.next {
            own_path(slot).delete().expect("give back a shared page");
        }
        let leaked = log().statistics().expect("statistics")[1].wrapping_sub(before);
        if leaked != 0 && reason.as_bytes().is_empty() {
            let _ = write!(reason, "{} kernel objects leaked", leaked as i64);
        }
        let passed = reason.as_bytes().is_empty();
        let (id, sentence) = (test.id, test.sentence);
        if passed {
            print(format_args!("TEST {id} ok {sentence}"));
        } else {
            let reason = core::str::from_utf8(reason.as_bytes()).unwrap_or("(garbled)");
            print(format_args!("TEST {id} FAILED {sentence}: {reason}"));
        }
        passed
    }

    pub fn now_ns(&self) -> u64 {
        let ticks = arch::counter().wrapping_sub(self.info.counter_base);
        (u128::from(ticks) * 1_000_000_000 / u128::from(self.info.counter_hz)) as u64
    }

    /// Leaves `reason` empty if the test passed.
    fn judge(&self, message: &Message, reason: &mut Text) {
        if message.badge != TEST_BADGE {
            let _ = write!(reason, "not finished after {TIME_LIMIT_MS} ms");
            return;
        }
        let word = |i: usize| message.words.get(i).copied().unwrap_or_else(|| buffer::word(i));
        match (message.info.label(), Fault::from_raw(message.info.label())) {
            // A verdict has a length that no fault has the words for.
            (verdict::PASSED, _) if message.info.length() == 1 => {}
            (verdict::FAILED, _)
                if message.info.length() != skink_abi::fault::WORDS || word(0) < 400 =>
            {
                for i in 0..(word(0) as usize).min(400) {
                    let byte = (word(1 + i / 8) >> (i % 8 * 8)) as u8;
                    let _ = reason.write_char(char::from(if byte == b'\n' { b' ' } else { byte }));
                }
            }
            (_, Some(fault)) => {
                let [ip, sp, address, syndrome, detail] = core::array::from_fn(word);
                let _ = write!(
                    reason,
                    "{fault:?} at {ip:#x}, sp {sp:#x}, address {address:#x}, syndrome {syndrome:#x}, detail {detail:#x}"
                );
            }
            (label, None) => {
                let _ = write!(reason, "unknown verdict {label}");
            }
        }
    }

    /// Makes the process of a test and starts it.
    fn start(&self, test: &'static env::Test) -> Process {
        let pool: Cap<cap::Untyped> = Cap::from_slot(self.slots.pool);
        let mut process = Process {
            tcb: Cap::from_slot(self.slots.parts),
            cnode: Cap::from_slot(self.slots.parts),
            next: self.slots.parts,
        };
        let make = |process: &mut Process, object, bits| {
            let slot = process.next;
            process.next += 1;
            pool.retype(object, bits, own_cnode(), slot, 1).expect("make a part of the process");
            slot
        };
        // The largest first: each object is aligned to its size.
        let untyped = make(&mut process, ObjectType::Untyped, UNTYPED_BITS);
        let tcb = make(&mut process, ObjectType::Tcb, 0);
        let cnode = make(&mut process, ObjectType::CNode, CNODE_BITS);
        let vspace = make(&mut process, ObjectType::VSpace, 0);
        let context = make(&mut process, ObjectType::SchedContext, 0);
        process.tcb = Cap::from_slot(tcb);
        process.cnode = Cap::from_slot(cnode);
        Cap::<cap::AsidPool>::from_slot(boot::ASID_POOL)
            .assign(Cap::from_slot(vspace))
            .expect("assign an address space identifier");
        let rw = map_rights::READ | map_rights::WRITE;
        for page in 1..=env::STACK_PAGES {
            let frame = make(&mut process, ObjectType::Frame, 12);
            self.map(&mut process, pool, vspace, frame, env::STACK_TOP - (page << 12), rw);
        }
        let buffer = make(&mut process, ObjectType::Frame, 12);
        self.map(&mut process, pool, vspace, buffer, env::BUFFER, rw);
        let page = make(&mut process, ObjectType::Frame, 12);
        let segments = self.load(&mut process, pool, vspace, cnode);
        self.fill(page, |bytes| {
            // SAFETY: the scratch page is one page, aligned, and nobody else's.
            let start = unsafe { &mut *(bytes.as_mut_ptr().cast::<Start>()) };
            start.counter_hz = self.info.counter_hz;
            start.counter_base = self.info.counter_base;
            start.is_debug = self.info.is_debug;
            start.has_messages = u64::from(self.has_messages);
            (start.seed, start.rounds) = self.asked.get();
            start.segment_count = segments.1 as u64;
            start.segments = segments.0;
        });
        self.map(&mut process, pool, vspace, page, env::START_PAGE, map_rights::READ);
        self.grant(
            cnode,
            &[
                (slot::TCB, tcb),
                (slot::VSPACE, vspace),
                (slot::RESULT, self.slots.badged),
                (slot::UNTYPED, untyped),
                (slot::LOG, boot::LOG),
                (slot::SCHED_CONTROL, boot::SCHED_CONTROL),
                (slot::ASID_POOL, boot::ASID_POOL),
                (slot::ASID_CONTROL, boot::ASID_CONTROL),
                (slot::SCHED_CONTEXT, context),
            ],
        );
        // With the guard that makes an index a whole `CPtr`.
        Cap::<cap::CNode>::from_slot(cnode)
            .slot_at(slot::CNODE, CNODE_BITS)
            .mint(own_path(cnode), CapRights::all(), Badge(u64::from(64 - CNODE_BITS)))
            .expect("grant the CNode");
        for (to, from) in lent() {
            let to = Cap::<cap::CNode>::from_slot(cnode).slot_at(to, CNODE_BITS);
            to.move_(own_path(from)).expect("lend a control capability");
        }
        // Whatever else a test does by accident, it does not end the machine.
        if ["MACHINE", "CODE"].iter().any(|kind| test.id.starts_with(kind)) {
            self.grant(cnode, &[(slot::MACHINE_CONTROL, boot::MACHINE_CONTROL)]);
        }
        if let Some(device) = self.device() {
            self.grant(cnode, &[(slot::DEVICE, device)]);
        }
        self.run_thread(&process, cnode, vspace, buffer, context, test);
        process
    }

    fn run_thread(
        &self,
        process: &Process,
        cnode: u64,
        vspace: u64,
        buffer: u64,
        context: u64,
        test: &'static env::Test,
    ) {
        let tcb = process.tcb;
        let guard = u64::from(64 - CNODE_BITS);
        tcb.set_space(Cap::from_slot(cnode), guard, Cap::from_slot(vspace)).expect("set space");
        tcb.set_ipc_buffer(Some((Cap::from_slot(buffer), env::BUFFER))).expect("set buffer");
        let context: Cap<cap::SchedContext> = Cap::from_slot(context);
        Cap::<cap::SchedControl>::from_slot(boot::SCHED_CONTROL)
            .configure(context, 10_000_000, 10_000_000, 0)
            .expect("configure");
        let own = Cap::from_slot(boot::TCB);
        tcb.set_sched_params(own, 254, env::PRIORITY, None).expect("set priority");
        tcb.set_fault_endpoint(Some(Cap::from_slot(self.slots.badged)))
            .expect("set fault endpoint");
        context.bind(tcb).expect("bind");
        let argument = test as *const env::Test as u64;
        let registers =
            arch::thread_registers(test_main, env::STACK_TOP, env::BUFFER, [argument, 0]);
        tcb.write_registers(Then::Act, &registers).expect("start");
    }

    /// Copies capabilities of the driver into a test's CNode.
    fn grant(&self, cnode: u64, caps: &[(u64, u64)]) {
        for (to, from) in caps {
            Cap::<cap::CNode>::from_slot(cnode)
                .slot_at(*to, CNODE_BITS)
                .copy(own_path(*from), CapRights::all())
                .unwrap_or_else(|error| panic!("grant {from} as {to}: {error}"));
        }
    }
}

/// First code of a test's process.
extern "C" fn test_main(test: u64, _: u64) -> ! {
    // SAFETY: FS was set to the buffer, which is mapped.
    unsafe { arch::set_user_pointer(env::BUFFER as *mut u64) };
    libipc::startup::set_panic_hook(panicked);
    // SAFETY: the driver passes the address of a static of the image, which is the same here.
    let test = unsafe { &*(test as *const env::Test) };
    (test.run)(&mut Env::new());
    env::finish(verdict::PASSED, &[])
}

/// A panic is the test's verdict (or, in the driver itself, the end of the run).
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut reason = Text::new();
    let _ = write!(reason, "{}", info.message());
    if let Some(place) = info.location() {
        let _ = write!(reason, " ({}:{})", place.file(), place.line());
    }
    let in_test = libipc::arch::user_buffer() as u64;
    let is_driver = in_test != env::BUFFER && !(0x7000_0000..0x7f00_0000).contains(&in_test);
    if is_driver {
        let _ = log().write(b"SUITE driver panicked: ");
        let _ = log().write(reason.as_bytes());
        let _ = log().write(b"\n");
        end(1);
    }
    env::finish(verdict::FAILED, reason.as_bytes())
}
