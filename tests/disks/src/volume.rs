//! A FAT32 volume that is written by hand: boot sector, FATs, clusters, slots of directories (Microsoft,
//! FAT32 File System Specification 1.03).

use crate::image::Image;
use crate::{SMALL_TEXT, random::Random};

/// The mark behind a chain's last cluster.
pub const END: u32 = 0x0FFF_FFFF;
/// The mark of a cluster that cannot be used.
pub const BAD: u32 = 0x0FFF_FFF7;
/// Attributes of a directory.
pub const FOLDER: u8 = 0x10;
/// Attributes of a file.
pub const FILE: u8 = 0x20;
/// Attributes of a volume's label.
pub const LABEL: u8 = 0x08;
/// Attributes of a piece of a long name.
pub const LONG: u8 = 0x0F;
/// The first cluster of the root directory.
pub const ROOT: u32 = 2;
/// The most slots of a directory.
pub const MOST_SLOTS: u32 = 65_536;

/// A slot of a directory.
pub type Slot = [u8; 32];

/// What a volume is made of, where it matters.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Clusters.
    pub clusters: u32,
    /// Sectors of one.
    pub cluster_sectors: u32,
    /// Sectors before the first FAT, at least 8.
    pub reserved: u32,
    /// FATs, 1 or 2.
    pub fats: u32,
}

impl Shape {
    /// Clusters of 512 bytes, and one FAT.
    pub fn of(clusters: u32) -> Self {
        Shape { clusters, cluster_sectors: 1, reserved: 32, fats: 1 }
    }
}

/// A volume being made.
pub struct Volume {
    image: Image,
    shape: Shape,
    fat: Vec<u32>,
    /// Where clusters are taken from next.
    next: u32,
    /// Choices that do not matter.
    pub random: Random,
}

/// A directory being filled.
pub struct Folder {
    clusters: Vec<u32>,
    slots: u32,
    /// Clusters for it that were chosen beforehand.
    spare: std::vec::IntoIter<u32>,
}

impl Folder {
    /// Its first cluster.
    pub fn first(&self) -> u32 {
        self.clusters[0]
    }

    /// Its last cluster.
    pub fn last(&self) -> u32 {
        self.clusters[self.clusters.len() - 1]
    }

