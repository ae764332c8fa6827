//! Reads the guest's ELF files: checks that a user program is what a loader of ours can take,
//! lays the root task out at its address (the kernel knows no file format), and cuts debug data
//! off the copies that go into the boot image.
//!
//! Invariants: a flattened program has no relocation left; no segment is writable and executable;
//! segments begin at pages and share none.

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use skink_abi::PAGE_SIZE;
use skink_abi::invocation::map_rights;

/// Where the root task is laid out.
pub const ROOT_TASK_BASE: u64 = 0x40_0000;

/// A program laid out for its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Where it starts.
    pub entry: u64,
    /// What is to be loaded, by address.
    pub segments: Vec<FlatSegment>,
}

/// One run of pages with the same rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatSegment {
    /// Address, a multiple of the page size.
    pub vaddr: u64,
    /// Its first bytes; the rest is 0.
    pub bytes: Vec<u8>,
    /// Bytes in memory.
    pub mem_size: u64,
    /// [`map_rights`].
    pub rights: u64,
}

/// A parsed user program.
struct Program<'a> {
    header: &'a FileHeader64<LE>,
    segments: &'a [ProgramHeader64<LE>],
    data: &'a [u8],
}

/// One relocation: store `base + addend` at `base + offset`.
struct Relative {
    offset: u64,
    addend: u64,
}

impl<'a> Program<'a> {
    fn parse(data: &'a [u8]) -> Result<Program<'a>> {
        let header =
            FileHeader64::<LE>::parse(data).context("not a 64-bit little-endian ELF file")?;
        let segments = header.program_headers(LE, data).context("reading its program headers")?;
        ensure!(
            header.e_type.get(LE) == elf::ET_DYN,
            "not position-independent (type {}): the linker script is targets/common/user.ld",
            header.e_type.get(LE)
        );
        let program = Program { header, segments, data };
        ensure!(program.loads().next().is_some(), "nothing to load in it");
        for segment in program.loads() {
            let flags = segment.p_flags(LE);
            ensure!(
                !flags.contains(elf::PF_W | elf::PF_X),
                "its segment at {:#x} is both writable and executable",
                segment.p_vaddr(LE)
            );
            ensure!(
                segment.p_vaddr(LE).is_multiple_of(PAGE_SIZE as u64),
                "its segment at {:#x} does not begin at a page",
                segment.p_vaddr(LE)
            );
            segment.data(LE, data).ok().context("a segment lies outside the file")?;
        }
        Ok(program)
    }

    fn loads(&self) -> impl Iterator<Item = &'a ProgramHeader64<LE>> + use<'a> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
    }

