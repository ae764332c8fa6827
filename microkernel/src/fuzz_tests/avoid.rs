//! Faults that are known and not mended: what the fuzzers let pass (and count), so that they find
//! others behind them. Each goes with its mend; an empty list is the aim.

/// Beginnings of the sentences of [`super::oracles`].
pub const KNOWN: &[&str] = &[
    "a delete or revoke was stopped after its last step",
    "a capability appeared in a slot while others were deleted",
    "a call that is to be repeated has signalled",
    "a call came back without a status",
    "an empty slot was taken for no capability",
    "threads that were woken together changed places",
    "the time of a lost lender stays with a thread that waits",
    "a lost lender does not get its time back at the slice's end",
    "a thread starves behind its equals",
    "two capabilities claim the same mapping of a page",
    "a thread received a message and lost its time",
    "time of a thread was counted as idle",
    "the timer is later than the next event",
    "a suspended thread goes on",
    "the machine returns to another thread",
    "invariant: a thread is in a queue where it is not",
    "invariant: a fault of a thread was forgotten",
    "panic: assertion failed: dest.is_empty() && !parent.is_empty()",
];

/// The fast path takes slot 0 for a reply object, the slow one does not.
pub const REPLY_IN_SLOT_0: bool = true;

/// Whether a sentence tells of a known fault, and is not what `SKINK_FUZZ_STOP` begins.
pub fn is_known(sentence: &str) -> bool {
    let is_wanted = std::env::var("SKINK_FUZZ_STOP").is_ok_and(|stop| sentence.starts_with(&stop));
    !is_wanted && KNOWN.iter().any(|known| sentence.starts_with(known))
}
