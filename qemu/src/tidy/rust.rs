//! Rust source by tokens, as far as counting and searching need it: what is comment, what is the
//! content of a literal, what is a test module.
//!
//! A line of code is one with a token of the language: neither blank nor comment alone, doc comments
//! included. A line inside a literal of several lines is code.
//!
//! Not here: a parser. Code of macros is taken as it stands.

/// A source file with its comments taken out and its literals made opaque.
#[derive(Clone, Debug)]
pub struct Masked {
    /// Line by line as the source; comments are spaces, every character inside a string or
    /// character literal is [`OPAQUE`].
    text: String,
}

/// Stands for a character inside a literal.
const OPAQUE: char = '\u{b7}';

/// A module that exists in tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestModule {
    /// `#[cfg(test)] mod NAME;`
    File(String),
    /// `#[cfg(test)] mod NAME { … }`: its lines from 0, from the attribute to the brace.
    Inline(std::ops::RangeInclusive<usize>),
}

impl Masked {
    /// Reads a source file.
    pub fn new(source: &str) -> Masked {
        Masked { text: Scanner::new(source).run() }
    }

    /// Whether each line has code.
    pub fn code_lines(&self) -> Vec<bool> {
        self.text.lines().map(|line| !line.trim().is_empty()).collect()
    }

    /// Lines of code outside inline test modules.
    pub fn count(&self) -> usize {
        let mut lines = self.code_lines();
        for module in self.test_modules() {
            if let TestModule::Inline(range) = module {
                lines[range].fill(false);
            }
        }
        lines.iter().filter(|is_code| **is_code).count()
    }

    /// The lines, from 1, with this text in code, not as a part of a longer word.
    pub fn lines_with(&self, wanted: &str) -> Vec<usize> {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (first, last) = (wanted.chars().next(), wanted.chars().next_back());
        let goes_on = |line: &str, at: usize| {
            let before = line[..at].chars().next_back();
            let behind = line[at + wanted.len()..].chars().next();
            is_word(first) && is_word(before) || is_word(last) && is_word(behind)
        };
        let has = |line: &str| line.match_indices(wanted).any(|(at, _)| !goes_on(line, at));
        let lines = self.text.lines().enumerate();
        lines.filter(|(_, line)| has(line)).map(|(index, _)| index + 1).collect()
    }

    /// The modules that `#[cfg(test)]` stands before, other attributes between or not.
    pub fn test_modules(&self) -> Vec<TestModule> {
        const ATTRIBUTE: &str = "#[cfg(test)]";
        let line_of = |at: usize| self.text[..at].matches('\n').count();
        let mut modules = Vec::new();
        for (at, _) in self.text.match_indices(ATTRIBUTE) {
            let item = skip_attributes(&self.text, at + ATTRIBUTE.len());
            let Some((name, behind)) = module_name(&self.text[item..]) else {
                continue;
            };
            let behind = item + behind;
            if self.text[behind..].starts_with(';') {
                modules.push(TestModule::File(name.into()));
            } else if let Some(end) = matching_brace(&self.text, behind) {
                modules.push(TestModule::Inline(line_of(at)..=line_of(end)));
            }
        }
        modules
    }
}

/// Where the item begins whose attributes begin behind `at`.
fn skip_attributes(text: &str, mut at: usize) -> usize {
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        match text[at..].strip_prefix("#[").and_then(|rest| rest.find(']')) {
            Some(end) => at += 2 + end + 1,
            None => return at,
        }
    }
}

/// The name of a module that is declared at the start of `text`, with any visibility, and where its
/// `;` or `{` is.
fn module_name(text: &str) -> Option<(&str, usize)> {
    let end = text.find(['{', ';'])?;
    let mut words = text[..end].split_whitespace().rev();
    let name = words.next()?;
    let is_module = words.next() == Some("mod");
    let rest_is_visibility = words.all(|word| word.starts_with("pub") || word.ends_with(')'));
    (is_module && rest_is_visibility).then_some((name, end))
}

/// Where the brace at `open` is closed.
fn matching_brace(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at);
        }
    }
    None
}

struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    out: String,
    /// The character before is part of a word.
    in_word: bool,
}

impl<'a> Scanner<'a> {
    fn new(source: &'a str) -> Scanner<'a> {
        Scanner { rest: source.chars().peekable(), out: String::new(), in_word: false }
    }

    fn run(mut self) -> String {
        while let Some(c) = self.rest.next() {
            match (c, self.rest.peek()) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('\'', _) => self.quote(),
                ('r' | 'b' | 'c', _) if !self.in_word => self.prefix(c),
                _ => self.out.push(c),
            }
            self.in_word = c.is_alphanumeric() || c == '_';
        }
        self.out
    }

    /// Takes a character that is to be seen as `shown`, unless it ends a line.
    fn hide(&mut self, shown: char) -> Option<char> {
        let c = self.rest.next()?;
        self.out.push(if c == '\n' { '\n' } else { shown });
        Some(c)
    }

    fn line_comment(&mut self) {
        self.out.push(' ');
        while self.rest.peek().is_some_and(|c| *c != '\n') {
            self.hide(' ');
        }
    }

