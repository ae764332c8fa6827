//! How much one step of an operation works.
//!
//! Whatever grows with what a disk holds (the audit, the walk along a chain, the search of a directory,
//! the freeing of clusters) is done in pieces. Before each, [`Core::pause`] says whether there is work
//! left for this step; if there is none the operation ends with [`FsError::Unfinished`], and is called
//! again from its beginning when others had their turn. What the pieces found is kept meanwhile where
//! the walker finds it again.
//!
//! Always holds:
//! - Nothing that the operation under way has changed is uncommitted where it pauses, so that it can
//!   begin again, or be given up.
//! - A step does at least one piece, so that every operation comes to its end.
//! - A step ends at most one piece after its work was used up; a long wait for the disk uses it up, so
//!   that a slow driver holds others up for one wait and a piece, and not for as many as a step has.
//!
//! A step also ends where a client's memory would be touched while there is news of clients
//! ([`Cache::check_client`]): the client whose call it is may have died, and its memory be another one's.
//! Nothing but what was copied until then is left of the step; it is done anew once the news are known,
//! or dropped with its client.
//!
//! [`Cache::check_client`]: crate::cache::Cache::check_client

use crate::base::Core;
use crate::device::CacheDevice;
use crate::error::FsError;

/// Work of a step of the server. Beside the longest of what `skink disks` does another client waited for an
/// answer, which may be more than one step, for up to 7.1 million instructions (13 million where the root
/// directory is a loop).
pub const STEP_WORK: u64 = 600;
/// Work of one look at a sector of metadata in memory, the unit: 300 to 6,500 instructions.
pub(crate) const LOOK: u64 = 1;
/// Work of the 16 entries of a sector of a directory, besides the look.
pub(crate) const ENTRIES: u64 = 16;
/// Work of waiting for the disk once.
pub(crate) const FETCH: u64 = 16;
/// Work of changing a sector of metadata, with what is kept for a successor.
pub(crate) const CHANGE: u64 = 8;

/// What the step under way has worked, and may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    done: u64,
    /// Work of a step.
    allowance: u64,
    pieces: u64,
    /// Something was changed since the last commit.
    is_changing: bool,
    /// What follows in this step belongs together.
    is_held: bool,
    is_unfinished: bool,
}

impl Work {
    /// Without a bound.
    pub const fn unlimited() -> Self {
        let allowance = u64::MAX;
        Work {
            done: 0,
            allowance,
            pieces: 0,
            is_changing: false,
            is_held: false,
            is_unfinished: false,
        }
    }

    /// Begins a step of so much work.
    pub fn begin(&mut self, allowance: u64) {
        *self = Work { allowance, ..Self::unlimited() };
    }

    #[inline]
    pub fn charge(&mut self, work: u64) {
        self.done += work;
    }

    /// Something changes that must not be left half done.
    pub fn changing(&mut self) {
        self.done += CHANGE;
        self.is_changing = true;
    }

    /// What was changed is a whole.
    pub fn committed(&mut self) {
        self.is_changing = false;
    }

    /// The step does not pause until [`Work::release`]: what is done from here on is a whole, and known to be
    /// short.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// The step can pause again.
    pub fn release(&mut self) {
        self.is_held = false;
    }

    /// The step ends here, whatever is left of its work.
    pub fn end(&mut self) {
        self.is_unfinished = true;
    }

    /// Whatever was worked, the step ends at the next place where it can.
    pub fn use_up(&mut self) {
        if self.allowance < u64::MAX {
            self.done = self.done.max(self.allowance);
        }
    }

    /// The operation makes do with what it has done, or does one piece more.
    pub fn go_on(&mut self) {
        (self.is_unfinished, self.pieces) = (false, 0);
    }

    /// Whether the step ended before its operation did.
    pub fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// Whether the step has worked what it may.
    pub fn is_used_up(&self) -> bool {
        self.done >= self.allowance
    }

    /// Whether it would have with so much more.
    pub fn is_used_up_by(&self, work: u64) -> bool {
        self.done.saturating_add(work) >= self.allowance
    }

    /// Whether what is only a guess had better not begin any more.
    pub fn is_half_used(&self) -> bool {
        self.done >= self.allowance / 2
    }

    /// What was worked in this step so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Whether what took so much work is worth keeping for the next step.
    pub fn is_much(&self, work: u64) -> bool {
        work > self.allowance / 8 || self.done >= self.allowance
    }
}

impl<D: CacheDevice> Core<D> {
    /// Before each piece of what can be long: nothing but what the walker keeps is lost if this says
    /// that the step ends here.
    ///
    /// # Errors
    /// `Unfinished`.
    pub fn pause(&mut self) -> Result<(), FsError> {
        let work = &mut self.cache.work;
        let may_end = !work.is_changing && !work.is_held;
        if work.done >= work.allowance && work.pieces > 0 && may_end {
            work.is_unfinished = true;
            return Err(FsError::Unfinished);
        }
        work.pieces += 1;
        Ok(())
    }
}
