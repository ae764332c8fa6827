//! Crash records as files: one JSON object a death, `NNNN-SERVER.json`, NNNN the record's number.
//!
//! Fields, in the order of the record: `number`, `incarnation`, `in_flight` (numbers); `server`,
//! `cause` (text); `ip`, `sp` (text, hexadecimal, as linked); `noticed_ns` … `answered_ns` (numbers,
//! the kernel's clock, 0: not reached when the record was sent). `registers`: an object of name to
//! value (text, hexadecimal). `ipcs`: the last requests, oldest first, each with `time_ns`,
//! `badge`, `method`. `capabilities`: what the instance held, a line each as `crashes -v` prints it.
//! `backtrace`: `ip` and then the callers, each with `address` and `functions`:
//! `name at file:line`, the innermost inlined one first, empty without symbols.
//!
//! Not here: reading symbols ([`crate::symbolize`]), how a record comes to the host.

use crate::symbolize::{self, NAMED_ADDRESSES, Symbolizer};
use crate::workspace::sibling;
use anyhow::{Context, Result, ensure};
use libipc::escape::must_be_escaped;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// How much one run writes at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    files: u64,
    bytes: u64,
}

const BOUNDS: Bounds = Bounds { files: 100_000, bytes: 1 << 30 };
/// Characters of a server's name in the name of a file.
const NAME: usize = 64;

/// A folder of crash records. No file that is there is written over.
#[derive(Debug)]
pub struct CrashFolder {
    path: PathBuf,
    bounds: Bounds,
    /// What was written.
    files: u64,
    bytes: u64,
    /// Records that were not written.
    unwritten: u64,
    /// How often a file's name was taken: tells the next such file's name apart.
    collisions: u64,
}

impl CrashFolder {
    /// Makes the folder if it is not there, and tries that it can be written to.
    ///
    /// # Errors
    /// If it cannot.
    pub fn open(path: &Path) -> Result<CrashFolder> {
        let failed = || format!("crash records cannot be written to {}", path.display());
        std::fs::create_dir_all(path).with_context(failed)?;
        let probe = sibling(&path.join(".skink-probe"));
        File::create_new(&probe).with_context(failed)?;
        std::fs::remove_file(&probe).with_context(failed)?;
        let path = path.to_path_buf();
        Ok(CrashFolder { path, bounds: BOUNDS, files: 0, bytes: 0, unwritten: 0, collisions: 0 })
    }

    /// Writes one record, `key=value` a line as the guest sent it.
    ///
    /// # Errors
    /// If the file cannot be written, or the run has written as much as it may.
    pub fn write(&mut self, record: &str, elf: Option<&Path>, root: &Path) -> Result<PathBuf> {
        let written = self.try_write(record, elf, root);
        self.unwritten += u64::from(written.is_err());
        written
    }

    /// How many records of this run have no file.
    pub fn unwritten(&self) -> u64 {
        self.unwritten
    }

    fn try_write(&mut self, record: &str, elf: Option<&Path>, root: &Path) -> Result<PathBuf> {
        let Bounds { files, bytes } = self.bounds;
        ensure!(
            self.files < files && self.bytes < bytes,
            "no more crash records are written than {files} or {} MiB a run",
            bytes >> 20
        );
        let symbols = elf.map(|elf| Symbolizer::new(elf, root));
        let text = json(record, symbols.as_ref());
        let (path, mut file) = self.create(record)?;
        self.files += 1;
        self.bytes += text.len() as u64;
        file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A new file for a record: `NNNN-SERVER.json`, or `NNNN-SERVER.K.json` if that is there.
    fn create(&mut self, record: &str) -> Result<(PathBuf, File)> {
        let field = |key: &str| fields(record).find(|f| f.0 == key).map_or("", |f| f.1);
        let number = number(field("number"));
        // What the guest sent names a file: nothing of it but letters, digits and dashes.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
        let server: String = field("server").chars().filter(is_plain).take(NAME).collect();
        let mut path = self.path.join(format!("{number:04}-{server}.json"));
        loop {
            match File::create_new(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    self.collisions += 1;
                    let other = format!("{number:04}-{server}.{}.json", self.collisions);
                    path = self.path.join(other);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("writing {}", path.display()));
                }
            }
        }
    }
}

