//! A disk that lies: an image served to QEMU by the NBD protocol (fixed newstyle, simple replies),
//! truly but for one lie.
//!
//! Only large writes are lied about, which are a file's content: what is wrong is then not found by
//! the file system's own checks, but by whoever compares bytes.

use anyhow::{Context, Result, bail, ensure};
use skink_abi::pattern;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// From [`LyingDisk::begin`] on, one wrong byte in each piece of [`pattern`] that is read.
    WrongByte,
    /// The first large write before each flush is undone behind it.
    LostWrite,
    /// The first large write before each flush is done only at the next one.
    EarlySuccess,
}

/// Bytes of a large write.
const LARGE: usize = 32 << 10;
/// The longest request that is served, as QEMU's own limit.
const LONGEST: usize = 32 << 20;

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 1 << 31 | 1;
/// Fixed newstyle, no zeroes behind the export.
const HANDSHAKE_FLAGS: u16 = 1 | 2;
/// There are flags, and flushes.
const EXPORT_FLAGS: u16 = 1 | 4;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// The server. It ends with this value.
#[derive(Debug)]
pub struct LyingDisk {
    socket: PathBuf,
    has_begun: Arc<AtomicBool>,
}

impl LyingDisk {
    /// Serves the image at a socket of its own.
    ///
    /// # Errors
    /// If there can be no such socket, or the image cannot be opened.
    pub fn start(image: &Path, lie: Lie) -> Result<LyingDisk> {
        let name = crate::workspace::sibling(Path::new("skink-disk.nbd"));
        // Sockets' paths are short.
        let socket = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listening at {}", socket.display()))?;
        let file = File::options().read(true).write(true).open(image)?;
        let has_begun = Arc::new(AtomicBool::new(false));
        let mut volume = Volume { file, lie, has_begun: has_begun.clone(), last: None, late: None };
        // A connection at a time: each boot's QEMU has one. A broken one is QEMU's end.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => drop(serve(stream, &mut volume)),
                    Err(_) => break,
                }
            }
        });
        Ok(LyingDisk { socket, has_begun })
    }

    /// From now on it may be wrong.
    pub fn begin(&self) {
        self.has_begun.store(true, Relaxed);
    }

    /// QEMU's words for a disk on PCI.
    pub fn arguments(&self) -> Vec<String> {
        let drive = format!(
            "if=none,id=disk,format=raw,file.driver=nbd,file.server.type=unix,file.server.path={}",
            self.socket.display()
        );
        let device = "virtio-blk-pci,drive=disk,disable-legacy=on";
        ["-drive", &drive, "-device", device].map(String::from).into()
    }
}

impl Drop for LyingDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Bytes at an offset.
type Piece = (u64, Vec<u8>);

struct Volume {
    file: File,
    lie: Lie,
    has_begun: Arc<AtomicBool>,
    /// Since the last flush: what was there before the write that is to be lost, or what is to be
    /// written late.
    last: Option<Piece>,
    /// What is written at the next flush.
    late: Option<Piece>,
}

impl Volume {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(bytes, offset)?;
        if self.lie == Lie::WrongByte && self.has_begun.load(Relaxed) && pattern::is_part(bytes) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> std::io::Result<()> {
        let is_its_turn = bytes.len() >= LARGE && self.last.is_none();
        match self.lie {
            Lie::LostWrite if is_its_turn => {
                let mut before = vec![0; bytes.len()];
                self.file.read_exact_at(&mut before, offset)?;
                self.last = Some((offset, before));
            }
            Lie::EarlySuccess if is_its_turn => {
                self.last = Some((offset, bytes));
                return Ok(());
            }
            _ => {}
        }
        self.file.write_all_at(&bytes, offset)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let due = match self.lie {
            Lie::WrongByte => None,
            Lie::LostWrite => self.last.take(),
            Lie::EarlySuccess => core::mem::replace(&mut self.late, self.last.take()),
        };
        match due {
            Some((offset, bytes)) => self.file.write_all_at(&bytes, offset),
            None => Ok(()),
        }
    }
}

fn number<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u32_of(stream: &mut UnixStream) -> Result<u32> {
    Ok(u32::from_be_bytes(number(stream)?))
}

fn u64_of(stream: &mut UnixStream) -> Result<u64> {
    Ok(u64::from_be_bytes(number(stream)?))
}

