//! The ELF loader: checks a server's file once, and writes the relocated image into frames.
//!
//! [`Program::parse`] validates everything that [`Program::write_pages`] and the mapping of the
//! instance rely on, so that a file which passes cannot make the root server read or write
//! outside its bounds. What passes: little-endian 64-bit position-independent executables of this
//! machine, statically linked, with page-separated segments that are never writable and
//! executable, and no relocations but *relative* ones.
//!
//! Pages come in three kinds. `Shared` pages (text, constants, and what RELRO protects after
//! relocation) are mapped read-only from the pristine copy into every incarnation; `Private`
//! pages are copied from it each time; `Zero` pages have no bytes in the file.
//!
//! Invariant: nothing here panics or allocates, whatever the file says.
//!
//! Not here: frames, mappings (see `plan`, `instance`).

mod error;

pub use error::ElfError;

use goblin::container::Ctx;
use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN};
use goblin::elf::program_header::{
    PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_INTERP, PT_LOAD, PT_TLS, ProgramHeader,
};
use goblin::elf::{Dyn, Reloc, dynamic, reloc};
use goblin::elf64::header::Header;
use heapless::Vec;
use scroll::Pread;
use skink_abi::PAGE_SIZE;
use skink_abi::invocation::map_rights;

/// Segments of one file at most.
pub const MAX_SEGMENTS: usize = 8;
/// Bytes of address space that an image may span.
pub const MAX_SPAN: u64 = 16 << 20;
/// Relocations at most: bounds the time that one file takes.
pub const MAX_RELOCATIONS: u64 = 1 << 18;

const PAGE: u64 = PAGE_SIZE as u64;
const MAX_PROGRAM_HEADERS: u16 = 32;
const RELATIVE_SIZE: u64 = 24;

/// The machine that servers must be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86_64.
    X86_64,
    /// aarch64.
    Aarch64,
}

impl Machine {
    /// The machine with this number in the boot image's header.
    pub fn from_boot_image(arch: u32) -> Option<Machine> {
        match arch {
            skink_abi::bootimage::ARCH_X86_64 => Some(Machine::X86_64),
            skink_abi::bootimage::ARCH_AARCH64 => Some(Machine::Aarch64),
            _ => None,
        }
    }

    const fn elf_number(self) -> u16 {
        match self {
            Machine::X86_64 => goblin::elf::header::EM_X86_64,
            Machine::Aarch64 => goblin::elf::header::EM_AARCH64,
        }
    }

    const fn relative(self) -> u32 {
        match self {
            Machine::X86_64 => reloc::R_X86_64_RELATIVE,
            Machine::Aarch64 => reloc::R_AARCH64_RELATIVE,
        }
    }
}

/// What a page of the image needs in each incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Mapped from the pristine copy, with these rights (never `WRITE`).
    Shared {
        /// [`map_rights`].
        rights: u64,
    },
    /// Copied from the pristine copy, read-write.
    Private,
    /// Zeroed, read-write.
    Zero,
}

/// One page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Offset from the image's base, a multiple of the page size.
    pub offset: u64,
    /// What it needs.
    pub kind: PageKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    vaddr: u64,
    file_offset: u64,
    file_size: u64,
    mem_size: u64,
    rights: u64,
}

impl Segment {
    fn file_end(&self) -> u64 {
        self.vaddr + self.file_size
    }
    fn end(&self) -> u64 {
        self.vaddr + self.mem_size
    }
    /// Pages that hold bytes of the file.
    fn file_pages(&self) -> u64 {
        match self.file_size {
            0 => 0,
            _ => self.file_end().div_ceil(PAGE) - self.vaddr / PAGE,
        }
    }
    fn pages(&self) -> u64 {
        self.end().div_ceil(PAGE) - self.vaddr / PAGE
    }
}

/// A checked file.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    file: &'a [u8],
    machine: Machine,
    entry: u64,
    segments: Vec<Segment, MAX_SEGMENTS>,
    /// Addresses that become read-only after relocation.
    relro: (u64, u64),
    /// File offset and count of the relocations.
    relocations: (u64, u64),
}

fn context() -> Ctx {
    Ctx::new(goblin::container::Container::Big, scroll::LE)
}

fn parse_header(file: &[u8], machine: Machine) -> Result<Header, ElfError> {
    let ident = file.first_chunk::<16>().ok_or(ElfError::Truncated)?;
    if &ident[..4] != ELFMAG || ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB {
        return Err(ElfError::NotElf);
    }
    let header = Header::parse(file).map_err(|_| ElfError::Truncated)?;
    if header.e_machine != machine.elf_number() {
        return Err(ElfError::WrongMachine(header.e_machine));
    }
    if header.e_type != ET_DYN {
        return Err(ElfError::NotPositionIndependent(header.e_type));
    }
    if header.e_phnum > MAX_PROGRAM_HEADERS {
        return Err(ElfError::TooMany("program headers"));
    }
    Ok(header)
}

