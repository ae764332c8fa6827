//! Text from others in several lines, made harmless for a terminal: as the guest escapes a line
//! ([`libipc::escape`]), but with the line breaks and tabs left as they are.

use libipc::escape::Escaped;
use std::fmt::Write;

const KEPT: [char; 2] = ['\n', '\t'];

/// The text, escaped but for line breaks and tabs.
pub fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for piece in text.split_inclusive(KEPT) {
        let body = piece.trim_end_matches(KEPT);
        let _ = write!(escaped, "{}{}", Escaped(body), &piece[body.len()..]);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_the_rest_stays() {
        let plain = "\na line\n\n\tmit Umlauten äöü, ж and \u{1f98e}\n";
        assert_eq!(text(plain), plain);
        assert_eq!(text("a\tb, no end"), "a\tb, no end");
        assert_eq!(text("\x1b[2Jx\r\n\x07\x7f"), "\\u{1b}[2Jx\\r\n\\u{7}\\u{7f}");
        assert_eq!(text("\u{200b}\u{ad}\u{e0041}"), "\\u{200b}\\u{ad}\\u{e0041}");
        assert_eq!(text("\u{9b}2J \u{202e}txt.exe\u{2066}"), "\\u{9b}2J \\u{202e}txt.exe\\u{2066}");
    }
}
