//! Disks and images that are not what they should be.

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture};
use skink_tool::bootimage::NamedFile;
use skink_tool::session::Recipe;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "BAD0001 an empty disk, one that is no FAT, and none at all are told apart",
        run: no_volume,
    },
    Test { name: "BAD0002 a disk shorter than its table says is refused", run: short },
    Test {
        name: "BAD0003 a loop or a cross-link in the FAT is an error, and other files are read",
        run: bad_chains,
    },
    Test { name: "BAD0004 a full disk says so and stays consistent", run: full },
    Test { name: "BAD0005 a path or a name that is too long is refused", run: too_long },
    Test {
        name: "BAD0006 a damaged program in the boot image is reported, and the rest goes on",
        run: bad_elf,
    },
];

/// Runs a line that must fail with these words.
fn fails(fixture: &Fixture, disk: &Disk, line: &str, words: &str) -> Result<()> {
    let said = fixture.exec(Some(disk.path()), &[line, "hello"])?;
    ensure!(said[0].status == 1 && said[0].text.contains(words), "{line}: {:?}", said[0]);
    ensure!(said[1].text == "Hello, world!\n", "the rest goes on: {:?}", said[1]);
    Ok(())
}

fn no_volume(fixture: &Fixture) -> Result<()> {
    let blank = Disk::blank(32 << 20)?;
    fails(fixture, &blank, "ls /disk", "format it")?;
    blank.patch(0, &[0x5a; 4096])?;
    fails(fixture, &blank, "ls /disk", "FAT")?;
    let said = fixture.exec(None, &["ls /disk", "hello"])?;
    ensure!(said[0].status == 1 && said[0].text.contains("there is no disk"), "{:?}", said[0]);
    ensure!(said[1].text == "Hello, world!\n", "{:?}", said[1]);
    Ok(())
}

fn short(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.truncate(40 << 20)?;
    fails(fixture, &disk, "ls /disk", "its volume needs 131072")
}

/// A disk with the files A, B and C of three clusters each, and where its first FAT is.
fn three_files() -> Result<(Disk, u64)> {
    let disk = Disk::fat32(64 << 20, 1)?;
    for name in ["/A", "/B", "/C"] {
        disk.put(name, &[name.as_bytes()[1]; 1500])?;
    }
    let reserved = disk.bytes(14, 2)?;
    Ok((disk, u64::from(u16::from_le_bytes([reserved[0], reserved[1]])) * 512))
}

fn bad_chains(fixture: &Fixture) -> Result<()> {
    // Clusters: root 2, A 3 to 5, B 6 to 8, C 9 to 11.
    let (disk, fat) = three_files()?;
    disk.patch(fat + 5 * 4, &4u32.to_le_bytes())?;
    fails(fixture, &disk, "cat /disk/A", "loop")?;
    ensure!(fixture.ok(disk.path(), "cat /disk/C")?.len() == 1500, "C is read");
    let (disk, fat) = three_files()?;
    disk.patch(fat + 6 * 4, &4u32.to_le_bytes())?;
    fails(fixture, &disk, "cat /disk/B", "cross-link")?;
    fails(fixture, &disk, "cat /disk/A", "cross-link")?;
    ensure!(fixture.ok(disk.path(), "cat /disk/C")?.len() == 1500, "C is read");
    Ok(())
}

fn full(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(34 << 20, 1)?;
    let line = "write /disk/KEPT kept; fill /disk/TOO.BIG 64m";
    fails(fixture, &disk, line, "full")?;
    let text = fixture
        .ok(disk.path(), "rm /disk/TOO.BIG; write /disk/NEW new; cat /disk/KEPT /disk/NEW; sync")?;
    ensure!(text == "kept\nnew\n", "{text}");
    disk.check()
}

fn too_long(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    let name = "n".repeat(256);
    fails(fixture, &disk, &format!("write /disk/{name} x"), "too long")
        .or_else(|_| fails(fixture, &disk, &format!("write /disk/{name} x"), "longer than 255"))?;
    let path = "/d".repeat(3000);
    fails(fixture, &disk, &format!("cat /disk{path}"), "too long")
}

fn bad_elf(shipped: &Fixture) -> Result<()> {
    for (bytes, words) in [(vec![], "hello"), (vec![0x7f, b'E', b'L', b'F'], "hello")] {
        let recipe =
            Recipe { overlay: vec![NamedFile::new("server/hello", bytes)], ..Recipe::default() };
        let said = Fixture::of(shipped.arch(), &recipe)?
            .exec(None, &["hello", "ls /boot/server", "ps"])?;
        ensure!(said[0].status == 1 && said[1].status == 0, "{said:?}");
        let line = said[2].text.lines().find(|line| line.starts_with(words)).unwrap_or_default();
        ensure!(line.contains("failed"), "{}", said[2].text);
    }
    Ok(())
}
