//! Tests of the loader: a small ELF file is built by hand, then damaged in every way.

use super::*;
use std::vec;
use std::vec::Vec;

const TEXT: u64 = 0x1000;
const DATA: u64 = 0x3000;

fn put(bytes: &mut [u8], at: usize, value: u64, size: usize) {
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    file_size: u64,
    mem_size: u64,
}

fn program_header(kind: u32, flags: u32, offset: u64, vaddr: u64, sizes: (u64, u64)) -> Header {
    Header { kind, flags, offset, vaddr, file_size: sizes.0, mem_size: sizes.1 }
}

/// Text page at 0x1000, RELRO page at 0x3000, data page at 0x4000 with bss up to 0x6010, dynamic
/// section and two relocations in the text page.
pub(crate) fn file() -> Vec<u8> {
    let mut bytes = vec![0u8; 0x4000];
    bytes[..4].copy_from_slice(b"\x7fELF");
    (bytes[4], bytes[5], bytes[6]) = (2, 1, 1);
    put(&mut bytes, 16, 3, 2);
    put(&mut bytes, 18, 62, 2);
    put(&mut bytes, 20, 1, 4);
    put(&mut bytes, 24, TEXT + 0x10, 8);
    put(&mut bytes, 32, 64, 8);
    put(&mut bytes, 54, 56, 2);
    let headers = [
        program_header(PT_LOAD, 5, 0x1000, TEXT, (0x800, 0x800)),
        program_header(PT_LOAD, 6, 0x2000, DATA, (0x1400, 0x3010)),
        program_header(PT_DYNAMIC, 4, 0x1400, TEXT + 0x400, (0x40, 0x40)),
        program_header(PT_GNU_RELRO, 4, 0x2000, DATA, (0x1000, 0x1000)),
    ];
    put(&mut bytes, 56, headers.len() as u64, 2);
    for (i, h) in headers.iter().enumerate() {
        let at = 64 + 56 * i;
        put(&mut bytes, at, u64::from(h.kind), 4);
        put(&mut bytes, at + 4, u64::from(h.flags), 4);
        put(&mut bytes, at + 8, h.offset, 8);
        put(&mut bytes, at + 16, h.vaddr, 8);
        put(&mut bytes, at + 32, h.file_size, 8);
        put(&mut bytes, at + 40, h.mem_size, 8);
    }
    let dynamic = [(7, TEXT + 0x500), (8, 48), (9, 24), (0, 0)];
    for (i, (tag, value)) in dynamic.into_iter().enumerate() {
        put(&mut bytes, 0x1400 + 16 * i, tag, 8);
        put(&mut bytes, 0x1408 + 16 * i, value, 8);
    }
    for (i, (offset, addend)) in [(DATA + 8, TEXT + 0x20), (DATA + 0x1010, 0)].iter().enumerate() {
        put(&mut bytes, 0x1500 + 24 * i, *offset, 8);
        put(&mut bytes, 0x1508 + 24 * i, 8, 8);
        put(&mut bytes, 0x1510 + 24 * i, *addend, 8);
    }
    bytes[0x1010] = 0x90;
    bytes
}

fn parse(bytes: &[u8]) -> Result<Program<'_>, ElfError> {
    Program::parse(bytes, Machine::X86_64)
}

#[test]
fn a_good_file_is_relocated_and_its_pages_are_of_the_right_kinds() {
    let bytes = file();
    let program = parse(&bytes).unwrap();
    assert_eq!((program.entry(), program.span()), (0x1010, 0x7000));
    let pages: Vec<Page> = program.pages().collect();
    let text = PageKind::Shared { rights: map_rights::READ | map_rights::EXECUTE };
    let kinds = [
        (0x1000, text),
        (0x3000, PageKind::Shared { rights: map_rights::READ }),
        (0x4000, PageKind::Private),
        (0x5000, PageKind::Zero),
        (0x6000, PageKind::Zero),
    ];
    assert_eq!(pages.len(), kinds.len());
    for (page, (offset, kind)) in pages.iter().zip(kinds) {
        assert_eq!((page.offset, page.kind), (offset, kind));
    }
    assert_eq!(program.pristine_pages(), 3);
    let mut memory = vec![0; 3 * PAGE_SIZE];
    program.write_pages(0x40_0000, &mut memory).unwrap();
    assert_eq!(memory[0x10], 0x90);
    let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
    assert_eq!(word(0x1008), 0x40_0000 + TEXT + 0x20);
    assert_eq!(word(0x2010), 0x40_0000);
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let bytes = file();
    // The last byte that anything refers to.
    for length in 0..0x3400 {
        assert!(parse(&bytes[..length]).is_err(), "cut at {length:#x}");
    }
    assert!(parse(&bytes[..0x3400]).is_ok());
}

