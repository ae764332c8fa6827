//! The short forms of the tool's campaigns.

use anyhow::{Context, Result, ensure};
use skink_manifest::Experiment;
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::campaign::{Sample, deaths, overhead, soak, sweep};
use skink_tool::machine::Options;
use skink_tool::session::{Recipe, Watch};
use skink_tool::stats;
use skink_tool::workspace::Workspace;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "SOAK0001 350 restarts of all servers in turn leave nothing behind and do not get dearer",
        run: short_soak,
    },
    Test {
        name: "DEATHS0001 a tenth of the matrix of deaths: each with its cause, unseen, alone",
        run: some_deaths,
    },
    Test {
        name: "RESTART0001 callers are woken within 20,000 instructions, a driver serves within 1,000,000",
        run: promptness,
    },
    Test {
        name: "OVERHEAD0001 heartbeats and recording cost a typed call at most 40 instructions",
        run: cost,
    },
    Test {
        name: "SWEEP0001 a sample of kill-at-every-step: the workload's result is right",
        run: some_steps,
    },
];

fn short_soak(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let report = soak::run(&Workspace::find()?, fixture.arch(), 350, &Watch::default())?;
    ensure!(report.restarts >= 350, "{} restarts", report.restarts);
    report.check()
}

/// Instructions between a death and what follows, of a few deaths of each kind.
fn promptness(shipped: &Fixture) -> Result<()> {
    let recipe = Recipe { experiment: Some(Experiment::KILLS), ..Recipe::default() };
    let fixture = Fixture::of(shipped.arch(), &recipe)?;
    let disk = Disk::with_noise(9 << 20)?;
    let options = Options { icount: true, disk: Some(disk.path().into()), ..Options::default() };
    let said =
        fixture.exec_with(&options, &["bench death.wake 20", "bench restart.virtio-blk 20"])?;
    for (said, (id, limit)) in
        said.into_iter().zip([("death.wake", 20e3), ("restart.virtio-blk", 1e6)])
    {
        let text = said.ok()?;
        let samples = stats::parse(&text);
        let counted = samples.iter().filter(|s| s.id == id && s.unit == "busy-ns");
        let mut values: Vec<f64> = counted.map(|sample| sample.value).collect();
        ensure!(values.len() == 20, "{text}");
        values.sort_by(f64::total_cmp);
        // One may wait for the device, which knows no instructions.
        let most = values[18];
        ensure!(most <= limit, "{id}: {most} instructions, limit {limit}");
    }
    Ok(())
}

fn cost(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let rows = overhead::run(&Workspace::find()?, fixture.arch(), &Watch::default())?;
    // What a read from the disk costs depends on how soon the device is done: not for a test.
    let call = rows.iter().find(|row| row.id == "hello.add").context("no such row")?;
    ensure!(call.on > call.off && call.on <= call.off + 40.0, "{rows:?}");
    Ok(())
}

fn some_deaths(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let sample = Sample { one_in: 10, seed: 0x5eed };
    let args = deaths::Args { arch: fixture.arch(), server: None, how: None, sample };
    let workspace = Workspace::find()?;
    let report = deaths::run(&workspace, &args, &Watch::default(), &mut |_| ())?;
    ensure!(report.failures.is_empty(), "{:#?}", report.failures);
    ensure!(report.good >= 20, "{} cells", report.good);
    Ok(())
}

fn some_steps(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let args = sweep::Args {
        arch: fixture.arch(),
        server: None,
        victim: None,
        moment: None,
        sample: Sample { one_in: 60, seed: 0x5eed },
    };
    let report = sweep::run(&Workspace::find()?, &args, &Watch::default())?;
    ensure!(report.failures.is_empty(), "{:#?}\n{}", report.failures, report.table());
    ensure!(report.rows.len() >= 10, "{}", report.table());
    Ok(())
}