fn serve(mut stream: UnixStream, volume: &mut Volume) -> Result<()> {
    negotiate(&mut stream, volume.file.metadata()?.len())?;
    loop {
        ensure!(u32_of(&mut stream)? == REQUEST_MAGIC, "no request");
        let [_, _, high, low] = number(&mut stream)?;
        let (cookie, offset) = (number::<8>(&mut stream)?, u64_of(&mut stream)?);
        let length = u32_of(&mut stream)? as usize;
        ensure!(length <= LONGEST, "a request of {length} bytes");
        let mut bytes = vec![0; length];
        let done = match u16::from_be_bytes([high, low]) {
            0 => volume.read(offset, &mut bytes),
            1 => {
                stream.read_exact(&mut bytes)?;
                volume.write(offset, core::mem::take(&mut bytes))
            }
            2 => return Ok(()),
            3 => volume.flush(),
            other => bail!("a request of type {other}, which was not offered"),
        };
        let error = done.map_or(5u32, |()| 0);
        let head = [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie].concat();
        stream.write_all(&head)?;
        if error == 0 {
            stream.write_all(&bytes)?;
        }
    }
}

/// Both sides say what they can; it ends with the export's size.
fn negotiate(stream: &mut UnixStream, size: u64) -> Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT")?;
    stream.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _flags = u32_of(stream)?;
    loop {
        ensure!(u64_of(stream)? == OPTION_MAGIC, "no option");
        let (option, length) = (u32_of(stream)?, u32_of(stream)? as usize);
        ensure!(length <= LARGE, "an option of {length} bytes");
        stream.read_exact(&mut vec![0; length])?;
        let mut reply = |kind: u32, data: &[u8]| {
            let head = [option, kind, data.len() as u32].map(u32::to_be_bytes).concat();
            stream.write_all(&[&OPTION_REPLY.to_be_bytes()[..], &head, data].concat())
        };
        if option == OPTION_GO {
            // The information of type 0 is the export.
            let export = [&[0, 0][..], &size.to_be_bytes(), &EXPORT_FLAGS.to_be_bytes()].concat();
            reply(REPLY_INFO, &export)?;
            reply(REPLY_ACK, &[])?;
            return Ok(());
        }
        reply(REPLY_UNSUPPORTED, &[])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(lie: Lie, test: impl FnOnce(&mut Volume)) {
        let path = crate::workspace::sibling(&std::env::temp_dir().join("skink-lying-disk"));
        std::fs::write(&path, vec![0; 4 * LARGE]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        test(&mut Volume { file, lie, has_begun: Arc::default(), last: None, late: None });
    }

    fn at(volume: &Volume, offset: usize) -> u8 {
        let mut bytes = [0; 512];
        volume.read(offset as u64, &mut bytes).unwrap();
        bytes[0]
    }

    fn write(volume: &mut Volume, offset: usize, length: usize, byte: u8) {
        volume.write(offset as u64, vec![byte; length]).unwrap();
    }

    #[test]
    fn the_first_large_write_before_a_flush_is_lost_behind_it() {
        volume(Lie::LostWrite, |volume| {
            write(volume, 0, 512, 1);
            write(volume, LARGE, LARGE, 2);
            write(volume, 2 * LARGE, LARGE, 3);
            assert_eq!([0, LARGE, 2 * LARGE].map(|offset| at(volume, offset)), [1, 2, 3]);
            volume.flush().unwrap();
            assert_eq!([0, LARGE, 2 * LARGE].map(|offset| at(volume, offset)), [1, 0, 3]);
            volume.flush().unwrap();
            assert_eq!([0, LARGE, 2 * LARGE].map(|offset| at(volume, offset)), [1, 0, 3]);
        });
    }

    #[test]
    fn what_is_said_to_be_done_early_is_done_a_flush_late() {
        volume(Lie::EarlySuccess, |volume| {
            write(volume, LARGE, LARGE, 2);
            write(volume, 2 * LARGE, LARGE, 3);
            volume.flush().unwrap();
            assert_eq!([LARGE, 2 * LARGE].map(|offset| at(volume, offset)), [0, 3]);
            volume.flush().unwrap();
            assert_eq!([LARGE, 2 * LARGE].map(|offset| at(volume, offset)), [2, 3]);
        });
    }

    #[test]
    fn bytes_of_the_file_are_wrong_from_when_it_begins_and_others_never() {
        volume(Lie::WrongByte, |volume| {
            let mut bytes = vec![0; 4096];
            pattern::fill(0, &mut bytes);
            volume.write(0, bytes.clone()).unwrap();
            let wrong = |volume: &Volume| {
                let mut bytes = vec![0; 4096];
                volume.read(0, &mut bytes).unwrap();
                pattern::first_wrong(0, &bytes)
            };
            assert_eq!(wrong(volume), None);
            volume.has_begun.store(true, Relaxed);
            assert_eq!((wrong(volume), at(volume, LARGE)), (Some(2048), 0));
        });
    }
}
