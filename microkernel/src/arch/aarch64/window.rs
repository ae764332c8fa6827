//! The kernel's own page tables: the window on physical memory and the kernel image.
//!
//! Built once; users have another root table. Pure but for
//! the memory of the tables, so it is tested on every host.
//!
//! Invariants: nothing is writable and executable; nothing is accessible to EL0; what is not
//! mapped on purpose is not mapped (a wild access faults).

use super::paging::{ADDRESS, WINDOW, bits};
use crate::addr::PhysAddr;

/// Entries of a table.
const ENTRIES: usize = 512;
const PAGE: u64 = 1 << 12;
const LARGE_PAGE: u64 = 1 << 21;
const HUGE_PAGE: u64 = 1 << 30;
/// Bytes that the window can show: one root entry.
pub const WINDOW_SIZE: u64 = 1 << 39;
/// Rights of plain data.
pub const DATA: u64 = COMMON | bits::PXN;
/// Rights of constants.
pub const CONSTANTS: u64 = COMMON | bits::PXN | bits::READ_ONLY;
/// Rights of code.
pub const CODE: u64 = COMMON | bits::READ_ONLY;
/// What all pages of the kernel have.
const COMMON: u64 = bits::VALID | bits::SHARED | bits::ACCESSED | bits::UXN;

/// One page table.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table(pub [u64; ENTRIES]);

/// The pool ran dry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTables;

/// A run of addresses to map.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// First virtual address.
    pub vaddr: u64,
    /// What it shows.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
    /// Rights and memory type.
    pub flags: u64,
}

/// Page tables in a pool of fixed size; the first is the root.
pub struct Tables<'a> {
    pool: &'a mut [Table],
    base: PhysAddr,
    used: usize,
}

