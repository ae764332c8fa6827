//! Negative controls: each campaign, in a short form, on each system that is broken on purpose in a
//! way that it can see. It must fail, and for that reason. Each pair is tried on one of the machines,
//! turn and turn about, so that every control is on both.

use anyhow::{Result, bail, ensure};
use skink_tests::{Fixture, one_at_a_time};
use skink_tool::bench;
use skink_tool::campaign::throughput::{self, Work};
use skink_tool::campaign::{Campaign, Control, Sample, deaths, overhead, soak, sweep};
use skink_tool::fuzz::protocols;
use skink_tool::machine::Options;
use skink_tool::session::Watch;
use skink_tool::workspace::{Arch, Workspace};

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "CONTROL0001 every campaign notices a system on which nobody dies",
        run: |fixture| {
            all_notice(
                fixture,
                Control::OrdersIgnored,
                &["nobody died", "did not die", "no crash record of order"],
            )
        },
    },
    Test {
        name: "CONTROL0002 every campaign notices that a dead server is not started again",
        run: |fixture| {
            all_notice(
                fixture,
                Control::NotRestarted,
                &["not started again", "does not run", "not running", "cannot start"],
            )
        },
    },
    Test {
        name: "CONTROL0003 whoever counts what is free notices a slot that a restart leaves behind",
        run: |fixture| all_notice(fixture, Control::SlotLeaked, &["something was not given back"]),
    },
    Test {
        name: "CONTROL0004 every campaign notices that a crash record is missing",
        run: |fixture| {
            all_notice(
                fixture,
                Control::RecordDropped,
                &[
                    "has no crash record",
                    "no crash record of order",
                    "no crash record of the death",
                    "with 0 crash records",
                ],
            )
        },
    },
    Test {
        name: "CONTROL0005 whoever reads notices a wrong byte",
        run: |fixture| {
            all_notice(
                fixture,
                Control::WrongByte,
                &["is not what the host tool put there", "/disk/BIG.BIN"],
            )
        },
    },
    Test {
        name: "CONTROL0006 whoever writes notices that a synced write is lost",
        run: |fixture| {
            all_notice(
                fixture,
                Control::LostWrite,
                &["another file after `sync`", "/disk/BENCH.TMP: byte"],
            )
        },
    },
    Test {
        name: "CONTROL0007 whoever writes notices that a write is said to be done before it is",
        run: |fixture| {
            all_notice(
                fixture,
                Control::EarlySuccess,
                &["another file after `sync`", "/disk/BENCH.TMP: byte"],
            )
        },
    },
];

/// Runs every campaign that can see this control: each must fail, and say one of these.
fn all_notice(fixture: &Fixture, control: Control, words: &[&str]) -> Result<()> {
    let _alone = one_at_a_time();
    let mut noticed = 0;
    let seeing = Campaign::ALL.into_iter().filter(|campaign| campaign.sees(control));
    let parity = usize::from(fixture.arch() == Arch::Aarch64);
    let its_turn = (control as usize + parity) % 2;
    for campaign in seeing.enumerate().filter(|(n, _)| n % 2 == its_turn).map(|(_, each)| each) {
        let began = std::time::Instant::now();
        match short(campaign, fixture.arch(), control) {
            Ok(()) => bail!("{campaign:?} passes with {control:?}"),
            Err(error) => {
                let text = format!("{error:#}");
                let is_said = words.iter().any(|words| text.contains(words));
                ensure!(is_said, "{campaign:?} with {control:?} fails of something else: {text}");
            }
        }
        eprintln!("{campaign:?} notices {control:?} after {:.1} s", began.elapsed().as_secs_f64());
        noticed += 1;
    }
    ensure!(noticed > 0, "nobody looks");
    Ok(())
}

/// The shortest form of a campaign in which everything of it is done.
fn short(campaign: Campaign, arch: Arch, control: Control) -> Result<()> {
    let (workspace, watch) = (Workspace::find()?, Watch::default());
    let control = Some(control);
    let all = Sample { one_in: 1, seed: 1 };
    match campaign {
        Campaign::Deaths => {
            let (server, how) = (Some("virtio-blk".into()), Some("kill".into()));
            let args = deaths::Args { arch, server, how, sample: all, control };
            deaths::run(&workspace, &args, &watch, &mut |_| ())?.check()
        }
        Campaign::Sweep => {
            let args = sweep::Args {
                arch,
                server: Some("virtio-blk".into()),
                victim: Some("virtio-blk".into()),
                moment: Some("receive".into()),
                sample: Sample { one_in: 10, seed: 1 },
                control,
            };
            sweep::run(&workspace, &args, &watch)?.check()
        }
        Campaign::Soak => {
            let args = soak::Args { arch, restarts: Some(7), control };
            soak::run(&workspace, &args, &watch)?.check()
        }
        Campaign::ThroughputRead => throughput_of(arch, Work::Read, control),
        Campaign::ThroughputWrite => throughput_of(arch, Work::Write, control),
        Campaign::Overhead => {
            let args = overhead::Args { arch, control };
            let rows = overhead::run(&workspace, &args, &watch)?;
            ensure!(rows.iter().all(overhead::Row::holds), "{rows:?}");
            Ok(())
        }
        Campaign::BenchRestart => bench_of(arch, "restart.virtio-blk", control),
        Campaign::BenchRead => bench_of(arch, "fs.read.4k", control),
        Campaign::BenchWrite => bench_of(arch, "fs.write.seq", control),
        Campaign::FuzzProtocols => {
            let plan = protocols::Plan { arch, seed: 1, calls: 5_000, control };
            let (_, wrong) = protocols::run(&workspace, &plan, &Options::default(), &watch)?;
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        }
    }
}

fn throughput_of(arch: Arch, work: Work, control: Option<Control>) -> Result<()> {
    let server = "virtio-blk".into();
    let args = throughput::Args { arch, server, seconds: 1, pairs: 1, only: Some(work), control };
    throughput::run(&Workspace::find()?, &args, work, &Watch::default())?.check_deaths()
}

fn bench_of(arch: Arch, row: &str, control: Option<Control>) -> Result<()> {
    let filter = Some(row.to_owned());
    let args = bench::Args { arch, json: None, samples: Some(2), control, filter };
    bench::run(&Workspace::find()?, &args, &Watch::default()).map(|_| ())
}
