//! What a campaign boots: a system, a disk, and how the machine is set up; broken on purpose, if a
//! control says so.

use super::control::Control;
use super::lab::Lab;
use super::lying_disk::LyingDisk;
use crate::disk::{self, Disk, Entry};
use crate::machine::Options;
use crate::session::{Recipe, System, Watch};
use crate::workspace::{Arch, Workspace};
use anyhow::Result;
use skink_manifest::Experiment;

/// What is booted, again and again.
#[derive(Debug)]
pub struct Rig {
    system: System,
    options: Options,
    lying: Option<LyingDisk>,
    /// Goes last: the others use it.
    _disk: Disk,
}

impl Rig {
    /// The shipped system under `experiment`, with a disk of its own with one large file
    /// (`BIG.BIN`, of so many bytes), which the shell's measurements read.
    ///
    /// # Errors
    /// If something cannot be built.
    pub fn build(
        workspace: &Workspace,
        arch: Arch,
        experiment: Experiment,
        control: Option<Control>,
        bytes: usize,
    ) -> Result<Rig> {
        crate::doctor::ensure(workspace, arch)?;
        let broken = control.map_or(experiment.broken, Control::broken);
        let experiment = Some(Experiment { broken, ..experiment });
        let recipe = Recipe { experiment, ..Recipe::default() };
        let system = System::build(workspace, arch, &recipe)?;
        let big = Entry::bytes("BIG.BIN", disk::patterned(bytes));
        let disk = Disk::temporary(workspace, "campaign", &[big])?;
        let lie = control.and_then(Control::lie);
        let lying = lie.map(|lie| LyingDisk::start(&disk.image, lie)).transpose()?;
        let options = match &lying {
            Some(lying) => Options { extra: lying.arguments(), ..Options::default() },
            None => Options { disk: Some(disk.image.clone()), ..Options::default() },
        };
        Ok(Rig { system, options, lying, _disk: disk })
    }

    /// The same with other options of the machine.
    pub fn with(mut self, change: impl FnOnce(Options) -> Options) -> Rig {
        self.options = change(self.options);
        self
    }

    /// Has the disk lie at once, if it does: for a campaign in which nobody dies.
    pub fn lie_from_the_start(&self) {
        if let Some(lying) = &self.lying {
            lying.begin();
        }
    }

    /// Boots it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn boot(&self, watch: &Watch) -> Result<Lab<'_>> {
        Lab::boot(&self.system, &self.options, self.lying.as_ref(), watch)
    }
}
