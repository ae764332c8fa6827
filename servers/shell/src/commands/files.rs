//! Commands on the contents of files.

use alloc::string::String;
use alloc::vec;
use core::fmt::Write;

use sha2::{Digest, Sha256};
use skink_protocols::file::client::File;
use skink_protocols::file::{Access, Create};

use super::misused;
use crate::context::{Context, Failure, Outcome};
use crate::format;

/// Bytes read or written at once.
const PIECE: usize = 256 * 1024;

/// Opens a file by its whole path; with its size.
pub fn open(
    context: &Context<'_>,
    path: &str,
    access: Access,
    create: Create,
) -> Result<(File, u64), Failure> {
    let (client, inner) = context.resolve(path)?;
    let (file, metadata) =
        File::open(client, &inner, access, create).map_err(|e| Failure::at(path, e))?;
    Ok((file, metadata.size))
}

/// Opens a file and hands its bytes, piece by piece, to `take`.
fn each_piece(
    context: &mut Context<'_>,
    path: &str,
    range: (u64, u64),
    take: impl FnMut(&mut Context<'_>, u64, &[u8]) -> Outcome,
) -> Outcome {
    let (file, _) = open(context, path, Access::Read, Create::Never)?;
    each_piece_of(context, &file, path, range, take)
}

/// The same of a file that is open.
fn each_piece_of(
    context: &mut Context<'_>,
    file: &File,
    path: &str,
    range: (u64, u64),
    mut take: impl FnMut(&mut Context<'_>, u64, &[u8]) -> Outcome,
) -> Outcome {
    let mut buffer = vec![0; PIECE.min(file.shared().size())];
    let (mut position, end) = range;
    while position < end {
        context.check_interrupt()?;
        let want = ((end - position).min(buffer.len() as u64)) as usize;
        let length =
            file.read_at(position, &mut buffer[..want]).map_err(|e| Failure::at(path, e))?;
        if length == 0 {
            break;
        }
        take(context, position, &buffer[..length])?;
        position += length as u64;
    }
    Ok(())
}

pub fn cat(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if words.is_empty() {
        return Err(misused("cat"));
    }
    for path in words {
        each_piece(context, path, (0, u64::MAX), |context, _, bytes| {
            context.out.write(bytes);
            Ok(())
        })?;
    }
    Ok(())
}

pub fn hexdump(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let number = |word: Option<&String>, default| match word {
        None => Ok(default),
        Some(word) => format::number(word).ok_or_else(|| misused("hexdump")),
    };
    let (path, rest) = words.split_first().ok_or_else(|| misused("hexdump"))?;
    let (offset, length) = (number(rest.first(), 0)?, number(rest.get(1), u64::MAX)?);
    if rest.len() > 2 {
        return Err(misused("hexdump"));
    }
    let end = offset.saturating_add(length);
    each_piece(context, path, (offset, end), |context, position, bytes| {
        // The output takes everything.
        let _ = format::hexdump(position, bytes, &mut context.out);
        Ok(())
    })
}

fn put_words(context: &mut Context<'_>, name: &str, words: &[String], create: Create) -> Outcome {
    let (path, words) = words.split_first().ok_or_else(|| misused(name))?;
    let mut text = words.join(" ");
    text.push('\n');
    let (file, size) = open(context, path, Access::Write, create)?;
    let position = if create == Create::Truncate { 0 } else { size };
    file.write_at(position, text.as_bytes()).map_err(|e| Failure::at(path, e))
}

pub fn write(context: &mut Context<'_>, words: &[String]) -> Outcome {
    put_words(context, "write", words, Create::Truncate)
}

pub fn append(context: &mut Context<'_>, words: &[String]) -> Outcome {
    put_words(context, "append", words, Create::IfMissing)
}

pub fn cp(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let [from, to] = words else {
        return Err(misused("cp"));
    };
    // Both before anything is changed: names do not tell whether they lead to one file, its identity
    // does. And if the source cannot be read, the destination stays as it is.
    let (source, _) = open(context, from, Access::Read, Create::Never)?;
    let (target, size) = open(context, to, Access::Write, Create::IfMissing)?;
    if source.is_same(&target) {
        return Err(Failure::at(to, format_args!("it is the same file as {from}")));
    }
    if size > 0 {
        target.truncate(0).map_err(|e| Failure::at(to, e))?;
    }
    each_piece_of(context, &source, from, (0, u64::MAX), |_, position, bytes| {
        target.write_at(position, bytes).map_err(|e| Failure::at(to, e))
    })
}

/// A stream of pseudo-random bytes (xorshift64*), the same for the same seed everywhere.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}

pub fn fill(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (path, size, seed) = match words {
        [path, size] => (path, size, None),
        [path, size, seed] => (path, size, Some(seed)),
        _ => return Err(misused("fill")),
    };
    let size = format::number(size).ok_or_else(|| misused("fill"))?;
    let seed = match seed {
        None => 1,
        Some(seed) => format::number(seed).ok_or_else(|| misused("fill"))?,
    };
    let (file, _) = open(context, path, Access::Write, Create::Truncate)?;
    let mut noise = Noise(seed.max(1));
    let mut buffer = vec![0; PIECE.min(file.shared().size())];
    let mut position = 0;
    while position < size {
        context.check_interrupt()?;
        let length = ((size - position).min(buffer.len() as u64)) as usize;
        noise.fill(&mut buffer[..length]);
        file.write_at(position, &buffer[..length]).map_err(|e| Failure::at(path, e))?;
        position += length as u64;
    }
    Ok(())
}

pub fn sha256(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if words.is_empty() {
        return Err(misused("sha256"));
    }
    for path in words {
        let mut hash = Sha256::new();
        each_piece(context, path, (0, u64::MAX), |_, _, bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        let mut text = String::new();
        for byte in hash.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        context.line(format_args!("{text}  {path}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_depends_on_the_seed_and_not_on_the_pieces() {
        let (mut all, mut parts, mut other) = ([0; 64], [0; 64], [0; 64]);
        Noise(7).fill(&mut all);
        let mut noise = Noise(7);
        noise.fill(&mut parts[..24]);
        noise.fill(&mut parts[24..]);
        Noise(8).fill(&mut other);
        assert_eq!(all, parts);
        assert_ne!(all, other);
    }
}
