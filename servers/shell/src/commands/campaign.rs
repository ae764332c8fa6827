//! Measurements with deaths in them: restarts of all servers in turn, throughput while a server
//! is killed. The host tool's campaigns (`skink soak`, `skink throughput`) run these.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use libipc::control::Misbehaviour;
use libipc::time;
use skink_protocols::control::{CrashRecord, KillSpec};
use skink_protocols::file::{Access, Create};

use super::files::open;
use super::measure::{PIECE, Stopwatch, rate};
use super::ordered::{death, kill, order};
use super::source::{
    BLOCK, SOURCE, Source, TARGET, WRITTEN, check_written, far_apart, remove_target,
};
use crate::context::{Context, Failure, Outcome};

const SECOND_NS: u64 = 1_000_000_000;

/// The servers that a round restarts, from the driver up.
const ROUND: [&str; 6] = ["pci", "virtio-blk", "fs", "bootfs", "hello", "console"];
/// The shell itself: restarted by the host tool between rounds.
const SHELL: &str = "shell";

/// Kill to the next answered request that needs the disk; and what the parts of it took.
pub fn restarts(context: &mut Context<'_>, id: &str, server: &str, kills: u64) -> Outcome {
    let source = Source::open(context)?;
    for number in 0..kills {
        context.check_interrupt()?;
        let position = far_apart(number, source.blocks);
        let watch = Stopwatch::start();
        let order = kill(context, server, KillSpec::default())?;
        let length = source.file.read_shared(position, BLOCK)?;
        watch.sample(context, id, 1);
        source.check(position, length, BLOCK)?;
        parts(context, id, &death(context, order)?)?;
    }
    Ok(())
}

/// The parts of a restart. Up to the successor's start the root server alone runs, and never waits;
/// then the driver initialises its device, the client attaches to the rings again, and the request
/// is served. The last part alone has the device's own work in it, for which everybody waits.
fn parts(context: &mut Context<'_>, id: &str, record: &CrashRecord) -> Outcome {
    let line = &record.timeline;
    let steps = [
        ("declare", line.noticed, line.declared),
        ("silence", line.declared, line.silenced),
        ("revoke", line.silenced, line.revoked),
        ("reload", line.revoked, line.reloaded),
        ("build", line.reloaded, line.started),
        ("device-init", line.started, line.ready),
        ("reconnect-and-device", line.ready, line.answered),
    ];
    for (part, from, to) in steps {
        if from == 0 || to < from {
            let text = format!("death {}: it has no end of {part}: {line:?}", record.number);
            return Err(Failure::new(text));
        }
        context.line(format_args!("sample {id}.{part} {} busy-ns", to - from));
    }
    Ok(())
}

/// From a server's fault, with a request in flight, to its callers' being woken.
pub fn wakes(context: &mut Context<'_>, count: u64) -> Outcome {
    for _ in 0..count {
        context.check_interrupt()?;
        let how = Misbehaviour::IllegalInstruction;
        let order = kill(context, "hello", KillSpec::at_next_request(how))?;
        touch(context, "hello", 0)?;
        let record = death(context, order)?;
        // The request was noted just before the fault.
        let Some(fault) = record.history.last() else {
            return Err(Failure::new("the crash record has no request"));
        };
        let declared = record.timeline.declared.checked_sub(fault.time_ns);
        let ns = declared.ok_or_else(|| Failure::new("it was declared before it faulted"))?;
        context.line(format_args!("sample death.wake {ns} busy-ns"));
    }
    Ok(())
}

/// Restarts each server once and uses what it provides; prints what all of it cost, the last
/// restart of the shell included. Each successor must have come so far that it serves.
pub fn rounds(context: &mut Context<'_>, count: u64) -> Outcome {
    for round in 0..count {
        context.check_interrupt()?;
        let watch = Stopwatch::start();
        let mut orders = Vec::new();
        for server in ROUND {
            orders.push(kill(context, server, KillSpec::default())?);
            touch(context, server, round)?;
        }
        let shell = if round == 0 { restart_of_shell(context)? } else { 0 };
        watch.sample_with(context, "restart.round", 1, shell);
        for order in orders {
            let record = death(context, order)?;
            let line = &record.timeline;
            if line.started == 0 || line.ready < line.started {
                let text = format!("{} died by order {order} and does not serve", record.server);
                return Err(Failure::new(text));
            }
        }
    }
    Ok(())
}

