//! Peers that lie or are silent (`tests/liar`), between a client and the server that it means. Every
//! command ends in its time, with what is right or with an error, and everybody recovers.
//!
//! Of the tests in which a way lasts for ever, each way takes a boot: some are chosen. All of them:
//! `SKINK_LIES=all cargo test -p skink-tests --test system -- --ignored LIES` (Ctrl-C only for those that do
//! not end by themselves: `SKINK_LIES=silent,late,signals,endless,empty ... -- LIES0005`).
//!
//! Those that wait for deadlines run on counted time, which costs nothing while the guest is idle, and
//! jumps from timer to timer while the host's disk works. On a host with other work an honest driver is
//! late then, so they run only when asked for (`--ignored`), on a quiet host.

mod driver;
mod files;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Outcome, Watch};

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "LIES0005 Ctrl-C ends every wait for a file server at once",
    run: files::ctrl_c,
}];

/// On counted time.
pub const LONG: &[Test] = &[
    Test {
        name: "LIES0001 a disk's driver that lies or is silent costs a told time, and its successor makes it good",
        run: driver::once,
    },
    Test {
        name: "LIES0002 a disk's driver that lies for ever is restarted a told number of times, and others are served",
        run: driver::for_ever,
    },
    Test {
        name: "LIES0003 a file server that lies or is silent costs a told time, and its successor makes it good",
        run: files::once,
    },
    Test {
        name: "LIES0004 a file server that lies for ever is restarted a told number of times, and others are served",
        run: files::for_ever,
    },
];

/// How long the host waits for a line.
const PATIENCE: Duration = Duration::from_secs(120);

/// The manifest with a liar, which speaks `protocol` to whoever was made its client and needs the honest
/// server. The driver does not judge its device by a clock that jumps.
fn with_liar(common: &str, priority: u8, args: &str, protocol: &str, honest: &str) -> String {
    let liar = format!(
        "[[server]]\nname = \"liar\"\npriority = {priority}\nbudget_us = 100_000\nperiod_us = 200_000\n\
         memory = \"1MiB\"\nheap = \"256KiB\"\nreplies = 16\nargs = \"{args}\"\n\
         provides = [\"{protocol}\"]\nneeds = [{honest}]\nprivileges = [\"log\"]\n\
         restart = \"permanent\"\nintensity = 100\nheartbeat_ms = 1_000\n\n[programs]"
    );
    common
        .replace("name = \"virtio-blk\"\n", "name = \"virtio-blk\"\nargs = \"deadline_ms=0\"\n")
        .replacen("[programs]", &liar, 1)
}

/// A guest, as its user sees it.
pub struct User<'a> {
    pub guest: Guest<'a>,
}

