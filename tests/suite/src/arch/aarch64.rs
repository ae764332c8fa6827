//! aarch64: instructions that fault, registers that are kept, what the device tree says.

mod code;

use core::arch::asm;

use libipc::cap::{self, Cap};
use skink_abi::invocation::{MemoryType, TCB_FLAG_FPU, map_rights, registers};
use skink_abi::{ObjectType, Syscall};

pub use code::{KERNEL_FLAGS, random_code, random_word};

use crate::cases::fault::{exception_of, jump, read, write};
use crate::env::{Env, PLAYGROUND, Test, slot, test};

/// Tests that exist on this architecture only.
pub const TESTS: &[Test] = &[
    test("FAULT0022", "an SVE or SME instruction is an exception, with FPU state too", vectors),
    test("FAULT0023", "calls of a hypervisor, monitor or debugger are exceptions", calls),
    test("FAULT0024", "timers, monitors, debugging and masks are not the users'", registers_of_el1),
    test("FAULT0025", "a misaligned jump or exclusive access is an exception", misaligned),
    test("FAULT0026", "an access where no device answers is its thread's exception", bus_error),
    test(
        "TCB0011",
        "an exclusive access that a system call interrupts does not succeed",
        exclusive,
    ),
];

/// Capabilities of this architecture that a test has while it runs: in the test, in the driver.
pub const LENT: &[(u64, u64)] = &[];
/// Words of a register file.
pub const REGISTER_WORDS: usize = registers::AARCH64_WORDS;
/// Bits of SPSR that only the kernel sets: all but the condition flags (mode, width, masks of
/// interrupts, illegal state, single step, PAN).
pub const PRIVILEGED_FLAGS: u64 = !0xf000_0000;
/// A physical address where the machine has nothing.
pub const NOTHING_AT: u64 = 0x0b00_0000;
/// An address of the kernel's window of physical memory.
pub const KERNEL_ADDRESS: u64 = 0xffff_8000_4010_0000;
/// A line that nothing uses (the first shared interrupt behind the machine's own devices and the
/// messages' frame).
pub const FREE_LINE: u64 = 32 + 64 + 48;

/// Whether the machine makes interrupts of messages, by the firmware's table (a device tree).
pub fn has_messages(table: &[u8]) -> bool {
    let Ok(tree) = skink_fdt::Tree::parse(table) else {
        return true;
    };
    let mut found = false;
    let walked = tree.walk(|node, _| {
        let names = node.property("compatible").unwrap_or_default();
        found |= skink_fdt::strings(names).any(|name| name == b"arm,gic-v2m-frame");
    });
    found || walked.is_err()
}

/// Exception classes (Arm ARM DDI 0487 §D19.2.40).
mod class {
    pub const UNKNOWN: u64 = 0x00;
    pub const ILLEGAL_REGISTER: u64 = 0x18;
    pub const SVE: u64 = 0x19;
    pub const SME: u64 = 0x1d;
    pub const MISALIGNED_JUMP: u64 = 0x22;
    pub const DATA: u64 = 0x24;
}

/// A thread's function, and the class of exception that it must end in.
type Ending = (fn(u64), u64);

/// A function that executes instructions, and the class of exception that they must end in.
macro_rules! ends_in {
    ($class:expr, $($instruction:literal),+) => {{
        fn body(_: u64) {
            // SAFETY: the last one faults; that is the test.
            unsafe { asm!($($instruction),+, out("x9") _) }
        }
        (body as fn(u64), $class)
    }};
}

/// Each ends in its class of exception, or is undefined on a CPU without the feature.
fn all_end(env: &mut Env, flags: u64, bodies: &[Ending]) {
    for (index, (body, class)) in bodies.iter().enumerate() {
        let (address, found) = exception_of(env, flags, *body, 0);
        assert!(found == *class || found == class::UNKNOWN, "{index}: class {found:#x}");
        assert_eq!(address, 0, "{index}: a stale address");
    }
}

