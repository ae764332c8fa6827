//! Text from others, shown as text: what a program, a disk or a peer wrote is data, and must not move
//! a cursor, end a line, or look like somebody else's words on a terminal, in a log or in a record.
//!
//! Escaped are: control characters (line feeds and tabs included), the characters that break lines,
//! change the direction of writing or are not seen, and bytes that are no UTF-8. What comes out has
//! none of them, so escaping twice is escaping once; a backslash stays what it is.
//!
//! Not here: who wrote it. Whoever shows the text says so before it.

use core::fmt::{self, Display, Write};

/// Shows a text escaped, whatever it is.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Shows bytes escaped: as text where they are UTF-8, by `\x..` where they are not.
#[derive(Clone, Copy, Debug)]
pub struct EscapedBytes<'a>(pub &'a [u8]);

impl Display for EscapedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            Escaping(&mut *f).write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Escapes what is written through it.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, character) in text.char_indices().filter(|(_, c)| must_be_escaped(*c)) {
            self.0.write_str(&text[plain..at])?;
            plain = at + character.len_utf8();
            match character {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                other => write!(self.0, "\\u{{{:x}}}", other as u32)?,
            }
        }
        self.0.write_str(&text[plain..])
    }
}

/// Whether a character does more, or less, than to be seen where it stands.
pub fn must_be_escaped(character: char) -> bool {
    // Of ASCII only these: the usual case, decided at once.
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    matches!(
        character,
        // C1 controls: terminals take U+009B for ESC [.
        '\u{80}'..='\u{9f}'
        // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
        | '\u{ad}' | '\u{61c}' | '\u{180e}'
        // Zero width, marks of direction; line and paragraph separator, embedding, override.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        // Invisible operators, isolates and deprecated controls of direction and shape.
        | '\u{2060}'..='\u{206f}'
        // Byte order mark; interlinear annotation; tags.
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::{String, ToString};

    fn bytes(bytes: &[u8]) -> String {
        EscapedBytes(bytes).to_string()
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        for plain in ["", "a b", "ä€ 日本語", "C:\\x", "\"'{}", "🦎"] {
            assert_eq!(Escaped(plain).to_string(), plain);
            assert_eq!(bytes(plain.as_bytes()), plain);
        }
    }

    #[test]
    fn what_is_not_only_seen_is_spelt_out() {
        let cases = [
            ("\x1b[2J\x1b[31m\nroot: x", "\\u{1b}[2J\\u{1b}[31m\\nroot: x"),
            ("a\r\tb\x07\x7f\0", "a\\r\\tb\\u{7}\\u{7f}\\u{0}"),
            ("\u{9b}2J \u{85}", "\\u{9b}2J \\u{85}"),
            ("\u{202e}txt\u{2066}", "\\u{202e}txt\\u{2066}"),
            ("\u{2028}\u{feff}\u{200b}", "\\u{2028}\\u{feff}\\u{200b}"),
        ];
        for (raw, escaped) in cases {
            assert_eq!(Escaped(raw).to_string(), escaped);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        assert_eq!(bytes(b"a\xff\xfeb"), "a\\xff\\xfeb");
        assert_eq!(bytes(b"\xe2\x82"), "\\xe2\\x82", "the beginning of a character");
        assert_eq!(bytes(b"\xc2\x9b"), "\\u{9b}");
        assert_eq!(bytes(b"\xf0\x9f\xa6\x8e\n\x80"), "🦎\\n\\x80");
    }

    #[test]
    fn pieces_of_a_text_are_escaped_as_the_whole() {
        let whole = Escaped(format_args!("{}{:>4}{}", "a\n", "\r", '\x1b')).to_string();
        assert_eq!(whole, "a\\n   \\r\\u{1b}");
    }

    proptest! {
        #[test]
        fn nothing_harmful_comes_out_and_twice_is_once(raw in prop::collection::vec(any::<u8>(), 0..80)) {
            let once = bytes(&raw);
            prop_assert!(!once.chars().any(must_be_escaped));
            prop_assert!(!once.chars().any(char::is_control));
            prop_assert_eq!(&Escaped(&once).to_string(), &once);
        }

        #[test]
        fn no_control_of_any_kind_comes_out(raw in any::<String>()) {
            let once = format!("{}", Escaped(&raw));
            prop_assert!(!once.chars().any(must_be_escaped));
        }
    }
}
