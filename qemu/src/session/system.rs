//! A system: the programs that were built, and the boot image packed of them.

use crate::bootimage::{self, NamedFile};
use crate::compile::{self, KernelVariant, Programs};
use crate::machine::BootFiles;
use crate::manifest;
use crate::progress::note;
use crate::symbolize;
use crate::workspace::{Arch, Workspace, sibling};
use anyhow::{Context, Result};
use skink_manifest::Experiment;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The root task of a system.
const ROOT_SERVER: &str = "rootserver";

/// What goes into a system, where it differs from what ships.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Another manifest than `targets/<target>/system.toml`.
    pub manifest: Option<PathBuf>,
    /// The kernel.
    pub kernel: KernelVariant,
    /// The manifest's section `[experiment]`, replaced.
    pub experiment: Option<Experiment>,
    /// Files of the boot image: replace the one of the same name, or are added.
    pub overlay: Vec<NamedFile>,
}

/// A built system.
#[derive(Debug)]
pub struct System {
    /// The machine it is for.
    pub arch: Arch,
    /// What was built, with symbols.
    pub programs: Programs,
    /// Which program each server of the manifest runs.
    pub binaries: BTreeMap<String, String>,
    /// The checkout's root, for the paths in dumps.
    pub root: PathBuf,
    /// What QEMU boots; the image is removed when this is dropped.
    pub files: BootFiles,
}

impl System {
    /// Checks the manifest, builds what it names, and packs the boot image.
    ///
    /// # Errors
    /// If the manifest is wrong, something does not build or cannot be packed.
    pub fn build(workspace: &Workspace, arch: Arch, recipe: &Recipe) -> Result<System> {
        let path = match &recipe.manifest {
            Some(path) => path.clone(),
            None => workspace.target_folder(arch).join("system.toml"),
        };
        let mut manifest = manifest::load(&path, arch.target())?;
        manifest.experiment = recipe.experiment.or(manifest.experiment);
        if let Some(experiment) = &manifest.experiment {
            note(&format!("with {experiment:?}"));
        }
        let servers = manifest::binaries(&manifest);
        let programs = compile::build(workspace, arch, recipe.kernel, ROOT_SERVER, &servers)?;
        let mut files = bootimage::system_files(workspace, &manifest, &programs, &[])?;
        overlay(&mut files, &recipe.overlay);
        let mut system = System::pack(workspace, arch, programs, ROOT_SERVER, &files)?;
        let pairs = manifest.servers.iter().map(|s| (s.name.to_string(), s.binary.to_string()));
        system.binaries = pairs.collect();
        Ok(system)
    }

    /// Builds a system whose root task is the program `root_task`, with these files and no server.
    ///
    /// # Errors
    /// If it does not build or cannot be packed.
    pub fn bare(
        workspace: &Workspace,
        arch: Arch,
        kernel: KernelVariant,
        root_task: &str,
        files: &[NamedFile],
    ) -> Result<System> {
        let programs = compile::build(workspace, arch, kernel, root_task, &[])?;
        System::pack(workspace, arch, programs, root_task, files)
    }

    /// The ELF file with the symbols of a server (or of the root server).
    pub fn elf_of(&self, server: &str) -> Option<&Path> {
        let binary = self.binaries.get(server).map_or(server, String::as_str);
        self.programs.user(binary).ok()
    }

    /// The ELF file of the server that a crash record is about.
    pub fn crashed(&self, record: &str) -> Option<&Path> {
        symbolize::crashed_server(record).and_then(|server| self.elf_of(server))
    }

    /// A crash record with function, file and line beside each address.
    pub fn with_names(&self, record: &str) -> String {
        symbolize::crash_record(record, self.crashed(record), &self.root)
    }

    fn pack(
        workspace: &Workspace,
        arch: Arch,
        programs: Programs,
        root_task: &str,
        files: &[NamedFile],
    ) -> Result<System> {
        let image = bootimage::pack_with(arch, programs.user(root_task)?, files)?;
        let path = sibling(&workspace.results()?.join(format!("{}.image", arch.target())));
        std::fs::write(&path, image).with_context(|| format!("writing {}", path.display()))?;
        let files = BootFiles { kernel: compile::bootable(arch, &programs.kernel)?, image: path };
        Ok(System {
            arch,
            programs,
            binaries: BTreeMap::new(),
            root: workspace.root.clone(),
            files,
        })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.files.image);
    }
}

fn overlay(files: &mut Vec<NamedFile>, over: &[NamedFile]) {
    for file in over {
        match files.iter_mut().find(|other| other.name == file.name) {
            Some(other) => other.bytes.clone_from(&file.bytes),
            None => files.push(file.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_replaces_and_adds() {
        let mut files = vec![NamedFile::new("a", *b"1"), NamedFile::new("b", *b"2")];
        overlay(&mut files, &[NamedFile::new("b", *b"3"), NamedFile::new("c", *b"4")]);
        let all: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.bytes[0])).collect();
        assert_eq!(all, [("a", b'1'), ("b", b'3'), ("c", b'4')]);
    }
}
