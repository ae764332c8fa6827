//! The records of the survivor region: what each word of them means.

use super::Payload;
use crate::audit::AuditReport;
use crate::base::Marked;
use crate::layout::Geometry;
use crate::open::Access;
use alloc::string::String;
use libipc::sessions::{Handle, Owner};

/// Handles that can be open.
pub(crate) const HANDLES: usize = 128;
/// Sessions whose last answers are known.
pub(crate) const CLIENTS: usize = 32;
/// Chains in one record of those to be freed.
pub(crate) const CHAINS_PER_ITEM: usize = 28;
const CHAIN_ITEMS: usize = 16;
/// Chains that can wait to be freed.
pub(crate) const MAX_CHAINS: usize = CHAINS_PER_ITEM * CHAIN_ITEMS;

/// The volume's shape.
pub(crate) const GEOMETRY: usize = 0;
/// Hint, mark, audit.
pub(crate) const CORE: usize = 1;
/// The bytes that are being put in place.
pub(crate) const REDO: usize = 2;
/// Chains to be freed.
pub(crate) const CHAIN_FIRST: usize = 3;
/// Open files.
pub(crate) const HANDLE_FIRST: usize = CHAIN_FIRST + CHAIN_ITEMS;
/// Last answers.
pub(crate) const CLIENT_FIRST: usize = HANDLE_FIRST + HANDLES;
/// Records altogether.
pub(crate) const ITEMS: usize = CLIENT_FIRST + CLIENTS;

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The shape of a volume on a disk of so many sectors.
pub(crate) fn put_geometry(geo: &Geometry, sectors: u64) -> Payload {
    let mut label = [0; 16];
    label[..11].copy_from_slice(&geo.label);
    let label = u128::from_le_bytes(label);
    let mut words = [0; super::PAYLOAD];
    words[0] = sectors;
    words[1] = geo.start;
    words[2] = geo.fat_start;
    words[3] = geo.fat_sectors;
    words[4] = geo.data_start;
    words[5] = pair(geo.mirrors, geo.cluster_sectors);
    words[6] = pair(geo.clusters, geo.root);
    words[7] = geo.info.unwrap_or(0);
    words[8] = pair(geo.serial, geo.was_dirty.into());
    words[9] = label as u64;
    words[10] = (label >> 64) as u64;
    words
}

/// The shape, if there is one of a disk of so many sectors.
pub(crate) fn get_geometry(words: &Payload, sectors: u64) -> Option<Geometry> {
    let ((mirrors, cluster_sectors), (clusters, root)) = (split(words[5]), split(words[6]));
    let (serial, was_dirty) = split(words[8]);
    let label = u128::from(words[9]) | u128::from(words[10]) << 64;
    (words[0] == sectors && cluster_sectors > 0).then_some(Geometry {
        start: words[1],
        fat_start: words[2],
        fat_sectors: words[3],
        mirrors,
        data_start: words[4],
        cluster_sectors,
        clusters,
        root,
        info: (words[7] != 0).then_some(words[7]),
        serial,
        label: label.to_le_bytes()[..11].try_into().expect("eleven bytes"),
        was_dirty: was_dirty != 0,
    })
}

/// What the volume knows besides its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreRecord {
    /// Where to look for free clusters.
    pub hint: u32,
    pub marked: Marked,
    /// No handle from this number on was given.
    pub next_handle: u64,
    /// Chains to be freed.
    pub chains: u32,
    /// Clusters of them.
    pub waiting: u32,
    pub report: Option<AuditReport>,
}

impl CoreRecord {
    pub fn put(&self) -> Payload {
        let mut words = [0; super::PAYLOAD];
        words[0] = pair(self.hint, self.marked as u32);
        words[1] = pair(self.waiting, self.chains);
        if let Some(report) = self.report {
            words[2] = 1;
            words[3] = pair(report.files, report.directories);
            words[4] = pair(report.damaged, report.lost_clusters);
        }
        words[5] = self.next_handle;
        words
    }

