//! What a program's entry comes to: the server that it describes, if its slot allows that. Pure:
//! the entry comes from a file that anybody may have written, and nothing in it is believed.
//!
//! What an entry cannot say, it cannot get: devices, ports, lines, DMA memory, the boot image, PCI
//! configuration, `control`.

use crate::supervise::policy::MAX_RECENT;
use heapless::{String, Vec};
use libipc::output::EDGE;
use skink_abi::PAGE_SIZE;
use skink_manifest::limits::{
    DEFAULT_BUDGET_US, MAX_EXTRA_THREADS, MAX_REPLIES, MIN_BUDGET_US, MIN_HEARTBEAT_MS,
    MIN_INTENSITY_PERIOD_MS, MIN_QUOTA, NAME_RULE, is_name,
};
use skink_manifest::{Edge, MAX_SERVERS, Manifest, Name, Privileges, Server, SessionGrant};
use skink_protocols::control::{MAX_NEEDS, MAX_PERMITS, MAX_REFUSAL, ProgramEntry, ProgramNeed};

/// Bytes of survivor region of a program at most: it is not part of its quota.
const MAX_SURVIVOR: u32 = 256 << 10;
/// Microseconds of CPU per period of a program at most. Who is never throttled takes turns with its
/// equals in slices of its period: nobody's are longer than those of a program without an entry.
const MAX_BUDGET_US: u32 = DEFAULT_BUDGET_US;
/// Microseconds of a program's period at most.
const MAX_PERIOD_US: u32 = 200_000;
/// Milliseconds of an intensity's period for each death that a program's intensity tolerates. Restarts
/// are done, and told, at the root server's priority.
const MS_PER_RESTART: u32 = 1_000;
/// What begins the lines of the root server in the log: no program is called so.
const ROOT: &str = "root";
/// Edges of one program at most: what it needs, and its output.
pub const MAX_GRANTED: usize = MAX_PERMITS;

/// Why an entry is refused, in words.
pub type Refusal = String<MAX_REFUSAL>;

/// The most that a program in a slot may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Priority.
    pub priority: u8,
    /// Quota, bytes.
    pub quota_bytes: u64,
}

/// An edge that a program gets, and what it calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedEdge {
    /// Its index in the manifest.
    pub edge: u8,
    /// Its name to the program.
    pub name: Name,
    /// How much of the protocol it is good for: what the slot offers, or the less that was asked for.
    pub grant: SessionGrant,
}

/// The text of a refusal; what does not fit is cut.
macro_rules! refuse {
    ($($words:tt)*) => {{
        let mut text = Refusal::new();
        let _ = core::fmt::Write::write_fmt(&mut text, format_args!($($words)*));
        text
    }};
}

/// The server that `entry` describes, called `name`.
///
/// # Errors
/// What it asks for and cannot have.
pub fn server_of(entry: &ProgramEntry, name: Name, limits: Limits) -> Result<Server, Refusal> {
    let priority = entry.priority.unwrap_or(limits.priority);
    within("priority", priority.into(), 1, limits.priority.into())?;
    let (budget, period) = (entry.budget_us, entry.period_us);
    within("budget_us", budget.into(), MIN_BUDGET_US.into(), MAX_BUDGET_US.into())?;
    within("period_us", period.into(), budget.into(), MAX_PERIOD_US.into())?;
    within("memory", entry.memory_bytes, MIN_QUOTA, limits.quota_bytes)?;
    if !entry.memory_bytes.is_power_of_two() {
        return Err(refuse!("`memory` of {} bytes is no power of two", entry.memory_bytes));
    }
    within("extra_threads", entry.extra_threads.into(), 0, MAX_EXTRA_THREADS.into())?;
    let (period, most) = (entry.intensity_period_ms, u32::MAX.into());
    within("intensity_period_ms", period.into(), MIN_INTENSITY_PERIOD_MS.into(), most)?;
    let tolerated = u64::from(period / MS_PER_RESTART).min(MAX_RECENT as u64 - 1);
    within("intensity", entry.intensity.into(), 0, tolerated)?;
    if entry.heartbeat_ms != 0 {
        within("heartbeat_ms", entry.heartbeat_ms.into(), MIN_HEARTBEAT_MS.into(), most)?;
    }
    within("replies", entry.replies.into(), 1, MAX_REPLIES.into())?;
    within("stack", entry.stack_bytes.into(), PAGE_SIZE as u64, entry.memory_bytes)?;
    within("survivor", entry.survivor_bytes.into(), 0, MAX_SURVIVOR.into())?;
    let sizes = [
        ("stack", entry.stack_bytes),
        ("heap", entry.heap_bytes),
        ("survivor", entry.survivor_bytes),
    ];
    for (what, bytes) in sizes {
        if !bytes.is_multiple_of(PAGE_SIZE as u32) {
            return Err(refuse!("`{what}` of {bytes} bytes is not whole pages of {PAGE_SIZE}"));
        }
    }
    let stacks = u64::from(entry.stack_bytes) * (1 + u64::from(entry.extra_threads));
    if stacks + u64::from(entry.heap_bytes) >= entry.memory_bytes {
        let memory = entry.memory_bytes;
        return Err(refuse!("stacks and heap do not fit into `memory` of {memory} bytes"));
    }
    Ok(Server {
        name,
        binary: Name::new(),
        is_slot: true,
        args: entry.args.clone(),
        priority,
        budget_us: budget,
        period_us: period,
        quota_bytes: entry.memory_bytes,
        stack_bytes: entry.stack_bytes,
        heap_bytes: entry.heap_bytes,
        extra_threads: entry.extra_threads,
        replies: entry.replies,
        fpu: entry.fpu,
        devices: Vec::new(),
        ports: Vec::new(),
        lines: Vec::new(),
        provides: Vec::new(),
        dma_bytes: 0,
        survivor_bytes: entry.survivor_bytes,
        privileges: Privileges { log: entry.log, ..Privileges::default() },
        restart: entry.restart,
        group: None,
        intensity: entry.intensity,
        intensity_period_ms: entry.intensity_period_ms,
        backoff_ms: entry.backoff_ms,
        backoff_max_ms: entry.backoff_max_ms,
        heartbeat_ms: entry.heartbeat_ms,
    })
}

