//! A guest with a liar in it, as its user sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use skink_tests::Fixture;
use skink_tool::machine::Options;
use skink_tool::session::{Guest, Outcome, Watch};

use super::Way;

/// How long the host waits for a line, and for what the guest has printed.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct User<'a> {
    pub guest: Guest<'a>,
    /// The server that lies.
    liar: &'static str,
    /// Its instance that lies, or the honest one.
    instance: u32,
}

impl User<'_> {
    /// Boots a system with this liar.
    pub fn boot<'a>(
        fixture: &'a Fixture,
        options: Options,
        liar: &'static str,
    ) -> Result<User<'a>> {
        let guest = Guest::boot(fixture.system(), &options, &Watch::default())?;
        Ok(User { guest, liar, instance: 1 })
    }

    /// Complaints of the last minute count: waits for it to be over.
    pub fn waits_for_quiet(&mut self) -> Result<()> {
        self.succeeds("sleep 61").map(drop)
    }

    /// The next instance of the liar lies in this way.
    pub fn begins_lie(&mut self, way: &Way) -> Result<()> {
        self.succeeds(&format!("restart {}", self.liar))?;
        self.instance = self.incarnation()?;
        let (_, rest) = self.hears(&self.says(self.instance))?;
        ensure!(rest.lines().next().map(str::trim) == Some(way.name), "it lies otherwise: {rest}");
        Ok(())
    }

    /// What the liar did was told of it, or nothing was; its next instance is honest and runs. How often
    /// it lied.
    pub fn ends_lie(&mut self, way: &Way) -> Result<u64> {
        let (lying, now) = (self.instance, self.incarnation()?);
        ensure!(now <= lying + 1, "restarted more than once");
        let (crashes, _) = self.say("crashes 1")?;
        if now == lying {
            self.succeeds(&format!("restart {}", self.liar))?;
        }
        let lies = self.lies_of(lying)?;
        ensure!(lies > 0, "nothing was lied about");
        match way.told {
            Some(told) => ensure!(
                now == lying + 1 && crashes.contains(self.liar) && crashes.contains(told),
                "not told: {crashes}"
            ),
            None => ensure!(now == lying, "blamed: {crashes}"),
        }
        self.instance = lying + 1;
        Ok(lies)
    }

    /// Restarts the liar until it is the honest instance behind those that lie in this way. How often
    /// they lied, and how many of them others had restarted.
    pub fn ends_lies(&mut self, lives: u32) -> Result<(u64, u32)> {
        let (first, now) = (self.instance, self.incarnation()?);
        ensure!(now < first + lives, "{} restarts", now - first);
        self.succeeds(&format!("repeat {} restart {}", first + lives - now, self.liar))?;
        let lies = (first..=now).map(|lying| self.lies_of(lying)).sum::<Result<u64>>()?;
        ensure!(lies > 0, "nothing was lied about");
        self.instance = first + lives;
        Ok((lies, now - first))
    }

    /// The words with which an instance of the liar says how it lies.
    fn says(&self, instance: u32) -> String {
        format!("{}: instance {instance} lies: ", self.liar)
    }

    /// How often an instance lied: rounded down to a power of two.
    fn lies_of(&self, lying: u32) -> Result<u64> {
        let (before, _) = self.hears(&self.says(lying + 1))?;
        let (_, its) = before.rsplit_once(&self.says(lying)).context("it says nothing")?;
        let told = its.rsplit_once(&format!("{}: lied ", self.liar)).map(|(_, rest)| rest);
        let count = told.and_then(|told| told.split_once(' ')).map_or("0", |(count, _)| count);
        Ok(count.parse()?)
    }

    /// Waits until the guest has printed these words; what stands before and behind them.
    fn hears(&self, words: &str) -> Result<(String, String)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let console = self.guest.console();
            if let Some((before, behind)) = console.rsplit_once(words)
                && behind.contains('\n')
            {
                return Ok((before.into(), behind.into()));
            }
            ensure!(Instant::now() < until, "`{words}` is not printed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs a line; what it printed, and its status.
    pub fn say(&mut self, line: &str) -> Result<(String, i32)> {
        let (bytes, outcome) = self.guest.capture(line, PATIENCE)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Outcome::Status(status) = outcome else {
            bail!("`{line}`: {outcome:?} after {text}\n{}", self.guest.post_mortem());
        };
        Ok((text, status))
    }

    /// Runs a line that must succeed; what it printed.
    pub fn succeeds(&mut self, line: &str) -> Result<String> {
        let (text, status) = self.say(line)?;
        ensure!(status == 0, "`{line}`: status {status}: {text}");
        Ok(text)
    }

    /// Runs a command that ends within so many seconds of the guest's time. What it printed, if it
    /// succeeded.
    pub fn within(&mut self, seconds: f64, command: &str) -> Result<Option<String>> {
        let (text, status) = self.say(&format!("time {command}"))?;
        let (said, time) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
        let took: f64 = time.trim_end_matches(" s").parse().with_context(|| text.clone())?;
        ensure!(took < seconds, "`{command}` took {took} s: {text}");
        match status {
            0 => Ok(Some(said.to_owned())),
            1 if !said.trim().is_empty() => Ok(None),
            _ => bail!("`{command}`: status {status}: {text}"),
        }
    }

    /// The same for one that must succeed.
    pub fn succeeds_within(&mut self, seconds: f64, command: &str) -> Result<String> {
        self.within(seconds, command)?.with_context(|| format!("`{command}` failed"))
    }

    /// The guest's time, seconds.
    pub fn now_s(&mut self) -> Result<f64> {
        let ns: f64 = self.succeeds("uptime --ns")?.trim().parse()?;
        Ok(ns / 1e9)
    }

    /// The liar's instance that runs.
    fn incarnation(&mut self) -> Result<u32> {
        let text = self.succeeds(&format!("service {}", self.liar))?;
        let number = text
            .split_once("incarnation")
            .and_then(|(_, rest)| rest.trim_start().split([',', ' ', '\n']).next()?.parse().ok());
        number.with_context(|| text.clone())
    }
}
