//! Writes a FAT32 volume once: everything that goes on it is known beforehand, so each file and
//! folder gets one run of clusters (Microsoft FAT specification, version 1.03).
//!
//! Written here because what the FAT crates write does not pass `fsck.fat`: their `.` entries
//! have long names, and their count of free clusters is not kept.
//!
//! Invariants: the same entries make the same bytes; `fsck.fat -n` finds nothing.

use super::names::{ENTRY_SIZE, Name, Taken, folded};
use super::{Content, Entry, SECTOR};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

/// Bytes of a cluster.
pub const CLUSTER: u64 = 4096;
/// A volume with fewer clusters would be FAT16; some to spare.
const MIN_CLUSTERS: u64 = 66_000;
const MAX_CLUSTERS: u64 = 0x0fff_fff0;
/// 65,536 entries.
const MAX_FOLDER_BYTES: u64 = 2 << 20;
const RESERVED_SECTORS: u64 = 32;
const INFO_SECTOR: u64 = 1;
const BACKUP_SECTOR: u64 = 6;
const FATS: u64 = 2;
const FIRST_CLUSTER: u64 = 2;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
const LABEL: &[u8; 11] = b"SKINK      ";
/// 1 January 2026, in FAT's bits: the same image whenever it is made.
const DATE: u16 = (46 << 9) | (1 << 5) | 1;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;

/// A file or folder with its place.
struct Node<'a> {
    name: Name,
    kind: Kind<'a>,
    /// First cluster; 0 for an empty file.
    first: u64,
}

enum Kind<'a> {
    File(&'a Content, u64),
    Folder(Folder<'a>),
}

/// What is in a folder.
#[derive(Default)]
struct Folder<'a> {
    /// With their names, in the order in which they were put there.
    nodes: Vec<(String, Node<'a>)>,
    /// Places of nodes by their names as the guest compares them.
    places: HashMap<Vec<u16>, usize>,
    short_names: Taken,
}

impl<'a> Folder<'a> {
    fn insert(&mut self, path: &str, entry: &'a Entry) -> Result<()> {
        let name = path.split_once('/').map_or(path, |(first, _)| first);
        let there = self.places.get(&folded(name)).map(|place| &mut self.nodes[*place]);
        if let Some((_, rest)) = path.split_once('/') {
            return match there {
                Some((other, Node { kind: Kind::Folder(inside), .. })) if other == name => {
                    inside.insert(rest, entry)
                }
                _ => bail!("its folder `{name}` is not on the disk"),
            };
        }
        if let Some((other, _)) = there {
            bail!("FAT takes `{name}` and `{other}` for the same name");
        }
        let kind = match &entry.content {
            Content::Folder => Kind::Folder(Folder::default()),
            content => Kind::File(content, entry.size()),
        };
        let node = Node { name: Name::new(name, &mut self.short_names)?, kind, first: 0 };
        self.places.insert(folded(name), self.nodes.len());
        self.nodes.push((name.to_string(), node));
        Ok(())
    }
}

/// Writes a volume with `entries` to `file`, which is given its size.
///
/// # Errors
/// If an entry's name cannot stand on FAT, or reading or writing fails.
pub fn write(file: &mut File, entries: &[Entry]) -> Result<()> {
    let mut root = Folder::default();
    for entry in entries {
        root.insert(&entry.path, entry)
            .with_context(|| format!("putting `{}` on the disk", entry.path))?;
    }
    check_folders(&root, "/", true)?;
    let mut layout = Layout { chains: Vec::new(), next: FIRST_CLUSTER };
    let root_first = layout.reserve(folder_bytes(&root, true));
    layout.place(&mut root);
    let used = layout.next - FIRST_CLUSTER;
    let clusters = MIN_CLUSTERS.max(2 * used);
    ensure!(clusters < MAX_CLUSTERS, "more than a FAT32 volume can hold");
    let geometry = Geometry::new(clusters);
    file.set_len(geometry.total_sectors * SECTOR)?;
    geometry.write_head(file, clusters - used, layout.next)?;
    for copy in 0..FATS {
        let at = RESERVED_SECTORS + copy * geometry.fat_sectors;
        write_at(file, at * SECTOR, &layout.table())?;
    }
    let writer = Writer { geometry };
    writer.folder(file, &root, root_first, None)
}

/// Bytes of a folder's entries; the label or `.` and `..` included.
fn folder_bytes(inside: &Folder, is_root: bool) -> u64 {
    let own = if is_root { 1 } else { 2 };
    let entries: usize = inside.nodes.iter().map(|(_, node)| node.name.long_entries() + 1).sum();
    ((own + entries) * ENTRY_SIZE) as u64
}

/// Checks that no folder is longer than FAT allows.
fn check_folders(inside: &Folder, path: &str, is_root: bool) -> Result<()> {
    ensure!(
        folder_bytes(inside, is_root) <= MAX_FOLDER_BYTES,
        "the folder `{path}` is too long: FAT has {} entries for a folder, and a long name takes several",
        MAX_FOLDER_BYTES / ENTRY_SIZE as u64
    );
    for (name, node) in &inside.nodes {
        if let Kind::Folder(inside) = &node.kind {
            check_folders(inside, name, false)?;
        }
    }
    Ok(())
}

/// Hands out clusters in ascending runs.
struct Layout {
    /// First cluster and count of each run.
    chains: Vec<(u64, u64)>,
    next: u64,
}

impl Layout {
    fn reserve(&mut self, bytes: u64) -> u64 {
        let count = bytes.div_ceil(CLUSTER);
        if count == 0 {
            return 0;
        }
        let first = self.next;
        self.chains.push((first, count));
        self.next += count;
        first
    }

    fn place(&mut self, folder: &mut Folder) {
        for (_, node) in &mut folder.nodes {
            match &mut node.kind {
                Kind::File(_, size) => node.first = self.reserve(*size),
                Kind::Folder(inside) => {
                    node.first = self.reserve(folder_bytes(inside, false));
                    self.place(inside);
                }
            }
        }
    }

    fn table(&self) -> Vec<u8> {
        let mut table = vec![0u32; self.next as usize];
        table[0] = 0x0fff_fff8;
        table[1] = END_OF_CHAIN;
        for (first, count) in &self.chains {
            for cluster in *first..first + count - 1 {
                table[cluster as usize] = cluster as u32 + 1;
            }
            table[(first + count - 1) as usize] = END_OF_CHAIN;
        }
        table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }
}

struct Geometry {
    fat_sectors: u64,
    total_sectors: u64,
}

impl Geometry {
    fn new(clusters: u64) -> Geometry {
        let fat_sectors = ((clusters + FIRST_CLUSTER) * 4).div_ceil(SECTOR);
        let data_sectors = clusters * (CLUSTER / SECTOR);
        let total_sectors = RESERVED_SECTORS + FATS * fat_sectors + data_sectors;
        Geometry { fat_sectors, total_sectors }
    }

    fn offset(&self, cluster: u64) -> u64 {
        let data = RESERVED_SECTORS + FATS * self.fat_sectors;
        data * SECTOR + (cluster - FIRST_CLUSTER) * CLUSTER
    }

    /// The boot sector and the sector with the free count, each twice.
    fn write_head(&self, file: &mut File, free: u64, next: u64) -> Result<()> {
        let mut boot = [0u8; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"SKINK   ");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[(CLUSTER / SECTOR) as u8]);
        put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
        put(16, &[FATS as u8]);
        put(21, &[0xf8]);
        put(24, &32u16.to_le_bytes());
        put(26, &64u16.to_le_bytes());
        put(32, &(self.total_sectors as u32).to_le_bytes());
        put(36, &(self.fat_sectors as u32).to_le_bytes());
        put(44, &(FIRST_CLUSTER as u32).to_le_bytes());
        put(48, &(INFO_SECTOR as u16).to_le_bytes());
        put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
        put(64, &[0x80, 0, 0x29]);
        put(67, &0x5349_4e4bu32.to_le_bytes());
        put(71, LABEL);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        let mut info = [0u8; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RRaA");
        put(484, b"rrAa");
        put(488, &(free as u32).to_le_bytes());
        put(492, &(next as u32).to_le_bytes());
        put(510, &[0x55, 0xaa]);
        for start in [0, BACKUP_SECTOR] {
            write_at(file, start * SECTOR, &boot)?;
            write_at(file, (start + INFO_SECTOR) * SECTOR, &info)?;
        }
        Ok(())
    }
}

fn write_at(file: &mut File, offset: u64, bytes: &[u8]) -> Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.write_all(bytes)?)
}

