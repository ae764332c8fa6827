//! The disk's driver as this program reaches it: signals, the clock, and the root server.

use fs::ring_disk::{DEADLINE_NS, Driver, MAX_REPROACHES, RingDisk, Woken};
use libipc::client::Session;
use libipc::start::{OutgoingSession, event, slot};
use libipc::supervisor::{Misconduct, PeerState, SupervisorClient};
use libipc::{Error, events, raw, time};
use skink_protocols::block::{BlockClient, BlockError};

/// An edge to a driver.
pub struct Edge {
    name: &'static str,
    session: Session,
    /// The timer has been armed for this time.
    timer_ns: u64,
}

/// The disk at the other end of an edge.
pub type Disk = RingDisk<Edge>;

/// Joins the ring of the driver at the other end of the edge. A driver that does not answer within
/// [`DEADLINE_NS`] is restarted.
///
/// # Errors
/// As the driver says; or it has been restarted again and again for [`MAX_REPROACHES`] such times.
pub fn attach(info: &'static OutgoingSession) -> Result<Disk, BlockError> {
    let session = Session::new(info);
    let until_ns = time::now_ns().saturating_add(u64::from(MAX_REPROACHES) * DEADLINE_NS);
    let sectors = loop {
        expect_answer(&info.edge, DEADLINE_NS);
        let answer = BlockClient::new(session).attach();
        expect_answer(&info.edge, 0);
        match answer {
            Err(BlockError::Ipc(Error::ServerRestarted { .. })) if time::now_ns() < until_ns => {}
            answer => break answer?.sectors,
        }
    };
    let edge = Edge { name: &info.edge, session, timer_ns: 0 };
    RingDisk::new(edge, session.shared, sectors).ok_or(BlockError::NoRing)
}

/// Has the root server complain while this program waits in a call; 0 ns: no longer.
fn expect_answer(edge: &str, within_ns: u64) {
    let supervisor = SupervisorClient::at(slot::SUPERVISOR);
    if let Err(error) = supervisor.expect_answer(edge, within_ns) {
        log::error!("wait for the disk's driver: {error}");
    }
}

impl Driver for Edge {
    fn ring_doorbell(&self) {
        // The doorbell belongs to the edge: it is there as long as this server is.
        let _ = self.session.doorbell.signal();
    }

    fn wait(&mut self, until_ns: u64) -> Woken {
        // One timer for many waits: armed anew when its time has passed, whoever took its signal.
        // (It is now half a deadline before `until_ns`: the clock need not be read again.)
        if self.timer_ns.saturating_add(DEADLINE_NS / 2) <= until_ns
            && events::main().timer().arm(until_ns).is_ok()
        {
            self.timer_ns = until_ns;
        }
        let wanted = self.session.doorbell_mask() | event::SESSIONS | event::TIMER;
        match events::main().wait_for(wanted) & event::SESSIONS {
            0 => Woken::Driver,
            _ => Woken::Neighbours,
        }
    }

    fn now_ns(&self) -> u64 {
        time::now_ns()
    }

    fn relax(&mut self) {
        raw::yield_now();
    }

    fn complain(&mut self, incarnation: u32, what: Misconduct) {
        let supervisor = SupervisorClient::at(slot::SUPERVISOR);
        if let Err(error) = supervisor.complain(self.name, incarnation, what) {
            log::error!("complain of the disk's driver: {error}");
        }
    }

    fn state(&mut self) -> PeerState {
        let supervisor = SupervisorClient::at(slot::SUPERVISOR);
        supervisor.peer_state(self.name).unwrap_or_else(|error| {
            // The root server serves as long as anything does, and the manifest gives this edge.
            panic!("ask after the disk's driver: {error}: check the manifest")
        })
    }
}
