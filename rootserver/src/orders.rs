//! What became of each death that somebody ordered: the latest orders, numbered.
//!
//! Invariant of each: what came of it is counted once, as a death or as missed, and no more of it than
//! its moments that came.
//!
//! Not here: when a moment comes (`system::arming`), the deaths themselves (`crash`).

use heapless::Vec;
use skink_protocols::control::{Name, OrderRecord, Ordered, Withdrawn};

/// Orders remembered.
pub const KEPT: usize = 64;

/// The latest orders.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Number `n` is at place `(n - 1) % KEPT`.
    kept: Vec<OrderRecord, KEPT>,
    count: u64,
}

impl Orders {
    /// None yet.
    pub const EMPTY: Orders = Orders { kept: Vec::new(), count: 0 };

    /// Takes an order for `times` deaths (0: without end) of this server; returns its number.
    pub fn add(&mut self, server: &str, ordered: Ordered, times: u32) -> u64 {
        let place = self.count as usize % KEPT;
        self.count += 1;
        let record = OrderRecord {
            number: self.count,
            server: Name::try_from(server).unwrap_or_default(),
            ordered,
            times,
            reached: 0,
            died: 0,
            missed: 0,
            withdrawn: None,
        };
        if let Err(record) = self.kept.push(record) {
            self.kept[place] = record;
        }
        self.count
    }

    /// Orders since boot.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The order with this number, if it is remembered.
    pub fn get(&self, number: u64) -> Option<&OrderRecord> {
        let place = number.checked_sub(1)? as usize % KEPT;
        self.kept.get(place).filter(|record| record.number == number)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut OrderRecord> {
        let place = number.checked_sub(1)? as usize % KEPT;
        self.kept.get_mut(place).filter(|record| record.number == number)
    }

    /// Its moment came.
    pub fn reached(&mut self, number: u64) {
        if let Some(record) = self.get_mut(number) {
            record.reached = record.reached.saturating_add(1);
        }
    }

    /// Somebody died of it.
    pub fn died(&mut self, number: u64) {
        if let Some(record) = self.get_mut(number) {
            record.died = record.died.saturating_add(1);
        }
    }

    /// Its moment came, and nobody died of it.
    pub fn missed(&mut self, number: u64) {
        if let Some(record) = self.get_mut(number) {
            record.missed = record.missed.saturating_add(1);
        }
    }

    /// No more of it will come.
    pub fn withdraw(&mut self, number: u64, why: Withdrawn) {
        if let Some(record) = self.get_mut(number) {
            record.withdrawn = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::control::Misbehaviour;

    #[test]
    fn the_latest_are_remembered_by_number_and_all_are_counted() {
        let mut orders = Orders::EMPTY;
        assert_eq!((orders.count(), orders.get(0), orders.get(1)), (0, None, None));
        for n in 1..=KEPT as u64 + 10 {
            assert_eq!(orders.add("fs", Ordered::Kill(Misbehaviour::Kill), 1), n);
        }
        assert_eq!(orders.count(), KEPT as u64 + 10);
        assert_eq!((orders.get(10), orders.get(KEPT as u64 + 11)), (None, None), "gone, not given");
        for n in 11..=KEPT as u64 + 10 {
            assert_eq!(orders.get(n).map(|record| record.number), Some(n));
        }
    }

    #[test]
    fn what_came_of_an_order_is_its_own_alone() {
        let mut orders = Orders::EMPTY;
        let endless = orders.add("fs", Ordered::Kill(Misbehaviour::Kill), 0);
        let stop = orders.add("pci", Ordered::Stop, 1);
        orders.reached(endless);
        orders.died(endless);
        orders.reached(endless);
        orders.missed(endless);
        orders.withdraw(endless, Withdrawn::Replaced);
        let record = orders.get(endless).unwrap();
        assert_eq!((record.reached, record.died, record.missed), (2, 1, 1));
        assert_eq!(record.withdrawn, Some(Withdrawn::Replaced));
        let other = orders.get(stop).unwrap();
        assert_eq!((other.reached, other.died, other.missed, other.withdrawn), (0, 0, 0, None));
        // What was never given is nobody's.
        orders.died(0);
        orders.died(3);
        assert_eq!(orders.get(stop).unwrap().died, 0);
    }
}
