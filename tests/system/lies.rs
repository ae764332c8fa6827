//! Peers that lie or are silent (`tests/liar`), between a client and the server that it means.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use skink_tests::{Disk, Fixture, noise, one_at_a_time};
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Outcome, Watch};

use crate::Test;
use crate::disks::sha256;

pub const TESTS: &[Test] = &[
    Test {
        name: "LIES0001 a disk's driver that lies or is silent costs a told time, and its successor makes it good",
        run: driver,
    },
    Test {
        name: "LIES0002 a disk's driver that lies for ever is restarted a told number of times, and others are served",
        run: driver_for_ever,
    },
];

/// Bytes of each file that is read: more than the file server reads ahead.
const SIZE: usize = 300_000;
/// How long the host waits for a line.
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest, as its user sees it.
struct User<'a> {
    guest: Guest<'a>,
}

impl User<'_> {
    /// Runs a line; what it printed, and its status.
    fn say(&mut self, line: &str) -> Result<(String, i32)> {
        let (bytes, outcome) = self.guest.capture(line, PATIENCE)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Outcome::Status(status) = outcome else {
            bail!("`{line}`: {outcome:?} after {text}\n{}", self.guest.post_mortem());
        };
        Ok((text, status))
    }

    /// Runs a command that ends within so many seconds of the guest's time. What it printed, if it
    /// succeeded.
    fn within(&mut self, seconds: f64, command: &str) -> Result<Option<String>> {
        let (text, status) = self.say(&format!("time {command}"))?;
        let (said, time) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
        let took: f64 = time.trim_end_matches(" s").parse().with_context(|| text.clone())?;
        ensure!(took < seconds, "`{command}` took {took} s: {text}");
        eprintln!("{took} {command}");
        match status {
            0 => Ok(Some(said.to_owned())),
            1 if !said.trim().is_empty() => Ok(None),
            _ => bail!("`{command}`: status {status}: {text}"),
        }
    }

    fn incarnation(&mut self, server: &str) -> Result<u32> {
        let (text, _) = self.say(&format!("service {server}"))?;
        let number = text
            .split_once("incarnation")
            .and_then(|(_, rest)| rest.trim_start().split([',', ' ', '\n']).next()?.parse().ok());
        number.with_context(|| text.clone())
    }
}

/// The manifest with a liar between the file server and its driver.
fn before_driver(common: &str, ways: &str) -> String {
    let need = "{ name = \"block\", server = \"virtio-blk\", protocol = \"block\", shared = \"8MiB\", dma = true, may_complain = true }";
    assert!(common.contains(need), "the need of `fs`");
    let lied_to = need.replace("virtio-blk", "liar").replace(", dma = true", "");
    let honest = need.replace("\"block\", server", "\"honest\", server");
    let liar = format!(
        "[[server]]\nname = \"liar\"\npriority = 170\nbudget_us = 100_000\nperiod_us = 200_000\n\
         memory = \"1MiB\"\nheap = \"256KiB\"\nreplies = 4\nargs = \"block {ways}\"\n\
         provides = [\"block\"]\nneeds = [{honest}]\nprivileges = [\"log\"]\n\
         restart = \"permanent\"\nintensity = 100\nheartbeat_ms = 1_000\n\n[programs]"
    );
    let patient = "name = \"virtio-blk\"\nargs = \"deadline_ms=0\"";
    common
        .replace(need, &lied_to)
        .replace("name = \"virtio-blk\"\n", &format!("{patient}\n"))
        .replacen("[programs]", &liar, 1)
}

/// What a way to lie leads to.
struct Way {
    name: &'static str,
    /// The complaint, if there is one.
    told: Option<&'static str>,
    /// It lies when somebody attaches.
    at_attach: bool,
}

const fn told(name: &'static str, told: &'static str) -> Way {
    Way { name, told: Some(told), at_attach: false }
}

const fn untold(name: &'static str) -> Way {
    Way { name, told: None, at_attach: false }
}

impl Way {
    const fn at_attach(self) -> Way {
        Way { at_attach: true, ..self }
    }
}

const LATE: &str = "does not answer in time";
const UNKNOWN: &str = "answers what was not asked";
const WRONG: &str = "gives an answer that is none";
const INDEX: &str = "has an index that makes no sense";
const PANIC: &str = "panic";

const DRIVERS: &[Way] = &[
    told("silent", LATE),
    told("loses", LATE),
    told("repeats", UNKNOWN),
    untold("reorders"),
    untold("delays"),
    told("late", LATE),
    told("invents", UNKNOWN),
    told("status", WRONG),
    told("jumps", INDEX),
    told("backward", INDEX),
    told("floods", UNKNOWN),
    untold("storms"),
    untold("rings-idly"),
    told("no-epoch", LATE),
    told("epochs", LATE),
    untold("scribbles"),
    told("dies", PANIC),
    told("dies-after", PANIC),
    untold("huge").at_attach(),
    untold("tiny").at_attach(),
    told("no-attach", LATE).at_attach(),
];

