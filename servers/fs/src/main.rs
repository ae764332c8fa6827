//! The glue of the file server: its sessions, its disk, its loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod ring_device;

#[cfg(target_os = "none")]
mod guest {
    use crate::ring_device::RingDisk;
    use fs::Limits;
    use fs::service::{Host, Service};
    use libipc::server::{self, Caller, Outcome, Request, Server};
    use libipc::start::StartInfo;
    use libipc::{Shared, client::Session};
    use skink_protocols::file::{FileSystem, MountFailure};

    libipc::main!(main);

    /// What the manifest calls the edge to the disk's driver.
    const DISK: &str = "block";

    struct Guest(&'static StartInfo);

    impl Host for Guest {
        type Disk = RingDisk;

        fn disk(&mut self) -> Result<RingDisk, MountFailure> {
            let session = self.0.outgoing.iter().find(|s| s.edge == DISK);
            let session = session.ok_or(MountFailure::NoDisk)?;
            RingDisk::attach(Session::new(session), session.shared).map_err(|error| {
                log::warn!("attach to the disk's driver: {error}");
                MountFailure::NoDisk
            })
        }

        fn is_lost(&self, disk: &RingDisk) -> bool {
            disk.is_lost()
        }

        fn region(&self, caller: Caller) -> Option<Shared> {
            let session = self.0.incoming.iter().find(|s| s.badge == caller.0)?;
            Some(Shared::granted(session.shared))
        }
    }

    struct Glue(Service<Guest>);

    impl Server for Glue {
        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            FileSystem::dispatch(&mut self.0, request)
        }
    }

    fn main(start: &'static StartInfo) -> i32 {
        let service = Service::new(Guest(start), Limits::default(), start.incarnation);
        server::run(&mut Glue(service))
    }
}

/// The server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
