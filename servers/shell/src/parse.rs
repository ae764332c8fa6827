//! The command language: words with quotes, `;`, `&`, comments. Nothing else; no expansion.
//!
//! `a b; c &` is two commands, the second in the background. A word may be quoted by `'…'`
//! (literal) or `"…"` (with `\"` and `\\`); outside quotes a backslash takes the next character
//! literally. `#` at the start of a word begins a comment.

use alloc::string::String;
use alloc::vec::Vec;

/// One command of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The words; the first is the name.
    pub words: Vec<String>,
    /// It ended in `&`: nobody waits for it.
    pub background: bool,
}

/// Why a line is no sequence of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// A quote is open at the end of the line.
    OpenQuote(char),
    /// A backslash is the last character.
    OpenEscape,
    /// `;` or `&` with no command before it.
    MissingCommand(char),
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ParseError::OpenQuote(quote) => write!(f, "the quote {quote} is not closed"),
            ParseError::OpenEscape => write!(f, "nothing follows the backslash"),
            ParseError::MissingCommand(mark) => write!(f, "no command stands before '{mark}'"),
        }
    }
}

/// Splits a line into commands.
///
/// # Errors
/// [`ParseError`]; nothing of the line should be run then.
pub fn parse(line: &str) -> Result<Vec<Command>, ParseError> {
    let mut commands = Vec::new();
    let mut command = Command::default();
    let mut chars = line.chars().peekable();
    while let Some(&next) = chars.peek() {
        match next {
            ' ' | '\t' | '\r' | '\n' => {
                chars.next();
            }
            '#' => break,
            ';' | '&' => {
                chars.next();
                if command.words.is_empty() {
                    return Err(ParseError::MissingCommand(next));
                }
                command.background = next == '&';
                commands.push(core::mem::take(&mut command));
            }
            _ => command.words.push(word(&mut chars)?),
        }
    }
    if !command.words.is_empty() {
        commands.push(command);
    }
    Ok(commands)
}

fn word(chars: &mut core::iter::Peekable<core::str::Chars<'_>>) -> Result<String, ParseError> {
    let mut word = String::new();
    while let Some(&next) = chars.peek() {
        match next {
            ' ' | '\t' | '\r' | '\n' | ';' | '&' => break,
            '\'' | '"' => {
                chars.next();
                rest_of_quote(next, chars, &mut word)?;
            }
            '\\' => {
                chars.next();
                word.push(chars.next().ok_or(ParseError::OpenEscape)?);
            }
            _ => {
                word.push(next);
                chars.next();
            }
        }
    }
    Ok(word)
}

fn rest_of_quote(
    quote: char,
    chars: &mut core::iter::Peekable<core::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), ParseError> {
    loop {
        match chars.next().ok_or(ParseError::OpenQuote(quote))? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => word.push(chars.next().ok_or(ParseError::OpenQuote(quote))?),
            c => word.push(c),
        }
    }
}

/// Whether a text is a word just as it stands, and one that nobody mistakes for more than a word.
pub fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./~+,=@%:".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

/// A text as one word, quoted if it must be.
pub fn quoted(text: &str) -> String {
    if is_plain(text) {
        return text.into();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_read_back_as_it_was() {
        for word in ["a", "", "a b", "it's", "say \"x\\y\"", "&;#", "/disk/ä-1.txt", "#", "a#"] {
            let parsed = parse(&quoted(word)).unwrap();
            assert_eq!(parsed[0].words, [word]);
        }
        assert_eq!(quoted("/disk/ä-1.txt"), "/disk/ä-1.txt");
    }

    fn words(line: &str) -> Vec<(Vec<String>, bool)> {
        parse(line).unwrap().into_iter().map(|c| (c.words, c.background)).collect()
    }

    fn one(words: &[&str], background: bool) -> (Vec<String>, bool) {
        (words.iter().map(|w| String::from(*w)).collect(), background)
    }

    #[test]
    fn words_separators_and_background() {
        assert_eq!(
            words("ls /disk; cat a b & wait"),
            [one(&["ls", "/disk"], false), one(&["cat", "a", "b"], true), one(&["wait"], false),]
        );
        assert_eq!(words("  "), []);
        assert_eq!(words("echo a # b; c"), [one(&["echo", "a"], false)]);
        assert_eq!(words("echo a#b;"), [one(&["echo", "a#b"], false)]);
    }

    #[test]
    fn quotes_and_escapes() {
        let line = r#"write 'a b;c' "d \"e\" & f" g\ h '' x'y'"z""#;
        assert_eq!(words(line), [one(&["write", "a b;c", "d \"e\" & f", "g h", "", "xyz"], false)]);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(parse("echo 'a"), Err(ParseError::OpenQuote('\'')));
        assert_eq!(parse("echo \"a\\"), Err(ParseError::OpenQuote('"')));
        assert_eq!(parse("echo \\"), Err(ParseError::OpenEscape));
        assert_eq!(parse("; ls"), Err(ParseError::MissingCommand(';')));
        assert_eq!(parse("ls;;"), Err(ParseError::MissingCommand(';')));
        assert_eq!(parse("&"), Err(ParseError::MissingCommand('&')));
    }
}
