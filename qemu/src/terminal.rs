//! The user's terminal during `run`: raw while the guest has it, and put back however the tool
//! ends: by return, by panic, by a signal.

use anyhow::Result;
use rustix::termios::{self, OptionalActions, Termios};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

/// The exit code after a second signal.
const STOPPED: i32 = 130;
/// Ctrl-A, which begins a command to the tool.
const ESCAPE: u8 = 1;
/// Pieces of input, of up to 1 KiB, that wait for a guest which takes nothing.
const TYPED_AHEAD: usize = 256;
const HELP: &str = "\r\nCtrl-A X leaves; Ctrl-A Ctrl-A sends Ctrl-A\r\n";

/// The modes to go back to, for whoever restores first.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode; restored when dropped.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal on standard input raw, if it is one.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub fn enter() -> Result<Option<RawTerminal>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let saved = termios::tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(saved);
        let guard = RawTerminal(());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(guard))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back if it is raw. Safe to call at any time, from any thread.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(saved) = saved {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &saved);
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set, so that everything is put back before the end. A
/// second signal puts the terminal back and ends at once.
///
/// # Errors
/// If the system refuses a handler.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    std::thread::spawn(move || {
        for _ in &mut signals {
            if set.swap(true, Ordering::Relaxed) {
                restore();
                std::process::exit(STOPPED);
            }
        }
    });
    Ok(flag)
}

/// What the user's keys ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    /// Bytes for the guest.
    Send(Vec<u8>),
    /// Bytes for the guest, then the end.
    Leave(Vec<u8>),
    /// Show the help.
    Help(Vec<u8>),
}

/// Reads keys for Ctrl-A commands.
#[derive(Debug, Default)]
struct KeyReader {
    escaped: bool,
}

impl KeyReader {
    fn read(&mut self, bytes: &[u8]) -> Keys {
        let mut send = Vec::new();
        for byte in bytes {
            match (self.escaped, *byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, byte) => send.push(byte),
                (true, b'x' | b'X') => return Keys::Leave(send),
                (true, ESCAPE) => {
                    self.escaped = false;
                    send.push(ESCAPE);
                }
                (true, _) => {
                    self.escaped = false;
                    return Keys::Help(send);
                }
            }
        }
        Keys::Send(send)
    }
}

/// Passes the user's keys to the guest, in threads of their own, until Ctrl-A X sets `leave`.
pub fn forward_keys(mut guest: UnixStream, raw: bool, leave: Arc<AtomicBool>) {
    let (sender, typed) = mpsc::sync_channel::<Vec<u8>>(TYPED_AHEAD);
    std::thread::spawn(move || {
        for bytes in typed {
            if guest.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let stdin = std::io::stdin();
        if raw { read_keys(stdin, &sender, &leave) } else { read_script(stdin, &sender) }
    });
}

/// Reads a terminal. A guest that takes nothing does not keep the user from leaving: what it does not
/// take is dropped, once enough of it waits.
fn read_keys(mut from: impl Read, guest: &SyncSender<Vec<u8>>, leave: &AtomicBool) {
    let mut keys = KeyReader::default();
    let (mut buffer, mut dropped) = ([0; 1024], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let action = keys.read(&buffer[..count]);
        let (Keys::Send(bytes) | Keys::Leave(bytes) | Keys::Help(bytes)) = &action;
        match guest.try_send(bytes.clone()) {
            Ok(()) => dropped = 0,
            Err(TrySendError::Full(bytes)) => {
                dropped += bytes.len();
                eprint!("\r\nskink: the guest takes no keys: {dropped} bytes dropped\r\n");
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
        match action {
            Keys::Send(_) => {}
            Keys::Help(_) => eprint!("{HELP}"),
            Keys::Leave(_) => return leave.store(true, Ordering::Relaxed),
        }
    }
}

/// Reads what is no terminal: a script, of which nothing is dropped. Lines end as a terminal's Enter
/// does.
fn read_script(mut from: impl Read, guest: &SyncSender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer[..count].iter().map(|b| if *b == b'\n' { b'\r' } else { *b });
        if guest.send(bytes.collect()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_is_for_the_tool_and_the_rest_for_the_guest() {
        let mut keys = KeyReader::default();
        assert_eq!(keys.read(b"ls\r"), Keys::Send(b"ls\r".into()));
        assert_eq!(keys.read(b"a\x01"), Keys::Send(b"a".into()));
        assert_eq!(keys.read(b"\x01b"), Keys::Send(b"\x01b".into()));
        assert_eq!(keys.read(b"q\x01h"), Keys::Help(b"q".into()));
        assert_eq!(keys.read(b"x\x03"), Keys::Send(b"x\x03".into()));
        assert_eq!(keys.read(b"y\x01X"), Keys::Leave(b"y".into()));
    }

    #[test]
    fn a_guest_that_takes_no_keys_does_not_keep_the_user() {
        let (sender, typed) = mpsc::sync_channel(1);
        let leave = AtomicBool::new(false);
        // More than a guest has room for, and then the way out.
        let keys = [&[b'k'; 5000][..], b"\x01x"].concat();
        read_keys(&keys[..], &sender, &leave);
        assert!(leave.load(Ordering::Relaxed));
        assert_eq!(typed.try_recv().unwrap(), [b'k'; 1024]);
        // A script waits instead, and loses nothing.
        let reader = std::thread::spawn(move || read_script(&b"a\n".repeat(2000)[..], &sender));
        let all: Vec<u8> = typed.iter().flatten().collect();
        reader.join().unwrap();
        assert_eq!(all, b"a\r".repeat(2000));
    }
}
