//! Addresses of the guest's dumps to function, file and line, from the ELF files with symbols.
//!
//! Two dumps are understood. The kernel's, on the terminal: a line that begins with `PANIC`, then
//! a line `  #N 0xADDRESS` for each caller. A crash record, by the exec channel: lines
//! `key=value`, where `server` names the program, and addresses, as linked, are the values of `ip`
//! (exact) and `frame` (return addresses).

use crate::escape;
use crate::session::{Recipe, System};
use crate::workspace::{Arch, Workspace};
use addr2line::Loader;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Addresses of a crash record that are given names: more than a guest that means well sends.
pub const NAMED_ADDRESSES: usize = 64;

/// Lines of a dump on the console, more than the kernel's has.
const DUMP_LINES: usize = 64;
/// Lines of the console's end that are shown below a longer one.
const END_LINES: usize = 20;
/// Bytes of a line of it, or of a function's name and place, that are shown.
const LINE: usize = 512;
/// Functions at one address that are named: those inlined into each other.
const INLINED: usize = 8;

/// Finds names for addresses of one program.
pub struct Symbolizer {
    loader: Option<Loader>,
    root: PathBuf,
}

impl Symbolizer {
    /// Reads the program's symbols. Without them every address stays a number.
    pub fn new(elf: &Path, root: &Path) -> Symbolizer {
        Symbolizer { loader: Loader::new(elf).ok(), root: root.to_path_buf() }
    }

    /// The functions at `address`, the innermost inlined one first, each `name at file:line`; not more,
    /// and not longer, than a person reads.
    pub fn describe(&self, address: u64) -> Vec<String> {
        let Some(loader) = &self.loader else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        if let Ok(mut frames) = loader.find_frames(address) {
            while lines.len() < INLINED
                && let Ok(Some(frame)) = frames.next()
            {
                let name = frame.function.as_ref().and_then(|f| f.demangle().ok());
                let place = frame.location.and_then(|location| {
                    let file = self.shorten(location.file?);
                    Some(format!(" at {file}:{}", location.line.unwrap_or(0)))
                });
                if name.is_some() || place.is_some() {
                    let name = name.as_deref().unwrap_or("?");
                    lines.push(cut(&format!("{name}{}", place.unwrap_or_default())).to_string());
                }
            }
        }
        if lines.is_empty()
            && let Some(symbol) = loader.find_symbol(address)
        {
            lines.push(cut(&addr2line::demangle_auto(symbol.into(), None)).to_string());
        }
        lines
    }

    /// A path as seen from the checkout.
    fn shorten(&self, file: &str) -> String {
        Path::new(file).strip_prefix(&self.root).map_or(file.into(), |p| p.display().to_string())
    }
}

/// The kernel's dump with names beside its addresses; `None` if there is no dump. The kernel's is the
/// last: nobody prints anything behind it. A program can print what looks like one, so no more is
/// taken of it than the kernel's ever has, and the console's end is shown behind it.
pub fn kernel_dump(console: &str, kernel: &Path, root: &Path) -> Option<String> {
    let begins = |line: &&str| line.trim_start().starts_with("PANIC");
    let after = console.lines().rev().position(|line| begins(&line))?;
    let lines: Vec<&str> = console.lines().skip(console.lines().count() - 1 - after).collect();
    let symbols = Symbolizer::new(kernel, root);
    let mut dump = String::new();
    let (shown, rest) = lines.split_at(lines.len().min(DUMP_LINES));
    for line in shown {
        push_line(&mut dump, cut(line));
        if let Some(address) = frame_address(line) {
            push_names(&mut dump, &symbols, address);
        }
    }
    let (left_out, end) = rest.split_at(rest.len().saturating_sub(END_LINES));
    if !left_out.is_empty() {
        push_line(
            &mut dump,
            &format!("[{} lines of the console are left out here]", left_out.len()),
        );
    }
    end.iter().for_each(|line| push_line(&mut dump, cut(line)));
    Some(dump)
}

/// The beginning of a line that may be of any length.
fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(LINE)]
}

/// The server that a crash record is about.
pub fn crashed_server(record: &str) -> Option<&str> {
    record.lines().find_map(|line| line.strip_prefix("server=")).map(str::trim)
}

