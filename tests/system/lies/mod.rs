//! Peers that lie or are silent (`tests/liar`), between a client and the server that it means. Every
//! command ends in its time, with what is right or with an error, and everybody recovers. A liar counts
//! its lies, and a test in which none was told fails.
//!
//! The disk is memory that guest and host share, and the driver of it is the liar itself, so that nothing
//! waits for the host. Where time is counted it is the guest's alone then: a wait for a deadline costs
//! nothing, and how busy the host is changes nothing.
//!
//! Each way is tried on one of the two machines, turn and turn about, and of those that last for ever some
//! are chosen. All of them on both: `SKINK_LIES=all cargo test -p skink-tests --test system -- LIES` (Ctrl-C,
//! on both in any case, only for those that do not end by themselves:
//! `SKINK_LIES=silent,late,signals,endless,empty ... -- LIES0005`).

mod driver;
mod files;
mod user;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use skink_tests::{Disk, Fixture, noise, one_at_a_time};
use skink_tool::machine::Options;
use skink_tool::workspace::Arch;

use crate::Test;
use crate::disks::sha256;
use user::User;

pub const TESTS: &[Test] = &[
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
        name: "LIES0004 a file server that lies for ever costs each command a told time, and others are served",
        run: files::for_ever,
    },
    Test { name: "LIES0005 Ctrl-C ends every wait for a file server at once", run: files::ctrl_c },
    Test { name: "LIES0006 a way to lie in which nothing was lied about is noticed", run: feigned },
];

/// Bytes of the disk: as much as a driver is given of a device's memory.
const DISK_BYTES: u64 = 16 << 20;
/// Clusters of 512 bytes for which it has room beside their FAT.
const CLUSTERS: u32 = 32_000;
/// Bytes of each file that is read: more than the file server reads ahead.
const FILE_BYTES: usize = 300_000;
/// How many instances lie in a row where a way lasts for ever.
const LIVES: u32 = 80;

/// A server of the tests that lies.
#[derive(Clone, Copy)]
struct Liar {
    /// Its name in the manifest.
    server: &'static str,
    /// All its ways, in its own order.
    ways: &'static [Way],
}

/// The manifest with both liars: the driver of the disk in memory, which `fs` needs, and a file server
/// before `fs`, which the shell needs. `args` of each: the ways in which it lies, and so on.
fn with_liars(common: &str, driver: &str, files: &str) -> String {
    let server = |name: &str, priority: u8, args: &str, more: &str| {
        format!(
            "[[server]]\nname = \"{name}\"\nbinary = \"liar\"\npriority = {priority}\n\
             budget_us = 100_000\nperiod_us = 200_000\nmemory = \"1MiB\"\nheap = \"256KiB\"\n\
             replies = 16\nargs = \"{args}\"\n{more}\nprivileges = [\"log\"]\n\
             restart = \"permanent\"\nintensity = 100\nheartbeat_ms = 1_000\n\n"
        )
    };
    let device = "devices = [{ pci = \"1af4:1110\" }]\nprovides = [\"block\"]";
    let before = "provides = [\"file\"]\nneeds = [{ name = \"honest\", server = \"fs\", \
                  protocol = \"file\", shared = \"256KiB\" }]";
    let servers = server(driver::LIAR.server, 190, &format!("block {driver}"), device)
        + &server(files::LIAR.server, 130, &format!("file {files}"), before);
    let mut text = common.replacen("[programs]", &(servers + "[programs]"), 1);
    let disk = "server = \"virtio-blk\", protocol = \"block\", shared = \"8MiB\"";
    let session = "server = \"fs\", protocol = \"file\", sessions = 6";
    for (need, liar) in [
        (format!("{disk}, dma = true"), disk.replace("virtio-blk", driver::LIAR.server)),
        (session.to_owned(), session.replace("\"fs\"", &format!("\"{}\"", files::LIAR.server))),
    ] {
        assert!(text.contains(&need), "{need}");
        text = text.replace(&need, &liar);
    }
    text
}

/// A system with liars: of the driver, and of the file server.
fn fixture(shipped: &Fixture, name: &str, driver: &str, files: &str) -> Result<Fixture> {
    Fixture::with_common(shipped.arch(), name, |common| with_liars(common, driver, files))
}

