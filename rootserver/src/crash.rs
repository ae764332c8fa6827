//! Crash records: what is known about each death, as many as there is room for.
//!
//! Where there is no room, the oldest record goes of whoever has most of them: a server that dies again
//! and again pushes out its own records, and nobody else's.
//!
//! Not here: reading registers and stacks (`system::teardown`), a fault in words
//! (`skink_protocols::control`), symbols (the host tool).

use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;

use heapless::{String, Vec};
use libipc::control::{Control, HISTORY, MESSAGE_SIZE};
use libipc::escape::EscapedBytes;
use skink_manifest::MAX_SERVERS;
use skink_protocols::control::{Cause, CrashRecord, IpcRecord, MESSAGE, Timeline};

use crate::supervise::ServerId;

/// Records kept.
pub const RECORDS: usize = 32;

/// Records up to a time; at first none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records(u64);

/// The last deaths.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    /// In no order.
    records: Vec<CrashRecord, RECORDS>,
    /// Whose each is.
    owners: Vec<u8, RECORDS>,
    count: u64,
}

impl Crashes {
    /// None yet.
    pub const EMPTY: Crashes = Crashes { records: Vec::new(), owners: Vec::new(), count: 0 };

    /// Keeps a record of this server, numbered.
    pub fn add(&mut self, owner: ServerId, mut record: CrashRecord) {
        self.count += 1;
        record.number = self.count;
        if let Err(record) = self.records.push(record) {
            let place = self.least_missed();
            self.records[place] = record;
            self.owners[place] = owner.0;
        } else {
            let kept = self.owners.push(owner.0);
            debug_assert!(kept.is_ok(), "as many as there are records");
        }
    }

    /// Counts a death without keeping its record.
    pub fn lose(&mut self) {
        self.count += 1;
    }

    /// The oldest record of a server that has most.
    fn least_missed(&self) -> usize {
        let mut kept = [0u8; MAX_SERVERS];
        let index = |owner: &u8| usize::from(*owner) % MAX_SERVERS;
        self.owners.iter().for_each(|owner| kept[index(owner)] += 1);
        let most = kept.into_iter().max().unwrap_or(0);
        let has_most = |(_, owner): &(usize, &u8)| kept[index(owner)] == most;
        let candidates = self.owners.iter().enumerate().filter(has_most);
        candidates
            .map(|(place, _)| place)
            .min_by_key(|place| self.records[*place].number)
            .unwrap_or(0)
    }

    /// Deaths since boot.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Record `index` of those that are kept, 0 the latest.
    pub fn get(&self, index: u32) -> Option<&CrashRecord> {
        let later =
            |than: u64| self.records.iter().filter(move |record| record.number > than).count();
        self.records.iter().find(|record| later(record.number) == index as usize)
    }

    /// All records until now.
    pub fn now(&self) -> Records {
        Records(self.count)
    }

    /// The latest record of a server that is not among those, to complete its timeline.
    pub fn latest_of(&mut self, server: ServerId, since: Records) -> Option<&mut CrashRecord> {
        let records = self.records.iter_mut().zip(&self.owners);
        let its = records.filter(|(record, owner)| **owner == server.0 && record.number > since.0);
        its.map(|(record, _)| record).max_by_key(|record| record.number)
    }
}

/// A record without details.
pub fn empty(server: &str, incarnation: u32, cause: Cause) -> CrashRecord {
    CrashRecord {
        number: 0,
        server: server.try_into().unwrap_or_default(),
        incarnation,
        cause,
        ip: 0,
        sp: 0,
        registers: Vec::new(),
        in_flight: 0,
        order: None,
        placed: None,
        call: None,
        backtrace: Vec::new(),
        message: String::new(),
        history: Vec::new(),
        timeline: Timeline::default(),
    }
}

/// A record with what the control page tells.
pub fn from_control(server: &str, incarnation: u32, cause: Cause, page: &Control) -> CrashRecord {
    let has_message = matches!(cause, Cause::Panic | Cause::OutOfMemory | Cause::DeviceSilent);
    let mut record = empty(server, incarnation, cause);
    record.in_flight = page.in_flight.load(Relaxed);
    if has_message {
        record.message = message(page);
    }
    let next = page.history_next.load(Relaxed);
    let kept = next.min(HISTORY as u64);
    for place in next - kept..next {
        let [time, badge, label] = &page.history[place as usize % HISTORY];
        let entry = IpcRecord {
            time_ns: libipc::time::at_ns(time.load(Relaxed)),
            badge: badge.load(Relaxed),
            label: label.load(Relaxed),
        };
        let _ = record.history.push(entry);
    }
    record
}

/// The panic message in the page. The program wrote it, and may have written anything: from here on
/// it is escaped, in the root server's line about the death, in the record, and wherever that is shown.
fn message(page: &Control) -> String<MESSAGE> {
    let mut bytes = [0; MESSAGE_SIZE];
    for (to, from) in bytes.iter_mut().zip(&page.message) {
        *to = from.load(Relaxed);
    }
    let size = (page.message_size.load(Relaxed) as usize).min(MESSAGE_SIZE);
    let mut text = Cut(String::new());
    let _ = write!(text, "{}", EscapedBytes(&bytes[..size]));
    text.0
}

