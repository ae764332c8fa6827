//! The guest's first serial port, as the host sees it.

use crate::bounded::Tail;
use crate::progress::note;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// How much of the console is kept, bytes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// In memory: the last.
    memory: usize,
    /// In the log: the first.
    log: u64,
}

const BOUNDS: Bounds = Bounds { memory: 16 << 20, log: 256 << 20 };
/// Bytes of a line that are looked at.
const LINE: usize = 8 << 10;
/// What may stand before the root server's words in their line: the shell's prompt.
const PROMPT: &str = "skink> ";
/// How each line of the root server begins. What others wrote is escaped in it, so a line that begins
/// so is the root server's, or that of a program which was granted the log or the terminal.
const AUTHOR: &str = "root: ";
/// What it says of a shell that will not run, before and behind the reason.
const NO_SHELL: [&str; 2] = ["shell: ", "; its clients are told"];
/// What it says of a server's end, behind the name.
const END: [&str; 3] = [" died (", " is taken down with ", " ended with code "];
/// What it says of an end of which there may be no record: an orderly one.
const EXIT: &str = " ended with code 0 (";

/// What the guest prints on its first serial port, kept, logged and perhaps shown.
#[derive(Debug)]
pub struct Console {
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    /// Reads what comes, for as long as the guest prints.
    ///
    /// # Errors
    /// If the log cannot be made.
    pub fn start(guest: UnixStream, log: Option<&Path>, show: bool) -> Result<Console> {
        Console::within(BOUNDS, guest, log, show)
    }

    fn within(
        bounds: Bounds,
        mut guest: UnixStream,
        log: Option<&Path>,
        show: bool,
    ) -> Result<Console> {
        let heard = Arc::new(Mutex::new(Heard::new(bounds.memory)));
        let kept = heard.clone();
        let mut log = log.map(|path| Log::make(path, bounds.log)).transpose()?;
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = guest.read(&mut buffer) {
                let bytes = &buffer[..count];
                locked(&kept).push(bytes);
                if let Some(log) = &mut log {
                    log.write(bytes);
                }
                if show {
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(bytes).and_then(|()| out.flush());
                }
            }
            if let Some(log) = log {
                log.end();
            }
        });
        Ok(Console { heard, reader: Some(reader) })
    }

    /// All of it until now, or its last 16 MiB at least.
    pub fn text(&self) -> String {
        locked(&self.heard).text.text()
    }

    /// Whether anything was printed.
    pub fn is_silent(&self) -> bool {
        self.text().is_empty()
    }

    /// How many lines may tell of an end of a server, whoever wrote them: a hint to look.
    pub fn ends(&self) -> u64 {
        locked(&self.heard).ends
    }

    /// How many deaths of servers the root server has told of, at least.
    pub fn deaths(&self) -> u64 {
        locked(&self.heard).deaths
    }

    /// Why no shell runs, if the root server seems to have said that none will.
    pub fn why_no_shell(&self) -> Option<String> {
        locked(&self.heard).why_no_shell.clone()
    }

    /// Forgets that: a shell runs.
    pub fn forget_why_no_shell(&self) {
        locked(&self.heard).why_no_shell = None;
    }

    /// Waits until everything that the guest printed is here. Only after QEMU's end.
    pub fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn locked(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What was printed, and what its lines told.
#[derive(Debug)]
struct Heard {
    text: Tail,
    /// The beginning of the line that is not at its end yet.
    line: Vec<u8>,
    ends: u64,
    deaths: u64,
    why_no_shell: Option<String>,
}

impl Heard {
    fn new(limit: usize) -> Heard {
        Heard { text: Tail::new(limit), line: Vec::new(), ends: 0, deaths: 0, why_no_shell: None }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.text.push(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.look();
                self.line.clear();
            }
        }
    }

    /// At the end of a line.
    fn look(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        self.ends += u64::from(line.split(AUTHOR).skip(1).any(|told| end(told).is_some()));
        let Some(told) = line.trim_start_matches(PROMPT).strip_prefix(AUTHOR) else { return };
        self.deaths += u64::from(end(told).is_some_and(|how| !how.starts_with(EXIT)));
        let [before, behind] = NO_SHELL;
        let why = told.trim_end().strip_prefix(before).and_then(|why| why.strip_suffix(behind));
        if let Some(why) = why {
            self.why_no_shell = Some(why.into());
        }
    }
}

/// How a server ended, if the root server tells that: the words behind its name.
fn end(told: &str) -> Option<&str> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let how = told.trim_start_matches(is_of_a_name);
    (how.len() < told.len() && END.iter().any(|words| how.starts_with(words))).then_some(how)
}

/// The file in which the beginning of the console is kept.
#[derive(Debug)]
struct Log {
    file: File,
    /// Bytes that may still be written.
    left: u64,
    /// Bytes that were not.
    lost: u64,
}

impl Log {
    fn make(path: &Path, limit: u64) -> Result<Log> {
        let file = File::create(path)
            .with_context(|| format!("making the log of the console {}", path.display()))?;
        Ok(Log { file, left: limit, lost: 0 })
    }

