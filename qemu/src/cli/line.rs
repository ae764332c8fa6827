//! What the tool must know of a line of shell commands: whether it asks for the machine's end.

/// The command that ends the machine.
const SHUTDOWN: &str = "shutdown";

/// Whether one of the commands is `shutdown`, also behind `time` and `repeat COUNT`. Words and
/// quotes are the shell's.
pub(super) fn asks_for_end(line: &str) -> bool {
    commands(line).iter().any(|words| {
        let mut words = words.iter().map(String::as_str);
        loop {
            match words.next() {
                Some("time") => {}
                Some("repeat") => drop(words.next()),
                first => return first == Some(SHUTDOWN),
            }
        }
    })
}

/// The commands of a line, up to a mistake in it: the shell runs no line that has one.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut chars = line.chars().peekable();
    while let Some(&next) = chars.peek() {
        match next {
            '#' => break,
            ';' | '&' => commands.push(Vec::new()),
            c if c.is_ascii_whitespace() => {}
            _ => {
                let words = commands.len() - 1;
                commands[words].push(word(&mut chars));
                continue;
            }
        }
        chars.next();
    }
    commands
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars>) -> String {
    let mut word = String::new();
    let mut quote = None;
    while let Some(&c) = chars.peek() {
        if quote.is_none() && (c.is_ascii_whitespace() || matches!(c, ';' | '&')) {
            break;
        }
        chars.next();
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => word.extend(chars.next()),
            _ => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_asks_for_the_end() {
        for line in [
            "shutdown",
            "ls;shutdown 3",
            "sleep 1 & shutdown&",
            "time repeat 2 shutdown",
            "'shut'\"down\" 0",
            "echo it\\'s; shut\\down",
        ] {
            assert!(asks_for_end(line), "{line}");
        }
        for line in [
            "",
            "echo shutdown",
            "echo 'a; shutdown'",
            "echo \"a\\\"; shutdown\"",
            "ls # ; shutdown",
            "repeat shutdown",
            "shutdown.txt",
        ] {
            assert!(!asks_for_end(line), "{line}");
        }
    }
}
