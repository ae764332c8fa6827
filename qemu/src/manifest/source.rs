//! The text of a manifest: one file and those that it includes, one behind the other, with the
//! memory of which byte is from where. What reads the text as a whole needs not know of files, and
//! a complaint about any byte still names the right file and line.
//!
//! Not here: which files are included; that stands in the text ([`super::schema`]).

use anyhow::{Context, Result, anyhow};
use std::path::{Component, Path, PathBuf};

/// A manifest's text and where it is from.
#[derive(Clone, Debug)]
pub struct Source {
    text: String,
    /// In ascending order of their beginnings; the first begins at 0.
    pieces: Vec<Piece>,
}

/// One file's part of the text.
#[derive(Clone, Debug)]
struct Piece {
    begins: usize,
    /// Shown in messages.
    path: PathBuf,
}

impl Source {
    /// The text of one file.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Source {
        Source { text: text.into(), pieces: vec![Piece { begins: 0, path: path.into() }] }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Source> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the manifest {}", path.display()))?;
        Ok(Source::new(path, text))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The path of a file that the first one names: relative to that one's folder.
    pub fn beside(&self, named: &str) -> PathBuf {
        let folder = self.pieces[0].path.parent().unwrap_or(Path::new(""));
        let mut path = folder.to_path_buf();
        for part in Path::new(named).components() {
            let ends_in_name = matches!(path.components().next_back(), Some(Component::Normal(_)));
            match part {
                Component::CurDir => {}
                Component::ParentDir if ends_in_name => drop(path.pop()),
                part => path.push(part),
            }
        }
        path
    }

    /// Puts the text of another behind this one, on lines of its own.
    pub fn append(&mut self, other: &Source) {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        let begins = self.text.len();
        let moved = |piece: &Piece| Piece { begins: begins + piece.begins, ..piece.clone() };
        self.pieces.extend(other.pieces.iter().map(moved));
        self.text.push_str(&other.text);
    }

    /// The complaint `message` about the text at byte `offset`.
    pub fn error(&self, offset: usize, message: impl std::fmt::Display) -> anyhow::Error {
        let offset = offset.min(self.text.len());
        let index = self.pieces.partition_point(|piece| piece.begins <= offset) - 1;
        let piece = &self.pieces[index];
        let before = &self.text.as_bytes()[piece.begins..offset];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        anyhow!("{}:{line}: {message}", piece.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_of_its_file() {
        let mut source = Source::new("a.toml", "1\n2");
        source.append(&Source::new("b.toml", "x\ny\n"));
        source.append(&Source::new("c.toml", "z"));
        assert_eq!(source.text(), "1\n2\nx\ny\nz");
        let place = |offset| source.error(offset, "").to_string();
        let places: Vec<String> = [0, 2, 3, 4, 6, 8, 9, 99].map(place).into();
        let expected = ["a.toml:1", "a.toml:2", "a.toml:2", "b.toml:1", "b.toml:2"];
        let expected = expected.iter().chain(["c.toml:1"; 3].iter());
        assert_eq!(places, expected.map(|place| format!("{place}: ")).collect::<Vec<_>>());
    }

    #[test]
    fn a_path_is_seen_from_the_including_file() {
        let beside = |path: &str, named: &str| Source::new(path, "").beside(named);
        assert_eq!(
            beside("targets/pc/s.toml", "../common/s.toml"),
            Path::new("targets/common/s.toml")
        );
        assert_eq!(beside("s.toml", "../c.toml"), Path::new("../c.toml"));
        assert_eq!(beside("../a/s.toml", "../../c.toml"), Path::new("../../c.toml"));
        assert_eq!(beside("a/s.toml", "./b/c.toml"), Path::new("a/b/c.toml"));
        assert_eq!(beside("a/s.toml", "/etc/c.toml"), Path::new("/etc/c.toml"));
    }
}
