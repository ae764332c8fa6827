//! What the file system takes of the heap: never more than the limits were made for, whatever is on the
//! disk, and a volume for which that is too little is refused before.

use fs::{Access, BlockDevice, Blocking, Create, IoError, Limits, MountError, Volume};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;

/// As in the manifest.
const HEAP: u64 = 4 << 20;
const CLUSTER_SECTORS: u32 = 8;
const RESERVED: u32 = 32;
const END: u32 = 0x0FFF_FFFF;

/// Counts what a thread has of the heap.
struct Counting;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends has no counters any more.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: hands every request on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's contract is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's contract is the callee's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that `body` has of the heap at once, bytes.
fn peak<R>(body: impl FnOnce() -> R) -> (R, u64) {
    let before = NOW.get();
    PEAK.set(before);
    let result = body();
    (result, (PEAK.get() - before) as u64)
}

/// A disk that is zero but for some sectors, and is not written to.
struct Sparse {
    sectors: u32,
    fat_sectors: u32,
    written: HashMap<u32, [u8; 512]>,
}

impl BlockDevice for Sparse {
    fn sectors(&self) -> u64 {
        self.sectors.into()
    }

    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        for (at, piece) in (sector as u32..).zip(bytes.chunks_exact_mut(512)) {
            piece.copy_from_slice(self.written.get(&at).unwrap_or(&[0; 512]));
        }
        Ok(())
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), IoError> {
        Err(IoError)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

impl Sparse {
    /// An empty volume of so many clusters.
    fn new(clusters: u32) -> Self {
        let fat_sectors = (clusters + 2).div_ceil(128);
        let sectors = RESERVED + fat_sectors + clusters * CLUSTER_SECTORS;
        let mut disk = Sparse { sectors, fat_sectors, written: HashMap::new() };
        let boot = disk.sector(0);
        boot[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
        boot[11..13].copy_from_slice(&512u16.to_le_bytes());
        (boot[13], boot[14], boot[16], boot[21]) = (CLUSTER_SECTORS as u8, RESERVED as u8, 1, 0xF8);
        boot[32..36].copy_from_slice(&sectors.to_le_bytes());
        boot[36..40].copy_from_slice(&fat_sectors.to_le_bytes());
        (boot[44], boot[66]) = (2, 0x29);
        boot[510..512].copy_from_slice(&[0x55, 0xAA]);
        disk.link(0, 0x0FFF_FFF8);
        disk.link(1, END);
        disk.link(2, 3);
        disk.link(3, END);
        disk
    }

    fn sector(&mut self, sector: u32) -> &mut [u8; 512] {
        self.written.entry(sector).or_insert([0; 512])
    }

    fn link(&mut self, cluster: u32, value: u32) {
        let at = (cluster % 128 * 4) as usize;
        self.sector(RESERVED + cluster / 128)[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// A chain of every second cluster.
    fn fragments(&mut self, first: u32, count: u32) {
        for at in 0..count {
            let next = if at + 1 == count { END } else { first + 2 * (at + 1) };
            self.link(first + 2 * at, next);
        }
    }

    /// Puts an entry into a slot of the directory whose first clusters lie together.
    fn put(&mut self, dir: u32, slot: u32, name: &str, entry: (u8, u32, u32)) {
        let data = RESERVED + self.fat_sectors;
        let (attributes, first, size) = entry;
        let bytes = self.sector(data + (dir - 2) * CLUSTER_SECTORS + slot / 16);
        let bytes = &mut bytes[(slot % 16 * 32) as usize..][..32];
        bytes[..11].copy_from_slice(format!("{name:<11}").as_bytes());
        bytes[11] = attributes;
        bytes[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
        bytes[26..28].copy_from_slice(&(first as u16).to_le_bytes());
        bytes[28..32].copy_from_slice(&size.to_le_bytes());
    }
}

/// As many buffers as the driver shares in the shipped system: 8 MiB without the ring.
fn blocking(disk: Sparse) -> Blocking<Sparse> {
    Blocking::new(disk, ((8 << 20) - (64 << 10)) / 4096)
}

/// The largest volume that is served, with as many open files as there are handles, each in more pieces
/// than are kept, and directories within each other in many pieces.
fn crowded(limits: Limits) -> Blocking<Sparse> {
    const PIECES: u32 = 3000;
    const LEVELS: u32 = 1200;
    let mut disk = Sparse::new(limits.clusters);
    let mut next = 10;
    for file in 0..limits.handles.into() {
        disk.fragments(next, PIECES);
        disk.put(2, file, &format!("F{file:03}"), (0x20, next, PIECES * 4096));
        next += 2 * PIECES;
    }
    let mut above = (2, u32::from(limits.handles));
    for level in 0..LEVELS {
        disk.fragments(next, 128);
        disk.put(above.0, above.1, "D", (0x10, next, 0));
        disk.put(next, 0, ".", (0x10, next, 0));
        disk.put(next, 1, "..", (0x10, if level == 0 { 0 } else { above.0 }, 0));
        above = (next, 2);
        next += 256;
    }
    assert!(next < limits.clusters);
    blocking(disk)
}

#[test]
fn the_heap_holds_the_largest_volume_that_is_served() {
    let limits = Limits::for_heap(HEAP);
    assert!(limits.clusters >= 4_000_000, "{limits:?}: 16 GB at 4 KiB");
    let disk = crowded(limits);
    let (_volume, most) = peak(|| {
        let mut volume = Volume::mount(disk, limits).unwrap();
        let report = volume.audit().unwrap();
        assert_eq!((report.files, report.directories, report.damaged), (128, 1200, 0));
        for file in 0..limits.handles {
            volume.open(&format!("/F{file:03}"), Access::Read, Create::Never).unwrap();
        }
        volume
    });
    assert!(most < HEAP, "{} KiB of {}", most >> 10, HEAP >> 10);
}

#[test]
fn the_map_of_a_volume_is_there_once() {
    let limits = Limits::for_heap(HEAP);
    let disk = blocking(Sparse::new(limits.clusters));
    let (_, most) = peak(|| Volume::mount(disk, limits).unwrap().audit().unwrap());
    let map = u64::from(limits.clusters) / 4;
    assert!(most < map + (512 << 10), "{} KiB, of them a map of {}", most >> 10, map >> 10);
}

#[test]
fn a_volume_that_is_too_large_is_refused_before_memory_is_taken_for_it() {
    for (heap, clusters) in [(HEAP, 8_300_000), (1 << 20, 1_000_000), (0, 70_000)] {
        let limit = Limits::for_heap(heap).clusters;
        let disk = blocking(Sparse::new(clusters));
        let (refused, most) = peak(|| Volume::mount(disk, Limits::for_heap(heap)).err());
        assert_eq!(refused, Some(MountError::TooManyClusters { clusters, limit }));
        assert!(most < 512 << 10, "{most}");
    }
}
