//! 32-bit x86 code, as PVH starts it.

use super::{Port, Step};

fn number(port: Port) -> u16 {
    match port {
        Port::Terminal => 0x3f8,
        Port::Exec => 0x2f8,
    }
}

/// `mov dx, port`
fn select(code: &mut Vec<u8>, port: u16) {
    code.extend([0x66, 0xba]);
    code.extend(port.to_le_bytes());
}

fn assemble(code: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Send(port, bytes) => {
            select(code, number(*port));
            for byte in bytes {
                // mov al, byte; out dx, al
                code.extend([0xb0, *byte, 0xee]);
            }
        }
        Step::Receive(count) => {
            let data = number(Port::Exec);
            // mov ecx, count
            code.push(0xb9);
            code.extend((*count as u32).to_le_bytes());
            select(code, data + 5);
            // in al, dx; test al, 1; jz to the mov dx
            code.extend([0xec, 0xa8, 0x01, 0x74, 0xf7]);
            select(code, data);
            // in al, dx; dec ecx; jnz to the first mov dx
            code.extend([0xec, 0x49, 0x75, 0xef]);
        }
        Step::Exit(status) => {
            // isa-debug-exit: mov eax, code; out dx, eax
            select(code, 0xf4);
            code.push(0xb8);
            code.extend(status.to_le_bytes());
            code.push(0xef);
        }
        Step::SpoilFile(_) => unimplemented!("a PC has no semihosting"),
        // An empty interrupt table: push 0; push 0; lidt [esp]; int3
        Step::End => code.extend([0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc]),
        // cli; hlt; jmp to the hlt
        Step::Hang => code.extend([0xfa, 0xf4, 0xeb, 0xfd]),
    }
}

/// An ELF file with a PVH note that starts the code at 1 MiB.
pub fn elf(steps: &[Step]) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const CODE: u64 = 0x1000;
    const NOTE: u64 = 0x800;
    let mut code = Vec::new();
    for step in steps {
        assemble(&mut code, step);
    }
    let mut elf = vec![0; CODE as usize];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x10, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(0x18, &BASE.to_le_bytes());
    put(0x20, &64u64.to_le_bytes());
    put(0x34, &[64, 0, 56, 0, 2, 0]);
    let size = code.len() as u64;
    let headers: [(u32, [u64; 6]); 2] =
        [(1, [CODE, BASE, BASE, size, size + 0x1000, 0x1000]), (4, [NOTE, 0, 0, 24, 24, 4])];
    for (index, (kind, words)) in headers.iter().enumerate() {
        let at = 64 + 56 * index;
        put(at, &kind.to_le_bytes());
        put(at + 4, &7u32.to_le_bytes());
        for (i, word) in words.iter().enumerate() {
            put(at + 8 + 8 * i, &word.to_le_bytes());
        }
    }
    // XEN_ELFNOTE_PHYS32_ENTRY
    put(NOTE as usize, &[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
    put(NOTE as usize + 12, b"Xen\0");
    put(NOTE as usize + 16, &BASE.to_le_bytes());
    elf.extend_from_slice(&code);
    elf
}