    /// Slots in use.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

impl Volume {
    /// A volume with an empty root directory, and the root.
    pub fn new(shape: Shape, seed: u64) -> (Volume, Folder) {
        let fat_sectors = (shape.clusters + 2).div_ceil(128);
        let data = shape.reserved + shape.fats * fat_sectors;
        let total = data + shape.clusters * shape.cluster_sectors;
        let mut boot = [0; 512];
        boot[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
        boot[3..11].copy_from_slice(b"SKINK   ");
        boot[11..13].copy_from_slice(&512u16.to_le_bytes());
        boot[13] = shape.cluster_sectors as u8;
        boot[14..16].copy_from_slice(&(shape.reserved as u16).to_le_bytes());
        boot[16] = shape.fats as u8;
        boot[21] = 0xF8;
        boot[24..28].copy_from_slice(&[32, 0, 64, 0]);
        boot[32..36].copy_from_slice(&total.to_le_bytes());
        boot[36..40].copy_from_slice(&fat_sectors.to_le_bytes());
        boot[44..48].copy_from_slice(&ROOT.to_le_bytes());
        boot[48] = 1;
        boot[50] = 6;
        boot[64..67].copy_from_slice(&[0x80, 0, 0x29]);
        boot[67..71].copy_from_slice(&(seed as u32).to_le_bytes());
        boot[71..82].copy_from_slice(b"NO NAME    ");
        boot[82..90].copy_from_slice(b"FAT32   ");
        boot[510..].copy_from_slice(&[0x55, 0xAA]);
        let mut image = Image::new(u64::from(total) * 512);
        image.write(0, &boot);
        image.write(6 * 512, &boot);
        let mut fat = vec![0; fat_sectors as usize * 128];
        fat[..3].copy_from_slice(&[0x0FFF_FFF8, END, END]);
        let mut volume = Volume { image, shape, fat, next: ROOT + 1, random: Random::new(seed) };
        let mut root = Folder { clusters: vec![ROOT], slots: 0, spare: Vec::new().into_iter() };
        let mut small = volume.folder(&mut root, b"SMALL      ");
        let first = volume.allocate(1);
        volume.put_bytes(first, SMALL_TEXT);
        let size = SMALL_TEXT.len() as u32;
        volume.add(&mut small, short(b"S       TXT", FILE, first, size));
        (volume, root)
    }

    /// Behind the last cluster.
    pub fn end(&self) -> u32 {
        self.shape.clusters + 2
    }

    /// Bytes of a cluster.
    pub fn cluster_bytes(&self) -> u32 {
        self.shape.cluster_sectors * 512
    }

    /// Changes the boot sector, and its copy.
    pub fn boot(&mut self, at: u64, bytes: &[u8]) {
        self.image.write(at, bytes);
        self.image.write(6 * 512 + at, bytes);
    }

    /// The cluster from which on none was taken.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Leaves clusters out.
    pub fn skip_to(&mut self, cluster: u32) {
        self.next = self.next.max(cluster);
    }

    /// What the FAT says of a cluster.
    pub fn entry(&mut self, cluster: u32) -> &mut u32 {
        &mut self.fat[cluster as usize]
    }

    /// Links these clusters to a chain that ends.
    pub fn link(&mut self, clusters: &[u32]) {
        for pair in clusters.windows(2) {
            *self.entry(pair[0]) = pair[1];
        }
        if let Some(&last) = clusters.last() {
            *self.entry(last) = END;
        }
    }

    /// Takes clusters that follow each other, as a chain; the first.
    pub fn allocate(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next += count;
        let clusters: Vec<u32> = (first..self.next).collect();
        self.link(&clusters);
        first
    }

    /// The byte at which a cluster begins.
    fn place(&self, cluster: u32) -> u64 {
        let fats = self.shape.fats * (self.fat.len() / 128) as u32;
        let sector = self.shape.reserved + fats + (cluster - 2) * self.shape.cluster_sectors;
        u64::from(sector) * 512
    }

    /// Puts bytes to where a cluster begins.
    pub fn put_bytes(&mut self, cluster: u32, bytes: &[u8]) {
        self.image.write(self.place(cluster), bytes);
    }

    /// Adds a slot to a directory, which grows by a cluster where it must.
    pub fn add(&mut self, folder: &mut Folder, slot: Slot) {
        let per_cluster = self.cluster_bytes() / 32;
        let at = (folder.slots / per_cluster) as usize;
        if at == folder.clusters.len() {
            let last = folder.clusters[at - 1];
            let cluster = match folder.spare.next() {
                Some(cluster) => cluster,
                None => self.allocate(1),
            };
            *self.entry(last) = cluster;
            *self.entry(cluster) = END;
            folder.clusters.push(cluster);
        }
        let within = u64::from(folder.slots % per_cluster) * 32;
        self.image.write(self.place(folder.clusters[at]) + within, &slot);
        folder.slots += 1;
    }

    /// A directory with `.` and `..` that no entry names yet.
    pub fn unnamed_folder(&mut self, parent: u32) -> Folder {
        self.scattered_folder(parent, Vec::new())
    }

    /// As [`Volume::unnamed_folder`], of these clusters as far as they go.
    pub fn scattered_folder(&mut self, parent: u32, clusters: Vec<u32>) -> Folder {
        let mut spare = clusters.into_iter();
        let first = match spare.next() {
            Some(first) => first,
            None => self.allocate(1),
        };
        *self.entry(first) = END;
        let mut folder = Folder { clusters: vec![first], slots: 0, spare };
        self.add(&mut folder, short(b".          ", FOLDER, first, 0));
        let above = if parent == ROOT { 0 } else { parent };
        self.add(&mut folder, short(b"..         ", FOLDER, above, 0));
        folder
    }

    /// Makes a directory in another.
    pub fn folder(&mut self, parent: &mut Folder, name: &[u8; 11]) -> Folder {
        let folder = self.unnamed_folder(parent.first());
        self.add(parent, short(name, FOLDER, folder.first(), 0));
        folder
    }

    /// Adds an entry with a long name.
    pub fn add_long(&mut self, folder: &mut Folder, name: &[u16], entry: Slot) {
        let short: [u8; 11] = entry[..11].try_into().expect("eleven bytes");
        for piece in long(name, &short) {
            self.add(folder, piece);
        }
        self.add(folder, entry);
    }

    /// Writes the FATs and says how much is free, by `free` if that is not the truth.
    pub fn finish(mut self, free: Option<u32>) -> Image {
        let (end, reserved) = (self.end() as usize, u64::from(self.shape.reserved));
        let counted = self.fat[2..end].iter().filter(|&&entry| entry & END == 0).count() as u32;
        let mut info = [0; 512];
        info[..4].copy_from_slice(b"RRaA");
        info[484..488].copy_from_slice(b"rrAa");
        info[488..492].copy_from_slice(&free.unwrap_or(counted).to_le_bytes());
        info[492..496].copy_from_slice(&free.unwrap_or(3).to_le_bytes());
        info[510..].copy_from_slice(&[0x55, 0xAA]);
        self.image.write(512, &info);
        self.image.write(7 * 512, &info);
        for copy in 0..u64::from(self.shape.fats) {
            let start = (reserved + copy * (self.fat.len() / 128) as u64) * 512;
            for (number, page) in self.fat.chunks(1024).enumerate() {
                if page.iter().any(|&entry| entry != 0) {
                    let bytes: Vec<u8> = page.iter().flat_map(|e| e.to_le_bytes()).collect();
                    self.image.write(start + number as u64 * 4096, &bytes);
                }
            }
        }
        self.image
    }
}

/// A short entry.
pub fn short(name: &[u8; 11], attributes: u8, first: u32, size: u32) -> Slot {
    let mut slot = [0; 32];
    slot[..11].copy_from_slice(name);
    slot[11] = attributes;
    for date in [16, 18, 24] {
        slot[date] = 0x21;
    }
    slot[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
    slot[26..28].copy_from_slice(&(first as u16).to_le_bytes());
    slot[28..].copy_from_slice(&size.to_le_bytes());
    slot
}

/// The pieces of a long name, as they stand before the entry with this short one.
pub fn long(name: &[u16], short: &[u8; 11]) -> Vec<Slot> {
    let sum = short.iter().fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let count = name.len().div_ceil(13);
    let piece = |order: usize| {
        let mut slot = [0; 32];
        slot[0] = order as u8 | if order == count { 0x40 } else { 0 };
        (slot[11], slot[13]) = (LONG, sum);
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        for (index, place) in places.enumerate() {
            let at = (order - 1) * 13 + index;
            let filler = if at == name.len() { 0 } else { 0xFFFF };
            let unit = name.get(at).copied().unwrap_or(filler);
            slot[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        slot
    };
    (1..=count).rev().map(piece).collect()
}

/// A short name of a letter and a number.
pub fn numbered(letter: char, number: u32) -> [u8; 11] {
    name(&format!("{letter}{number:07}"))
}

/// A short name without an extension.
pub fn name(text: &str) -> [u8; 11] {
    format!("{text:<11}").into_bytes().try_into().expect("at most eleven bytes")
}
