//! The block cache: 4 KiB lines over a device that works by zero copy.
//!
//! Reads of a range become as few requests as the missing lines allow; read-ahead is submitted
//! and completed when needed; writes stay in memory until a flush, or until a quarter of the data
//! buffers is dirty, when file data (never metadata) goes out in the background.
//!
//! Invariants: only sectors that were written are written back, each in its class, so that what
//! shares a line with them is never overwritten by an older copy. Metadata leaves the cache only
//! in the order data, FAT, directories. A buffer in flight is not changed.
//!
//! The grid of lines is laid so that a line starts where the data area starts (`set_origin`):
//! line 0 is the piece before the first whole line.
//!
//! Not here: what the sectors mean.

mod lines;
mod source;
mod transfer;

use crate::device::{BufferIndex, CacheDevice, LINE_BYTES, LINE_SECTORS, SECTOR_BYTES};
use crate::error::FsError;
use crate::survivor::{Broken, LogFull, Survivor};
use crate::work::{self, Work};
use alloc::vec::Vec;
use lines::Lines;
pub(crate) use lines::{Class, Pool};
pub(crate) use source::{Source, Target};
use transfer::Flight;
pub(crate) use transfer::Mirror;

/// Requests in flight at most.
const MAX_FLIGHTS: usize = 32;
/// The fewest buffers that the cache works with.
pub(crate) const MIN_BUFFERS: u32 = 32;

/// How badly a line is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits: make room, wait for the queue.
    Demand,
    /// A guess: give up rather than wait.
    Ahead,
}

/// The cache and its device.
pub(crate) struct Cache<D> {
    device: D,
    lines: Lines,
    /// Sectors of line 0: 1 to 8.
    origin: u64,
    sectors: u64,
    flights: Vec<Option<Flight>>,
    in_flight: usize,
    generation: u32,
    mirror: Option<Mirror>,
    write_failure: Option<u64>,
    /// Scratch for sorting dirty lines.
    order: Vec<(u32, u32)>,
    /// The sector that was looked at last, or is being changed.
    sector: [u8; SECTOR_BYTES],
    /// What a successor finds.
    pub survivor: Option<Survivor>,
    /// What the step under way works.
    pub work: Work,
    /// How often a sector of metadata was looked at, in tests.
    #[cfg(test)]
    pub looks: u64,
}

