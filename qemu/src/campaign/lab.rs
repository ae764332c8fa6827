//! A guest in which servers are killed, and what is known of their deaths.

use super::ledger::{Ledger, Order, Totals};
use super::lying_disk::LyingDisk;
use crate::bounded;
use crate::machine::{Ending, Options};
use crate::session::{Guest, Outcome, Sink, System, Watch};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A line is given up after this.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A boot is given up after this.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Whoever died is started again within this.
const PATIENCE: Duration = Duration::from_secs(8);

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
    /// The order that it came of.
    pub order: Option<u64>,
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
            order: pairs.get("order").and_then(|order| order.parse().ok()),
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

/// The guest, and the ledger of what was ordered in it.
pub struct Lab<'a> {
    guest: Guest<'a>,
    ledger: Ledger,
    lying: Option<&'a LyingDisk>,
    /// Deaths that were heard of while something else was asked: the next line tells of them.
    untold: Vec<Death>,
    /// What `free` said before the first death that counts.
    free: Option<String>,
    prompt_after: Duration,
}

impl<'a> Lab<'a> {
    /// Boots it, and waits until its shell answers.
    ///
    /// # Errors
    /// If it does not start.
    pub fn boot(
        system: &'a System,
        options: &Options,
        lying: Option<&'a LyingDisk>,
        watch: &Watch,
    ) -> Result<Lab<'a>> {
        let mut guest = Guest::boot(system, options, watch)?;
        let mut sink = Sink { output: &mut |_| Ok(()), crash: None };
        if let Some(outcome) = guest.wait_ready(Instant::now() + BOOT_TIMEOUT, &mut sink)? {
            bail!("{outcome:?} before the prompt\n{}", guest.post_mortem());
        }
        let prompt_after = guest.started().elapsed();
        let ledger = Ledger::default();
        let untold = Vec::new();
        let mut lab = Lab { guest, ledger, lying, untold, free: None, prompt_after };
        let restarts = lab.restarts()?;
        lab.ledger.begin(restarts);
        Ok(lab)
    }

    /// Runs a line, whatever comes of it.
    ///
    /// # Errors
    /// If the guest says what is no frame, or does not answer.
    pub fn say(&mut self, line: &str) -> Result<Heard> {
        let mut heard = self.say_within(line, TIMEOUT)?;
        heard.deaths.splice(0..0, core::mem::take(&mut self.untold));
        Ok(heard)
    }

    /// As [`Lab::say`], with a time-out of its own, and without deaths that were heard of before.
    ///
    /// # Errors
    /// As there.
    pub fn say_within(&mut self, line: &str, timeout: Duration) -> Result<Heard> {
        let mut bytes = Vec::new();
        let mut deaths = Vec::new();
        let mut output = |more: &[u8]| bounded::capture(&mut bytes, more);
        let mut crash = |text: &str| deaths.push(Death::parse(text));
        let mut sink = Sink { output: &mut output, crash: Some(&mut crash) };
        let outcome = self.guest.run(line, Instant::now() + timeout, &mut sink)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        deaths.iter().for_each(|death| self.ledger.hear(death));
        if let Some(lying) = self.lying.filter(|_| !deaths.is_empty()) {
            lying.begin();
        }
        if matches!(outcome, Outcome::Status(_) | Outcome::ShellDied) {
            return Ok(Heard { text, outcome, deaths });
        }
        let mortem = self.guest.post_mortem();
        bail!(
            "`{line}`: {outcome:?} (of {timeout:?}), printed {text:?}, died: {deaths:?}\n{mortem}"
        )
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
        self.ask_within(line, TIMEOUT)
    }

    /// As [`Lab::ask`], with a time-out of its own.
    ///
    /// # Errors
    /// As there.
    pub fn ask_within(&mut self, line: &str, timeout: Duration) -> Result<String> {
        let heard = self.say_within(line, timeout)?;
        self.untold.extend(heard.deaths);
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

    /// The number of the last order that is known.
    pub fn last_order(&self) -> u64 {
        self.ledger.last_order()
    }

    /// Asks what became of the orders; those with a number above `after`.
    ///
    /// # Errors
    /// If the guest does not tell.
    pub fn orders_after(&mut self, after: u64) -> Result<Vec<Order>> {
        let line = format!("orders {}", self.ledger.settled_up_to().min(after));
        let table = self.ask(&line)?;
        self.ledger.take_orders(&table)?;
        Ok(self.ledger.orders_after(after).cloned().collect())
    }

    /// What was answered since the last death, and by whom it concerned, was right.
    pub fn answered_right(&mut self) {
        self.ledger.answered_right();
    }

    /// Kills each of these servers and the shell once, so that what is loaded or kept once is so, and
    /// takes down what is free then. `line` must print `expected` afterwards.
    ///
    /// # Errors
    /// If it does not.
    pub fn warm_up(&mut self, victims: &[&str], line: &str, expected: &str) -> Result<()> {
        for victim in victims {
            let before = self.restarts()?.get(*victim).copied();
            self.ask(&format!("kill {victim}"))?;
            self.wait_until_all_run()?;
            let after = self.restarts()?.get(*victim).copied();
            ensure!(before < after, "{victim} did not die, or was not started again");
        }
        let heard = self.say("kill shell")?;
        ensure!(heard.outcome == Outcome::ShellDied, "`kill shell`: {:?}", heard.outcome);
        let heard = self.say(line)?;
        ensure!(heard.is(expected), "after a death of each: {heard:?}");
        self.answered_right();
        self.orders_after(0)?;
        self.free = Some(self.ask("free")?);
        Ok(())
    }

    /// Waits until nobody waits to be started again.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_until_all_run(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.ask("ps")?.contains("back-off") {
            ensure!(Instant::now() < until, "somebody is not started again");
        }
        Ok(())
    }

    /// Closes the ledger, which must add up, and ends the guest, which must end by itself. What was
    /// free after [`Lab::warm_up`] must be free again.
    ///
    /// # Errors
    /// If one of these does not hold.
    pub fn close(mut self) -> Result<Totals> {
        self.wait_until_all_run()?;
        self.orders_after(self.last_order())?;
        let restarts = self.restarts()?;
        self.ledger.take_restarts(restarts);
        self.ledger.check()?;
        if let Some(before) = self.free.take() {
            let after = self.ask("free")?;
            ensure!(
                before == after,
                "something was not given back; before:\n{before}after:\n{after}"
            );
        }
        let totals = self.ledger.totals();
        self.end()?;
        Ok(totals)
    }

    /// Ends the guest, which must end by itself.
    ///
    /// # Errors
    /// If it does not.
    pub fn end(mut self) -> Result<()> {
        let ending = self.guest.shut_down()?;
        ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
        Ok(())
    }

    /// The host's time from QEMU's start to the prompt.
    pub fn prompt_after(&self) -> Duration {
        self.prompt_after
    }
}

