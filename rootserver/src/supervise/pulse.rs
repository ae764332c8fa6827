//! Heartbeats: when the lack of an answer is a death.
//!
//! A heartbeat is asked for once an interval. It is missed if the next one is due, there is no
//! answer, and both hold:
//!
//! * It was the server's turn: meanwhile the CPU was idle, or ran the server itself or one of
//!   lower priority. Whoever is kept from the CPU by those above is late, not dead.
//! * The server is expected to answer: it does not wait for the answer of another server (whose
//!   restart may be delayed: that one's death is none of its own), and has not said that it is busy; nor
//!   did it when the interval began. A call that ends may end right before the heartbeat is due.
//!
//! Loops without end are found by their budget, long before.

/// What is known of a server's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Heartbeats that it has answered since boot.
    pub answered: u64,
    /// CPU time since boot of the server, of those below it, and idle, in nanoseconds.
    pub turn_ns: u64,
    /// Whether an answer is to be expected.
    pub duty: Duty,
}

/// Whether a server is expected to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// It is.
    #[default]
    Serving,
    /// It waits for another server, or has said that it is busy.
    Excused,
}

/// What is to be made of a pulse when the next heartbeat is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, or was not asked yet: ask (again).
    Alive,
    /// No answer, and none to be expected so far: wait, counting from this pulse on.
    Excused,
    /// No answer, but it was not its turn: wait.
    Late,
    /// It is dead.
    Missed,
}

impl Pulse {
    /// The same, of a server of which no answer is expected.
    pub fn excused(self) -> Pulse {
        Pulse { duty: Duty::Excused, ..self }
    }

    /// Judges the pulse `self` by the one when the server was asked.
    pub fn judge(self, asked: Option<Pulse>) -> Verdict {
        match asked {
            None => Verdict::Alive,
            Some(asked) if asked.answered != self.answered => Verdict::Alive,
            Some(asked) if [asked.duty, self.duty].contains(&Duty::Excused) => Verdict::Excused,
            Some(asked) if asked.turn_ns == self.turn_ns => Verdict::Late,
            Some(_) => Verdict::Missed,
        }
    }
}
