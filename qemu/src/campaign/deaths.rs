//! `skink deaths`: the matrix of deaths. Each server of the manifest dies in each way, while
//! nobody asks it for anything, under load, when it starts, and while another server is restarted.
//! And each is stopped for good, as one that was given up: then its clients must be told at once.
//!
//! Of each cell it is asserted that the death that was ordered came with the cause that was meant (and
//! with requests in flight where the cell says so), what the clients saw, and that nobody else was
//! restarted. A way to die that does not apply is refused by the guest itself, which the table
//! counts as `-`: it must be refused where the manifest says that nobody would notice, and nowhere
//! else.

use super::lab::{Death, Heard, Lab};
use super::ledger::{Order, Totals};
use super::rig::Rig;
use super::{BACKOFF_MS, Campaign, Control, Sample, wanted};
use crate::manifest;
use crate::progress::{note, show};
use crate::session::{Outcome, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Context, Result, bail, ensure};
use skink_manifest::{Experiment, Manifest, Server};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Bytes of the file that is read: more than `fs` has cache for, so that the driver has work.
const FILE_BYTES: usize = 9 << 20;
/// A death comes within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(8);
/// Runs the lines.
const SHELL: &str = "shell";
/// Carries them.
const CONSOLE: &str = "console";

/// The ways to die, as `kill --how` names them, and how the record tells them.
const WAYS: [(&str, &[&str]); 11] = [
    ("kill", &["killed"]),
    ("null", &["null pointer"]),
    ("illegal", &["undefined instruction"]),
    ("stack", &["stack overflow", "store to"]),
    ("memory", &["memory quota exhausted"]),
    ("loop", &["budget exhausted"]),
    ("panic", &["panic: "]),
    ("exit", &["exit with code 1"]),
    ("hang", &["heartbeat missed"]),
    ("caps", &["capability quota exhausted"]),
    ("device", &["device does not answer"]),
];
/// The end of a server by its operator, not by `kill`.
const STOP: &str = "stop";
/// What clients are told of a service that is not to be had: directly, or by `fs` of its disk.
const UNAVAILABLE: [&str; 3] =
    ["the service is not running", "its driver does not run", "the disk failed at"];
/// A client is told within this.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Those that watch a device by a deadline.
const WATCH_A_DEVICE: [&str; 1] = ["virtio-blk"];

/// When a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    /// Nobody asks it for anything.
    Idle,
    /// With a request in flight.
    Load,
    /// A new instance, before its `main`.
    StartUp,
    /// Another server is dead, and waits for its restart.
    OthersRestart,
    /// It is not started again.
    ForGood,
}

impl Time {
    const NAMED: [(&str, Time); 5] = [
        ("idle", Time::Idle),
        ("load", Time::Load),
        ("start-up", Time::StartUp),
        ("other's restart", Time::OthersRestart),
        ("for good", Time::ForGood),
    ];
}

/// How `deaths` is called.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Only deaths of this server
    #[arg(long)]
    pub server: Option<String>,
    /// Only this way to die, as `kill --how` names it
    #[arg(long)]
    pub how: Option<String>,
    /// Which of the cells
    #[command(flatten)]
    pub sample: Sample,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
}

/// A cell of the matrix.
#[derive(Clone, Debug)]
struct Cell {
    server: String,
    way: &'static str,
    words: &'static [&'static str],
    time: Time,
    /// Somebody would notice: the guest must not refuse it.
    applies: bool,
    /// Who dies first in [`Time::OthersRestart`]: whom the server needs, else a neighbour.
    other: String,
}

impl Cell {
    /// Whether this is the death that was meant.
    fn is_meant(&self, death: &Death) -> bool {
        death.server == self.server && self.words.iter().any(|words| death.cause.contains(words))
    }
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be; what the clients saw, and with how many requests in flight it died.
    Good(&'static str, u64),
    /// The guest refused it: such a death cannot come.
    Refused,
    /// Nobody asks this server for anything, so that no request is in flight.
    NoClients,
    /// Not as it must be.
    Failed(String),
}

/// Cells with their verdicts, printed as they come.
#[derive(Debug, Default)]
pub struct Report {
    /// Cells that are as they must be.
    pub good: usize,
    /// Cells that do not apply.
    pub none: usize,
    /// What is not as it must be.
    pub failures: Vec<String>,
    /// What the guest's records say, of all boots.
    pub totals: Totals,
}

impl Report {
    /// Checks what must hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        if let Some(first) = self.failures.first() {
            bail!("{} cells failed; the first: {first}", self.failures.len());
        }
        ensure!(self.good > 0, "no cell is as it must be: {} do not apply", self.none);
        self.totals.check()
    }
}