impl User<'_> {
    /// Boots a system whose time is counted, so that a wait costs nothing. The clock jumps while the guest
    /// waits for its disk as well: QEMU does not wait for the host's disk at a flush, which may take as
    /// long as the host is busy.
    pub fn boot<'a>(fixture: &'a Fixture, disk: &Disk) -> Result<User<'a>> {
        let options =
            Options { disk: Some(disk.path().into()), icount: true, ..Options::default() };
        Ok(User { guest: Guest::boot(fixture.system(), &options, &Watch::default())? })
    }

    /// The liar is instance `lying`, which lies in this way.
    pub fn is_lied_to(&mut self, lying: u32, way: &Way) -> Result<()> {
        ensure!(self.incarnation("liar")? == lying, "the liar is another one");
        let console = self.guest.console();
        let lies = console.rsplit_once("lies: ").context("the liar says nothing")?.1;
        ensure!(lies.lines().next().map(str::trim) == Some(way.name), "it lies otherwise: {lies}");
        Ok(())
    }

    /// What was told of the liar is so; its next instance runs afterwards.
    pub fn ends_lie(&mut self, lying: u32, way: &Way) -> Result<()> {
        let (crashes, _) = self.say("crashes 1")?;
        match way.told {
            Some(told) => ensure!(crashes.contains(told), "not told: {crashes}"),
            None => ensure!(self.incarnation("liar")? == lying, "blamed: {crashes}"),
        }
        if self.incarnation("liar")? == lying {
            self.say("restart liar")?;
        }
        ensure!(self.incarnation("liar")? == lying + 1, "restarted more than once");
        Ok(())
    }

    /// Runs a line; what it printed, and its status.
    pub fn say(&mut self, line: &str) -> Result<(String, i32)> {
        let (bytes, outcome) = self.guest.capture(line, PATIENCE)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Outcome::Status(status) = outcome else {
            bail!("`{line}`: {outcome:?} after {text}\n{}", self.guest.post_mortem());
        };
        Ok((text, status))
    }

    /// Runs a command that ends within so many seconds of the guest's time. What it printed, if it
    /// succeeded.
    pub fn within(&mut self, seconds: f64, command: &str) -> Result<Option<String>> {
        let (text, status) = self.say(&format!("time {command}"))?;
        let (said, time) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
        let took: f64 = time.trim_end_matches(" s").parse().with_context(|| text.clone())?;
        ensure!(took < seconds, "`{command}` took {took} s: {text}");
        match status {
            0 => Ok(Some(said.to_owned())),
            1 if !said.trim().is_empty() => Ok(None),
            _ => bail!("`{command}`: status {status}: {text}"),
        }
    }

    /// The same for one that must succeed.
    pub fn succeeds_within(&mut self, seconds: f64, command: &str) -> Result<String> {
        self.within(seconds, command)?.with_context(|| format!("`{command}` failed"))
    }

    pub fn incarnation(&mut self, server: &str) -> Result<u32> {
        let (text, _) = self.say(&format!("service {server}"))?;
        let number = text
            .split_once("incarnation")
            .and_then(|(_, rest)| rest.trim_start().split([',', ' ', '\n']).next()?.parse().ok());
        number.with_context(|| text.clone())
    }
}

/// Boots the system of a liar that has each of these ways in turn, and tries them, one after the other.
fn each_in_turn(
    fixture: &Fixture,
    disk: &Disk,
    ways: &[Way],
    lied_to: impl Fn(&mut User<'_>, usize, &Way) -> Result<()>,
) -> Result<()> {
    {
        let _alone = one_at_a_time();
        let mut user = User::boot(fixture, disk)?;
        for (number, way) in ways.iter().enumerate() {
            lied_to(&mut user, number, way).with_context(|| {
                let (crashes, _) = user.say("crashes 5").unwrap_or_default();
                format!("{}: {crashes}\n{}", way.name, user.guest.post_mortem())
            })?;
        }
        user.guest.shut_down()?;
    }
    disk.check()
}

/// What a way to lie leads to.
pub struct Way {
    pub name: &'static str,
    /// The complaint, if there is one.
    pub told: Option<&'static str>,
    /// It lies when somebody attaches.
    pub at_attach: bool,
}

pub const fn told(name: &'static str, told: &'static str) -> Way {
    Way { name, told: Some(told), at_attach: false }
}

pub const fn untold(name: &'static str) -> Way {
    Way { name, told: None, at_attach: false }
}

impl Way {
    pub const fn at_attach(self) -> Way {
        Way { at_attach: true, ..self }
    }
}

pub const LATE: &str = "does not answer in time";
pub const UNKNOWN: &str = "answers what was not asked";
pub const WRONG: &str = "gives an answer that is none";
pub const INDEX: &str = "has an index that makes no sense";
pub const PANIC: &str = "panic";

/// Those that `SKINK_LIES` names, or `all`: each takes a boot.
pub fn chosen(all: &'static [Way], default: &'static str) -> impl Iterator<Item = &'static Way> {
    let names = std::env::var("SKINK_LIES").unwrap_or(default.into());
    all.iter().filter(move |way| names == "all" || names.split(',').any(|name| name == way.name))
}
