//! The ledger of an experiment: what was ordered, and what came of it, by the guest's own records.
//!
//! A death that is ordered has a number, the guest's own. It comes back in the crash record of who
//! died of it, and `orders` says of each number how often its moment came, and why not. What a
//! campaign was asked to do is in no account: all figures are counts of records, and they add up, or
//! the campaign failed:
//!
//! * wanted = reached + refused + withdrawn + not reached;
//! * reached = died + missed, and nothing is missed;
//! * each death has one crash record, and each crash record has an order; no number is missing;
//! * whoever died runs again: restarts, as `ps` counts them, are as many as deaths;
//! * after each death somebody looked at the answers, and they were right.
//!
//! One ledger is for one boot, from which the guest counts.

use super::lab::Death;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// An order, as a line of `orders` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Counts orders since boot, from 1.
    pub number: u64,
    /// Who is to die.
    pub server: String,
    /// How, in a word.
    pub how: String,
    /// How many deaths are wanted; `None`: without end.
    pub times: Option<u64>,
    /// How often the moment came.
    pub reached: u64,
    /// Deaths by it.
    pub died: u64,
    /// Moments of which nobody died.
    pub missed: u64,
    /// Why no more of it come.
    pub withdrawn: Option<String>,
}

impl Order {
    /// From a line of the table.
    fn parse(line: &str) -> Result<Order> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [number, server, how, times, reached, died, missed, why @ ..] = &words[..] else {
            bail!("`orders` printed {line:?}");
        };
        let count = |word: &str| word.parse().with_context(|| format!("`orders`: {line:?}"));
        let times = if *times == "endless" { None } else { Some(count(times)?) };
        let withdrawn = Some(why.join(" ")).filter(|why| why != "-");
        Ok(Order {
            number: count(number)?,
            server: (*server).to_owned(),
            how: (*how).to_owned(),
            times,
            reached: count(reached)?,
            died: count(died)?,
            missed: count(missed)?,
            withdrawn,
        })
    }

    /// Deaths that were wanted: of one without end as many as there were moments.
    fn wanted(&self) -> u64 {
        self.times.unwrap_or(self.reached)
    }

    /// Whether it was refused from the start.
    pub fn is_refused(&self) -> bool {
        self.withdrawn.as_ref().is_some_and(|why| why.starts_with("refused"))
    }
}

/// Counts of records. Each death that was wanted is in one of `refused`, `withdrawn`, `not_reached`
/// and `reached`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Deaths that were wanted.
    pub wanted: u64,
    /// The guest refused the order.
    pub refused: u64,
    /// The order was disarmed or replaced before its moment came.
    pub withdrawn: u64,
    /// The moment has not come.
    pub not_reached: u64,
    /// The moment came.
    pub reached: u64,
    /// Died of it.
    pub died: u64,
    /// Restarts.
    pub recovered: u64,
    /// Deaths after which the answers were right.
    pub right: u64,
}

impl Totals {
    /// Adds those of another boot.
    pub fn add(&mut self, other: Totals) {
        self.wanted += other.wanted;
        self.refused += other.refused;
        self.withdrawn += other.withdrawn;
        self.not_reached += other.not_reached;
        self.reached += other.reached;
        self.died += other.died;
        self.recovered += other.recovered;
        self.right += other.right;
    }

    /// A campaign without a death is none.
    ///
    /// # Errors
    /// If nobody died, or the counts do not add up.
    pub fn check(&self) -> Result<()> {
        ensure!(self.died > 0, "nobody died: {self}");
        let told = self.refused + self.withdrawn + self.not_reached + self.reached;
        ensure!(self.wanted == told, "what was wanted is not what came of it: {self}");
        ensure!(self.reached == self.died, "not all died whose moment came: {self}");
        ensure!(self.died == self.recovered, "not all who died were started again: {self}");
        ensure!(self.died == self.right, "not after each death the answers were right: {self}");
        Ok(())
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} deaths ordered: {} reached, {} died, {} recovered, {} answered right; {} refused, \
             {} withdrawn, {} not reached",
            self.wanted,
            self.reached,
            self.died,
            self.recovered,
            self.right,
            self.refused,
            self.withdrawn,
            self.not_reached
        )
    }
}

/// The records of one boot.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    orders: BTreeMap<u64, Order>,
    /// Crash records, by number: a shell that died while it sent them has them sent again.
    deaths: BTreeMap<u64, Death>,
    /// Crash records after which the answers were right.
    right: BTreeSet<u64>,
    /// Restarts of each server before the first order.
    at_first: BTreeMap<String, u64>,
    /// And now.
    restarts: BTreeMap<String, u64>,
}

