//! Random instructions, with more of those that reach for the system than chance would give.
//!
//! Never here: a store to segment register 7 or above (`8e /7`, and `8e` with REX.R). No CPU has
//! such a register; QEMU 10 takes it for its own state of TR, GDTR and IDTR, and ends.

use crate::cases::code::{CODE, DATA};
use crate::random::Random;

/// Flags that no instruction of a user sets.
pub const KERNEL_FLAGS: u64 = super::PRIVILEGED_FLAGS;

/// Opcodes that do something to the state of the system, without their operands.
const SYSTEM: &[&[u8]] = &[
    &[0x0f, 0x05],       // syscall
    &[0x0f, 0x07],       // sysret
    &[0x48, 0x0f, 0x07], // sysretq
    &[0x0f, 0x34],       // sysenter
    &[0x0f, 0x35],       // sysexit
    &[0xcf],             // iretd
    &[0x48, 0xcf],       // iretq
    &[0x66, 0xcf],       // iretw
    &[0xcb],             // retf
    &[0x48, 0xcb],       // retfq
    &[0xca],             // retf and release
    &[0xea],             // far jump, direct
    &[0x9a],             // far call, direct
    &[0x0f, 0x06],       // clts
    &[0x0f, 0x08],       // invd
    &[0x0f, 0x09],       // wbinvd
    &[0x0f, 0x0b],       // ud2
    &[0x0f, 0x30],       // wrmsr
    &[0x0f, 0x31],       // rdtsc
    &[0x0f, 0x32],       // rdmsr
    &[0x0f, 0x33],       // rdpmc
    &[0x0f, 0xaa],       // rsm
    &[0x0f, 0xa1],       // pop fs
    &[0x0f, 0xa9],       // pop gs
    &[0x0f, 0x77],       // emms
    &[0x0f, 0xa2],       // cpuid
    &[0xf4],             // hlt
    &[0xfa],             // cli
    &[0xfb],             // sti
    &[0xfd],             // std
    &[0xcc],             // int3
    &[0xf1],             // int1
    &[0xce],             // into
    &[0xcd],             // int n
    &[0xe4],             // in
    &[0xe7],             // out
    &[0xec],             // in
    &[0xef],             // out
    &[0x6c],             // ins
    &[0x6f],             // outs
    &[0x9c],             // pushf
    &[0x9d],             // popf
    &[0x9b],             // fwait
];

/// Opcodes of which the next byte says which instruction it is, and on what.
const GROUPS: &[&[u8]] = &[
    &[0x8e],       // mov to a segment register
    &[0x8c],       // mov from one
    &[0xff],       // far call, far jump and others
    &[0x0f, 0x00], // sldt str lldt ltr verr verw
    &[0x0f, 0x01], // sgdt sidt lgdt lidt smsw lmsw invlpg swapgs xsetbv vmcall monitor stac …
    &[0x0f, 0x02], // lar
    &[0x0f, 0x03], // lsl
    &[0x0f, 0x20], // mov from a control register
    &[0x0f, 0x21], // mov from a debug register
    &[0x0f, 0x22], // mov to a control register
    &[0x0f, 0x23], // mov to a debug register
    &[0x0f, 0xae], // fxsave fxrstor xsave xrstor rdfsbase wrfsbase …
    &[0x0f, 0xb2], // lss
    &[0x0f, 0xb4], // lfs
    &[0x0f, 0xb5], // lgs
    &[0x0f, 0xc7], // cmpxchg16b rdrand vmptrld xsaves …
];

/// Selectors of every table and privilege, and flags for virtual-8086 mode and I/O privilege.
const SELECTORS: &[u32] = &[0, 1, 3, 8, 0x0b, 0x0f, 0x10, 0x17, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33];
const FLAGS: &[u32] = &[0x202, 0x3202, 0x4202, 0x2_0002, 0x2_0202, 0x2_3002, 0x2_3302];

