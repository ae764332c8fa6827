//! [`Span`]: bytes of a session's shared region.

use libipc::Shared;
use serde::{Deserialize, Serialize};

/// Bytes of the session's shared region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte in the region.
    pub offset: u32,
    /// Bytes, at least 1.
    pub length: u32,
}

impl Span {
    /// The bytes themselves; `None` if there are none or they are not all inside `region`.
    pub fn of(self, region: &Shared) -> Option<Shared> {
        if self.length == 0 {
            return None;
        }
        region.part(u64::from(self.offset), u64::from(self.length))
    }
}
