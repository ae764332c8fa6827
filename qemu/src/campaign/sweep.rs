//! `skink sweep`: kill at every step. A fixed workload runs once for each server, moment and N: the
//! server dies when it reaches its N-th moment of that kind (or it has a client of its die there),
//! and the workload's result must be right.
//!
//! The moments are counters of the shipped system (`moments` in the shell). How many there are in the
//! workload is counted in a calm run; `not reached` are those that come a little less often in
//! another run: each is listed with what the guest says of its order, and there may be few. A wrong
//! result is a failure. The only error that is documented for this workload is the death of the
//! shell itself, which ends the line that it ran: then the successor must be able to do all of it.

use super::lab::{Heard, Lab};
use super::ledger::{Order, Totals};
use super::rig::Rig;
use super::{Campaign, Control, Sample, wanted};
use crate::progress::{note, show};
use crate::session::{Outcome, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Context, Result, bail, ensure};
use skink_manifest::Experiment;
use std::collections::BTreeMap;
use std::time::Instant;

/// Bytes of the file that is read: more than `fs` has cache for, so that the driver has work.
const FILE_BYTES: usize = 9 << 20;
/// Cells of one boot.
const PER_BOOT: usize = 400;
/// What is swept: who has the moments, and who dies there.
const PAIRS: [(&str, &str); 6] = [
    ("virtio-blk", "virtio-blk"),
    ("fs", "fs"),
    ("console", "console"),
    ("virtio-blk", "fs"),
    ("fs", "shell"),
    ("console", "shell"),
];
const MOMENTS: [&str; 5] = ["receive", "reply", "notification", "ring", "interrupt"];
/// Of a hundred cells at most so many may be not reached. 5 of 273 were on a busy host, all of them the
/// last interrupts and notifications of a run, of which a slow device brings fewer.
const NOT_REACHED_PERCENT: usize = 5;
/// Reads, writes, changes names, lists, syncs; leaves the disk as it was. What is written and synced
/// is read back behind so much else that it comes from the disk.
const WORKLOAD: &str = "fill /disk/W.BIN 64k 9; sha256 /disk/W.BIN; sync; sha256 /disk/BIG.BIN; \
    sha256 /disk/W.BIN; mkdir /disk/D; mv /disk/W.BIN /disk/D/V.BIN; append /disk/D/T.TXT one; \
    append /disk/D/T.TXT two; cat /disk/D/T.TXT; ls /disk/D; sync; rm -r /disk/D; \
    hexdump /disk/BIG.BIN 0 256; ls /disk";
/// Who dies once before anything is counted, beside the shell.
const WARM: [&str; 3] = ["virtio-blk", "fs", "console"];
/// Removes what a line that ended early left.
const CLEAN_UP: &str = "rm -r /disk/D; rm /disk/W.BIN";

/// How `sweep` is called.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Only moments of this server
    #[arg(long)]
    pub server: Option<String>,
    /// Only deaths of this server
    #[arg(long)]
    pub victim: Option<String>,
    /// Only this moment
    #[arg(long)]
    pub moment: Option<String>,
    /// Which of the cells
    #[command(flatten)]
    pub sample: Sample,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
}

/// A cell of the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    server: &'static str,
    victim: &'static str,
    moment: &'static str,
    number: u64,
}

impl Cell {
    /// How the death is armed.
    fn kill(&self) -> String {
        let Cell { server, victim, moment, number } = self;
        if server == victim {
            format!("kill {victim} --at {moment}:{number}")
        } else {
            format!("kill {victim} --when {server}:{moment}:{number}")
        }
    }
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The result is right: nobody noticed.
    Unseen,
    /// The shell died with the line, as it must; its successor did all of it.
    Ended,
    /// The moment did not come; what the guest says of it.
    NotReached(String),
    Failed(String),
}

/// Cells by verdict, for each row of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Right.
    pub unseen: usize,
    /// The line ended with the shell.
    pub ended: usize,
    /// The moment did not come.
    pub not_reached: usize,
    /// Wrong.
    pub failed: usize,
}

