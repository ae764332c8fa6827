//! Address spaces.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, Error, Fault, ObjectType};

use crate::env::{Env, PLAYGROUND, Space, Test, slot, test};

pub const TESTS: &[Test] = &[
    test("VSPACE0001", "a mapped frame is memory, unmapped it is gone", map_unmap),
    test("VSPACE0002", "a missing paging structure is named by the bytes it spans", missing),
    test(
        "VSPACE0003",
        "mapping over a mapping, unaligned or beyond user space is refused",
        refused,
    ),
    test("VSPACE0004", "one frame in two spaces is shared memory", shared),
    test(
        "VSPACE0005",
        "a read-only mapping cannot be written, and can be remapped writable",
        remap,
    ),
    test("VSPACE0006", "writable and executable together is refused", w_xor_x),
    test("VSPACE0007", "memory without the execute right is not executed", no_execute),
    test(
        "VSPACE0008",
        "a frame capability without write right maps read-only at most",
        frame_rights,
    ),
    test(
        "VSPACE0009",
        "deleting a frame unmaps it, and the address shows no old data",
        delete_frame,
    ),
    test("VSPACE0010", "deleting a paging structure unmaps all below it", delete_table),
    test("VSPACE0011", "a 2 MiB frame maps, and a 4 KiB one over it does not", large),
    test("VSPACE0012", "a frame capability is mapped once; a copy maps it elsewhere", once),
    test("VSPACE0013", "a space without identifier maps nothing, and gets one only once", asid),
    test(
        "VSPACE0014",
        "deleting a space under its running thread stops it as a fault or for good",
        delete_space,
    ),
    test("VSPACE0015", "a frame says its physical address", address),
    test(
        "VSPACE0016",
        "what was mapped in a dead space does not unmap its successor's page",
        successor,
    ),
];

const RW: u64 = map_rights::READ | map_rights::WRITE;

fn word(address: u64) -> &'static AtomicU64 {
    // SAFETY: tests call it for addresses that they have just mapped.
    unsafe { &*(address as *const AtomicU64) }
}

fn map_unmap(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, RW);
    word(PLAYGROUND).store(5, SeqCst);
    frame.unmap().unwrap();
    frame.unmap().unwrap();
    assert_faults(env, PLAYGROUND);
    frame.map(env.vspace(), PLAYGROUND + 0x1000, RW, MemoryType::Normal).unwrap();
    assert_eq!(word(PLAYGROUND + 0x1000).load(SeqCst), 5);
}

fn load(address: u64) {
    word(address).load(SeqCst);
}

fn store(address: u64) {
    word(address).store(1, SeqCst);
}

fn execute(address: u64) {
    // SAFETY: expected to fault.
    let function: extern "C" fn() = unsafe { core::mem::transmute(address as usize) };
    function();
}

fn fault(env: &mut Env, body: fn(u64), address: u64) -> (u64, u64) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let thread = env.thread(Space::Same, 101, Some(endpoint));
    thread.start(body, address);
    let message = endpoint.recv(reply).unwrap();
    env.delete(thread.tcb);
    (message.info.label(), message.words[2])
}

fn assert_faults(env: &mut Env, address: u64) {
    assert_eq!(fault(env, load, address), (Fault::PageFault.raw(), address));
}

fn missing(env: &mut Env) {
    let vspace = env.empty_vspace();
    let frame = env.frame();
    for bits in [39, 30, 21] {
        let error = frame.map(vspace, PLAYGROUND, RW, MemoryType::Normal).unwrap_err();
        assert_eq!((error.error, error.detail[0]), (Error::MissingPageTable, bits));
        let table: Cap<cap::PageTable> = env.make();
        table.map(vspace, PLAYGROUND).unwrap();
    }
    frame.map(vspace, PLAYGROUND, RW, MemoryType::Normal).unwrap();
    let extra: Cap<cap::PageTable> = env.make();
    assert_eq!(extra.map(vspace, PLAYGROUND).unwrap_err().error, Error::DeleteFirst);
}

