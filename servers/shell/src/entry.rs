//! The manifest entry beside a program: `FILE.toml` says what the program in `FILE` may have, in
//! the words of a `[[server]]` table of the system's manifest. A field that is not known, or that no
//! program can have (`devices`, `ports`, `dma` …), is an error with its line. What it asks for is
//! checked by the root server, which believes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::grants;
use crate::shape;
use core::fmt::Display;
use serde::Deserialize;
use skink_manifest::limits::{NAME_RULE, is_name};
use skink_manifest::{Access, Bytes, Channel, SessionGrant};
use skink_protocols::control::{MAX_NEEDS, Name, ProgramEntry, ProgramNeed, Restart};

/// Bytes of an entry at most. What of them costs heap is bounded by [`shape::MAX_PARTS`].
pub const MAX_ENTRY: u64 = 8 << 10;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    args: Option<String>,
    priority: Option<u8>,
    budget_us: Option<u32>,
    period_us: Option<u32>,
    memory: Option<Bytes>,
    stack: Option<Bytes>,
    heap: Option<Bytes>,
    survivor: Option<Bytes>,
    extra_threads: Option<u8>,
    replies: Option<u8>,
    #[serde(default)]
    fpu: bool,
    #[serde(default)]
    privileges: Vec<Privilege>,
    #[serde(default)]
    needs: Vec<Need>,
    restart: Option<Restart>,
    intensity: Option<u16>,
    intensity_period_ms: Option<u32>,
    backoff_ms: Option<u32>,
    backoff_max_ms: Option<u32>,
    heartbeat_ms: Option<u32>,
}

/// What a program may be trusted with beyond talking to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Privilege {
    Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    name: String,
    server: String,
    protocol: String,
    shared: Option<Bytes>,
    access: Option<Access>,
    folder: Option<String>,
    channel: Option<Channel>,
}

/// The entry of a program without one, called after its file.
///
/// # Errors
/// The file's name has nothing that a name can have.
pub fn without_file(path: &str) -> Result<ProgramEntry, String> {
    Ok(ProgramEntry { name: name_of(path)?, ..ProgramEntry::default() })
}

/// Reads the entry of the program at `path`.
///
/// # Errors
/// What is wrong with it, with the line.
pub fn parse(path: &str, text: &str) -> Result<ProgramEntry, String> {
    let at = |offset: usize, message: &dyn Display| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: {message}")
    };
    if let Some((offset, excess)) = shape::excess(text) {
        return Err(at(offset, &excess));
    }
    let file: File = toml::from_str(text).map_err(|error| {
        at(error.span().map_or(0, |span| span.start), &error.message().trim_end())
    })?;
    let plain = ProgramEntry::default();
    let budget_us = file.budget_us.unwrap_or(plain.budget_us);
    let needs: Vec<ProgramNeed> = file.needs.iter().map(need).collect::<Result<_, _>>()?;
    for (at, need) in needs.iter().enumerate() {
        if needs[..at].iter().any(|other| other.name == need.name) {
            return Err(format!("two needs are called `{}`", need.name));
        }
    }
    Ok(ProgramEntry {
        name: match &file.name {
            Some(name) => checked_name("name", name)?,
            None => name_of(path)?,
        },
        args: text_of("args", file.args.as_deref().unwrap_or_default())?,
        priority: file.priority,
        budget_us,
        period_us: file.period_us.unwrap_or(budget_us),
        memory_bytes: file.memory.map_or(plain.memory_bytes, |Bytes(bytes)| bytes),
        stack_bytes: size("stack", file.stack, plain.stack_bytes)?,
        // As for a server: what the entry does not speak of is not there.
        heap_bytes: size("heap", file.heap, 0)?,
        survivor_bytes: size("survivor", file.survivor, 0)?,
        extra_threads: file.extra_threads.unwrap_or(0),
        replies: file.replies.unwrap_or(1),
        fpu: file.fpu,
        log: file.privileges.contains(&Privilege::Log),
        needs: needs.as_slice().try_into().map_err(|_| format!("more than {MAX_NEEDS} needs"))?,
        restart: file.restart.unwrap_or(plain.restart),
        intensity: file.intensity.unwrap_or(plain.intensity),
        intensity_period_ms: file.intensity_period_ms.unwrap_or(plain.intensity_period_ms),
        backoff_ms: file.backoff_ms.unwrap_or(plain.backoff_ms),
        backoff_max_ms: file.backoff_max_ms.unwrap_or(plain.backoff_max_ms),
        heartbeat_ms: file.heartbeat_ms.unwrap_or(0),
    })
}