fn vectors(env: &mut Env) {
    for flags in [0, TCB_FLAG_FPU] {
        // ptrue p0.b; smstart
        let sve = ends_in!(class::SVE, ".inst 0x2518e3e0");
        let sme = ends_in!(class::SME, ".inst 0xd503477f");
        all_end(env, flags, &[sve, sme]);
    }
}

fn calls(env: &mut Env) {
    all_end(
        env,
        0,
        &[
            ends_in!(class::UNKNOWN, "hvc #0"),
            ends_in!(class::UNKNOWN, "smc #0"),
            ends_in!(class::UNKNOWN, "hlt #0xf000"), // Semihosting.
            ends_in!(class::UNKNOWN, ".inst 0xd4a00001"), // dcps1
            ends_in!(class::UNKNOWN, "eret"),
            ends_in!(class::UNKNOWN, "at s1e1r, xzr"),
            ends_in!(class::UNKNOWN, "tlbi vmalle1"),
        ],
    );
}

fn registers_of_el1(env: &mut Env) {
    all_end(
        env,
        0,
        &[
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, cntpct_el0"),
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, cntv_ctl_el0"),
            ends_in!(class::ILLEGAL_REGISTER, "msr cntp_cval_el0, xzr"),
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, pmccntr_el0"),
            ends_in!(class::ILLEGAL_REGISTER, "msr pmcr_el0, xzr"),
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, S3_3_C13_C2_0"), // AMCR_EL0
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, mdccsr_el0"),
            ends_in!(class::ILLEGAL_REGISTER, "msr daifset, #2"),
            ends_in!(class::ILLEGAL_REGISTER, "mrs x9, S3_3_C13_C0_5"), // TPIDR2_EL0
            ends_in!(class::UNKNOWN, "msr ttbr0_el1, xzr"),
            ends_in!(class::UNKNOWN, "msr S3_0_C12_C12_1, xzr"), // ICC_EOIR1_EL1
        ],
    );
}

fn misaligned(env: &mut Env) {
    fn load_exclusive(address: u64) {
        // SAFETY: it faults; that is the test.
        unsafe { asm!("ldxr x9, [{}]", in(reg) address, out("x9") _) }
    }
    let (frame, target) = (env.frame(), PLAYGROUND + 2);
    let rights = map_rights::READ | map_rights::EXECUTE;
    env.map_tables(env.vspace(), PLAYGROUND, frame, rights);
    assert_eq!(exception_of(env, 0, jump, target), (target, class::MISALIGNED_JUMP));
    // FEAT_LSE2 allows what stays in 16 bytes.
    let across = PLAYGROUND + 12;
    assert_eq!(exception_of(env, 0, load_exclusive, across), (across, class::DATA));
}

fn bus_error(env: &mut Env) {
    let device: Cap<cap::Untyped> = Cap::from_slot(slot::DEVICE);
    // The second half of a block of 32 MiB.
    let halves = env.slots(2);
    device.retype(ObjectType::Untyped, 24, env.cnode(), halves, 2).unwrap();
    let to = env.slot();
    let half: Cap<cap::Untyped> = Cap::from_slot(halves + 1);
    half.retype(ObjectType::Frame, 12, env.cnode(), to, 1).unwrap();
    let frame: Cap<cap::Frame> = Cap::from_slot(to);
    assert_eq!(frame.address().unwrap().0, NOTHING_AT);
    let rights = map_rights::READ | map_rights::WRITE;
    env.map_tables(env.vspace(), PLAYGROUND, frame, rights);
    for memory in [MemoryType::Device, MemoryType::WriteCombining, MemoryType::Normal] {
        frame.map(env.vspace(), PLAYGROUND, rights, memory).unwrap();
        for body in [read, write] {
            let address = PLAYGROUND + 0x10;
            assert_eq!(exception_of(env, 0, body, address), (address, class::DATA), "{memory:?}");
        }
    }
}

fn exclusive(_: &mut Env) {
    let mut word = 7u64;
    let failed: u64;
    // SAFETY: the system call yields and keeps what it must; the store is to a local.
    unsafe {
        asm!(
            "ldxr x9, [x10]", "svc #0", "stxr w11, xzr, [x10]",
            inout("x7") Syscall::Yield.raw() => _, in("x10") &raw mut word, out("x9") _,
            out("x11") failed, out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _,
            out("x5") _,
        )
    }
    assert_eq!((failed, word), (1, 7));
}

