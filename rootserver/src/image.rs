//! The boot image and the manifest in it, as the root server reads them.
//!
//! The kernel has verified the image's checksum before it started anything from it; each file's
//! own checksum is verified here before the file is used.

use core::fmt;

use serde::de::DeserializeOwned;
use skink_abi::bootimage::{Header, ImageError, checksum};
use skink_manifest::{
    Broken, Devices, Edge, Experiment, Group, Manifest, Name, Server, Switch, VERSION,
};

use crate::loader::Machine;

/// The image.
#[derive(Clone, Copy, Debug)]
pub struct BootImage {
    bytes: &'static [u8],
    header: Header,
}

/// Why a file is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The image itself is damaged.
    Image(ImageError),
    /// There is no such file.
    Missing,
    /// Its checksum is wrong.
    Checksum,
    /// It is a manifest of this version, or of none.
    Version(u16),
    /// It is no manifest.
    Malformed,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Image(error) => write!(f, "the boot image is damaged ({error:?})"),
            FileError::Missing => write!(f, "it is not in the boot image"),
            FileError::Checksum => write!(f, "its checksum is wrong"),
            FileError::Version(version) => {
                write!(f, "it has version {version}, this system reads {VERSION}")
            }
            FileError::Malformed => write!(f, "it is malformed"),
        }
    }
}

impl BootImage {
    /// Reads the image's header.
    ///
    /// # Errors
    /// It is no boot image.
    pub fn new(bytes: &'static [u8]) -> Result<BootImage, FileError> {
        let header = Header::parse(bytes).map_err(FileError::Image)?;
        Ok(BootImage { bytes, header })
    }

    /// The machine that it is for.
    pub fn machine(&self) -> Option<Machine> {
        Machine::from_boot_image(self.header.arch)
    }

    /// The bytes of the file `prefix` + `name`.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn file(&self, prefix: &str, name: &str) -> Result<&'static [u8], FileError> {
        for index in 0..self.header.file_count {
            let file = self.header.file(self.bytes, index).map_err(FileError::Image)?;
            if file.name().strip_prefix(prefix) == Some(name) {
                let start = file.offset as usize;
                let bytes = &self.bytes[start..start + file.size as usize];
                let good = checksum(bytes) == file.checksum;
                return if good { Ok(bytes) } else { Err(FileError::Checksum) };
            }
        }
        Err(FileError::Missing)
    }
}

/// An empty manifest, to be filled by [`read_manifest`]. All its bytes are zero, so that a static
/// one takes no space in the boot image.
pub const NO_MANIFEST: Manifest = Manifest {
    version: 0,
    target: Name::new(),
    experiment: Some(Experiment {
        unlimited_intensity: false,
        backoff_ms: 0,
        recording: Switch::On,
        heartbeats: Switch::On,
        broken: Broken::Nothing,
        devices: Devices::Obey,
    }),
    groups: heapless::Vec::new(),
    servers: heapless::Vec::new(),
    edges: heapless::Vec::new(),
};

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, FileError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| FileError::Malformed)?;
    *bytes = rest;
    Ok(value)
}

/// Decodes a manifest in place, one entry after the other: the whole would not fit the stack.
/// The encoding is that of the whole `Manifest`.
///
/// # Errors
/// It is no manifest of this version. `manifest` is then incomplete.
pub fn read_manifest(mut bytes: &[u8], manifest: &mut Manifest) -> Result<(), FileError> {
    manifest.version = take(&mut bytes)?;
    if manifest.version != VERSION {
        return Err(FileError::Version(manifest.version));
    }
    manifest.target = take(&mut bytes)?;
    manifest.experiment = take::<Option<Experiment>>(&mut bytes)?;
    manifest.groups.clear();
    for index in 0..take::<usize>(&mut bytes)? {
        let group: Group = take(&mut bytes)?;
        if group.parent.is_some_and(|parent| usize::from(parent) >= index) {
            return Err(FileError::Malformed);
        }
        manifest.groups.push(group).map_err(|_| FileError::Malformed)?;
    }
    manifest.servers.clear();
    for _ in 0..take::<usize>(&mut bytes)? {
        let server: Server = take(&mut bytes)?;
        if server.group.is_some_and(|group| usize::from(group) >= manifest.groups.len()) {
            return Err(FileError::Malformed);
        }
        manifest.servers.push(server).map_err(|_| FileError::Malformed)?;
    }
    manifest.edges.clear();
    for _ in 0..take::<usize>(&mut bytes)? {
        let edge: Edge = take(&mut bytes)?;
        let servers = manifest.servers.len();
        if usize::from(edge.client) >= servers || usize::from(edge.server) >= servers {
            return Err(FileError::Malformed);
        }
        manifest.edges.push(edge).map_err(|_| FileError::Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::tests::{group, server};
    use skink_manifest::{Restart, SessionGrant, Strategy};
    use std::boxed::Box;
    use std::vec::Vec;

    fn sample() -> Manifest {
        let mut manifest = NO_MANIFEST;
        manifest.version = VERSION;
        manifest.target = "host".try_into().unwrap();
        manifest.experiment = Some(Experiment { backoff_ms: 3, ..Experiment::KILLS });
        manifest.groups.push(group("g", Strategy::RestForOne, None)).unwrap();
        manifest.groups.push(group("h", Strategy::OneForAll, Some(0))).unwrap();
        for (name, group) in [("a", None), ("b", Some(1))] {
            let server = Server { group, ..server(name, Restart::Transient) };
            manifest.servers.push(server).unwrap();
        }
        let edge = Edge {
            name: "x".try_into().unwrap(),
            client: 0,
            server: 1,
            protocol: "p".try_into().unwrap(),
            sessions: 2,
            shared_bytes: 4096,
            dma: true,
            grant: SessionGrant::default(),
            may_complain: false,
        };
        manifest.edges.push(edge).unwrap();
        manifest
    }

    fn encode(manifest: &Manifest) -> Vec<u8> {
        let mut buffer = std::vec![0; 65536];
        postcard::to_slice(manifest, &mut buffer).unwrap().to_vec()
    }

    #[test]
    fn reading_in_place_is_reading() {
        let bytes = encode(&sample());
        let mut read = Box::new(NO_MANIFEST);
        read_manifest(&bytes, &mut read).unwrap();
        assert_eq!(*read, sample());
    }

    #[test]
    fn damaged_manifests_are_errors_and_never_panic() {
        let bytes = encode(&sample());
        let mut read = Box::new(NO_MANIFEST);
        for length in 0..bytes.len() {
            assert_eq!(read_manifest(&bytes[..length], &mut read), Err(FileError::Malformed));
        }
        for at in 0..bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                if read_manifest(&damaged, &mut read).is_ok() {
                    let ends = read.edges.iter().flat_map(|e| [e.client, e.server]);
                    assert!(ends.into_iter().all(|s| usize::from(s) < read.servers.len()));
                    let mut groups = read.servers.iter().filter_map(|s| s.group);
                    assert!(groups.all(|g| usize::from(g) < read.groups.len()));
                    let mut parents = read.groups.iter().enumerate();
                    assert!(parents.all(|(at, g)| g.parent.is_none_or(|p| usize::from(p) < at)));
                }
            }
        }
        let mut other = bytes;
        other[0] = 9;
        assert_eq!(read_manifest(&other, &mut read), Err(FileError::Version(9)));
    }
}
