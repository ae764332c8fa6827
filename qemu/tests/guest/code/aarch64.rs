//! A64 code for QEMU's `virt`, with the MMU off. QEMU loads a file without an Image header as it
//! is, and starts it at its first instruction.

use super::{Port, Step};

/// Upper halves of the addresses of the two PL011s.
fn upper(port: Port) -> u32 {
    match port {
        Port::Terminal => 0x900,
        Port::Exec => 0x904,
    }
}

/// `mov xN, value`
fn mov(register: u32, value: u32) -> u32 {
    0xd280_0000 | value << 5 | register
}

/// `mov xN, value << 16`
fn mov_upper(register: u32, value: u32) -> u32 {
    0xd2a0_0000 | value << 5 | register
}

/// `movk xN, value, lsl #16`
fn add_upper(register: u32, value: u32) -> u32 {
    0xf2a0_0000 | value << 5 | register
}

/// `str w0, [x1, #offset]`
fn store(offset: u32) -> u32 {
    0xb900_0020 | (offset / 4) << 10
}

/// x1 is the port's address; the UART and both its directions are on (UARTCR).
fn select(code: &mut Vec<u32>, port: Port) {
    code.extend([mov_upper(1, upper(port)), mov(0, 0x301), store(0x30)]);
}

fn assemble(code: &mut Vec<u32>, step: &Step) {
    match step {
        Step::Send(port, bytes) => {
            select(code, *port);
            for byte in bytes {
                code.extend([mov(0, u32::from(*byte)), store(0)]);
            }
        }
        Step::Receive(count) => {
            select(code, Port::Exec);
            code.extend([
                mov(2, *count as u32),
                0xb940_1820, // ldr w0, [x1, #0x18]: UARTFR
                0x3727_ffe0, // tbnz w0, #4, to the ldr: the queue is empty
                0xb940_0023, // ldr w3, [x1]
                0xf100_0442, // subs x2, x2, #1
                0x54ff_ff81, // b.ne to the ldr of UARTFR
            ]);
        }
        Step::Exit(status) => code.extend([
            // Semihosting's SYS_EXIT with a block in RAM: application exit, status.
            mov_upper(1, 0x4100),
            mov(0, 0x26),
            add_upper(0, 2),
            0xf900_0020, // str x0, [x1]
            mov(0, (*status << 1 | 1) as u32),
            0xf900_0420, // str x0, [x1, #8]
            mov(0, 0x18),
            0xd45e_0000, // hlt #0xf000
        ]),
        Step::SpoilFile(path) => spoil_file(code, path),
        // PSCI's SYSTEM_OFF by hvc
        Step::End => code.extend([mov(0, 8), add_upper(0, 0x8400), 0xd400_0002]),
        // wfi; b to the wfi
        Step::Hang => code.extend([0xd503_207f, 0x17ff_ffff]),
    }
}

/// Semihosting's SYS_OPEN, with the mode `w`, and SYS_REMOVE: each with a block in RAM that has the
/// path's address and length.
fn spoil_file(code: &mut Vec<u32>, path: &[u8]) {
    /// For writing.
    const MODE: u32 = 4;
    code.push(mov_upper(1, 0x4101));
    for (offset, byte) in (0..).zip(path.iter().chain(&[0])) {
        // strb w0, [x1, #offset]
        code.extend([mov(0, u32::from(*byte)), 0x3900_0020 | offset << 10]);
    }
    let length = path.len() as u32;
    for (call, words) in [(0x01, &[MODE, length][..]), (0x0e, &[length])] {
        // str x1, [x2]
        code.extend([mov_upper(2, 0x4100), mov_upper(1, 0x4101), 0xf900_0041]);
        for (place, word) in (1..).zip(words) {
            // str x0, [x2, #8 * place]
            code.extend([mov(0, *word), 0xf900_0040 | place << 10]);
        }
        // mov x1, x2; hlt #0xf000
        code.extend([0xaa02_03e1, mov(0, call), 0xd45e_0000]);
    }
}

/// The code as a flat file.
pub fn flat(steps: &[Step]) -> Vec<u8> {
    let mut code = Vec::new();
    for step in steps {
        assemble(&mut code, step);
    }
    code.iter().flat_map(|instruction| instruction.to_le_bytes()).collect()
}