/// A crash record with names beside its addresses, from the server's ELF file.
pub fn crash_record(text: &str, elf: Option<&Path>, root: &Path) -> String {
    let symbols = elf.map(|elf| Symbolizer::new(elf, root));
    let (mut shown, mut named) = (String::new(), 0);
    for line in text.lines() {
        push_line(&mut shown, line);
        let address = line.split_once('=').and_then(|(key, value)| record_address(key, value));
        if let (Some(symbols), Some(address)) = (&symbols, address)
            && named < NAMED_ADDRESSES
        {
            push_names(&mut shown, symbols, address);
            named += 1;
        }
    }
    shown
}

/// The code address that a line of a crash record has, in the middle of the call for a caller.
pub fn record_address(key: &str, value: &str) -> Option<u64> {
    match key {
        "ip" => number(value),
        "frame" => number(value).map(|address| address - 1),
        _ => None,
    }
}

/// A pasted dump, the console's or that of `crashes -v`, with names beside its code addresses;
/// each that has no name says so. `elf_of` finds the program of a server's name, as the summary
/// lines of `crashes` say it; until the first such line it is asked for `first`.
pub fn dump(
    text: &str,
    first: &str,
    elf_of: &dyn Fn(&str) -> Option<PathBuf>,
    root: &Path,
) -> String {
    let load = |server: &str| elf_of(server).map(|elf| Symbolizer::new(&elf, root));
    let mut symbols = load(first);
    let mut shown = String::new();
    for line in text.lines() {
        push_line(&mut shown, line);
        if let Some(server) = summary_server(line) {
            symbols = load(server);
        }
        let Some(address) = dump_address(line) else { continue };
        let names = symbols.as_ref().map(|s| s.describe(address)).unwrap_or_default();
        if names.is_empty() {
            push_line(&mut shown, "        (no symbol)");
        }
        for name in names {
            push_line(&mut shown, &format!("        {name}"));
        }
    }
    shown
}

/// The server of a summary line, `#NUMBER TIME SERVER (incarnation …`, or of `server=SERVER`.
fn summary_server(line: &str) -> Option<&str> {
    if let Some(server) = line.strip_prefix("server=") {
        return Some(server.trim());
    }
    let (head, _) = line.split_once(" (incarnation ")?;
    head.trim_start().starts_with('#').then(|| head.rsplit(' ').next())?
}

/// The code address of a line of a dump: `#N 0xADDRESS`, `ip 0xADDRESS, sp …`, `ip=` or `frame=`.
fn dump_address(line: &str) -> Option<u64> {
    let line = line.trim();
    if let Some((key, value)) = line.split_once('=') {
        return record_address(key, value);
    }
    if let Some(rest) = line.strip_prefix("ip ") {
        return number(rest.split(',').next()?);
    }
    frame_address(line)
}

/// `skink symbolize`: the dump in `file` or on standard input, by the system as it is built now.
///
/// # Errors
/// If the dump cannot be read, the system does not build, or the binary is not there.
pub fn command(
    workspace: &Workspace,
    arch: Arch,
    server: &str,
    binary: Option<PathBuf>,
    file: Option<&Path>,
) -> Result<u8> {
    let text = match file {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
        }
        None => std::io::read_to_string(std::io::stdin()).context("reading standard input")?,
    };
    let shown = match binary {
        Some(binary) => {
            std::fs::metadata(&binary).with_context(|| format!("reading {}", binary.display()))?;
            dump(&text, server, &|_| Some(binary.clone()), &workspace.root)
        }
        None => {
            let system = System::build(workspace, arch, &Recipe::default())?;
            let elf_of = |name: &str| match name {
                "kernel" => Some(system.programs.kernel.clone()),
                server => system.elf_of(server).map(Path::to_path_buf),
            };
            dump(&text, server, &elf_of, &workspace.root)
        }
    };
    print!("{}", escape::text(&shown));
    Ok(0)
}

fn push_line(to: &mut String, line: &str) {
    to.push_str(line.trim_end());
    to.push('\n');
}

fn push_names(to: &mut String, symbols: &Symbolizer, address: u64) {
    for name in symbols.describe(address) {
        push_line(to, &format!("        {name}"));
    }
}

/// The address of a line `#N 0xADDRESS`, in the middle of the call and not behind it.
fn frame_address(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let index = words.next()?.strip_prefix('#')?.parse::<u32>().ok()?;
    let address = number(words.next()?)?;
    Some(if index == 0 { address } else { address.saturating_sub(1) })
}