    /// The bytes at `vaddr` that the file holds.
    fn at(&self, vaddr: u64, size: u64) -> Option<&'a [u8]> {
        self.loads().find_map(|segment| {
            let from = vaddr.checked_sub(segment.p_vaddr(LE))?;
            let bytes = segment.data(LE, self.data).ok()?;
            bytes.get(from as usize..from.checked_add(size)? as usize)
        })
    }

    fn relocations(&self) -> Result<Vec<Relative>> {
        let relative = match self.header.e_machine.get(LE) {
            elf::EM_X86_64 => u64::from(elf::R_X86_64_RELATIVE.0),
            elf::EM_AARCH64 => u64::from(elf::R_AARCH64_RELATIVE.0),
            machine => bail!("for machine {machine}, which Skink does not run on"),
        };
        let dynamic = self.segments.iter().find(|s| s.p_type(LE) == elf::PT_DYNAMIC);
        let Some(dynamic) = dynamic else {
            return Ok(Vec::new());
        };
        let bytes =
            dynamic.data(LE, self.data).ok().context("its dynamic section is outside it")?;
        let entry = |tag: elf::DynamicTag| {
            let words = words(bytes);
            words.chunks_exact(2).find(|pair| pair[0] == tag.0 as u64).map(|pair| pair[1])
        };
        ensure!(entry(elf::DT_NEEDED).is_none(), "it needs a shared library");
        ensure!(entry(elf::DT_RELR).is_none(), "it has packed relocations (DT_RELR)");
        let (Some(table), Some(size)) = (entry(elf::DT_RELA), entry(elf::DT_RELASZ)) else {
            return Ok(Vec::new());
        };
        let table = self.at(table, size).context("its relocations lie outside it")?;
        let mut relocations = Vec::new();
        for rela in words(table).chunks_exact(3) {
            ensure!(
                rela[1] == relative,
                "relocation of type {} at {:#x}: only relative ones can be loaded",
                rela[1] & 0xffff_ffff,
                rela[0]
            );
            relocations.push(Relative { offset: rela[0], addend: rela[2] });
        }
        Ok(relocations)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Lays the program out for `base`.
///
/// # Errors
/// If it is not a static position-independent ELF file whose segments follow W^X.
pub fn flatten(elf: &[u8], base: u64) -> Result<Flat> {
    let program = Program::parse(elf)?;
    let mut segments: Vec<FlatSegment> = Vec::new();
    for load in program.loads().filter(|load| load.p_memsz(LE) > 0) {
        let vaddr = base.checked_add(load.p_vaddr(LE)).context("a segment's address overflows")?;
        if let Some(previous) = segments.last() {
            let end = previous.vaddr + previous.mem_size;
            ensure!(
                end.next_multiple_of(PAGE_SIZE as u64) <= vaddr,
                "its segment at {vaddr:#x} shares a page with the one before"
            );
        }
        let bytes = load.data(LE, elf).ok().context("a segment lies outside the file")?;
        segments.push(FlatSegment {
            vaddr,
            bytes: bytes.to_vec(),
            mem_size: load.p_memsz(LE),
            rights: rights(load.p_flags(LE)),
        });
    }
    for Relative { offset, addend } in program.relocations()? {
        let place = segments.iter_mut().find_map(|segment| {
            let from = (base + offset).checked_sub(segment.vaddr)? as usize;
            segment.bytes.get_mut(from..from + 8)
        });
        let place = place.with_context(|| format!("relocation at {offset:#x} is outside it"))?;
        place.copy_from_slice(&base.wrapping_add(addend).to_le_bytes());
    }
    Ok(Flat { entry: base + program.header.e_entry.get(LE), segments })
}

/// The bytes of a kernel as they lie in memory from its first segment on, for a loader that knows
/// no ELF (the Linux `Image` protocol of aarch64); memory behind the last byte of the file is left
/// to the image's header.
///
/// # Errors
/// If it is no ELF file or a segment lies outside the file.
pub fn image(elf: &[u8]) -> Result<Vec<u8>> {
    /// More than any kernel of ours, should addresses be far apart.
    const MAX_BYTES: u64 = 64 << 20;
    let header = FileHeader64::<LE>::parse(elf).context("not a 64-bit little-endian ELF file")?;
    let segments = header.program_headers(LE, elf).context("reading its program headers")?;
    let loads = || {
        let is_load = |s: &&ProgramHeader64<LE>| s.p_type(LE) == elf::PT_LOAD;
        segments.iter().filter(is_load)
    };
    let base = loads().map(|segment| segment.p_vaddr(LE)).min();
    let base = base.context("nothing to load in it")?;
    let mut image = Vec::new();
    for segment in loads() {
        let bytes = segment.data(LE, elf).ok().context("a segment lies outside the file")?;
        let at = segment.p_vaddr(LE) - base;
        ensure!(at < MAX_BYTES, "its segments are {at:#x} bytes apart");
        let at = at as usize;
        image.resize(image.len().max(at + bytes.len()), 0);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    Ok(image)
}

fn rights(flags: elf::ProgramFlags) -> u64 {
    let pairs = [
        (elf::PF_R, map_rights::READ),
        (elf::PF_W, map_rights::WRITE),
        (elf::PF_X, map_rights::EXECUTE),
    ];
    pairs.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, right)| right).sum()
}