struct Writer {
    geometry: Geometry,
}

impl Writer {
    /// Writes a folder and what is in it. `parent` is the first cluster of the folder above, 0
    /// for the root's; the root has none.
    fn folder(
        &self,
        file: &mut File,
        inside: &Folder,
        first: u64,
        parent: Option<u64>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        match parent {
            None => bytes.extend_from_slice(&entry(LABEL, ATTRIBUTE_LABEL, 0, 0)),
            Some(parent) => {
                bytes.extend_from_slice(&entry(b".          ", ATTRIBUTE_FOLDER, first, 0));
                bytes.extend_from_slice(&entry(b"..         ", ATTRIBUTE_FOLDER, parent, 0));
            }
        }
        for (_, node) in &inside.nodes {
            bytes.extend_from_slice(&node.name.long_bytes());
            let (attribute, size) = match node.kind {
                Kind::File(_, size) => (ATTRIBUTE_ARCHIVE, size),
                Kind::Folder(_) => (ATTRIBUTE_FOLDER, 0),
            };
            bytes.extend_from_slice(&entry(&node.name.short, attribute, node.first, size));
        }
        write_at(file, self.geometry.offset(first), &bytes)?;
        let as_parent = if parent.is_none() { 0 } else { first };
        for (name, node) in &inside.nodes {
            match &node.kind {
                Kind::Folder(inside) => self.folder(file, inside, node.first, Some(as_parent))?,
                Kind::File(content, size) => self
                    .content(file, content, *size, node.first)
                    .with_context(|| format!("putting `{name}` on the disk"))?,
            }
        }
        Ok(())
    }

    fn content(&self, file: &mut File, content: &Content, size: u64, first: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.geometry.offset(first)))?;
        match content {
            Content::Folder => {}
            Content::Bytes(bytes) => file.write_all(bytes)?,
            Content::File(source) => source.copy_to(file)?,
        }
        Ok(())
    }
}

/// An 8.3 directory entry.
fn entry(short: &[u8; 11], attribute: u8, cluster: u64, size: u64) -> [u8; ENTRY_SIZE] {
    let mut bytes = [0u8; ENTRY_SIZE];
    bytes[..11].copy_from_slice(short);
    bytes[11] = attribute;
    for date in [16, 18, 24] {
        bytes[date..date + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    bytes[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    bytes[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    bytes[28..32].copy_from_slice(&(size as u32).to_le_bytes());
    bytes
}