/// All rows, and what failed.
#[derive(Debug, Default)]
pub struct Report {
    /// By server, victim and moment.
    pub rows: BTreeMap<(&'static str, &'static str, &'static str), Tally>,
    /// A line for each failure: how to see it again, and what was wrong.
    pub failures: Vec<String>,
    /// A line for each cell that was not reached: which, and why.
    pub not_reached: Vec<String>,
    /// What the guest's records say, of all boots.
    pub totals: Totals,
}

impl Report {
    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<12}{:<12}{:<14}{:>7}{:>8}{:>12}{:>8}\n",
            "moments of", "who dies", "moment", "unseen", "ended", "not reached", "FAILED"
        );
        for ((server, victim, moment), tally) in &self.rows {
            text += &format!(
                "{server:<12}{victim:<12}{moment:<14}{:>7}{:>8}{:>12}{:>8}\n",
                tally.unseen, tally.ended, tally.not_reached, tally.failed
            );
        }
        text
    }

    /// Cells that were tried.
    pub fn cells(&self) -> usize {
        self.rows.values().map(|t| t.unseen + t.ended + t.not_reached + t.failed).sum()
    }

    /// Checks what must hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        if let Some(first) = self.failures.first() {
            bail!("{} cells failed; the first: {first}", self.failures.len());
        }
        self.totals.check()?;
        let (most, lost) = (self.most_not_reached(), self.not_reached.len());
        ensure!(lost <= most, "{lost} cells were not reached, at most {most} may be");
        Ok(())
    }

    fn most_not_reached(&self) -> usize {
        (self.cells() * NOT_REACHED_PERCENT).div_ceil(100)
    }

    fn add(&mut self, cell: &Cell, verdict: Verdict) {
        let tally = self.rows.entry((cell.server, cell.victim, cell.moment)).or_default();
        match verdict {
            Verdict::Unseen => tally.unseen += 1,
            Verdict::Ended => tally.ended += 1,
            Verdict::NotReached(why) => {
                tally.not_reached += 1;
                self.not_reached.push(format!("`{}`: {why}", cell.kill()));
            }
            Verdict::Failed(why) => {
                tally.failed += 1;
                let failure = format!("`{}`: {why}", cell.kill());
                note(&failure);
                self.failures.push(failure);
            }
        }
    }
}

/// `skink sweep`. Returns exit code 1 if a cell failed.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let began = Instant::now();
    let report = run(workspace, args, &watch)?;
    show(report.table().trim_end());
    report.not_reached.iter().for_each(|cell| println!("not reached: {cell}"));
    println!(
        "{} cells on {} in {:.0} s, {} failed, {} not reached\n{}",
        report.cells(),
        args.arch.name(),
        began.elapsed().as_secs_f64(),
        report.failures.len(),
        report.not_reached.len(),
        report.totals
    );
    Ok(super::exit_code(report.check()))
}

/// Boots, counts, kills.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn run(workspace: &Workspace, args: &Args, watch: &Watch) -> Result<Report> {
    Campaign::Sweep.ensure_sees(args.control)?;
    let rig = Rig::build(workspace, args.arch, Experiment::KILLS, args.control, FILE_BYTES)?;
    let mut lab = rig.boot(watch)?;
    let expected = lab.ask(WORKLOAD)?;
    check_calm(&expected)?;
    lab.warm_up(&WARM, WORKLOAD, &expected)?;
    let cells = cells(&count(&mut lab, &expected)?, args);
    ensure!(!cells.is_empty(), "no cell: is there such a server, victim and moment?");
    note(&format!("{} cells", cells.len()));
    let mut report = Report::default();
    for (index, cell) in cells.iter().enumerate() {
        let verdict = try_cell(&mut lab, cell, &expected)
            .unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        let failed = matches!(verdict, Verdict::Failed(_));
        report.add(cell, verdict);
        let is_full = (index + 1) % PER_BOOT == 0;
        // After a failure it is not to be trusted to end by itself.
        if failed && args.control.is_some() {
            return Ok(report);
        } else if failed || is_full {
            if !failed {
                report.totals.add(lab.close()?);
            } else {
                drop(lab);
            }
            lab = rig.boot(watch)?;
            lab.say(CLEAN_UP)?;
            lab.warm_up(&WARM, WORKLOAD, &expected)?;
        }
    }
    report.totals.add(lab.close()?);
    Ok(report)
}

/// The result of a calm run is the measure of all others: what can be known of it must hold.
fn check_calm(text: &str) -> Result<()> {
    let sums: Vec<&str> =
        text.lines().filter_map(|line| line.strip_suffix("  /disk/W.BIN")).collect();
    let [first, second] = sums[..] else { bail!("the workload printed {text:?}") };
    ensure!(first == second, "without a death /disk/W.BIN is another file after `sync`: {text:?}");
    Ok(())
}

/// How often each server reaches each moment in the workload.
fn count(lab: &mut Lab, expected: &str) -> Result<BTreeMap<(String, String), u64>> {
    let before = moments(&lab.ask("moments")?)?;
    let calm = lab.say(WORKLOAD)?;
    ensure!(calm.is(expected), "the second calm run differs from the first: {calm:?}");
    let after = moments(&lab.ask("moments")?)?;
    let of = |key: &(String, String)| after[key].saturating_sub(before[key]);
    Ok(before.keys().map(|key| (key.clone(), of(key))).collect())
}

