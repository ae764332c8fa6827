//! The line editor: bytes from a terminal in, text and edits out.
//!
//! It knows the usual keys of a VT100 (arrows, Home, End, Delete, Ctrl-A E B F P N D H K U W L C,
//! Tab), keeps a bounded history, and treats text as UTF-8 characters of one column each. It
//! draws with backspaces and "erase to the end of the line" only, so it needs no terminal size.
//! Not here: where bytes come from, what a line means, what can be completed.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Lines kept in the history.
pub const HISTORY: usize = 100;
/// Bytes of a line at most; further characters are refused with a bell.
pub const MAX_LINE: usize = 1024;

/// What a byte led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The line is complete (without its end); it is in the history already.
    Line(String),
    /// Ctrl-C: what is running should stop; the line was dropped.
    Interrupt,
    /// Tab: the caller answers with [`Editor::complete`].
    Complete,
    /// Ctrl-D on an empty line.
    EndOfInput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Start,
    Sequence(u8),
}

/// The state of one terminal.
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    history: VecDeque<String>,
    /// How far back the line shown is; 0 is the line being typed.
    back: usize,
    typed: Vec<char>,
    escape: Escape,
    partial: Vec<u8>,
    last_was_return: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An editor with an empty line and history.
    pub const fn new() -> Self {
        Editor {
            line: Vec::new(),
            cursor: 0,
            history: VecDeque::new(),
            back: 0,
            typed: Vec::new(),
            escape: Escape::None,
            partial: Vec::new(),
            last_was_return: false,
        }
    }

    /// The text before the cursor: what a completion completes.
    pub fn before_cursor(&self) -> String {
        self.line[..self.cursor].iter().collect()
    }

    /// The whole line, to draw it again behind a prompt.
    pub fn redraw(&self, out: &mut String) {
        out.extend(self.line.iter());
        back(out, self.line.len() - self.cursor);
    }

    /// Takes one byte; what the terminal should show is appended to `out`.
    pub fn byte(&mut self, byte: u8, out: &mut String) -> Option<Event> {
        let after_return = core::mem::replace(&mut self.last_was_return, byte == b'\r');
        match self.escape {
            Escape::Start => {
                self.escape =
                    if matches!(byte, b'[' | b'O') { Escape::Sequence(0) } else { Escape::None };
                return None;
            }
            Escape::Sequence(number) => {
                self.sequence(number, byte, out);
                return None;
            }
            Escape::None => {}
        }
        match byte {
            b'\n' if after_return => None,
            b'\r' | b'\n' => Some(self.enter(out)),
            0x1b => {
                self.escape = Escape::Start;
                None
            }
            b'\t' => Some(Event::Complete),
            0x00..0x20 | 0x7f => self.control(byte, out),
            _ => {
                self.text(byte, out);
                None
            }
        }
    }

    fn control(&mut self, byte: u8, out: &mut String) -> Option<Event> {
        match byte {
            0x01 => self.move_to(0, out),
            0x02 => self.move_to(self.cursor.saturating_sub(1), out),
            0x03 => {
                out.push_str("^C\r\n");
                self.clear();
                return Some(Event::Interrupt);
            }
            0x04 if self.line.is_empty() => return Some(Event::EndOfInput),
            0x04 => self.remove(self.cursor, self.cursor + 1, out),
            0x05 => self.move_to(self.line.len(), out),
            0x06 => self.move_to(self.cursor + 1, out),
            0x08 | 0x7f => self.remove(self.cursor.saturating_sub(1), self.cursor, out),
            0x0b => self.remove(self.cursor, self.line.len(), out),
            0x0c => {
                out.push_str("\x1b[2J\x1b[H");
                return Some(Event::Line(String::new()));
            }
            0x0e => self.recall(self.back.saturating_sub(1), out),
            0x10 => self.recall(self.back + 1, out),
            0x15 => self.remove(0, self.cursor, out),
            0x17 => {
                let mut start = self.cursor;
                while start > 0 && self.line[start - 1] == ' ' {
                    start -= 1;
                }
                while start > 0 && self.line[start - 1] != ' ' {
                    start -= 1;
                }
                self.remove(start, self.cursor, out);
            }
            _ => out.push('\x07'),
        }
        None
    }

    fn sequence(&mut self, number: u8, byte: u8, out: &mut String) {
        self.escape = Escape::None;
        match byte {
            b'0'..=b'9' => {
                let number = number.wrapping_mul(10).wrapping_add(byte - b'0');
                self.escape = Escape::Sequence(number);
            }
            b';' => self.escape = Escape::Sequence(0),
            b'A' => self.recall(self.back + 1, out),
            b'B' => self.recall(self.back.saturating_sub(1), out),
            b'C' => self.move_to(self.cursor + 1, out),
            b'D' => self.move_to(self.cursor.saturating_sub(1), out),
            b'H' => self.move_to(0, out),
            b'F' => self.move_to(self.line.len(), out),
            b'~' if matches!(number, 1 | 7) => self.move_to(0, out),
            b'~' if matches!(number, 4 | 8) => self.move_to(self.line.len(), out),
            b'~' if number == 3 => self.remove(self.cursor, self.cursor + 1, out),
            _ => {}
        }
    }

    fn text(&mut self, byte: u8, out: &mut String) {
        self.partial.push(byte);
        let character = match core::str::from_utf8(&self.partial) {
            Ok(text) => text.chars().next(),
            Err(error) if error.error_len().is_none() => return,
            Err(_) => None,
        };
        self.partial.clear();
        match character {
            Some(character) => self.insert(&[character], out),
            None => out.push('\x07'),
        }
    }

    fn insert(&mut self, text: &[char], out: &mut String) {
        let bytes: usize = self.line.iter().chain(text).map(|c| c.len_utf8()).sum();
        if bytes > MAX_LINE {
            out.push('\x07');
            return;
        }
        self.line.splice(self.cursor..self.cursor, text.iter().copied());
        out.extend(self.line[self.cursor..].iter());
        self.cursor += text.len();
        back(out, self.line.len() - self.cursor);
    }

    fn move_to(&mut self, place: usize, out: &mut String) {
        let place = place.min(self.line.len());
        if place < self.cursor {
            back(out, self.cursor - place);
        } else {
            out.extend(self.line[self.cursor..place].iter());
        }
        self.cursor = place;
    }

    fn remove(&mut self, start: usize, end: usize, out: &mut String) {
        let end = end.min(self.line.len());
        if start >= end {
            return;
        }
        self.move_to(start, out);
        self.line.drain(start..end);
        out.push_str("\x1b[K");
        out.extend(self.line[start..].iter());
        back(out, self.line.len() - start);
    }

    fn recall(&mut self, steps_back: usize, out: &mut String) {
        if steps_back > self.history.len() {
            out.push('\x07');
            return;
        }
        if self.back == 0 {
            self.typed = self.line.clone();
        }
        self.move_to(0, out);
        self.back = steps_back;
        self.line = match steps_back {
            0 => core::mem::take(&mut self.typed),
            n => self.history[self.history.len() - n].chars().collect(),
        };
        out.push_str("\x1b[K");
        out.extend(self.line.iter());
        self.cursor = self.line.len();
    }

    fn enter(&mut self, out: &mut String) -> Event {
        self.move_to(self.line.len(), out);
        out.push_str("\r\n");
        let line: String = self.line.iter().collect();
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        self.clear();
        Event::Line(line)
    }

    fn clear(&mut self) {
        self.line.clear();
        self.typed.clear();
        self.partial.clear();
        self.cursor = 0;
        self.back = 0;
    }

    /// Completes the word before the cursor. `stem` is how many of its last characters the
    /// candidates replace; one candidate is inserted, of several the common beginning, and if
    /// that is nothing new they are listed (the caller then draws prompt and line again).
    /// Returns whether it listed.
    pub fn complete(&mut self, stem: usize, candidates: &[String], out: &mut String) -> bool {
        let stem = stem.min(self.cursor);
        let Some(first) = candidates.first() else {
            out.push('\x07');
            return false;
        };
        let common = candidates.iter().skip(1).fold(first.chars().count(), |length, other| {
            first.chars().zip(other.chars()).take(length).take_while(|(a, b)| a == b).count()
        });
        if common > stem {
            let text: Vec<char> = first.chars().take(common).collect();
            self.remove(self.cursor - stem, self.cursor, out);
            self.insert(&text, out);
            return false;
        }
        if candidates.len() == 1 {
            return false;
        }
        out.push_str("\r\n");
        for candidate in candidates {
            out.push_str(candidate);
            out.push_str("  ");
        }
        out.push_str("\r\n");
        true
    }
}

