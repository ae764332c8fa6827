//! Measurements with deaths in them: restarts of all servers in turn, throughput while a server
//! is killed. The host tool's campaigns (`skink soak`, `skink throughput`) run these.

use alloc::string::String;
use alloc::{format, vec};

use libipc::control::Misbehaviour;
use libipc::time;
use skink_protocols::control::{CrashRecord, KillSpec};
use skink_protocols::file::client::{File, remove};
use skink_protocols::file::{Access, Create};

use super::files::open;
use super::measure::{PIECE, SOURCE, Stopwatch, TARGET, WRITTEN, far_apart, rate};
use crate::context::{Context, Failure, Outcome};

/// The servers that a round restarts, from the driver up.
const ROUND: [&str; 6] = ["pci", "virtio-blk", "fs", "bootfs", "hello", "console"];
/// The shell itself: restarted by the host tool between rounds.
const SHELL: &str = "shell";

/// Kill to the next answered request that needs the disk; and what the parts of it took.
pub fn restarts(context: &mut Context<'_>, id: &str, server: &str, kills: u64) -> Outcome {
    let (file, size) = open(context, SOURCE, Access::Read, Create::Never)?;
    let blocks = (size / 4096).max(1);
    for kill in 0..kills {
        context.check_interrupt()?;
        let position = far_apart(kill, blocks);
        let watch = Stopwatch::start();
        context.sessions.control.kill(server, KillSpec::default())?;
        file.read_shared(position, 4096)?;
        watch.sample(context, id, 1);
        parts(context, id)?;
    }
    Ok(())
}

/// The parts of the last restart. Up to the successor's start the root server alone runs, and
/// never waits; then the driver initialises its device, the client attaches to the rings again,
/// and the request is served: all nanoseconds but those of the device's work are busy ones.
fn parts(context: &mut Context<'_>, id: &str) -> Outcome {
    let Some(record) = context.sessions.control.crash(0)? else {
        return Err(Failure::new("no crash record of a server that was killed"));
    };
    let line = &record.timeline;
    let steps = [
        ("declare", line.noticed, line.declared),
        ("silence", line.declared, line.silenced),
        ("revoke", line.silenced, line.revoked),
        ("reload", line.revoked, line.reloaded),
        ("build", line.reloaded, line.started),
        ("device-init", line.started, line.ready),
        ("reconnect", line.ready, line.answered),
    ];
    for (part, from, to) in steps {
        context.line(format_args!("sample {id}.{part} {} busy-ns", to.saturating_sub(from)));
    }
    Ok(())
}

/// From a server's fault, with a request in flight, to its callers' being woken.
pub fn wakes(context: &mut Context<'_>, count: u64) -> Outcome {
    for _ in 0..count {
        context.check_interrupt()?;
        let how = Misbehaviour::IllegalInstruction;
        let spec = KillSpec::at_next_request(how);
        context.sessions.control.kill("hello", spec)?;
        touch(context, "hello", 0)?;
        let record = context.sessions.control.crash(0)?;
        let record = record.filter(|record| record.server == "hello");
        let record = record.ok_or_else(|| Failure::new("hello did not die"))?;
        // The request was noted just before the fault.
        let Some(fault) = record.history.last() else {
            return Err(Failure::new("the crash record has no request"));
        };
        let ns = record.timeline.declared.saturating_sub(fault.time_ns);
        context.line(format_args!("sample death.wake {ns} busy-ns"));
    }
    Ok(())
}

/// Restarts each server once and uses what it provides; prints what all of it cost, the last
/// restart of the shell included.
pub fn rounds(context: &mut Context<'_>, count: u64) -> Outcome {
    for round in 0..count {
        context.check_interrupt()?;
        let watch = Stopwatch::start();
        for server in ROUND {
            context.sessions.control.kill(server, KillSpec::default())?;
            touch(context, server, round)?;
        }
        let shell = if round == 0 { restart_of_shell(context)? } else { 0 };
        watch.sample_with(context, "restart.round", 1, shell);
    }
    Ok(())
}

/// Has the server do something that a client asks for. (`pci` has no client after boot.)
fn touch(context: &mut Context<'_>, server: &str, round: u64) -> Outcome {
    match server {
        "virtio-blk" | "fs" => {
            let (file, size) = open(context, SOURCE, Access::Read, Create::Never)?;
            let blocks = (size / 4096).max(1);
            file.read_shared(far_apart(round, blocks), 4096)?;
        }
        "bootfs" => {
            let (client, inner) = context.resolve("/boot")?;
            client.status(&inner)?;
        }
        "hello" => {
            let client = context.sessions.hello.as_ref();
            client
                .ok_or_else(|| Failure::new("the manifest grants no hello server"))?
                .add(1, 1)
                .map_err(Failure::new)?;
        }
        // The next line that is printed needs it.
        "console" => context.line(format_args!("console {round}")),
        _ => {}
    }
    context.out.flush();
    Ok(())
}

