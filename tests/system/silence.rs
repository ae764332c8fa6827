//! Devices of dead drivers, as QEMU sees them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skink_manifest::{Devices, Experiment};
use skink_tests::qmp::Socket;
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::machine::{Options, Transport};
use skink_tool::session::{Guest, Outcome, Recipe, Watch};
use skink_tool::workspace::Arch;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "SILENT0001 the root server itself resets a dead driver's device, before anybody drives it again",
        run: reset,
    },
    Test {
        name: "SILENT0003 after a function-level reset the next driver finds the registers where they were",
        run: function_level_reset,
    },
    Test {
        name: "SILENT0004 a device that cannot be silenced costs its driver and the memory that it reaches, and nothing else",
        run: deaf,
    },
];

/// A program of the tests in the manifest.
fn probe(args: &str, more: &str) -> String {
    format!(
        "\n[[server]]\nname = \"probe\"\npriority = 60\nargs = \"{args}\"\nmemory = \"1MiB\"\n\
         heap = \"64KiB\"\n{more}\n"
    )
}

/// An NVMe controller can be reset so, and forgets its addresses.
fn function_level_reset(shipped: &Fixture) -> Result<()> {
    let more = "privileges = [\"log\"]\nrestart = \"permanent\"\n\
         devices = [{ pci = \"1b36:0010\", vectors = 1 }]\n";
    let tables = probe("registers", more);
    let fixture = Fixture::with_tables(shipped.arch(), "function-level-reset", &tables)?;
    let extra = ["-device", "nvme,serial=skink"].map(String::from).to_vec();
    let options = Options { extra, ..Options::default() };
    let lines = ["sleep 0.3; kill probe; sleep 0.3; kill probe; sleep 0.3"];
    let (_, console) = fixture.exec_heard(&options, &lines)?;
    let read = |instance: u32| {
        let (_, rest) = console.split_once(&format!("instance {instance} reads "))?;
        rest.split_whitespace().next()
    };
    let first = read(1).map(str::to_owned);
    ensure!(
        first.as_deref().is_some_and(|word| word != "0x0" && word != "0xffffffff"),
        "{console}"
    );
    for instance in [2, 3] {
        ensure!(read(instance).map(str::to_owned) == first, "instance {instance}: {console}");
    }
    ensure!(!console.contains("does not obey"), "{console}");
    Ok(())
}

fn transports(arch: Arch) -> &'static [Transport] {
    match arch {
        Arch::X86_64 => &[Transport::Pci],
        Arch::Aarch64 => &[Transport::Pci, Transport::Mmio],
    }
}

fn reset(fixture: &Fixture) -> Result<()> {
    for transport in transports(fixture.arch()) {
        let _alone = one_at_a_time();
        let disk = Disk::with_noise(9 << 20)?;
        let socket = Socket::new(fixture.arch().name());
        let options = Options {
            disk: Some(disk.path().into()),
            transport: *transport,
            extra: socket.arguments(),
            ..Options::default()
        };
        let mut guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
        let mut qmp = socket.connect()?;
        let until = Instant::now() + Duration::from_secs(60);
        let mut say = |line: &str| -> Result<()> {
            let (text, outcome) = guest.capture(line, until - Instant::now())?;
            let text = String::from_utf8_lossy(&text);
            ensure!(outcome == Outcome::Status(0), "`{line}`: {outcome:?}, {text}");
            Ok(())
        };
        say("ls /disk")?;
        let at_work = qmp.virtio_status()?;
        ensure!(at_work.contains("DRIVER_OK"), "{transport:?}, at work: {at_work}");
        // With requests under way: the file is far larger than what is kept of it.
        say("sha256 /disk/BIG.BIN & sleep 0.01; stop virtio-blk; wait")?;
        let silent = qmp.virtio_status()?;
        ensure!(silent.is_empty(), "{transport:?}, after the driver's end: {silent}");
        say("start virtio-blk; ls /disk")?;
        let again = qmp.virtio_status()?;
        ensure!(again == at_work, "{transport:?}, at work again: {again}");
        guest.shut_down()?;
    }
    Ok(())
}

/// Bytes of the disk's driver and of its edge with `fs` that its device reaches (the shipped manifest).
const DMA: u64 = 64 << 10;
const SHARED: u64 = 8 << 20;

