//! The boot image: one file, made by the host tool, handed to the kernel by the boot loader
//! (`-initrd`). It holds the flattened root task, which the kernel loads without knowing any
//! file format, and named files, which only user space reads.
//!
//! All numbers are little endian. Offsets are from the start of the image; data of segments and
//! files starts at multiples of 4,096. Layout: [`Header`], then `segment_count` [`Segment`]s,
//! then `file_count` [`File`] entries, then data.
//!
//! Names of files: `manifest` (the checked system manifest, `skink-manifest`'s encoding),
//! `server/NAME` (the ELF file of a server), anything else is for `bootfs` (which shows all).

/// First eight bytes.
pub const MAGIC: [u8; 8] = *b"SKINKIMG";
/// Version of this layout.
pub const VERSION: u32 = 1;
/// [`Header::arch`] of x86_64.
pub const ARCH_X86_64: u32 = 1;
/// [`Header::arch`] of aarch64.
pub const ARCH_AARCH64: u32 = 2;
/// Bytes of a [`Header`].
pub const HEADER_SIZE: usize = 64;
/// Bytes of a [`Segment`].
pub const SEGMENT_SIZE: usize = 40;
/// Bytes of a [`File`] entry.
pub const FILE_SIZE: usize = 96;
/// Bytes of a file's name at most.
pub const NAME_SIZE: usize = 64;

/// The head of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`ARCH_X86_64`] or [`ARCH_AARCH64`].
    pub arch: u32,
    /// Bytes of the whole image.
    pub total_size: u64,
    /// Entry point of the root task.
    pub entry: u64,
    /// Loadable segments of the root task.
    pub segment_count: u32,
    /// Files.
    pub file_count: u32,
    /// [`checksum`] of what the root task needs to start: the bytes from [`HEADER_SIZE`] to the
    /// first file's data ([`Header::guarded`]). Files have checksums of their own, so that one
    /// that is damaged does not keep the rest from starting.
    pub checksum: u64,
}

/// One segment of the root task, already relocated to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address, a multiple of 4,096.
    pub vaddr: u64,
    /// Where its bytes are in the image.
    pub offset: u64,
    /// Bytes in the image.
    pub file_size: u64,
    /// Bytes in memory; those beyond `file_size` are 0.
    pub mem_size: u64,
    /// [`crate::invocation::map_rights`].
    pub rights: u64,
}

/// One named file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// UTF-8, padded with zero bytes.
    pub name: [u8; NAME_SIZE],
    /// Where its bytes are.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// FNV-1a of them.
    pub checksum: u64,
}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Shorter than its own header or tables say.
    Truncated,
    /// Not a boot image.
    BadMagic,
    /// Of another version of the tool.
    BadVersion(u32),
    /// The checksum does not fit: the image was damaged.
    BadChecksum,
    /// A segment or file lies outside the image or is not aligned.
    BadEntry(u32),
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo), taken eight bytes a step for speed: each full
/// little-endian word is one step, the remaining bytes are one step each.
pub fn checksum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Header {
    /// Reads the header and checks magic and version, not the checksum.
    ///
    /// # Errors
    /// [`ImageError`], as its variants say.
    pub fn parse(image: &[u8]) -> Result<Header, ImageError> {
        Self::parse_tables(image, image.len() as u64)
    }

    /// As [`Header::parse`], for a reader that has only the beginning of an image of `size`
    /// bytes at hand: header and tables must be in it.
    ///
    /// # Errors
    /// [`ImageError`], as its variants say.
    pub fn parse_tables(image: &[u8], size: u64) -> Result<Header, ImageError> {
        if image.len() < HEADER_SIZE {
            return Err(ImageError::Truncated);
        }
        if image[..8] != MAGIC {
            return Err(ImageError::BadMagic);
        }
        let word = |at| u32_at(image, at).ok_or(ImageError::Truncated);
        let long = |at| u64_at(image, at).ok_or(ImageError::Truncated);
        if word(8)? != VERSION {
            return Err(ImageError::BadVersion(word(8)?));
        }
        let header = Header {
            arch: word(12)?,
            total_size: long(16)?,
            entry: long(24)?,
            segment_count: word(32)?,
            file_count: word(36)?,
            checksum: long(40)?,
        };
        let tables = HEADER_SIZE as u64
            + u64::from(header.segment_count) * SEGMENT_SIZE as u64
            + u64::from(header.file_count) * FILE_SIZE as u64;
        if header.total_size > size || tables > image.len() as u64 || tables > header.total_size {
            return Err(ImageError::Truncated);
        }
        Ok(header)
    }

    /// The bytes of the header.
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.arch.to_le_bytes());
        out[16..24].copy_from_slice(&self.total_size.to_le_bytes());
        out[24..32].copy_from_slice(&self.entry.to_le_bytes());
        out[32..36].copy_from_slice(&self.segment_count.to_le_bytes());
        out[36..40].copy_from_slice(&self.file_count.to_le_bytes());
        out[40..48].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    /// The bytes that [`Header::checksum`] stands for; empty if the tables make no sense.
    pub fn guarded<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        let offsets = (0..self.file_count).map(|index| self.file(image, index).map(|f| f.offset));
        let end = offsets.fold(self.total_size, |end, offset| end.min(offset.unwrap_or(end)));
        image.get(HEADER_SIZE..end as usize).unwrap_or(&[])
    }

    /// Checks the tables and the root task. Files are checked by whoever uses them.
    ///
    /// # Errors
    /// [`ImageError::BadChecksum`].
    pub fn verify(&self, image: &[u8]) -> Result<(), ImageError> {
        let is_whole = checksum(self.guarded(image)) == self.checksum;
        if is_whole { Ok(()) } else { Err(ImageError::BadChecksum) }
    }

    /// Reads segment `index`.
    ///
    /// # Errors
    /// [`ImageError::BadEntry`] if it lies outside the image, is unaligned or shrinks in memory.
    pub fn segment(&self, image: &[u8], index: u32) -> Result<Segment, ImageError> {
        let bad = ImageError::BadEntry(index);
        if index >= self.segment_count {
            return Err(bad);
        }
        let at = HEADER_SIZE + index as usize * SEGMENT_SIZE;
        let long = |n: usize| u64_at(image, at + 8 * n).ok_or(ImageError::Truncated);
        let segment = Segment {
            vaddr: long(0)?,
            offset: long(1)?,
            file_size: long(2)?,
            mem_size: long(3)?,
            rights: long(4)?,
        };
        let end = segment.offset.checked_add(segment.file_size).ok_or(bad)?;
        let aligned = (segment.vaddr | segment.offset).is_multiple_of(crate::PAGE_SIZE as u64);
        if end > self.total_size || !aligned || segment.mem_size < segment.file_size {
            return Err(bad);
        }
        Ok(segment)
    }

    /// Reads file entry `index`.
    ///
    /// # Errors
    /// [`ImageError::BadEntry`] if it lies outside the image.
    pub fn file(&self, image: &[u8], index: u32) -> Result<File, ImageError> {
        let bad = ImageError::BadEntry(index);
        if index >= self.file_count {
            return Err(bad);
        }
        let at =
            HEADER_SIZE + self.segment_count as usize * SEGMENT_SIZE + index as usize * FILE_SIZE;
        let name = *image.get(at..).and_then(|b| b.first_chunk()).ok_or(ImageError::Truncated)?;
        let long = |n: usize| u64_at(image, at + NAME_SIZE + 8 * n).ok_or(ImageError::Truncated);
        let file = File { name, offset: long(0)?, size: long(1)?, checksum: long(2)? };
        let end = file.offset.checked_add(file.size).ok_or(bad)?;
        if end > self.total_size { Err(bad) } else { Ok(file) }
    }
}

