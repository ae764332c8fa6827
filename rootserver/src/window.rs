//! The root server's own address space: pages that it maps to look at or to fill.
//!
//! Everything lies from [`BASE`] on, behind what the kernel mapped. Most mappings stay for ever
//! (control pages, configuration pages, pristine images); one page, the *scratch* page, shows one
//! frame after the other, and *panes* show what belongs to one program after the other.
//!
//! All dereferencing of such memory is in this file. Memory that a server or a device may change
//! at any time is read and written by volatile accesses of one word or byte, never by reference
//! (except to atomics: the control page).

use core::cell::UnsafeCell;

use libipc::cap::{self, Cap};
use libipc::control::Control;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CPtr, Error, ObjectType, PAGE_SIZE};

use crate::custody::{Custody, CustodyError, Frames, LARGE_BITS, SMALL_BITS};
use crate::kernel::Kernel;
use crate::pci::Registers;

/// Where the windows begin.
pub const BASE: u64 = 0x100_0000_0000;
const PAGE: u64 = PAGE_SIZE as u64;
const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;

fn vspace() -> Cap<cap::VSpace> {
    Cap::from_slot(boot::VSPACE)
}

/// Addresses given out so far.
#[derive(Clone, Debug)]
pub struct Window {
    /// Bytes of address space in use from [`BASE`] on.
    used: u64,
    scratch: u64,
    /// A frame that is mapped nowhere, to have paging structures made.
    probe: CPtr,
}

/// Addresses for what comes and goes, with their paging structures: showing something there takes
/// no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pane {
    base: u64,
    bytes: u64,
    /// Bytes shown, with the unmapped pages behind.
    used: u64,
}

impl Pane {
    /// No addresses.
    pub const EMPTY: Pane = Pane { base: 0, bytes: 0, used: 0 };

    /// Nothing is shown any more: the frames are gone.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

impl Window {
    /// Nothing mapped.
    pub const EMPTY: Window = Window { used: 0, scratch: 0, probe: CPtr(0) };

    /// Prepares the scratch page: its paging structures.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn prepare(&mut self, custody: &mut Custody) -> Result<(), CustodyError> {
        self.scratch = self.place(PAGE, PAGE);
        let frame = custody.frames(
            &mut Kernel,
            crate::custody::Owner::Root,
            PAGE,
            crate::custody::Placement::Scattered,
        )?;
        map(custody, CPtr(frame.first), self.scratch, map_rights::READ, MemoryType::Normal)?;
        Cap::<cap::Frame>::from_slot(frame.first).unmap()?;
        self.probe = CPtr(frame.first);
        Ok(())
    }