/// `skink deaths`. Returns exit code 1 if a cell failed.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let began = Instant::now();
    let report = run(workspace, args, &watch, &mut |line| show(line))?;
    let cells = report.good + report.none + report.failures.len();
    println!(
        "{cells} cells on {} in {:.0} s: {} as they must be, {} do not apply, {} failed\n{}",
        args.arch.name(),
        began.elapsed().as_secs_f64(),
        report.good,
        report.none,
        report.failures.len(),
        report.totals
    );
    Ok(super::exit_code(report.check()))
}

/// Boots and kills; `say` gets a line for each cell.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn run(
    workspace: &Workspace,
    args: &Args,
    watch: &Watch,
    say: &mut dyn FnMut(&str),
) -> Result<Report> {
    Campaign::Deaths.ensure_sees(args.control)?;
    let path = workspace.target_folder(args.arch).join("system.toml");
    let manifest = manifest::load(&path, args.arch.target())?;
    let cells = cells(&manifest, args);
    ensure!(!cells.is_empty(), "no cell: is there such a server and way?");
    let experiment = Experiment { backoff_ms: BACKOFF_MS, ..Experiment::KILLS };
    let rig = Rig::build(workspace, args.arch, experiment, args.control, FILE_BYTES)?;
    let mut bench = Bench::new(rig.boot(watch)?, &manifest)?;
    let mut report = Report::default();
    for cell in &cells {
        let verdict =
            bench.try_cell(cell).unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        let (time, _) = Time::NAMED[cell.time as usize];
        let told = match &verdict {
            Verdict::Good(view, in_flight) => format!("{view}, {in_flight} in flight"),
            Verdict::Refused => "- (cannot come)".to_owned(),
            Verdict::NoClients => "- (nobody asks it for anything)".to_owned(),
            Verdict::Failed(why) => format!("FAILED: {why}"),
        };
        let line = format!("{:<12}{:<9}{time:<17}{told}", cell.server, cell.way);
        say(&line);
        match verdict {
            Verdict::Good(..) => report.good += 1,
            Verdict::Refused | Verdict::NoClients => report.none += 1,
            Verdict::Failed(_) => {
                note(&line);
                report.failures.push(line);
                // It gives the disk back before the next one takes it.
                drop(bench);
                if args.control.is_some() {
                    return Ok(report);
                }
                bench = Bench::new(rig.boot(watch)?, &manifest)?;
            }
        }
    }
    report.totals.add(bench.lab.close()?);
    Ok(report)
}

fn cells(manifest: &Manifest, args: &Args) -> Vec<Cell> {
    let mut choice = args.sample.choice();
    let mut cells = Vec::new();
    for (index, server) in manifest::servers(manifest).enumerate() {
        // Without these two no line runs.
        let carries_lines = matches!(server.name.as_str(), CONSOLE | SHELL);
        let stop = [(STOP, [].as_slice())].into_iter().filter(|_| !carries_lines);
        for (way, words) in WAYS.into_iter().chain(stop) {
            for (_, time) in Time::NAMED {
                if (time == Time::ForGood) != (way == STOP) {
                    continue;
                }
                let chosen = choice.takes_next();
                let is_wanted =
                    wanted(args.server.as_ref(), &server.name) && wanted(args.how.as_ref(), way);
                if chosen && is_wanted {
                    let other = other_than(manifest, index);
                    let (name, applies) = (server.name.to_string(), applies(server, way));
                    cells.push(Cell { server: name, way, words, time, applies, other });
                }
            }
        }
    }
    cells
}

/// Whether somebody would notice that the server dies so.
fn applies(server: &Server, way: &str) -> bool {
    match way {
        "loop" => server.budget_us < server.period_us,
        "hang" => server.heartbeat_ms > 0,
        "device" => WATCH_A_DEVICE.contains(&server.name.as_str()),
        _ => true,
    }
}

/// Whom the server needs, else the one behind it; never the shell, which runs the lines.
fn other_than(manifest: &Manifest, index: usize) -> String {
    let needed = manifest.edges.iter().find(|edge| usize::from(edge.client) == index);
    let servers: Vec<&Server> = manifest::servers(manifest).collect();
    let next = (1..servers.len()).map(|step| (index + step) % servers.len());
    let named = |index: usize| servers[index].name.as_str();
    let needed = needed.map(|edge| usize::from(edge.server));
    let found = needed.into_iter().chain(next).map(named).find(|name| *name != SHELL);
    found.unwrap_or_default().to_owned()
}

/// A line that needs the server, if any can be asked for anything.
fn use_of(server: &str) -> Option<&'static str> {
    match server {
        "console" => Some("echo so long"),
        "virtio-blk" | "fs" => Some("sha256 /disk/BIG.BIN"),
        "bootfs" => Some("cat /boot/motd"),
        "hello" => Some("hello"),
        // The line itself is what the shell is for.
        SHELL => Some("ls /disk"),
        _ => None,
    }
}

