//! The glue of the file server: its sessions, its disk, its loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod ring_device;

#[cfg(target_os = "none")]
mod guest {
    extern crate alloc;

    use crate::ring_device::{Disk, attach};
    use alloc::vec::Vec;
    use fs::service::{Host, Service};
    use fs::{Limits, STEP_WORK};
    use libipc::server::{self, Caller, Outcome, Request, Server};
    use libipc::start::{StartInfo, event, slot};
    use libipc::supervisor::{SessionState, SupervisorClient};
    use libipc::{Shared, sessions};
    use skink_protocols::file::{FileSystem, MountFailure};

    libipc::main!(main);

    /// What the manifest calls the edge to the disk's driver.
    const DISK: &str = "block";

    struct Guest(&'static StartInfo);

    impl Host for Guest {
        type Disk = Disk;

        fn disk(&mut self) -> Result<Disk, MountFailure> {
            let session = self.0.outgoing.iter().find(|s| s.edge == DISK);
            let session = session.ok_or(MountFailure::NoDisk)?;
            attach(session).map_err(|error| {
                log::warn!("attach to the disk's driver: {error}");
                MountFailure::NoDisk
            })
        }

        fn is_lost(&self, disk: &Disk) -> bool {
            disk.is_lost()
        }

        fn neighbours_changed(&self, disk: &Disk) {
            disk.neighbours_changed();
        }

        fn region(&self, caller: Caller) -> Option<Shared> {
            let session = self.0.incoming.iter().find(|s| s.badge == caller.0)?;
            Some(Shared::granted(session.shared))
        }

        fn survivor(&self) -> Option<Shared> {
            let region = self.0.survivor;
            (region.size > 0).then(|| Shared::granted(region))
        }

        fn sessions(&mut self) -> Vec<SessionState> {
            sessions::ask(&SupervisorClient::at(slot::SUPERVISOR))
        }
    }

    struct Glue(Service<Guest>);

    impl Server for Glue {
        const STEPS: bool = true;

        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            self.0.begin_step(request.caller());
            let outcome = FileSystem::dispatch(&mut self.0, request);
            if self.0.is_unfinished() { Outcome::Again } else { outcome }
        }

        fn on_given_up(&mut self, caller: Caller) {
            self.0.give_up(caller);
        }

        fn instance(&self, caller: Caller) -> u64 {
            self.0.incarnation(caller).into()
        }

        fn on_notification(&mut self, bits: u64) {
            if bits & event::SESSIONS != 0 {
                self.0.sessions_changed();
            }
        }
    }

    fn main(start: &'static StartInfo) -> i32 {
        let mut service =
            Service::new(Guest(start), Limits::for_heap(start.heap.size), start.incarnation);
        service.set_step_work(STEP_WORK);
        server::run(&mut Glue(service))
    }
}

/// The server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
