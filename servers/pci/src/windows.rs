//! The address ranges that base address registers may be given, cut from the bottom up.

use core::ops::Range;

/// A bridge's windows begin and end at multiples of this (PCI-to-PCI Bridge 1.2 §3.2.5.8).
pub const BRIDGE_ALIGNMENT: u64 = 1 << 20;

/// Which window an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Below 4 GiB.
    Low,
    /// Anywhere; behind bridges for prefetchable memory alone.
    High,
}

/// What is left of the windows.
///
/// Windows are given where no firmware has assigned anything: then every register is assigned
/// anew, whatever it holds (an instance that died while it assigned may have left something).
/// Where none are given, everything stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    are_given: bool,
    low: Range<u64>,
    high: Range<u64>,
}

impl Windows {
    /// The windows of a host bridge; empty where there is none (or firmware has assigned all).
    /// Of `low` only what lies below 4 GiB is used, and of both only whole multiples of
    /// [`BRIDGE_ALIGNMENT`]: bridges pass on no parts of them.
    pub fn new(low: Range<u64>, high: Range<u64>) -> Self {
        let are_given = !low.is_empty() || !high.is_empty();
        let (low, high) = (whole(low.start..low.end.min(1 << 32)), whole(high));
        Windows { are_given, low, high }
    }

    fn window(&mut self, which: Which) -> &mut Range<u64> {
        match which {
            Which::Low => &mut self.low,
            Which::High => &mut self.high,
        }
    }

    /// Takes `size` bytes (a power of two) aligned to their size. Address 0 is never given: it
    /// means "not assigned".
    pub fn take(&mut self, which: Which, size: u64) -> Option<u64> {
        let window = self.window(which);
        let start = window.start.max(1).checked_next_multiple_of(size)?;
        let end = start.checked_add(size)?;
        if end > window.end {
            return None;
        }
        window.start = end;
        Some(start)
    }

    /// Skips to the next multiple of [`BRIDGE_ALIGNMENT`], which is the window's end at most; where
    /// that is.
    pub fn align(&mut self, which: Which) -> u64 {
        let window = self.window(which);
        window.start = window.start.next_multiple_of(BRIDGE_ALIGNMENT);
        window.start
    }

    /// Whether addresses are ours to assign.
    pub fn are_given(&self) -> bool {
        self.are_given
    }
}

/// The whole multiples of [`BRIDGE_ALIGNMENT`] in `range`; empty at 0 if there are none.
fn whole(range: Range<u64>) -> Range<u64> {
    let end = range.end - range.end % BRIDGE_ALIGNMENT;
    match range.start.checked_next_multiple_of(BRIDGE_ALIGNMENT) {
        Some(start) if start < end => start..end,
        _ => 0..0,
    }
}
