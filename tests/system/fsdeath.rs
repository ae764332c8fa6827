//! The file system's state survives the death of `fs`: what was answered is there, synced or not,
//! names change exactly once, handles go on, and the disk is whole after a `sync`.

use anyhow::{Result, ensure};
use skink_tests::{Died, Disk, Fixture, noise};

use crate::Test;
use crate::disks::sha256;

pub const TESTS: &[Test] = &[
    Test {
        name: "FSDEATH0001 what was written and answered is there though fs dies before any sync",
        run: unsynced,
    },
    Test {
        name: "FSDEATH0002 names change exactly once though fs dies before and after each call",
        run: names,
    },
    Test {
        name: "FSDEATH0003 a file stays open and is read to its end though fs dies in between",
        run: handles,
    },
    Test {
        name: "FSDEATH0004 fs and its driver die again and again while a file is written",
        run: both,
    },
];

const SIZE: usize = 2 << 20;

fn unsynced(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let lines = [
        "kill fs --every 2 --times 7",
        "fill /disk/NEW.BIN 2m 9",
        "sha256 /disk/NEW.BIN",
        "kill fs; sha256 /disk/NEW.BIN",
        "kill fs; sync",
        "crashes 32",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    let expected = format!("{}  /disk/NEW.BIN\n", sha256(&noise(9, SIZE))?);
    for said in &said[2..4] {
        ensure!((said.text.as_str(), said.status) == (expected.as_str(), 0), "{said:?}");
    }
    ensure!(said[1].status == 0 && said[4].status == 0, "{said:?}");
    ensure!(Died::count_of(&said[5].text, "fs") == 9, "{}", said[5].text);
    ensure!(disk.get("/NEW.BIN")? == noise(9, SIZE), "NEW.BIN differs on the disk");
    disk.check()
}

/// Every change of a name under a death of `fs` when it has come (`receive`), and when it is done
/// and not yet answered (`reply`). Done twice, each of them would fail.
fn names(fixture: &Fixture) -> Result<()> {
    for moment in ["receive", "reply"] {
        let disk = Disk::with_noise(SIZE)?;
        let lines = [
            "ls /disk".to_owned(),
            format!("kill fs --at {moment}:1; mkdir /disk/one"),
            format!("kill fs --at {moment}:1; mkdir /disk/two"),
            format!("kill fs --at {moment}:1; mv /disk/one /disk/three"),
            format!("kill fs --at {moment}:1; mv /disk/BIG.BIN /disk/three/moved.bin"),
            format!("kill fs --at {moment}:1; rm /disk/two"),
            "crashes 32".to_owned(),
            "sync".to_owned(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let said = fixture.exec(Some(disk.path()), &lines)?;
        for (line, said) in lines.iter().zip(&said).filter(|(line, _)| line.starts_with("kill")) {
            ensure!((said.text.as_str(), said.status) == ("", 0), "`{line}`: {said:?}");
        }
        ensure!(Died::count_of(&said[6].text, "fs") == 5, "{}", said[6].text);
        ensure!(disk.names("/")? == ["three"], "{:?}", disk.names("/")?);
        ensure!(disk.get("/three/moved.bin")? == noise(42, SIZE), "moved.bin differs");
        disk.check()?;
    }
    Ok(())
}

fn handles(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    // One handle from the beginning to the end; its requests are counted from the first read.
    let lines = ["kill fs --at receive:2 --every 2 --times 8; sha256 /disk/BIG.BIN", "crashes 32"];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    let expected = format!("{}  /disk/BIG.BIN\n", sha256(&noise(42, SIZE))?);
    ensure!((said[0].text.as_str(), said[0].status) == (expected.as_str(), 0), "{:?}", said[0]);
    ensure!(Died::count_of(&said[1].text, "fs") == 8, "{}", said[1].text);
    Ok(())
}

fn both(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let lines = [
        "ls /disk",
        "kill fs --every 2 --times 6; kill virtio-blk --at ring:7 --every 40 --times 8",
        "fill /disk/NEW.BIN 2m 9; sync",
        "crashes 32",
        "sha256 /disk/NEW.BIN",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!((said[2].text.as_str(), said[2].status) == ("", 0), "{:?}", said[2]);
    let (fs, driver) =
        (Died::count_of(&said[3].text, "fs"), Died::count_of(&said[3].text, "virtio-blk"));
    ensure!(fs >= 4 && driver >= 2, "{fs} and {driver} deaths: {}", said[3].text);
    let expected = format!("{}  /disk/NEW.BIN\n", sha256(&noise(9, SIZE))?);
    ensure!(said[4].text == expected, "{:?}", said[4]);
    ensure!(disk.get("/NEW.BIN")? == noise(9, SIZE), "NEW.BIN differs on the disk");
    disk.check()
}
