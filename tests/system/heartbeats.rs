//! Heartbeats: whoever hangs is found, whoever only waits for its turn is not.

use anyhow::{Result, ensure};
use skink_tests::Fixture;
use skink_tool::machine::Options;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "HEART0001 every server that stops without a word is found and restarted",
        run: every_hang,
    },
    Test {
        name: "HEART0002 a server that is kept from the CPU for many heartbeats is not dead",
        run: starved,
    },
];

fn every_hang(fixture: &Fixture) -> Result<()> {
    let servers = ["console", "pci", "bootfs", "fs", "hello"];
    let hang = servers.map(|name| format!("kill {name} --how hang")).join("; ");
    let lines =
        [hang.as_str(), "sleep 2.5", "crashes", "hello; ls /boot/server", "kill shell --how hang"];
    let said = fixture.exec(None, &lines)?;
    for name in servers {
        let told = format!("{name} (incarnation 1): heartbeat missed");
        ensure!(said[2].text.contains(&told), "{name}: {}", said[2].text);
    }
    ensure!(said[3].text.starts_with("Hello, world!\n"), "{:?}", said[3]);
    ensure!(said[4].text.contains("no `heartbeat_ms`"), "{:?}", said[4]);
    Ok(())
}

/// One below the shell, with twenty heartbeats a second, while the shell computes without a pause.
fn starved(shipped: &Fixture) -> Result<()> {
    let low = "\n[[server]]\nname = \"low\"\nbinary = \"hello\"\npriority = 30\n\
         memory = \"512KiB\"\nheap = \"64KiB\"\nprovides = [\"hello\"]\nprivileges = [\"log\"]\n\
         restart = \"permanent\"\nheartbeat_ms = 50\n";
    let fixture = Fixture::with_tables(shipped.arch(), "starved", low)?;
    let lines = ["time repeat 1000000 true", "crashes", "kill low --how hang; sleep 0.3; crashes"];
    // Time is counted: a host that takes the CPU away takes it from `low` too, which looks like a death.
    let options = Options { icount: true, ..Options::default() };
    let said = fixture.exec_with(&options, &lines)?;
    let seconds: f64 = said[0].text.trim_end().trim_end_matches(" s").parse()?;
    ensure!(seconds > 0.2, "the shell computed for {seconds} s only");
    ensure!(said[1].text.starts_with("0 deaths"), "{}", said[1].text);
    ensure!(said[2].text.contains("low (incarnation 1): heartbeat missed"), "{}", said[2].text);
    Ok(())
}