    /// A pane for `bytes` of frames of 4 KiB.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn pane(&mut self, custody: &mut Custody, bytes: u64) -> Result<Pane, CustodyError> {
        const STEP: u64 = 1 << LARGE_BITS;
        let base = self.place(bytes, STEP);
        for at in (base..base + bytes).step_by(STEP as usize) {
            map(custody, self.probe, at, map_rights::READ, MemoryType::Normal)?;
            Cap::<cap::Frame>::new(self.probe).unmap()?;
        }
        Ok(Pane { base, bytes, used: 0 })
    }

    /// Shows frames in a pane, behind what it shows already, until they are destroyed.
    ///
    /// # Errors
    /// They do not fit, or the kernel refuses.
    pub fn show(&self, pane: &mut Pane, frames: &Frames) -> Result<Memory, CustodyError> {
        let end = pane.used + frames.bytes();
        if end > pane.bytes || frames.size_bits != SMALL_BITS {
            return Err(CustodyError::NoRoom { most: pane.bytes });
        }
        let base = pane.base + pane.used;
        for i in 0..frames.count {
            let frame = Cap::<cap::Frame>::from_slot(frames.first + i);
            frame.map(vspace(), base + i * PAGE, READ_WRITE, MemoryType::Normal)?;
        }
        pane.used = end + PAGE;
        Ok(Memory { base: base as usize as *mut u8, bytes: frames.bytes() as usize })
    }

    fn place(&mut self, bytes: u64, align: u64) -> u64 {
        let at = (BASE + self.used).next_multiple_of(align);
        // A page between two windows stays unmapped.
        self.used = at + bytes.next_multiple_of(PAGE) + PAGE - BASE;
        at
    }

    /// Maps frames for ever; returns the memory.
    ///
    /// # Errors
    /// Memory or slots are short, or the kernel refuses.
    pub fn map(
        &mut self,
        custody: &mut Custody,
        frames: &Frames,
        rights: u64,
        memory: MemoryType,
    ) -> Result<Memory, CustodyError> {
        let at = self.place(frames.bytes(), 1 << frames.size_bits);
        for i in 0..frames.count {
            let vaddr = at + (i << frames.size_bits);
            map(custody, CPtr(frames.first + i), vaddr, rights, memory)?;
        }
        Ok(Memory { base: at as usize as *mut u8, bytes: frames.bytes() as usize })
    }

    /// Maps runs of 4 KiB frames of firmware's memory for ever, read-only, one behind the other.
    /// Nobody writes that memory any more: its frames are custody's, and are never given out.
    ///
    /// # Errors
    /// As [`Window::map`].
    pub fn map_firmware(
        &mut self,
        custody: &mut Custody,
        runs: &[Frames],
    ) -> Result<&'static [u8], CustodyError> {
        let bytes = runs.iter().map(Frames::bytes).sum();
        let base = self.place(bytes, PAGE);
        let mut at = base;
        for frames in runs {
            for frame in frames.first..frames.first + frames.count {
                map(custody, CPtr(frame), at, map_rights::READ, MemoryType::Normal)?;
                at += PAGE;
            }
        }
        // SAFETY: just mapped for ever; nobody writes it, as said above.
        Ok(unsafe { Memory::constant(base, bytes) })
    }

    /// Maps frames for ever, read-write.
    ///
    /// # Errors
    /// As [`Window::map`].
    pub fn map_ram(
        &mut self,
        custody: &mut Custody,
        frames: &Frames,
    ) -> Result<Memory, CustodyError> {
        self.map(custody, frames, READ_WRITE, MemoryType::Normal)
    }

    /// Shows one 4 KiB frame in the scratch page, as long as `body` runs. The frame is not
    /// mapped elsewhere.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn with_frame<R>(
        &self,
        frame: CPtr,
        rights: u64,
        body: impl FnOnce(&Memory) -> R,
    ) -> Result<R, libipc::SysError> {
        let frame = Cap::<cap::Frame>::new(frame);
        frame.map(vspace(), self.scratch, rights, MemoryType::Normal)?;
        let result = body(&Memory { base: self.scratch as usize as *mut u8, bytes: PAGE_SIZE });
        frame.unmap()?;
        Ok(result)
    }
}

impl Window {
    /// Fills a frame of 4 KiB with zeroes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clear_frame(&self, frame: CPtr) -> Result<(), libipc::SysError> {
        self.with_frame(frame, READ_WRITE, |memory| memory.with_slice(|bytes| bytes.fill(0)))
    }
}

/// Maps a frame in the root server's space, with the paging structures that are missing.
fn map(
    custody: &mut Custody,
    frame: CPtr,
    vaddr: u64,
    rights: u64,
    memory: MemoryType,
) -> Result<(), CustodyError> {
    for _ in 0..4 {
        match Cap::<cap::Frame>::new(frame).map(vspace(), vaddr, rights, memory) {
            Err(error) if error.error == Error::MissingPageTable => {
                let table = custody.object(&mut Kernel, ObjectType::PageTable)?;
                Cap::<cap::PageTable>::from_slot(table).map(vspace(), vaddr)?;
            }
            other => return Ok(other?),
        }
    }
    Err(CustodyError::NoNodes)
}

