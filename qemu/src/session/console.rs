//! The guest's first serial port, as the host sees it.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the guest prints on its first serial port, kept, logged and perhaps shown.
#[derive(Debug)]
pub struct Console {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    /// Reads what comes, for as long as the guest prints.
    ///
    /// # Errors
    /// If the log cannot be made.
    pub fn start(mut guest: UnixStream, log: Option<&Path>, show: bool) -> Result<Console> {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        let mut log = match log {
            Some(path) => Some(
                File::create(path)
                    .with_context(|| format!("making the log of the console {}", path.display()))?,
            ),
            None => None,
        };
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = guest.read(&mut buffer) {
                let bytes = &buffer[..count];
                if let Ok(mut kept) = kept.lock() {
                    kept.extend_from_slice(bytes);
                }
                if let Some(log) = &mut log {
                    let _ = log.write_all(bytes);
                }
                if show {
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(bytes).and_then(|()| out.flush());
                }
            }
        });
        Ok(Console { text, reader: Some(reader) })
    }

    /// All of it until now.
    pub fn text(&self) -> String {
        let text = self.text.lock().map(|text| text.clone()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether the root server tells of a death in the lines from byte `seen` on, which are seen
    /// then.
    pub fn tells_of_death(&self, seen: &mut usize) -> bool {
        let Ok(text) = self.text.lock() else { return false };
        let new = &text[*seen..];
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        *seen += whole;
        let lines = String::from_utf8_lossy(&new[..whole]);
        [" requests in flight)", " request in flight)"].iter().any(|told| lines.contains(told))
    }

    /// Waits until everything that the guest printed is here. Only after QEMU's end.
    pub fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
