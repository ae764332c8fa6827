//! A disk's driver that lies to the file server.

use anyhow::{Result, ensure};
use skink_tests::Fixture;

use super::user::User;
use super::{
    INDEX, LATE, LIVES, Liar, PANIC, UNKNOWN, WRONG, Way, chosen, disk, fixture, in_turn, told,
    untold,
};

pub const LIAR: Liar = Liar { server: "lying-driver", ways: WAYS };

const WAYS: &[Way] = &[
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
    told("overfills", INDEX),
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

/// Seconds that a request may take if its driver lies once: it is complained of after 30 to 45 s (`fs`'s
/// `ring_disk`), and a little more.
const ONE: f64 = 46.0;
/// Seconds that a request may take whatever its driver does: three such deadlines.
const REQUEST: f64 = 3.0 * ONE;

pub fn once(shipped: &Fixture) -> Result<()> {
    let names = LIAR.turns(shipped.arch(), "all");
    let fixture = fixture(shipped, "lies", &format!("{names} 1"), "none 1")?;
    in_turn(&fixture, &disk()?, LIAR, LIAR.named(&names), lied_to)
}

/// One instance lies in this way: every command ends; then an honest one makes it good.
pub fn lied_to(user: &mut User<'_>, way: &Way) -> Result<()> {
    user.waits_for_quiet()?;
    user.begins_lie(way)?;
    if way.at_attach {
        user.succeeds("restart fs")?;
    }
    let (name, file, sum) = (way.name, way.file(), way.sum()?);
    let commands = [
        format!("sha256 /disk/{file}"),
        format!("write /disk/{name}.TXT words of {name}"),
        "sync".to_owned(),
        "df".to_owned(),
        "ls /disk".to_owned(),
        format!("cat /disk/{name}.TXT"),
        format!("cp /disk/{file} /disk/COPY.BIN"),
        "rm /disk/COPY.BIN".to_owned(),
        "sync".to_owned(),
    ];
    for command in &commands {
        let said = user.within(ONE, command)?;
        if command.starts_with("sha256") {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
    }
    let lies = user.ends_lie(way)?;
    eprintln!("driver {name}: {lies} lies");
    for (command, expected) in [
        (format!("sha256 /disk/{file}"), Some(sum)),
        (format!("write /disk/{name}.TXT right {name}"), None),
        ("sync".to_owned(), None),
        (format!("cat /disk/{name}.TXT"), Some(format!("right {name}"))),
    ] {
        let said = user.succeeds_within(1.0, &command)?;
        ensure!(expected.is_none_or(|expected| said == expected), "`{command}`: {said}");
    }
    Ok(())
}

/// All instances lie in the same way: every command ends, with what is right or with an error; restarts
/// are bounded; who needs no disk is served.
pub fn for_ever(shipped: &Fixture) -> Result<()> {
    let names = LIAR.turns(shipped.arch(), &chosen("silent,status,dies"));
    let fixture = fixture(shipped, "lies-for-ever", &format!("{names} {LIVES}"), "none 1")?;
    in_turn(&fixture, &disk()?, LIAR, LIAR.named(&names), |user, way| {
        user.waits_for_quiet()?;
        user.begins_lie(way)?;
        let (name, file, sum) = (way.name, way.file(), way.sum()?);
        let commands = [
            format!("sha256 /disk/{file}"),
            "ls /disk".to_owned(),
            format!("write /disk/{name}.TXT words"),
            "sync".to_owned(),
            "df".to_owned(),
            format!("sha256 /disk/{file}"),
        ];
        let began_s = user.now_s()?;
        for command in &commands {
            let said = user.within(3.0 * REQUEST, command)?;
            if command.starts_with("sha256") {
                ensure!(said.is_none_or(|said| said == sum), "false bytes");
            }
            user.succeeds_within(1.0, "cat /boot/motd")?;
        }
        let seconds = user.now_s()? - began_s;
        let (lies, restarts) = user.ends_lies(LIVES)?;
        eprintln!("driver {name}, for ever: {lies} lies, {restarts} restarts");
        // Three times a minute `fs` is heard; what dies by itself does so for each request that is repeated.
        let most = if way.told == Some(PANIC) { LIVES } else { 3 * (seconds / 60.0 + 1.0) as u32 };
        ensure!(restarts <= most, "{restarts} restarts in {seconds} s");
        let said = user.succeeds_within(1.0, &commands[0])?;
        ensure!(said == sum, "false bytes of an honest driver");
        Ok(())
    })
}