/// Finds the deaths of which no record came: the guest numbers deaths from 1 on without a gap, and
/// keeps the records of the last ones only.
#[derive(Debug, Default)]
pub struct Numbering {
    last: u64,
}

impl Numbering {
    /// How many deaths between this record's and the one before it have no record.
    pub fn missing_before(&mut self, record: &str) -> u64 {
        let text = fields(record).find(|(key, _)| *key == "number").map_or("", |f| f.1);
        let number = number(text);
        let missing = number.saturating_sub(self.last).saturating_sub(1);
        self.last = self.last.max(number);
        missing
    }

    /// How many of `deaths` deaths came after the last record.
    pub fn missing_after(&self, deaths: u64) -> u64 {
        deaths.saturating_sub(self.last)
    }
}

fn fields(record: &str) -> impl Iterator<Item = (&str, &str)> {
    record.lines().filter_map(|line| line.split_once('='))
}

/// The record as JSON.
fn json(record: &str, symbols: Option<&Symbolizer>) -> String {
    let mut members = Vec::new();
    let (mut registers, mut ipcs, mut backtrace) = (Vec::new(), Vec::new(), Vec::new());
    let mut capabilities = Vec::new();
    for (key, value) in fields(record) {
        match key {
            "register" => {
                let (name, value) = value.split_once(' ').unwrap_or((value, ""));
                registers.push(format!("{}: {}", text(name), text(value)));
            }
            "ipc" => {
                let mut words = value.split(' ');
                let mut next = || words.next().unwrap_or("");
                let (time, badge, method) = (number(next()), text(next()), text(next()));
                ipcs.push(format!(
                    "{{\"time_ns\": {time}, \"badge\": {badge}, \"method\": {method}}}"
                ));
            }
            "number" | "incarnation" | "in_flight" => {
                members.push(format!("{}: {}", text(key), number(value)));
            }
            _ if key.ends_with("_ns") => members.push(format!("{}: {}", text(key), number(value))),
            "capability" => capabilities.push(text(value)),
            "frame" => {}
            _ => members.push(format!("{}: {}", text(key), text(value))),
        }
        if let Some(address) = symbolize::record_address(key, value) {
            let symbols = symbols.filter(|_| backtrace.len() < NAMED_ADDRESSES);
            let functions = symbols.map(|symbols| symbols.describe(address)).unwrap_or_default();
            let functions: Vec<String> = functions.iter().map(|name| text(name)).collect();
            let (value, functions) = (text(value), functions.join(", "));
            backtrace.push(format!("{{\"address\": {value}, \"functions\": [{functions}]}}"));
        }
    }
    members.push(format!("\"registers\": {{{}}}", registers.join(", ")));
    members.push(format!("\"ipcs\": [{}]", list(&ipcs)));
    members.push(format!("\"capabilities\": [{}]", list(&capabilities)));
    members.push(format!("\"backtrace\": [{}]", list(&backtrace)));
    format!("{{\n  {}\n}}\n", members.join(",\n  "))
}

fn list(items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!("\n    {}\n  ", items.join(",\n    ")) }
}

/// A number of the guest's; what is none is 0.
fn number(value: &str) -> u64 {
    value.parse().unwrap_or(0)
}