fn refused(env: &mut Env) {
    let (one, two) = (env.frame(), env.frame());
    env.map_tables(env.vspace(), PLAYGROUND, one, RW);
    let vspace = env.vspace();
    let map = |vaddr| two.map(vspace, vaddr, RW, MemoryType::Normal);
    assert_eq!(map(PLAYGROUND).unwrap_err().error, Error::DeleteFirst);
    assert_eq!(map(PLAYGROUND + 0x1008).unwrap_err().error, Error::AlignmentError);
    for address in [crate::arch::KERNEL_ADDRESS, 0xffff_ffff_ffff_f000, 0x8000_0000_0000, 1 << 52] {
        assert_eq!(map(address).unwrap_err().error, Error::InvalidArgument, "{address:#x}");
    }
    let table: Cap<cap::PageTable> = env.make();
    assert_eq!(
        table.map(env.vspace(), crate::arch::KERNEL_ADDRESS).unwrap_err().error,
        Error::InvalidArgument
    );
    assert_eq!(
        two.map(env.vspace(), PLAYGROUND + 0x1000, 0, MemoryType::Normal).unwrap_err().error,
        Error::InvalidArgument
    );
    assert_eq!(
        two.map(env.vspace(), PLAYGROUND + 0x1000, 0xff, MemoryType::Normal).unwrap_err().error,
        Error::InvalidArgument
    );
    map(PLAYGROUND + 0x1000).unwrap();
}

fn add_one(address: u64) {
    word(address).fetch_add(1, SeqCst);
}

fn shared(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, RW);
    let helper = env.thread(Space::Other, 101, None);
    let copy = env.slot();
    env.path(copy).copy(env.path(frame.cptr().0), CapRights::all()).unwrap();
    let elsewhere = PLAYGROUND + 0x7000;
    env.map_tables(helper.vspace, elsewhere, Cap::from_slot(copy), RW);
    word(PLAYGROUND).store(41, SeqCst);
    helper.start(add_one, elsewhere);
    assert_eq!(word(PLAYGROUND).load(SeqCst), 42);
}

fn remap(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ);
    assert_eq!(word(PLAYGROUND).load(SeqCst), 0);
    assert_eq!(fault(env, store, PLAYGROUND), (Fault::PageFault.raw(), PLAYGROUND));
    frame.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).unwrap();
    word(PLAYGROUND).store(3, SeqCst);
    frame.map(env.vspace(), PLAYGROUND, map_rights::READ, MemoryType::Normal).unwrap();
    assert_eq!(fault(env, store, PLAYGROUND).0, Fault::PageFault.raw());
}

fn w_xor_x(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, RW);
    let all = RW | map_rights::EXECUTE;
    assert_eq!(
        frame.map(env.vspace(), PLAYGROUND, all, MemoryType::Normal).unwrap_err().error,
        Error::InvalidArgument
    );
    word(PLAYGROUND).store(1, SeqCst);
}

fn no_execute(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, RW);
    word(PLAYGROUND).store(u64::from_le_bytes([0xc3; 8]), SeqCst);
    assert_eq!(fault(env, execute, PLAYGROUND), (Fault::PageFault.raw(), PLAYGROUND));
}

fn frame_rights(env: &mut Env) {
    let frame = env.frame();
    let reader = env.mint(frame, CapRights::READ, 0);
    let scratch = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND + 0x1000, scratch, RW);
    if reader.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).is_ok() {
        assert_eq!(fault(env, store, PLAYGROUND).0, Fault::PageFault.raw());
    }
}

fn delete_frame(env: &mut Env) {
    let (one, two) = (env.frame(), env.frame());
    env.map_tables(env.vspace(), PLAYGROUND, one, RW);
    word(PLAYGROUND).store(9, SeqCst);
    env.delete(one);
    assert_faults(env, PLAYGROUND);
    two.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).unwrap();
    assert_eq!(word(PLAYGROUND).load(SeqCst), 0);
}

fn delete_table(env: &mut Env) {
    let frame = env.frame();
    let mut tables = [None; 3];
    for table in &mut tables {
        if frame.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).is_ok() {
            break;
        }
        let made: Cap<cap::PageTable> = env.make();
        made.map(env.vspace(), PLAYGROUND).unwrap();
        *table = Some(made);
    }
    frame.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).unwrap();
    word(PLAYGROUND).store(1, SeqCst);
    let last = tables.into_iter().flatten().last().unwrap();
    env.delete(last);
    assert_faults(env, PLAYGROUND);
    frame.unmap().unwrap();
    let again: Cap<cap::PageTable> = env.make();
    again.map(env.vspace(), PLAYGROUND).unwrap();
    frame.map(env.vspace(), PLAYGROUND, RW, MemoryType::Normal).unwrap();
    assert_eq!(word(PLAYGROUND).load(SeqCst), 1);
}