/// Has the server do something that a client asks for. (`pci` has no client after boot.)
fn touch(context: &mut Context<'_>, server: &str, round: u64) -> Outcome {
    match server {
        "virtio-blk" | "fs" => {
            let source = Source::open(context)?;
            let position = far_apart(round, source.blocks);
            let length = source.file.read_shared(position, BLOCK)?;
            source.check(position, length, BLOCK)?;
        }
        "bootfs" => {
            let (client, inner) = context.resolve("/boot")?;
            client.status(&inner)?;
        }
        "hello" => {
            let client = context.sessions.hello.as_ref();
            let client = client.ok_or_else(|| Failure::new("there is no hello server"))?;
            if client.add(round, 1).map_err(Failure::new)? != round + 1 {
                return Err(Failure::new("the hello server cannot add"));
            }
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

/// Pieces behind a death that are looked at: the driver's queue and the cache's read-ahead are in
/// them.
const CHECKED: u32 = 16;

/// Kills once a second.
struct Killer<'a> {
    victim: Option<&'a str>,
    next_ns: u64,
    /// The order whose death has not been seen yet.
    pending: Option<u64>,
    /// Pieces that are still to be checked.
    checked: u32,
    kills: u64,
}

impl<'a> Killer<'a> {
    fn new(victim: Option<&'a str>) -> Killer<'a> {
        let next_ns = time::now_ns() + SECOND_NS / 2;
        Killer { victim, next_ns, pending: None, checked: 0, kills: 0 }
    }

    /// Orders the next death when it is time. The one before it must have come.
    fn look(&mut self, context: &Context<'_>) -> Outcome {
        let Some(victim) = self.victim else {
            return Ok(());
        };
        if time::now_ns() >= self.next_ns {
            self.settle(context)?;
            let spec = KillSpec::at_next_request(Misbehaviour::Kill);
            self.pending = Some(kill(context, victim, spec)?);
            self.next_ns += SECOND_NS;
            self.checked = CHECKED;
        }
        Ok(())
    }

    /// The pending death has come.
    fn settle(&mut self, context: &Context<'_>) -> Outcome {
        let Some(number) = self.pending.take() else {
            return Ok(());
        };
        let order = order(context, number)?;
        if order.died != 1 {
            return Err(Failure::new(format!(
                "order {number}: {} did not die, its moment came {} times",
                order.server, order.reached
            )));
        }
        self.kills += 1;
        Ok(())
    }

    /// Whether the piece that comes next is to be looked at.
    fn takes_next(&mut self) -> bool {
        let takes = self.checked > 0;
        self.checked = self.checked.saturating_sub(1);
        takes
    }

    /// Prints what was done.
    fn report(&mut self, context: &mut Context<'_>, id: &str, bytes: u64, ns: u64) -> Outcome {
        self.settle(context)?;
        rate(context, id, bytes, ns, "MB/s");
        context.line(format_args!("sample timed.kills {} kills", self.kills));
        Ok(())
    }
}

impl Timed<'_> {
    fn end_ns(&self) -> u64 {
        time::now_ns().saturating_add(self.seconds.saturating_mul(SECOND_NS))
    }

    /// Reads a large file again and again. What comes behind a death is looked at, and when the time
    /// is over all of it.
    pub fn read(&self, context: &mut Context<'_>) -> Outcome {
        let source = Source::open(context)?;
        let piece = PIECE.min(source.file.shared().size());
        let (start, end, mut killer) = (time::now_ns(), self.end_ns(), Killer::new(self.victim));
        let (mut position, mut bytes) = (0, 0);
        while time::now_ns() < end {
            context.check_interrupt()?;
            killer.look(context)?;
            let length = source.file.read_shared(position, piece)?;
            let wanted = piece.min((source.size - position) as usize);
            if killer.takes_next() {
                source.check(position, length, wanted)?;
            } else if length != wanted {
                return Err(Failure::at(SOURCE, "it ended early"));
            }
            bytes += length as u64;
            position = (position + length as u64) % source.size;
        }
        killer.report(context, "timed.read", bytes, time::now_ns() - start)?;
        source.check_all(context)
    }

    /// Writes a file again and again, whole and synced each time; checks the last one.
    pub fn write(&self, context: &mut Context<'_>) -> Outcome {
        let (start, end, mut killer) = (time::now_ns(), self.end_ns(), Killer::new(self.victim));
        let (mut bytes, mut seed) = (0, 0u8);
        while time::now_ns() < end {
            seed = seed.wrapping_add(1);
            let (file, _) = open(context, TARGET, Access::Write, Create::Truncate)?;
            let piece = vec![seed; PIECE.min(file.shared().size())];
            let mut position = 0;
            while position < WRITTEN {
                context.check_interrupt()?;
                killer.look(context)?;
                file.write_at(position, &piece)?;
                position += piece.len() as u64;
            }
            super::tree::sync(context, &[])?;
            bytes += position;
        }
        killer.report(context, "timed.write", bytes, time::now_ns() - start)?;
        let checked = check_written(context, seed);
        remove_target(context)?;
        checked
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
