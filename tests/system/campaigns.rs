//! The short forms of the tool's campaigns.

use anyhow::{Context, Result, bail, ensure};
use skink_manifest::Experiment;
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::campaign::throughput::{self, Work};
use skink_tool::campaign::{Sample, deaths, overhead, soak, sweep};
use skink_tool::disk::patterned;
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
    Test {
        name: "THROUGHPUT0001 a read and a write go on while the block driver dies once a second",
        run: short_throughput,
    },
    Test {
        name: "THROUGHPUT0002 a server that nobody asks for anything does not die, and that is a failure",
        run: nobody_dies,
    },
];

fn short_soak(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let args = soak::Args { arch: fixture.arch(), restarts: Some(350), control: None };
    let report = soak::run(&Workspace::find()?, &args, &Watch::default())?;
    ensure!(report.totals.died >= 350, "{}", report.totals);
    report.check()
}

/// Instructions between a death and what follows, of a few deaths of each kind.
fn promptness(shipped: &Fixture) -> Result<()> {
    let recipe = Recipe { experiment: Some(Experiment::KILLS), ..Recipe::default() };
    let fixture = Fixture::of(shipped.arch(), &recipe)?;
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/BIG.BIN", &patterned(9 << 20))?;
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
    let args = overhead::Args { arch: fixture.arch(), control: None };
    let rows = overhead::run(&Workspace::find()?, &args, &Watch::default())?;
    // What a read from the disk costs depends on how soon the device is done: not for a test.
    let call = rows.iter().find(|row| row.id == "hello.add").context("no such row")?;
    ensure!(call.on > call.off && call.on <= call.off + 40.0, "{rows:?}");
    Ok(())
}

fn some_deaths(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let sample = Sample { one_in: 10, seed: 0x5eed };
    let (arch, control) = (fixture.arch(), None);
    let args = deaths::Args { arch, server: None, how: None, sample, control };
    let workspace = Workspace::find()?;
    let report = deaths::run(&workspace, &args, &Watch::default(), &mut |_| ())?;
    ensure!(report.failures.is_empty(), "{:#?}", report.failures);
    ensure!(report.good >= 20, "{} cells", report.good);
    report.check()
}

fn some_steps(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let args = sweep::Args {
        arch: fixture.arch(),
        server: None,
        victim: None,
        moment: None,
        sample: Sample { one_in: 60, seed: 0x5eed },
        control: None,
    };
    let report = sweep::run(&Workspace::find()?, &args, &Watch::default())?;
    ensure!(report.failures.is_empty(), "{:#?}\n{}", report.failures, report.table());
    ensure!(report.rows.len() >= 10, "{}", report.table());
    report.check()
}

fn throughput_of(fixture: &Fixture, server: &str, seconds: u64) -> throughput::Args {
    throughput::Args {
        arch: fixture.arch(),
        server: server.into(),
        seconds,
        pairs: 1,
        only: None,
        control: None,
    }
}

fn short_throughput(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let args = throughput_of(fixture, "virtio-blk", 3);
    for work in [Work::Read, Work::Write] {
        // What a death costs is host time: not for a test.
        throughput::run(&Workspace::find()?, &args, work, &Watch::default())?.check_deaths()?;
    }
    Ok(())
}

fn nobody_dies(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let args = throughput_of(fixture, "pci", 2);
    let report = throughput::run(&Workspace::find()?, &args, Work::Read, &Watch::default());
    let Err(error) = report.and_then(|report| report.check()) else {
        bail!("`pci` is asked for nothing, and is said to have died");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("pci did not die, its moment came 0 times"), "{text}");
    Ok(())
}