/// What clears away all that could hide a death, and shows that everything works.
const ALL: &str = "ls /disk; cat /boot/motd; hello; echo all";

struct Bench<'a> {
    lab: Lab<'a>,
    /// What lines print when nobody dies.
    calm: BTreeMap<&'static str, String>,
}

impl<'a> Bench<'a> {
    fn new(mut lab: Lab<'a>, manifest: &Manifest) -> Result<Bench<'a>> {
        let mut calm = BTreeMap::new();
        let uses = manifest::servers(manifest).filter_map(|server| use_of(&server.name));
        for line in uses.chain([ALL]) {
            calm.insert(line, lab.ask(line)?);
        }
        let names = manifest::servers(manifest).map(|server| server.name.as_str());
        let mut victims: Vec<&str> = names.filter(|name| *name != SHELL).collect();
        // Without it nothing more is heard.
        victims.sort_by_key(|name| *name == CONSOLE);
        lab.warm_up(&victims, ALL, &calm[ALL])?;
        Ok(Bench { lab, calm })
    }

    fn try_cell(&mut self, cell: &Cell) -> Result<Verdict> {
        let Cell { server, way, .. } = cell;
        let request = use_of(server);
        if cell.time == Time::Load && request.is_none() {
            return Ok(Verdict::NoClients);
        }
        let before = self.lab.restarts()?;
        let last_order = self.lab.last_order();
        let kill = format!("kill {server} --how {way}");
        let line = match cell.time {
            Time::Idle => kill,
            // The shell asks others: a job of its reads while it dies.
            Time::Load if server == SHELL => format!("sha256 /disk/BIG.BIN & {kill}; sleep 5"),
            Time::Load => format!("{kill} --at receive:1; {}", request.unwrap_or_default()),
            Time::StartUp => format!("{kill} --at start:1; restart {server}"),
            Time::OthersRestart => format!("kill {}; {kill}", cell.other),
            Time::ForGood => return self.try_stop(cell, request, before),
        };
        let mut heard = self.lab.say(&line)?;
        let order = self.order_of(cell, last_order)?;
        if order.is_refused() {
            ensure!(!cell.applies, "refused, though somebody would notice: {order:?}");
            self.lab.wait_until_all_run()?;
            self.check_all()?;
            return Ok(Verdict::Refused);
        }
        ensure!(cell.applies, "the guest took an order of which nobody would notice: {order:?}");
        let deaths = self.wait_for_deaths(cell, &order, &mut heard)?;
        let view = self.check_view(cell, request, &heard)?;
        check_deaths(cell, &order, &deaths)?;
        self.check_restarts(cell, &before)?;
        let order = self.order_of(cell, last_order)?;
        ensure!((order.reached, order.died) == (1, 1), "the record of the order: {order:?}");
        let in_flight = deaths.last().map_or(0, |death| death.in_flight);
        Ok(Verdict::Good(view, in_flight))
    }

    /// The order of the cell, among those behind `last`.
    fn order_of(&mut self, cell: &Cell, last: u64) -> Result<Order> {
        let orders = self.lab.orders_after(last)?;
        let is_its = |order: &&Order| order.server == cell.server && order.how == cell.way;
        let its = orders.iter().find(is_its).cloned();
        its.with_context(|| format!("the guest knows of no such order: {orders:?}"))
    }

    /// Stops the server, asks it for something, and starts it again.
    fn try_stop(
        &mut self,
        cell: &Cell,
        request: Option<&'static str>,
        mut expected: BTreeMap<String, u64>,
    ) -> Result<Verdict> {
        let server = &cell.server;
        self.lab.ask(&format!("stop {server}"))?;
        if let Some(request) = request {
            let began = Instant::now();
            let heard = self.lab.say(request)?;
            let told = UNAVAILABLE.iter().any(|words| heard.text.contains(words));
            ensure!(told, "`{request}`: {:?}, {:?}", heard.outcome, heard.text);
            ensure!(heard.outcome != Outcome::Status(0), "`{request}` succeeded");
            ensure!(began.elapsed() < AT_ONCE, "told after {:?}", began.elapsed());
        }
        self.lab.ask(&format!("start {server}"))?;
        self.check_all()?;
        *expected.entry(server.clone()).or_default() += 1;
        let now = self.lab.restarts()?;
        ensure!(now == expected, "restarts: {now:?}, expected {expected:?}");
        let view = if request.is_some() { "service unavailable" } else { "nobody asks" };
        Ok(Verdict::Good(view, 0))
    }

    /// Waits until the deaths of the cell have come, and everything works again.
    fn wait_for_deaths(
        &mut self,
        cell: &Cell,
        order: &Order,
        heard: &mut Heard,
    ) -> Result<Vec<Death>> {
        let mut deaths = core::mem::take(&mut heard.deaths);
        let until = Instant::now() + PATIENCE;
        // Some come only when the server has something to do.
        let line = use_of(&cell.server).unwrap_or("true");
        while !deaths.iter().any(|death| death.order == Some(order.number)) {
            ensure!(Instant::now() < until, "no death by order {order:?}; there were {deaths:?}");
            let now = self.order_of(cell, order.number - 1)?;
            let idle = cell.time == Time::Idle && cell.way != "device";
            let more = self.lab.say(if idle { "true" } else { line })?;
            deaths.extend(more.deaths);
            let is_told = deaths.iter().any(|death| death.order == Some(order.number));
            ensure!(now.died == 0 || is_told, "no crash record of the death by order {now:?}");
        }
        deaths.extend(self.check_all()?);
        Ok(deaths)
    }

    /// Everything works; who died meanwhile.
    fn check_all(&mut self) -> Result<Vec<Death>> {
        let all = self.lab.say(ALL)?;
        ensure!(all.is(&self.calm[ALL]), "afterwards `{ALL}`: {:?}, {:?}", all.outcome, all.text);
        self.lab.answered_right();
        Ok(all.deaths)
    }

    /// What the clients saw of it.
    fn check_view(
        &self,
        cell: &Cell,
        request: Option<&'static str>,
        heard: &Heard,
    ) -> Result<&'static str> {
        if cell.server == SHELL {
            // Its death ends the line; only where that had nothing more to do, it may be over.
            let is_over = heard.outcome == Outcome::Status(0) && cell.time != Time::Load;
            ensure!(heard.outcome == Outcome::ShellDied || is_over, "{:?}", heard.outcome);
            return Ok("the line ends with it");
        }
        let expected = match cell.time {
            Time::Load => request.map_or("", |line| self.calm[line].as_str()),
            _ => "",
        };
        ensure!(heard.is(expected), "{:?}, printed {:?}", heard.outcome, heard.text);
        Ok("unseen")
    }

