//! Where things are: the partition table and the boot sector, validated field by field.
//!
//! Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03 (fields `BPB_*`, `BS_*`).
//! Invariants of a [`Geometry`]: every sector of every cluster and of every FAT copy lies on the
//! device; the FAT has an entry for every cluster; the root cluster exists.
//!
//! Not here: reading; the caller brings the sectors.

use crate::bytes::{u16_at, u32_at};
use crate::device::SECTOR_BYTES;
use crate::error::MountError;

/// Cluster numbers start here.
pub(crate) const FIRST_CLUSTER: u32 = 2;
/// The most clusters that 28-bit entries can number.
const MAX_CLUSTERS: u32 = 0x0FFF_FFF5;

/// The shape of a volume. Sectors count from the start of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The boot sector.
    pub start: u64,
    /// First sector of the FAT that we read.
    pub fat_start: u64,
    /// Sectors of one FAT.
    pub fat_sectors: u64,
    /// FATs that mirror the first (0 where mirroring is off).
    pub mirrors: u32,
    /// First sector of cluster 2.
    pub data_start: u64,
    /// Sectors of a cluster: a power of two up to 128.
    pub cluster_sectors: u32,
    /// Clusters in the data area.
    pub clusters: u32,
    /// First cluster of the root directory.
    pub root: u32,
    /// The FSInfo sector, if there is one.
    pub info: Option<u64>,
    /// Serial number (`BS_VolID`).
    pub serial: u32,
    /// `BS_VolLab`.
    pub label: [u8; 11],
    /// The boot sector's state byte has the bit "not cleanly unmounted".
    pub was_dirty: bool,
}

impl Geometry {
    /// Bytes of a cluster.
    pub fn cluster_bytes(&self) -> u32 {
        self.cluster_sectors * SECTOR_BYTES as u32
    }

    /// The first number that is no cluster.
    pub fn end_cluster(&self) -> u32 {
        self.clusters + FIRST_CLUSTER
    }

    /// Whether a cluster of this number exists.
    pub fn has_cluster(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.end_cluster()).contains(&cluster)
    }

    /// First sector of a cluster.
    pub fn sector_of(&self, cluster: u32) -> u64 {
        self.data_start + u64::from(cluster - FIRST_CLUSTER) * u64::from(self.cluster_sectors)
    }

    /// The cluster that a sector belongs to, if it does.
    pub fn cluster_of(&self, sector: u64) -> Option<u32> {
        let index = sector.checked_sub(self.data_start)? / u64::from(self.cluster_sectors);
        let cluster = u32::try_from(index).ok()?.checked_add(FIRST_CLUSTER)?;
        self.has_cluster(cluster).then_some(cluster)
    }

    /// Clusters needed for so many bytes.
    pub fn clusters_for(&self, bytes: u32) -> u32 {
        bytes.div_ceil(self.cluster_bytes())
    }
}

/// What sector 0 turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A boot sector: the volume fills the disk.
    Volume,
    /// A partition table; the first FAT32 partition.
    Partition {
        /// First sector.
        start: u64,
        /// Sectors.
        sectors: u64,
    },
}

/// Tells boot sector and partition table apart.
pub(crate) fn find_volume(sector: &[u8], device_sectors: u64) -> Result<Found, MountError> {
    if sector.iter().all(|&b| b == 0) {
        return Err(MountError::Empty);
    }
    if looks_like_boot_sector(sector) {
        return Ok(Found::Volume);
    }
    if u16_at(sector, 510) != 0xAA55 {
        return Err(MountError::NotFat {
            reason: "sector 0 has neither a boot sector nor a partition table",
        });
    }
    let mut old = None;
    for entry in sector[446..510].chunks_exact(16) {
        let (start, sectors) = (u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)));
        match entry[4] {
            0x0B | 0x0C | 0x1B | 0x1C if sectors > 0 => {
                if start + sectors > device_sectors {
                    return Err(MountError::Truncated {
                        needed: start + sectors,
                        found: device_sectors,
                    });
                }
                return Ok(Found::Partition { start, sectors });
            }
            0x01 => old = old.or(Some(12)),
            0x04 | 0x06 | 0x0E => old = old.or(Some(16)),
            0xEE => {
                return Err(MountError::NotFat {
                    reason: "it has a GPT; only MBR partitions are read",
                });
            }
            _ => {}
        }
    }
    Err(match old {
        Some(bits) => MountError::OldFat { bits },
        None => MountError::NotFat { reason: "its partition table has no FAT32 partition" },
    })
}

/// A jump, a sector size and a media byte that a boot sector has and boot code of an MBR has not.
fn looks_like_boot_sector(sector: &[u8]) -> bool {
    let jump = matches!((sector[0], sector[2]), (0xEB, 0x90) | (0xE9, _));
    jump && u16_at(sector, 510) == 0xAA55 && sector[21] >= 0xF0 && u16_at(sector, 11) != 0
}

