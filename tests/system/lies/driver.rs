//! A liar between the file server and its disk's driver.

use anyhow::{Context, Result, ensure};
use skink_tests::{Disk, Fixture, noise, one_at_a_time};

use super::{
    INDEX, LATE, PANIC, UNKNOWN, User, WRONG, Way, chosen, each_in_turn, told, untold, with_liar,
};
use crate::disks::sha256;

/// Bytes of each file that is read: more than the file server reads ahead.
const SIZE: usize = 300_000;
/// Seconds that a request may take whatever its driver does (`fs`'s `ring_disk`), and a little more. Time
/// jumps while nothing runs, so a host's disk that is slow takes long.
const REQUEST: f64 = 140.0;

/// The manifest with a liar between the file server and its driver.
fn before_driver(common: &str, ways: &str) -> String {
    let need = "server = \"virtio-blk\", protocol = \"block\", shared = \"8MiB\"";
    let honest = format!("{{ name = \"honest\", {need}, dma = true }}");
    let lied_to = need.replace("virtio-blk", "liar");
    let common = common.replace(&format!("{need}, dma = true"), &lied_to);
    assert!(common.contains(&lied_to), "the need of `fs`");
    with_liar(&common, 170, &format!("block {ways}"), "block", &honest)
}

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

pub fn once(shipped: &Fixture) -> Result<()> {
    let fixture =
        Fixture::with_common(shipped.arch(), "lies", |common| before_driver(common, "all"))?;
    let disk = Disk::fat32(64 << 20, 1)?;
    for number in 0..DRIVERS.len() {
        disk.put(&format!("/F{number}.BIN"), &noise(number as u64 + 1, SIZE))?;
    }
    each_in_turn(&fixture, &disk, DRIVERS, lied_to)
}

/// The liar is the instance that lies in this way: every command ends; then an honest one makes it good.
fn lied_to(user: &mut User<'_>, number: usize, way: &Way) -> Result<()> {
    let lying = 2 * number as u32 + 1;
    user.is_lied_to(lying, way)?;
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
        let said = user.within(REQUEST, command)?;
        if command.starts_with("sha256") {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
    }
    user.ends_lie(lying, way)?;
    for (command, expected) in [
        (format!("sha256 /disk/F{number}.BIN"), Some(sum)),
        (format!("write /disk/W{number}.TXT right {number}"), None),
        ("sync".to_owned(), None),
        (format!("cat /disk/W{number}.TXT"), Some(format!("right {number}"))),
    ] {
        let said = user.succeeds_within(REQUEST, &command)?;
        ensure!(expected.is_none_or(|expected| said == expected), "`{command}`: {said}");
    }
    // Complaints of the last minute count.
    user.say("sleep 61; restart liar")?;
    Ok(())
}

/// The driver lies in the same way whatever is done: every command ends, with what is right or with an
/// error; restarts are bounded; who needs no disk is served.
pub fn for_ever(shipped: &Fixture) -> Result<()> {
    for way in chosen(DRIVERS, "status,epochs,dies") {
        lies_on(shipped, way).with_context(|| way.name)?;
    }
    Ok(())
}

fn lies_on(shipped: &Fixture, way: &Way) -> Result<()> {
    let edit = |common: &str| before_driver(common, way.name);
    let fixture = Fixture::with_common(shipped.arch(), "lies-for-ever", edit)?;
    let disk = Disk::with_noise(SIZE)?;
    let _alone = one_at_a_time();
    let mut user = User::boot(&fixture, &disk)?;
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
        if command.starts_with("sha256") {
            ensure!(said.is_none_or(|said| said == sum), "false bytes");
        }
        let said = user.within(1.0, "cat /boot/motd")?;
        ensure!(said.is_some(), "others are not served");
    }
    ensure!(user.incarnation("liar")? <= 6 * 3 + 1, "three restarts for each command at most");
    user.guest.shut_down()?;
    Ok(())
}
