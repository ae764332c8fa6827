//! Sessions: who may do what on which channel, and each one's share of the callers that can wait.
//!
//! Generic over how a caller is answered, so that tests run it on the host.
//!
//! Not here: those who wait (`line`), bytes (`channel`).

use crate::channel::Channel;
use crate::line::Line;
use crate::survivor::{CHANNELS, MAX_SESSIONS, Survivor};
use crate::uart::Uart;
use alloc::vec::Vec;
use libipc::Shared;
use libipc::start::{Access, SessionGrant};
use libipc::supervisor::SessionState;
use skink_protocols::console::{ConsoleError, Input, MAX_WRITE, Positions, Span};

/// A caller that waits for a `T`.
pub trait Answer<T> {
    /// Answers it; it may be dead by now.
    fn answer(self, value: T);
}

impl<T: serde::Serialize> Answer<T> for libipc::Later<T> {
    fn answer(self, value: T) {
        libipc::Later::answer(self, &value);
    }
}

/// The kinds of caller: one type for each method.
pub trait Callers {
    /// Of `attach`.
    type Attach: Answer<Result<Positions, ConsoleError>>;
    /// Of `read`.
    type Read: Answer<Result<Input, ConsoleError>>;
    /// Of `write`.
    type Write: Answer<Result<u64, ConsoleError>>;
}

/// A client's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The badge of its messages, not 0.
    pub badge: u64,
    /// What it shares with the server.
    pub shared: Shared,
    /// What it is good for.
    pub grant: SessionGrant,
    /// The incarnation of its client; 0 if none has started yet.
    pub incarnation: u32,
    /// Its client runs.
    pub is_alive: bool,
}

/// The whole server.
pub struct Console<U, C: Callers> {
    sessions: Vec<Session>,
    lines: [Option<Line<U, C>>; CHANNELS],
    /// Callers of one session that can wait at once.
    share: usize,
}

impl<U: Uart, C: Callers> Console<U, C> {
    /// Opens the channels whose UARTs there are, and goes on with what an earlier instance left.
    /// `callers` can be kept waiting at once, which the sessions share equally.
    pub fn new(
        survivor: Survivor,
        registers: [Option<U::Registers>; CHANNELS],
        sessions: impl IntoIterator<Item = Session>,
        callers: usize,
    ) -> Self {
        let mut index = 0;
        let lines = registers.map(|registers| {
            let record = survivor.record(index);
            index += 1;
            Some(Line::new(Channel::open(registers?, record)?))
        });
        let sessions: Vec<Session> = sessions.into_iter().take(MAX_SESSIONS).collect();
        let share = (callers / sessions.len().max(1)).max(1);
        let mut console = Console { sessions, lines, share };
        for channel in 0..CHANNELS {
            console.on_interrupt(channel);
        }
        console
    }

    /// Whether the channel has a device.
    pub fn has_channel(&self, channel: usize) -> bool {
        self.lines[channel].is_some()
    }

    /// Handles the interrupt of a channel, until its line is down or it waits for a new cause. One
    /// that signals edges has been acknowledged *before* (a cause that comes up from now on is a
    /// new edge), one that signals a level is acknowledged *afterwards*.
    pub fn on_interrupt(&mut self, channel: usize) {
        if let Some(line) = &mut self.lines[channel] {
            line.on_interrupt();
        }
    }

    /// Takes note of what the supervisor says about a session: its client died, or another instance
    /// of it (or another program) has the session now, which inherits nothing.
    pub fn on_session_changed(&mut self, state: SessionState) {
        let found = self.sessions.iter_mut().find(|session| session.badge == state.badge);
        let Some(session) = found else { return };
        session.grant = state.grant;
        session.incarnation = state.incarnation;
        session.is_alive = state.is_alive;
        for line in self.lines.iter_mut().flatten() {
            line.on_client_changed(session);
        }
    }

    /// The session and the line of a call, if it is granted.
    fn granted(
        &mut self,
        badge: u64,
        channel: usize,
        is_permitted: impl Fn(Access) -> bool,
    ) -> Result<(&mut Line<U, C>, &Session), ConsoleError> {
        let session = self.sessions.iter().find(|session| session.badge == badge);
        let session = session.ok_or(ConsoleError::UnknownSession)?;
        let is_its = session.grant.channel.is_some_and(|granted| granted.index() == channel);
        if !is_its || !is_permitted(session.grant.access) {
            return Err(ConsoleError::NotGranted);
        }
        let line = self.lines[channel].as_mut().ok_or(ConsoleError::NoDevice)?;
        Ok((line, session))
    }

    /// `attach` of the protocol.
    pub fn attach(&mut self, badge: u64, channel: usize, caller: C::Attach) {
        let share = self.share;
        match self.granted(badge, channel, |_| true) {
            Ok((line, session)) => line.attach(session, share, caller),
            Err(error) => caller.answer(Err(error)),
        }
    }

    /// `read` of the protocol.
    pub fn read(&mut self, badge: u64, channel: usize, position: u64, span: Span, caller: C::Read) {
        let share = self.share;
        let granted = self.granted(badge, channel, Access::can_read);
        match granted.and_then(|(line, session)| Ok((line, session, memory_of(session, span)?))) {
            Ok((line, session, memory)) => line.read(session, share, position, memory, caller),
            Err(error) => caller.answer(Err(error)),
        }
    }

    /// `write` of the protocol.
    pub fn write(
        &mut self,
        badge: u64,
        channel: usize,
        position: u64,
        span: Span,
        caller: C::Write,
    ) {
        let share = self.share;
        let granted = self.granted(badge, channel, Access::can_write);
        let found = granted.and_then(|(line, session)| {
            if span.length > MAX_WRITE {
                return Err(ConsoleError::BadSpan);
            }
            Ok((line, session, memory_of(session, span)?))
        });
        match found {
            Ok((line, session, bytes)) => line.write(session, share, position, bytes, caller),
            Err(error) => caller.answer(Err(error)),
        }
    }
}

fn memory_of(session: &Session, span: Span) -> Result<Shared, ConsoleError> {
    let part = session.shared.part(u64::from(span.offset), u64::from(span.length));
    part.filter(|part| part.size() > 0).ok_or(ConsoleError::BadSpan)
}
