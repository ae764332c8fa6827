//! The sync before the machine ends: whether anything that was written is lost.

use libipc::Error;
use libipc::trigger::Moment;
use skink_protocols::control::{ControlClient, ServerState};
use skink_protocols::file::{FileError, MountFailure};

use crate::context::{Context, Failure, Outcome};

/// Makes everything durable that was written. That there is no volume is no failure if nothing can
/// have been written to one.
///
/// # Errors
/// What was written, or may have been, is not on the disk.
pub fn last_sync(context: &Context<'_>) -> Outcome {
    let sessions = &context.sessions;
    for mount in &sessions.mounts {
        if let Err(error) = mount.client.sync()
            && !wrote_nothing(&error, |states| any_never_served(&sessions.control, states))
        {
            return Err(Failure::at(mount.name, error));
        }
    }
    Ok(())
}

/// Whether a file server whose sync failed like this has written nothing since boot. `never_served`
/// tells whether a server in one of these states has never had a request.
fn wrote_nothing(error: &FileError, never_served: impl Fn(&[ServerState]) -> bool) -> bool {
    match error {
        FileError::Unsupported | FileError::ReadOnly => true,
        // The driver has no disk; or it had one, and died with it.
        FileError::NotMounted(MountFailure::NoDisk) => {
            never_served(&[ServerState::NoDevice, ServerState::Waiting])
        }
        FileError::NotMounted(MountFailure::Io { .. }) => false,
        // What is on the disk is no volume.
        FileError::NotMounted(_) => true,
        FileError::Ipc(Error::ServiceUnavailable) => never_served(&[ServerState::Failed]),
        _ => false,
    }
}

fn any_never_served(control: &ControlClient, states: &[ServerState]) -> bool {
    let all = (0..).map_while(|index| control.status(index).ok().flatten());
    let received = Moment::Receive as usize;
    all.into_iter().any(|server| states.contains(&server.state) && server.moments[received] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volume_that_never_was_has_nothing_to_lose() {
        let lost = |error: FileError, of: ServerState| {
            !wrote_nothing(&error, |states: &[ServerState]| states.contains(&of))
        };
        let mount = |why: MountFailure| FileError::NotMounted(why);
        let (running, absent) = (ServerState::Running, ServerState::NoDevice);
        assert!(lost(mount(MountFailure::NoDisk), running), "the driver has died");
        assert!(!lost(mount(MountFailure::NoDisk), absent));
        assert!(lost(mount(MountFailure::Io { sector: 9 }), absent));
        assert!(!lost(mount(MountFailure::Empty), running), "never formatted");
        let gone = FileError::Ipc(Error::ServiceUnavailable);
        assert!(lost(gone.clone(), absent), "the file server has died too often");
        assert!(!lost(gone, ServerState::Failed), "it could never be started");
        assert!(lost(
            FileError::Ipc(Error::ServerRestarted { maybe_executed: true }),
            ServerState::Failed
        ));
        assert!(!lost(FileError::ReadOnly, running));
    }
}
