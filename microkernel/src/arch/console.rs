//! The debug console: text on the UART of the backend (`serial`).

use core::fmt;

use super::backend::serial;

/// For `write!`.
pub struct Console;

impl Console {
    /// Writes bytes; a line feed gets its carriage return.
    pub fn write(bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                serial::put(b'\r');
            }
            serial::put(byte);
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Console::write(text.as_bytes());
        Ok(())
    }
}
