//! The kernel's own page tables: the window on physical memory and the kernel image.
//!
//! Built once, for both formats of entries. On x86_64 all address spaces share them (root entries
//! 256 to 511 are copied); on aarch64 users have another root table. Pure but for the memory of
//! the tables, so it is tested on every host.
//!
//! Invariants: nothing is writable and executable; nothing is accessible to users; what is not
//! mapped on purpose is not mapped (a wild access faults, and so does a speculative one).

use core::marker::PhantomData;

use crate::addr::PhysAddr;
use crate::boot::ranges::Range;
use crate::machine::{Entry, Paging};

/// Where the kernel sees physical address 0.
pub const WINDOW: u64 = 0xffff_8000_0000_0000;
/// Bytes that the window can show: one root entry.
pub const WINDOW_SIZE: u64 = 1 << 39;
/// Entries of a table.
const ENTRIES: usize = 512;
const PAGE: u64 = 1 << 12;
/// The 2 MiB around a device's registers are shown.
const DEVICE_PAGE: u64 = 1 << 21;
/// Level of the last table; the root is 0.
const LAST: usize = 3;

/// What a page of the kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Instructions, read-only.
    Code,
    /// Read-only data.
    Constants,
    /// Data and RAM.
    Data,
    /// Registers of devices: uncached data.
    Device,
}

/// A format of entries that has pages of the kernel's own.
pub trait KernelPaging: Paging {
    /// The entry of a page at `level`, which users cannot reach.
    fn kernel_entry(base: PhysAddr, level: usize, page: Use) -> u64;
}

/// One page table.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table(pub [u64; ENTRIES]);

/// Why something cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The pool ran dry.
    OutOfTables,
    /// A page is there already: RAM and a device, say, at one address.
    Overlap,
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            MapError::OutOfTables => {
                "RAM is in too many pieces for the kernel's page tables (a CPU without pages of \
                 1 GiB: too much RAM)"
            }
            MapError::Overlap => "firmware names RAM where it names a device that the kernel uses",
        })
    }
}

/// A run of addresses to map.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// First virtual address.
    pub vaddr: u64,
    /// What it shows.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
    /// What for.
    pub page: Use,
}

/// Page tables in a pool of fixed size; the first is the root.
pub struct Tables<'a, Format> {
    pool: &'a mut [Table],
    base: PhysAddr,
    used: usize,
    /// The first level that may have pages: 1 or 2.
    first_level: usize,
    format: PhantomData<Format>,
}

impl<'a, Format: KernelPaging> Tables<'a, Format> {
    /// An empty address space in `pool` (zeroed, not empty), which lies at `base`. Pages are at
    /// `first_level` and below: 1 for those of 1 GiB, 2 where the CPU lacks them.
    pub fn new(pool: &'a mut [Table], base: PhysAddr, first_level: usize) -> Self {
        Tables { pool, base, used: 1, first_level, format: PhantomData }
    }

    /// The root table's address.
    pub fn root(&self) -> PhysAddr {
        self.base
    }

    /// Maps a run of whole pages with the largest pages that fit.
    ///
    /// # Errors
    /// [`MapError`]; a part may be mapped.
    pub fn map(&mut self, mut run: Run) -> Result<(), MapError> {
        while run.size > 0 {
            let fits = |level: &usize| {
                let page = page_size(*level);
                (run.vaddr | run.paddr).is_multiple_of(page) && run.size >= page
            };
            let level = (self.first_level..LAST).find(fits).unwrap_or(LAST);
            let page = page_size(level);
            let entry = Format::kernel_entry(PhysAddr(run.paddr), level, run.page);
            let place = self.place(run.vaddr, level)?;
            // Two devices may share a page.
            if *place != 0 && *place != entry {
                return Err(MapError::Overlap);
            }
            *place = entry;
            let (vaddr, paddr) = (run.vaddr + page, run.paddr + page);
            run = Run { vaddr, paddr, size: run.size - page, ..run };
        }
        Ok(())
    }

    /// Shows the whole pages of a range of RAM in the window.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_ram(&mut self, range: Range) -> Result<(), MapError> {
        let Range { start, end } = range.inward();
        let size = end.min(WINDOW_SIZE).saturating_sub(start);
        self.map(Run { vaddr: WINDOW + start, paddr: start, size, page: Use::Data })
    }

    /// Shows the 2 MiB around each part of a device's registers in the window, uncached.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_device(&mut self, registers: Range) -> Result<(), MapError> {
        let first = registers.start / DEVICE_PAGE * DEVICE_PAGE;
        for paddr in (first..registers.end.min(WINDOW_SIZE)).step_by(DEVICE_PAGE as usize) {
            let run = Run { vaddr: WINDOW + paddr, paddr, size: DEVICE_PAGE, page: Use::Device };
            self.map(run)?;
        }
        Ok(())
    }

    /// The entry for `vaddr` at `level`, with the tables above it.
    fn place(&mut self, vaddr: u64, level: usize) -> Result<&mut u64, MapError> {
        let index = |level: usize| (vaddr / page_size(level)) as usize % ENTRIES;
        let mut table = 0;
        for above in 0..level {
            table = match Format::decode(self.pool[table].0[index(above)], above) {
                Entry::Table(at) => ((at.0 - self.base.0) / PAGE) as usize,
                Entry::Page(_) => return Err(MapError::Overlap),
                Entry::Empty if self.used == self.pool.len() => return Err(MapError::OutOfTables),
                Entry::Empty => {
                    let new = self.used;
                    self.used += 1;
                    self.pool[table].0[index(above)] =
                        Format::table_entry(self.base.offset(new as u64 * PAGE));
                    new
                }
            };
        }
        Ok(&mut self.pool[table].0[index(level)])
    }
}