/// The program without what no loader reads: section headers, symbols, debug data.
///
/// # Errors
/// If the root server could not load it.
pub fn strip(elf: &[u8]) -> Result<Vec<u8>> {
    const SECTION_TABLE: std::ops::Range<usize> = 0x28..0x30;
    const SECTION_COUNTS: std::ops::Range<usize> = 0x3a..0x40;
    let program = Program::parse(elf)?;
    program.relocations()?;
    let tables = program.header.e_phoff.get(LE)
        + u64::from(program.header.e_phentsize.get(LE)) * program.segments.len() as u64;
    let end = program
        .segments
        .iter()
        .map(|segment| segment.p_offset(LE) + segment.p_filesz(LE))
        .fold(tables, u64::max);
    let mut stripped = elf.get(..end as usize).context("a segment lies outside the file")?.to_vec();
    stripped[SECTION_TABLE].fill(0);
    stripped[SECTION_COUNTS].fill(0);
    Ok(stripped)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program made by hand: code at 0, data at 0x1000 with one relocated pointer, dynamic table
    /// and relocations in the data.
    pub(crate) fn sample(kind: u32, text_flags: u32) -> Vec<u8> {
        let mut elf = vec![0u8; 0x2100];
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(0x10, &3u16.to_le_bytes());
        put(0x12, &62u16.to_le_bytes());
        put(0x14, &1u32.to_le_bytes());
        put(0x18, &0x10u64.to_le_bytes());
        put(0x20, &0x40u64.to_le_bytes());
        put(0x28, &0x2080u64.to_le_bytes());
        put(0x34, &[64, 0, 56, 0, 3, 0, 64, 0, 1, 0, 0, 0]);
        let mut header = |index: usize, kind: u32, flags: u32, words: [u64; 6]| {
            let at = 0x40 + 56 * index;
            put(at, &kind.to_le_bytes());
            put(at + 4, &flags.to_le_bytes());
            for (i, word) in words.iter().enumerate() {
                put(at + 8 + 8 * i, &word.to_le_bytes());
            }
        };
        header(0, 1, text_flags, [0x1000, 0, 0, 0x20, 0x20, 4096]);
        header(1, 1, 6, [0x2000, 0x1000, 0, 0x80, 0x3000, 4096]);
        header(2, 2, 4, [0x2008, 0x1008, 0, 0x30, 0x30, 8]);
        put(0x1000, &[0x90; 0x20]);
        for (i, word) in [7u64, 0x1040, 8, 24, 0, 0].iter().enumerate() {
            put(0x2008 + 8 * i, &word.to_le_bytes());
        }
        for (i, word) in [0x1000u64, u64::from(kind), 0x10].iter().enumerate() {
            put(0x2040 + 8 * i, &word.to_le_bytes());
        }
        elf
    }

    #[test]
    fn a_program_is_laid_out_and_relocated() {
        let flat = flatten(&sample(8, 5), ROOT_TASK_BASE).unwrap();
        assert_eq!(flat.entry, 0x40_0010);
        assert_eq!(flat.segments.len(), 2);
        assert_eq!(flat.segments[0].rights, map_rights::READ | map_rights::EXECUTE);
        assert_eq!(flat.segments[1].vaddr, 0x40_1000);
        assert_eq!(flat.segments[1].mem_size, 0x3000);
        assert_eq!(flat.segments[1].bytes[..8], 0x40_0010u64.to_le_bytes());
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        let error = |elf: &[u8]| format!("{:#}", flatten(elf, 0).unwrap_err());
        assert!(error(&sample(8, 7)).contains("both writable and executable"));
        assert!(error(&sample(1, 5)).contains("relocation of type 1 at 0x1000"));
        assert!(error(b"#!/bin/sh").contains("not a 64-bit"));
        let whole = sample(8, 5);
        assert!(error(&whole[..0x1010]).contains("outside the file"));
        let mut fixed = whole.clone();
        fixed[0x10] = 2;
        assert!(error(&fixed).contains("not position-independent"));
    }

    #[test]
    fn stripping_keeps_what_is_loaded() {
        let whole = sample(8, 5);
        let stripped = strip(&whole).unwrap();
        assert_eq!(stripped.len(), 0x2080);
        assert_eq!(flatten(&stripped, 0x1000).unwrap(), flatten(&whole, 0x1000).unwrap());
    }
}
