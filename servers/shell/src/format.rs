//! How things look: hex dumps, sizes, times, columns.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use skink_manifest::{Access, Channel, SessionGrant};

use crate::parse;

/// One line of a hex dump: offset, sixteen bytes, the same as text (as `hexdump -C`).
fn hexdump_line(offset: u64, bytes: &[u8], out: &mut String) {
    let _ = write!(out, "{offset:08x} ");
    for i in 0..16 {
        if i % 8 == 0 {
            out.push(' ');
        }
        match bytes.get(i) {
            Some(byte) => {
                let _ = write!(out, "{byte:02x} ");
            }
            None => out.push_str("   "),
        }
    }
    out.push_str(" |");
    out.extend(bytes.iter().map(|b| if (0x20..0x7f).contains(b) { *b as char } else { '.' }));
    out.push_str("|\n");
}

/// A hex dump of bytes that stand at `offset`, given out in pieces of some lines.
///
/// # Errors
/// As `out` says.
pub fn hexdump(offset: u64, bytes: &[u8], out: &mut impl Write) -> core::fmt::Result {
    /// Bytes that are dumped at once.
    const PIECE: usize = 16 * 64;
    let mut text = String::new();
    for (i, piece) in bytes.chunks(PIECE).enumerate() {
        let offset = offset + (PIECE * i) as u64;
        for (i, line) in piece.chunks(16).enumerate() {
            hexdump_line(offset + 16 * i as u64, line, &mut text);
        }
        out.write_str(&text)?;
        text.clear();
    }
    Ok(())
}

/// A count of bytes for people: at most four characters and a unit of 1,024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes;
    let mut tenths = 0;
    while value >= 1024 && unit + 1 < UNITS.len() {
        tenths = value % 1024 * 10 / 1024;
        value /= 1024;
        unit += 1;
    }
    if tenths == 0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value}.{tenths} {}", UNITS[unit])
    }
}

/// A time span in seconds with so many nanoseconds, to the millisecond.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// Rows as left-aligned columns two spaces apart; columns whose index is in `right` are
/// right-aligned.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let start = out.len();
        for (column, cell) in row.iter().enumerate() {
            let gap = widths[column] - cell.chars().count();
            let (before, after) = if right.contains(&column) { (gap, 0) } else { (0, gap) };
            out.extend(core::iter::repeat_n(' ', before));
            out.push_str(cell);
            out.extend(core::iter::repeat_n(' ', after + 2));
        }
        let end = out[start..].trim_end().len();
        out.truncate(start + end);
        out.push('\n');
    }
    out
}

/// Parses a decimal number, with `k`, `m` or `g` for powers of 1,024 behind it.
pub fn number(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// How much of its protocol a session is good for, behind its name; nothing if that is all.
pub fn grant(grant: &SessionGrant) -> String {
    let channel = grant.channel.map(|channel| match channel {
        Channel::Terminal => "the terminal",
        Channel::Exec => "the host's channel",
    });
    let access = match grant.access {
        Access::ReadWrite => None,
        Access::Read => Some("only reading"),
        Access::Write => Some("only writing"),
    };
    // A folder's name may be a file's words, and is shown as one word.
    let folder = grant.folder.as_deref().map(parse::quoted);
    let parts = channel.into_iter().chain(folder.as_deref()).chain(access);
    parts.fold(String::new(), |text, part| text + ", " + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_what_is_less_than_all() {
        let all = SessionGrant::default();
        assert_eq!(grant(&all), "");
        let folder = SessionGrant { folder: Some("/A".try_into().unwrap()), ..all.clone() };
        assert_eq!(grant(&SessionGrant { access: Access::Read, ..folder }), ", /A, only reading");
        let odd = SessionGrant { folder: Some("/A), all".try_into().unwrap()), ..all.clone() };
        assert_eq!(grant(&odd), ", \"/A), all\"");
        let screen = SessionGrant { channel: Some(Channel::Terminal), ..all };
        let output = SessionGrant { access: Access::Write, ..screen };
        assert_eq!(grant(&output), ", the terminal, only writing");
    }

    #[test]
    fn a_hex_dump_looks_like_hexdump_c() {
        let mut out = String::new();
        hexdump_line(0x10, b"Hello, \n\x00\xffworld", &mut out);
        let expected =
            "00000010  48 65 6c 6c 6f 2c 20 0a  00 ff 77 6f 72 6c 64     |Hello, ...world|\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn sizes_and_numbers() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(number("64k"), Some(65536));
        assert_eq!(number("12"), Some(12));
        assert_eq!(number("k"), None);
        assert_eq!(number("99999999999g"), None);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["NAME", "N"], ["fs", "100"], ["console", "7"]]
            .map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows, &[1]), "NAME       N\nfs       100\nconsole    7\n");
    }
}