fn need(need: &Need) -> Result<ProgramNeed, String> {
    let name = checked_name("name", &need.name)?;
    if grants::WORDS.contains(&name.as_str()) {
        return Err(format!("need `{name}`: with `run` that word stands for something else"));
    }
    let server = checked_name("server", &need.server)?;
    let protocol = checked_name("protocol", &need.protocol)?;
    let grant =
        SessionGrant::of_words(&protocol, need.access, need.folder.as_deref(), need.channel)
            .map_err(|error| format!("need `{name}`: {error}"))?;
    Ok(ProgramNeed { name, server, protocol, shared_bytes: size("shared", need.shared, 0)?, grant })
}

/// A name. A person is shown it and told to type it, so it has nothing that means more than a name.
fn checked_name<const N: usize>(what: &str, text: &str) -> Result<heapless::String<N>, String> {
    match is_name(text) {
        true => text_of(what, text),
        false => Err(format!("`{what}`: `{text}`: {NAME_RULE}")),
    }
}

/// A text of bounded length.
pub fn text_of<const N: usize>(what: &str, text: &str) -> Result<heapless::String<N>, String> {
    text.try_into().map_err(|_| format!("`{what}` is longer than {N} bytes"))
}

fn size(what: &str, size: Option<Bytes>, default: u32) -> Result<u32, String> {
    let Some(Bytes(bytes)) = size else { return Ok(default) };
    u32::try_from(bytes).map_err(|_| format!("`{what}` is 4 GiB or more"))
}

