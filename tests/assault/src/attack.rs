//! One call: arguments out of chaos, sent as they are or spoiled, and what the answer tells.

use crate::targets::Target;
use assault::chaos::Chaos;
use assault::harvest::Harvest;
use assault::random::Random;
use assault::record::{PROTOCOLS, Record, Which};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use libipc::explore::{Explorer, Method};
use libipc::raw::{self, Words};
use libipc::start::slot;
use libipc::{buffer, time};
use serde::{Deserialize, Serialize};
use skink_abi::message::MAX_WORDS;
use skink_abi::{CPtr, MessageInfo};

/// One message in so many is spoiled.
const SPOILED: u64 = 12;
/// A call is repeated after about so many successes, and as many more each time.
const TEMPTING: u64 = 3;
/// So often at most: more than a server has of anything.
const GREED: u64 = 150;
/// So many things are a hoard.
const HOARD: u64 = 4;
/// Numbers below this are not kept: they are tried anyway.
const SMALL: u64 = 8;

/// What a call is made with.
pub struct Attack<'a> {
    /// Decides.
    pub random: &'a mut Random,
    /// What is known, and what is counted.
    pub record: Record,
    /// The thread that calls.
    pub thread: usize,
    /// Set while a call may be broken off: nothing is held that others wait for.
    pub is_calling: &'a AtomicBool,
    /// The method.
    pub which: Which,
    /// Who is called.
    pub target: Target,
    /// Its place among the targets, and how many there are.
    pub place: (usize, usize),
    /// Texts for arguments.
    pub texts: &'static [&'static str],
    /// In a greedy life: the methods by which nothing was hoarded yet.
    pub hoards: Option<&'a Hoards>,
}

/// Methods by which all was taken that there is, and kept: a bit each.
#[derive(Debug)]
pub struct Hoards([AtomicU64; PROTOCOLS]);

impl Hoards {
    /// None yet.
    pub const fn new() -> Self {
        Hoards([const { AtomicU64::new(0) }; PROTOCOLS])
    }

    /// Whether it is this method's turn, which it is until something was hoarded by it.
    fn is_next(&self, which: Which) -> bool {
        self.0[which.protocol].load(Relaxed) & 1 << (which.method % 64) == 0
    }

    fn end(&self, which: Which) {
        self.0[which.protocol].fetch_or(1 << (which.method % 64), Relaxed);
    }
}

/// A message.
struct Sent {
    label: u64,
    words: Words,
    length: usize,
    caps: usize,
}

impl Explorer for Attack<'_> {
    fn method<A, R>(&mut self, method: &Method<A, R>)
    where
        A: Deserialize<'static>,
        R: Serialize,
    {
        let Attack { record, place: (session, sessions), texts, .. } = *self;
        let mut chaos = Chaos { random: self.random, record, session, sessions, texts, name: "" };
        // Too long a list, or too long for a message: there is nothing to send.
        let Ok(arguments) = A::deserialize(&mut chaos) else { return };
        let Ok((words, length)) = (method.encode)(&arguments) else { return };
        let mut sent = Sent { label: method.label, words, length, caps: 0 };
        if self.random.chance(SPOILED) {
            self.spoil(&mut sent);
        }
        if self.make(method, &sent, Found::IsKept).is_some() {
            self.go_on(method, sent);
        }
    }
}

/// What becomes of the numbers in an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All threads use them.
    IsKept,
    /// Nobody does: what was given is not given back before the program dies.
    IsHoarded,
}

