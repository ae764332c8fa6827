//! The glue of `bootfs`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    extern crate alloc;

    use alloc::vec::Vec;

    use bootfs::{BootFs, Regions, Service};
    use libipc::Shared;
    use libipc::server::{self, Caller, Outcome, Request, Server};
    use libipc::start::{Folder, StartInfo, event, slot};
    use libipc::supervisor::{SessionState, SupervisorClient};
    use skink_protocols::file::FileSystem;

    libipc::main!(main);

    struct Sessions {
        start: &'static StartInfo,
        /// As the supervisor told last.
        states: Vec<SessionState>,
    }

    impl Sessions {
        /// Learns what the sessions are good for: a program from a disk may have been given less.
        fn look(&mut self) {
            let supervisor = SupervisorClient::at(slot::SUPERVISOR);
            let mut states = Vec::new();
            loop {
                match supervisor.sessions(states.len() as u32) {
                    Ok(page) if page.is_empty() => break,
                    Ok(page) => states.extend(page),
                    Err(error) => return log::error!("ask for the sessions: {error}"),
                }
            }
            self.states = states;
        }
    }

    impl Regions for Sessions {
        fn region(&self, caller: Caller) -> Option<Shared> {
            let session = self.start.incoming.iter().find(|s| s.badge == caller.0)?;
            Some(Shared::granted(session.shared))
        }

        fn folder(&self, caller: Caller) -> Option<Folder> {
            let state = self.states.iter().find(|state| state.badge == caller.0);
            let grant = state.map(|state| &state.grant).or_else(|| {
                let session = self.start.incoming.iter().find(|s| s.badge == caller.0)?;
                Some(&session.grant)
            });
            grant?.folder.clone()
        }
    }

    struct Glue(Service<Sessions>);

    impl Server for Glue {
        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            FileSystem::dispatch(&mut self.0, request)
        }

        fn on_notification(&mut self, bits: u64) {
            if bits & event::SESSIONS != 0 {
                self.0.regions.look();
            }
        }
    }

    fn main(start: &'static StartInfo) -> i32 {
        let files = match BootFs::new(Shared::granted(start.boot_image)) {
            Ok(files) => files,
            Err(error) => panic!("read the boot image: {error:?}; is it granted in the manifest?"),
        };
        let mut regions = Sessions { start, states: Vec::new() };
        regions.look();
        server::run(&mut Glue(Service { files, regions }))
    }
}

/// The server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
