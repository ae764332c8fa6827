//! Slots as tests of others want them.

use super::*;

impl Slot {
    /// With the program of this number in it.
    pub fn of_test(number: u32) -> Slot {
        let (edges, grants, frames, end) = (0, Vec::new(), Vec::new(), None);
        let program = Occupant { number, edges, grants, frames, end, before: Before::default() };
        let limits = Limits { priority: 0, quota_bytes: 0 };
        Slot { pane: Pane::EMPTY, limits, emptied: 0, program: Some(program) }
    }
}
