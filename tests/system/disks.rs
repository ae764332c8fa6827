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
    Test {
        name: "DISK0007 cp onto the same file by another name keeps it, and rm -r stays inside",
        run: same_files,
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

fn same_files(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/HELLO.TXT", b"hello\n")?;
    disk.put("/a long name.text", b"long\n")?;
    disk.make_directory("/A")?;
    disk.make_directory("/A/B")?;
    disk.put("/A/KEEP.TXT", b"kept\n")?;
    disk.put("/A/B/qZ", b"inside\n")?;
    // A long name that paths read as the way out.
    let mut image = std::fs::read(disk.path())?;
    let long = b"\x41q\0Z\0\0\0";
    let at = image.windows(long.len()).position(|bytes| bytes == long);
    let Some(at) = at else { anyhow::bail!("mcopy wrote no long name") };
    image[at + 1..at + 5].copy_from_slice(b".\0.\0");
    std::fs::write(disk.path(), image)?;
    let nested = format!("/disk/N{}", "/d".repeat(250));
    let (make, remove) = (format!("mkdir -p {nested}; write {nested}/f x"), "rm -r /disk/N");
    let lines = [
        "cp /disk/HELLO.TXT /disk/hello.txt",
        "cp /disk/HELLO.TXT /disk/HELLO.TXT.",
        "cp /disk/HELLO.TXT '/disk/HELLO.TXT '",
        "cp /disk/HELLO.TXT /disk/A/../HELLO.TXT",
        "cp '/disk/a long name.text' /disk/ALONGN~1.TEX",
        "cp /disk/HELLO.TXT /disk/COPY.TXT; cp /disk/HELLO.TXT /disk/COPY.TXT; cat /disk/COPY.TXT",
        "rm -r /disk/A/B; ls /disk/A",
        &make,
        remove,
        "sync; ls /disk",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    for (line, said) in lines.iter().zip(&said).take(5) {
        ensure!(said.status == 1 && said.text.contains("the same file"), "{line}: {said:?}");
    }
    ensure!(said[5].text == "hello\n" && said[6].text == "KEEP.TXT\n", "{said:?}");
    ensure!(said[7].status == 0 && said[8].status == 0, "{said:?}");
    ensure!(said[9].text == "A/\nCOPY.TXT\nHELLO.TXT\na long name.text\n", "{said:?}");
    ensure!(
        disk.get("/HELLO.TXT")? == b"hello\n" && disk.get("/a long name.text")? == b"long\n",
        "contents"
    );
    disk.check()
}
