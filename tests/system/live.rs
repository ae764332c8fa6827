//! Live operations: `stop`, `start`, `service`, and what callers see meanwhile.

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "LIVE0001 a stopped server's callers are told at once, and it can be started again",
        run: stop_and_start,
    },
    Test {
        name: "LIVE0002 service tells what is known of a server, and who waits on it",
        run: told,
    },
    Test {
        name: "LIVE0003 an idle file system notices that its driver is stopped, and that it is back",
        run: driver,
    },
];

fn stop_and_start(fixture: &Fixture) -> Result<()> {
    let lines = [
        "stop hello",
        "time hello",
        "stop hello",
        "kill hello",
        "start hello",
        "hello; start hello",
        "start nobody; stop nobody",
        "start virtio-blk",
    ];
    let said = fixture.exec(None, &lines)?;
    let expected = [
        (0, "", "stopped"),
        (1, "the service is not running", "told at once"),
        (1, "the server does not run", "stopped twice"),
        (1, "the server does not run", "killed while it is down"),
        (0, "", "started"),
        (1, "Hello, world!\nstart: it runs already\n", "started twice"),
        (1, "stop: no server has this name", "unknown"),
        (1, "start: its device is not there", "no disk"),
    ];
    for (said, (status, words, what)) in said.iter().zip(expected) {
        ensure!(said.status == status && said.text.contains(words), "{what}: {said:?}");
    }
    Ok(())
}

fn driver(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(9 << 20)?;
    let read = "sha256 /disk/BIG.BIN";
    let lines = [read, "stop virtio-blk; sleep 0.1", read, read, "start virtio-blk", read];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said[0].status == 0 && said[5] == said[0], "{said:?}");
    for said in &said[2..4] {
        let told =
            said.text.contains("the disk failed") || said.text.contains("driver does not run");
        ensure!(said.status == 1 && told, "{said:?}");
    }
    Ok(())
}

fn told(fixture: &Fixture) -> Result<()> {
    let lines = ["service console", "kill hello; sleep 0.1; service hello", "service nobody"];
    let said = fixture.exec(None, &lines)?;
    // The shell's terminal thread and the reader of the tool's lines wait for input.
    let waiting = |line: &str| line.split_whitespace().last().and_then(|n| n.parse::<u32>().ok());
    let sessions = said[0].text.lines().filter(|line| line.starts_with("shell "));
    let waiting: u32 = sessions.filter_map(waiting).sum();
    ensure!(waiting == 2 && said[0].text.contains("needed by    shell\n"), "{}", said[0].text);
    for words in [
        "hello: running\n",
        "incarnation  2, 1 restarts;",
        "permanent; 1 of 10 deaths in 10000 ms; back-off 10 to 1000 ms; heartbeat every 1000 ms",
        "privileges   log\n",
        "needs        nobody\n",
    ] {
        ensure!(said[1].text.contains(words), "`{words}`: {}", said[1].text);
    }
    ensure!(said[2].status == 1 && said[2].text.contains("no server has this name"), "{said:?}");
    Ok(())
}