fn number(text: &str) -> Option<u64> {
    let digits = text.trim().trim_end_matches(':');
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => None,
    }
    .filter(|address| *address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[inline(never)]
    fn a_function_to_be_found() -> u64 {
        std::hint::black_box(7)
    }

    // The addresses of this process are Linux's to tell.
    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_functions_have_names() {
        let elf = std::env::current_exe().unwrap();
        let loader = Loader::new(&elf).unwrap();
        let here = a_function_to_be_found as *const () as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let first = maps.split('-').next().unwrap();
        let base = u64::from_str_radix(first, 16).expect("the first mapping is the program's own");
        drop(loader);
        let symbols = Symbolizer::new(&elf, Path::new("/"));
        let text = symbols.describe(here - base).join("\n");
        assert!(text.contains("a_function_to_be_found"), "{text}");
        assert!(text.contains("symbolize.rs:"), "{text}");
    }

    #[test]
    fn a_record_without_symbols_stays_as_it_is() {
        let record = "number=1\nserver=fs\nip=0x1234\nframe=0x0\nframe=0x55\n";
        assert_eq!(crashed_server(record), Some("fs"));
        assert_eq!(crash_record(record, None, Path::new("/")), record);
        let elf = std::env::current_exe().unwrap();
        assert!(crash_record(record, Some(&elf), Path::new("/")).starts_with("number=1\n"));
    }

    #[test]
    fn a_recorded_dump_is_read_as_it_is_pasted() {
        let pasted = "#3 1.250 s fs (incarnation 2): fault: load from 0x8 (null pointer); 1 requests \
                      in flight\n    ip 0x1234, sp 0x10010000\n          rip 0x0000000000201234\n    \
                      #0 0x55\n    1200 ns before: badge 0x3, file.read\n";
        assert_eq!(summary_server(pasted.lines().next().unwrap()), Some("fs"));
        let addresses: Vec<u64> = pasted.lines().filter_map(dump_address).collect();
        assert_eq!(addresses, [0x1234, 0x55]);
        let asked = std::cell::RefCell::new(Vec::new());
        let elf_of = |server: &str| {
            asked.borrow_mut().push(server.to_string());
            None
        };
        let shown = dump(pasted, "kernel", &elf_of, Path::new("/"));
        assert_eq!(*asked.borrow(), ["kernel", "fs"]);
        assert_eq!(shown.matches("(no symbol)").count(), 2, "{shown}");
        for line in pasted.lines() {
            assert!(shown.contains(line), "{shown} lost {line}");
        }
    }

    #[test]
    fn frames_are_read_and_the_dump_begins_at_the_panic() {
        assert_eq!(frame_address("  #0 0x1000"), Some(0x1000));
        assert_eq!(frame_address("  #2 0x1000 extra"), Some(0xfff));
        assert_eq!(frame_address("  # 0x1000"), None);
        assert_eq!(frame_address("text"), None);
        let console = "hello\nPANIC at x: y\n  #0 0x10\n";
        let dump = kernel_dump(console, Path::new("/nonexistent"), Path::new("/")).unwrap();
        assert_eq!(dump, "PANIC at x: y\n  #0 0x10\n");
        assert_eq!(kernel_dump("fine", Path::new("/nonexistent"), Path::new("/")), None);
    }

    #[test]
    fn a_dump_that_a_program_printed_is_bounded_and_hides_no_other() {
        let elf = std::env::current_exe().unwrap();
        let frames = "#1 0x201000\n".repeat(100_000);
        let dump = |console: &str| kernel_dump(console, &elf, Path::new("/")).unwrap();
        let shown = dump(&format!("PANIC\n{frames}the last words\n"));
        // What stands at the address is this program's, whose names may be long.
        let most = DUMP_LINES * (INLINED + 1) * (LINE + 20) + END_LINES * LINE;
        assert!(shown.len() < most && shown.ends_with("the last words\n"), "{}", shown.len());
        assert!(shown.contains("lines of the console are left out here"), "{shown}");
        let shown = dump(&format!("PANIC\n{frames}PANIC: the real one\n  #0 0x10\n"));
        assert!(shown.starts_with("PANIC: the real one\n  #0 0x10\n"), "{shown}");
        let shown = dump(&format!("PANIC: {}\n", "x".repeat(1 << 20)));
        assert!(shown.len() < 64 << 10, "{}", shown.len());
    }
}
