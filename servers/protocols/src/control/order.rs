//! What became of a death that somebody ordered.

use libipc::control::Misbehaviour;
use serde::{Deserialize, Serialize};

use super::{ControlError, Name};

/// What was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ordered {
    /// `kill`, in this way.
    Kill(Misbehaviour),
    /// `restart`.
    Restart,
    /// `stop`.
    Stop,
}

impl Ordered {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Ordered::Kill(how) => {
                let named = Misbehaviour::NAMED.into_iter().find(|(_, kind)| *kind == how);
                named.map_or("kill", |(name, _)| name)
            }
            Ordered::Restart => "restart",
            Ordered::Stop => "stop",
        }
    }
}

/// Why no more of an order's deaths will come, though not all of them came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawn {
    /// It was refused from the start, with this error.
    Refused(ControlError),
    /// `kill --disarm`, or the server that it waited for was given up or started anew by command.
    Disarmed,
    /// Another order took its place.
    Replaced,
}

impl core::fmt::Display for Withdrawn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Withdrawn::Refused(error) => write!(f, "refused: {error}"),
            Withdrawn::Disarmed => f.write_str("disarmed"),
            Withdrawn::Replaced => f.write_str("replaced"),
        }
    }
}

/// One order, and what came of it so far. `died + missed <= reached`, and `reached <= times`
/// unless `times` is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Counts orders since boot, from 1. The crash record of each death that this order caused
    /// names it.
    pub number: u64,
    /// Who is to die.
    pub server: Name,
    /// In which way.
    pub ordered: Ordered,
    /// How many deaths are wanted; 0: without end.
    pub times: u32,
    /// How often its moment came.
    pub reached: u32,
    /// Deaths by it, each with a crash record.
    pub died: u32,
    /// Moments at which nothing ran that could die, or after which the instance ended of something
    /// else before it could die of this.
    pub missed: u32,
    /// Why no more will come.
    pub withdrawn: Option<Withdrawn>,
}