fn back(out: &mut String, count: usize) {
    for _ in 0..count {
        out.push('\x08');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal one row high: enough to prove that what is drawn is what is edited.
    fn screen(drawn: &str) -> String {
        let (mut row, mut column) = (Vec::<char>::new(), 0usize);
        let mut chars = drawn.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x08' => column -= 1,
                '\x1b' => {
                    assert_eq!((chars.next(), chars.next()), (Some('['), Some('K')));
                    row.truncate(column);
                }
                '\x07' => {}
                '\r' | '\n' => {
                    row.clear();
                    column = 0;
                }
                c => {
                    if column == row.len() {
                        row.push(c);
                    } else {
                        row[column] = c;
                    }
                    column += 1;
                }
            }
        }
        row.into_iter().collect()
    }

    fn feed(editor: &mut Editor, bytes: &[u8]) -> (Vec<Event>, String) {
        let mut out = String::new();
        let events = bytes.iter().filter_map(|b| editor.byte(*b, &mut out)).collect();
        (events, out)
    }

    #[test]
    fn editing_in_the_middle_shows_what_it_holds() {
        let mut editor = Editor::new();
        let (_, out) = feed(&mut editor, b"cat /disk/x\x1b[D\x1b[DBIG\x01l\x05.\x7f\x1b[3~");
        assert_eq!(screen(&out), "lcat /diskBIG/x");
        let (events, _) = feed(&mut editor, b"\r\n");
        assert_eq!(events, [Event::Line("lcat /diskBIG/x".into())]);
    }

    #[test]
    fn kill_keys_and_words() {
        let mut editor = Editor::new();
        let (_, out) = feed(&mut editor, b"one two  three\x17\x17four\x02\x02\x0b");
        assert_eq!(screen(&out), "one fo");
        let (_, out) = feed(&mut editor, b"\x15");
        assert_eq!(screen(&(String::from("one fo") + &out)), "");
    }

    #[test]
    fn history_keeps_the_typed_line() {
        let mut editor = Editor::new();
        feed(&mut editor, b"a\rb\rb\rty");
        let (_, out) = feed(&mut editor, b"\x1b[A\x1b[A\x1b[A");
        assert_eq!(editor.before_cursor(), "a");
        assert!(out.ends_with('\x07'));
        feed(&mut editor, b"\x1b[B\x1b[B");
        assert_eq!(editor.before_cursor(), "ty");
    }

    #[test]
    fn completion_inserts_what_is_common_then_lists() {
        let mut editor = Editor::new();
        feed(&mut editor, b"cat /disk/HE");
        let names = [String::from("HELLO.TXT"), String::from("HELP.TXT")];
        let mut out = String::new();
        assert!(!editor.complete(2, &names, &mut out));
        assert_eq!(editor.before_cursor(), "cat /disk/HEL");
        assert!(editor.complete(3, &names, &mut out));
        assert!(out.contains("HELP.TXT"));
    }

    #[test]
    fn utf8_control_and_overlong_input() {
        let mut editor = Editor::new();
        feed(&mut editor, "ä€".as_bytes());
        assert_eq!(editor.before_cursor(), "ä€");
        feed(&mut editor, &[0xff, b'x']);
        assert_eq!(editor.before_cursor(), "ä€x");
        assert_eq!(feed(&mut editor, b"\x03").0, [Event::Interrupt]);
        assert_eq!(feed(&mut editor, b"\x04").0, [Event::EndOfInput]);
        feed(&mut editor, &[b'y'; MAX_LINE + 50]);
        assert_eq!(editor.before_cursor().len(), MAX_LINE);
    }
}
