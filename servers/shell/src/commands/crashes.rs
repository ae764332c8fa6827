//! `crashes`: what is known of each death.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use libipc::abi::CapRights;
use libipc::arch::registers::register_name;
use libipc::escape::Escaped;
use skink_protocols::control::{
    CallRecord, Capability, Cause, CrashRecord, Held, IpcRecord, Placed, Timeline,
};
use skink_protocols::names::method_of;

use super::misused;
use crate::context::{Context, Failure, Outcome};
use crate::format as look;

pub fn crashes(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (flags, numbers): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|w| w.starts_with('-'));
    if flags.iter().any(|f| *f != "-v") || numbers.len() > 1 {
        return Err(misused("crashes"));
    }
    let limit = match numbers.first() {
        None => 20,
        Some(number) => look::number(number).ok_or_else(|| misused("crashes"))?,
    };
    let total = context.sessions.control.crash_count()?;
    let mut records = Vec::new();
    let mut kept: u32 = 0;
    while let Some(record) = context.sessions.control.crash(kept)? {
        kept += 1;
        if u64::from(kept) <= limit {
            records.push(record);
        }
    }
    let lost = match total.saturating_sub(kept.into()) {
        0 => String::new(),
        lost => format!(", the records of {lost} are lost"),
    };
    let shown = records.len();
    context.line(format_args!("{total} deaths since boot, the latest {shown} shown{lost}"));
    // The latest comes last, where a reader's eyes are.
    for record in records.iter().rev() {
        context.line(summary(record));
        if !flags.is_empty() {
            context.line(details(record));
            for capability in capabilities(context, &record.server)? {
                context.line(format_args!("    {}", held(&capability)));
            }
        }
    }
    Ok(())
}