/// Bytes of a page at a level.
const fn page_size(level: usize) -> u64 {
    PAGE << (9 * (LAST - level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::aarch64::paging::ArmPaging;
    use crate::arch::x86_64::paging::X86Paging;

    const BASE: PhysAddr = PhysAddr(0x30_0000);
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

    fn pool(tables: usize) -> Vec<Table> {
        vec![Table([0; ENTRIES]); tables]
    }

    /// Walks as the CPU does: physical address and what the page is for.
    fn walk<F: KernelPaging>(tables: &Tables<'_, F>, vaddr: u64) -> Option<(u64, Use)> {
        let mut table = 0;
        for level in 0..=LAST {
            let size = page_size(level);
            let entry = tables.pool[table].0[(vaddr / size) as usize % ENTRIES];
            match F::decode(entry, level) {
                Entry::Empty => return None,
                Entry::Table(at) => table = ((at.0 - BASE.0) / PAGE) as usize,
                Entry::Page(base) => {
                    let uses = [Use::Code, Use::Constants, Use::Data, Use::Device];
                    let page = uses.into_iter().find(|u| F::kernel_entry(base, level, *u) == entry);
                    return Some((base.0 + vaddr % size, page.expect("a page of the kernel")));
                }
            }
        }
        unreachable!("the last level has pages only")
    }

    fn the_window_shows_ram_and_nothing_else<F: KernelPaging>(first_level: usize) {
        let mut pool = pool(24);
        let mut tables = Tables::<F>::new(&mut pool, BASE, first_level);
        for (start, end) in
            [(0, 0x9_fc00), (0x10_0000, 0x5ffe_1000), (0x1_0000_0000, 0x1_8000_0000)]
        {
            tables.map_ram(Range { start, end }).unwrap();
        }
        tables.map_device(Range::of(0xfee0_0000, 0x1000)).unwrap();
        tables.map_device(Range::of(0xfee0_3000, 0x1000)).unwrap();
        for at in [0, 0x9_e123, 0x20_0000, 0x5ffe_0fff, 0x1_0000_0000, 0x1_7fff_ffff] {
            assert_eq!(walk(&tables, WINDOW + at), Some((at, Use::Data)), "{at:#x}");
        }
        for at in [0x9_f000, 0xf_ffff, 0x5ffe_1000, 0xfec0_0000, 0xff00_0000, 0x1_8000_0000] {
            assert_eq!(walk(&tables, WINDOW + at), None, "{at:#x}");
        }
        assert_eq!(walk(&tables, WINDOW + 0xfee0_0020), Some((0xfee0_0020, Use::Device)));
        assert_eq!(walk(&tables, 0x20_0000), None, "no identity mapping is left");
    }

    fn small_pages_keep_their_own_rights<F: KernelPaging>() {
        let mut pool = pool(8);
        let mut tables = Tables::<F>::new(&mut pool, BASE, 1);
        let base = 0xffff_ffff_8020_0000;
        let run = |at, size, page| Run { vaddr: base + at, paddr: 0x20_0000 + at, size, page };
        tables.map(run(0, 0x3000, Use::Code)).unwrap();
        tables.map(run(0x3000, 0x1000, Use::Constants)).unwrap();
        tables.map(run(0x5000, 0x1000, Use::Data)).unwrap();
        assert_eq!(walk(&tables, base + 0x2fff), Some((0x20_2fff, Use::Code)));
        assert_eq!(walk(&tables, base + 0x3000), Some((0x20_3000, Use::Constants)));
        assert_eq!(walk(&tables, base + 0x4000), None, "the guard page");
        assert_eq!(walk(&tables, base + 0x5008), Some((0x20_5008, Use::Data)));
    }

    fn what_does_not_fit_is_an_error<F: KernelPaging>() {
        let mut pool = pool(3);
        let mut tables = Tables::<F>::new(&mut pool, BASE, 2);
        assert_eq!(tables.map_ram(Range::of(0, 1 << 30)), Ok(()));
        assert_eq!(tables.map_ram(Range::of(1 << 30, 1 << 30)), Err(MapError::OutOfTables));
        let mut pool = self::pool(4);
        let mut tables = Tables::<F>::new(&mut pool, BASE, 1);
        tables.map_ram(Range::of(0, 1 << 30)).unwrap();
        assert_eq!(tables.map_device(Range::of(0x900_0000, 8)), Err(MapError::Overlap));
        for (at, bytes) in [(1 << 30, 0x1000), (3 << 29, 2 << 20)] {
            tables.map_ram(Range::of(at, bytes)).unwrap();
            assert_eq!(tables.map_device(Range::of(at, 8)), Err(MapError::Overlap));
        }
    }

    #[test]
    fn both_formats_say_what_was_mapped() {
        for first_level in [1, 2] {
            the_window_shows_ram_and_nothing_else::<X86Paging>(first_level);
            the_window_shows_ram_and_nothing_else::<ArmPaging>(first_level);
        }
        small_pages_keep_their_own_rights::<X86Paging>();
        small_pages_keep_their_own_rights::<ArmPaging>();
        what_does_not_fit_is_an_error::<X86Paging>();
        what_does_not_fit_is_an_error::<ArmPaging>();
    }

    #[test]
    fn the_parts_of_an_address_fit() {
        assert_eq!(page_size(0), WINDOW_SIZE);
        assert_eq!(page_size(2), DEVICE_PAGE);
        assert_eq!(X86Paging::kernel_entry(PhysAddr(ADDRESS), LAST, Use::Data) & ADDRESS, ADDRESS);
        assert_eq!(ArmPaging::kernel_entry(PhysAddr(ADDRESS), LAST, Use::Data) & ADDRESS, ADDRESS);
    }
}