fn driver(shipped: &Fixture) -> Result<()> {
    let fixture =
        Fixture::with_common(shipped.arch(), "lies", |common| before_driver(common, "all"))?;
    let disk = Disk::fat32(64 << 20, 1)?;
    for number in 0..DRIVERS.len() {
        disk.put(&format!("/F{number}.BIN"), &noise(number as u64 + 1, SIZE))?;
    }
    let options = Options { disk: Some(disk.path().into()), icount: true, ..Options::default() };
    {
        let _alone = one_at_a_time();
        let guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
        let mut user = User { guest };
        for (number, way) in DRIVERS.iter().enumerate() {
            let began = std::time::Instant::now();
            lied_to(&mut user, number, way).with_context(|| {
                let (crashes, _) = user.say("crashes 5").unwrap_or_default();
                format!("{}: {crashes}\n{}", way.name, user.guest.post_mortem())
            })?;
            eprintln!("{} {:?}", way.name, began.elapsed());
        }
        user.guest.shut_down()?;
    }
    disk.check()
}

/// The liar is the instance that lies in this way: every command ends; then an honest one makes it good.
fn lied_to(user: &mut User<'_>, number: usize, way: &Way) -> Result<()> {
    let lying = 2 * number as u32 + 1;
    ensure!(user.incarnation("liar")? == lying, "the liar is another one");
    let console = user.guest.console();
    let lies = console.rsplit_once("lies: ").context("the liar says nothing")?.1;
    ensure!(lies.lines().next().map(str::trim) == Some(way.name), "it lies otherwise: {lies}");
    if way.at_attach {
        user.say("restart fs")?;
    }
    let sum = format!("{}  /disk/F{number}.BIN", sha256(&noise(number as u64 + 1, SIZE))?);
    let commands = [
        format!("sha256 /disk/F{number}.BIN"),
        format!("write /disk/W{number}.TXT words {number}"),
        "sync".to_owned(),
        "df".to_owned(),
        "ls /disk".to_owned(),
        format!("cat /disk/W{number}.TXT"),
        format!("cp /disk/F{number}.BIN /disk/C{number}.BIN"),
        format!("rm /disk/C{number}.BIN"),
        "sync".to_owned(),
    ];
    for command in &commands {
        let said = user.within(60.0, command)?;
        if command.starts_with("sha256") {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
    }
    let (crashes, _) = user.say("crashes 1")?;
    match way.told {
        Some(told) => ensure!(crashes.contains(told), "{crashes}"),
        None => ensure!(user.incarnation("liar")? == lying, "{crashes}"),
    }
    // The next one is honest.
    if user.incarnation("liar")? == lying {
        user.say("restart liar")?;
    }
    ensure!(user.incarnation("liar")? == lying + 1, "restarted once");
    for (command, expected) in [
        (format!("sha256 /disk/F{number}.BIN"), Some(sum)),
        (format!("write /disk/W{number}.TXT right {number}"), None),
        ("sync".to_owned(), None),
        (format!("cat /disk/W{number}.TXT"), Some(format!("right {number}"))),
    ] {
        let said = user.within(60.0, &command)?;
        let said = said.with_context(|| format!("`{command}` failed"))?;
        ensure!(expected.is_none_or(|expected| said == expected), "`{command}`: {said}");
    }
    // Complaints of the last minute count.
    user.say("sleep 61; restart liar")?;
    Ok(())
}

/// The driver lies in the same way whatever is done: every command ends, with what is right or with an
/// error; restarts are bounded; who needs no disk is served.
fn driver_for_ever(shipped: &Fixture) -> Result<()> {
    for way in chosen(DRIVERS, "silent,invents,status,epochs,dies") {
        for_ever(shipped, way).with_context(|| way.name)?;
    }
    Ok(())
}

/// Those that `SKINK_LIES` names, or `all`: each takes a boot.
fn chosen(all: &'static [Way], default: &'static str) -> impl Iterator<Item = &'static Way> {
    let names = std::env::var("SKINK_LIES").unwrap_or(default.into());
    all.iter().filter(move |way| names == "all" || names.split(',').any(|name| name == way.name))
}

fn for_ever(shipped: &Fixture, way: &Way) -> Result<()> {
    let edit = |common: &str| before_driver(common, way.name);
    let fixture = Fixture::with_common(shipped.arch(), "lies-for-ever", edit)?;
    let disk = Disk::with_noise(SIZE)?;
    let options = Options { disk: Some(disk.path().into()), icount: true, ..Options::default() };
    let _alone = one_at_a_time();
    let guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
    let mut user = User { guest };
    let began = std::time::Instant::now();
    let sum = format!("{}  /disk/BIG.BIN", sha256(&noise(42, SIZE))?);
    for command in [
        "sha256 /disk/BIG.BIN",
        "ls /disk",
        "write /disk/NEW.TXT words",
        "sync",
        "df",
        "sha256 /disk/BIG.BIN",
    ] {
        let said = user.within(400.0, command)?;
        eprintln!("{} {command}: {said:?}", way.name);
        if command.starts_with("sha256") {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
        let said = user.within(1.0, "cat /boot/motd")?;
        ensure!(said.is_some(), "others are not served");
    }
    eprintln!("{} {:?} {}", way.name, began.elapsed(), user.say("crashes 30")?.0);
    user.guest.shut_down()?;
    Ok(())
}
