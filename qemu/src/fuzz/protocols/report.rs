//! What a run of the fuzzer of protocols said, read from the console.

use std::collections::{BTreeMap, BTreeSet};

/// Programs that mean harm: their deaths are their own affair.
pub const HOSTILE: [&str; 5] = ["assault-a", "assault-b", "giver", "taker", "tenant"];
/// Those of them that count calls.
pub const FUZZERS: [&str; 2] = ["assault-a", "assault-b"];
/// What stands in a tenant's memory before it writes anything.
const SECRET: &str = "!SeCrEt!";
/// What the root server says of a death, behind `root: NAME`.
const DIED: &str = " died (";
/// What it says, behind `root: NAME`, of a program that is wanted and not there.
const ABSENT: &str = ": cannot start";
/// How it ends who is stopped by the host.
const STOPPED: &str = "killed, ";
/// Who must live.
const VICTIM: &str = "victim";

/// Methods that no program of the fuzzer can be successful with, and why.
const HOPELESS: [(&str, &str); 3] = [
    ("console.read", "a program's session of the terminal may only write"),
    ("pci_registry.", "what there is only the `pci` server says"),
    ("control.", "the privilege is not granted"),
];
/// The one that is not answered.
const UNANSWERED: &str = "supervisor.exit";

/// What was said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls of each fuzzer.
    pub calls: BTreeMap<String, u64>,
    /// Successes and failures by method, of all fuzzers together.
    pub kinds: BTreeMap<String, [u64; 2]>,
    /// How many instances there were, and how many calls were broken off.
    pub lives: [u64; 2],
    /// Fuzzers that came to their end.
    pub ended: BTreeSet<String>,
    /// Rounds of the victim, and of the server that gives away what it was lent.
    pub rounds: [u64; 2],
    /// Deaths of the fuzzer's own programs.
    pub own_deaths: u64,
    /// Restarts of servers of which a fuzzer complained, by server: each client is heard three times
    /// a minute.
    pub complaints: BTreeMap<String, u64>,
    /// What must not have been.
    pub failures: Vec<String>,
}

impl Report {
    /// Reads whole lines; others than those of the fuzzer's programs and of deaths are passed over.
    pub fn parse(console: &str) -> Report {
        let mut report = Report::default();
        let whole = console.rfind('\n').map_or("", |end| &console[..end]);
        if whole.contains(SECRET) {
            report
                .failures
                .push("the terminal shows the memory of a program that wrote nothing".into());
        }
        for line in whole.lines().map(str::trim_end) {
            report.line(line);
        }
        report
    }

    fn line(&mut self, line: &str) {
        // What the console's clients write may stand before a line of the kernel's log.
        let Some((author, text)) = line.rsplit_once(": FUZZ ").or_else(|| line.split_once(": "))
        else {
            return;
        };
        let known = HOSTILE.iter().chain(&[VICTIM, "root"]);
        match known.copied().find(|name| author.ends_with(name)) {
            Some("root") => self.root(text),
            Some(VICTIM) => self.round(0, text.strip_prefix("VICTIM at ")),
            Some("taker") if !line.contains(": FUZZ ") => {
                self.round(1, text.strip_prefix("TAKER at "));
            }
            Some(author) if line.contains(": FUZZ ") => self.fuzz(author, text),
            _ => {}
        }
    }

    fn round(&mut self, place: usize, text: Option<&str>) {
        let number = text.and_then(|text| text.split(',').next()?.parse().ok());
        self.rounds[place] = number.unwrap_or(self.rounds[place]);
    }

    fn root(&mut self, text: &str) {
        if text.contains(ABSENT) {
            self.failures.push(text.into());
        }
        let Some((name, why)) = text.split_once(DIED) else { return };
        if HOSTILE.contains(&name) {
            self.own_deaths += 1;
        } else if name == VICTIM && why.starts_with(STOPPED) {
            // By the host, at the end.
        } else if HOSTILE.iter().any(|own| why.starts_with(&format!("complaint of {own}:"))) {
            *self.complaints.entry(name.into()).or_default() += 1;
        } else {
            self.failures.push(format!("{name} died ({why}"));
        }
    }

    fn fuzz(&mut self, author: &str, text: &str) {
        let mut words = text.split(' ');
        let word = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let numbers: Vec<u64> = rest.iter().filter_map(|word| word.parse().ok()).collect();
        match (word, numbers.as_slice()) {
            ("at" | "end", [calls, ..]) => {
                self.calls.insert(author.into(), *calls);
                if word == "end" {
                    self.ended.insert(author.into());
                }
            }
            ("kind", [good, bad, ..]) => {
                let counts = self.kinds.entry(rest[0].into()).or_default();
                counts[0] += good;
                counts[1] += bad;
            }
            ("lives", [lives, broken]) => {
                self.lives[0] += lives;
                self.lives[1] += broken;
            }
            ("failed", _) => self.failures.push(format!("{author}: {}", rest.join(" "))),
            _ => {}
        }
    }

