//! Crash records: what is known about each death, in a ring of bounded size, and what happens at
//! a fault in plain words.
//!
//! Not here: reading registers and stacks (`system::teardown`), symbols (the host tool).

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use heapless::{Deque, String, Vec};
use libipc::control::{Control, HISTORY, MESSAGE_SIZE};
use skink_abi::Fault;
use skink_abi::fault::Access;
use skink_protocols::control::{Cause, CrashRecord, FaultRecord, IpcRecord, MESSAGE, Timeline};

use libipc::arch::exceptions::exception_name;

/// Records kept; older ones are forgotten.
pub const RECORDS: usize = 32;

/// The last deaths.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    records: Deque<CrashRecord, RECORDS>,
    count: u64,
}

impl Crashes {
    /// None yet.
    pub const EMPTY: Crashes = Crashes { records: Deque::new(), count: 0 };

    /// Keeps a record, numbered.
    pub fn add(&mut self, mut record: CrashRecord) {
        self.count += 1;
        record.number = self.count;
        if self.records.is_full() {
            self.records.pop_front();
        }
        let kept = self.records.push_back(record);
        debug_assert!(kept.is_ok());
    }

    /// Deaths since boot.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Record `index`, 0 the latest.
    pub fn get(&self, index: u32) -> Option<&CrashRecord> {
        let from_front = self.records.len().checked_sub(1 + index as usize)?;
        self.records.iter().nth(from_front)
    }

    /// The latest record of a server, to complete its timeline.
    pub fn latest_of(&mut self, server: &str) -> Option<&mut CrashRecord> {
        self.records.iter_mut().rev().find(|r| r.server == server)
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
        in_flight: 0,
        placed: None,
        backtrace: Vec::new(),
        message: String::new(),
        history: Vec::new(),
        timeline: Timeline::default(),
    }
}

/// A record with what the control page tells.
pub fn from_control(server: &str, incarnation: u32, cause: Cause, page: &Control) -> CrashRecord {
    let mut record = empty(server, incarnation, cause);
    record.in_flight = page.in_flight.load(Relaxed);
    if matches!(cause, Cause::Panic | Cause::OutOfMemory | Cause::DeviceSilent) {
        record.message = message(page);
    }
    let next = page.history_next.load(Relaxed);
    let kept = next.min(HISTORY as u64);
    for place in next - kept..next {
        let [time, badge, label] = &page.history[place as usize % HISTORY];
        let entry = IpcRecord {
            time_ns: time.load(Relaxed),
            badge: badge.load(Relaxed),
            label: label.load(Relaxed),
        };
        let _ = record.history.push(entry);
    }
    record
}

/// The panic message in the page; what is no text of its encoding is cut off.
fn message(page: &Control) -> String<MESSAGE> {
    let mut bytes = [0; MESSAGE_SIZE];
    for (to, from) in bytes.iter_mut().zip(&page.message) {
        *to = from.load(Relaxed);
    }
    let size = (page.message_size.load(Relaxed) as usize).min(MESSAGE_SIZE);
    let text = match core::str::from_utf8(&bytes[..size]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
    };
    text.try_into().unwrap_or_default()
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

/// A fault in plain words.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The fault.
    pub fault: FaultRecord,
    /// What is at the faulting address, if the plan says so.
    pub place: &'a str,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultRecord { kind, address, detail, .. } = self.fault;
        match Fault::from_raw(kind) {
            Some(Fault::PageFault) => {
                let verb = match Access::from_raw(detail) {
                    Some(Access::Read) => "load from",
                    Some(Access::Write) => "store to",
                    Some(Access::Execute) => "jump to",
                    None => "access to",
                };
                write!(f, "{verb} {address:#x}")?;
                if address < 4096 {
                    f.write_str(" (null pointer)")
                } else if !self.place.is_empty() {
                    write!(f, " ({})", self.place)
                } else {
                    Ok(())
                }
            }
            Some(Fault::Exception) => f.write_str(exception_name(detail).unwrap_or("exception")),
            Some(Fault::CapFault) => write!(f, "no such capability: {address:#x}"),
            Some(Fault::UnknownSyscall) => write!(f, "no such system call: {address}"),
            Some(Fault::Timeout) => f.write_str("budget used up without progress"),
            None => f.write_str("unknown fault"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::string::ToString;

    fn page() -> Box<Control> {
        // SAFETY: a `Control` is made of atomic integers, for which zeroes are valid.
        unsafe { Box::<Control>::new_zeroed().assume_init() }
    }

    #[test]
    fn the_ring_keeps_the_latest_and_counts_all() {
        let mut crashes = Box::new(Crashes::EMPTY);
        for n in 0..100 {
            let record = from_control("a", n, Cause::Killed, &page());
            crashes.add(record);
        }
        assert_eq!(crashes.count(), 100);
        assert_eq!(crashes.get(0).map(|r| (r.number, r.incarnation)), Some((100, 99)));
        assert_eq!(crashes.get(RECORDS as u32 - 1).map(|r| r.number), Some(69));
        assert!(crashes.get(RECORDS as u32).is_none() && crashes.get(u32::MAX).is_none());
        assert!(crashes.latest_of("a").is_some() && crashes.latest_of("b").is_none());
    }

    #[test]
    fn history_is_oldest_first_and_bounded_whatever_the_page_says() {
        let page = page();
        for n in 0..40u64 {
            let place = &page.history[n as usize % HISTORY];
            place[0].store(n, Relaxed);
        }
        page.history_next.store(40, Relaxed);
        page.message_size.store(u32::MAX, Relaxed);
        page.message[0].store(b'x', Relaxed);
        page.message[1].store(0xff, Relaxed);
        let record = from_control("a", 1, Cause::Panic, &page);
        assert_eq!(record.history.len(), HISTORY);
        assert_eq!((record.history[0].time_ns, record.history[31].time_ns), (8, 39));
        assert_eq!(record.message, "x");
        page.history_next.store(u64::MAX, Relaxed);
        assert_eq!(from_control("a", 1, Cause::Exit(0), &page).history.len(), HISTORY);
    }

    #[test]
    fn faults_are_told_in_words() {
        let words = |kind: Fault, address, detail, place| {
            let fault = FaultRecord { kind: kind.raw(), address, syndrome: 0, detail };
            Words { fault, place }.to_string()
        };
        assert_eq!(words(Fault::PageFault, 8, 0, ""), "load from 0x8 (null pointer)");
        let place = "stack overflow";
        assert_eq!(words(Fault::PageFault, 0x5000, 1, place), "store to 0x5000 (stack overflow)");
        assert_eq!(words(Fault::CapFault, 9, 0, ""), "no such capability: 0x9");
        let named = words(Fault::Exception, 0, 7, "");
        assert_eq!(named, "FPU instruction without FPU state", "on either machine");
        assert_eq!(words(Fault::Exception, 0, 0x3f, ""), "exception");
    }
}
