//! A disk image of which only what is not zero takes memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Result, Seek, SeekFrom, Write};
use std::path::Path;

const PAGE: usize = 4096;

/// An image; bytes that were never written are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Image {
    /// Zeros.
    pub fn new(size: u64) -> Self {
        Image { size, pages: BTreeMap::new() }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Calls `each` with every page of a range, the place in it, and the part of the range there.
    fn pieces(at: u64, length: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
        let mut done = 0;
        while done < length {
            let place = at + done as u64;
            let within = (place % PAGE as u64) as usize;
            let n = (PAGE - within).min(length - done);
            each(place / PAGE as u64, within, done..done + n);
            done += n;
        }
    }

    /// Fills `bytes` from byte `at` on.
    pub fn read(&self, at: u64, bytes: &mut [u8]) {
        Self::pieces(at, bytes.len(), |page, within, part| {
            let part = &mut bytes[part];
            match self.pages.get(&page) {
                Some(page) => part.copy_from_slice(&page[within..][..part.len()]),
                None => part.fill(0),
            }
        });
    }

    /// Puts `bytes` to byte `at`.
    ///
    /// # Panics
    /// If that is behind the end.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.size, "{} bytes at {at}", bytes.len());
        Self::pieces(at, bytes.len(), |page, within, part| {
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            page[within..][..part.len()].copy_from_slice(&bytes[part]);
        });
    }

    /// Writes the image to a file, with holes.
    ///
    /// # Errors
    /// If the file cannot be made or written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.size)?;
        for (page, bytes) in &self.pages {
            let at = page * PAGE as u64;
            file.seek(SeekFrom::Start(at))?;
            let length = (self.size - at).min(PAGE as u64) as usize;
            file.write_all(&bytes[..length])?;
        }
        Ok(())
    }
}