/// Reads `T` of goblin at `offset`.
fn read<'a, T>(file: &'a [u8], offset: u64, index: u64, size: u64) -> Result<T, ElfError>
where
    T: scroll::ctx::TryFromCtx<'a, Ctx, Error = goblin::error::Error>,
{
    let at = index.checked_mul(size).and_then(|n| offset.checked_add(n));
    let at = at.and_then(|at| usize::try_from(at).ok()).ok_or(ElfError::Truncated)?;
    let bytes = file.get(at..).ok_or(ElfError::Truncated)?;
    bytes.pread_with(0, context()).map_err(|_| ElfError::Truncated)
}

fn check_segment(file: &[u8], n: u8, header: &ProgramHeader) -> Result<Segment, ElfError> {
    let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(ElfError::TooLarge)?;
    if end > MAX_SPAN {
        return Err(ElfError::TooLarge);
    }
    if header.p_filesz > header.p_memsz {
        return Err(ElfError::Shrinks(n));
    }
    let file_end = header.p_offset.checked_add(header.p_filesz).ok_or(ElfError::Truncated)?;
    if file_end > file.len() as u64 {
        return Err(ElfError::Truncated);
    }
    let rights = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, true) => return Err(ElfError::WritableCode(n)),
        (true, false) => map_rights::READ | map_rights::WRITE,
        (false, true) => map_rights::READ | map_rights::EXECUTE,
        (false, false) => map_rights::READ,
    };
    Ok(Segment {
        vaddr: header.p_vaddr,
        file_offset: header.p_offset,
        file_size: header.p_filesz,
        mem_size: header.p_memsz,
        rights,
    })
}

impl<'a> Program<'a> {
    /// Checks `file` for `machine`.
    ///
    /// # Errors
    /// [`ElfError`]: why the file is not run.
    pub fn parse(file: &'a [u8], machine: Machine) -> Result<Program<'a>, ElfError> {
        let header = parse_header(file, machine)?;
        let mut program = Program {
            file,
            machine,
            entry: header.e_entry,
            segments: Vec::new(),
            relro: (0, 0),
            relocations: (0, 0),
        };
        let mut dynamic = None;
        for index in 0..u64::from(header.e_phnum) {
            let size = u64::from(header.e_phentsize);
            let entry: ProgramHeader = read(file, header.e_phoff, index, size)?;
            match entry.p_type {
                PT_LOAD if entry.p_memsz > 0 => program.add_segment(&entry)?,
                PT_DYNAMIC => dynamic = Some((entry.p_offset, entry.p_filesz)),
                PT_GNU_RELRO => program.set_relro(&entry)?,
                PT_INTERP => return Err(ElfError::Dynamic),
                PT_TLS if entry.p_memsz > 0 => return Err(ElfError::ThreadLocal),
                _ => {}
            }
        }
        program.check_entry()?;
        if let Some((offset, size)) = dynamic {
            program.read_dynamic(offset, size)?;
        }
        program.check_relocations()?;
        Ok(program)
    }

    fn add_segment(&mut self, header: &ProgramHeader) -> Result<(), ElfError> {
        let n = self.segments.len() as u8;
        let segment = check_segment(self.file, n, header)?;
        if let Some(before) = self.segments.last()
            && before.end().div_ceil(PAGE) > segment.vaddr / PAGE
        {
            return Err(ElfError::Overlap(n));
        }
        self.segments.push(segment).map_err(|_| ElfError::TooMany("segments"))
    }

    fn set_relro(&mut self, header: &ProgramHeader) -> Result<(), ElfError> {
        let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(ElfError::TooLarge)?;
        self.relro = (header.p_vaddr, end);
        Ok(())
    }

    fn check_entry(&self) -> Result<(), ElfError> {
        if self.segments.is_empty() {
            return Err(ElfError::Empty);
        }
        let in_code = self.segments.iter().any(|s| {
            s.rights & map_rights::EXECUTE != 0 && (s.vaddr..s.file_end()).contains(&self.entry)
        });
        if in_code { Ok(()) } else { Err(ElfError::Entry(self.entry)) }
    }

    fn read_dynamic(&mut self, offset: u64, size: u64) -> Result<(), ElfError> {
        const ENTRY: u64 = 16;
        let (mut rela, mut bytes, mut each) = (0, 0, RELATIVE_SIZE);
        for index in 0..(size / ENTRY).min(128) {
            let entry: Dyn = read(self.file, offset, index, ENTRY)?;
            match entry.d_tag {
                dynamic::DT_NULL => break,
                dynamic::DT_RELA => rela = entry.d_val,
                dynamic::DT_RELASZ => bytes = entry.d_val,
                dynamic::DT_RELAENT => each = entry.d_val,
                dynamic::DT_NEEDED => return Err(ElfError::Dynamic),
                // Relocations of kinds that nobody should have made for such a file.
                dynamic::DT_RELSZ | dynamic::DT_PLTRELSZ if entry.d_val != 0 => {
                    return Err(ElfError::BadDynamic);
                }
                DT_RELRSZ if entry.d_val != 0 => return Err(ElfError::BadDynamic),
                _ => {}
            }
        }
        if each != RELATIVE_SIZE || !bytes.is_multiple_of(RELATIVE_SIZE) {
            return Err(ElfError::BadDynamic);
        }
        let count = bytes / RELATIVE_SIZE;
        if count > MAX_RELOCATIONS {
            return Err(ElfError::TooMany("relocations"));
        }
        if count > 0 {
            let offset = self.file_offset(rela, bytes).ok_or(ElfError::BadDynamic)?;
            self.relocations = (offset, count);
        }
        Ok(())
    }

    /// Where the file holds the `size` bytes at address `vaddr`.
    fn file_offset(&self, vaddr: u64, size: u64) -> Option<u64> {
        let end = vaddr.checked_add(size)?;
        let inside = |s: &&Segment| s.vaddr <= vaddr && end <= s.file_end();
        let segment = self.segments.iter().find(inside)?;
        Some(segment.file_offset + (vaddr - segment.vaddr))
    }

    fn relocation(&self, index: u64) -> Result<Reloc, ElfError> {
        let at = self.relocations.0 + index * RELATIVE_SIZE;
        let bytes = self.file.get(at as usize..).ok_or(ElfError::Truncated)?;
        bytes.pread_with(0, (true, context())).map_err(|_| ElfError::Truncated)
    }

    fn check_relocations(&self) -> Result<(), ElfError> {
        for index in 0..self.relocations.1 {
            let entry = self.relocation(index)?;
            if entry.r_type != self.machine.relative() {
                return Err(ElfError::RelocationType(entry.r_type));
            }
            let target = entry.r_addend.unwrap_or(0);
            let in_image = u64::try_from(target).is_ok_and(|t| t <= self.span());
            if self.file_offset(entry.r_offset, 8).is_none() || !in_image {
                return Err(ElfError::RelocationRange(entry.r_offset));
            }
        }
        Ok(())
    }

    /// The entry point, from the image's base.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Bytes of address space from the base, whole pages.
    pub fn span(&self) -> u64 {
        self.segments.last().map_or(0, |s| s.end().next_multiple_of(PAGE))
    }

    /// Pages that have bytes in the file: the size of the pristine copy.
    pub fn pristine_pages(&self) -> u64 {
        self.segments.iter().map(Segment::file_pages).sum()
    }

    /// All pages, in ascending order. Those that are not `Zero` lie in the pristine copy in the
    /// same order.
    pub fn pages(&self) -> impl Iterator<Item = Page> + '_ {
        self.segments.iter().flat_map(move |segment| {
            (0..segment.pages()).map(move |index| {
                let offset = (segment.vaddr / PAGE + index) * PAGE;
                let kind = self.kind(segment, index, offset);
                Page { offset, kind }
            })
        })
    }

