//! Counted figures are the machine's, and not the host's.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result, ensure};
use skink_tests::{Fixture, one_at_a_time};
use skink_tool::bench;
use skink_tool::session::Watch;
use skink_tool::stats::Row;
use skink_tool::workspace::{Arch, Workspace};

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "BENCH0001 counted rows are the same on a host that is quiet and on one that is busy",
    run: quiet_and_busy,
}];

/// The rows, and by how much the least of one may differ, as a share. The way of a read depends on how
/// soon the device is done: a driver that sleeps by then is woken, which costs an eighth more. A boot
/// has three reads, and a clock to look at.
const ROWS: [(&str, f64); 3] = [("hello.add", 0.0), ("fs.read.4k", 0.15), ("boot.prompt", 0.02)];

fn quiet_and_busy(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    for (id, most) in ROWS {
        let quiet = counted(fixture.arch(), id)?;
        let busy = while_busy(|| counted(fixture.arch(), id))?;
        let differs = (busy.min / quiet.min - 1.0).abs();
        ensure!(differs <= most, "{id}: {} on a quiet host, {} on a busy one", quiet.min, busy.min);
    }
    Ok(())
}

fn counted(arch: Arch, id: &str) -> Result<Row> {
    let filter = Some(id.to_owned());
    let args = bench::Args { arch, json: None, samples: Some(2), control: None, filter };
    let rows = bench::run(&Workspace::find()?, &args, &Watch::default())?;
    let counted = rows.into_iter().find(|row| row.id == id && row.unit == "instructions");
    counted.with_context(|| format!("no counted row {id}"))
}

/// Does it while loops take all of the host's CPUs twice.
fn while_busy<T>(work: impl FnOnce() -> T) -> T {
    /// Ends the loops, also if the work panics.
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    let is_over = AtomicBool::new(false);
    let loops = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..loops {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _end = End(&is_over);
        work()
    })
}
