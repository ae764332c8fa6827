//! How a server is made to die.

use libipc::control::Misbehaviour;
use serde::{Deserialize, Serialize};

/// How `kill` kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSpec {
    /// The N-th request from now, with that request in flight; 0: at once.
    pub at_request: u64,
    /// And again at each N-th request after that; 0: not again.
    pub every: u64,
    /// How often altogether; 0 is without end.
    pub times: u32,
    /// What happens to the server.
    pub how: Misbehaviour,
}

impl Default for KillSpec {
    fn default() -> Self {
        KillSpec { at_request: 0, every: 0, times: 1, how: Misbehaviour::Kill }
    }
}