    /// Nobody was restarted but those who died.
    fn check_restarts(&mut self, cell: &Cell, before: &BTreeMap<String, u64>) -> Result<()> {
        let mut expected = before.clone();
        *expected.entry(cell.server.clone()).or_default() +=
            if cell.time == Time::StartUp { 2 } else { 1 };
        if cell.time == Time::OthersRestart {
            *expected.entry(cell.other.clone()).or_default() += 1;
        }
        // Whom nobody asks for anything may be waiting out its back-off still.
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.lab.restarts()?;
            if now == expected {
                return Ok(());
            }
            ensure!(Instant::now() < until, "restarts: {now:?}, expected {expected:?}");
        }
    }
}

/// Those who were to die did, and nobody else.
fn check_deaths(cell: &Cell, order: &Order, deaths: &[Death]) -> Result<()> {
    let others: &[&str] = match cell.time {
        Time::StartUp => &["restarted by command"],
        Time::OthersRestart => &["killed"],
        _ => &[],
    };
    ensure!(deaths.len() == 1 + others.len(), "deaths: {deaths:?}");
    let its = deaths.iter().find(|death| death.order == Some(order.number));
    let its = its.context("no such death")?;
    ensure!(cell.is_meant(its), "the death by order {} is another: {its:?}", order.number);
    let other = deaths.iter().find(|death| death.order != Some(order.number));
    let other = other.map_or("", |death| death.cause.as_str());
    ensure!(others.iter().all(|words| other.contains(words)), "the other death: {deaths:?}");
    match cell.time {
        Time::Load if cell.server != SHELL => {
            ensure!(its.in_flight > 0, "no request in flight: {its:?}");
            let placed = format!("{}:receive:", cell.server);
            ensure!(its.placed.starts_with(&placed), "placed at `{}`", its.placed);
        }
        Time::StartUp => {
            let placed = format!("{}:start:", cell.server);
            ensure!(its.placed.starts_with(&placed), "placed at `{}`", its.placed);
        }
        Time::OthersRestart => {
            let other = deaths.iter().find(|death| death.server == cell.other);
            let other = other.context("the other one did not die")?;
            ensure!(other.noticed_ns <= its.noticed_ns, "in the wrong order: {deaths:?}");
            // These are found by time, which may be longer than any restart.
            let is_prompt = !matches!(cell.way, "loop" | "hang" | "device");
            let during = other.started_ns == 0 || its.noticed_ns < other.started_ns;
            ensure!(during || !is_prompt, "not during the other's restart: {deaths:?}");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