/// Reads a register of EL1.
pub fn privileged(_: u64) {
    // SAFETY: it is undefined at EL0; that is the test.
    unsafe { asm!("mrs {}, sctlr_el1", out(reg) _) }
}

/// Executes `brk`.
pub fn breakpoint(_: u64) {
    // SAFETY: it traps; that is the test.
    unsafe { asm!("brk #1") }
}

/// Touches a SIMD register.
pub fn fpu(_: u64) {
    // SAFETY: it faults in a thread without FPU state; that is the test.
    unsafe { asm!(".inst 0x6f00e400") } // movi v0.2d, #0
}

/// Makes a system call with any number.
pub fn raw_syscall(number: u64) {
    // SAFETY: whatever the kernel does with the number, it keeps to the ABI.
    unsafe {
        asm!("svc #0", inout("x7") number => _, inout("x0") 0u64 => _, inout("x1") 0u64 => _,
            out("x2") _, out("x3") _, out("x4") _, out("x5") _)
    }
}

/// Puts a value into `d5`.
pub fn fpu_store(value: u64) {
    // SAFETY: fmov d5, x0; the compiler uses no SIMD register in this program.
    unsafe { asm!(".inst 0x9e670005", in("x0") value) }
}

/// Takes it out again.
pub fn fpu_load() -> u64 {
    let value: u64;
    // SAFETY: fmov x0, d5.
    unsafe { asm!(".inst 0x9e6600a0", out("x0") value) };
    value
}

/// Makes a system call with marks in registers that it must keep (x6, x8 to x28); bit `i` of the
/// result says that register `i` changed.
pub fn clobbered_by(number: u64, cptr: u64) -> u64 {
    let changed: u64;
    // SAFETY: x19 and x29 are saved and restored; the marks are compared with what was put in.
    unsafe {
        asm!(
            "stp x19, x29, [sp, #-16]!",
            "mov x19, #0x1300",
            "mov x29, #0x1d00",
            "svc #0",
            "mov x7, xzr",
            ".macro check register, bit",
            "mov x0, #(\\bit * 256)",
            "cmp \\register, x0",
            "cset x0, ne",
            "orr x7, x7, x0, lsl #\\bit",
            ".endm",
            "check x6, 6", "check x8, 8", "check x9, 9", "check x10, 10", "check x11, 11",
            "check x12, 12", "check x13, 13", "check x14, 14", "check x15, 15", "check x16, 16",
            "check x17, 17", "check x19, 19", "check x20, 20", "check x21, 21", "check x22, 22",
            "check x23, 23", "check x24, 24", "check x25, 25", "check x26, 26", "check x27, 27",
            "check x28, 28", "check x29, 29",
            ".purgem check",
            "ldp x19, x29, [sp], #16",
            inout("x7") number => changed,
            inout("x0") cptr => _, inout("x1") 0u64 => _,
            inout("x2") 0u64 => _, inout("x3") 0u64 => _, inout("x4") 0u64 => _,
            inout("x5") 0u64 => _,
            inout("x6") 0x600u64 => _, inout("x8") 0x800u64 => _, inout("x9") 0x900u64 => _,
            inout("x10") 0xa00u64 => _, inout("x11") 0xb00u64 => _, inout("x12") 0xc00u64 => _,
            inout("x13") 0xd00u64 => _, inout("x14") 0xe00u64 => _, inout("x15") 0xf00u64 => _,
            inout("x16") 0x1000u64 => _, inout("x17") 0x1100u64 => _,
            inout("x20") 0x1400u64 => _, inout("x21") 0x1500u64 => _, inout("x22") 0x1600u64 => _,
            inout("x23") 0x1700u64 => _, inout("x24") 0x1800u64 => _, inout("x25") 0x1900u64 => _,
            inout("x26") 0x1a00u64 => _, inout("x27") 0x1b00u64 => _, inout("x28") 0x1c00u64 => _,
        )
    }
    changed
}
