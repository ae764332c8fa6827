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

use crate::symbolize::{self, Symbolizer};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A folder of crash records.
#[derive(Clone, Debug)]
pub struct CrashFolder {
    path: PathBuf,
}

impl CrashFolder {
    /// Makes the folder if it is not there, and tries that it can be written to.
    ///
    /// # Errors
    /// If it cannot.
    pub fn open(path: &Path) -> Result<CrashFolder> {
        let failed = || format!("crash records cannot be written to {}", path.display());
        std::fs::create_dir_all(path).with_context(failed)?;
        let probe = path.join(".skink-probe");
        std::fs::write(&probe, b"").with_context(failed)?;
        std::fs::remove_file(&probe).with_context(failed)?;
        Ok(CrashFolder { path: path.to_path_buf() })
    }

    /// Writes one record, `key=value` a line as the guest sent it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, record: &str, elf: Option<&Path>, root: &Path) -> Result<PathBuf> {
        let symbols = elf.map(|elf| Symbolizer::new(elf, root));
        let field = |key: &str| fields(record).find(|f| f.0 == key).map_or("", |f| f.1);
        let number: u64 = field("number").parse().unwrap_or(0);
        // What the guest sent names a file: nothing of it but letters, digits and dashes.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
        let server: String = field("server").chars().filter(is_plain).collect();
        let path = self.path.join(format!("{number:04}-{server}.json"));
        std::fs::write(&path, json(record, symbols.as_ref()))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
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

/// A JSON string (RFC 8259, section 7).
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
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
        let record = "number=7\nserver=../fs\nincarnation=2\ncause=panic: \"no\"\\\tx\nin_flight=1\n\
                      ip=0x10\nsp=0x20\nregister=rax 0x1\nipc=5 0x3 file.read\nnoticed_ns=9\n\
                      frame=0x55\n";
        let written = CrashFolder::open(&folder).unwrap().write(record, None, Path::new("/"));
        let written = written.unwrap();
        assert_eq!(written, folder.join("0007-fs.json"), "no path out of the folder");
        let said = std::fs::read_to_string(&written).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        for part in [
            "\"number\": 7,",
            "\"cause\": \"panic: \\\"no\\\"\\\\\\u0009x\"",
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
}
