//! The system manifest: reads `targets/<target>/system.toml` and the files that it includes, checks
//! them, and packs the whole as the root server reads it ([`skink_manifest`]). Every complaint
//! names file and line.
//!
//! * [`source`]: the text, and which file each byte is from.
//! * [`schema`]: what may stand in the files.
//! * [`hardware`]: what only one machine has, given to its servers.
//! * [`programs`]: slots for what `run` starts from a disk.
//! * [`check`]: what it must mean together; [`devices`]: what is driven; [`graph`]: who needs whom.

pub mod check;
pub mod devices;
pub mod graph;
mod groups;
pub mod hardware;
mod programs;
pub mod schema;
pub mod source;

use crate::compile::Binary;
use crate::workspace::FloatAbi;
use anyhow::{Context, Result};
use skink_manifest::Manifest;
use std::path::Path;

pub use source::Source;

/// Bytes of an encoded manifest at most.
const MAX_ENCODED: usize = 64 * 1024;

/// Reads, checks and orders the manifest in the file `path`, with what it includes, for the target
/// called `target`.
///
/// # Errors
/// If a file cannot be read or something in it is wrong; the text has file and line.
pub fn load(path: &Path, target: &str) -> Result<Manifest> {
    let first = Source::read(path)?;
    let mut whole = first.clone();
    for named in &schema::parse(&first)?.system.include {
        let at_name = |error: anyhow::Error| first.error(named.span().start, format!("{error:#}"));
        let included = Source::read(&first.beside(named.get_ref())).map_err(at_name)?;
        schema::check_included(&included)?;
        whole.append(&included);
    }
    parse(&whole, target)
}

/// Checks and orders a manifest.
///
/// # Errors
/// If something in it is wrong; the text has file and line.
pub fn parse(source: &Source, target: &str) -> Result<Manifest> {
    check::checked(source, schema::parse(source)?, target)
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

/// The servers that the manifest starts itself: all but the slots.
pub fn servers(manifest: &Manifest) -> impl Iterator<Item = &skink_manifest::Server> {
    manifest.servers.iter().filter(|server| !server.is_slot)
}

/// The programs that the manifest's servers run, each once.
pub fn binaries(manifest: &Manifest) -> Vec<Binary> {
    let of_server = |server: &skink_manifest::Server| Binary {
        name: server.binary.to_string(),
        float: if server.fpu { FloatAbi::Hard } else { FloatAbi::Soft },
    };
    let mut all: Vec<Binary> = servers(manifest).map(of_server).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