fn large(env: &mut Env) {
    let Ok(()) = env.untyped().retype(ObjectType::Frame, 21, env.cnode(), slot::FIRST_FREE - 1, 1)
    else {
        panic!("the test's memory has no 2 MiB left");
    };
    let large: Cap<cap::Frame> = Cap::from_slot(slot::FIRST_FREE - 1);
    let base = PLAYGROUND + 0x20_0000;
    let unaligned = large.map(env.vspace(), base + 0x1000, RW, MemoryType::Normal).unwrap_err();
    assert_eq!(unaligned.error, Error::AlignmentError);
    env.map_tables(env.vspace(), base, large, RW);
    word(base + 0x1f_f000).store(4, SeqCst);
    let small = env.frame();
    assert_eq!(
        small.map(env.vspace(), base + 0x3000, RW, MemoryType::Normal).unwrap_err().error,
        Error::DeleteFirst
    );
    large.unmap().unwrap();
    assert_faults(env, base);
}

fn once(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, RW);
    let second = frame.map(env.vspace(), PLAYGROUND + 0x2000, RW, MemoryType::Normal);
    assert_eq!(second.unwrap_err().error, Error::DeleteFirst);
    let copy = env.slot();
    env.path(copy).copy(env.path(frame.cptr().0), CapRights::all()).unwrap();
    let copy: Cap<cap::Frame> = Cap::from_slot(copy);
    copy.map(env.vspace(), PLAYGROUND + 0x2000, RW, MemoryType::Normal).unwrap();
    word(PLAYGROUND).store(8, SeqCst);
    assert_eq!(word(PLAYGROUND + 0x2000).load(SeqCst), 8);
    env.delete(copy);
    assert_eq!(word(PLAYGROUND).load(SeqCst), 8);
    assert_faults(env, PLAYGROUND + 0x2000);
}

fn asid(env: &mut Env) {
    let vspace: Cap<cap::VSpace> = env.make();
    let frame = env.frame();
    let error = frame.map(vspace, PLAYGROUND, RW, MemoryType::Normal).unwrap_err();
    assert_ne!(error.error, Error::MissingPageTable);
    let pool: Cap<cap::AsidPool> = Cap::from_slot(slot::ASID_POOL);
    pool.assign(vspace).unwrap();
    assert_eq!(pool.assign(vspace).unwrap_err().error, Error::DeleteFirst);
    let thread = env.thread(Space::Same, 50, None);
    let bare: Cap<cap::VSpace> = env.make();
    assert_eq!(
        thread.tcb.set_space(env.cnode(), 0, bare).unwrap_err().error,
        Error::InvalidCapability
    );
}

fn delete_space(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let arguments = endpoint.cptr().0 | reply.cptr().0 << 16;
    let helper = env.thread(Space::Other, 101, None);
    helper.start(crate::cases::echo_server, arguments);
    env.path(helper.vspace.cptr().0).revoke().unwrap();
    env.delete(helper.vspace);
    let sent = endpoint.nb_send(skink_abi::MessageInfo::new(0, 0, 0), [0; 4]);
    sent.unwrap();
    libipc::raw::yield_now();
}

fn address(env: &mut Env) {
    let (one, two) = (env.frame(), env.frame());
    let (a, bits) = one.address().unwrap();
    let (b, _) = two.address().unwrap();
    assert_eq!((bits, a % 4096, b % 4096), (12, 0, 0));
    assert_ne!(a, b);
}

fn successor(env: &mut Env) {
    let frame = env.frame();
    let copies = env.slots(2);
    for copy in [copies, copies + 1] {
        env.path(copy).copy(env.path(frame.cptr().0), CapRights::all()).unwrap();
    }
    let first = env.empty_vspace();
    env.map_tables(first, PLAYGROUND, frame, RW);
    env.delete(first);
    // The next space gets the identifier that has become free.
    let second = env.empty_vspace();
    env.map_tables(second, PLAYGROUND, Cap::from_slot(copies), RW);
    env.delete(frame);
    let other = Cap::<cap::Frame>::from_slot(copies + 1);
    let taken = other.map(second, PLAYGROUND, RW, MemoryType::Normal).unwrap_err();
    assert_eq!(taken.error, Error::DeleteFirst, "the page of the second space is gone");
    env.path(copies).delete().unwrap();
    other.map(second, PLAYGROUND, RW, MemoryType::Normal).unwrap();
}
