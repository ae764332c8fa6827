//! Negative controls: systems that are broken on purpose in one way, by which it is seen whether a
//! campaign can fail. A campaign that passes on one of those that it can see is of no use.
//!
//! What the root server does wrong is in its manifest's section `[experiment]` alone; what the disk
//! does wrong is done by [`super::lying_disk`]. No server has anything of this in it.

use super::lying_disk::Lie;
use anyhow::{Result, ensure};
use skink_manifest::Broken;

/// One way to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// `kill` succeeds, and nobody dies
    OrdersIgnored,
    /// Who died is not started again
    NotRestarted,
    /// Each restart leaves a capability slot behind
    SlotLeaked,
    /// Of every second death there is no crash record
    RecordDropped,
    /// After the first death the disk gives one wrong byte in each piece of the file that is read
    WrongByte,
    /// The disk forgets a write after the flush behind it has succeeded
    LostWrite,
    /// The disk says that a write and the flush behind it are done, and does it at the next flush
    EarlySuccess,
}

/// What is run: a campaign, or a row of `bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Campaign {
    /// [`super::deaths`].
    Deaths,
    /// [`super::sweep`].
    Sweep,
    /// [`super::soak`].
    Soak,
    /// [`super::throughput`], of reads.
    ThroughputRead,
    /// [`super::throughput`], of writes.
    ThroughputWrite,
    /// [`super::overhead`].
    Overhead,
    /// [`crate::bench`]'s rows `restart.virtio-blk`.
    BenchRestart,
    /// [`crate::bench`]'s row `fs.read.4k`.
    BenchRead,
    /// [`crate::bench`]'s row `fs.write.seq`.
    BenchWrite,
    /// [`crate::fuzz::protocols`]. Nobody is killed in it; servers are restarted by complaints.
    FuzzProtocols,
}

impl Campaign {
    /// All of them.
    pub const ALL: [Campaign; 10] = [
        Campaign::Deaths,
        Campaign::Sweep,
        Campaign::Soak,
        Campaign::ThroughputRead,
        Campaign::ThroughputWrite,
        Campaign::Overhead,
        Campaign::BenchRestart,
        Campaign::BenchRead,
        Campaign::BenchWrite,
        Campaign::FuzzProtocols,
    ];

    /// Whether it must fail on a system that is broken so. It cannot where it does nothing that this
    /// touches: nobody dies in it, it writes nothing, or it does not look at what is free.
    pub fn sees(self, control: Control) -> bool {
        let (kills, reads, writes, counts) = match self {
            Campaign::Deaths => (true, true, false, true),
            Campaign::Sweep => (true, true, true, true),
            Campaign::Soak => (true, true, false, true),
            Campaign::ThroughputRead => (true, true, false, false),
            Campaign::ThroughputWrite => (true, false, true, false),
            Campaign::Overhead | Campaign::BenchRead => (false, true, false, false),
            Campaign::BenchRestart => (true, true, false, false),
            Campaign::BenchWrite => (false, false, true, false),
            Campaign::FuzzProtocols => (false, false, false, true),
        };
        match control {
            Control::OrdersIgnored | Control::RecordDropped => kills,
            Control::NotRestarted => kills || self == Campaign::FuzzProtocols,
            Control::SlotLeaked => counts,
            Control::WrongByte => reads,
            Control::LostWrite | Control::EarlySuccess => writes,
        }
    }

    /// A control that the campaign cannot see says nothing about it.
    ///
    /// # Errors
    /// If this is one.
    pub fn ensure_sees(self, control: Option<Control>) -> Result<()> {
        let sees = control.is_none_or(|control| self.sees(control));
        ensure!(sees, "{self:?} does nothing that {control:?} breaks: it would pass");
        Ok(())
    }
}

impl Control {
    /// All of them.
    pub const ALL: [Control; 7] = [
        Control::OrdersIgnored,
        Control::NotRestarted,
        Control::SlotLeaked,
        Control::RecordDropped,
        Control::WrongByte,
        Control::LostWrite,
        Control::EarlySuccess,
    ];

    /// What the root server does wrong.
    pub fn broken(self) -> Broken {
        match self {
            Control::OrdersIgnored => Broken::OrdersIgnored,
            Control::NotRestarted => Broken::NotRestarted,
            Control::SlotLeaked => Broken::SlotLeaked,
            Control::RecordDropped => Broken::RecordDropped,
            Control::WrongByte | Control::LostWrite | Control::EarlySuccess => Broken::Nothing,
        }
    }

    /// What the disk does wrong.
    pub fn lie(self) -> Option<Lie> {
        match self {
            Control::WrongByte => Some(Lie::WrongByte),
            Control::LostWrite => Some(Lie::LostWrite),
            Control::EarlySuccess => Some(Lie::EarlySuccess),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_breaks_something_and_somebody_sees_it() {
        for control in Control::ALL {
            let breaks = control.broken() != Broken::Nothing;
            assert_ne!(breaks, control.lie().is_some(), "{control:?}: one of the two");
            assert!(Campaign::ALL.into_iter().any(|campaign| campaign.sees(control)));
        }
        for campaign in Campaign::ALL {
            assert!(Control::ALL.into_iter().any(|control| campaign.sees(control)));
        }
        let error = Campaign::Overhead.ensure_sees(Some(Control::SlotLeaked)).unwrap_err();
        assert!(error.to_string().contains("it would pass"), "{error}");
        assert!(Campaign::Overhead.ensure_sees(None).is_ok());
    }
}