    /// Adds the calls of another run.
    pub fn add(&mut self, other: &Report) {
        for (name, calls) in &other.calls {
            *self.calls.entry(name.clone()).or_default() += calls;
        }
        for (name, counts) in &other.kinds {
            let sum = self.kinds.entry(name.clone()).or_default();
            *sum = [sum[0] + counts[0], sum[1] + counts[1]];
        }
    }

    /// Calls of all fuzzers.
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Whether all fuzzers came to their end.
    pub fn is_done(&self) -> bool {
        FUZZERS.iter().all(|name| self.ended.contains(*name))
    }

    /// The methods that were not called at all.
    pub fn unreached(&self) -> Vec<String> {
        let never = self.kinds.iter().filter(|(_, counts)| **counts == [0, 0]);
        never.map(|(name, _)| format!("{name} was never called")).collect()
    }

    /// The methods that were never called with success or never without, where there is both; and
    /// those that succeeded where none can.
    pub fn barren(&self) -> Vec<String> {
        let mut barren = Vec::new();
        for (name, [good, bad]) in &self.kinds {
            let hopeless = HOPELESS.iter().find(|(begins, _)| name.starts_with(begins));
            match (hopeless, good) {
                (Some((_, why)), 1..) => barren.push(format!("{name} succeeded: {why}")),
                (None, 0) if name != UNANSWERED => barren.push(format!("{name} never succeeded")),
                _ => {}
            }
            if *bad == 0 {
                barren.push(format!("{name} never failed"));
            }
        }
        barren
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "assault-a: FUZZ begin seed=1 calls=5\nassault-a: FUZZ at 5000\r\n\
        \u{fffd}xassault-b: FUZZ at 70\nvictim: VICTIM at 40\ntaker: TAKER at 7, of 9 capabilities\n\
        root: assault-b died (panic: x, 3 requests in flight), restart 3\n\
        root: fs died (complaint of assault-a: it does not answer in time, 1 request in flight), restart 1\n\
        assault-a: FUZZ kind file.open 2 3 900\nassault-b: FUZZ kind file.open 1 0 900\n\
        assault-a: FUZZ kind console.read 0 3 9\nassault-a: FUZZ lives 4 9\n\
        assault-a: FUZZ end 6000\nassault-b: FUZZ end 90\n";

    #[test]
    fn a_run_is_read() {
        let report = Report::parse(RUN);
        assert!(report.is_done() && report.failures.is_empty(), "{report:?}");
        assert_eq!((report.total(), report.rounds, report.lives), (6090, [40, 7], [4, 9]));
        assert_eq!((report.own_deaths, report.complaints["fs"]), (1, 1));
        assert_eq!((report.kinds["file.open"], report.barren()), ([3, 3], Vec::new()));
        let mut sum = report.clone();
        sum.add(&report);
        assert_eq!((sum.total(), sum.kinds["file.open"]), (2 * 6090, [6, 6]));
        let cut = Report::parse(&RUN[..RUN.find("assault-b: FUZZ end").unwrap()]);
        assert!(!cut.is_done());
    }

    #[test]
    fn harm_is_told() {
        let failures = |line: &str| Report::parse(&format!("{line}\n")).failures;
        assert_eq!(
            failures("root: victim died (panic: FILE0 differs, 0 requests in flight)").len(),
            1
        );
        assert_eq!(failures("root: fs died (budget exhausted, 1 request in flight)").len(), 1);
        assert_eq!(failures("taker: FUZZ failed capability 0 lives").len(), 1);
        assert_eq!(failures("abc!SeCrEt!def").len(), 1);
        assert_eq!(failures("root: taker: cannot start; its clients are told").len(), 1);
        assert_eq!(failures("root: victim died (killed, 0 requests in flight)"), [""; 0]);
        assert_eq!(failures("root: giver died (panic: x, 1 request in flight)"), [""; 0]);
    }

    #[test]
    fn methods_that_were_not_reached_are_told() {
        let lines = "assault-a: FUZZ kind file.read 0 3\nassault-a: FUZZ kind file.sync 3 0\n\
            assault-a: FUZZ kind control.kill 1 3\nassault-a: FUZZ kind supervisor.exit 0 1\n";
        let report = Report::parse(&format!("{lines}assault-b: FUZZ kind hello.add 0 0\n"));
        assert_eq!(report.unreached(), ["hello.add was never called"]);
        let barren = Report::parse(lines).barren();
        assert_eq!(barren.len(), 3, "{barren:?}");
        assert!(barren[0].starts_with("control.kill succeeded"), "{barren:?}");
    }
}
