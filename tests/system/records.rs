//! Crash records: what `crashes -v` says, what comes to the host by itself, and as files.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skink_tests::{Fixture, one_at_a_time};
use skink_tool::crash_file::CrashFolder;
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Outcome, Sink, Watch};
use skink_tool::symbolize;
use skink_tool::workspace::{Arch, Workspace};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "CRASH0001 crashes -v has registers, IPCs, capabilities and the restart's timeline",
        run: verbose,
    },
    Test {
        name: "CRASH0002 each death, the shell's own too, comes to the host once, with names, and as a file",
        run: records,
    },
];

fn verbose(fixture: &Fixture) -> Result<()> {
    let lines = ["kill bootfs --at receive:1 --how null", "cat /boot/motd", "crashes -v 1"];
    let said = fixture.exec(None, &lines)?;
    let text = &said[2].text;
    let register = match fixture.arch() {
        Arch::X86_64 => "rbp 0x",
        Arch::Aarch64 => "x29 0x",
    };
    for words in [
        "fault: load from 0x0 (null pointer) at bootfs:receive:1; 1 requests in flight",
        register,
        "ns before: badge 0x",
        "file.",
        "r--- its endpoint",
        "the kernel's log",
        "doorbell of shell",
    ] {
        ensure!(text.contains(words), "no `{words}` in {text}");
    }
    for phase in ["declared", "silenced", "revoked", "reloaded", "started", "ready", "answered"] {
        let mut lines = text.lines().filter(|line| line.split_whitespace().next() == Some(phase));
        let when = lines.next().and_then(|line| line.strip_suffix(" ns after it was noticed"));
        let ns = when.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok());
        ensure!(ns.is_some_and(|ns| ns > 0), "`{phase}` has no time in {text}");
    }
    let overflow =
        fixture.exec(None, &["kill hello --at receive:1 --how stack; hello; crashes 1"])?;
    ensure!(overflow[0].text.contains("(stack overflow)"), "{overflow:?}");
    // Pasted somewhere and read again: the same system's symbols.
    let system = fixture.system();
    let elf_of = |server: &str| system.elf_of(server).map(std::path::Path::to_path_buf);
    let named = symbolize::dump(text, "kernel", &elf_of, &system.root);
    ensure!(named.contains("load_null at libipc/src/arch/"), "{named}");
    Ok(())
}

fn records(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let folder = Workspace::find()?.results()?.join(format!("crashes-{}", fixture.arch().name()));
    let _ = std::fs::remove_dir_all(&folder);
    let mut files = CrashFolder::open(&folder)?;
    let system = fixture.system();
    let mut guest = Guest::boot(system, &Options::default(), &Watch::default())?;
    let mut told = Vec::new();
    let mut crash = |text: &str| told.push(text.to_owned());
    let mut sink = Sink { output: &mut |_| Ok(()), crash: Some(&mut crash) };
    let until = Instant::now() + Duration::from_secs(60);
    let lines = [
        ("kill hello --how panic; sleep 0.1", Outcome::Status(0)),
        // The shell dies twice before anybody can be told.
        ("kill bootfs; kill shell --at start:1; restart shell; sleep 5", Outcome::ShellDied),
        ("true", Outcome::Status(0)),
    ];
    for (line, expected) in lines {
        let outcome = guest.run(line, until, &mut sink)?;
        ensure!(outcome == expected, "`{line}`: {outcome:?}");
    }
    guest.shut_down()?;
    let servers: Vec<&str> =
        told.iter().filter_map(|record| symbolize::crashed_server(record)).collect();
    ensure!(servers == ["hello", "bootfs", "shell", "shell"], "each once: {servers:?}");
    let named = system.with_names(&told[0]);
    ensure!(named.contains("cause=panic: libipc/src/misbehave.rs:"), "{named}");
    ensure!(named.contains(" at libipc/src/server.rs:"), "{named}");
    for record in &told {
        files.write(record, system.crashed(record), &system.root)?;
    }
    let json = std::fs::read_to_string(folder.join("0001-hello.json"))?;
    for words in ["\"server\": \"hello\"", "\"noticed_ns\": ", "at libipc/src/server.rs:"] {
        ensure!(json.contains(words), "no {words} in {json}");
    }
    let all = std::fs::read_dir(&folder)?.count();
    std::fs::remove_dir_all(&folder).context("removing the records")?;
    ensure!(all == 4, "{all} files");
    Ok(())
}
