//! Ends that are no success: what was written is not on the disk, no shell ever ran.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::machine::{Ending, Options};
use skink_tool::session::{Guest, Outcome, Sink, Watch};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "END0001 a shutdown whose sync fails says so, and its code is no success",
        run: unsynced,
    },
    Test { name: "END0002 a shell for which there is no memory is told at once", run: no_shell },
];

/// For a line, and for the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is told at once is told long before that.
const AT_ONCE: Duration = Duration::from_secs(30);

fn unsynced(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let disk = Disk::fat32(64 << 20, 1)?;
    let options = Options { disk: Some(disk.path().into()), ..Options::default() };
    // A file server that is not there cannot say that all is on the disk; `shutdown 5` has its own code.
    for (lines, shutdown, ending, said) in [
        (&["write /disk/A a"][..], "shutdown", Ending::Clean, ""),
        (&["write /disk/A a", "stop fs"], "shutdown", Ending::Unsynced, "sync: disk: "),
        (&["write /disk/A a", "stop fs"], "shutdown 5", Ending::Code(5), "sync: disk: "),
    ] {
        let mut guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
        for line in lines {
            let (text, outcome) = guest.capture(line, PATIENCE)?;
            ensure!(outcome == Outcome::Status(0), "`{line}`: {outcome:?}, {text:?}");
        }
        let mut heard = Vec::new();
        let mut output = |bytes: &[u8]| -> Result<()> {
            heard.extend_from_slice(bytes);
            Ok(())
        };
        let mut sink = Sink { output: &mut output, crash: None };
        let outcome = guest.run(shutdown, Instant::now() + PATIENCE, &mut sink)?;
        let ended = match outcome {
            Outcome::Ended(ended) => Some(ended),
            _ => guest.wait_ending(Instant::now() + PATIENCE)?,
        };
        let heard = String::from_utf8_lossy(&heard);
        ensure!(ended == Some(ending), "{lines:?}, `{shutdown}`: {ended:?}, {heard}");
        ensure!(heard.starts_with(said) && heard.is_empty() == said.is_empty(), "{heard}");
    }
    Ok(())
}

fn no_shell(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let options = Options { mem_mb: 24, ..Options::default() };
    let mut guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
    let began = Instant::now();
    let (_, outcome) = guest.capture("true", 4 * AT_ONCE)?;
    ensure!(outcome == Outcome::NoShell, "{outcome:?}\n{}", guest.post_mortem());
    ensure!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let why = guest.why_no_shell();
    ensure!(why.as_deref() == Some("cannot start"), "{why:?}");
    Ok(())
}
