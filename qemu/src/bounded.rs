//! What others send without end, kept within bounds.

use anyhow::{Result, ensure};

/// The last bytes of a stream, and how many there were before them.
#[derive(Debug)]
pub struct Tail {
    bytes: Vec<u8>,
    /// So many are always kept, and twice as many at most.
    limit: usize,
    dropped: u64,
}

impl Tail {
    /// Keeps the last `limit` bytes (and up to as many more).
    pub fn new(limit: usize) -> Tail {
        Tail { bytes: Vec::new(), limit, dropped: 0 }
    }

    /// Takes bytes in, and lets the oldest go.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * self.limit {
            let excess = self.bytes.len() - self.limit;
            self.bytes.drain(..excess);
            self.dropped += excess as u64;
        }
    }

    /// What is kept, below a line that tells how much is not.
    pub fn text(&self) -> String {
        let kept = String::from_utf8_lossy(&self.bytes);
        match self.dropped {
            0 => kept.into_owned(),
            dropped => format!("[{dropped} bytes before this are not kept]\n{kept}"),
        }
    }
}

/// Bytes that one line of commands may print where its output is kept in memory.
const CAPTURE_LIMIT: usize = 64 << 20;

/// Adds `more` to captured output.
///
/// # Errors
/// If that is more than fits.
pub fn capture(bytes: &mut Vec<u8>, more: &[u8]) -> Result<()> {
    ensure!(
        bytes.len() + more.len() <= CAPTURE_LIMIT,
        "the commands printed more than the {CAPTURE_LIMIT} bytes that are kept of a line"
    );
    bytes.extend_from_slice(more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_counts_the_rest() {
        let mut tail = Tail::new(4);
        tail.push(b"12345678");
        assert_eq!(tail.text(), "12345678");
        tail.push(b"9");
        assert_eq!(tail.text(), "[5 bytes before this are not kept]\n6789");
        tail.push(&[b'x'; 100]);
        assert_eq!(tail.text(), "[105 bytes before this are not kept]\nxxxx");
    }

    #[test]
    fn captured_output_has_an_end() {
        let mut bytes = Vec::new();
        let piece = vec![0; CAPTURE_LIMIT / 2];
        assert!(capture(&mut bytes, &piece).is_ok() && capture(&mut bytes, &piece).is_ok());
        let error = capture(&mut bytes, b"x").unwrap_err().to_string();
        assert!(error.contains("67108864 bytes"), "{error}");
    }
}