/// Nanoseconds that the root server took for the shell's last restart, if that was the last death.
fn restart_of_shell(context: &Context<'_>) -> Result<u64, Failure> {
    for index in 0..=ROUND.len() as u32 {
        let Some(record) = context.sessions.control.crash(index)? else {
            break;
        };
        if record.server == SHELL {
            return Ok(took(&record));
        }
    }
    Ok(0)
}

/// From the death to the successor's start, in which the root server alone runs.
fn took(record: &CrashRecord) -> u64 {
    record.timeline.started.saturating_sub(record.timeline.noticed)
}

/// What is measured while a server is killed.
pub struct Timed<'a> {
    /// For how long, seconds.
    pub seconds: u64,
    /// Who is killed once a second, with its next request in flight; nobody without.
    pub victim: Option<&'a str>,
}

/// Kills once a second.
struct Killer<'a> {
    victim: Option<&'a str>,
    next_ns: u64,
    kills: u64,
}

impl Killer<'_> {
    fn look(&mut self, context: &mut Context<'_>) -> Outcome {
        let Some(victim) = self.victim else {
            return Ok(());
        };
        if time::now_ns() >= self.next_ns {
            let how = Misbehaviour::Kill;
            let spec = KillSpec::at_next_request(how);
            context.sessions.control.kill(victim, spec)?;
            self.next_ns += 1_000_000_000;
            self.kills += 1;
        }
        Ok(())
    }
}

impl Timed<'_> {
    fn killer(&self) -> Killer<'_> {
        Killer { victim: self.victim, next_ns: time::now_ns() + 500_000_000, kills: 0 }
    }

    fn end_ns(&self) -> u64 {
        time::now_ns().saturating_add(self.seconds.saturating_mul(1_000_000_000))
    }

    /// Reads a large file again and again.
    pub fn read(&self, context: &mut Context<'_>) -> Outcome {
        let (file, size) = open(context, SOURCE, Access::Read, Create::Never)?;
        let piece = PIECE.min(file.shared().size());
        let (start, end, mut killer) = (time::now_ns(), self.end_ns(), self.killer());
        let (mut position, mut bytes) = (0, 0);
        while time::now_ns() < end {
            context.check_interrupt()?;
            killer.look(context)?;
            let length = file.read_shared(position, piece)? as u64;
            if length == 0 {
                return Err(Failure::at(SOURCE, "it ended early"));
            }
            bytes += length;
            position = if position + length >= size { 0 } else { position + length };
        }
        rate(context, "timed.read", bytes, time::now_ns() - start, "MB/s");
        context.line(format_args!("sample timed.kills {} kills", killer.kills));
        Ok(())
    }

    /// Writes a file again and again, synced each time; checks the last one.
    pub fn write(&self, context: &mut Context<'_>) -> Outcome {
        let (start, end, mut killer) = (time::now_ns(), self.end_ns(), self.killer());
        let (mut bytes, mut seed) = (0, 0u8);
        while time::now_ns() < end {
            let (file, _) = open(context, TARGET, Access::Write, Create::Truncate)?;
            let piece = vec![seed; PIECE.min(file.shared().size())];
            let mut position = 0;
            while position < WRITTEN && time::now_ns() < end {
                context.check_interrupt()?;
                killer.look(context)?;
                file.write_at(position, &piece)?;
                position += piece.len() as u64;
            }
            super::tree::sync(context, &[])?;
            bytes += position;
            seed = seed.wrapping_add(1);
        }
        rate(context, "timed.write", bytes, time::now_ns() - start, "MB/s");
        context.line(format_args!("sample timed.kills {} kills", killer.kills));
        let (file, _) = open(context, TARGET, Access::Read, Create::Never)?;
        let checked = check(&file, seed.wrapping_sub(1));
        drop(file);
        let (client, inner) = context.resolve(TARGET)?;
        remove(&client, &inner)?;
        checked
    }
}

/// Every byte of the file must be `seed`.
fn check(file: &File, seed: u8) -> Outcome {
    let mut bytes = vec![0; PIECE];
    let mut position = 0;
    loop {
        let length = file.read_at(position, &mut bytes)?;
        if let Some(bad) = bytes[..length].iter().position(|byte| *byte != seed) {
            let at = position + bad as u64;
            let text = format!("byte {at} is {}, not {seed}", bytes[bad]);
            return Err(Failure::at(TARGET, text));
        }
        if length == 0 {
            return Ok(());
        }
        position += length as u64;
    }
}

/// The words behind `bench timed.read`: SECONDS, and the victim if there is one.
pub fn timed(words: &[String]) -> Option<Timed<'_>> {
    let (seconds, victim) = match words {
        [seconds] => (seconds, None),
        [seconds, victim] => (seconds, Some(victim.as_str())),
        _ => return None,
    };
    let seconds = crate::format::number(seconds).filter(|s| *s > 0)?;
    Some(Timed { seconds, victim })
}