/// A disk with a file of noise for each way, so that none is in the file server's cache yet.
fn disk() -> Result<Disk> {
    let ways = driver::LIAR.ways.iter().chain(files::LIAR.ways);
    let files: BTreeMap<_, _> = ways.map(|way| (way.file(), way.bytes())).collect();
    let disk = Disk::blank(DISK_BYTES)?;
    skink_disks::with_files(CLUSTERS, &files).save(disk.path())?;
    std::fs::OpenOptions::new().write(true).open(disk.path())?.set_len(DISK_BYTES)?;
    Ok(disk)
}

/// What QEMU needs for this disk.
fn options(disk: &Path, icount: bool) -> Options {
    let object = format!(
        "memory-backend-file,id=disk,share=on,size={DISK_BYTES},mem-path={}",
        disk.display()
    );
    let extra = ["-object", &object, "-device", "ivshmem-plain,memdev=disk"].map(String::from);
    Options { icount, extra: extra.to_vec(), ..Options::default() }
}

/// Boots a system whose liar has each of these ways in turn, and tries them, one after the other.
fn in_turn<'a>(
    fixture: &Fixture,
    disk: &Disk,
    liar: Liar,
    ways: impl Iterator<Item = &'a Way>,
    lied_to: impl Fn(&mut User<'_>, &Way) -> Result<()>,
) -> Result<()> {
    {
        let _alone = one_at_a_time();
        let mut user = User::boot(fixture, options(disk.path(), true), liar.server)?;
        for way in ways {
            lied_to(&mut user, way).with_context(|| {
                let (crashes, _) = user.say("crashes 5").unwrap_or_default();
                format!("{}: {crashes}\n{}", way.name, user.guest.post_mortem())
            })?;
        }
        user.guest.shut_down()?;
    }
    disk.check()
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

    /// The name of its file on the disk.
    fn file(&self) -> String {
        let name: String = self.name.chars().filter(|c| *c != '-').take(8).collect();
        name.to_uppercase()
    }

    /// What its file holds.
    fn bytes(&self) -> Vec<u8> {
        let seed = self.file().bytes().fold(0, |seed, byte| seed << 8 | u64::from(byte));
        noise(seed, FILE_BYTES)
    }

    /// What `sha256` says of its file.
    fn sum(&self) -> Result<String> {
        Ok(format!("{}  /disk/{}", sha256(&self.bytes())?, self.file()))
    }
}

const LATE: &str = "does not answer in time";
const UNKNOWN: &str = "answers what was not asked";
const WRONG: &str = "gives an answer that is none";
const INDEX: &str = "has an index that makes no sense";
const PANIC: &str = "panic";

impl Liar {
    /// The ways of these names, with commas between them, or `all`.
    fn named(self, names: &str) -> impl Iterator<Item = &'static Way> {
        let is_named =
            move |way: &&Way| names == "all" || names.split(',').any(|name| name == way.name);
        let named: Vec<&Way> = self.ways.iter().filter(is_named).collect();
        named.into_iter()
    }

    /// Of the ways of these names every second one, for this machine; all, if somebody has chosen.
    fn turns(self, arch: Arch, names: &str) -> String {
        let (is_chosen, turn) =
            (std::env::var("SKINK_LIES").is_ok(), usize::from(arch == Arch::X86_64));
        let its = self.named(names).enumerate().filter(|(at, _)| is_chosen || at % 2 == turn);
        its.map(|(_, way)| way.name).collect::<Vec<&str>>().join(",")
    }
}

/// What `SKINK_LIES` says, else `names`.
fn chosen(names: &str) -> String {
    std::env::var("SKINK_LIES").unwrap_or(names.into())
}

/// Liars that say that they lie, and do not.
fn feigned(shipped: &Fixture) -> Result<()> {
    let driver = driver::LIAR.turns(shipped.arch(), "silent,scribbles,tiny");
    let files = files::LIAR.turns(shipped.arch(), "silent,nothing,dies-after");
    let args = |names: &str| format!("{names} 1 feigned");
    let fixture = fixture(shipped, "lies-feigned", &args(&driver), &args(&files))?;
    let disk = disk()?;
    type LiedTo = fn(&mut User<'_>, &Way) -> Result<()>;
    let both: [(Liar, &str, LiedTo); 2] =
        [(driver::LIAR, &driver, driver::lied_to), (files::LIAR, &files, files::lied_to)];
    for (liar, names, lied_to) in both {
        in_turn(&fixture, &disk, liar, liar.named(names), |user, way| {
            let told = lied_to(user, way).err().map(|error| format!("{error:#}"));
            let told = told.context("passes")?;
            ensure!(told.contains("nothing was lied about"), "fails of something else: {told}");
            Ok(())
        })?;
    }
    Ok(())
}
