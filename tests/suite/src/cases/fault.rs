//! Faults as messages.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap, Then};
use libipc::{Message, arch, buffer, raw};
use skink_abi::invocation::{map_rights, registers};
use skink_abi::{CPtr, CapRights, Fault, MessageInfo};

use crate::env::{Env, PLAYGROUND, Space, Test, Thread, test};

pub const TESTS: &[Test] = &[
    test("FAULT0001", "a read of an unmapped page is a page fault with its address", |e| {
        memory(e, read, 0)
    }),
    test("FAULT0002", "a write to an unmapped page is a page fault", |e| memory(e, write, 1)),
    test("FAULT0003", "a jump to an unmapped page is a page fault", |e| memory(e, jump, 2)),
    test("FAULT0004", "a read of kernel memory is a fault", kernel_memory),
    test("FAULT0005", "a non-canonical address is a fault", non_canonical),
    test("FAULT0006", "an undefined instruction is an exception", |e| exception(e, undefined)),
    test("FAULT0007", "a privileged instruction is an exception", |e| {
        exception(e, crate::arch::privileged)
    }),
    test("FAULT0008", "a breakpoint is an exception", |e| exception(e, crate::arch::breakpoint)),
    test("FAULT0010", "an FPU instruction without the flag is an exception", |e| {
        exception(e, crate::arch::fpu)
    }),
    test("FAULT0012", "an unknown system call is a fault that names its number", unknown_syscall),
    test("FAULT0013", "a blocking call on an empty slot is a capability fault", cap_fault),
    test(
        "FAULT0014",
        "receiving without the right is a capability fault in the receive phase",
        receive_fault,
    ),
    test("FAULT0015", "the handler maps the page and the thread goes on", repair),
    test("FAULT0016", "an answer with a label leaves the thread stopped", refuse),
    test("FAULT0017", "a fault without handler stops the thread and nobody else", no_handler),
    test("FAULT0018", "a fault in another address space reaches the handler", |e| {
        in_space(e, Space::Other)
    }),
    test("FAULT0019", "the handler reads and writes the faulting thread's registers", registers_of),
    test("FAULT0020", "a stack that runs into its guard page is a page fault", stack),
    test("FAULT0021", "a fault of a handler goes to its own handler", nested),
];

/// Starts `body(argument)` and receives its fault.
pub fn fault_of(
    env: &mut Env,
    space: Space,
    body: fn(u64),
    argument: u64,
) -> (Thread, Message, Cap<cap::Reply>) {
    fault_with(env, space, 0, body, argument)
}

/// The same with flags of the thread.
fn fault_with(
    env: &mut Env,
    space: Space,
    flags: u64,
    body: fn(u64),
    argument: u64,
) -> (Thread, Message, Cap<cap::Reply>) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let badged = env.badge(endpoint, 0xfa);
    let thread = env.thread(space, 101, Some(badged));
    thread.tcb.set_flags(0, flags).unwrap();
    thread.start(body, argument);
    let message = endpoint.recv(reply).unwrap();
    assert_eq!(message.badge, 0xfa);
    assert_eq!(message.info.length(), skink_abi::fault::WORDS);
    (thread, message, reply)
}

pub fn read(address: u64) {
    // SAFETY: the test is about what happens when this is not safe.
    let value = unsafe { core::ptr::read_volatile(address as *const u64) };
    AFTER.store(1 + value, SeqCst);
}

pub fn write(address: u64) {
    // SAFETY: as in `read`.
    unsafe { core::ptr::write_volatile(address as *mut u64, 1) };
}

pub fn jump(address: u64) {
    // SAFETY: as in `read`.
    let function: extern "C" fn() = unsafe { core::mem::transmute(address as usize) };
    function();
}

fn undefined(_: u64) {
    arch::undefined_instruction()
}

static AFTER: AtomicU64 = AtomicU64::new(0);

fn memory(env: &mut Env, body: fn(u64), access: u64) {
    let address = PLAYGROUND + 0x5008;
    let (_, message, _) = fault_of(env, Space::Same, body, address);
    assert_eq!(message.info.label(), Fault::PageFault.raw());
    assert_eq!((message.words[2], buffer::word(4)), (address, access));
    assert_ne!(message.words[0], 0);
}

fn kernel_memory(env: &mut Env) {
    let (_, message, _) = fault_of(env, Space::Same, read, crate::arch::KERNEL_ADDRESS);
    assert_eq!(message.info.label(), Fault::PageFault.raw());
    let (_, message, _) = fault_of(env, Space::Same, write, crate::arch::KERNEL_ADDRESS);
    assert_eq!(message.info.label(), Fault::PageFault.raw());
}

fn non_canonical(env: &mut Env) {
    let (_, message, _) = fault_of(env, Space::Same, read, 0x8000_0000_0000_0000 >> 4);
    let label = message.info.label();
    assert!(label == Fault::Exception.raw() || label == Fault::PageFault.raw());
    let (_, message, _) = fault_of(env, Space::Same, jump, 0x8000_0000_0000_0000 >> 4);
    let label = message.info.label();
    assert!(label == Fault::Exception.raw() || label == Fault::PageFault.raw());
}

/// Starts `body`, which must end in an exception.
pub fn exception(env: &mut Env, body: fn(u64)) {
    exception_of(env, 0, body, 0);
}

