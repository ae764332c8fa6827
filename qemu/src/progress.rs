//! What the user sees while long work goes on: one line a step on standard error.
//!
//! Standard output belongs to the guest and to results ([`show`]).

use crate::escape;
use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Lines of a failed command's output that are shown.
const TAIL_LINES: usize = 25;

/// Prints one line about what is being done, or several about what went wrong. What the guest, QEMU
/// or a file's name put into it cannot harm the terminal.
pub fn note(line: &str) {
    eprintln!("skink: {}", escape::text(line));
}

/// Prints a result on standard output. What the guest put into it cannot harm the terminal.
pub fn show(text: &str) {
    println!("{}", escape::text(text));
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The command as a user would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quote = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with its output held back, a clock beside `label` while it runs, and shows the
/// end of the output if it fails.
///
/// # Errors
/// If the command cannot be started or fails; the text has the command and what it printed.
pub fn run_quietly(label: &str, command: &mut Command) -> Result<()> {
    let line = shown(command);
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{label}: cannot start `{line}`"))?;
    let (sender, output) = mpsc::channel::<Vec<u8>>();
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().context("no pipe")?),
        Box::new(child.stderr.take().context("no pipe")?),
    ];
    for mut pipe in pipes {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    drop(sender);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            break status;
        }
        show_clock(label, began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    };
    end_clock();
    if status.success() {
        note(&format!("{label}: done in {:.0} s", began.elapsed().as_secs_f64()));
        return Ok(());
    }
    let text: Vec<u8> = output.iter().flatten().collect();
    let text = String::from_utf8_lossy(&text);
    bail!("{label}: `{line}` failed ({status}):\n{}", tail(text.trim_end(), TAIL_LINES));
}

fn show_clock(label: &str, elapsed: Duration) {
    if std::io::stderr().is_terminal() {
        eprint!("\rskink: {label} … {} s", elapsed.as_secs());
        let _ = std::io::stderr().flush();
    }
}

fn end_clock() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_what_it_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo bad >&2; exit 3"]);
        let error = run_quietly("trying", &mut command).unwrap_err().to_string();
        assert!(error.contains("trying: `sh -c 'echo out; echo bad >&2; exit 3'`"), "{error}");
        assert!(error.contains("bad") && error.contains("out") && error.contains('3'), "{error}");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