impl Segment {
    /// The bytes of the entry.
    pub fn to_bytes(self) -> [u8; SEGMENT_SIZE] {
        let mut out = [0; SEGMENT_SIZE];
        let words = [self.vaddr, self.offset, self.file_size, self.mem_size, self.rights];
        for (place, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        out
    }
}

impl File {
    /// The name up to its padding; empty if it is not UTF-8.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(NAME_SIZE);
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }

    /// The bytes of the entry.
    pub fn to_bytes(self) -> [u8; FILE_SIZE] {
        let mut out = [0; FILE_SIZE];
        out[..NAME_SIZE].copy_from_slice(&self.name);
        out[64..72].copy_from_slice(&self.offset.to_le_bytes());
        out[72..80].copy_from_slice(&self.size.to_le_bytes());
        out[80..88].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ([u8; 8200], Header) {
        let mut image = [7u8; 8200];
        let segment =
            Segment { vaddr: 0x1000, offset: 4096, file_size: 104, mem_size: 200, rights: 3 };
        let mut file = File { name: [0; NAME_SIZE], offset: 8192, size: 5, checksum: 1 };
        file.name[..5].copy_from_slice(b"a/b.c");
        image[64..104].copy_from_slice(&segment.to_bytes());
        image[104..200].copy_from_slice(&file.to_bytes());
        let mut header = Header {
            arch: ARCH_X86_64,
            total_size: 8200,
            entry: 0x1000,
            segment_count: 1,
            file_count: 1,
            checksum: 0,
        };
        header.checksum = checksum(&image[HEADER_SIZE..8192]);
        image[..64].copy_from_slice(&header.to_bytes());
        (image, header)
    }

    #[test]
    fn an_image_round_trips() {
        let (image, header) = image();
        assert_eq!(Header::parse(&image), Ok(header));
        assert_eq!(header.verify(&image), Ok(()));
        assert_eq!(header.segment(&image, 0).unwrap().mem_size, 200);
        assert_eq!(header.file(&image, 0).unwrap().name(), "a/b.c");
        assert_eq!(header.file(&image, 1), Err(ImageError::BadEntry(1)));
    }

    #[test]
    fn damage_is_noticed() {
        let (mut image, header) = image();
        image[8195] ^= 1;
        assert_eq!(header.verify(&image), Ok(()), "a file's own checksum is for that");
        image[4150] ^= 1;
        assert_eq!(header.verify(&image), Err(ImageError::BadChecksum));
        assert_eq!(Header::parse(&image[..4000]), Err(ImageError::Truncated));
        image[0] = 0;
        assert_eq!(Header::parse(&image), Err(ImageError::BadMagic));
    }
}