/// The column `RESTARTS` of `ps`; states may have two words, so it is counted from the end. It counts
/// what was tried: the last start of one that is failed was none.
fn restarts(ps: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // RESTARTS PRIO CPU% MEMORY(number, unit) IRQS REQUESTS
        let place = words.len().checked_sub(7)?;
        let tried: u64 = words[place].parse().ok()?;
        let done = if words[1] == "failed" { tried.saturating_sub(1) } else { tried };
        Some((words[0].to_owned(), done))
    };
    ps.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let death = Death::parse(
            "number=7\nserver=fs\ncause=panic: a=b\nin_flight=2\norder=4\nplaced=fs:ring:9\nnoticed_ns=5\n",
        );
        assert_eq!((death.number, death.server.as_str(), death.in_flight), (7, "fs", 2));
        assert_eq!((death.cause.as_str(), death.placed.as_str()), ("panic: a=b", "fs:ring:9"));
        assert_eq!((death.noticed_ns, death.started_ns, death.order), (5, 0, Some(4)));
        assert_eq!(Death::parse("number=7\n").order, None);
    }

    #[test]
    fn restarts_are_read_whatever_the_state() {
        let ps = "NAME  STATE  INC  RESTARTS  PRIO  CPU%  MEMORY  IRQS  REQUESTS\n\
            fs   running  3  2  150  0.3  8.2 MiB  0  0\n\
            blk  no device  0  0  190  0.0  4 KiB  0  0\n\
            pci  failed  3  2  200  0.0  4 KiB  0  0\n";
        let expected = [("blk".to_owned(), 0), ("fs".to_owned(), 2), ("pci".to_owned(), 1)];
        assert_eq!(restarts(ps).into_iter().collect::<Vec<_>>(), expected);
    }
}
