//! The entries of a directory, as many at a time as there is memory for, and how they are shown: a disk
//! may have more of them than the shell has heap, and names that move a cursor.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display, Write};

use libipc::escape::Escaped;
use skink_protocols::file::{Kind, Metadata};

/// Entries that are sorted among themselves, and shown in columns, at most.
const MOST: usize = 1024;
/// Bytes of their names at most.
const MOST_BYTES: usize = 128 << 10;

/// An entry of a directory.
struct Entry {
    name: String,
    metadata: Metadata,
}

/// Some entries of a directory.
pub struct Entries {
    found: Vec<Entry>,
    /// Of their names.
    bytes: usize,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries::new()
    }
}

impl Entries {
    /// None yet.
    pub fn new() -> Entries {
        Entries { found: Vec::with_capacity(MOST), bytes: 0 }
    }

    /// Whether there is no room for one more.
    pub fn is_full(&self) -> bool {
        self.found.len() == MOST || self.bytes >= MOST_BYTES
    }

    /// Adds one.
    pub fn push(&mut self, name: &str, metadata: Metadata) {
        self.bytes += name.len();
        self.found.push(Entry { name: name.to_string(), metadata });
    }

    /// Writes them in the order of their names, a line each, with what is known of them if `is_long`;
    /// then there are none.
    ///
    /// # Errors
    /// As `out` says.
    pub fn show(&mut self, is_long: bool, out: &mut impl Write) -> fmt::Result {
        self.found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let digits = |entry: &Entry| entry.metadata.size.checked_ilog10().unwrap_or(0) as usize + 1;
        let width = self.found.iter().map(digits).max().unwrap_or(1);
        for Entry { name, metadata } in &self.found {
            if is_long {
                write!(out, "{}", About(metadata, width))?;
            }
            writeln!(out, "{}", Shown { name, kind: metadata.kind })?;
        }
        self.found.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// What stands before a name in a long line; the size is right-aligned in so many columns.
struct About<'a>(&'a Metadata, usize);

impl Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let About(metadata, width) = *self;
        let kind = match (metadata.kind, metadata.is_read_only) {
            (Kind::Directory, _) => "dir",
            (Kind::File, true) => "ro",
            (Kind::File, false) => "rw",
        };
        write!(f, "{kind:<3}  {:>width$}  ", metadata.size)?;
        match metadata.modified {
            None => write!(f, "{:<19}  ", "-"),
            Some(t) => {
                write!(f, "{:04}-{:02}-{:02} ", t.year, t.month, t.day)?;
                write!(f, "{:02}:{:02}:{:02}  ", t.hour, t.minute, t.second)
            }
        }
    }
}

/// A name as it is listed: a directory's with a slash.
pub struct Shown<'a> {
    /// As the disk has it.
    pub name: &'a str,
    /// What it is of.
    pub kind: Kind,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.kind == Kind::Directory { "/" } else { "" };
        write!(f, "{}{mark}", Escaped(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_protocols::file::DateTime;

    #[test]
    fn entries_are_sorted_and_what_moves_the_cursor_is_text() {
        let modified =
            Some(DateTime { year: 1980, month: 1, day: 2, hour: 3, minute: 4, second: 5 });
        let file = Metadata { kind: Kind::File, size: 1234, is_read_only: false, modified };
        let folder =
            Metadata { kind: Kind::Directory, size: 0, is_read_only: true, modified: None };
        let mut entries = Entries::new();
        let mut shown = |is_long| {
            entries.push("d\u{202e}", folder);
            entries.push("\u{9b}2Ja", file);
            entries.push("b", file);
            let mut text = String::new();
            entries.show(is_long, &mut text).unwrap();
            text
        };
        assert_eq!(shown(false), "b\nd\\u{202e}/\n\\u{9b}2Ja\n");
        assert_eq!(
            shown(true),
            "rw   1234  1980-01-02 03:04:05  b\n\
             dir     0  -                    d\\u{202e}/\n\
             rw   1234  1980-01-02 03:04:05  \\u{9b}2Ja\n"
        );
    }
}