impl Ledger {
    /// The restarts, as `ps` shows them before the first order.
    pub fn begin(&mut self, restarts: BTreeMap<String, u64>) {
        self.at_first = restarts;
    }

    /// Takes a crash record down.
    pub fn hear(&mut self, death: &Death) {
        self.deaths.insert(death.number, death.clone());
    }

    /// The greatest number of an order that is known.
    pub fn last_order(&self) -> u64 {
        self.orders.keys().last().copied().unwrap_or(0)
    }

    /// The number behind which `orders` is to be asked: all that are not settled come after it.
    pub fn settled_up_to(&self) -> u64 {
        let is_open = |order: &&Order| {
            order.withdrawn.is_none() && order.times != Some(order.died + order.missed)
        };
        let open = self.orders.values().find(is_open).map(|order| order.number - 1);
        open.unwrap_or_else(|| self.last_order())
    }

    /// Takes the table down that `orders` printed, in place of what was known of the same orders.
    ///
    /// # Errors
    /// If it is no such table, or orders before it are missing.
    pub fn take_orders(&mut self, table: &str) -> Result<()> {
        for line in table.lines().skip(1) {
            let order = Order::parse(line)?;
            let next = self.last_order() + 1;
            ensure!(order.number <= next, "orders {next} to {} are forgotten", order.number - 1);
            self.orders.insert(order.number, order);
        }
        Ok(())
    }

    /// The orders with a number above `after`.
    pub fn orders_after(&self, after: u64) -> impl Iterator<Item = &Order> {
        self.orders.range(after + 1..).map(|(_, order)| order)
    }

    /// The answers since were right, whoever has died so far.
    pub fn answered_right(&mut self) {
        self.right.extend(self.deaths.keys());
    }

    /// Takes down the restarts, as `ps` shows them.
    pub fn take_restarts(&mut self, restarts: BTreeMap<String, u64>) {
        self.restarts = restarts;
    }

    /// What the records say.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { right: self.right.len() as u64, ..Totals::default() };
        for order in self.orders.values() {
            let left = order.wanted().saturating_sub(order.reached);
            totals.wanted += order.wanted();
            totals.reached += order.reached;
            totals.died += order.died;
            match &order.withdrawn {
                Some(_) if order.is_refused() => totals.refused += left,
                Some(_) => totals.withdrawn += left,
                None => totals.not_reached += left,
            }
        }
        let before = |name: &str| self.at_first.get(name).copied().unwrap_or(0);
        let since = |(name, now): (&String, &u64)| now.saturating_sub(before(name));
        totals.recovered = self.restarts.iter().map(since).sum();
        totals
    }

    /// Checks record by record what [`Totals::check`] checks in sum.
    ///
    /// # Errors
    /// The first that does not fit.
    pub fn check(&self) -> Result<()> {
        let mut by_order: BTreeMap<u64, u64> = BTreeMap::new();
        let mut by_server: BTreeMap<&str, u64> = BTreeMap::new();
        for (expected, (number, death)) in (1..).zip(&self.deaths) {
            let server = &death.server;
            ensure!(*number == expected, "death {expected} has no crash record");
            let order = death.order.and_then(|order| self.orders.get(&order));
            let Some(order) = order else {
                bail!("nobody ordered death {number}: {server}, {}", death.cause);
            };
            ensure!(order.server == *server, "death {number} of {server} is of {order:?}");
            *by_order.entry(order.number).or_default() += 1;
            *by_server.entry(server).or_default() += 1;
        }
        for order in self.orders.values() {
            let Order { number, server, reached, died, missed, .. } = order;
            let records = by_order.get(number).copied().unwrap_or(0);
            ensure!(
                records == *died,
                "{server} died {died} times by order {number}, with {records} crash records"
            );
            ensure!(*missed == 0, "{server} died of something else than order {number}");
            ensure!(reached == died, "the moment of order {number} came, and {server} did not die");
        }
        for (server, deaths) in by_server {
            let before = self.at_first.get(server).copied().unwrap_or(0);
            let now = self.restarts.get(server).copied().unwrap_or(0);
            ensure!(
                now.saturating_sub(before) == deaths,
                "{server} died {deaths} times and was started again {} times",
                now.saturating_sub(before)
            );
        }
        let unseen = self.deaths.values().find(|death| !self.right.contains(&death.number));
        if let Some(Death { number, server, .. }) = unseen {
            bail!("after death {number} of {server} nobody saw a right answer");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