/// Memory that is mapped in the root server's space, for ever or as long as its maker says.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the root server has one thread; the type is a name for memory, used by volatile
// accesses and copies only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// No memory.
    pub const EMPTY: Memory = Memory { base: core::ptr::null_mut(), bytes: 0 };

    /// Memory that the kernel mapped for the root server before it started.
    ///
    /// # Safety
    /// `bytes` from `vaddr` on are mapped readable for ever, and never change.
    pub const unsafe fn constant(vaddr: u64, bytes: u64) -> &'static [u8] {
        // SAFETY: by the caller's promise.
        unsafe { core::slice::from_raw_parts(vaddr as usize as *const u8, bytes as usize) }
    }

    /// Makes this memory, which shows `frames`, read-only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn protect(&self, frames: &Frames) -> Result<(), libipc::SysError> {
        for i in 0..frames.count {
            let vaddr = self.base as u64 + (i << frames.size_bits);
            let frame = Cap::<cap::Frame>::from_slot(frames.first + i);
            frame.map(vspace(), vaddr, map_rights::READ, MemoryType::Normal)?;
        }
        Ok(())
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The part of `bytes` from `offset` on; `None` if it is not inside.
    pub fn part(&self, offset: usize, bytes: usize) -> Option<Memory> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes).then(|| Memory { base: self.base.wrapping_add(offset), bytes })
    }

    /// Lets `body` write the memory, which nobody else can see at this time.
    pub fn with_slice<R>(&self, body: impl FnOnce(&mut [u8]) -> R) -> R {
        if self.bytes == 0 {
            return body(&mut []);
        }
        // SAFETY: callers use this for RAM that nobody else touches (pristine images being made,
        // start info and control page of nobody's, files being loaded); the slice does not
        // outlive `body`.
        body(unsafe { core::slice::from_raw_parts_mut(self.base, self.bytes) })
    }

    /// Copies the whole of `from`, as much as fits.
    pub fn copy_from(&self, from: &Memory) {
        let bytes = self.bytes.min(from.bytes);
        // SAFETY: both are mapped, at least so long; windows never overlap.
        unsafe { self.base.copy_from_nonoverlapping(from.base, bytes) };
    }

    /// Reads the aligned word at `offset`; 0 outside.
    pub fn word(&self, offset: usize) -> u64 {
        if !offset.is_multiple_of(8) || offset.checked_add(8).is_none_or(|end| end > self.bytes) {
            return 0;
        }
        // SAFETY: inside, and aligned because every window begins at a page.
        unsafe { self.base.add(offset).cast::<u64>().read_volatile() }
    }

    /// The control page in this memory.
    pub fn control(&self) -> Option<&'static Control> {
        if self.bytes < size_of::<Control>() {
            return None;
        }
        // SAFETY: control pages are mapped for ever, page-aligned, and made of atomics alone.
        Some(unsafe { &*self.base.cast::<Control>() })
    }
}

impl Registers for Memory {
    fn read(&self, offset: u32, width: u8) -> u32 {
        let at = offset as usize;
        if at + usize::from(width) > self.bytes || !offset.is_multiple_of(u32::from(width)) {
            return u32::MAX >> (32 - 8 * u32::from(width));
        }
        let place = self.base.wrapping_add(at);
        // SAFETY: inside the mapping and aligned to its width; device registers are accessed by
        // volatile accesses of exactly that width.
        unsafe {
            match width {
                1 => u32::from(place.read_volatile()),
                2 => u32::from(place.cast::<u16>().read_volatile()),
                _ => place.cast::<u32>().read_volatile(),
            }
        }
    }

    fn write(&mut self, offset: u32, width: u8, value: u32) {
        let at = offset as usize;
        if at + usize::from(width) > self.bytes || !offset.is_multiple_of(u32::from(width)) {
            return;
        }
        let place = self.base.wrapping_add(at);
        // SAFETY: as in `read`.
        unsafe {
            match width {
                1 => place.write_volatile(value as u8),
                2 => place.cast::<u16>().write_volatile(value as u16),
                _ => place.cast::<u32>().write_volatile(value),
            }
        }
    }
}

/// A place that the root server's only thread uses, filled once at its start.
pub struct Global<T>(UnsafeCell<T>);

// SAFETY: the root server has one thread.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    /// With this value.
    pub const fn new(value: T) -> Global<T> {
        Global(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    /// Called once in the life of the program.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn take(&'static self) -> &'static mut T {
        // SAFETY: called once, so this is the only reference.
        unsafe { &mut *self.0.get() }
    }
}

#[cfg(test)]
impl Window {
    /// A window onto memory of a test, which outlives it.
    pub fn of_test(bytes: &[u8]) -> Window {
        Window { used: bytes.as_ptr() as u64 - BASE, ..Window::EMPTY }
    }
}

#[cfg(test)]
impl Memory {
    /// Memory of a test, which outlives it.
    pub fn of_test(bytes: &mut &'static mut [u8]) -> Memory {
        Memory { base: bytes.as_mut_ptr(), bytes: bytes.len() }
    }
}