/// The disk's device takes nothing of what is written to silence it: a fault that is injected.
fn deaf(shipped: &Fixture) -> Result<()> {
    for devices in [Devices::Deaf, Devices::Obey] {
        let experiment = Experiment { unlimited_intensity: false, devices, ..Experiment::KILLS };
        let recipe = Recipe { experiment: Some(experiment), ..Recipe::default() };
        let fixture = Fixture::of(shipped.arch(), &recipe)?;
        for transport in transports(shipped.arch()) {
            dies_with(&fixture, *transport, devices)
                .with_context(|| format!("{devices:?}, {transport:?}"))?;
        }
    }
    Ok(())
}

/// The driver dies with requests under way.
fn dies_with(fixture: &Fixture, transport: Transport, devices: Devices) -> Result<()> {
    let _alone = one_at_a_time();
    let disk = Disk::with_noise(9 << 20)?;
    let socket = Socket::new(&format!("deaf-{}", fixture.arch().name()));
    let options = Options {
        disk: Some(disk.path().into()),
        transport,
        extra: socket.arguments(),
        ..Options::default()
    };
    let guest = RefCell::new(Guest::boot(fixture.system(), &options, &Watch::default())?);
    let mut qmp = socket.connect()?;
    let say = |line: &str| -> Result<(String, bool)> {
        let mut guest = guest.borrow_mut();
        let (text, outcome) = guest.capture(line, Duration::from_secs(60))?;
        ensure!(matches!(outcome, Outcome::Status(_)), "`{line}`: {}", guest.post_mortem());
        Ok((String::from_utf8_lossy(&text).into(), outcome == Outcome::Status(0)))
    };
    let free = || -> Result<u64> {
        let (text, _) = say("free")?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("free bytes"));
        Ok(bytes.with_context(|| text.clone())?.trim().parse()?)
    };
    let is_deaf = devices == Devices::Deaf;
    ensure!(say("ls /disk; sync")?.1, "the disk is there");
    let (at_work, before) = (qmp.virtio_status()?, free()?);
    ensure!(at_work.contains("DRIVER_OK"), "at work: {at_work}");
    say("sha256 /disk/BIG.BIN & sleep 0.01; kill virtio-blk; wait")?;
    // No successor of its driver starts, whoever asks for it; who needs no disk is served.
    for line in ["", "restart virtio-blk; ", "start virtio-blk; ", "restart fs; "] {
        let (text, is_ok) = say(&format!("{line}ls /disk"))?;
        ensure!(is_ok != is_deaf, "{line}ls /disk: {text}");
        ensure!(say("cat /boot/motd")?.1, "others are served");
        let status = qmp.virtio_status()?;
        ensure!(status == at_work, "behind `{line}`: {status}");
        let (text, _) = say("service virtio-blk")?;
        ensure!(text.contains("in quarantine") == is_deaf, "{text}");
    }
    let (processes, _) = say("ps")?;
    let driver = processes.lines().find(|line| line.contains("virtio-blk")).unwrap_or_default();
    ensure!(driver.contains("quarantined") == is_deaf, "{processes}");
    let (crashes, _) = say("crashes")?;
    ensure!(crashes.contains("virtio-blk (incarnation 1): killed"), "{crashes}");
    // What the device reaches is nobody's; `fs` was given as much other memory.
    let taken = before.checked_sub(free()?).context("more is free than before")?;
    let console = guest.borrow().console();
    eprintln!("{devices:?}, {transport:?}: {taken} bytes less are free");
    ensure!(taken == if is_deaf { SHARED } else { 0 }, "{taken} bytes less are free");
    let told = format!(
        "quarantined: {} KiB of virtio-blk, {} KiB that it shared",
        DMA >> 10,
        SHARED >> 10
    );
    ensure!(console.contains(&told) == is_deaf, "{console}");
    let given_up = console.matches("virtio-blk does not start again").count();
    ensure!(given_up == usize::from(is_deaf), "{console}");
    let death = console.lines().find(|line| line.contains("virtio-blk died (killed"));
    ensure!(death.is_some_and(|line| line.contains("restart 1") != is_deaf), "{console}");
    guest.into_inner().shut_down()?;
    Ok(())
}