/// What a server holds.
pub fn capabilities(context: &mut Context<'_>, server: &str) -> Result<Vec<Capability>, Failure> {
    let mut all = Vec::new();
    loop {
        let page = context.sessions.control.capabilities(server, all.len() as u32)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// A capability in a line: slot, what it is for, rights, badge.
fn held(capability: &Capability) -> String {
    let what = match &capability.held {
        Held::Thread(number) => format!("thread {number}"),
        Held::CSpace => "its own CSpace".into(),
        Held::Supervisor => "the root server".into(),
        Held::Endpoint => "its endpoint".into(),
        Held::Notification(number) => format!("notification of thread {number}"),
        Held::Timer(number) => format!("timer of thread {number}"),
        Held::Reply => "reply".into(),
        Held::Log => "the kernel's log".into(),
        Held::Session(name, server) => format!("session {name} of {server}"),
        Held::Doorbell(server) => format!("doorbell of {server}"),
        Held::Interrupt(bit) => format!("interrupt, bit {bit}"),
        Held::Ports => "I/O ports".into(),
    };
    let rights = CapRights::from_bits_truncate(capability.rights);
    let mut letters = String::new();
    for (right, letter) in [
        (CapRights::READ, 'r'),
        (CapRights::WRITE, 'w'),
        (CapRights::GRANT, 'g'),
        (CapRights::GRANT_REPLY, 'c'),
    ] {
        letters.push(if rights.contains(right) { letter } else { '-' });
    }
    let badge = match capability.badge {
        0 => String::new(),
        badge => format!(", badge {badge:#x}"),
    };
    format!("slot {:>3} {letters} {what}{badge}", capability.slot)
}

/// The cause of a death in plain words.
pub fn cause(record: &CrashRecord) -> String {
    match &record.cause {
        Cause::Fault(fault) => format!("fault: {fault}"),
        Cause::Exit(code) => format!("exit with code {code}"),
        Cause::Panic => format!("panic: {}", record.message),
        Cause::OutOfMemory => "memory quota exhausted".into(),
        Cause::Killed => "killed".into(),
        Cause::OutOfCapabilities => "capability quota exhausted".into(),
        Cause::DeviceSilent => format!("device does not answer: {}", record.message),
        Cause::Restarted => "restarted by command".into(),
        Cause::Complaint(what) => format!("complaint of {}: it {what}", record.message),
        Cause::Group => format!("restarted with {}'s group", record.message),
        Cause::HeartbeatMissed => "heartbeat missed".into(),
        Cause::BudgetExhausted => "CPU budget exhausted without progress (a loop?)".into(),
    }
}

fn summary(record: &CrashRecord) -> String {
    let at = look::seconds(record.timeline.noticed);
    let (number, server, incarnation) = (record.number, &record.server, record.incarnation);
    let flight = record.in_flight;
    let placed =
        record.placed.as_ref().map_or(String::new(), |placed| format!(" at {}", place(placed)));
    let during = record.call.as_ref().map_or(String::new(), |call| format!(" {}", during(call)));
    format!(
        "#{number} {at} {server} (incarnation {incarnation}): {}{placed}{during}; {flight} requests in flight",
        cause(record)
    )
}

/// During whose call a server died, and what follows for that.
fn during(call: &CallRecord) -> String {
    let (client, method, deaths) = (&call.client, method(call.label), call.deaths);
    let end = if deaths >= 3 { ": it is not sent again" } else { "" };
    format!("(during {client}'s {method}, death {deaths}{end})")
}

/// Where `kill` had placed a death: whose moment, which, its count.
fn place(placed: &Placed) -> String {
    format!("{}:{}:{}", placed.server, placed.moment.name(), placed.count)
}

/// The timeline, by the names that people see.
fn phases(line: &Timeline) -> [(&'static str, u64); 8] {
    [
        ("noticed", line.noticed),
        ("declared", line.declared),
        ("silenced", line.silenced),
        ("revoked", line.revoked),
        ("reloaded", line.reloaded),
        ("started", line.started),
        ("ready", line.ready),
        ("answered", line.answered),
    ]
}

fn details(record: &CrashRecord) -> String {
    let mut text = format!("    ip {:#x}, sp {:#x}", record.ip, record.sp);
    if let Some(order) = record.order {
        text += &format!(", by order {order}");
    }
    for (index, value) in record.registers.iter().enumerate() {
        // Four in a line.
        text += if index % 4 == 0 { "\n   " } else { "" };
        let name = register_name(index).unwrap_or("?");
        text += &format!(" {name:>9} {value:#018x}");
    }
    for (depth, address) in record.backtrace.iter().enumerate() {
        text += &format!("\n    #{depth} {address:#x}");
    }
    let line = &record.timeline;
    for (phase, at) in phases(line).into_iter().skip(1) {
        text += &match at.checked_sub(line.noticed) {
            Some(ns) => format!("\n    {phase:<9} {ns} ns after it was noticed"),
            None => format!("\n    {phase:<9} not yet"),
        };
    }
    for ipc in &record.history {
        let method = method(ipc.label);
        let before = line.noticed.saturating_sub(ipc.time_ns);
        text += &format!("\n    {before} ns before: badge {:#x}, {method}", ipc.badge);
    }
    text
}

/// A request's protocol and method by name, or its label if the system does not know it.
fn method(label: u64) -> String {
    match method_of(label) {
        Some((protocol, method)) => format!("{protocol}.{method}"),
        None => format!("{label:#x}"),
    }
}

/// What the host tool is told of a death: `key=value` lines ([`skink_abi::exec::Kind::Crash`]).
pub fn crash_frame(record: &CrashRecord, capabilities: &[Capability]) -> String {
    let mut text = format!(
        "number={}\nserver={}\nincarnation={}\ncause={}\nin_flight={}\nip={:#x}\nsp={:#x}\n",
        record.number,
        record.server,
        record.incarnation,
        Escaped(cause(record)),
        record.in_flight,
        record.ip,
        record.sp,
    );
    if let Some(order) = record.order {
        text += &format!("order={order}\n");
    }
    if let Some(placed) = &record.placed {
        text += &format!("placed={}\n", place(placed));
    }
    if let Some(call) = &record.call {
        text += &format!("call={}\n", during(call));
    }
    for (index, value) in record.registers.iter().enumerate() {
        let name = register_name(index).unwrap_or("?");
        text += &format!("register={name} {value:#x}\n");
    }
    for ipc in &record.history {
        let IpcRecord { time_ns, badge, label } = ipc;
        text += &format!("ipc={time_ns} {badge:#x} {}\n", method(*label));
    }
    for address in &record.backtrace {
        text += &format!("frame={address:#x}\n");
    }
    for capability in capabilities {
        text += &format!("capability={}\n", held(capability));
    }
    for (name, at) in phases(&record.timeline) {
        text += &format!("{name}_ns={at}\n");
    }
    text
}
