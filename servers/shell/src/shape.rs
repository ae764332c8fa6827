//! What a TOML text is like, found out before it is read for what it says: how deep it is nested, which
//! takes stack for each level, and of how many parts it is made, which take heap. The parser and its
//! words are the same, so that both see the same brackets.

use toml_parser::decoder::Encoding;
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Source, Span};

/// Arrays and inline tables within each other at most, and parts of one key. An entry has two and
/// one.
pub const MAX_DEPTH: usize = 4;
/// Keys (each part of one), values, arrays and tables altogether at most. The largest entry has about
/// 180; each takes up to 1.5 KiB while the text is read.
pub const MAX_PARTS: usize = 200;

/// Words, signs, blanks and line ends at most: what a text of so many parts has at its loosest.
const MAX_TOKENS: usize = 10 * MAX_PARTS;

/// What is too much in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It is nested deeper than [`MAX_DEPTH`].
    Depth,
    /// It has more than [`MAX_PARTS`].
    Parts,
}

impl core::fmt::Display for Excess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Excess::Depth => write!(f, "nested more than {MAX_DEPTH} deep"),
            Excess::Parts => write!(f, "more than {MAX_PARTS} keys, values and tables"),
        }
    }
}

/// The first thing that is too much in a text, and its offset.
pub fn excess(text: &str) -> Option<(usize, Excess)> {
    let end = Source::new(text).lex().nth(MAX_TOKENS).map(|token| token.span().start());
    let tokens = Source::new(&text[..end.unwrap_or(text.len())]).lex().into_vec();
    let mut shape = Shape::default();
    // What is wrong with the text otherwise is told by who reads it.
    parse_document(&tokens, &mut shape, &mut ());
    shape.first.or(end.map(|end| (end, Excess::Parts)))
}

/// Where the parser stands.
#[derive(Default)]
struct Shape {
    /// Brackets and braces that are open.
    open: usize,
    /// Dots of the key that is being read.
    dots: usize,
    /// Keys, values, arrays and tables so far.
    parts: usize,
    /// The first thing that is too much.
    first: Option<(usize, Excess)>,
}

impl Shape {
    fn go_deeper(&mut self, span: Span) -> bool {
        self.part(span);
        self.dots = 0;
        if self.open == MAX_DEPTH {
            self.note(span, Excess::Depth);
            return false;
        }
        self.open += 1;
        true
    }

    fn part(&mut self, span: Span) {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            self.note(span, Excess::Parts);
        }
    }

    fn note(&mut self, span: Span, what: Excess) {
        self.first.get_or_insert((span.start(), what));
    }
}

impl EventReceiver for Shape {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.part(span);
    }

    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.part(span);
    }

    fn simple_key(&mut self, span: Span, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.part(span);
    }

    fn scalar(&mut self, span: Span, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.part(span);
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.go_deeper(span)
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.open = self.open.saturating_sub(1);
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.go_deeper(span)
    }

    fn inline_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.open = self.open.saturating_sub(1);
        self.dots = 0;
    }

    fn key_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.dots += 1;
        if self.dots == MAX_DEPTH {
            self.note(span, Excess::Depth);
        }
    }

    fn key_val_sep(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.dots = 0;
    }

    fn value_sep(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.dots = 0;
    }

    fn newline(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.dots = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_is_too_much_is_found() {
        let fine =
            ["", "a = [[[[1]]]]", "a.b.c.d = 1\nb.c = 2", "[a.b.c.d]\nx = [{y = 1}, {y = 2}]"];
        for text in fine {
            assert_eq!(excess(text), None, "{text}");
        }
        assert_eq!(excess("a = [[[[[1]]]]]"), Some((8, Excess::Depth)));
        assert_eq!(excess("a = [{b = [{c = [1]}]}]"), Some((16, Excess::Depth)));
        assert_eq!(excess("a.b.c.d.e = 1"), Some((7, Excess::Depth)));
        assert_eq!(excess("[a.b.c.d.e]"), Some((8, Excess::Depth)));
        assert_eq!(excess("a = \"[[[[[\" # [[[[["), None);
        assert_eq!(excess("a = '''\n[[[[[\n'''"), None);
        let parts = |count: usize| format!("a = [{}]", "1,".repeat(count));
        assert_eq!(excess(&parts(MAX_PARTS - 2)), None);
        assert_eq!(excess(&parts(MAX_PARTS)), Some((5 + 2 * (MAX_PARTS - 2), Excess::Parts)));
        assert_eq!(excess(&"[[a]]\n".repeat(101)), Some((6 * 100, Excess::Parts)));
    }
}
