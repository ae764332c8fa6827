//! Lines on the kernel's log: `root: …`, one system call each, cut at 256 bytes. Each is one line,
//! whatever the text has in it.

use core::fmt::{Arguments, Write};

use heapless::String;
use libipc::cap::{self, Cap};
use libipc::escape::Escaped;
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
    let _ = write!(line, "root: {}", Escaped(text));
    if line.0.len() == LINE {
        line.0.pop();
    }
    let _ = line.0.push('\n');
    // A log that cannot be written to is no reason to stop.
    let _ = Cap::<cap::Log>::from_slot(boot::LOG).write(line.0.as_bytes());
}
