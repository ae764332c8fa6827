//! How and when a server is made to die.

use libipc::control::Misbehaviour;
use libipc::trigger::Moment;
use serde::{Deserialize, Serialize};

use super::Name;

/// When `kill` kills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// Not at all: what was armed to kill it is forgotten.
    Never,
    /// At once; a death other than `kill` comes when the server takes a signal.
    Now,
    /// When the server itself reaches a moment.
    Own(At),
    /// When another server reaches one of its moments.
    Other(Name, At),
}

/// A moment, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// What is counted.
    pub moment: Moment,
    /// The N-th from now, over incarnations; at least 1.
    pub number: u64,
}

/// How `kill` kills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSpec {
    /// When for the first time.
    pub when: When,
    /// And again at each N-th moment after that; 0: not again.
    pub every: u64,
    /// How often altogether; 0 is without end.
    pub times: u32,
    /// What happens to the server.
    pub how: Misbehaviour,
}

impl KillSpec {
    /// Dies like `how` at its next request.
    pub fn at_next_request(how: Misbehaviour) -> Self {
        let next = At { moment: Moment::Receive, number: 1 };
        KillSpec { when: When::Own(next), how, ..KillSpec::default() }
    }
}

impl Default for KillSpec {
    fn default() -> Self {
        KillSpec { when: When::Now, every: 0, times: 1, how: Misbehaviour::Kill }
    }
}