    /// They nest.
    fn block_comment(&mut self) {
        self.out.push(' ');
        let mut depth = 0;
        let mut before = '/';
        while let Some(c) = self.hide(' ') {
            match (before, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    before = c;
                    continue;
                }
            }
            // A character opens or closes once.
            before = ' ';
            if depth == 0 {
                return;
            }
        }
    }

    /// To the closing quote of a string with escapes.
    fn string(&mut self) {
        self.out.push('"');
        self.escaped_to('"');
    }

    fn escaped_to(&mut self, quote: char) {
        while let Some(c) = self.rest.peek().copied() {
            if c == quote {
                self.rest.next();
                self.out.push(quote);
                return;
            }
            self.hide(OPAQUE);
            if c == '\\' {
                self.hide(OPAQUE);
            }
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        self.out.push('\'');
        let mut ahead = self.rest.clone();
        let is_literal = match ahead.next() {
            Some('\\') => true,
            Some(_) => ahead.next() == Some('\''),
            None => false,
        };
        if is_literal {
            self.escaped_to('\'');
        }
    }

    /// `r`, `b`, `c` and their pairs, if a literal follows; else a word.
    fn prefix(&mut self, first: char) {
        let mut ahead = self.rest.clone();
        let mut word = first.to_string();
        if first != 'r' && ahead.peek() == Some(&'r') {
            word.extend(ahead.next());
        }
        let mut hashes = 0;
        while word.ends_with('r') && ahead.peek() == Some(&'#') {
            ahead.next();
            hashes += 1;
        }
        if word.ends_with('r') && ahead.peek() == Some(&'"') {
            self.out.push_str(&word);
            ahead.next();
            self.rest = ahead;
            self.out.push_str(&"#".repeat(hashes));
            self.raw_string(hashes);
        } else {
            // `b"…"` and `b'…'` are left to the quote.
            self.out.push(first);
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.out.push('"');
        while let Some(c) = self.hide(OPAQUE) {
            let mut ahead = self.rest.clone();
            if c == '"' && (0..hashes).all(|_| ahead.next() == Some('#')) {
                self.out.push_str(&"#".repeat(hashes));
                self.rest = ahead;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(source: &str) -> usize {
        Masked::new(source).count()
    }

    #[test]
    fn blanks_and_comments_are_no_code() {
        assert_eq!(count("//! doc\n\n   \nfn a() {} // why\n/// doc\n    // no\n"), 1);
        assert_eq!(count("/* a\nb */\nlet x = 1; /* c\n d */ let y; /**/\n"), 2);
        assert_eq!(count("/* a /* b */\n still */ x\n"), 1);
        assert_eq!(count("/*/ not closed\n*/ x\n/**/ y"), 2);
        assert_eq!(count("a /* never closed\nb\n"), 1);
    }

    #[test]
    fn what_looks_like_a_comment_in_a_literal_is_none() {
        assert_eq!(count("let a = \"// no\";\nlet b = \"/*\";\nlet c = 1; // \"\nd\n"), 4);
        assert_eq!(count("let a = r#\"\" /* \"#;\nb\n"), 2);
        assert_eq!(count("let a = br\"\\\"; /* c */\n/* \" */\nb\n"), 2);
        assert_eq!(count("let a = \"\\\"/*\";\nb\n"), 2);
        assert_eq!(count("let q = '\"'; /*\n*/\nlet r = '\\''; // '\nx\n"), 3);
        assert_eq!(count("let a = \"one\n\n  two // three\n\";\n"), 3, "the blank one is blank");
    }

    #[test]
    fn lifetimes_and_raw_names_are_no_literals() {
        assert_eq!(count("fn a<'a>(x: &'a str) {} // '\n// b\n"), 1);
        assert_eq!(count("let r#type = 1; /*\n*/\nlet bar\"\n"), 2);
        assert_eq!(count("impl<'a, 'b> X<'a, 'b> {}\nlet c = 'x'; // y\n"), 2);
        assert_eq!(count("let c = b'\\''; /* \n */ let d = b'\"';\n"), 2);
    }

    #[test]
    fn test_modules_do_not_count() {
        let source =
            "a();\n#[cfg(test)]\nmod tests {\n use b; // }\n let c = \"}\";\n { }\n}\nd();\n";
        assert_eq!(count(source), 2);
        assert_eq!(Masked::new(source).test_modules(), [TestModule::Inline(1..=6)]);
        let source = "#[cfg(test)]\n#[path = \"x\"]\npub(crate) mod more_tests;\nfn a() {}\n";
        let file = TestModule::File("more_tests".into());
        assert_eq!(Masked::new(source).test_modules(), [file]);
        // Anything else that tests alone have counts: nothing is hidden by mistake.
        assert_eq!(count("#[cfg(test)]\nfn a() {\n}\n// #[cfg(test)] mod b {\nfn c() {}\n"), 4);
        assert_eq!(count("#[cfg(any(test, x))]\nmod b {\n}\n"), 3);
    }

    #[test]
    fn words_are_found_in_code_only() {
        let source = "// asm!\nlet a = \"asm!\";\nglobal_asm!(x);\nasm!(y);\ntarget_arch_x;\n";
        let masked = Masked::new(source);
        assert_eq!(masked.lines_with("asm!"), [4]);
        assert_eq!(masked.lines_with("global_asm!"), [3]);
        assert_eq!(masked.lines_with("target_arch"), Vec::<usize>::new());
        assert_eq!(masked.lines_with("target_arch_x"), [5]);
    }
}