/// Text that ends with the first character for which there is no room.
struct Cut(String<MESSAGE>);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.push(character).map_err(|_| fmt::Error))
    }
}

/// Requests in flight, for a line of text.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u32);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 request in flight"),
            n => write!(f, "{n} requests in flight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::format;
    use std::vec::Vec;

    fn page() -> Box<Control> {
        // SAFETY: a `Control` is made of atomic integers, for which zeroes are valid.
        unsafe { Box::<Control>::new_zeroed().assume_init() }
    }

    const A: ServerId = ServerId(0);

    #[test]
    fn a_server_that_dies_often_pushes_out_its_own_records_alone() {
        let mut crashes = Box::new(Crashes::EMPTY);
        let add = |crashes: &mut Crashes, owner: ServerId, name: &str, times: u32| {
            for n in 0..times {
                crashes.add(owner, from_control(name, n, Cause::Killed, &page()));
            }
        };
        add(&mut crashes, A, "a", 3);
        add(&mut crashes, ServerId(31), "b", 1000);
        add(&mut crashes, ServerId(7), "c", 2);
        let kept: Vec<_> = (0..).map_while(|index| crashes.get(index)).collect();
        assert_eq!(kept.len(), RECORDS);
        assert!(kept.is_sorted_by(|later, earlier| later.number > earlier.number));
        let of =
            |name: &'static str| kept.iter().filter(move |r| r.server == name).map(|r| r.number);
        assert_eq!(of("a").collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(of("c").collect::<Vec<_>>(), [1005, 1004]);
        // Of its own, the latest.
        assert_eq!(of("b").min(), Some(1003 - (RECORDS as u64 - 5) + 1));
        assert_eq!(crashes.count() - kept.len() as u64, 1005 - RECORDS as u64, "lost");
        // Three that die as often have a third each.
        for _ in 0..100 {
            add(&mut crashes, A, "a", 1);
            add(&mut crashes, ServerId(7), "c", 1);
        }
        let left = crashes.records.iter().filter(|record| record.server == "b").count();
        assert!((10..=11).contains(&left), "{left} of b are left: a third");
    }

    #[test]
    fn the_latest_are_kept_and_all_are_counted() {
        let mut crashes = Box::new(Crashes::EMPTY);
        for n in 0..100 {
            let record = from_control("a", n, Cause::Killed, &page());
            crashes.add(A, record);
        }
        assert_eq!(crashes.count(), 100);
        assert_eq!(crashes.get(0).map(|r| (r.number, r.incarnation)), Some((100, 99)));
        assert_eq!(crashes.get(RECORDS as u32 - 1).map(|r| r.number), Some(69));
        assert!(crashes.get(RECORDS as u32).is_none() && crashes.get(u32::MAX).is_none());
        let before = Records::default();
        assert!(crashes.latest_of(A, before).is_some());
        assert!(crashes.latest_of(ServerId(1), before).is_none());
        let now = crashes.now();
        assert!(crashes.latest_of(A, now).is_none(), "nothing has been added since");
    }

    #[test]
    fn history_is_oldest_first_and_bounded_whatever_the_page_says() {
        let page = page();
        for n in 0..40u64 {
            let place = &page.history[n as usize % HISTORY];
            place[0].store(n, Relaxed);
        }
        page.history_next.store(40, Relaxed);
        let record = from_control("a", 1, Cause::Panic, &page);
        assert_eq!(record.history.len(), HISTORY);
        assert_eq!((record.history[0].time_ns, record.history[31].time_ns), (8, 39));
        page.history_next.store(u64::MAX, Relaxed);
        assert_eq!(from_control("a", 1, Cause::Exit(0), &page).history.len(), HISTORY);
    }

    #[test]
    fn a_message_is_text_in_one_line_whatever_is_in_the_page() {
        let page = page();
        let message = |bytes: &[u8], size: u32| {
            for (to, from) in page.message.iter().zip(bytes) {
                to.store(*from, Relaxed);
            }
            page.message_size.store(size, Relaxed);
            from_control("a", 1, Cause::Panic, &page).message
        };
        let of = |bytes: &[u8]| message(bytes, bytes.len() as u32);
        assert_eq!(of(b"main.rs:1: left 1"), "main.rs:1: left 1");
        assert_eq!(
            of(b"\x1b[2J\nroot: shutdown with code 0"),
            "\\u{1b}[2J\\nroot: shutdown with code 0"
        );
        assert_eq!(of(b"x\xff y"), "x\\xff y");
        assert_eq!(of(b""), "");
        // What is too long is cut, and no shorter word behind it takes its place.
        let long = [&[b'x'; MESSAGE - 5][..], b"\xf0\x9f\xa6\x8e", b"\n"].concat();
        assert_eq!(of(&long), format!("{}🦎\\", "x".repeat(MESSAGE - 5)).as_str());
        assert_eq!(message(&[0x1b; MESSAGE_SIZE], u32::MAX).len(), MESSAGE);
        assert_eq!(message(&[b'x'; MESSAGE_SIZE], u32::MAX), "x".repeat(MESSAGE).as_str());
    }
}
