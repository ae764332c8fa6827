//! The files of measurements: one that is read, whose every byte is known, and one that is written.

use alloc::format;
use alloc::vec;

use libipc::abi::pattern;
use skink_protocols::file::client::{File, remove};
use skink_protocols::file::{Access, Create};

use super::files::open;
use super::measure::PIECE;
use crate::context::{Context, Failure, Outcome};

/// The file that is read: large, and made by the host tool.
pub const SOURCE: &str = "/disk/BIG.BIN";
/// The file that is written.
pub const TARGET: &str = "/disk/BENCH.TMP";
/// Bytes written.
pub const WRITTEN: u64 = 16 << 20;
/// Bytes of a small read.
pub const BLOCK: usize = 4096;

/// A position of a read that neither cache nor read-ahead has.
pub fn far_apart(number: u64, blocks: u64) -> u64 {
    (number * 7919 + 13) % blocks * BLOCK as u64
}

/// [`SOURCE`], open.
pub struct Source {
    /// The file.
    pub file: File,
    /// Its bytes.
    pub size: u64,
    /// Its whole blocks, at least 1.
    pub blocks: u64,
}

impl Source {
    /// Opens it.
    pub fn open(context: &Context<'_>) -> Result<Source, Failure> {
        let (file, size) = open(context, SOURCE, Access::Read, Create::Never)?;
        if size < BLOCK as u64 {
            return Err(Failure::at(SOURCE, format!("{size} bytes are too few to measure")));
        }
        Ok(Source { file, size, blocks: size / BLOCK as u64 })
    }

    /// What lies in the shared memory must be `wanted` bytes, and those of the file at `position`.
    pub fn check(&self, position: u64, length: usize, wanted: usize) -> Outcome {
        if length != wanted {
            let text = format!("{length} bytes at {position} in place of {wanted}");
            return Err(Failure::at(SOURCE, text));
        }
        let mut bytes = vec![0; length];
        self.file.shared().read(0, &mut bytes);
        match pattern::first_wrong(position, &bytes) {
            None => Ok(()),
            Some(at) => {
                let text = format!("byte {at} is not what the host tool put there");
                Err(Failure::at(SOURCE, text))
            }
        }
    }

    /// Reads all of it, and checks it.
    pub fn check_all(&self, context: &Context<'_>) -> Outcome {
        let piece = PIECE.min(self.file.shared().size());
        let mut position = 0;
        while position < self.size {
            context.check_interrupt()?;
            let wanted = piece.min((self.size - position) as usize);
            let length = self.file.read_shared(position, wanted)?;
            self.check(position, length, wanted)?;
            position += length as u64;
        }
        Ok(())
    }
}

/// [`TARGET`] must have [`WRITTEN`] bytes, and each must be `seed`.
pub fn check_written(context: &Context<'_>, seed: u8) -> Outcome {
    let (file, size) = open(context, TARGET, Access::Read, Create::Never)?;
    if size != WRITTEN {
        return Err(Failure::at(TARGET, format!("{size} bytes in place of {WRITTEN}")));
    }
    let mut bytes = vec![0; PIECE];
    let mut position = 0;
    while position < WRITTEN {
        let length = file.read_at(position, &mut bytes)?;
        if length == 0 {
            return Err(Failure::at(TARGET, format!("it ends at {position}, not at {WRITTEN}")));
        }
        if let Some(bad) = bytes[..length].iter().position(|byte| *byte != seed) {
            let at = position + bad as u64;
            let text = format!("byte {at} is {}, not {seed}", bytes[bad]);
            return Err(Failure::at(TARGET, text));
        }
        position += length as u64;
    }
    Ok(())
}

/// Removes [`TARGET`].
pub fn remove_target(context: &Context<'_>) -> Outcome {
    let (client, inner) = context.resolve(TARGET)?;
    Ok(remove(&client, &inner)?)
}