/// The table that `moments` prints, by server and moment.
fn moments(table: &str) -> Result<BTreeMap<(String, String), u64>> {
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().context("no table")?.split_whitespace().collect();
    let mut all = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (name, word) in head.iter().zip(&words).skip(1) {
            all.insert((words[0].to_owned(), name.to_lowercase()), word.parse()?);
        }
    }
    Ok(all)
}

/// The cells to try.
fn cells(counts: &BTreeMap<(String, String), u64>, args: &Args) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut choice = args.sample.choice();
    for (server, victim) in PAIRS {
        if !wanted(args.server.as_ref(), server) || !wanted(args.victim.as_ref(), victim) {
            continue;
        }
        for moment in MOMENTS.into_iter().filter(|moment| wanted(args.moment.as_ref(), moment)) {
            let key = (server.to_owned(), moment.to_owned());
            for number in 1..=counts.get(&key).copied().unwrap_or(0) {
                if choice.takes_next() {
                    cells.push(Cell { server, victim, moment, number });
                }
            }
        }
    }
    cells
}

/// Arms the death, and runs the workload. The console has moments while it takes the workload's line
/// in, too: that line comes apart then, so that input and output are swept.
fn kill_and_work(lab: &mut Lab, cell: &Cell) -> Result<Heard> {
    if cell.server != "console" {
        return lab.say(&format!("{}; {WORKLOAD}", cell.kill()));
    }
    let armed = lab.say(&cell.kill())?;
    if !armed.is("") {
        return Ok(armed);
    }
    let mut heard = lab.say(WORKLOAD)?;
    heard.deaths.splice(0..0, armed.deaths);
    Ok(heard)
}

fn try_cell(lab: &mut Lab, cell: &Cell, expected: &str) -> Result<Verdict> {
    let before = lab.last_order();
    let mut heard = kill_and_work(lab, cell)?;
    // This line has moments of the console as well; after it there are no more.
    let late = lab.say(&format!("kill {} --disarm", cell.victim))?;
    if late.outcome == Outcome::ShellDied {
        ensure!(heard.is(expected), "{:?}: {:?}", heard.outcome, heard.text);
        heard.outcome = Outcome::ShellDied;
    }
    heard.deaths.extend(late.deaths);
    let order = the_order(lab, before)?;
    let verdict = judge(cell, &heard, &order, expected);
    if verdict == Verdict::Ended {
        lab.say(CLEAN_UP)?;
        let again = lab.say(WORKLOAD)?;
        if !again.is(expected) || !again.deaths.is_empty() {
            return Ok(Verdict::Failed(format!("after the shell's death: {again:?}")));
        }
    }
    lab.answered_right();
    Ok(verdict)
}

/// What the guest says of the one order that a cell has.
fn the_order(lab: &mut Lab, before: u64) -> Result<Order> {
    let mut orders = lab.orders_after(before)?;
    ensure!(orders.len() == 1, "one death was ordered, and the guest knows of {orders:?}");
    Ok(orders.remove(0))
}

