//! Reading and writing real disks, judged by peers.

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture, noise};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "DISK0001 what mcopy wrote is read byte for byte, at every cluster size",
        run: cluster_sizes,
    },
    Test {
        name: "DISK0002 what the guest wrote is read byte for byte by mtools, and fsck finds nothing",
        run: write_back,
    },
    Test { name: "DISK0003 long names and 100 nested directories", run: names },
    Test {
        name: "DISK0004 a fragmented file on a disk larger than the guest's memory",
        run: fragmented,
    },
    Test { name: "DISK0005 two jobs read and write at once", run: two_jobs },
    Test {
        name: "DISK0006 rename, move, remove, copy and append leave what they should",
        run: operations,
    },
];

/// SHA-256 by the host's own tool.
pub fn sha256(bytes: &[u8]) -> Result<String> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().expect("a pipe").write_all(bytes)?;
    let text = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(text.split_whitespace().next().unwrap_or_default().into())
}

fn cluster_sizes(fixture: &Fixture) -> Result<()> {
    for (sectors, megabytes) in [(1u32, 64u64), (8, 300), (64, 2200)] {
        let disk = Disk::fat32(megabytes << 20, sectors)?;
        let bytes = noise(u64::from(sectors), 3_000_001);
        disk.put("/BIG.BIN", &bytes)?;
        disk.put("/EMPTY", b"")?;
        let text = fixture.ok(disk.path(), "sha256 /disk/BIG.BIN; cat /disk/EMPTY; ls /disk")?;
        let expected = format!("{}  /disk/BIG.BIN\nBIG.BIN\nEMPTY\n", sha256(&bytes)?);
        ensure!(text == expected, "{sectors} sectors a cluster: {text}");
        disk.check()?;
    }
    Ok(())
}

fn write_back(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(80 << 20, 2)?;
    let line = "mkdir /disk/DIR; write /disk/DIR/A.TXT some words; append /disk/DIR/A.TXT and more; \
                fill /disk/NOISE.BIN 2500001 7; sha256 /disk/NOISE.BIN; sync";
    let text = fixture.ok(disk.path(), line)?;
    let bytes = noise(7, 2_500_001);
    ensure!(text == format!("{}  /disk/NOISE.BIN\n", sha256(&bytes)?), "{text}");
    ensure!(disk.get("/DIR/A.TXT")? == b"some words\nand more\n", "A.TXT differs");
    ensure!(disk.get("/NOISE.BIN")? == bytes, "NOISE.BIN differs");
    disk.check()
}

fn names(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    let long = format!("{} with a long name.text", "x".repeat(200));
    disk.put(&format!("/{long}"), b"long\n")?;
    let mut path = String::new();
    for depth in 0..100 {
        path += &format!("/d{depth}");
        disk.make_directory(&path)?;
    }
    disk.put(&format!("{path}/deep.txt"), b"deep\n")?;
    let lines = [
        format!("cat '/disk/{long}'; cat /disk{path}/deep.txt; cat /disk{path}/DEEP.TXT"),
        format!("write '/disk{path}/Another long name.md' made here; sync"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said[0].text == "long\ndeep\ndeep\n" && said[1].status == 0, "{said:?}");
    ensure!(
        disk.get(&format!("{path}/Another long name.md"))? == b"made here\n",
        "the new file differs"
    );
    disk.check()
}

fn fragmented(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(1100 << 20, 8)?;
    // Small files between which holes are made, which the large one then fills.
    for i in 0..60 {
        disk.put(&format!("/S{i}"), &noise(i, 20_000))?;
    }
    for i in (0..60).step_by(2) {
        disk.mtools("mdel", &[&format!("::/S{i}")])?;
    }
    let bytes = noise(99, 5_000_000);
    disk.put("/FRAG.BIN", &bytes)?;
    let text = fixture.ok(disk.path(), "sha256 /disk/FRAG.BIN; sha256 /disk/S31")?;
    let expected = [("FRAG.BIN", sha256(&bytes)?), ("S31", sha256(&noise(31, 20_000))?)];
    let expected: String =
        expected.iter().map(|(name, sum)| format!("{sum}  /disk/{name}\n")).collect();
    ensure!(text == expected, "{text}");
    disk.check()
}

fn two_jobs(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    let bytes = noise(5, 2_000_000);
    disk.put("/A.BIN", &bytes)?;
    let line = "fill /disk/B.BIN 1500000 3 & sha256 /disk/A.BIN & wait; sha256 /disk/B.BIN; sync";
    let text = fixture.ok(disk.path(), line)?;
    for (name, bytes) in [("A.BIN", &bytes), ("B.BIN", &noise(3, 1_500_000))] {
        let expected = format!("{}  /disk/{name}\n", sha256(bytes)?);
        ensure!(text.contains(&expected), "{name}: {text}");
    }
    disk.check()
}

fn operations(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/ONE.TXT", b"one\n")?;
    let line = "mkdir -p /disk/a/b; mv /disk/ONE.TXT /disk/a/b/Two.text; cp /disk/a/b/Two.text /disk/three; \
                append /disk/three more; mkdir /disk/empty; rm /disk/empty; mkdir /disk/full; \
                write /disk/full/x y; rm -r /disk/full; sync; ls /disk; ls /disk/a/b";
    let text = fixture.ok(disk.path(), line)?;
    ensure!(text == "a/\nthree\nTwo.text\n", "{text}");
    ensure!(
        disk.get("/three")? == b"one\nmore\n" && disk.get("/a/b/Two.text")? == b"one\n",
        "contents"
    );
    disk.check()
}
