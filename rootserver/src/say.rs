//! Lines on the kernel's log: `root: …`, one system call each, cut at 256 bytes.

use core::fmt::{Arguments, Write};

use heapless::String;
use libipc::cap::{self, Cap};
use skink_abi::bootinfo::slot as boot;

/// Logs a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::say::line(::core::format_args!($($argument)*)) };
}

/// Bytes of a line at most.
const LINE: usize = 256;

struct Line(String<LINE>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            if self.0.push(character).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Writes `root: ` and the text.
pub fn line(text: Arguments<'_>) {
    let mut line = Line(String::new());
    let _ = writeln!(line, "root: {text}");
    // A log that cannot be written to is no reason to stop.
    let _ = Cap::<cap::Log>::from_slot(boot::LOG).write(line.0.as_bytes());
}