fn within(what: &str, value: u64, least: u64, most: u64) -> Result<(), Refusal> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(refuse!("`{what}` is {value}: a program may have {least} to {most}")),
    }
}

/// The edges of slot `slot` that the entry's needs come to, each once; and, without asking, that for
/// what the program prints.
///
/// # Errors
/// A need that the slot has no edge for, or that is named twice.
pub fn edges_of(
    entry: &ProgramEntry,
    manifest: &Manifest,
    slot: u8,
) -> Result<Vec<GrantedEdge, MAX_GRANTED>, Refusal> {
    let mut granted: Vec<GrantedEdge, MAX_GRANTED> = Vec::new();
    for need in &entry.needs {
        let new = edge_for(need, manifest, slot, &granted)?;
        granted.push(new).map_err(|_| refuse!("more than {MAX_NEEDS} needs"))?;
    }
    let is_output = |edge: &Edge| edge.client == slot && edge.protocol == EDGE;
    if let Some(index) = manifest.edges.iter().position(is_output)
        && granted.iter().all(|other| usize::from(other.edge) != index && other.name != EDGE)
        && let Ok(name) = EDGE.try_into()
    {
        // There is room for one more than there are needs.
        let grant = manifest.edges[index].grant.clone();
        let _ = granted.push(GrantedEdge { edge: index as u8, name, grant });
    }
    Ok(granted)
}

/// The edge of slot `slot` for one need, of those that are not `granted` already; the first that
/// offers as much as is wanted.
fn edge_for(
    need: &ProgramNeed,
    manifest: &Manifest,
    slot: u8,
    granted: &[GrantedEdge],
) -> Result<GrantedEdge, Refusal> {
    let ProgramNeed { name, server, protocol, shared_bytes, grant: wanted } = need;
    check_name(name)?;
    wanted.check_options(protocol).map_err(|error| refuse!("need `{name}`: {error}"))?;
    if granted.iter().any(|other| other.name == *name) {
        return Err(refuse!("two needs are called `{name}`"));
    }
    let fits = |(_, edge): &(usize, &Edge)| {
        let of = &manifest.servers[usize::from(edge.server)].name;
        edge.client == slot && of == server && edge.protocol == *protocol
    };
    let is_left =
        |(index, _): &(usize, &Edge)| granted.iter().all(|other| usize::from(other.edge) != *index);
    let fitting = manifest.edges.iter().enumerate().filter(fits);
    let mut left = fitting.clone().filter(is_left).peekable();
    if left.peek().is_none() {
        let word = if fitting.count() > 0 { "another" } else { "a" };
        return Err(refuse!(
            "need `{name}`: no program may have {word} session of `{protocol}` with `{server}`"
        ));
    }
    let as_wanted = |(index, edge): (usize, &Edge)| {
        let grant = edge.grant.narrowed(wanted)?;
        Some((index, edge.shared_bytes, grant))
    };
    let Some((index, most, grant)) = left.find_map(as_wanted) else {
        return Err(refuse!("need `{name}`: no program may have so much of `{protocol}`"));
    };
    if *shared_bytes > most {
        return Err(refuse!("need `{name}`: {shared_bytes} bytes shared; there are {most}"));
    }
    Ok(GrantedEdge { edge: index as u8, name: name.clone(), grant })
}

/// A name that nobody has, and that is not [`ROOT`]: `wanted`, or that with a number behind it.
///
/// # Errors
/// It is no name.
pub fn unique_name(wanted: &Name, is_taken: impl Fn(&str) -> bool) -> Result<Name, Refusal> {
    check_name(wanted)?;
    if *wanted != ROOT && !is_taken(wanted) {
        return Ok(wanted.clone());
    }
    for number in 2..=MAX_SERVERS + 1 {
        let mut name = Name::new();
        // Names are ASCII: any byte is the end of a letter. Five are for the number.
        let head = &wanted[..wanted.len().min(name.capacity() - 5)];
        let written = core::fmt::Write::write_fmt(&mut name, format_args!("{head}-{number}"));
        if written.is_ok() && !is_taken(&name) {
            return Ok(name);
        }
    }
    Err(refuse!("too many programs are called `{wanted}`"))
}

fn check_name(name: &Name) -> Result<(), Refusal> {
    if is_name(name) { Ok(()) } else { Err(refuse!("`{name}`: {NAME_RULE}")) }
}

#[cfg(test)]
mod tests;
