//! `log` to the kernel's debug console, if the manifest grants it; else to whoever reads what the
//! program prints ([`crate::output`]); else lines are dropped.
//!
//! A line is `NAME: LEVEL: TEXT`, info without its level. It is written in one message where it
//! fits, so that lines of several servers do not mix.

use crate::cap::{Cap, Log};
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
        let name = crate::startup::name();
        let _ = match record.level() {
            log::Level::Info => writeln!(line, "{name}: {}", record.args()),
            level => writeln!(line, "{name}: {level}: {}", record.args()),
        };
        line.flush();
    }

    fn flush(&self) {}
}

/// Installs the logger. Without the log and a reader of its output the program logs nothing.
pub(crate) fn init(start: &StartInfo) {
    GRANTED.store(start.has_log, Relaxed);
    let is_heard = start.has_log || output::of(start).is_some();
    if is_heard && log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
