//! What depends on the CPU, or on a device that misbehaves: the in-guest tests of traps on several
//! CPUs, messages of any vector and mode, machine checks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use skink_tests::qmp::Socket;
use skink_tests::qtest::Bus;
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::compile::KernelVariant;
use skink_tool::machine::{Ending, Options};
use skink_tool::session::{Guest, Outcome, Watch};
use skink_tool::suite::{self, Verdict};
use skink_tool::workspace::{Arch, Workspace};

/// CPUs with all and with none of what keeps the kernel from users' memory; and what the in-guest
/// tests of traps and of random instructions are called.
const SUITE_CPUS: [(Arch, &[&str], &[&str]); 2] = [
    (Arch::X86_64, &["max", "qemu64", "max,-smap", "max,-smap,-smep"], &["TRAP", "CODE"]),
    (Arch::Aarch64, &["max", "cortex-a53", "cortex-a72", "neoverse-n1"], &["CODE"]),
];
/// How long a part of the suite may take.
const SUITE_TIMEOUT: Duration = Duration::from_secs(120);

/// The in-guest tests whose IDs begin so, on the kernel that ships and one CPU.
fn in_guest(arch: Arch, cpu: &'static str, tests: &'static str) -> Trial {
    let run = move || -> Result<()> {
        let workspace = Workspace::find()?;
        skink_tool::doctor::ensure(&workspace, arch)?;
        let system = suite::system(&workspace, arch, KernelVariant::Shipped, tests)?;
        let options = Options { cpu: cpu.into(), ..Options::default() };
        let _alone = one_at_a_time();
        let report = suite::run(&system, &options, SUITE_TIMEOUT, &Watch::default(), &mut |_| {})?;
        let failed = report.tests.iter().find(|test| test.verdict == Verdict::Failed);
        ensure!(!report.tests.is_empty(), "no test is called {tests}");
        match failed {
            Some(test) => bail!("{} {}", test.id, test.text),
            None => Ok(()),
        }
    };
    Trial::test(format!("{}::{tests} cpu={cpu}", arch.name()), move || {
        run().map_err(|error| format!("{error:#}").into())
    })
}

/// The shipped system of x86_64 with a disk, whose shell listens.
fn listening<R>(extra: Vec<String>, then: impl FnOnce(&mut Guest) -> Result<R>) -> Result<R> {
    let fixture = Fixture::shipped(Arch::X86_64)?;
    let disk = Disk::with_noise(9 << 20)?;
    let _alone = one_at_a_time();
    let options = Options { disk: Some(disk.path().into()), extra, ..Options::default() };
    let mut guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
    says(&mut guest, "ls /disk")?;
    then(&mut guest)
}

/// Has the shell execute a line, which must succeed.
fn says(guest: &mut Guest, line: &str) -> Result<()> {
    let (text, outcome) = guest.capture(line, Duration::from_secs(60))?;
    let text = String::from_utf8_lossy(&text);
    ensure!(outcome == Outcome::Status(0), "`{line}`: {outcome:?}, {text}{}", guest.post_mortem());
    Ok(())
}

/// A device sends messages of every vector, and of each mode that a kernel can survive, while the
/// system reads its disk and waits for its timer.
fn messages() -> Result<()> {
    /// Fixed, lowest priority, non-maskable, by the 8259s.
    const MODES: [u32; 4] = [0, 1, 4, 7];
    const ADDRESS: u32 = 0xfee0_0000;
    let bus = Bus::new("messages");
    listening(bus.arguments(), |guest| {
        let mut memory = bus.connect()?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut rounds = 0;
                while rounds == 0 || !is_over.load(Relaxed) {
                    for data in (0..=0xff).flat_map(|vector| MODES.map(|mode| mode << 8 | vector)) {
                        memory.write(ADDRESS, data)?;
                    }
                    rounds += 1;
                }
                Ok(rounds)
            });
            let meanwhile = says(guest, "sha256 /disk/BIG.BIN; sleep 0.1; ls /disk");
            is_over.store(true, Relaxed);
            let sent = sender.join().expect("the sender does not panic");
            meanwhile?;
            sent
        })?;
        says(guest, "sha256 /disk/BIG.BIN; sleep 0.1; ls /disk")?;
        guest.shut_down().map(drop)
    })
}

/// A machine check is a dump, not a silent reset.
fn machine_check() -> Result<()> {
    let socket = Socket::new("mce");
    listening(socket.arguments(), |guest| {
        // Uncorrected, with the context lost.
        let line = r#"{"command-line": "mce 0 1 0xb200000000000000 4 0 0"}"#;
        let said = socket.connect()?.execute("human-monitor-command", line)?;
        let ending = guest.wait_ending(Instant::now() + Duration::from_secs(20))?;
        ensure!(ending == Some(Ending::KernelPanic), "{ending:?}; QEMU said {said}");
        ensure!(guest.console().contains("PANIC: machine check"), "{}", guest.post_mortem());
        Ok(())
    })
}

/// A test that boots its own machine.
fn alone(name: &str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || run().map_err(|error| format!("{error:#}").into()))
}

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    let mut all = Vec::new();
    for (arch, cpus, tests) in SUITE_CPUS {
        all.extend(cpus.iter().flat_map(|cpu| tests.iter().map(|t| in_guest(arch, cpu, t))));
    }
    all.push(alone("x86_64::a device may send a message of any vector and mode", messages));
    all.push(alone("x86_64::a machine check is a dump", machine_check));
    all
}
