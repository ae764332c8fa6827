//! QEMU's bus from outside, by its test protocol: writes as a device makes them while the guest runs
//! ([`Bus`]), and machines whose processors never start, so that a test does what a driver would
//! ([`Machine`]).
//!
//! The protocol is lines of text (QEMU's `docs/devel/testing/qtest.rst`): a command, and its answer
//! `OK`, with a value behind it where one was asked for.

use std::fmt::Arguments;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use skink_tool::workspace::{Arch, Workspace};

use crate::qmp::connect;

/// A socket for the protocol that no QEMU listens on yet.
#[derive(Debug)]
pub struct Bus {
    path: PathBuf,
}

/// The bus of a running QEMU.
#[derive(Debug)]
pub struct Memory {
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Bus {
    /// One of this name in the folder for temporary files; short, since sockets' paths are.
    pub fn new(name: &str) -> Bus {
        let file = format!("skink-{}-{name}.qtest", std::process::id());
        Bus { path: std::env::temp_dir().join(file) }
    }

    /// QEMU's words for it.
    pub fn arguments(&self) -> Vec<String> {
        let socket = format!("unix:{},server=on,wait=off", self.path.display());
        ["-qtest", &socket, "-qtest-log", "none"].map(String::from).into()
    }

    /// Connects, when QEMU listens.
    ///
    /// # Errors
    /// If it does not.
    pub fn connect(&self) -> Result<Memory> {
        let stream = connect(&self.path)?;
        Ok(Memory { reader: BufReader::new(stream.try_clone()?), stream })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Memory {
    /// Writes four bytes at a physical address.
    ///
    /// # Errors
    /// If QEMU is gone, or refuses.
    pub fn write(&mut self, address: u32, value: u32) -> Result<()> {
        writeln!(self.stream, "writel {address:#x} {value:#x}")?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer)?;
        ensure!(answer.trim_end() == "OK", "QEMU answers {answer:?}");
        Ok(())
    }
}

/// A machine whose processors stand still: its devices answer a test.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Machine {
    /// Starts QEMU with a machine of these words, without any device that they do not name; installs it
    /// first where it is missing.
    ///
    /// # Errors
    /// If it cannot be started. What it says of bad words stands on the standard error, and the
    /// first access panics.
    pub fn start(arch: Arch, words: &[String]) -> Result<Machine> {
        skink_tool::doctor::ensure(&Workspace::find()?, arch)?;
        let mut qemu = Command::new(arch.qemu())
            .args(["-accel", "tcg", "-S", "-nodefaults", "-display", "none", "-m", "64M"])
            .args(["-qtest", "stdio", "-qtest-log", "none"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", arch.qemu()))?;
        let commands = qemu.stdin.take().context("QEMU's standard input")?;
        let answers = BufReader::new(qemu.stdout.take().context("QEMU's standard output")?);
        Ok(Machine { qemu, commands, answers })
    }

    /// Gives a command; what stands behind the `OK`.
    ///
    /// # Panics
    /// If QEMU is gone, or refuses.
    fn command(&mut self, command: Arguments<'_>) -> String {
        let mut answer = String::new();
        let asked = writeln!(self.commands, "{command}").and_then(|()| {
            self.answers.read_line(&mut answer)?;
            Ok(())
        });
        match answer.trim_end().strip_prefix("OK") {
            Some(value) if asked.is_ok() => value.trim_start().to_owned(),
            _ => panic!("QEMU answers {answer:?} to `{command}`"),
        }
    }

    fn number(&mut self, command: Arguments<'_>) -> u64 {
        let answer = self.command(command);
        let digits = answer.strip_prefix("0x").unwrap_or(&answer);
        u64::from_str_radix(digits, 16)
            .unwrap_or_else(|error| panic!("`{command}` gives {answer:?}: {error}"))
    }

    /// Reads `bytes` (1, 2, 4 or 8) at a physical address, in one access.
    ///
    /// # Panics
    /// If QEMU is gone, as everything here.
    pub fn read(&mut self, address: u64, bytes: usize) -> u64 {
        self.number(format_args!("read{} {address:#x}", letter(bytes)))
    }

    /// Writes `bytes` (1, 2, 4 or 8) at a physical address, in one access.
    pub fn write(&mut self, address: u64, bytes: usize, value: u64) {
        self.command(format_args!("write{} {address:#x} {value:#x}", letter(bytes)));
    }

    /// Reads `bytes` (1, 2 or 4) from an I/O port.
    pub fn input(&mut self, port: u16, bytes: usize) -> u32 {
        self.number(format_args!("in{} {port:#x}", letter(bytes))) as u32
    }

    /// Writes `bytes` (1, 2 or 4) to an I/O port.
    pub fn output(&mut self, port: u16, bytes: usize, value: u32) {
        self.command(format_args!("out{} {port:#x} {value:#x}", letter(bytes)));
    }

    /// Memory at a physical address.
    pub fn load(&mut self, address: u64, length: usize) -> Vec<u8> {
        let answer = self.command(format_args!("read {address:#x} {length:#x}"));
        let digits = answer.strip_prefix("0x").unwrap_or(&answer).as_bytes();
        let byte = |pair: &[u8]| {
            let pair = str::from_utf8(pair).expect("QEMU answers in ASCII");
            u8::from_str_radix(pair, 16).expect("QEMU answers in hexadecimal digits")
        };
        digits.chunks(2).map(byte).collect()
    }

    /// Puts bytes, at least one, to a physical address.
    pub fn store(&mut self, address: u64, bytes: &[u8]) {
        use std::fmt::Write;
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(digits, "{byte:02x}");
        }
        self.command(format_args!("write {address:#x} {:#x} 0x{digits}", bytes.len()));
    }
}

/// The protocol's letter for an access of so many bytes.
fn letter(bytes: usize) -> char {
    match bytes {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        8 => 'q',
        _ => panic!("an access of {bytes} bytes"),
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
