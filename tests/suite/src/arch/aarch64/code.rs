//! Random instructions, with more of those that reach for the system than chance would give.

use crate::cases::code::{CODE, DATA};
use crate::random::Random;

/// Flags that no instruction of a user sets: the mode, masks of interrupts, an illegal state, single
/// steps, PAN and UAO. (Branch type, SSBS, DIT and TCO are the users'.)
pub const KERNEL_FLAGS: u64 = 0x3df | 0xf << 20;

/// Instructions of the system: what is fixed, and which bits are anything.
const SYSTEM: &[(u32, u32)] = &[
    (0xd500_0000, 0x003f_ffff), // msr, mrs, sys (dc ic tlbi at), hints, barriers
    (0xd510_0000, 0x002f_ffff), // msr and mrs of registers
    (0xd538_0000, 0x0007_ffff), // mrs of registers of EL1
    (0xd518_0000, 0x0007_ffff), // msr of registers of EL1
    (0xd51b_0000, 0x0020_ffff), // registers of EL0
    (0xd508_7000, 0x0007_0fff), // dc, ic, at
    (0xd508_8000, 0x0007_0fff), // tlbi
    (0xd500_401f, 0x0007_0fe0), // msr of PSTATE
    (0xd400_0001, 0x001f_ffe0), // svc
    (0xd400_0002, 0x001f_ffe0), // hvc
    (0xd400_0003, 0x001f_ffe0), // smc
    (0xd420_0000, 0x001f_ffe0), // brk
    (0xd440_0000, 0x001f_ffe0), // hlt
    (0xd4a0_0001, 0x001f_ffe2), // dcps
    (0xd69f_03e0, 0x0000_0c1f), // eret, with authentication too
    (0xd6bf_03e0, 0),           // drps
    (0xd61f_0000, 0x0060_03e0), // br, blr, ret
    (0xd65f_0800, 0x0000_07ff), // ret with authentication
    (0x0800_0000, 0xc0ff_ffff), // exclusive and ordered accesses
    (0x3820_0000, 0xc7df_ffff), // atomic accesses
    (0xf900_0000, 0x007f_ffff), // ldr, str
    (0xd920_0000, 0x00ff_ffff), // memory tags
    (0x0400_0000, 0xe1ff_ffff), // SVE
    (0xc080_0000, 0x00ff_ffff), // SME
    (0xd503_461f, 0x0000_01e0), // smstart, smstop
    (0x1e20_0000, 0x00df_ffff), // floats
    (0x4e00_0000, 0x00ff_ffff), // vectors
];

/// Flags, states of a processor, addresses.
const WORDS: &[u64] = &[
    0,
    1,
    2,
    0x1f,
    0x3c5,
    0x3c9,
    0x1000_0000,
    0x8000_0000,
    0xf000_0000,
    CODE,
    CODE + 2,
    CODE + 0x100,
    DATA,
    DATA + 0x800,
    1 << 55,
    0x0000_7fff_ffff_f000,
    0x0000_8000_0000_0000,
    0x0001_0000_0000_0000,
    0xffff_8000_4010_0000,
    0xffff_8000_0801_0000,
    0xffff_ffff_8020_0000,
    u64::MAX,
];

/// A value for a register or for memory: now and then anything, else something that instructions
/// of the system find a meaning in.
pub fn random_word(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => random.next() >> random.below(64),
        1 | 2 => DATA + 8 * random.below(512),
        _ => random.one(WORDS),
    }
}

/// Fills a page with instructions.
pub fn random_code(random: &mut Random, page: &mut [u8]) {
    for place in page.chunks_exact_mut(4) {
        let any = random.next() as u32;
        let instruction = if random.chance(6) {
            any
        } else {
            let (fixed, free) = random.one(SYSTEM);
            fixed | any & free
        };
        place.copy_from_slice(&instruction.to_le_bytes());
    }
}
