//! Text from others, made harmless for a terminal: it stays data, whatever is in it.

/// The text with every character that a terminal would obey written as `\u{…}`. Line breaks and
/// tabs stay.
pub fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && !matches!(c, '\n' | '\t') {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a terminal does something else with a character than show it: control characters (C0,
/// DEL, C1), and those that change the direction of text or break lines (Unicode's Bidi_Control,
/// U+2028 and U+2029).
pub fn is_harmful(c: char) -> bool {
    let breaks_or_turns = matches!(c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || breaks_or_turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_the_rest_stays() {
        let plain = "a line\n\tmit Umlauten äöü, ж and \u{1f98e}\n";
        assert_eq!(text(plain), plain);
        assert_eq!(text("\x1b[2Jx\r\x07\x7f"), "\\u{1b}[2Jx\\u{d}\\u{7}\\u{7f}");
        assert_eq!(text("\u{9b}2J \u{202e}txt.exe\u{2066}"), "\\u{9b}2J \\u{202e}txt.exe\\u{2066}");
    }
}