/// What takes words from the stack: returns, flags, a segment register.
const RETURNS: &[&[u8]] = &[&[0xcf], &[0x48, 0xcf], &[0xcb], &[0x9d], &[0x0f, 0xa9]];

const PREFIXES: &[u8] = &[
    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x40, 0x41, 0x44, 0x48, 0x49,
    0x4c, 0x4f,
];

/// Selectors, flags (also for virtual-8086 mode, with I/O privilege, nested), addresses.
const WORDS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    0x0f,
    0x10,
    0x17,
    0x18,
    0x20,
    0x23,
    0x28,
    0x2b,
    0x30,
    0x33,
    0x100,
    0x174,
    0x202,
    0x3202,
    0x4202,
    0x2_0002,
    0x2_0202,
    0x2_3302,
    0x4_0202,
    CODE,
    CODE + 0x100,
    DATA,
    DATA + 0x800,
    1 << 32,
    0xc000_0080,
    0xc000_0102,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_8000_fee0_0000,
    0xffff_ffff_8020_0000,
    u64::MAX,
];

/// A value for a register or for memory: now and then anything, else something that instructions
/// of the system find a meaning in.
pub fn random_word(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.next() >> random.below(64),
        1 => random.one(WORDS) | random.one(WORDS) << 32,
        2 => DATA + 8 * random.below(512),
        _ => random.one(WORDS),
    }
}

/// Fills a page with instructions.
pub fn random_code(random: &mut Random, page: &mut [u8]) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        let room = page.len() - at;
        let taken = room.min(bytes.len());
        page[at..at + taken].copy_from_slice(&bytes[..taken]);
        at += taken;
        at < page.len()
    };
    while instruction(random, &mut put) {}
    avoid_the_emulators_end(page);
}

/// Puts one instruction, or a few that belong together; whether there was room.
fn instruction(random: &mut Random, put: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let word = random_word(random).to_le_bytes();
    let any = random.next().to_le_bytes();
    match random.below(12) {
        0 => put(&any[..1 + random.below(8) as usize]),
        // A register becomes a word that has a meaning.
        1 | 2 => put(&[0x48, 0xb8 + any[0] % 8]) && put(&word),
        // What a far return or an interrupt's return finds on the stack.
        3 | 4 => {
            let mut fits = true;
            for _ in 0..random.below(6) {
                let pushed = match random.below(3) {
                    0 => random.one(FLAGS),
                    1 => random.one(SELECTORS),
                    _ => random_word(random) as u32,
                };
                fits = put(&[0x68]) && put(&pushed.to_le_bytes());
            }
            fits && put(random.one(RETURNS))
        }
        // A segment register, and what it leads to.
        5 => {
            put(&[0xb8]) && put(&random.one(SELECTORS).to_le_bytes()) && {
                put(&[0x8e, 0xc0 + random.below(7) as u8 * 8])
            }
        }
        kind => {
            let prefixes = if random.chance(3) { random.below(3) } else { 0 };
            for _ in 0..prefixes {
                put(&[random.one(PREFIXES)]);
            }
            let opcodes = if kind < 9 { GROUPS } else { SYSTEM };
            put(random.one(opcodes)) && put(&any[..random.below(3) as usize])
        }
    }
}

/// Whatever the bytes are read as from whichever of them on: no store to segment register 7 or
/// above.
fn avoid_the_emulators_end(page: &mut [u8]) {
    const MOV_TO_SEGMENT: u8 = 0x8e;
    const NOP: u8 = 0x90;
    for at in 0..page.len() {
        let is_extended = at > 0 && matches!(page[at - 1], 0x44..=0x47 | 0x4c..=0x4f);
        let is_seventh = page.get(at + 1).is_none_or(|operand| operand >> 3 & 7 == 7);
        if page[at] == MOV_TO_SEGMENT && (is_extended || is_seventh) {
            page[at] = NOP;
        }
    }
}