fn judge(cell: &Cell, heard: &Heard, order: &Order, expected: &str) -> Verdict {
    let placed = format!("{}:{}:", cell.server, cell.moment);
    let is_its = |death: &super::lab::Death| {
        death.order == Some(order.number)
            && death.server == cell.victim
            && death.placed.starts_with(&placed)
    };
    let died = match heard.deaths.as_slice() {
        [] if order.reached == 0 => false,
        [death] if order.died == 1 && is_its(death) => true,
        [] if order.died > 0 => {
            return Verdict::Failed(format!("no crash record of the death by {order:?}"));
        }
        _ => return Verdict::Failed(format!("{order:?}, deaths: {:?}", heard.deaths)),
    };
    match heard.outcome {
        Outcome::ShellDied if died && cell.victim == "shell" => Verdict::Ended,
        _ if !heard.is(expected) => {
            Verdict::Failed(format!("{:?}: {:?}", heard.outcome, heard.text))
        }
        _ if died => Verdict::Unseen,
        _ => Verdict::NotReached(match &order.withdrawn {
            Some(why) => format!("its moment did not come, and it was {why}"),
            None => "its moment did not come, though it waits".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::Death;
    use super::*;

    fn args() -> Args {
        Args {
            arch: Arch::X86_64,
            server: None,
            victim: None,
            moment: Some("ring".to_owned()),
            sample: Sample { one_in: 1, seed: 1 },
            control: None,
        }
    }

    #[test]
    fn every_number_is_a_cell_and_a_seed_chooses_some() {
        let table = "NAME  RECEIVE  RING\nfs  3  40\nvirtio-blk  9  10\n";
        let counts = moments(table).unwrap();
        let all = cells(&counts, &args());
        assert_eq!(all.len(), 10 + 40 + 10 + 40, "blk, fs, fs at blk, shell at fs");
        assert_eq!(all[0].kill(), "kill virtio-blk --at ring:1");
        let some = cells(&counts, &Args { sample: Sample { one_in: 10, seed: 7 }, ..args() });
        assert!(!some.is_empty() && some.len() < 30, "{}", some.len());
        assert_eq!(
            some,
            cells(&counts, &Args { sample: Sample { one_in: 10, seed: 7 }, ..args() })
        );
        assert_ne!(
            some,
            cells(&counts, &Args { sample: Sample { one_in: 10, seed: 8 }, ..args() })
        );
    }

    fn order(reached: u64, died: u64, withdrawn: Option<&str>) -> Order {
        Order {
            number: 5,
            server: "fs".into(),
            how: "kill".into(),
            times: Some(1),
            reached,
            died,
            missed: 0,
            withdrawn: withdrawn.map(str::to_owned),
        }
    }

    #[test]
    fn only_the_right_result_and_the_right_death_pass() {
        let cell = Cell { server: "fs", victim: "fs", moment: "ring", number: 3 };
        let death = Death {
            server: "fs".into(),
            placed: "fs:ring:77".into(),
            order: Some(5),
            ..Death::default()
        };
        let heard = |text: &str, deaths: &[Death]| Heard {
            text: text.into(),
            outcome: Outcome::Status(0),
            deaths: deaths.to_vec(),
        };
        let one = [death.clone()];
        let (came, waits) = (order(1, 1, None), order(0, 0, Some("disarmed")));
        assert_eq!(judge(&cell, &heard("x", &one), &came, "x"), Verdict::Unseen);
        let reason = "its moment did not come, and it was disarmed".to_owned();
        assert_eq!(judge(&cell, &heard("x", &[]), &waits, "x"), Verdict::NotReached(reason));
        let failed = |heard: &Heard, order: &Order| {
            let verdict = judge(&cell, heard, order, "x");
            assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        };
        failed(&heard("y", &one), &came);
        failed(&heard("y", &[]), &waits);
        failed(&heard("x", &[death.clone(), death.clone()]), &came);
        failed(&heard("x", &[]), &order(1, 0, None));
        failed(&heard("x", &one), &waits);
        failed(&heard("x", &[Death { server: "hello".into(), ..death.clone() }]), &came);
        failed(&heard("x", &[Death { order: Some(4), ..death.clone() }]), &came);
        failed(&heard("x", &[Death { order: None, ..death }]), &came);
        // It was fs that was to die.
        failed(&Heard { outcome: Outcome::ShellDied, ..heard("", &one) }, &came);
    }

    #[test]
    fn a_sweep_in_which_nobody_died_or_many_cells_were_not_reached_fails() {
        let cell = Cell { server: "fs", victim: "fs", moment: "ring", number: 3 };
        let report = |unseen: usize, not_reached: usize| {
            let mut report = Report::default();
            let calm = Verdict::NotReached("disarmed".into());
            (0..unseen).for_each(|_| report.add(&cell, Verdict::Unseen));
            (0..not_reached).for_each(|_| report.add(&cell, calm.clone()));
            let died = unseen as u64;
            let (wanted, withdrawn) = (died + not_reached as u64, not_reached as u64);
            let (reached, recovered, right) = (died, died, died);
            report.totals =
                Totals { wanted, withdrawn, reached, died, recovered, right, ..Totals::default() };
            report
        };
        let error = report(0, 16).check().unwrap_err().to_string();
        assert!(error.starts_with("nobody died"), "{error}");
        report(100, 2).check().unwrap();
        let error = report(50, 4).check().unwrap_err().to_string();
        assert_eq!(error, "4 cells were not reached, at most 3 may be");
        assert_eq!(report(1, 1).not_reached, ["`kill fs --at ring:3`: disarmed"]);
    }

    #[test]
    fn a_calm_run_that_contradicts_itself_is_no_measure() {
        check_calm("a  /disk/W.BIN\nb  /disk/BIG.BIN\na  /disk/W.BIN\n").unwrap();
        let error = check_calm("a  /disk/W.BIN\nb  /disk/W.BIN\n").unwrap_err().to_string();
        assert!(error.contains("another file after `sync`"), "{error}");
        assert!(check_calm("a  /disk/W.BIN\n").unwrap_err().to_string().contains("printed"));
    }
}