/// Starts `body(argument)` in a thread with flags. It must end in an exception: its address and
/// the architecture's number.
pub fn exception_of(env: &mut Env, flags: u64, body: fn(u64), argument: u64) -> (u64, u64) {
    let (_, message, _) = fault_with(env, Space::Same, flags, body, argument);
    assert_eq!(message.info.label(), Fault::Exception.raw());
    assert_ne!((message.words[0], message.words[1]), (0, 0));
    (message.words[2], buffer::word(4))
}

fn unknown_syscall(env: &mut Env) {
    for number in [11, 999, u64::MAX] {
        let (_, message, reply) = fault_of(env, Space::Same, crate::arch::raw_syscall, number);
        assert_eq!((message.info.label(), message.words[2]), (Fault::UnknownSyscall.raw(), number));
        reply.send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    }
}

fn call_nothing(cptr: u64) {
    let _ = raw::call(CPtr(cptr), MessageInfo::new(0, 0, 0), [0; 4]);
}

fn cap_fault(env: &mut Env) {
    let empty = env.slot();
    for cptr in [empty, 0, u64::MAX, 1 << 40] {
        let (_, message, _) = fault_of(env, Space::Same, call_nothing, cptr);
        assert_eq!(message.info.label(), Fault::CapFault.raw());
        assert_eq!((message.words[2], message.words[3]), (cptr, 0));
    }
}

fn receive_from(cptr: u64) {
    let _ = raw::recv(CPtr(cptr), CPtr::NULL);
}

fn receive_fault(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let writer = env.mint(endpoint, CapRights::WRITE, 0);
    let (_, message, _) = fault_of(env, Space::Same, receive_from, writer.cptr().0);
    assert_eq!(message.info.label(), Fault::CapFault.raw());
    assert_eq!((message.words[2], message.words[3]), (writer.cptr().0, 1));
}

fn repair(env: &mut Env) {
    let (_, message, reply) = fault_of(env, Space::Same, read, PLAYGROUND);
    assert_eq!(message.words[2], PLAYGROUND);
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ);
    assert_eq!(AFTER.load(SeqCst), 0);
    reply.send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    assert_eq!(AFTER.load(SeqCst), 1);
}

fn refuse(env: &mut Env) {
    let (_, _, reply) = fault_of(env, Space::Same, read, PLAYGROUND);
    let frame = env.frame();
    env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ);
    reply.send(MessageInfo::new(1, 0, 0), [0; 4]).unwrap();
    raw::yield_now();
    assert_eq!(AFTER.load(SeqCst), 0);
}

fn no_handler(env: &mut Env) {
    let thread = env.thread(Space::Same, 101, None);
    thread.start(read, PLAYGROUND);
    raw::yield_now();
    assert_eq!(AFTER.load(SeqCst), 0);
    let mut words = [0; 1];
    thread.tcb.read_registers(Then::Leave, &mut words).unwrap();
    assert_ne!(words[0], 0);
}

fn in_space(env: &mut Env, space: Space) {
    let (thread, message, reply) = fault_of(env, space, read, PLAYGROUND);
    assert_eq!(message.words[2], PLAYGROUND);
    let frame = env.frame();
    env.map_tables(thread.vspace, PLAYGROUND, frame, map_rights::READ);
    reply.send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    assert_eq!(AFTER.load(SeqCst), 1);
}

fn registers_of(env: &mut Env) {
    let (thread, message, reply) = fault_of(env, Space::Other, jump, PLAYGROUND + 0x100);
    let mut words = [0; registers::GENERAL];
    assert_eq!(thread.tcb.read_registers(Then::Leave, &mut words).unwrap(), words.len());
    assert_eq!(words[registers::IP], PLAYGROUND + 0x100);
    assert_eq!(words[registers::SP], message.words[1]);
    // Send it to a function that leaves a mark, as if it had been called.
    words[registers::IP] = mark as *const () as u64;
    thread.tcb.write_registers(Then::Leave, &words).unwrap();
    reply.send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    assert_eq!(AFTER.load(SeqCst), 7);
}

extern "C" fn mark() {
    AFTER.store(7, SeqCst);
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) {
    let frame = core::hint::black_box([depth; 32]);
    recurse(depth + 1);
    core::hint::black_box(frame);
}

fn stack(env: &mut Env) {
    let (thread, message, _) = fault_of(env, Space::Same, recurse, 0);
    assert_eq!(message.info.label(), Fault::PageFault.raw());
    let below = thread.stack_top() - 0x4000;
    assert!((below - 0x1000..below).contains(&message.words[2]), "{:#x}", message.words[2]);
}

/// Receives a fault, then faults itself.
fn bad_handler(argument: u64) {
    let _ = raw::recv(CPtr(argument & 0xffff), CPtr(argument >> 16));
    read(0x10);
}

fn nested(env: &mut Env) {
    let inner: Cap<cap::Endpoint> = env.make();
    let inner_reply: Cap<cap::Reply> = env.make();
    let outer: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let handler = env.thread(Space::Same, 102, Some(outer));
    handler.start(bad_handler, inner.cptr().0 | inner_reply.cptr().0 << 16);
    let victim = env.thread(Space::Same, 101, Some(inner));
    victim.start(read, PLAYGROUND);
    let message = outer.recv(reply).unwrap();
    assert_eq!(message.words[2], 0x10);
}
