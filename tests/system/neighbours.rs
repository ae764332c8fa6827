//! Programs beside each other at one server, of which one means harm.

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture};
use skink_tool::machine::Options;

use crate::Test;
use crate::programs::{check, tried};

pub const TESTS: &[Test] = &[
    Test {
        name: "RUN0012 a program reaches no open file of another, and takes no more than its share",
        run: neighbours,
    },
    Test {
        name: "RUN0013 a file in which a program has written a directory is a file, and leads nowhere",
        run: forged_directory,
    },
    Test {
        name: "RUN0014 a program's session of its folder reaches nothing outside, and changes nothing",
        run: own_folder,
    },
];

fn neighbours(fixture: &Fixture) -> Result<()> {
    let probe = fixture.program("probe")?;
    let files: [(&str, &[u8]); 5] = [
        ("/P.toml", ENTRY),
        ("/Q", &probe),
        ("/Q.toml", ENTRY),
        ("/TEXT", b"the text\n"),
        ("/SECRET", b""),
    ];
    let lines = [
        "run -d --with it /disk/Q keeps it /SECRET 1500; sleep 0.3",
        "run --with it /disk/P steals it /TEXT; sleep 2",
        "cat /disk/SECRET",
        // By itself it may only read, and its writes fail for that reason too.
        "run -d /disk/Q hoards it /TEXT 2000; sleep 0.5; run /disk/P cat it /TEXT; cat /disk/TEXT",
        "sleep 2; free; run /disk/P hoards it /TEXT 1; free",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(
        &said,
        &[
            (0, "q runs"),
            (0, "steals 0, and has its own: true\n"),
            (0, "the secret\n"),
            (0, "p: reads the text\nthe text\n"),
            (0, "hoards true\n"),
        ],
    )?;
    let (before, after) = said[4].text.split_once("hoards true\n").unwrap_or_default();
    ensure!(before == after, "what it took came back: {}", said[4].text);
    ensure!(!console.contains(" died"), "{console}");
    Ok(())
}

/// What the entry of a program beside others asks for.
const ENTRY: &[u8] = b"heap = \"64KiB\"\nneeds = [{ name = \"it\", server = \"fs\", \
                       protocol = \"file\", shared = \"4KiB\" }]\n";

fn forged_directory(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    // Its own file and others in the first clusters behind the root's.
    disk.put("/MADE", &[0; 512])?;
    disk.put("/TEXT", b"the text\n")?;
    disk.put("/BIG", &skink_tests::noise(7, 2048))?;
    disk.put("/P", &fixture.program("probe")?)?;
    disk.put("/P.toml", ENTRY)?;
    let options = Options { disk: Some(disk.path().into()), ..Options::default() };
    let lines = [
        "run --with it /disk/P forges it /MADE; df",
        // Nor does its successor take it for one.
        "sync; restart fs; run --with it /disk/P forges it /MADE; df",
        "cat /disk/TEXT; sync",
    ];
    let (said, _) = fixture.exec_heard(&options, &lines)?;
    check(&said, &[(0, "forges 0\n"), (0, "forges 0\n"), (0, "the text\n")])?;
    ensure!(said[1].text.contains(" ok"), "the volume is sound: {said:?}");
    ensure!(disk.get("/BIG")? == skink_tests::noise(7, 2048), "another's file was changed");
    disk.check()
}

fn own_folder(fixture: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.make_directory("/APP")?;
    let probe = fixture.program("probe")?;
    let files: [(&str, &[u8]); 4] = [
        ("/SECRET", b"the secret\n"),
        ("/APP/OWN", b"its own\n"),
        ("/APP/P", &probe),
        ("/APP/P.toml", ENTRY),
    ];
    for (name, bytes) in files {
        disk.put(name, bytes)?;
    }
    let options = Options { disk: Some(disk.path().into()), ..Options::default() };
    let lines = ["run /disk/APP/P strays it SECRET", "cat /disk/SECRET /disk/APP/OWN; sync"];
    let (said, _) = fixture.exec_heard(&options, &lines)?;
    let expected = [(0, "strays 0, and has its own: true\n"), (0, "the secret\nits own\n")];
    check(&said, &expected)?;
    ensure!(disk.names("/")? == ["APP", "SECRET"], "{:?}", disk.names("/")?);
    ensure!(disk.names("/APP")? == ["OWN", "P", "P.toml"], "{:?}", disk.names("/APP")?);
    disk.check()
}
