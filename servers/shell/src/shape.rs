//! How deep a TOML text is nested, found out without going deep: before the text is read for what it
//! says, which takes stack for each level. The parser and its words are the same, so that both see the
//! same brackets.

use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Source, Span};

/// Arrays and inline tables within each other at most, and parts of one key. An entry has two and
/// one.
pub const MAX_DEPTH: usize = 4;

/// The offset of the first bracket or dot that leads deeper than [`MAX_DEPTH`].
pub fn too_deep(text: &str) -> Option<usize> {
    let tokens = Source::new(text).lex().into_vec();
    let mut depth = Depth::default();
    // What is wrong with the text otherwise is told by who reads it.
    parse_document(&tokens, &mut depth, &mut ());
    depth.first
}

/// Where the parser stands.
#[derive(Default)]
struct Depth {
    /// Brackets and braces that are open.
    open: usize,
    /// Dots of the key that is being read.
    dots: usize,
    /// The first place that is too deep.
    first: Option<usize>,
}

impl Depth {
    fn go_deeper(&mut self, span: Span) -> bool {
        self.dots = 0;
        if self.open == MAX_DEPTH {
            self.note(span);
            return false;
        }
        self.open += 1;
        true
    }

    fn note(&mut self, span: Span) {
        self.first.get_or_insert(span.start());
    }
}

impl EventReceiver for Depth {
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
            self.note(span);
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
    fn the_first_place_that_is_too_deep_is_found() {
        let fine =
            ["", "a = [[[[1]]]]", "a.b.c.d = 1\nb.c = 2", "[a.b.c.d]\nx = [{y = 1}, {y = 2}]"];
        for text in fine {
            assert_eq!(too_deep(text), None, "{text}");
        }
        assert_eq!(too_deep("a = [[[[[1]]]]]"), Some(8));
        assert_eq!(too_deep("a = [{b = [{c = [1]}]}]"), Some(16));
        assert_eq!(too_deep("a.b.c.d.e = 1"), Some(7));
        assert_eq!(too_deep("[a.b.c.d.e]"), Some(8));
        assert_eq!(too_deep("a = \"[[[[[\" # [[[[["), None);
        assert_eq!(too_deep("a = '''\n[[[[[\n'''"), None);
    }
}