/// Flips and overwrites bytes; what still passes must load without a panic.
#[test]
fn damaged_files_never_panic() {
    let good = file();
    let mut memory = vec![0; MAX_SPAN as usize];
    let interesting = (0..0x200).chain(0x1400..0x1540);
    for at in interesting {
        for change in [0x01, 0x80, 0xff, 0x10] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            if let Ok(program) = parse(&bytes) {
                assert!(program.pages().count() as u64 * PAGE <= MAX_SPAN);
                let size = program.pristine_pages() as usize * PAGE_SIZE;
                program.write_pages(0x40_0000, &mut memory[..size]).unwrap();
            }
        }
    }
}

#[test]
fn eight_bytes_of_ones_anywhere_never_panic() {
    let good = file();
    let mut memory = vec![0; MAX_SPAN as usize];
    for at in (0..0x200).chain(0x1400..0x1540).step_by(4) {
        for value in [u64::MAX, i64::MAX as u64, 1 << 47, MAX_SPAN, 0] {
            let mut bytes = good.clone();
            put(&mut bytes, at, value, 8);
            if let Ok(program) = parse(&bytes) {
                let size = program.pristine_pages() as usize * PAGE_SIZE;
                program.write_pages(0x40_0000, &mut memory[..size]).unwrap();
            }
        }
    }
}

#[test]
fn each_fault_has_its_own_error() {
    let damaged = |at: usize, value: u64, size: usize| {
        let mut bytes = file();
        put(&mut bytes, at, value, size);
        parse(&bytes).unwrap_err()
    };
    const PH: usize = 64;
    const SECOND: usize = 64 + 56;
    assert_eq!(damaged(0, 0, 4), ElfError::NotElf);
    assert_eq!(damaged(4, 1, 1), ElfError::NotElf);
    assert_eq!(damaged(18, 183, 2), ElfError::WrongMachine(183));
    assert_eq!(damaged(16, 2, 2), ElfError::NotPositionIndependent(2));
    assert_eq!(damaged(56, 33, 2), ElfError::TooMany("program headers"));
    assert_eq!(damaged(PH + 4, 7, 4), ElfError::WritableCode(0));
    assert_eq!(damaged(PH + 32, 0x900, 8), ElfError::Shrinks(0));
    assert_eq!(damaged(PH + 40, MAX_SPAN, 8), ElfError::TooLarge);
    assert_eq!(damaged(PH + 40, u64::MAX, 8), ElfError::TooLarge);
    assert_eq!(damaged(PH + 8, 1 << 40, 8), ElfError::Truncated);
    assert_eq!(damaged(SECOND + 16, TEXT + 0x800, 8), ElfError::Overlap(1));
    assert_eq!(damaged(24, DATA, 8), ElfError::Entry(DATA));
    assert_eq!(damaged(24, TEXT + 0x800, 8), ElfError::Entry(TEXT + 0x800));
    assert_eq!(damaged(0x1508, 6, 4), ElfError::RelocationType(6));
    assert_eq!(damaged(0x1500, DATA + 0x13fc, 8), ElfError::RelocationRange(DATA + 0x13fc));
    assert_eq!(damaged(0x1510, 0x7001, 8), ElfError::RelocationRange(DATA + 8));
    assert_eq!(damaged(0x1510, u64::MAX, 8), ElfError::RelocationRange(DATA + 8));
    assert_eq!(damaged(0x1418, 47, 8), ElfError::BadDynamic);
    assert_eq!(damaged(0x1408, DATA + 0x2000, 8), ElfError::BadDynamic);
    assert_eq!(damaged(PH, u64::from(PT_INTERP), 4), ElfError::Dynamic);
    assert_eq!(damaged(PH + 2 * 56, u64::from(PT_TLS), 4), ElfError::ThreadLocal);
    assert_eq!(parse(&file()[..3]).err(), Some(ElfError::Truncated));
    let other = Program::parse(&file(), Machine::Aarch64).err();
    assert_eq!(other, Some(ElfError::WrongMachine(62)));
}

#[test]
fn every_error_says_something() {
    for error in [ElfError::Truncated, ElfError::Empty, ElfError::Entry(0x10)] {
        assert!(std::format!("{error}").len() > 8);
    }
}
