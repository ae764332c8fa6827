//! Faults that are known and not mended: what the fuzzers look away from, so that they find
//! others. Each switch goes with its mend; none may stay.

/// A delete or revoke that is stopped after its last step is done again when it is repeated,
/// perhaps on what another thread has put there.
pub const REPEATED_AFTER_THE_LAST_STEP: bool = false;
/// Of several threads that one call wakes, the first goes behind its equals.
pub const ORDER_OF_THE_WOKEN: bool = false;
/// A lender that was lost does not get its time back although the holder waits.
pub const LOST_LENDER_OF_ONE_THAT_WAITS: bool = false;
/// Nor at the end of a round-robin slice.
pub const LOST_LENDER_OF_A_BUSY_ONE: bool = false;
/// Equals starve.
pub const STARVATION: bool = false;
/// A mapping is known by the number of its space, which is used again.
pub const TWO_CAPABILITIES_OF_ONE_PAGE: bool = false;
