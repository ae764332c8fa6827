//! Why an ELF file is not run.

use core::fmt;

use super::MAX_SPAN;

/// Why a file is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// A table or segment goes beyond the end of the file.
    Truncated,
    /// No ELF file, or not a 64-bit little-endian one.
    NotElf,
    /// Built for another machine (its number).
    WrongMachine(u16),
    /// Not position-independent (its type number).
    NotPositionIndependent(u16),
    /// More program headers, segments or relocations than the loader takes.
    TooMany(&'static str),
    /// Nothing to load.
    Empty,
    /// The image spans more than [`MAX_SPAN`], or its addresses wrap.
    TooLarge,
    /// Segment `n` is writable and executable.
    WritableCode(u8),
    /// Segment `n` overlaps or shares a page with the one before, or they are not in order.
    Overlap(u8),
    /// Segment `n` has more bytes in the file than in memory.
    Shrinks(u8),
    /// The entry point is not in executable memory.
    Entry(u64),
    /// It wants an interpreter or shared libraries.
    Dynamic,
    /// It has thread-local storage.
    ThreadLocal,
    /// The dynamic section contradicts itself.
    BadDynamic,
    /// Relocation `index` has another type than *relative*.
    RelocationType(u32),
    /// Relocation at this offset lies outside the file's bytes, or points outside the image.
    RelocationRange(u64),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ElfError::Truncated => write!(f, "the ELF file is truncated"),
            ElfError::NotElf => write!(f, "not a 64-bit little-endian ELF file"),
            ElfError::WrongMachine(number) => write!(f, "built for another machine ({number})"),
            ElfError::NotPositionIndependent(kind) => {
                write!(f, "not a position-independent executable (type {kind})")
            }
            ElfError::TooMany(what) => write!(f, "too many {what}"),
            ElfError::Empty => write!(f, "no loadable segment"),
            ElfError::TooLarge => write!(f, "the image spans more than {} MiB", MAX_SPAN >> 20),
            ElfError::WritableCode(n) => write!(f, "segment {n} is writable and executable"),
            ElfError::Overlap(n) => write!(f, "segment {n} overlaps the one before it"),
            ElfError::Shrinks(n) => write!(f, "segment {n} is larger in the file than in memory"),
            ElfError::Entry(at) => write!(f, "the entry point {at:#x} is not in the code"),
            ElfError::Dynamic => write!(f, "it needs shared libraries"),
            ElfError::ThreadLocal => write!(f, "it has thread-local storage"),
            ElfError::BadDynamic => write!(f, "its dynamic section is damaged"),
            ElfError::RelocationType(kind) => write!(f, "unsupported relocation type {kind}"),
            ElfError::RelocationRange(at) => write!(f, "relocation at {at:#x} is out of range"),
        }
    }
}
