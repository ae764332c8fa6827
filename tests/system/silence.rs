//! Devices of dead drivers, as QEMU sees them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skink_tests::qmp::Socket;
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::machine::{Options, Transport};
use skink_tool::session::{Guest, Outcome, Watch};
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

fn reset(fixture: &Fixture) -> Result<()> {
    let transports: &[Transport] = match fixture.arch() {
        Arch::X86_64 => &[Transport::Pci],
        Arch::Aarch64 => &[Transport::Pci, Transport::Mmio],
    };
    for transport in transports {
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
