//! What a command works with: its output, its sessions, the shell's shared state.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use libipc::events::Events;
use libipc::{Error, StartInfo, time};
use skink_protocols::control::{ControlClient, ControlError};
use skink_protocols::file::{FileError, FileSystemClient};
use skink_protocols::hello::{HelloClient, HelloError};

use crate::jobs::{Activity, Jobs, Origin};
use crate::stream::Output;
use crate::watch;

/// Exit status of a command that was called wrongly.
pub const USAGE: i32 = 2;
/// Exit status of a word that is no command.
pub const UNKNOWN: i32 = 127;
/// Exit status of a command that Ctrl-C ended.
pub const INTERRUPTED: i32 = 130;

/// Why a command failed; shown as `NAME: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done, and what was wrong.
    pub text: String,
    /// The exit status.
    pub status: i32,
}

/// The result of a command.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure with status 1.
    pub fn new(text: impl ToString) -> Failure {
        Failure { text: text.to_string(), status: 1 }
    }

    /// The command was called wrongly; `usage` says how it is called.
    pub fn usage(usage: &str) -> Failure {
        Failure { text: format!("usage: {usage}"), status: USAGE }
    }

    /// A failure at a path.
    pub fn at(path: &str, error: impl core::fmt::Display) -> Failure {
        Failure::new(format!("{path}: {error}"))
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        Failure::new(error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        Failure::new(error)
    }
}

impl From<HelloError> for Failure {
    fn from(error: HelloError) -> Failure {
        Failure::new(error)
    }
}

/// A file server under a name in `/`.
pub struct Mount {
    /// Its name, such as `disk`.
    pub name: &'static str,
    /// The server's name in the manifest.
    pub server: &'static str,
    /// The session.
    pub client: FileSystemClient,
}

/// The sessions of one thread.
pub struct Sessions {
    /// File servers.
    pub mounts: Vec<Mount>,
    /// The root server.
    pub control: ControlClient,
    /// The example.
    pub hello: Option<HelloClient>,
}

impl Sessions {
    /// The sessions that the manifest grants to thread `thread`.
    pub fn open(start: &StartInfo, thread: u8) -> Sessions {
        let mount = |(name, server)| {
            let session = start.session(name, thread).ok()?;
            Some(Mount { name, server, client: FileSystemClient::new(session) })
        };
        let hello = start.session("hello", 0).ok().map(HelloClient::new);
        Sessions {
            mounts: [("disk", "fs"), ("boot", "bootfs")].into_iter().filter_map(mount).collect(),
            control: ControlClient::at(libipc::start::slot::SUPERVISOR),
            hello,
        }
    }
}

/// What a command works with.
pub struct Context<'a> {
    /// Where its output goes.
    pub out: Output<'a>,
    /// Its thread's sessions.
    pub sessions: Sessions,
    /// Its thread's notification and timer.
    pub events: &'a Events,
    /// Its line's, which Ctrl-C ends: long commands look at it.
    pub activity: &'a Activity,
    /// Where its lines come from.
    pub origin: Origin,
    /// Background jobs.
    pub jobs: &'a Jobs,
    /// Set by `shutdown`, `exit`: the line ends here.
    pub is_ending: bool,
    /// Commands that run within each other.
    pub nested: usize,
    /// Its thread's number.
    pub thread: u8,
}

/// A command as it is watched over ([`watch`]).
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    activity: &'a Activity,
    jobs: &'a Jobs,
    thread: u8,
}

impl Watched<'_> {
    /// As [`Context::check_interrupt`].
    ///
    /// # Errors
    /// If there was a Ctrl-C since the line began.
    pub fn check_interrupt(&self) -> Outcome {
        if self.activity.is_interrupted() {
            return Err(Failure { text: "interrupted".into(), status: INTERRUPTED });
        }
        self.jobs.wait_until(self.thread, time::now_ns() + watch::DEADLINE_NS);
        Ok(())
    }
}

impl<'a> Context<'a> {
    /// Splits an absolute path into the session of its file server and the path there.
    ///
    /// # Errors
    /// The path is not absolute, or its first part names no file server.
    pub fn resolve(&self, path: &str) -> Result<(FileSystemClient, String), Failure> {
        self.mounted(path).map(|(mount, inner)| (mount.client, inner))
    }

    /// Splits an absolute path into its file server and the path there.
    ///
    /// # Errors
    /// As [`Context::resolve`].
    pub fn mounted(&self, path: &str) -> Result<(&Mount, String), Failure> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(Failure::at(path, "paths begin with /disk or /boot"));
        };
        let (name, inner) = rest.split_once('/').unwrap_or((rest, ""));
        let mount = self.sessions.mounts.iter().find(|m| m.name == name);
        let mount = mount.ok_or_else(|| Failure::at(path, FileError::NotFound))?;
        Ok((mount, format!("/{inner}")))
    }

    /// Between two steps of a long command: ends it after Ctrl-C; else the servers that it calls have
    /// the whole of their time again.
    ///
    /// # Errors
    /// If there was a Ctrl-C since the line began.
    pub fn check_interrupt(&self) -> Outcome {
        self.watched().check_interrupt()
    }

    /// What [`Context::check_interrupt`] takes, for while the context is in use.
    pub fn watched(&self) -> Watched<'a> {
        Watched { activity: self.activity, jobs: self.jobs, thread: self.thread }
    }

    /// Prints a line.
    pub fn line(&mut self, text: impl core::fmt::Display) {
        let _ = writeln!(self.out, "{text}");
    }
}

/// Whether an error says that the server itself is not to be had.
pub fn is_unavailable(error: &FileError) -> bool {
    matches!(error, FileError::Ipc(Error::ServiceUnavailable))
}