/// A name made of a file's: without folder and ending, in lower case, other letters as `-`.
fn name_of(path: &str) -> Result<Name, String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' => c,
        _ => '-',
    };
    let name: String = stem.chars().map(letter).take(32).collect();
    match name.chars().any(|c| c != '-') {
        true => text_of("name", &name),
        false => Err(format!("`{file}` makes no name; give it one (`name`) in {path}.toml")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_name_is_made_of_the_path() {
        let name = |path: &str| without_file(path).map(|entry| String::from(entry.name.as_str()));
        assert_eq!(name("/disk/bin/PRIMES.ELF"), Ok("primes".into()));
        assert_eq!(name("/disk/my tool"), Ok("my-tool".into()));
        assert_eq!(name("/disk/a.b.elf"), Ok("a-b".into()));
        assert_eq!(name(&format!("/disk/{}", "x".repeat(99))), Ok("x".repeat(32)));
        assert!(name("/disk/...").is_err() && name("/disk/ä").is_err());
    }

    #[test]
    fn an_entry_says_what_a_server_s_does() {
        let text = r#"
            name = "counter"
            args = "1 2"
            priority = 50
            memory = "512KiB"
            heap = "64KiB"
            needs = [{ name = "files", server = "fs", protocol = "file", shared = "4KiB" }]
            privileges = ["log"]
            restart = "permanent"
            intensity = 3
            budget_us = 5_000
        "#;
        let entry = parse("/disk/c", text).unwrap();
        assert_eq!((entry.name.as_str(), entry.args.as_str()), ("counter", "1 2"));
        assert_eq!(
            (entry.memory_bytes, entry.heap_bytes, entry.stack_bytes),
            (1 << 19, 1 << 16, 1 << 15)
        );
        assert_eq!((entry.budget_us, entry.period_us, entry.priority), (5000, 5000, Some(50)));
        assert!(entry.log && entry.restart == Restart::Permanent && entry.intensity == 3);
        let need = &entry.needs[0];
        assert_eq!((need.name.as_str(), need.server.as_str()), ("files", "fs"));
        assert_eq!((need.protocol.as_str(), need.shared_bytes), ("file", 4096));
        assert_eq!(need.grant, SessionGrant::default());
    }

    #[test]
    fn deep_nesting_is_refused_on_a_small_stack() {
        let nested = |open: &str, close: &str, count: usize| {
            format!("name = {}1{}", open.repeat(count), close.repeat(count))
        };
        let tests = move || {
            for count in [5, 79, 2000] {
                let texts = [
                    nested("[", "]", count),
                    nested("{a=", "}", count),
                    nested("[{a=", "}]", count),
                    format!("{}a = 1", "a.".repeat(count)),
                    format!("[{}a]", "a.".repeat(count)),
                    format!("# [[ \n\n[[{}a]]", "a. ".repeat(count)),
                    // Not closed, or behind what looks like the end of a text.
                    format!("name = {}", "[".repeat(count)),
                    format!("name = \"x\nargs = {}", "[".repeat(count)),
                    format!("name = \"]\"\nargs = [\"]]]]\", {}", "[']', ".repeat(count)),
                ];
                for text in texts {
                    let error = parse("/disk/x", &text).unwrap_err();
                    assert!(error.starts_with("line "), "{error}");
                    assert!(error.contains("nested more than"), "{text}: {error}");
                }
            }
            let many = "a = [[1]]\n".repeat(40);
            assert!(!parse("/disk/x", &many).unwrap_err().contains("nested"));
        };
        let small = std::thread::Builder::new().stack_size(128 << 10).spawn(tests);
        small.unwrap().join().unwrap();
    }

    #[test]
    fn a_need_may_ask_for_less_than_all() {
        let need = |protocol: &str, more: &str| {
            let head = "name = \"x\", server = \"s\"";
            let text = format!("needs = [{{ {head}, protocol = \"{protocol}\", {more} }}]");
            parse("/disk/x", &text).map(|entry| entry.needs[0].grant.clone())
        };
        let grant = need("file", "access = \"read\", folder = \"/DATA\"").unwrap();
        assert_eq!((grant.access, grant.folder.as_deref()), (Access::Read, Some("/DATA")));
        let grant = need("console", "channel = \"terminal\"").unwrap();
        assert_eq!(grant.channel, Some(Channel::Terminal));
        let long = format!("folder = \"/{}\"", "x".repeat(64));
        for (protocol, more, words) in [
            ("file", "channel = \"exec\"", "need `x`: the protocol has no option `channel`"),
            ("file", "folder = \"..\"", "`folder` is a path"),
            ("file", long.as_str(), "64 bytes at most"),
            ("hello", "access = \"read\"", "has no option `access`"),
            ("hello", "access = \"read-write\"", "has no option `access`"),
            ("console", "channel = \"com1\"", "line 1: unknown variant `com1`"),
        ] {
            let error = need(protocol, more).unwrap_err();
            assert!(error.contains(words), "{more}: {error}");
        }
    }

    #[test]
    fn an_empty_entry_grants_nothing() {
        let entry = parse("/disk/x", "").unwrap();
        assert!(!entry.log && entry.needs.is_empty() && entry.heap_bytes == 0);
        assert_eq!((entry.name.as_str(), entry.restart), ("x", Restart::Temporary));
    }

    #[test]
    fn what_no_program_can_have_is_an_error_with_its_line() {
        let cases = [
            ("a = 1", "line 1: unknown field `a`"),
            ("\ndevices = []", "line 2: unknown field `devices`"),
            ("\n\nports = [{ first = 1, last = 2 }]", "line 3: unknown field `ports`"),
            ("dma = \"64KiB\"", "unknown field `dma`"),
            ("group = \"g\"", "unknown field `group`"),
            ("privileges = [\"control\"]", "unknown variant `control`"),
            ("privileges = [\"log\", \"pci-config\"]", "unknown variant `pci-config`"),
            ("memory = \"many\"", "a number of bytes"),
            ("priority = 900", "line 1"),
            ("restart = \"often\"", "unknown variant `often`"),
            ("name = \"x", "line 1"),
            ("needs = [{ name = \"x\" }]", "missing field `server`"),
            ("needs = [{ name = \"x\", server = \"s\", protocol = \"p\", dma = true }]", "`dma`"),
        ];
        for (text, words) in cases {
            let error = parse("/disk/x", text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = format!("args = \"{}\"", "x".repeat(97));
        assert!(parse("/disk/x", &long).unwrap_err().contains("longer than 96 bytes"));
        assert!(parse("/disk/x", "heap = \"4GiB\"").unwrap_err().contains("4 GiB or more"));
    }

    #[test]
    fn names_that_a_person_is_shown_are_names_and_mean_one_thing() {
        let entry = |name: &str, server: &str, protocol: &str| {
            let need =
                format!("name = \"{name}\", server = \"{server}\", protocol = \"{protocol}\"");
            parse("/disk/x", &format!("name = \"x\"\nneeds = [{{ {need} }}]"))
        };
        assert!(entry("files", "fs", "file").is_ok());
        for bad in ["", "x;rm -r /disk;", "a,b", "a b", "a&", "'", "A", "a\u{202e}b"] {
            for refused in
                [entry(bad, "fs", "file"), entry("a", bad, "file"), entry("a", "fs", bad)]
            {
                let error = refused.unwrap_err();
                assert!(error.contains("a name has lower case letters"), "{bad}: {error}");
            }
            let own = format!("name = \"{bad}\"");
            assert!(parse("/disk/x", &own).unwrap_err().contains("a name has"), "{bad}");
        }
        for word in ["log", "all"] {
            let error = entry(word, "fs", "file").unwrap_err();
            assert!(error.contains("stands for something else"), "{error}");
        }
        let need = "{ name = \"a\", server = \"s\", protocol = \"file\" }";
        let error = parse("/disk/x", &format!("needs = [{need}, {need}]")).unwrap_err();
        assert!(error.contains("two needs are called `a`"), "{error}");
    }
}