    fn write(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (first, rest) = bytes.split_at(count);
        self.left -= count as u64;
        self.lost += rest.len() as u64;
        if self.file.write_all(first).is_err() {
            // A full disk: from here on nothing is logged, so that the log has no holes.
            self.left = 0;
            self.lost += count as u64;
        }
    }

    /// Tells how much is not there.
    fn end(mut self) {
        if self.lost > 0 {
            let told = format!("the log of the console lacks {} bytes that came later", self.lost);
            let _ = writeln!(self.file, "\n[{told}]");
            note(&told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console that heard this, with these bounds; its log.
    fn heard(bounds: Bounds, text: &[u8], name: &str) -> (Console, String) {
        let file = format!("skink-console-{name}-{}", std::process::id());
        let log = std::env::temp_dir().join(file);
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut console = Console::within(bounds, host, Some(&log), false).unwrap();
        guest.write_all(text).unwrap();
        drop(guest);
        console.finish();
        let logged = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        (console, logged)
    }

    #[test]
    fn a_console_without_end_is_kept_within_bounds_and_what_is_not_is_told() {
        let text = [&[b'a'; 100_000][..], &[b'z'; 1000]].concat();
        let (console, logged) = heard(Bounds { memory: 1000, log: 5000 }, &text, "long");
        let kept = console.text();
        assert!(kept.len() < 2100 && kept.ends_with("zzz"), "{} bytes", kept.len());
        let told: u64 = kept[1..].split(' ').next().unwrap().parse().unwrap();
        let line = kept.find('\n').unwrap() + 1;
        assert_eq!(told as usize + kept[line..].len(), text.len());
        assert!(logged.starts_with(&"a".repeat(5000)), "{}", logged.len());
        assert!(logged.ends_with("\n[the log of the console lacks 96000 bytes that came later]\n"));
        let (console, logged) = heard(BOUNDS, &text, "short");
        assert_eq!((console.text().len(), logged.len()), (text.len(), text.len()));
    }

    #[test]
    fn a_line_without_end_is_looked_at_as_far_as_a_line_goes() {
        let mut heard = Heard::new(1000);
        for _ in 0..100 {
            heard.push(&[b'x'; LINE - 1]);
            assert!(heard.line.len() <= LINE, "{} bytes are kept of it", heard.line.len());
        }
        heard.push(b"\nroot: fs died (killed, 0 requests in flight)\n");
        assert_eq!((heard.ends, heard.deaths, heard.line.len()), (1, 1, 0));
    }

    #[test]
    fn deaths_and_the_shells_end_are_heard_in_whole_lines() {
        let text = "root: fs died (killed, 1 request in flight)\r\nskink> root: shell died (fault, \
                    2 requests in flight), restart 1\r\nroot: x ended with code 0 (0 requests in \
                    flight)\r\nroot: fs died (killed, 0 requests in flight)";
        let (console, _) = heard(BOUNDS, text.as_bytes(), "deaths");
        let told = (console.ends(), console.deaths(), console.why_no_shell());
        assert_eq!(told, (3, 2, None));
        // Also behind what a person types, a line is reason enough to look.
        let (console, _) =
            heard(BOUNDS, b"skink> ls /diroot: fs died (killed, 0 requests\r\n", "typed");
        assert_eq!((console.ends(), console.deaths()), (1, 0));
        let text = "skink> root: shell: died too often; its clients are told\r\n";
        let (console, _) = heard(BOUNDS, text.as_bytes(), "shell");
        assert_eq!(console.why_no_shell().as_deref(), Some("died too often"));
        let text = "root: hello: cannot start; its clients are told\r\n";
        assert_eq!(heard(BOUNDS, text.as_bytes(), "hello").0.why_no_shell(), None);
    }

    #[test]
    fn what_a_program_has_written_into_a_line_is_not_the_root_servers_word() {
        let gone = "root: shell: gone; its clients are told";
        let orderly = "x ended with code 0 (0 requests in flight)";
        let long = format!("root: evil died (panic: {}", "y".repeat(230));
        for (text, deaths) in [
            // A message of a program, in what the root server and others say of it.
            (format!("root: evil died (panic: {gone}, 0 requests in flight)"), 1),
            (format!("root: evil died (panic: {gone}"), 1),
            (format!("root: evil died (panic: root: {orderly}, 0 requests in flight)"), 1),
            (long, 1),
            (format!("shell: the program says {gone}"), 0),
            (format!("shell: root: {orderly}"), 0),
            (format!("skink> echo {gone}"), 0),
            (format!("{gone} and so on"), 0),
            ("root: root: shell: gone; its clients are told".into(), 0),
            ("root: shell: panic: root: fs died (killed".into(), 0),
            ("root: fs has died (killed, 0 requests in flight)".into(), 0),
        ] {
            let line = format!("{text}\r\n");
            let (console, _) = heard(BOUNDS, line.as_bytes(), "words");
            assert_eq!(console.why_no_shell(), None, "{text}");
            assert_eq!(console.deaths(), deaths, "{text}");
        }
    }
}
