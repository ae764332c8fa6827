//! Servers that die, and grow back.

use anyhow::{Context, Result, ensure};
use skink_manifest::{Experiment, Switch};
use skink_tests::{Died, Disk, Fixture, noise};
use skink_tool::compile::KernelVariant;
use skink_tool::session::Recipe;

use crate::Test;
use crate::disks::sha256;

pub const TESTS: &[Test] = &[
    Test {
        name: "KILL0001 a checksum is right though the block driver dies 20 times under it",
        run: read_under_kills,
    },
    Test {
        name: "KILL0002 what was written and synced is right though the block driver dies 20 times",
        run: write_under_kills,
    },
    Test { name: "KILL0003 free shows the same after 90 kills of the driver", run: no_leak },
    Test {
        name: "KILL0004 every way to misbehave is contained, recorded and followed by a restart",
        run: every_way,
    },
    Test { name: "KILL0005 every server can be killed and the system goes on", run: every_server },
    Test {
        name: "KILL0006 a looping driver gets no more than its budget, and the shell goes on",
        run: budget,
    },
    Test { name: "KILL0007 killing what does not exist is a clear error", run: nobody },
    Test {
        name: "KILL0008 a driver that dies too often is given up, its clients are told, and restart revives it",
        run: given_up,
    },
    Test {
        name: "KILL0009 the kernel's invariants hold after every call while servers die (debug kernel)",
        run: debug_kernel,
    },
];

const SIZE: usize = 8 << 20;

/// Requests in flight, added up over all crash records that `crashes` printed.
fn in_flight(text: &str) -> Result<Vec<u64>> {
    let counts: Vec<u64> = Died::all(text).iter().map(|died| died.in_flight).collect();
    ensure!(!counts.is_empty(), "no crash record in {text}");
    Ok(counts)
}

fn read_under_kills(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let lines = ["kill virtio-blk --every 2 --times 20", "sha256 /disk/BIG.BIN", "crashes 40"];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    let expected = format!("{}  /disk/BIG.BIN\n", sha256(&noise(42, SIZE))?);
    ensure!((said[1].text.as_str(), said[1].status) == (expected.as_str(), 0), "{:?}", said[1]);
    let counts = in_flight(&said[2].text)?;
    ensure!(counts.len() == 20, "{} deaths: {}", counts.len(), said[2].text);
    ensure!(counts.iter().all(|count| *count > 0), "in flight: {counts:?}");
    Ok(())
}