impl Attack<'_> {
    /// Goes on with a call that succeeded: makes it again until it does not, in a greedy life once with
    /// each method, to take all that there is and keep it; else now and then.
    fn go_on<A, R: Serialize>(&mut self, method: &Method<A, R>, sent: Sent) {
        let is_plain = sent.length <= sent.words.len() && sent.caps == 0;
        if !is_plain || sent.label != method.label {
            return;
        }
        if let Some(hoards) = self.hoards.filter(|hoards| hoards.is_next(self.which)) {
            if self.take_all(method, sent, Found::IsHoarded) >= HOARD {
                hoards.end(self.which);
            }
        } else if self.is_tempting() {
            self.take_all(method, sent, Found::IsKept);
        }
    }

    /// Makes a call. `None` if it was no success, else a sum of the numbers in the answer.
    fn make<A, R>(&mut self, method: &Method<A, R>, sent: &Sent, found: Found) -> Option<u64>
    where
        R: Serialize,
    {
        let answer = self.send(sent)?;
        let (record, session) = (self.record, self.place.0);
        let mut sum = 0_u64;
        let mut harvest = Harvest::new(|name, number| {
            sum = sum.rotate_left(5) ^ number;
            if number >= SMALL && found == Found::IsKept {
                record.keep(session, name, number);
            }
        });
        let is_good = (method.decode)(&answer).is_ok_and(|result| {
            // Of another method's answer nothing is known.
            result.serialize(&mut harvest).is_ok() && harvest.is_good && sent.label == method.label
        });
        self.record.end(self.thread, is_good, time::now_ns());
        is_good.then_some(sum)
    }

    /// Whether a call that succeeded is to be made until it does not: the more rarely the more often it
    /// has succeeded.
    fn is_tempting(&mut self) -> bool {
        self.random.chance(1 + self.record.statistic(self.which).good / TEMPTING)
    }

    /// Makes a call again and again, as long as it succeeds: takes all that there is. What numbers calls
    /// stands at their ends; half the time each is another one. There is nothing to hoard where the same is
    /// answered again. Returns how often it succeeded.
    fn take_all<A, R>(&mut self, method: &Method<A, R>, mut sent: Sent, found: Found) -> u64
    where
        R: Serialize,
    {
        let is_numbered = found == Found::IsHoarded || self.random.chance(2);
        let mut last_sum = None;
        for number in 1..GREED {
            if is_numbered && let Some(last) = sent.words.iter_mut().rfind(|word| **word != 0) {
                let shift = last.ilog2() / 8 * 8;
                *last = *last & !(0x7f << shift) | (number % 0x7f + 1) << shift;
            }
            let sum = self.make(method, &sent, found);
            if sum.is_none() || (found == Found::IsHoarded && sum == last_sum) {
                return number - 1;
            }
            last_sum = sum;
        }
        GREED
    }

    /// Makes the call. `None` if there is no answer to look at; it is counted then.
    fn send(&mut self, sent: &Sent) -> Option<raw::Message> {
        let info = MessageInfo::new(sent.label, sent.length, sent.caps);
        let way = self.random.below(64);
        self.record.begin(self.thread, self.which, time::now_ns());
        self.is_calling.store(true, Relaxed);
        let answer = match way {
            0 => raw::nb_send(self.target.endpoint, info, sent.words).map(|()| None),
            1 => raw::send(self.target.endpoint, info, sent.words).map(|()| None),
            _ => raw::call(self.target.endpoint, info, sent.words).map(Some),
        };
        self.is_calling.store(false, Relaxed);
        match answer {
            Ok(Some(answer)) => Some(answer),
            _ => {
                self.record.end(self.thread, false, time::now_ns());
                None
            }
        }
    }

    /// Makes of a request what none should be.
    fn spoil(&mut self, sent: &mut Sent) {
        let random = &mut *self.random;
        match random.below(8) {
            0 => sent.length = random.below(MAX_WORDS as u64 + 1) as usize,
            1 => sent.length = sent.length.saturating_sub(1),
            2 => sent.length = (sent.length + 1).min(MAX_WORDS),
            3 => sent.label ^= 1 << random.below(50),
            4 => sent.label = random.any() >> random.below(64),
            5 => {
                let word = random.below(4) as usize;
                sent.words[word] ^= 1 << random.below(64);
            }
            6 => {
                let word = 4 + random.below(MAX_WORDS as u64 - 4) as usize;
                buffer::set_word(word, random.any());
                sent.words[random.below(4) as usize] = random.any();
            }
            _ => {
                let own = [slot::TCB, slot::CNODE, slot::SUPERVISOR, slot::TIMER, CPtr(0)];
                let caps = [random.one(&own), random.one(&own), self.target.endpoint];
                sent.caps = 1 + random.below(3) as usize;
                buffer::set_send_caps(&caps[..sent.caps]);
            }
        }
    }
}