    pub fn get(words: &Payload) -> Self {
        let (hint, marked) = split(words[0]);
        let (waiting, chains) = split(words[1]);
        let ((files, directories), (damaged, lost_clusters)) = (split(words[3]), split(words[4]));
        let marked = match marked {
            0 => Marked::Clean,
            1 => Marked::Dirty,
            _ => Marked::DirtyBefore,
        };
        let report = AuditReport { files, directories, damaged, lost_clusters };
        let report = (words[2] != 0).then_some(report);
        CoreRecord { hint, marked, next_handle: words[5], chains, waiting, report }
    }
}

/// Bytes that a committed write puts in the place of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedoRecord {
    /// Where the file's entry lies: sector, and byte in it.
    pub entry: (u64, u32),
    /// First byte in the file.
    pub position: u32,
    /// Bytes.
    pub len: u32,
    /// Of the bytes.
    pub check: u64,
}

impl RedoRecord {
    pub fn put(&self) -> Payload {
        let mut words = [0; super::PAYLOAD];
        words[0] = self.entry.0;
        words[1] = pair(self.entry.1, 0);
        words[2] = pair(self.position, self.len);
        words[3] = self.check;
        words
    }

    /// `None` if there are no bytes.
    pub fn get(words: &Payload) -> Option<Self> {
        let (position, len) = split(words[2]);
        let entry = (words[0], split(words[1]).0);
        (len > 0).then_some(RedoRecord { entry, position, len, check: words[3] })
    }
}

/// An open file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandleRecord {
    pub handle: Handle,
    pub access: Access,
    pub owner: Owner,
    /// First cluster of the directory that it is in, and the slot there.
    pub place: (u32, u32),
    /// As [`crate::Identity::file`].
    pub identity: u64,
    /// Where the slot lies: sector, and byte in it.
    pub address: (u64, u32),
    /// For errors; cut to what fits.
    pub path: String,
}

const PATH_WORD: usize = 7;

impl HandleRecord {
    pub fn put(&self) -> Payload {
        let mut words = [0; super::PAYLOAD];
        words[0] = self.handle.0;
        words[1] = self.owner.badge;
        words[2] = pair(self.owner.incarnation, 1 + self.access as u32);
        words[3] = pair(self.place.0, self.place.1);
        words[4] = self.identity;
        words[5] = self.address.0;
        words[6] = pair(self.address.1, 0);
        for (word, bytes) in words[PATH_WORD..].iter_mut().zip(self.path.as_bytes().chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight);
        }
        words
    }

    /// `None` if no file is open.
    pub fn get(words: &Payload) -> Option<Self> {
        let (incarnation, access) = split(words[2]);
        let access = match access {
            1 => Access::Read,
            2 => Access::Write,
            3 => Access::Append,
            _ => return None,
        };
        let mut path = [0; (super::PAYLOAD - PATH_WORD) * 8];
        for (bytes, word) in path.chunks_exact_mut(8).zip(&words[PATH_WORD..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let path = String::from_utf8_lossy(&path);
        Some(HandleRecord {
            handle: Handle(words[0]),
            access,
            owner: Owner { badge: words[1], incarnation },
            place: split(words[3]),
            identity: words[4],
            address: (words[5], split(words[6]).0),
            path: path.trim_end_matches(['\0', char::REPLACEMENT_CHARACTER]).into(),
        })
    }
}

/// What is known of the client of a session. Handles count from 1, so 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientRecord {
    /// The session and the instance of its client.
    pub owner: Owner,
    /// The request that was executed last, of those that carry a number; 0 for none.
    pub request: u64,
    /// The handle that it gave.
    pub opened: Option<Handle>,
    /// The handle that was closed last.
    pub closed: Option<Handle>,
}

impl ClientRecord {
    pub fn put(&self) -> Payload {
        let handle = |handle: Option<Handle>| handle.map_or(0, |handle| handle.0);
        let mut words = [0; super::PAYLOAD];
        words[0] = self.owner.badge;
        words[1] = self.request;
        words[2] = handle(self.opened);
        words[3] = handle(self.closed);
        words[4] = self.owner.incarnation.into();
        words
    }

    pub fn get(words: &Payload) -> Self {
        let handle = |word: u64| (word != 0).then_some(Handle(word));
        ClientRecord {
            owner: Owner { badge: words[0], incarnation: words[4] as u32 },
            request: words[1],
            opened: handle(words[2]),
            closed: handle(words[3]),
        }
    }
}