impl<D: CacheDevice> Cache<D> {
    pub fn new(device: D) -> Self {
        let buffers = device.buffers();
        let sectors = device.sectors();
        Self {
            device,
            lines: Lines::new(buffers),
            origin: u64::from(LINE_SECTORS),
            sectors,
            flights: (0..MAX_FLIGHTS).map(|_| None).collect(),
            in_flight: 0,
            generation: 0,
            mirror: None,
            write_failure: None,
            order: Vec::with_capacity(buffers as usize),
            sector: [0; SECTOR_BYTES],
            survivor: None,
            work: Work::unlimited(),
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Gives the device back. Dirty lines are lost: flush first.
    pub fn into_device(mut self) -> D {
        self.drain();
        self.device
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Lays the grid so that a line starts at `sector`, and forgets what was read before.
    /// For use before anything is written.
    pub fn set_origin(&mut self, sector: u64, mirror: Option<Mirror>) {
        self.drain();
        for buffer in 0..self.lines.count() {
            self.lines.unbind(buffer);
        }
        self.origin = (sector + u64::from(LINE_SECTORS) - 1) % u64::from(LINE_SECTORS) + 1;
        self.mirror = mirror;
    }

    fn line_of(&self, sector: u64) -> u32 {
        if sector < self.origin {
            0
        } else {
            1 + ((sector - self.origin) / u64::from(LINE_SECTORS)) as u32
        }
    }

    fn first_sector(&self, number: u32) -> u64 {
        match number {
            0 => 0,
            n => self.origin + u64::from(n - 1) * u64::from(LINE_SECTORS),
        }
    }

    /// Sectors of a line: fewer than eight in line 0 and at the torn end of the device.
    fn line_len(&self, number: u32) -> u32 {
        let first = self.first_sector(number);
        (self.first_sector(number + 1).min(self.sectors) - first) as u32
    }

    /// The sectors `first..end` of the line that holds `sector`.
    pub fn line_around(&self, sector: u64) -> (u64, u64) {
        let number = self.line_of(sector);
        let first = self.first_sector(number);
        (first, first + u64::from(self.line_len(number)))
    }

    /// Takes a line of file data into memory as zeros, without reading it, unless it is there.
    /// For lines of which the caller needs nothing that is on the disk.
    pub fn adopt(&mut self, sector: u64) -> Result<(), FsError> {
        let number = self.line_of(sector);
        if self.lines.find(number).is_none() {
            let buffer = self.claim(number, Pool::Data)?;
            let zeros = Source::Zeros(LINE_BYTES as u64);
            zeros.put(&mut self.device, BufferIndex(buffer), 0);
        }
        Ok(())
    }

    /// Bytes of file data that fit.
    pub fn data_bytes(&self) -> u64 {
        u64::from(self.lines.pool_len(Pool::Data)) * LINE_BYTES as u64
    }

    /// Brings a line into memory and returns its buffer.
    fn load(&mut self, number: u32, pool: Pool) -> Result<u32, FsError> {
        let sector = self.first_sector(number);
        if sector >= self.sectors {
            return Err(FsError::Io { sector });
        }
        let mut attempts = 0;
        loop {
            match self.lines.find(number) {
                Some(buffer) if self.lines.get(buffer).reading => self.wait_one(),
                Some(buffer) => {
                    self.lines.touch(buffer);
                    return Ok(buffer);
                }
                // A large request that failed leaves its lines out: each is tried alone, so that
                // a bad sector spoils only its own line.
                None if attempts < 2 => {
                    attempts += 1;
                    self.fetch(number, 1, pool, Urgency::Demand)?;
                }
                None => return Err(FsError::Io { sector }),
            }
        }
    }

    /// A buffer for a line whose contents will be replaced as a whole: not read.
    fn claim(&mut self, number: u32, pool: Pool) -> Result<u32, FsError> {
        loop {
            match self.lines.find(number) {
                Some(buffer) if self.lines.get(buffer).reading => self.wait_one(),
                Some(buffer) => return Ok(buffer),
                None => {
                    let (buffer, _) = self.make_room(pool, 1)?;
                    // Waiting for room does not load lines, so it is still absent.
                    self.lines.bind(buffer, number);
                    return Ok(buffer);
                }
            }
        }
    }

    /// Waits until no write from this buffer is in flight.
    fn settle(&mut self, buffer: u32) {
        while self.lines.get(buffer).writing > 0 {
            self.wait_one();
        }
    }

    /// A copy of one sector. If it is not in memory, up to `until` is read with it.
    pub fn sector(&mut self, sector: u64, until: u64) -> Result<&[u8], FsError> {
        let (buffer, offset) = self.meta(sector, until)?;
        self.device.read(buffer, offset, &mut self.sector);
        Ok(&self.sector)
    }

    /// Changes one sector of metadata. A successor finds it as it was before the operation under
    /// way, or as it is after it.
    pub fn change_sector(
        &mut self,
        sector: u64,
        class: Class,
        change: impl FnOnce(&mut [u8; SECTOR_BYTES]),
    ) -> Result<(), FsError> {
        let (buffer, offset) = self.meta(sector, sector + 1)?;
        self.work.changing();
        self.settle(buffer.0);
        self.device.read(buffer, offset, &mut self.sector);
        if let Some(survivor) = &mut self.survivor {
            let kept = survivor.keep(sector, class as u8, &self.sector);
            kept.map_err(|LogFull| FsError::NoSpace)?;
        }
        self.mark_dirty(buffer.0, class, 1 << (offset / SECTOR_BYTES));
        change(&mut self.sector);
        self.device.write(buffer, offset, &self.sector);
        Ok(())
    }

    /// Buffer and byte in it of a sector of metadata.
    fn meta(&mut self, sector: u64, until: u64) -> Result<(BufferIndex, usize), FsError> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        self.work.charge(work::LOOK);
        let number = self.line_of(sector);
        if self.lines.find(number).is_none() && until > sector + 1 {
            self.prefetch(sector, until - sector, Pool::Meta, Urgency::Demand)?;
        }
        let buffer = self.load(number, Pool::Meta)?;
        let offset = (sector - self.first_sector(number)) as usize * SECTOR_BYTES;
        Ok((BufferIndex(buffer), offset))
    }

    /// Starts reading what is missing of a range, in as few requests as possible; returns the
    /// first sector that is not taken care of.
    ///
    /// # Errors
    /// Only for `Urgency::Demand`, and only if no room can be made.
    pub fn prefetch(
        &mut self,
        sector: u64,
        sectors: u64,
        pool: Pool,
        urgency: Urgency,
    ) -> Result<u64, FsError> {
        let end = (sector + sectors).min(self.sectors);
        if sector >= end {
            return Ok(sector + sectors);
        }
        let (mut at, last) = (self.line_of(sector), self.line_of(end - 1));
        while at <= last {
            if self.lines.find(at).is_some() {
                at += 1;
                continue;
            }
            let mut run = 1;
            while at + run <= last && self.lines.find(at + run).is_none() {
                run += 1;
            }
            match self.fetch(at, run, pool, urgency)? {
                0 => return Ok(self.first_sector(at).max(sector)),
                taken => at += taken,
            }
        }
        Ok(sector + sectors)
    }

    /// To be asked between each wait for the device and the next copy from or to a client's memory.
    ///
    /// # Errors
    /// `Unfinished` if clients may have died or come during a wait: the memory may be another one's.
    pub fn check_client(&mut self) -> Result<(), FsError> {
        if self.device.has_news() {
            self.work.end();
            return Err(FsError::Unfinished);
        }
        Ok(())
    }

    /// Copies bytes out. `at` counts bytes from the start of the disk.
    ///
    /// # Errors
    /// `Io`; to a client as [`Cache::check_client`].
    pub fn read(&mut self, mut at: u64, mut target: Target<'_>) -> Result<(), FsError> {
        let sector_bytes = SECTOR_BYTES as u64;
        let (first, len) = (at / sector_bytes, target.len());
        let end = (at + len).div_ceil(sector_bytes);
        self.prefetch(first, end - first, Pool::Data, Urgency::Demand)?;
        let mut done = 0;
        while done < len {
            let number = self.line_of(at / sector_bytes);
            let buffer = self.load(number, Pool::Data)?;
            let offset = (at - self.first_sector(number) * sector_bytes) as usize;
            let line_bytes = self.line_len(number) as usize * SECTOR_BYTES;
            if offset >= line_bytes {
                return Err(FsError::Io { sector: at / sector_bytes });
            }
            if let Target::Client(_) = target {
                self.check_client()?;
            }
            let n = (len - done).min((line_bytes - offset) as u64);
            target.part(done, n).fill(&self.device, BufferIndex(buffer), offset);
            done += n;
            at += n;
        }
        Ok(())
    }

    /// Copies bytes of file data, or of clusters that nothing refers to yet, to byte `at` of the
    /// disk. They reach it by a flush or earlier.
    ///
    /// # Errors
    /// `Io`; for those of a client as [`Cache::check_client`].
    pub fn write(&mut self, mut at: u64, source: Source<'_>) -> Result<(), FsError> {
        let sector_bytes = SECTOR_BYTES as u64;
        let end = at + source.len();
        let mut done = 0;
        while at < end {
            let sector = at / sector_bytes;
            if sector >= self.sectors {
                return Err(FsError::Io { sector });
            }
            let number = self.line_of(sector);
            let line_bytes = self.line_len(number) as usize * SECTOR_BYTES;
            let offset = (at - self.first_sector(number) * sector_bytes) as usize;
            let n = ((end - at) as usize).min(line_bytes - offset);
            let buffer = match n == line_bytes {
                true => self.claim(number, Pool::Data)?,
                false => self.load(number, Pool::Data)?,
            };
            self.settle(buffer);
            if let Source::Client(_) = source {
                self.check_client()?;
            }
            source.part(done, n as u64).put(&mut self.device, BufferIndex(buffer), offset);
            let (from, to) = (offset / SECTOR_BYTES, (offset + n).div_ceil(SECTOR_BYTES));
            let bits = ((1u16 << to) - (1u16 << from)) as u8;
            self.mark_dirty(buffer, Class::Data, bits);
            at += n as u64;
            done += n as u64;
            if self.lines.dirty_lines[Class::Data as usize] > self.lines.pool_len(Pool::Data) / 4 {
                self.write_back(Class::Data, Urgency::Ahead);
            }
        }
        Ok(())
    }

    /// Marks sectors of a buffer, in the survivor region too.
    fn mark_dirty(&mut self, buffer: u32, class: Class, bits: u8) {
        self.lines.mark_dirty(buffer, class, bits);
        self.note(buffer);
    }

    /// Tells the survivor region what of a buffer must be written. While writes are in flight it
    /// keeps what it was told before: they are not done yet.
    fn note(&mut self, buffer: u32) {
        let line = self.lines.get(buffer);
        if let Some(survivor) = &self.survivor
            && line.writing == 0
        {
            survivor.set_dirty(buffer, line.number, line.dirty);
        }
    }

    /// Takes over the lines that a dead server had not written. For use on a cache that has
    /// nothing in memory yet.
    pub fn inherit(&mut self, survivor: Survivor) -> Result<(), Broken> {
        for buffer in 0..self.lines.count() {
            let Some((number, masks)) = survivor.dirty(buffer) else {
                continue;
            };
            let is_there = self.first_sector(number) < self.sectors;
            if !is_there || self.lines.find(number).is_some() {
                return Err(Broken("a cache line"));
            }
            self.lines.bind(buffer, number);
            for (class, bits) in Class::ALL.into_iter().zip(masks) {
                self.lines.mark_dirty(buffer, class, bits);
            }
        }
        self.survivor = Some(survivor);
        Ok(())
    }

    /// Puts back what the operation under way has changed of metadata.
    pub fn roll_back(&mut self) -> Result<(), FsError> {
        let count = self.survivor.as_ref().map_or(0, Survivor::logged);
        for index in (0..count).rev() {
            let Some(before) = self.survivor.as_ref().map(|s| s.before(index)) else {
                break;
            };
            let class = Class::ALL[usize::from(before.class) % Class::ALL.len()];
            let (buffer, offset) = self.meta(before.sector, before.sector + 1)?;
            self.settle(buffer.0);
            self.mark_dirty(buffer.0, class, 1 << (offset / SECTOR_BYTES));
            self.device.write(buffer, offset, &before.bytes);
        }
        if let Some(survivor) = &mut self.survivor {
            survivor.rolled_back();
        }
        Ok(())
    }

    /// Whether anything of a class waits to be written.
    pub fn is_dirty(&self, class: Class) -> bool {
        self.lines.dirty_lines[class as usize] > 0
    }

    /// Whether a write failed since the last flush; forgets it.
    fn take_failure(&mut self) -> Result<(), FsError> {
        match self.write_failure.take() {
            Some(sector) => Err(FsError::Io { sector }),
            None => Ok(()),
        }
    }
}

const _: () = assert!(LINE_BYTES == 4096);
