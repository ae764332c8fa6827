//! What QEMU itself says, on its standard error. A guest can make it say much: it is read as it
//! comes, and its end is kept.

use crate::bounded::Tail;
use crate::progress::tail;
use std::io::Read;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that are kept.
const KEPT: usize = 1 << 20;
/// Lines that are shown.
const SHOWN: usize = 10;
/// How long the end of the messages may take after QEMU's. Only a process that QEMU left behind with
/// its standard error keeps it open longer.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// QEMU's messages.
#[derive(Debug)]
pub struct Messages {
    said: Arc<Mutex<Tail>>,
    reader: JoinHandle<()>,
}

impl Messages {
    /// Reads until QEMU's end.
    pub fn read(mut from: ChildStderr) -> Messages {
        let said = Arc::new(Mutex::new(Tail::new(KEPT)));
        let kept = said.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                locked(&kept).push(&buffer[..count]);
            }
        });
        Messages { said, reader }
    }

    /// Waits until everything is here. Only after QEMU's end.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        while !self.reader.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything that is kept.
    pub fn all(&self) -> String {
        locked(&self.said).text()
    }

    /// The last lines, with what to do about them.
    pub fn end(&self) -> String {
        let said = tail(self.all().trim_end(), SHOWN);
        if said.contains("Failed to get \"write\" lock") {
            return format!(
                "{said}\nanother QEMU uses that disk; give this one its own: --disk FILE"
            );
        }
        said
    }
}

fn locked(said: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn said(script: &str) -> Messages {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = Messages::read(child.stderr.take().unwrap());
        child.wait().unwrap();
        messages.finish();
        messages
    }

    #[test]
    fn a_flood_of_messages_is_read_and_its_end_kept() {
        let messages = said("yes 'qemu: bad' | head -c 8000000 >&2; echo last >&2");
        let all = messages.all();
        assert!(all.len() < 3 * KEPT && all.starts_with('['), "{} bytes", all.len());
        assert!(messages.end().ends_with("qemu: bad\nlast"), "{}", messages.end());
    }

    #[test]
    fn a_disk_in_use_is_explained() {
        let messages = said("echo 'qemu: Failed to get \"write\" lock' >&2");
        assert!(messages.end().ends_with("its own: --disk FILE"), "{}", messages.end());
    }
}
