//! A file server that lies to the shell.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skink_tests::{Fixture, one_at_a_time};

use super::user::User;
use super::{LATE, LIVES, Liar, PANIC, Way, chosen, disk, fixture, in_turn, options, told, untold};

/// Seconds that a call may take, and a little more (the shell's `watch::DEADLINE_NS`).
const CALL: f64 = 305.0;

pub const LIAR: Liar = Liar { server: "lying-files", ways: WAYS };

const WAYS: &[Way] = &[
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
    untold("stuck"),
    untold("same-handle"),
    untold("false-handle"),
    untold("names"),
    untold("sizes"),
    told("signals", LATE),
    told("dies", PANIC),
    told("dies-after", PANIC),
    untold("endless"),
    untold("empty"),
];

/// The last of them, whose lists have no end but a person's ([`ctrl_c`]); nothing else lies in them.
const ENDLESS: [&str; 2] = ["endless", "empty"];

/// What a user does with files.
fn commands(way: &Way) -> [String; 12] {
    let file = way.file();
    [
        "ls /disk",
        "ls -l /disk/SMALL",
        &format!("sha256 /disk/{file}"),
        "write /disk/W.TXT words",
        "cat /disk/W.TXT",
        &format!("cp /disk/{file} /disk/C.BIN"),
        "df",
        "mkdir /disk/NEW",
        "mv /disk/C.BIN /disk/D.BIN",
        "sync",
        "rm /disk/D.BIN",
        "rm -r /disk/NEW",
    ]
    .map(str::to_owned)
}

pub fn once(shipped: &Fixture) -> Result<()> {
    let ends = LIAR.named("all").map(|way| way.name).filter(|name| !ENDLESS.contains(name));
    let names = LIAR.turns(shipped.arch(), &ends.collect::<Vec<&str>>().join(","));
    let fixture = fixture(shipped, "lies-of-files", "none 1", &format!("{names} 1"))?;
    in_turn(&fixture, &disk()?, LIAR, LIAR.named(&names), lied_to)
}

/// One instance lies in this way: every command ends; then an honest one makes it good.
pub fn lied_to(user: &mut User<'_>, way: &Way) -> Result<()> {
    user.waits_for_quiet()?;
    user.begins_lie(way)?;
    let sum = way.sum()?;
    for command in commands(way) {
        let said = user.within(CALL, &command)?;
        // A server can pass off an empty file, or one for another.
        let is_known = !matches!(way.name, "nothing" | "same-handle" | "mixes");
        if command.starts_with("sha256") && is_known {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
        ensure!(user.say("hello")?.0 == "Hello, world!\n", "others are not served");
    }
    let lies = user.ends_lie(way)?;
    eprintln!("files {}: {lies} lies", way.name);
    let word = format!("right {}", way.name);
    let write = format!("write /disk/W.TXT {word}");
    let read = format!("sha256 /disk/{}", way.file());
    for (command, expected) in [
        (read.as_str(), Some(&sum)),
        (write.as_str(), None),
        ("sync", None),
        ("cat /disk/W.TXT", Some(&word)),
    ] {
        let said = user.succeeds_within(1.0, command)?;
        ensure!(expected.is_none_or(|expected| said == *expected), "`{command}`: {said}");
    }
    Ok(())
}

pub fn for_ever(shipped: &Fixture) -> Result<()> {
    let names = LIAR.turns(shipped.arch(), &chosen("silent,garbage,dies"));
    let fixture =
        fixture(shipped, "lies-of-files-for-ever", "none 1", &format!("{names} {LIVES}"))?;
    in_turn(&fixture, &disk()?, LIAR, LIAR.named(&names), |user, way| {
        user.waits_for_quiet()?;
        user.begins_lie(way)?;
        for command in commands(way) {
            user.within(2.0 * CALL, &command)?;
            user.succeeds_within(1.0, "cat /boot/motd")?;
        }
        let (lies, restarts) = user.ends_lies(LIVES)?;
        eprintln!("files {}, for ever: {lies} lies, {restarts} restarts", way.name);
        let said = user.succeeds_within(1.0, &format!("sha256 /disk/{}", way.file()))?;
        ensure!(said == way.sum()?, "false bytes of an honest server");
        Ok(())
    })
}

/// How long a person waits for the prompt behind Ctrl-C, on a host that is busy with other things.
const PROMPTLY: Duration = Duration::from_secs(20);

/// A person at the terminal.
struct Person<'a> {
    user: User<'a>,
    keyboard: UnixStream,
}

impl Person<'_> {
    fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    fn prompts(&self) -> usize {
        self.user.guest.console().matches("skink> ").count()
    }

    /// Waits for a prompt more than there were, for so long.
    fn gets_prompt(&self, before: usize, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while self.prompts() <= before {
            ensure!(Instant::now() < until, "no prompt: {}", self.user.guest.post_mortem());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Types a command, and Ctrl-C when it has stood for a moment; there is a prompt then.
    fn breaks_off(&mut self, command: &str) -> Result<()> {
        let before = self.prompts();
        self.types(&format!("{command}\r"))?;
        std::thread::sleep(Duration::from_millis(200));
        ensure!(self.prompts() == before, "`{command}` ended by itself");
        self.types("\x03")?;
        self.gets_prompt(before, PROMPTLY).with_context(|| command.to_owned())
    }
}

/// By the host's clock: a person types.
pub fn ctrl_c(shipped: &Fixture) -> Result<()> {
    let names = chosen("silent,endless,empty");
    let fixture = fixture(shipped, "ctrl-c", "none 1", &format!("{names} 1"))?;
    let disk = disk()?;
    let _alone = one_at_a_time();
    let user = User::boot(&fixture, options(disk.path(), false), LIAR.server)?;
    let keyboard = user.guest.terminal()?;
    let mut person = Person { user, keyboard };
    person.gets_prompt(0, Duration::from_secs(30))?;
    for way in LIAR.named(&names) {
        person.user.begins_lie(way)?;
        let lists = ["ls /disk", "ls -l /disk/SMALL", "ls /boot; ls /disk"];
        let others =
            ["cat /disk/W.TXT", "cp /disk/SMALL/S.TXT /disk/C.BIN", "df", "sync", "rm /disk/W.TXT"];
        let more = if ENDLESS.contains(&way.name) { &[][..] } else { &others };
        for command in lists.iter().chain(more) {
            person.breaks_off(command).context(way.name)?;
        }
        // A name that cannot be completed holds up the terminal for a moment.
        let before = person.prompts();
        person.types("cat /disk/S\t\x03")?;
        person.gets_prompt(before, PROMPTLY).context("completion")?;
        let before = person.prompts();
        person.types("hello\r")?;
        person.gets_prompt(before, PROMPTLY)?;
        // Nobody complained: nothing was waited for so long.
        let lies = person.user.ends_lie(&untold(way.name))?;
        eprintln!("files {}, Ctrl-C: {lies} lies", way.name);
    }
    let console = person.user.guest.console();
    ensure!(console.contains("Hello, world!"), "{console}");
    person.user.guest.shut_down()?;
    Ok(())
}
