//! What a sample says: a table by package, the missed ones, JSON.

use super::run::Outcome;
use super::sample::Mutant;
use std::fmt::Write;

/// One mutant that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The package.
    pub package: &'static str,
    /// Which one.
    pub mutant: Mutant,
    /// What the tests said.
    pub outcome: Outcome,
    /// Why it does not matter that it was missed, if that has been argued.
    pub argued: Option<String>,
}

/// How many there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// A test failed.
    pub caught: usize,
    /// The tests did not end.
    pub timeouts: usize,
    /// All tests passed, and nobody has said why that is right.
    pub missed: usize,
    /// All tests passed, and somebody has.
    pub argued: usize,
    /// They do not compile.
    pub unviable: usize,
}

impl Counts {
    /// Counts these.
    pub fn of<'a>(tried: impl IntoIterator<Item = &'a Tried>) -> Counts {
        let mut counts = Counts::default();
        for one in tried {
            *match one.outcome {
                Outcome::Caught => &mut counts.caught,
                Outcome::TimedOut => &mut counts.timeouts,
                Outcome::Missed if one.argued.is_some() => &mut counts.argued,
                Outcome::Missed => &mut counts.missed,
                Outcome::Unviable => &mut counts.unviable,
            } += 1;
        }
        counts
    }

    /// Those that compile.
    pub fn viable(&self) -> usize {
        self.caught + self.timeouts + self.missed + self.argued
    }

    /// Of those that compile, how many are noticed, in percent; a test that does not end is.
    pub fn percent(&self) -> f64 {
        100.0 * (self.caught + self.timeouts) as f64 / self.viable().max(1) as f64
    }
}

/// The table and the list of those that were missed, for people.
pub fn text(all: &[Tried]) -> String {
    let mut text = format!(
        "{:<12} {:>7} {:>7} {:>8} {:>7} {:>7} {:>8} {:>8}\n",
        "package", "mutants", "caught", "timeouts", "missed", "argued", "unviable", "noticed"
    );
    let mut row = |name: &str, counts: Counts| {
        let Counts { caught, timeouts, missed, argued, unviable } = counts;
        let (mutants, percent) = (counts.viable() + unviable, counts.percent());
        let _ = writeln!(
            text,
            "{name:<12} {mutants:>7} {caught:>7} {timeouts:>8} {missed:>7} {argued:>7} \
             {unviable:>8} {percent:>7.1}%"
        );
    };
    let mut packages: Vec<&str> = all.iter().map(|one| one.package).collect();
    packages.dedup();
    for package in packages {
        row(package, Counts::of(all.iter().filter(|one| one.package == package)));
    }
    row("all", Counts::of(all));
    for one in all.iter().filter(|one| one.outcome == Outcome::Missed) {
        let _ = match &one.argued {
            Some(why) => writeln!(text, "argued {}\n       {why}", one.mutant),
            None => writeln!(text, "MISSED {}", one.mutant),
        };
    }
    text
}

/// A JSON array, one mutant a line.
pub fn json(all: &[Tried]) -> String {
    let object = |one: &Tried| {
        let (line, column) = one.mutant.place;
        let mut object = format!(
            "  {{\"package\": {}, \"file\": {}, \"line\": {line}, \"column\": {column}, \
             \"change\": {}, \"outcome\": {}",
            quoted(one.package),
            quoted(&one.mutant.file),
            quoted(&one.mutant.change),
            quoted(one.outcome.name())
        );
        if let Some(why) = &one.argued {
            object += &format!(", \"argued\": {}", quoted(why));
        }
        object + "}"
    };
    format!("[\n{}\n]\n", all.iter().map(object).collect::<Vec<_>>().join(",\n"))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(package: &'static str, outcome: Outcome, argued: Option<&str>) -> Tried {
        let mutant = Mutant::parse("a.rs:7:15: replace f -> &str with \"\"").unwrap();
        Tried { package, mutant, outcome, argued: argued.map(Into::into) }
    }

    fn some() -> Vec<Tried> {
        vec![
            tried("pci", Outcome::Caught, None),
            tried("pci", Outcome::TimedOut, None),
            tried("pci", Outcome::Missed, None),
            tried("pci", Outcome::Missed, Some("It is the same.")),
            tried("fs", Outcome::Unviable, None),
            tried("fs", Outcome::Caught, None),
        ]
    }

    #[test]
    fn the_share_is_of_those_that_compile_and_what_is_argued_counts_as_missed() {
        let counts = Counts::of(&some());
        let expected = Counts { caught: 2, timeouts: 1, missed: 1, argued: 1, unviable: 1 };
        assert_eq!((counts, counts.viable(), counts.percent()), (expected, 5, 60.0));
        assert_eq!(Counts::default().percent(), 0.0);
    }

    #[test]
    fn the_text_has_each_package_the_whole_and_each_that_was_missed() {
        let text = text(&some());
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = text.lines().map(words).collect();
        assert_eq!(lines[1], ["pci", "4", "1", "1", "1", "1", "0", "50.0%"]);
        assert_eq!(lines[2], ["fs", "2", "1", "0", "0", "0", "1", "100.0%"]);
        assert_eq!(lines[3], ["all", "6", "2", "1", "1", "1", "1", "60.0%"]);
        assert_eq!(lines[4][..2], ["MISSED", "a.rs:7:15:"]);
        assert_eq!(lines[5][..2], ["argued", "a.rs:7:15:"]);
        assert_eq!(lines[6], ["It", "is", "the", "same."]);
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn the_json_has_each_mutant() {
        let text = json(&some()[3..5]);
        let expected = r#"[
  {"package": "pci", "file": "a.rs", "line": 7, "column": 15, "change": "replace f -> &str with \"\"", "outcome": "missed", "argued": "It is the same."},
  {"package": "fs", "file": "a.rs", "line": 7, "column": 15, "change": "replace f -> &str with \"\"", "outcome": "unviable"}
]
"#;
        assert_eq!(text, expected);
        assert_eq!(quoted("a\tb"), "\"a\\u0009b\"");
    }
}