/// A JSON string (RFC 8259, section 7), in which a terminal that shows the file finds nothing to obey.
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if must_be_escaped(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_file() {
        let folder = std::env::temp_dir().join(format!("skink-crash-{}", std::process::id()));
        let record = "number=7\nserver=../fs\nincarnation=2\ncause=panic: \"no\"\\\tx\u{9b}\u{202e}\u{200b}\u{e0041}\nin_flight=1\n\
                      ip=0x10\nsp=0x20\nregister=rax 0x1\nipc=5 0x3 file.read\nnoticed_ns=9\n\
                      frame=0x55\n";
        let written = CrashFolder::open(&folder).unwrap().write(record, None, Path::new("/"));
        let written = written.unwrap();
        assert_eq!(written, folder.join("0007-fs.json"), "no path out of the folder");
        let said = std::fs::read_to_string(&written).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        for part in [
            "\"number\": 7,",
            "\"cause\": \"panic: \\\"no\\\"\\\\\\u0009x\\u009b\\u202e\\u200b\\udb40\\udc41\"",
            "\"registers\": {\"rax\": \"0x1\"}",
            "{\"time_ns\": 5, \"badge\": \"0x3\", \"method\": \"file.read\"}",
            "\"noticed_ns\": 9,",
            "{\"address\": \"0x10\", \"functions\": []},",
            "{\"address\": \"0x55\", \"functions\": []}",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_a_clear_error() {
        let error = CrashFolder::open(Path::new("/dev/null/x")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot be written to /dev/null/x"), "{error:#}");
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("skink-crashes-{name}-{}", std::process::id()))
    }

    #[test]
    fn no_record_takes_the_place_of_another_and_none_follows_a_link() {
        let folder = scratch("twice");
        let mut crashes = CrashFolder::open(&folder).unwrap();
        let elsewhere = folder.join("elsewhere");
        std::fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.join("0002-fs.json")).unwrap();
        let mut written = |number: &str| {
            let record = format!("number={number}\nserver=fs{}\n", "x".repeat(1000));
            let record = if number == "1" { record } else { record.replace('x', "") };
            let path = crashes.write(&record, None, Path::new("/")).unwrap();
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        let long = format!("0001-fs{}", "x".repeat(62));
        assert_eq!(written("1"), format!("{long}.json"));
        assert_eq!(written("1"), format!("{long}.1.json"));
        assert_eq!(written("2"), "0002-fs.2.json");
        assert_eq!(written("2"), "0002-fs.3.json");
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "mine");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_guest_cannot_fill_the_folder_and_what_is_not_written_is_counted() {
        let folder = scratch("many");
        let open = |bounds| CrashFolder { bounds, ..CrashFolder::open(&folder).unwrap() };
        let mut few = open(Bounds { files: 3, bytes: 1 << 20 });
        let mut short = open(Bounds { files: 1000, bytes: 500 });
        for number in 0..10 {
            let record = format!("number={number}\nserver=fs\ncause={}\n", "x".repeat(300));
            let _ = few.write(&record, None, Path::new("/"));
            let _ = short.write(&record, None, Path::new("/"));
        }
        assert_eq!((few.unwritten(), short.unwritten()), (7, 8));
        let error = few.write("number=1\n", None, Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("than 3 or 1 MiB a run"), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn deaths_without_a_record_are_counted_whatever_numbers_the_guest_sends() {
        let mut numbering = Numbering::default();
        let mut missing = |number: &str| numbering.missing_before(&format!("number={number}\n"));
        assert_eq!((missing("1"), missing("2"), missing("2")), (0, 0, 0));
        assert_eq!((missing("69"), missing("70"), missing("3"), missing("71")), (66, 0, 0, 0));
        assert_eq!((missing("70"), missing("x")), (0, 0));
        let numbering = Numbering { last: 71 };
        assert_eq!((numbering.missing_after(80), numbering.missing_after(7)), (9, 0));
        let mut numbering = numbering;
        let mut missing = |number: &str| numbering.missing_before(&format!("number={number}\n"));
        assert_eq!((missing("x"), missing("18446744073709551615")), (0, u64::MAX - 72));
    }
}
