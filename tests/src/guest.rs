//! A system to boot and to talk to.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use skink_tool::machine::{Ending, Options};
use skink_tool::program;
use skink_tool::session::{Guest, Outcome, Recipe, System, Watch};
use skink_tool::workspace::{Arch, FloatAbi, Workspace};

/// Seconds that a line of commands may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The status of a line with which the shell died.
pub const SHELL_DIED: i32 = 137;

/// A built system.
#[derive(Debug)]
pub struct Fixture {
    system: System,
}

/// What a line of commands came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What was printed.
    pub text: String,
    /// The last command's status.
    pub status: i32,
}

impl Said {
    /// The text of commands that succeeded.
    ///
    /// # Errors
    /// With the text, if they did not.
    pub fn ok(self) -> Result<String> {
        if self.status != 0 {
            bail!("status {}: {}", self.status, self.text);
        }
        Ok(self.text)
    }
}

impl Fixture {
    /// The system that ships for a machine.
    ///
    /// # Errors
    /// If it does not build.
    pub fn shipped(arch: Arch) -> Result<Fixture> {
        Fixture::of(arch, &Recipe::default())
    }

    /// Another system.
    ///
    /// # Errors
    /// If it does not build.
    pub fn of(arch: Arch, recipe: &Recipe) -> Result<Fixture> {
        let workspace = Workspace::find()?;
        skink_tool::doctor::ensure(&workspace, arch)?;
        skink_tool::install::ensure_peers()?;
        Ok(Fixture { system: System::build(&workspace, arch, recipe)? })
    }

    /// The shipped system with more tables at the end of its manifest.
    ///
    /// # Errors
    /// If the manifest cannot be read or written, or the system does not build.
    pub fn with_tables(arch: Arch, name: &str, tables: &str) -> Result<Fixture> {
        let workspace = Workspace::find()?;
        let path = workspace.manifest_with(arch, name, tables)?;
        Fixture::of(arch, &Recipe { manifest: Some(path), ..Recipe::default() })
    }

    /// The shipped system with a part of its manifest changed: `edit` is given what is common to all
    /// machines.
    ///
    /// # Errors
    /// As [`Fixture::with_tables`].
    pub fn with_common(arch: Arch, name: &str, edit: impl Fn(&str) -> String) -> Result<Fixture> {
        let workspace = Workspace::find()?;
        let targets = workspace.root.join("targets");
        let folder = workspace.results()?;
        let common = edit(&std::fs::read_to_string(targets.join("common/system.toml"))?);
        let path = folder.join(format!("{name}-common-{}.toml", arch.name()));
        std::fs::write(&path, common)?;
        let text = std::fs::read_to_string(targets.join(arch.target()).join("system.toml"))?;
        let text = text.replace("../common/system.toml", &path.to_string_lossy());
        let path = folder.join(format!("{name}-{}.toml", arch.name()));
        std::fs::write(&path, text)?;
        Fixture::of(arch, &Recipe { manifest: Some(path), ..Recipe::default() })
    }

    /// The machine that it is for.
    pub fn arch(&self) -> Arch {
        self.system.arch
    }

    /// What was built.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Boots it on a disk (or none), runs each line of commands, and shuts it down.
    ///
    /// # Errors
    /// If the guest does not answer, or does not end by itself and cleanly.
    pub fn exec(&self, disk: Option<&Path>, lines: &[&str]) -> Result<Vec<Said>> {
        let options = Options { disk: disk.map(Path::to_path_buf), ..Options::default() };
        self.exec_with(&options, lines)
    }

    /// As [`Fixture::exec`], with all options.
    ///
    /// # Errors
    /// As there.
    pub fn exec_with(&self, options: &Options, lines: &[&str]) -> Result<Vec<Said>> {
        Ok(self.exec_heard(options, lines)?.0)
    }

    /// As [`Fixture::exec_with`], with all that was printed on the console.
    ///
    /// # Errors
    /// As there.
    pub fn exec_heard(&self, options: &Options, lines: &[&str]) -> Result<(Vec<Said>, String)> {
        let _alone = crate::one_at_a_time();
        let mut guest = Guest::boot(&self.system, options, &Watch::default())?;
        let said = lines.iter().map(|line| say(&mut guest, line)).collect::<Result<_>>()?;
        let console = guest.console();
        shut_down(guest)?;
        Ok((said, console))
    }

    /// Builds a program of the workspace for this machine, as a file for the guest's `run`.
    ///
    /// # Errors
    /// If it does not build.
    pub fn program(&self, name: &str) -> Result<Vec<u8>> {
        program::build(&Workspace::find()?, self.arch(), name, FloatAbi::Soft)
    }

    /// Boots it without a disk and runs `line` again and again until `is_done` says so of all
    /// that was printed on the console; returns that.
    ///
    /// # Errors
    /// As [`Fixture::exec`], and if that takes more than two minutes.
    pub fn console_when(&self, line: &str, is_done: impl Fn(&str) -> bool) -> Result<String> {
        let _alone = crate::one_at_a_time();
        let mut guest = Guest::boot(&self.system, &Options::default(), &Watch::default())?;
        let began = Instant::now();
        while !is_done(&guest.console()) {
            say(&mut guest, line)?;
            if began.elapsed() > TIMEOUT {
                bail!("not done after {TIMEOUT:?}\n{}", guest.post_mortem());
            }
        }
        let console = guest.console();
        shut_down(guest)?;
        Ok(console)
    }

    /// Runs one line on a disk; its text if it succeeded.
    ///
    /// # Errors
    /// As [`Fixture::exec`], and if it did not succeed.
    pub fn ok(&self, disk: &Path, line: &str) -> Result<String> {
        self.exec(Some(disk), &[line])?.remove(0).ok()
    }
}

fn say(guest: &mut Guest, line: &str) -> Result<Said> {
    let (bytes, outcome) = guest.capture(line, TIMEOUT)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match outcome {
        Outcome::Status(status) => Ok(Said { text, status }),
        Outcome::ShellDied => Ok(Said { text, status: SHELL_DIED }),
        other => bail!("`{line}`: {other:?} after {text:?}\n{}", guest.post_mortem()),
    }
}

fn shut_down(mut guest: Guest) -> Result<()> {
    match guest.shut_down()? {
        Some(Ending::Clean) => Ok(()),
        other => bail!("the guest did not shut down: {other:?}\n{}", guest.post_mortem()),
    }
}
