//! The shell's own commands.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Outcome, Watch};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "SHELL0001 commands print exactly their output, and the last status counts",
        run: output,
    },
    Test { name: "SHELL0002 ps lists every server of the manifest as running", run: ps },
    Test {
        name: "SHELL0003 background jobs run beside each other, and wait waits for them",
        run: jobs,
    },
    Test { name: "SHELL0004 the files of the boot image can be listed and read", run: boot_files },
    Test {
        name: "SHELL0005 many commands in one boot leak neither frames nor slots",
        run: no_leak,
    },
    Test {
        name: "SHELL0006 Ctrl-C ends what was typed with its jobs, and neither the host's line nor its jobs",
        run: interrupts,
    },
];

fn disk() -> Result<Disk> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/HELLO.TXT", b"Hello from the disk.\n")?;
    Ok(disk)
}

fn output(fixture: &Fixture) -> Result<()> {
    let disk = disk()?;
    let lines = [
        "echo one; echo 'two  words'",
        "false",
        "true; nonsense",
        "echo a; false; echo b",
        "hello Ada",
        "cat /disk/NONE",
        "ls -z",
        "echo 'open",
        "repeat 3 echo x",
        "time true",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    let is = |i: usize, text: &str, status: i32| {
        ensure!(
            (said[i].text.as_str(), said[i].status) == (text, status),
            "{}: {:?}",
            lines[i],
            said[i]
        );
        Ok(())
    };
    is(0, "one\ntwo  words\n", 0)?;
    is(1, "", 1)?;
    is(2, "nonsense: unknown command; `help` lists them\n", 127)?;
    is(3, "a\nb\n", 0)?;
    is(4, "Hello, Ada!\n", 0)?;
    is(5, "cat: /disk/NONE: no such file or directory\n", 1)?;
    is(6, "ls: usage: ls [-l] [PATH]...\n", 2)?;
    is(7, "the quote ' is not closed\n", 2)?;
    is(8, "x\nx\nx\n", 0)?;
    ensure!(said[9].status == 0 && said[9].text.ends_with(" s\n"), "{:?}", said[9]);
    Ok(())
}

fn ps(fixture: &Fixture) -> Result<()> {
    let disk = disk()?;
    let text = fixture.ok(disk.path(), "ls /disk; ps")?;
    for name in ["console", "pci", "virtio-blk", "fs", "bootfs", "hello", "shell"] {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        ensure!(line.is_some_and(|line| line.contains("running")), "{name}: {text}");
    }
    Ok(())
}

fn jobs(fixture: &Fixture) -> Result<()> {
    let disk = disk()?;
    let lines = [
        "sleep 1.5 & sleep 1.5 & time wait",
        "cat /disk/HELLO.TXT & wait; echo then",
        "wait",
        "wait & repeat 2 wait & wait",
    ];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said.iter().all(|said| said.status == 0), "{said:?}");
    let seconds = said[0].text.lines().filter_map(|line| line.strip_suffix(" s"));
    let waited: Vec<f64> = seconds.filter_map(|seconds| seconds.parse().ok()).collect();
    // Both at once, and to the end of both: one after the other would be three seconds.
    let is_one = |waited: &f64| (1.4..2.9).contains(waited);
    ensure!(waited.len() == 1 && waited.iter().all(is_one), "{:?}", said[0]);
    let (hello, then) = (said[1].text.find("Hello from the disk.\n"), said[1].text.find("then\n"));
    ensure!(hello.is_some() && hello < then, "{:?}", said[1]);
    Ok(())
}

fn boot_files(fixture: &Fixture) -> Result<()> {
    let said = fixture
        .exec(None, &["ls /boot/server", "hexdump /boot/server/hello 0 4", "write /boot/x y"])?;
    ensure!(said[0].text.contains("virtio-blk\n"), "{:?}", said[0]);
    ensure!(said[1].text.contains("7f 45 4c 46") && said[1].text.contains(".ELF"), "{:?}", said[1]);
    ensure!(said[2].status == 1 && said[2].text.contains("read-only"), "{:?}", said[2]);
    Ok(())
}

fn no_leak(fixture: &Fixture) -> Result<()> {
    let disk = disk()?;
    let lines = ["ls /disk", "free", "repeat 50 cat /disk/HELLO.TXT", "free"];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said[1] == said[3], "{:?} and {:?}", said[1], said[3]);
    Ok(())
}

/// Types what a person would, with a pause behind each piece.
fn types(mut keyboard: UnixStream, pieces: &[&str]) -> std::io::Result<()> {
    for piece in pieces {
        std::thread::sleep(Duration::from_millis(400));
        keyboard.write_all(piece.as_bytes())?;
    }
    Ok(())
}

fn interrupts(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let mut guest = Guest::boot(fixture.system(), &Options::default(), &Watch::default())?;
    ensure!(guest.capture("true", Duration::from_secs(60))?.1 == Outcome::Status(0), "no shell");
    let keyboard = guest.terminal()?;
    let typist = std::thread::spawn(move || {
        // Quoted so that the echo of what is typed is not yet its output. That `wait` ends shows that
        // the job has.
        types(
            keyboard,
            &[
                "sleep 100\r",
                "\x03",
                "echo a li\"\"ne\r",
                "sleep 100 &\r",
                "wait\r",
                "\x03",
                "wait; echo a j\"\"ob\r",
            ],
        )
    });
    let line = "sleep 7 & sleep 5; echo first; wait; echo second";
    let (text, outcome) = guest.capture(line, Duration::from_secs(120))?;
    typist.join().expect("the typist")?;
    let text = String::from_utf8_lossy(&text);
    ensure!((&*text, outcome) == ("first\nsecond\n", Outcome::Status(0)), "{outcome:?}: {text}");
    let console = guest.console();
    ensure!(console.contains("a line") && console.contains("a job"), "{console}");
    guest.shut_down()?;
    Ok(())
}
