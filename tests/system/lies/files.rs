//! A liar between the shell and the file server.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skink_tests::{Disk, Fixture, noise, one_at_a_time};
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Watch};

use super::{LATE, PANIC, User, Way, chosen, each_in_turn, told, untold, with_liar};
use crate::disks::sha256;

const SIZE: usize = 300_000;
/// Seconds that a call may take, and a little more (the shell's `watch::DEADLINE_NS`).
const CALL: f64 = 305.0;

/// The manifest with a liar between the shell and the file server.
fn before_files(common: &str, ways: &str) -> String {
    let need = "server = \"fs\", protocol = \"file\", sessions = 6";
    let honest = "{ name = \"honest\", server = \"fs\", protocol = \"file\", shared = \"256KiB\" }";
    let lied_to = need.replace("\"fs\"", "\"liar\"");
    let common = common.replace(need, &lied_to);
    assert!(common.contains(&lied_to), "the need of the shell");
    with_liar(&common, 130, &format!("file {ways}"), "file", honest)
}

const FILES: &[Way] = &[
    told("silent", LATE),
    untold("slow"),
    told("late", LATE),
    untold("repeats"),
    untold("mixes"),
    untold("garbage"),
    untold("short"),
    untold("long"),
    untold("status"),
    untold("refuses"),
    untold("too-much"),
    untold("nothing"),
    untold("endless"),
    untold("stuck"),
    untold("empty"),
    untold("same-handle"),
    untold("false-handle"),
    untold("names"),
    untold("sizes"),
    told("signals", LATE),
    told("dies", PANIC),
    told("dies-after", PANIC),
];

/// Lists without an end: a person ends them.
fn is_endless(way: &Way) -> bool {
    matches!(way.name, "endless" | "empty")
}

fn disk() -> Result<Disk> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/F.BIN", &noise(7, SIZE))?;
    disk.make_directory("/DIR")?;
    disk.put("/DIR/A.TXT", b"a\n")?;
    Ok(disk)
}

/// What a user does with files.
fn commands(way: &Way) -> impl Iterator<Item = &'static str> {
    let all = [
        "ls /disk",
        "ls -l /disk/DIR",
        "sha256 /disk/F.BIN",
        "write /disk/W.TXT words",
        "cat /disk/W.TXT",
        "cp /disk/F.BIN /disk/C.BIN",
        "df",
        "mkdir /disk/NEW",
        "mv /disk/C.BIN /disk/D.BIN",
        "sync",
        "rm /disk/D.BIN",
        "rm -r /disk/NEW",
    ];
    let lists = |command: &str| command.starts_with("ls") || command.starts_with("rm -r");
    let is_endless = is_endless(way);
    all.into_iter().filter(move |command| !is_endless || !lists(command))
}

pub fn once(shipped: &Fixture) -> Result<()> {
    let edit = |common: &str| before_files(common, "all");
    let fixture = Fixture::with_common(shipped.arch(), "lies-of-files", edit)?;
    let disk = disk()?;
    each_in_turn(&fixture, &disk, FILES, lied_to)
}

fn lied_to(user: &mut User<'_>, number: usize, way: &Way) -> Result<()> {
    let lying = 2 * number as u32 + 1;
    user.is_lied_to(lying, way)?;
    let sum = format!("{}  /disk/F.BIN", sha256(&noise(7, SIZE))?);
    for command in commands(way) {
        let said = user.within(CALL, command)?;
        // A server can pass off an empty file, or one for another.
        let is_known = !matches!(way.name, "nothing" | "same-handle" | "mixes");
        if command.starts_with("sha256") && is_known {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
        ensure!(user.say("hello")?.0 == "Hello, world!\n", "others are not served");
    }
    user.ends_lie(lying, way)?;
    let word = format!("right {number}");
    let write = format!("write /disk/W.TXT {word}");
    for (command, expected) in [
        ("sha256 /disk/F.BIN", Some(&sum)),
        (write.as_str(), None),
        ("sync", None),
        ("cat /disk/W.TXT", Some(&word)),
    ] {
        let said = user.succeeds_within(CALL, command)?;
        ensure!(expected.is_none_or(|expected| said == *expected), "`{command}`: {said}");
    }
    user.say("sleep 61; restart liar")?;
    Ok(())
}

pub fn for_ever(shipped: &Fixture) -> Result<()> {
    for way in chosen(FILES, "silent") {
        lies_on(shipped, way).with_context(|| way.name)?;
    }
    Ok(())
}

fn lies_on(shipped: &Fixture, way: &Way) -> Result<()> {
    let edit = |common: &str| before_files(common, way.name);
    let fixture = Fixture::with_common(shipped.arch(), "lies-of-files-for-ever", edit)?;
    let disk = disk()?;
    let _alone = one_at_a_time();
    let mut user = User::boot(&fixture, &disk)?;
    for command in commands(way) {
        user.within(2.0 * CALL, command)?;
        ensure!(user.within(1.0, "cat /boot/motd")?.is_some(), "others are not served");
    }
    user.guest.shut_down()?;
    Ok(())
}

/// A person at the terminal.
struct Person<'a> {
    guest: Guest<'a>,
    keyboard: std::os::unix::net::UnixStream,
}

impl Person<'_> {
    fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    fn prompts(&self) -> usize {
        self.guest.console().matches("skink> ").count()
    }

    /// Waits for a prompt more than there were, for so long.
    fn gets_prompt(&self, before: usize, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while self.prompts() <= before {
            ensure!(Instant::now() < until, "no prompt: {}", self.guest.post_mortem());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

pub fn ctrl_c(shipped: &Fixture) -> Result<()> {
    for way in chosen(FILES, "silent,endless").map(|way| way.name) {
        let edit = |common: &str| before_files(common, way);
        let fixture = Fixture::with_common(shipped.arch(), "ctrl-c", edit)?;
        let disk = disk()?;
        let _alone = one_at_a_time();
        let options = Options { disk: Some(disk.path().into()), ..Options::default() };
        let guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
        let keyboard = guest.terminal()?;
        let mut person = Person { guest, keyboard };
        person.gets_prompt(0, Duration::from_secs(30))?;
        let lists = ["ls /disk", "ls -l /disk/DIR", "ls /boot; ls /disk"];
        let others =
            ["cat /disk/W.TXT", "cp /disk/F.BIN /disk/C.BIN", "df", "sync", "rm /disk/F.BIN"];
        let more = if matches!(way, "endless" | "empty") { &[][..] } else { &others };
        for command in lists.iter().chain(more) {
            let before = person.prompts();
            person.types(&format!("{command}\r"))?;
            std::thread::sleep(Duration::from_millis(200));
            ensure!(person.prompts() == before, "{way}: `{command}` ended by itself");
            person.types("\x03")?;
            person
                .gets_prompt(before, Duration::from_secs(3))
                .with_context(|| format!("{way}: {command}"))?;
        }
        // A name that cannot be completed holds up the terminal for a moment.
        let before = person.prompts();
        person.types("cat /disk/D\t\x03")?;
        person
            .gets_prompt(before, Duration::from_secs(8))
            .with_context(|| format!("{way}: completion"))?;
        let before = person.prompts();
        person.types("hello\r")?;
        person.gets_prompt(before, Duration::from_secs(3))?;
        ensure!(person.guest.console().contains("Hello, world!"), "{}", person.guest.console());
        person.guest.shut_down()?;
    }
    Ok(())
}
