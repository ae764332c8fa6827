//! Programs beside each other at one server, of which one means harm.

use anyhow::{Result, ensure};
use skink_tests::Fixture;

use crate::Test;
use crate::programs::{check, tried};

pub const TESTS: &[Test] = &[Test {
    name: "RUN0012 a program reaches no open file of another, and takes no more than its share",
    run: neighbours,
}];

fn neighbours(fixture: &Fixture) -> Result<()> {
    let entry = "heap = \"64KiB\"\nneeds = [{ name = \"it\", server = \"fs\", protocol = \"file\", \
                 shared = \"4KiB\" }]\n";
    let probe = fixture.program("probe")?;
    let files: [(&str, &[u8]); 5] = [
        ("/P.toml", entry.as_bytes()),
        ("/Q", &probe),
        ("/Q.toml", entry.as_bytes()),
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
