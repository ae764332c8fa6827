//! Writes on QEMU's bus as a device makes them, by its test protocol: from outside, while the guest
//! runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Result, ensure};

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
