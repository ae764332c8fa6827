//! A guest in which servers are killed, and what is known of their deaths.

use crate::bounded;
use crate::machine::{Ending, Options};
use crate::session::{Guest, Outcome, Sink, System, Watch};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A line is given up after this.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A death, as the guest's crash record tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    /// Counts deaths since boot.
    pub number: u64,
    /// Who.
    pub server: String,
    /// Why, in words.
    pub cause: String,
    /// Requests received and not answered.
    pub in_flight: u64,
    /// `SERVER:MOMENT:COUNT`, if it was placed.
    pub placed: String,
    /// When it was noticed, nanoseconds since boot.
    pub noticed_ns: u64,
    /// When the successor was started; 0: not yet.
    pub started_ns: u64,
}

impl Death {
    /// From the lines `key=value` of a record.
    pub fn parse(record: &str) -> Death {
        let pairs: BTreeMap<&str, &str> =
            record.lines().filter_map(|line| line.split_once('=')).collect();
        let text = |key: &str| pairs.get(key).map(|value| (*value).to_owned()).unwrap_or_default();
        let number = |key: &str| text(key).parse().unwrap_or_default();
        Death {
            number: number("number"),
            server: text("server"),
            cause: text("cause"),
            in_flight: number("in_flight"),
            placed: text("placed"),
            noticed_ns: number("noticed_ns"),
            started_ns: number("started_ns"),
        }
    }
}

/// What came of a line.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it printed.
    pub text: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Who died meanwhile, or has not been told of before.
    pub deaths: Vec<Death>,
}

impl Heard {
    /// Whether it succeeded and printed this.
    pub fn is(&self, text: &str) -> bool {
        self.outcome == Outcome::Status(0) && self.text == text
    }
}

/// The guest.
pub struct Lab<'a> {
    guest: Guest<'a>,
}

impl<'a> Lab<'a> {
    /// Boots it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn boot(system: &'a System, options: &Options, watch: &Watch) -> Result<Lab<'a>> {
        Ok(Lab { guest: Guest::boot(system, options, watch)? })
    }

    /// Runs a line, whatever comes of it.
    ///
    /// # Errors
    /// If the guest says what is no frame, or does not answer.
    pub fn say(&mut self, line: &str) -> Result<Heard> {
        let mut bytes = Vec::new();
        let mut deaths = Vec::new();
        let mut output = |more: &[u8]| bounded::capture(&mut bytes, more);
        let mut crash = |text: &str| deaths.push(Death::parse(text));
        let mut sink = Sink { output: &mut output, crash: Some(&mut crash) };
        let outcome = self.guest.run(line, Instant::now() + TIMEOUT, &mut sink)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if outcome == Outcome::TimedOut {
            let mortem = self.guest.post_mortem();
            bail!(
                "`{line}`: no end after {TIMEOUT:?}, printed {text:?}, died: {deaths:?}\n{mortem}"
            );
        }
        Ok(Heard { text, outcome, deaths })
    }

    /// Everything that the guest has printed on its console.
    pub fn console(&self) -> String {
        self.guest.console()
    }

    /// Runs a line that must succeed; what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let heard = self.say(line)?;
        ensure!(
            heard.outcome == Outcome::Status(0),
            "`{line}`: {:?}, printed {:?}\n{}",
            heard.outcome,
            heard.text,
            self.guest.post_mortem()
        );
        Ok(heard.text)
    }

    /// Restarts so far of each server, by name, as `ps` shows them.
    ///
    /// # Errors
    /// If `ps` fails.
    pub fn restarts(&mut self) -> Result<BTreeMap<String, u64>> {
        Ok(restarts(&self.ask("ps")?))
    }

    /// Ends it; it must end by itself.
    ///
    /// # Errors
    /// If it does not.
    pub fn end(mut self) -> Result<()> {
        let ending = self.guest.shut_down()?;
        ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
        Ok(())
    }
}

/// The column `RESTARTS` of `ps`; states may have two words, so it is counted from the end.
fn restarts(ps: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // RESTARTS PRIO CPU% MEMORY(number, unit) IRQS REQUESTS
        let place = words.len().checked_sub(7)?;
        Some((words[0].to_owned(), words[place].parse().ok()?))
    };
    ps.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let death = Death::parse(
            "number=7\nserver=fs\ncause=panic: a=b\nin_flight=2\nplaced=fs:ring:9\nnoticed_ns=5\n",
        );
        assert_eq!((death.number, death.server.as_str(), death.in_flight), (7, "fs", 2));
        assert_eq!((death.cause.as_str(), death.placed.as_str()), ("panic: a=b", "fs:ring:9"));
        assert_eq!((death.noticed_ns, death.started_ns), (5, 0));
    }

    #[test]
    fn restarts_are_read_whatever_the_state() {
        let ps = "NAME  STATE  INC  RESTARTS  PRIO  CPU%  MEMORY  IRQS  REQUESTS\n\
            fs   running  3  2  150  0.3  8.2 MiB  0  0\n\
            blk  no device  0  0  190  0.0  4 KiB  0  0\n";
        let expected = [("blk".to_owned(), 0), ("fs".to_owned(), 2)];
        assert_eq!(restarts(ps).into_iter().collect::<Vec<_>>(), expected);
    }
}
