//! Measurements: `sample ID VALUE UNIT` lines, which `skink bench` collects.
//!
//! Times are the kernel's clock, once as they are (`ns`), once without those in which nobody had
//! anything to do (`busy-ns`): under `-icount shift=0` a busy nanosecond is an instruction, while
//! an idle one is a jump of the emulator's clock.

use alloc::string::String;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::cap::{Cap, Log};
use libipc::start::slot;
use libipc::time;
use skink_protocols::file::{Access, Create};

use super::campaign::{restarts, rounds, timed, wakes};
use super::files::open;
use super::misused;
use super::source::{
    BLOCK, SOURCE, Source, TARGET, WRITTEN, check_written, far_apart, remove_target,
};
use crate::context::{Context, Failure, Outcome};
use crate::format;

/// Bytes of one read or write.
pub(super) const PIECE: usize = 64 * 1024;
/// Random reads in one sample.
const RANDOM_READS: u64 = 1000;
/// Deaths of each kind.
const KILLS: u64 = 1000;

pub fn bench(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (name, count) = match words {
        [name, rest @ ..] if name.starts_with("timed.") => {
            let timed = timed(rest).ok_or_else(|| misused("bench"))?;
            return match name.as_str() {
                "timed.read" => timed.read(context),
                "timed.write" => timed.write(context),
                _ => Err(unknown(name)),
            };
        }
        [name] => (name, None),
        [name, count] => (name, Some(format::number(count).ok_or_else(|| misused("bench"))?)),
        _ => return Err(misused("bench")),
    };
    match name.as_str() {
        "boot.prompt" => prompt(context),
        "fs.read.4k" => read_4k(context, count.unwrap_or(50)),
        "fs.read.seq" => read_sequential(context, count.unwrap_or(5)),
        "fs.read.rand4k" => read_random(context, count.unwrap_or(5)),
        "fs.write.seq" => write_sequential(context, count.unwrap_or(5)),
        "restart.virtio-blk" => restarts(context, name, "virtio-blk", count.unwrap_or(KILLS)),
        "death.wake" => wakes(context, count.unwrap_or(KILLS)),
        "hello.add" => hello(context, count.unwrap_or(50)),
        "restart.round" => rounds(context, count.unwrap_or(1)),
        _ => Err(unknown(name)),
    }
}

/// Busy nanoseconds from boot until the host tool was told that the shell listens.
static PROMPT_NS: AtomicU64 = AtomicU64::new(0);

/// The host tool is about to be told that the shell listens.
pub fn note_prompt() {
    PROMPT_NS.store(time::now_ns().saturating_sub(idle_ns()), Relaxed);
}

/// What the boot took. A shell that was started later knows nothing of that.
fn prompt(context: &mut Context<'_>) -> Outcome {
    let ns = PROMPT_NS.load(Relaxed);
    let is_first = libipc::startup::start_info().is_some_and(|start| start.incarnation == 1);
    if !is_first || ns == 0 {
        return Err(Failure::new("this is not the shell that came with the boot"));
    }
    context.line(format_args!("sample boot.prompt {ns} busy-ns"));
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::at(
        name,
        "unknown; there are boot.prompt, fs.read.4k, fs.read.seq, fs.read.rand4k, fs.write.seq, restart.virtio-blk, \
         restart.round, death.wake, hello.add (with COUNT), timed.read, timed.write (with SECONDS [VICTIM])",
    )
}

/// A moment, to measure from.
pub(super) struct Stopwatch {
    start_ns: u64,
    idle_ns: u64,
}

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        let idle_ns = idle_ns();
        Stopwatch { start_ns: time::now_ns(), idle_ns }
    }

    /// Nanoseconds since the start in which somebody had something to do.
    fn busy_ns(&self) -> u64 {
        let ns = time::now_ns() - self.start_ns;
        ns.saturating_sub(idle_ns() - self.idle_ns)
    }

    /// Prints the rate at which `bytes` were moved since the start, and what each `piece` of them cost.
    fn sequential(&self, context: &mut Context<'_>, id: &str, bytes: u64, piece: usize) {
        let (ns, busy_ns) = (time::now_ns() - self.start_ns, self.busy_ns());
        rate(context, id, bytes, ns, "MB/s");
        let pieces = bytes.div_ceil(piece as u64);
        context.line(format_args!("sample {id} {} busy-ns", busy_ns / pieces));
    }

    /// Prints what one of `count` operations took since the start.
    pub(super) fn sample(&self, context: &mut Context<'_>, id: &str, count: u64) {
        self.sample_with(context, id, count, 0);
    }

    /// As `sample`, and `more_ns` of work that was done elsewhere.
    pub(super) fn sample_with(
        &self,
        context: &mut Context<'_>,
        id: &str,
        count: u64,
        more_ns: u64,
    ) {
        let ns = time::now_ns() - self.start_ns + more_ns;
        let busy_ns = ns.saturating_sub(idle_ns() - self.idle_ns);
        context.line(format_args!("sample {id} {} ns", ns / count));
        context.line(format_args!("sample {id} {} busy-ns", busy_ns / count));
    }
}