impl<'a> Tables<'a> {
    /// An empty address space in `pool` (zeroed, not empty), which lies at `base`.
    pub fn new(pool: &'a mut [Table], base: PhysAddr) -> Tables<'a> {
        Tables { pool, base, used: 1 }
    }

    /// The root table's address.
    pub fn root(&self) -> PhysAddr {
        self.base
    }

    /// Maps a run of whole pages with the largest pages that fit.
    ///
    /// # Errors
    /// [`OutOfTables`]; a part may be mapped.
    pub fn map(&mut self, mut run: Run) -> Result<(), OutOfTables> {
        while run.size > 0 {
            let fits = |page: u64| (run.vaddr | run.paddr).is_multiple_of(page) && run.size >= page;
            let (level, page) = if fits(HUGE_PAGE) {
                (1, HUGE_PAGE)
            } else if fits(LARGE_PAGE) {
                (2, LARGE_PAGE)
            } else {
                (3, PAGE)
            };
            let last = if level < 3 { 0 } else { bits::TABLE };
            *self.entry(run.vaddr, level)? = run.paddr | run.flags | last;
            run = Run {
                vaddr: run.vaddr + page,
                paddr: run.paddr + page,
                size: run.size - page,
                ..run
            };
        }
        Ok(())
    }

    /// Maps RAM in the window, `start` and `end` rounded outwards to 2 MiB. `mapped_to` is where
    /// the last range ended, as ranges may share such a page; the new end is returned.
    ///
    /// # Errors
    /// [`OutOfTables`].
    pub fn map_ram(&mut self, start: u64, end: u64, mapped_to: u64) -> Result<u64, OutOfTables> {
        let start = (start / LARGE_PAGE * LARGE_PAGE).max(mapped_to);
        let end = end.next_multiple_of(LARGE_PAGE).min(WINDOW_SIZE);
        if start >= end {
            return Ok(mapped_to);
        }
        self.map(Run { vaddr: WINDOW + start, paddr: start, size: end - start, flags: DATA })?;
        Ok(end)
    }

    /// Maps the 2 MiB around a device's registers in the window, uncached.
    ///
    /// # Errors
    /// [`OutOfTables`].
    pub fn map_device(&mut self, addr: PhysAddr) -> Result<(), OutOfTables> {
        let paddr = addr.0 / LARGE_PAGE * LARGE_PAGE;
        let flags = DATA | bits::DEVICE;
        self.map(Run { vaddr: WINDOW + paddr, paddr, size: LARGE_PAGE, flags })
    }

    /// The entry for `vaddr` at `level`, with the tables above it.
    fn entry(&mut self, vaddr: u64, level: usize) -> Result<&mut u64, OutOfTables> {
        let index = |level: usize| (vaddr >> (39 - 9 * level)) as usize % ENTRIES;
        let mut table = 0;
        for above in 0..level {
            let entry = self.pool[table].0[index(above)];
            table = if entry & bits::VALID == 0 {
                let new = self.used;
                self.used = if new < self.pool.len() {
                    new + 1
                } else {
                    return Err(OutOfTables);
                };
                let paddr = self.base.0 + new as u64 * PAGE;
                self.pool[table].0[index(above)] = paddr | bits::VALID | bits::TABLE;
                new
            } else {
                ((entry & ADDRESS) - self.base.0) as usize / PAGE as usize
            };
        }
        Ok(&mut self.pool[table].0[index(level)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: PhysAddr = PhysAddr(0x30_0000);

    fn pool(tables: usize) -> Vec<Table> {
        vec![Table([0; ENTRIES]); tables]
    }

    /// Walks as the CPU does: physical address and flags of the page.
    fn walk(tables: &Tables<'_>, vaddr: u64) -> Option<(u64, u64)> {
        let mut table = 0;
        for level in 0..4 {
            let shift = 39 - 9 * level;
            let entry = tables.pool[table].0[(vaddr >> shift) as usize % ENTRIES];
            if entry & bits::VALID == 0 {
                return None;
            }
            let address = entry & ADDRESS;
            if level == 3 || entry & bits::TABLE == 0 {
                let offset = vaddr & ((1 << shift) - 1);
                return Some((address + offset, entry & !ADDRESS & !bits::TABLE));
            }
            table = ((address - BASE.0) / PAGE) as usize;
        }
        unreachable!("level 3 has pages only")
    }

    #[test]
    fn the_window_shows_ram_and_nothing_else() {
        {
            let mut pool = pool(16);
            let mut tables = Tables::new(&mut pool, BASE);
            let ranges = [(0, 0x9_f000), (0x10_0000, 0x5ffe_0000), (0x1_0000_0000, 0x1_8000_0000)];
            let mut to = 0;
            for (start, end) in ranges {
                to = tables.map_ram(start, end, to).unwrap();
            }
            tables.map_device(PhysAddr(0xfee0_0000)).unwrap();
            for at in [0, 0x9_f123, 0x20_0000, 0x5ffd_ffff, 0x1_0000_0000, 0x1_7fff_ffff] {
                assert_eq!(walk(&tables, WINDOW + at), Some((at, DATA)), "{at:#x}");
            }
            for at in [0x6000_0000, 0xfec0_0000, 0xff00_0000, 0x1_8000_0000] {
                assert_eq!(walk(&tables, WINDOW + at), None, "{at:#x}");
            }
            let device = Some((0xfee0_0020, DATA | bits::DEVICE));
            assert_eq!(walk(&tables, WINDOW + 0xfee0_0020), device);
            assert_eq!(walk(&tables, 0x20_0000), None, "no identity mapping is left");
        }
    }

    #[test]
    fn small_pages_keep_their_own_rights() {
        let mut pool = pool(8);
        let mut tables = Tables::new(&mut pool, BASE);
        let base = 0xffff_ffff_8020_0000;
        let run = |at, size, flags| Run { vaddr: base + at, paddr: 0x20_0000 + at, size, flags };
        tables.map(run(0, 0x3000, CODE)).unwrap();
        tables.map(run(0x3000, 0x1000, CONSTANTS)).unwrap();
        tables.map(run(0x5000, 0x1000, DATA)).unwrap();
        assert_eq!(walk(&tables, base + 0x2fff), Some((0x20_2fff, CODE)));
        assert_eq!(walk(&tables, base + 0x3000), Some((0x20_3000, CONSTANTS)));
        assert_eq!(walk(&tables, base + 0x4000), None, "the guard page");
        assert_eq!(walk(&tables, base + 0x5008), Some((0x20_5008, DATA)));
    }

    #[test]
    fn a_dry_pool_is_an_error() {
        let mut pool = pool(3);
        let mut tables = Tables::new(&mut pool, BASE);
        assert_eq!(tables.map_ram(0, 1 << 21, 0), Ok(1 << 21));
        let next = tables.map_ram(1 << 30, (1 << 30) + (1 << 21), 1 << 21);
        assert_eq!(next, Err(OutOfTables));
    }

    #[test]
    fn no_rights_write_and_execute() {
        for flags in [DATA, CONSTANTS, CODE] {
            assert!(flags & bits::READ_ONLY != 0 || flags & bits::PXN != 0);
            assert_eq!(flags & bits::USER, 0);
            assert_ne!(flags & bits::UXN, 0);
        }
    }
}