/// The boot sector's fields from which everything is computed, each sound by itself.
struct Shape {
    cluster_sectors: u32,
    reserved: u64,
    fats: u32,
    fat_sectors: u64,
    total: u64,
}

fn corrupt<T>(field: &'static str, value: u32) -> Result<T, MountError> {
    Err(MountError::Corrupt { field, value })
}

fn read_shape(sector: &[u8]) -> Result<Shape, MountError> {
    let sector_bytes = u32::from(u16_at(sector, 11));
    match sector_bytes {
        512 => {}
        1024 | 2048 | 4096 => {
            return Err(MountError::Unsupported { field: "sector size", value: sector_bytes });
        }
        _ => return corrupt("sector size", sector_bytes),
    }
    let cluster_sectors = u32::from(sector[13]);
    if !cluster_sectors.is_power_of_two() {
        return corrupt("sectors per cluster", cluster_sectors);
    }
    let reserved = u64::from(u16_at(sector, 14));
    if reserved == 0 {
        return corrupt("reserved sectors", 0);
    }
    let fats = u32::from(sector[16]);
    if !(1..=2).contains(&fats) {
        return corrupt("number of FATs", fats);
    }
    let total = match u16_at(sector, 19) {
        0 => u64::from(u32_at(sector, 32)),
        small => u64::from(small),
    };
    let root_entries = u16_at(sector, 17);
    let fat16_sectors = u64::from(u16_at(sector, 22));
    if fat16_sectors != 0 {
        let root_sectors = u64::from(root_entries).div_ceil(16);
        let overhead = reserved + u64::from(fats) * fat16_sectors + root_sectors;
        let clusters = total.saturating_sub(overhead) / u64::from(cluster_sectors);
        return Err(MountError::OldFat { bits: if clusters < 4085 { 12 } else { 16 } });
    }
    if root_entries != 0 {
        return corrupt("number of root entries", root_entries.into());
    }
    let fat_sectors = u64::from(u32_at(sector, 36));
    if fat_sectors == 0 {
        return corrupt("sectors per FAT", 0);
    }
    let version = u32::from(u16_at(sector, 42));
    if version != 0 {
        return Err(MountError::Unsupported { field: "version", value: version });
    }
    Ok(Shape { cluster_sectors, reserved, fats, fat_sectors, total })
}

/// Reads a boot sector that lies at `start`; `room` sectors are there for the volume.
pub(crate) fn read_boot_sector(
    sector: &[u8],
    start: u64,
    room: u64,
) -> Result<Geometry, MountError> {
    if !looks_like_boot_sector(sector) {
        return Err(MountError::NotFat { reason: "the partition has no FAT boot sector" });
    }
    let Shape { cluster_sectors, reserved, fats, fat_sectors, total } = read_shape(sector)?;
    let overhead = reserved + u64::from(fats) * fat_sectors;
    if total <= overhead {
        return corrupt("number of sectors", total as u32);
    }
    let clusters = (total - overhead) / u64::from(cluster_sectors);
    if clusters == 0 || clusters > u64::from(MAX_CLUSTERS) {
        return corrupt("number of clusters", clusters as u32);
    }
    if fat_sectors * 128 < clusters + u64::from(FIRST_CLUSTER) {
        return corrupt("sectors per FAT", fat_sectors as u32);
    }
    if total > room {
        return Err(MountError::Truncated { needed: start + total, found: start + room });
    }
    // BPB_ExtFlags: bit 7 switches mirroring off, bits 0-3 then name the active FAT.
    let flags = u32::from(u16_at(sector, 40));
    let (active, mirrors) = if flags & 0x80 == 0 { (0, fats - 1) } else { (flags & 0xF, 0) };
    if active >= fats {
        return corrupt("active FAT", active);
    }
    let info = match u64::from(u16_at(sector, 48)) {
        0 | 0xFFFF => None,
        n if n < reserved => Some(start + n),
        n => return corrupt("FSInfo sector", n as u32),
    };
    let geometry = Geometry {
        start,
        fat_start: start + reserved + u64::from(active) * fat_sectors,
        fat_sectors,
        mirrors,
        data_start: start + overhead,
        cluster_sectors,
        clusters: clusters as u32,
        root: u32_at(sector, 44),
        info,
        serial: u32_at(sector, 67),
        label: sector[71..82].try_into().expect("eleven bytes"),
        was_dirty: sector[65] & 1 != 0,
    };
    if !geometry.has_cluster(geometry.root) {
        return corrupt("root cluster", geometry.root);
    }
    Ok(geometry)
}