/// Time since boot in which nobody had anything to do, as the kernel counts it.
fn idle_ns() -> u64 {
    Cap::<Log>::new(slot::LOG).statistics().map_or(0, |statistics| statistics[3])
}

/// Prints a rate in units of a thousandth: `bytes` in `ns` is MB/s.
pub(super) fn rate(context: &mut Context<'_>, id: &str, amount: u64, ns: u64, unit: &str) {
    let thousandths = u128::from(amount) * 1_000_000 / u128::from(ns.max(1));
    context.line(format_args!(
        "sample {id} {}.{:03} {unit}",
        thousandths / 1000,
        thousandths % 1000
    ));
}

fn read_sequential(context: &mut Context<'_>, samples: u64) -> Outcome {
    let source = Source::open(context)?;
    let piece = PIECE.min(source.file.shared().size());
    for _ in 0..samples {
        let watch = Stopwatch::start();
        let mut position = 0;
        while position < source.size {
            context.check_interrupt()?;
            let length = source.file.read_shared(position, piece)?;
            if length == 0 {
                return Err(Failure::at(SOURCE, "it ended early"));
            }
            position += length as u64;
        }
        watch.sequential(context, "fs.read.seq", source.size, piece);
    }
    source.check_all(context)
}

/// One read of 4 KiB that the cache does not have, through `fs` and the driver: the least of a
/// hundred, as how often a driver is woken for one depends on the device.
fn read_4k(context: &mut Context<'_>, samples: u64) -> Outcome {
    const READS: u64 = 100;
    let source = Source::open(context)?;
    for sample in 0..samples {
        context.check_interrupt()?;
        let mut least = u64::MAX;
        for read in 0..READS {
            let position = far_apart(sample * READS + read, source.blocks);
            let watch = Stopwatch::start();
            let length = source.file.read_shared(position, BLOCK)?;
            least = least.min(watch.busy_ns());
            source.check(position, length, BLOCK)?;
        }
        context.line(format_args!("sample fs.read.4k {least} busy-ns"));
    }
    Ok(())
}

fn read_random(context: &mut Context<'_>, samples: u64) -> Outcome {
    let source = Source::open(context)?;
    let mut random = 88_172_645_463_325_252u64;
    for _ in 0..samples {
        let start = time::now_ns();
        for _ in 0..RANDOM_READS {
            context.check_interrupt()?;
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let position = random % source.blocks * BLOCK as u64;
            if source.file.read_shared(position, BLOCK)? != BLOCK {
                return Err(Failure::at(SOURCE, "a block is short"));
            }
        }
        let ns = time::now_ns() - start;
        // Operations a second: a "byte" a microsecond would be one million.
        rate(context, "fs.read.rand4k", RANDOM_READS * 1_000_000, ns, "IOPS");
    }
    source.check_all(context)
}

fn write_sequential(context: &mut Context<'_>, samples: u64) -> Outcome {
    for sample in 0..samples {
        // No two files in a row have the same bytes.
        let seed = (sample % 255) as u8 + 1;
        let (file, _) = open(context, TARGET, Access::Write, Create::Truncate)?;
        let piece = vec![seed; PIECE.min(file.shared().size())];
        let watch = Stopwatch::start();
        let mut position = 0;
        while position < WRITTEN {
            context.check_interrupt()?;
            file.write_at(position, &piece)?;
            position += piece.len() as u64;
        }
        super::tree::sync(context, &[])?;
        watch.sequential(context, "fs.write.seq", WRITTEN, piece.len());
        drop(file);
        check_written(context, seed)?;
        remove_target(context)?;
    }
    Ok(())
}

/// A call through the typed stubs, in registers.
fn hello(context: &mut Context<'_>, samples: u64) -> Outcome {
    const CALLS: u64 = 1000;
    for _ in 0..samples {
        let client = context.sessions.hello.as_ref();
        let client = client.ok_or_else(|| Failure::new("the manifest grants no hello server"))?;
        let watch = Stopwatch::start();
        for i in 0..CALLS {
            if client.add(i, 1) != Ok(i + 1) {
                return Err(Failure::new("the hello server cannot add"));
            }
        }
        watch.sample(context, "hello.add", CALLS);
    }
    Ok(())
}
