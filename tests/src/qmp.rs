//! QEMU's own view of its devices, by QMP: what no program in the guest can be asked.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long QEMU may take to listen, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket for QMP that no QEMU listens on yet.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// One of this name in the folder for temporary files; short, since sockets' paths are.
    pub fn new(name: &str) -> Socket {
        let file = format!("skink-{}-{name}.qmp", std::process::id());
        Socket { path: std::env::temp_dir().join(file) }
    }

    /// QEMU's words for it.
    pub fn arguments(&self) -> Vec<String> {
        vec!["-qmp".into(), format!("unix:{},server=on,wait=off", self.path.display())]
    }

    /// Connects, when QEMU listens.
    ///
    /// # Errors
    /// If it does not, or is no QMP.
    pub fn connect(&self) -> Result<Qmp> {
        let stream = connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp { reader, stream };
        qmp.line().context("QMP's greeting")?;
        qmp.execute("qmp_capabilities", "{}")?;
        Ok(qmp)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) fn connect(path: &Path) -> Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until => {
                return Err(error).with_context(|| format!("QEMU's socket {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Qmp {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("QEMU does not answer")? == 0 {
            bail!("QEMU has closed the connection");
        }
        Ok(line)
    }

    /// Executes a command with arguments in JSON; its answer in JSON.
    ///
    /// # Errors
    /// If QEMU refuses or does not answer.
    pub fn execute(&mut self, command: &str, arguments: &str) -> Result<String> {
        writeln!(self.stream, "{{\"execute\": \"{command}\", \"arguments\": {arguments}}}")?;
        loop {
            let line = self.line()?;
            if line.starts_with("{\"return\"") {
                return Ok(line);
            }
            if line.starts_with("{\"error\"") {
                bail!("QMP's {command}: {line}");
            }
        }
    }

    /// The device status of the machine's one virtio device (virtio 1.2 §2.1), as the list of its
    /// bits in words; empty after a reset.
    ///
    /// # Errors
    /// As [`Qmp::execute`], or if there is no such device.
    pub fn virtio_status(&mut self) -> Result<String> {
        let devices = self.execute("x-query-virtio", "{}")?;
        let path = between(&devices, "\"path\": \"", "\"").context("no virtio device")?;
        let all = self.execute("x-query-virtio-status", &format!("{{\"path\": \"{path}\"}}"))?;
        let statuses = between(&all, "\"statuses\": [", "]");
        Ok(statuses.with_context(|| format!("no status in {all}"))?.to_owned())
    }
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(behind).map(|(found, _)| found)
}
