//! The glue of `bootfs`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    extern crate alloc;

    use alloc::vec::Vec;
    use bootfs::{BootFs, Host, Service};
    use libipc::server::{self, Caller, Outcome, Request, Server};
    use libipc::start::{StartInfo, event, slot};
    use libipc::supervisor::{SessionState, SupervisorClient};
    use libipc::{Shared, sessions};
    use skink_protocols::file::FileSystem;

    libipc::main!(main);

    struct Sessions(&'static StartInfo);

    impl Host for Sessions {
        fn region(&self, caller: Caller) -> Option<Shared> {
            let session = self.0.incoming.iter().find(|s| s.badge == caller.0)?;
            Some(Shared::granted(session.shared))
        }

        fn sessions(&mut self) -> Vec<SessionState> {
            sessions::ask(&SupervisorClient::at(slot::SUPERVISOR))
        }
    }

    struct Glue(Service<Sessions>);

    impl Server for Glue {
        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            FileSystem::dispatch(&mut self.0, request)
        }

        fn on_notification(&mut self, bits: u64) {
            if bits & event::SESSIONS != 0 {
                self.0.sessions_changed();
            }
        }
    }

    fn main(start: &'static StartInfo) -> i32 {
        let files = match BootFs::new(Shared::granted(start.boot_image)) {
            Ok(files) => files,
            Err(error) => panic!("read the boot image: {error:?}; is it granted in the manifest?"),
        };
        server::run(&mut Glue(Service::new(files, Sessions(start))))
    }
}

/// The server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