fn write_under_kills(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let lines = [
        "ls /disk",
        "kill virtio-blk --every 2 --times 20",
        "fill /disk/NEW.BIN 8m 9; sync",
        "crashes 40",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!((said[2].text.as_str(), said[2].status) == ("", 0), "{:?}", said[2]);
    ensure!(in_flight(&said[3].text)?.len() >= 10, "{}", said[3].text);
    ensure!(disk.get("/NEW.BIN")? == noise(9, 8 << 20), "NEW.BIN differs");
    disk.check()
}

fn no_leak(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    // The driver runs when the folder is listed; before that there would be nobody to kill.
    let lines = [
        "ls /disk",
        "kill virtio-blk; sha256 /disk/BIG.BIN",
        "free",
        "repeat 90 kill virtio-blk",
        "sha256 /disk/BIG.BIN",
        "free",
        "crashes 1",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said.iter().all(|said| said.status == 0), "{said:?}");
    ensure!(said[1].text == said[4].text, "{said:?}");
    ensure!(said[2] == said[5], "{} and {}", said[2].text, said[5].text);
    ensure!(said[6].text.starts_with("91 deaths since boot"), "{:?}", said[6]);
    Ok(())
}

fn every_way(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let ways = [
        ("null", "null pointer"),
        ("illegal", "undefined instruction"),
        ("stack", "store to"),
        ("memory", "memory quota"),
        ("panic", "panic"),
        ("loop", "budget"),
        ("exit", "exit with code 1"),
        ("hang", "heartbeat"),
        ("caps", "capability quota exhausted"),
        ("device", "device does not answer"),
    ];
    for (way, words) in ways {
        let kill = format!("kill virtio-blk --at-request 1 --how {way}");
        let lines = [kill.as_str(), "sha256 /disk/BIG.BIN", "crashes 1", "ps"];
        let said = fixture.exec(Some(disk.path()), &lines)?;
        ensure!(said[1].status == 0, "{way}: {:?}", said[1]);
        ensure!(said[2].text.contains(words), "{way}: {}", said[2].text);
        ensure!(in_flight(&said[2].text)?[0] > 0, "{way}: {}", said[2].text);
    }
    Ok(())
}

fn every_server(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    for server in ["console", "pci", "virtio-blk", "fs", "bootfs", "hello"] {
        let kill = format!("kill {server}; sleep 0.2; ls /disk; hello; ls /boot/server; ps");
        let text = fixture.ok(disk.path(), &kill).with_context(|| server.to_string())?;
        ensure!(text.contains("BIG.BIN") && text.contains("Hello, world!"), "{server}: {text}");
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.into_iter().find(|row| row.len() > 5 && row[0] == server);
        let restarts = row.map(|row| row[3]);
        ensure!(restarts == Some("1"), "{server}: {text}");
    }
    Ok(())
}

fn budget(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    // The shell, far below the driver, goes on counting while the driver loops.
    let line = "kill virtio-blk --at-request 1 --how loop; sha256 /disk/BIG.BIN & repeat 200 true; echo alive; wait; crashes 1";
    let text = fixture.ok(disk.path(), line)?;
    let alive = text.find("alive\n").context("the shell went on")?;
    let sum = text.find("  /disk/BIG.BIN\n").context("the sum came in the end")?;
    ensure!(alive < sum && text.contains("budget"), "{text}");
    Ok(())
}

/// The debug kernel checks its invariants after every trap, and panics if one does not hold.
fn debug_kernel(shipped: &Fixture) -> Result<()> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/A.BIN", &noise(4, 200_000))?;
    // Each trap walks all capabilities: whoever looks at the clock finds everybody late.
    let experiment = Experiment { heartbeats: Switch::Off, ..Experiment::KILLS };
    let recipe =
        Recipe { kernel: KernelVariant::Debug, experiment: Some(experiment), ..Recipe::default() };
    let fixture = Fixture::of(shipped.arch(), &recipe)?;
    let lines = [
        "kill virtio-blk --at-request 3",
        "sha256 /disk/A.BIN",
        "kill hello; hello",
        "kill fs",
        "sha256 /disk/A.BIN",
        "run /boot/server/hello; kill hello-2; run /boot/server/hello; stop hello-2",
        "crashes 40",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    for (server, deaths) in [("virtio-blk", 1), ("hello", 1), ("fs", 1), ("hello-2", 2)] {
        let told = Died::count_of(&said[6].text, server);
        ensure!(told == deaths, "{server} died {told} times: {}", said[6].text);
    }
    let expected = format!("{}  /disk/A.BIN\n", sha256(&noise(4, 200_000))?);
    ensure!(said[1].text == expected && said[4].text == expected, "{said:?}");
    ensure!(said[2].text == "Hello, world!\n", "{said:?}");
    ensure!(said[5].status == 0 && said[5].text.matches("hello-2 serves").count() == 2, "{said:?}");
    Ok(())
}

/// A driver that is killed more often than its manifest tolerates is given up: clients are told.
fn given_up(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let lines = [
        "sha256 /disk/BIG.BIN",
        "kill virtio-blk --every 1; sha256 /disk/BIG.BIN",
        "ls /disk",
        "ps; hello",
        "restart virtio-blk; kill virtio-blk --at-request 1000000; sha256 /disk/BIG.BIN",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said[1].status == 1 && said[2].status == 1, "{said:?}");
    ensure!(
        said[3].text.contains("failed") && said[3].text.ends_with("Hello, world!\n"),
        "{}",
        said[3].text
    );
    ensure!(said[4] == said[0], "after `restart`: {:?}", said[4]);
    Ok(())
}

fn nobody(fixture: &Fixture) -> Result<()> {
    let said = fixture.exec(None, &["kill nobody", "kill fs --how nicely", "restart nobody"])?;
    ensure!(said[0].status == 1 && said[0].text.contains("no server has this name"), "{said:?}");
    ensure!(said[1].status == 2 && said[2].status == 1, "{said:?}");
    Ok(())
}
