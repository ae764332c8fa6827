//! Packs the boot image: the flattened root task and named files, as `skink_abi::bootimage` lays
//! down, and what goes into the image of a system: manifest, servers, the files for `bootfs`.

use crate::compile::Programs;
use crate::elf::{self, Flat};
use crate::manifest;
use crate::workspace::{Arch, Workspace};
use anyhow::{Context, Result, bail, ensure};
use skink_abi::PAGE_SIZE;
use skink_abi::bootimage::{
    FILE_SIZE, File, HEADER_SIZE, Header, NAME_SIZE, SEGMENT_SIZE, Segment, checksum,
};
use skink_manifest::Manifest;
use std::path::Path;

/// A file for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Its name in the image.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl NamedFile {
    /// A file of that name and content.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> NamedFile {
        NamedFile { name: name.into(), bytes: bytes.into() }
    }
}

/// Packs an image.
///
/// # Errors
/// If a name is too long, empty or given twice.
pub fn pack(arch: Arch, root_task: &Flat, files: &[NamedFile]) -> Result<Vec<u8>> {
    let tables = HEADER_SIZE + root_task.segments.len() * SEGMENT_SIZE + files.len() * FILE_SIZE;
    let mut image = vec![0; tables];
    let mut at = HEADER_SIZE;
    for segment in &root_task.segments {
        let offset = append(&mut image, &segment.bytes);
        let entry = Segment {
            vaddr: segment.vaddr,
            offset,
            file_size: segment.bytes.len() as u64,
            mem_size: segment.mem_size,
            rights: segment.rights,
        };
        image[at..at + SEGMENT_SIZE].copy_from_slice(&entry.to_bytes());
        at += SEGMENT_SIZE;
    }
    for (index, file) in files.iter().enumerate() {
        check_name(&file.name, &files[..index])?;
        let mut name = [0; NAME_SIZE];
        name[..file.name.len()].copy_from_slice(file.name.as_bytes());
        let offset = append(&mut image, &file.bytes);
        let size = file.bytes.len() as u64;
        let entry = File { name, offset, size, checksum: checksum(&file.bytes) };
        image[at..at + FILE_SIZE].copy_from_slice(&entry.to_bytes());
        at += FILE_SIZE;
    }
    pad(&mut image);
    let mut header = Header {
        arch: arch.image_arch(),
        total_size: image.len() as u64,
        entry: root_task.entry,
        segment_count: root_task.segments.len() as u32,
        file_count: files.len() as u32,
        checksum: 0,
    };
    header.checksum = checksum(header.guarded(&image));
    image[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    Ok(image)
}

fn check_name(name: &str, before: &[NamedFile]) -> Result<()> {
    ensure!(!name.is_empty(), "a file of the boot image has no name");
    ensure!(
        name.len() <= NAME_SIZE,
        "the name `{name}` is longer than the {NAME_SIZE} bytes that a boot image has for it"
    );
    if before.iter().any(|other| other.name == name) {
        bail!("two files of the boot image are called `{name}`");
    }
    Ok(())
}

fn pad(image: &mut Vec<u8>) {
    image.resize(image.len().next_multiple_of(PAGE_SIZE), 0);
}

fn append(image: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    pad(image);
    let offset = image.len() as u64;
    image.extend_from_slice(bytes);
    offset
}

/// The files of a system's image: `manifest`, `server/NAME` for each binary, and `extra`.
///
/// # Errors
/// If a program cannot be read or is not loadable.
pub fn system_files(
    workspace: &Workspace,
    manifest: &Manifest,
    programs: &Programs,
    extra: &[NamedFile],
) -> Result<Vec<NamedFile>> {
    let mut files = vec![NamedFile::new("manifest", manifest::encode(manifest)?)];
    for binary in manifest::binaries(manifest) {
        let path = programs.user(&binary.name)?;
        let elf = read(path)?;
        let stripped = elf::strip(&elf)
            .with_context(|| format!("the server {} cannot be loaded", path.display()))?;
        files.push(NamedFile::new(format!("server/{}", binary.name), stripped));
    }
    files.extend(folder_files(&workspace.root.join("targets/common/bootfs"))?);
    files.extend_from_slice(extra);
    Ok(files)
}

/// Packs the image whose root task is `root_task` (an ELF file).
///
/// # Errors
/// If it cannot be read or laid out.
pub fn pack_with(arch: Arch, root_task: &Path, files: &[NamedFile]) -> Result<Vec<u8>> {
    let flat = elf::flatten(&read(root_task)?, elf::ROOT_TASK_BASE)
        .with_context(|| format!("the root task {} cannot be laid out", root_task.display()))?;
    pack(arch, &flat, files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The files right inside a folder, by name.
fn folder_files(folder: &Path) -> Result<Vec<NamedFile>> {
    let doing = || format!("reading the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(doing)?);
        // A link could lead anywhere, and what it leads to would be in every image.
        ensure!(!kind.is_symlink(), "{} is a link, which is not packed", path.display());
        if kind.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(NamedFile::new(name, read(&path)?));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat() -> Flat {
        elf::flatten(&elf::tests::sample(8, 5), elf::ROOT_TASK_BASE).unwrap()
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let files = [NamedFile::new("manifest", *b"m"), NamedFile::new("server/x", vec![7; 5000])];
        let image = pack(Arch::X86_64, &flat(), &files).unwrap();
        let header = Header::parse(&image).unwrap();
        header.verify(&image).unwrap();
        assert_eq!(header.arch, skink_abi::bootimage::ARCH_X86_64);
        assert_eq!(header.entry, 0x40_0010);
        assert_eq!((header.segment_count, header.file_count), (2, 2));
        let text = header.segment(&image, 0).unwrap();
        assert_eq!(image[text.offset as usize..][..text.file_size as usize], [0x90; 0x20]);
        assert_eq!(header.segment(&image, 1).unwrap().mem_size, 0x3000);
        let file = header.file(&image, 1).unwrap();
        assert_eq!(file.name(), "server/x");
        let bytes = &image[file.offset as usize..][..file.size as usize];
        assert_eq!(bytes, vec![7; 5000]);
        assert_eq!(file.checksum, checksum(bytes));
        assert!(file.offset.is_multiple_of(4096));
    }

    #[test]
    fn bad_names_are_refused() {
        let error =
            |files: &[NamedFile]| pack(Arch::X86_64, &flat(), files).unwrap_err().to_string();
        let twice = [NamedFile::new("a", *b""), NamedFile::new("a", *b"")];
        assert!(error(&twice).contains("two files of the boot image are called `a`"));
        assert!(
            error(&[NamedFile::new("x".repeat(65), *b"")]).contains("longer than the 64 bytes")
        );
        assert!(error(&[NamedFile::new("", *b"")]).contains("no name"));
    }

    #[test]
    fn a_link_is_not_packed() {
        let folder = crate::workspace::PrivateFolder::new().unwrap();
        std::fs::write(folder.path().join("file"), b"x").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        assert_eq!(folder_files(folder.path()).unwrap(), [NamedFile::new("file", *b"x")]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let error = folder_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("link is a link"), "{error}");
    }
}