    fn kind(&self, segment: &Segment, index: u64, offset: u64) -> PageKind {
        let protected = self.relro.0 <= offset && offset + PAGE <= self.relro.1;
        if index >= segment.file_pages() {
            PageKind::Zero
        } else if segment.rights & map_rights::WRITE == 0 {
            PageKind::Shared { rights: segment.rights }
        } else if protected {
            PageKind::Shared { rights: map_rights::READ }
        } else {
            PageKind::Private
        }
    }

    /// Writes the pristine copy, relocated to `base`, into `memory`, which has exactly
    /// [`Program::pristine_pages`] pages and is zeroed.
    ///
    /// # Errors
    /// [`ElfError::Truncated`] if `memory` is too small; nothing else can fail after `parse`.
    pub fn write_pages(&self, base: u64, memory: &mut [u8]) -> Result<(), ElfError> {
        let mut at = 0;
        for segment in &self.segments {
            let start = at + segment.vaddr % PAGE;
            let from = segment.file_offset as usize;
            let bytes = self.file.get(from..from + segment.file_size as usize);
            let bytes = bytes.ok_or(ElfError::Truncated)?;
            let place = memory.get_mut(start as usize..start as usize + bytes.len());
            place.ok_or(ElfError::Truncated)?.copy_from_slice(bytes);
            at += segment.file_pages() * PAGE;
        }
        for index in 0..self.relocations.1 {
            let entry = self.relocation(index)?;
            let place = self.pristine_offset(entry.r_offset).ok_or(ElfError::Truncated)? as usize;
            let value = base.wrapping_add_signed(entry.r_addend.unwrap_or(0));
            let word = memory.get_mut(place..place + 8).ok_or(ElfError::Truncated)?;
            word.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// Where address `vaddr` lies in the pristine copy.
    fn pristine_offset(&self, vaddr: u64) -> Option<u64> {
        let mut at = 0;
        for segment in &self.segments {
            if (segment.vaddr..segment.file_end()).contains(&vaddr) {
                return Some(at + vaddr - segment.vaddr / PAGE * PAGE);
            }
            at += segment.file_pages() * PAGE;
        }
        None
    }
}

/// Bytes of packed relative relocations (generic ABI, *DT_RELRSZ*).
const DT_RELRSZ: u64 = 35;

#[cfg(test)]
pub(crate) mod tests;
