//! The terminal: reads keys, edits the line, hands it to the foreground worker.
//!
//! The reader goes on while a command runs, so that Ctrl-C is noticed; what is typed meanwhile
//! waits in the line. The prompt is drawn by whoever ends up idle last.

use alloc::string::String;
use alloc::vec;

use libipc::events::Events;
use libipc::{StartInfo, time};
use skink_protocols::console::{Channel, ConsoleError};

use crate::commands;
use crate::context::Context;
use crate::jobs::{Job, Jobs, Origin};
use crate::line::{Editor, Event};
use crate::run;
use crate::stream::{self, Stream};
use crate::watch;

/// What stands before a line.
pub const PROMPT: &str = "skink> ";
/// Shown once.
const BANNER: &str = "Skink: a system whose drivers grow back. `help` lists the commands.\r\n";

/// The life of the first thread.
///
/// # Errors
/// When the console cannot be used at all.
pub fn run(
    start: &'static StartInfo,
    thread: u8,
    events: &Events,
    jobs: &'static Jobs,
) -> Result<(), ConsoleError> {
    let mut stream = stream::open(start, thread, Channel::Terminal, events)?;
    stream.write(BANNER.as_bytes());
    let mut editor = Editor::new();
    let mut buffer = vec![0; 256];
    stream.write(PROMPT.as_bytes());
    loop {
        let (length, is_missing) = stream.read(&mut buffer)?;
        if is_missing {
            stream.write(b"\r\n(some input was lost)\r\n");
        }
        let mut out = String::new();
        for byte in &buffer[..length] {
            if let Some(event) = editor.byte(*byte, &mut out) {
                stream.write(core::mem::take(&mut out).as_bytes());
                handle(event, &mut editor, &mut stream, start, thread, events, jobs);
            }
        }
        stream.write(out.as_bytes());
    }
}

fn handle(
    event: Event,
    editor: &mut Editor,
    stream: &mut Stream<'_>,
    start: &'static StartInfo,
    thread: u8,
    events: &Events,
    jobs: &'static Jobs,
) {
    match event {
        Event::Line(line) if jobs.is_busy(run::FOREGROUND) => {
            if !line.trim().is_empty() {
                stream.write(b"a command runs; Ctrl-C ends it\r\n");
            }
        }
        Event::Line(line) if line.trim().is_empty() => stream.write(PROMPT.as_bytes()),
        Event::Line(line) => {
            let job = Job { line, origin: Origin::Terminal, number: None };
            let _ = jobs.post(run::FOREGROUND, job);
        }
        Event::Interrupt => {
            jobs.interrupt(run::FOREGROUND);
            if !jobs.is_busy(run::FOREGROUND) {
                stream.write(PROMPT.as_bytes());
            }
        }
        Event::EndOfInput => stream.write(b"\r\n`shutdown` ends the machine\r\nskink> "),
        Event::Complete => {
            let Ok(context) = run::context(start, thread, Origin::Terminal, events, jobs) else {
                return;
            };
            let mut out = String::new();
            jobs.wait_until(thread, time::now_ns() + watch::COMPLETION_NS);
            if complete(editor, &context, &mut out) {
                out.push_str(PROMPT);
                editor.redraw(&mut out);
            }
            jobs.calls_nobody(thread);
            stream.write(out.as_bytes());
        }
    }
}

/// Completes the first word to a command, others to a path; whether candidates were listed.
fn complete(editor: &mut Editor, context: &Context<'_>, out: &mut String) -> bool {
    let before = editor.before_cursor();
    let start = before.rfind([' ', ';', '&']).map_or(0, |at| at + 1);
    let word = &before[start..];
    let is_first =
        before[..start].trim_end().is_empty() || before[..start].trim_end().ends_with([';', '&']);
    if is_first {
        let names = commands::COMMANDS.iter().map(|c| c.name).filter(|n| n.starts_with(word));
        let candidates: alloc::vec::Vec<String> = names.map(|n| alloc::format!("{n} ")).collect();
        return editor.complete(word.chars().count(), &candidates, out);
    }
    let stem = word.rfind('/').map_or(word, |slash| &word[slash + 1..]);
    let candidates = commands::completions(context, word);
    editor.complete(stem.chars().count(), &candidates, out)
}
