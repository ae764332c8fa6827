//! The system manifest: reads `targets/<target>/system.toml`, checks it, and packs it as the
//! root server reads it ([`skink_manifest`]). Every complaint names file and line.
//!
//! * [`schema`]: what may stand in the file.
//! * [`check`]: what it must mean together; [`graph`]: who needs whom.

pub mod check;
pub mod graph;
pub mod schema;

use anyhow::{Context, Result, anyhow};
use skink_manifest::Manifest;
use std::path::{Path, PathBuf};

/// Bytes of an encoded manifest at most.
const MAX_ENCODED: usize = 64 * 1024;

/// A manifest's text and where it is from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Shown in messages.
    pub path: PathBuf,
    /// The TOML text.
    pub text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Source> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the manifest {}", path.display()))?;
        Ok(Source { path: path.to_path_buf(), text })
    }

    /// The complaint `message` about the text at byte `offset`.
    pub fn error(&self, offset: usize, message: impl std::fmt::Display) -> anyhow::Error {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        anyhow!("{}:{line}: {message}", self.path.display())
    }
}

/// Reads, checks and orders the manifest in the file `path` for the target called `target`.
///
/// # Errors
/// If the file cannot be read or something in it is wrong; the text has file and line.
pub fn load(path: &Path, target: &str) -> Result<Manifest> {
    parse(&Source::read(path)?, target)
}

/// Checks and orders a manifest.
///
/// # Errors
/// If something in it is wrong; the text has file and line.
pub fn parse(source: &Source, target: &str) -> Result<Manifest> {
    check::checked(source, &schema::parse(source)?, target)
}

/// The bytes of the boot image's file `manifest`.
///
/// # Errors
/// If they would be more than the root server takes.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_ENCODED];
    let used = postcard::to_slice(manifest, &mut bytes).context("packing the manifest")?.len();
    bytes.truncate(used);
    Ok(bytes)
}

/// The programs that the manifest's servers run, each once.
pub fn binaries(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = manifest.servers.iter().map(|s| s.binary.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
