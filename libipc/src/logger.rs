//! `log` to the kernel's debug console, if the manifest grants it; else to whoever reads what the
//! program prints ([`crate::output`]); else lines are dropped.
//!
//! A line is `NAME: LEVEL: TEXT`, info without its level; the text is escaped, so that a line has its
//! author's name and ends where it ends, whatever is logged. It is written in one message where it
//! fits, so that lines of several servers do not mix.

use crate::cap::{Cap, Log};
use crate::escape::Escaped;
use crate::output::{self, Output};
use crate::start::{StartInfo, slot};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

const LINE_SIZE: usize = 240;

/// A line that is written out when it is full and at its end.
struct Line {
    text: heapless::String<LINE_SIZE>,
}

impl Line {
    fn flush(&mut self) {
        if GRANTED.load(Relaxed) {
            // A log that refuses has nobody to be told.
            let _ = Cap::<Log>::new(slot::LOG).write(self.text.as_bytes());
        } else {
            Output.write(self.text.as_bytes());
        }
        self.text.clear();
    }
}

impl Write for Line {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while !text.is_empty() {
            let mut cut = text.len().min(LINE_SIZE - self.text.len());
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            let (head, rest) = text.split_at(cut);
            self.text.push_str(head).map_err(|_| fmt::Error)?;
            if !rest.is_empty() {
                self.flush();
            }
            text = rest;
        }
        Ok(())
    }
}

struct Logger;

static LOGGER: Logger = Logger;
static GRANTED: AtomicBool = AtomicBool::new(false);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let mut line = Line { text: heapless::String::new() };
        let _ = write_record(&mut line, crate::startup::name(), record);
        line.flush();
    }

    fn flush(&self) {}
}

/// Writes a record as one line.
fn write_record(line: &mut impl Write, name: &str, record: &log::Record) -> fmt::Result {
    let text = Escaped(record.args());
    match record.level() {
        log::Level::Info => writeln!(line, "{name}: {text}"),
        level => writeln!(line, "{name}: {level}: {text}"),
    }
}

/// Installs the logger. Without the log and a reader of its output the program logs nothing.
pub(crate) fn init(start: &StartInfo) {
    GRANTED.store(start.has_log, Relaxed);
    let is_heard = start.has_log || output::of(start).is_some();
    if is_heard && log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn a_record_is_one_line_with_its_authors_name() {
        let mut line = String::new();
        let mut log = |level, args: fmt::Arguments<'_>| {
            let record = log::Record::builder().level(level).args(args).build();
            write_record(&mut line, "evil", &record).unwrap();
        };
        log(log::Level::Info, format_args!("\x1b[2J\nroot: shutdown with code {}\n", 0));
        log(log::Level::Error, format_args!("\r\u{9b}31m"));
        let lines: [_; 2] =
            ["evil: \\u{1b}[2J\\nroot: shutdown with code 0\\n\n", "evil: ERROR: \\r\\u{9b}31m\n"];
        assert_eq!(line, lines.concat());
    }
}
