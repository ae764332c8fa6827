//! Directory entries in shared memory: each a length (u16, little endian) and that many bytes of
//! `postcard`.

use super::Metadata;
use libipc::Shared;
use serde::{Deserialize, Serialize};

/// Bytes of one entry at most, with its length: a name of 255 UTF-16 units, and the metadata.
pub const MAX_ENTRY_BYTES: usize = 1024;
const HEADER_BYTES: usize = 2;

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub metadata: Metadata,
}

/// Writes entries into a span, for the server.
#[derive(Debug)]
pub struct EntryWriter {
    memory: Shared,
    length: usize,
}

impl EntryWriter {
    /// Writes to the beginning of `memory`.
    pub const fn new(memory: Shared) -> Self {
        EntryWriter { memory, length: 0 }
    }

    /// Appends an entry; says whether it fitted.
    pub fn push(&mut self, entry: &Entry<'_>) -> bool {
        let mut bytes = [0; MAX_ENTRY_BYTES];
        let Ok(encoded) = postcard::to_slice(entry, &mut bytes[HEADER_BYTES..]) else {
            return false;
        };
        let size = encoded.len();
        bytes[..HEADER_BYTES].copy_from_slice(&(size as u16).to_le_bytes());
        let total = HEADER_BYTES + size;
        if self.memory.size() - self.length < total {
            return false;
        }
        self.memory.write(self.length, &bytes[..total]);
        self.length += total;
        true
    }

    /// Bytes written.
    pub const fn length(&self) -> u32 {
        self.length as u32
    }
}

/// Reads entries back, for the client. What is not an entry ends the listing, and is told
/// ([`EntryReader::is_whole`]).
#[derive(Debug)]
pub struct EntryReader {
    memory: Shared,
    at: usize,
    length: usize,
    bytes: [u8; MAX_ENTRY_BYTES],
}

impl EntryReader {
    /// Reads `length` bytes from the beginning of `memory`.
    pub fn new(memory: Shared, length: u32) -> Self {
        EntryReader {
            memory,
            at: 0,
            length: memory.size().min(length as usize),
            bytes: [0; MAX_ENTRY_BYTES],
        }
    }

    /// The next entry.
    pub fn next_entry(&mut self) -> Option<Entry<'_>> {
        if self.length - self.at < HEADER_BYTES {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        self.memory.read(self.at, &mut header);
        let size = usize::from(u16::from_le_bytes(header));
        let start = self.at + HEADER_BYTES;
        if size > MAX_ENTRY_BYTES || size > self.length - start {
            return None;
        }
        self.memory.read(start, &mut self.bytes[..size]);
        let entry = postcard::from_bytes(&self.bytes[..size]).ok()?;
        self.at = start + size;
        Some(entry)
    }

    /// Whether everything has been read, and was entries.
    pub const fn is_whole(&self) -> bool {
        self.at == self.length
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DateTime, Kind};
    use super::*;

    fn metadata(size: u64) -> Metadata {
        Metadata {
            kind: Kind::File,
            size,
            is_read_only: false,
            modified: Some(DateTime {
                year: 2026,
                month: 11,
                day: 21,
                hour: 1,
                minute: 2,
                second: 3,
            }),
        }
    }

    #[test]
    fn entries_round_trip_until_the_span_is_full() {
        let memory = Shared::leaked(1000);
        let mut writer = EntryWriter::new(memory);
        let long = "x".repeat(765);
        let names = ["A", "", long.as_str(), "B"];
        let mut written = 0;
        for (i, name) in names.iter().cycle().take(12).enumerate() {
            let metadata = metadata(i as u64);
            if !writer.push(&Entry { name, metadata }) {
                break;
            }
            written += 1;
        }
        assert!((4..12).contains(&written), "{written}");
        let mut reader = EntryReader::new(memory, writer.length());
        for i in 0..written {
            let metadata = metadata(i as u64);
            let name = names[i % 4];
            assert_eq!(reader.next_entry(), Some(Entry { name, metadata }));
        }
        assert_eq!(reader.next_entry(), None);
    }

    #[test]
    fn garbage_ends_a_listing() {
        let memory = Shared::leaked(64);
        memory.write(0, &[0xff; 64]);
        let mut reader = EntryReader::new(memory, 1 << 20);
        assert_eq!(reader.next_entry(), None);
        assert_eq!(reader.next_entry(), None);
        assert_eq!(EntryReader::new(memory, 1).next_entry(), None);
    }
}
