//! `crashes`: what is known of each death.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use skink_protocols::control::{Cause, CrashRecord, Placed, Timeline};

use super::misused;
use crate::context::{Context, Outcome};
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
    for index in 0..limit.min(u64::from(u32::MAX)) {
        let Some(record) = context.sessions.control.crash(index as u32)? else {
            break;
        };
        records.push(record);
    }
    context.line(format_args!("{total} deaths since boot, the latest {} shown", records.len()));
    // The latest comes last, where a reader's eyes are.
    for record in records.iter().rev() {
        context.line(summary(record));
        if !flags.is_empty() {
            context.line(details(record));
        }
    }
    Ok(())
}

/// The cause of a death in plain words.
pub fn cause(record: &CrashRecord) -> String {
    match &record.cause {
        Cause::Fault(fault) => format!(
            "fault: {}",
            describe_fault(fault.kind, fault.address, fault.syndrome, fault.detail)
        ),
        Cause::Exit(code) => format!("exit with code {code}"),
        Cause::Panic => format!("panic: {}", record.message),
        Cause::OutOfMemory => "memory quota exhausted".into(),
        Cause::Killed => "killed".into(),
        Cause::OutOfCapabilities => "capability quota exhausted".into(),
        Cause::DeviceSilent => format!("device does not answer: {}", record.message),
        Cause::Restarted => "restarted by command".into(),
        Cause::Group => format!("restarted with {}'s group", record.message),
        Cause::HeartbeatMissed => "heartbeat missed".into(),
        Cause::BudgetExhausted => "CPU budget exhausted without progress (a loop?)".into(),
    }
}

fn describe_fault(kind: u64, address: u64, syndrome: u64, detail: u64) -> String {
    use libipc::abi::Fault;
    use libipc::abi::fault::Access;
    use libipc::arch::exceptions::exception_name;
    match Fault::from_raw(kind) {
        Some(Fault::PageFault) => {
            let doing = match Access::from_raw(detail) {
                Some(Access::Write) => "store to",
                Some(Access::Execute) => "jump to",
                _ => "load from",
            };
            let near = match address {
                0..4096 => " (null pointer)",
                _ => "",
            };
            format!("{doing} {address:#x}{near}")
        }
        Some(Fault::Exception) => match exception_name(detail) {
            Some(name) => format!("{name} (code {syndrome:#x})"),
            None => format!("exception {detail:#x} (code {syndrome:#x})"),
        },
        Some(Fault::CapFault) => format!("no capability at {address:#x}"),
        Some(Fault::UnknownSyscall) => format!("unknown system call {address}"),
        Some(Fault::Timeout) => "budget used up".into(),
        None => format!("unknown fault {kind}"),
    }
}

fn summary(record: &CrashRecord) -> String {
    let at = look::seconds(record.timeline.noticed);
    let (number, server, incarnation) = (record.number, &record.server, record.incarnation);
    let flight = record.in_flight;
    let placed =
        record.placed.as_ref().map_or(String::new(), |placed| format!(" at {}", place(placed)));
    format!(
        "#{number} {at} {server} (incarnation {incarnation}): {}{placed}; {flight} requests in flight",
        cause(record)
    )
}

/// Where `kill` had placed a death: whose moment, which, its count.
fn place(placed: &Placed) -> String {
    format!("{}:{}:{}", placed.server, placed.moment.name(), placed.count)
}

/// The timeline, by the names that people see.
fn phases(line: &Timeline) -> [(&'static str, u64); 7] {
    [
        ("noticed", line.noticed),
        ("declared", line.declared),
        ("silenced", line.silenced),
        ("revoked", line.revoked),
        ("reloaded", line.reloaded),
        ("started", line.started),
        ("answered", line.answered),
    ]
}

fn details(record: &CrashRecord) -> String {
    let mut text = format!("    ip {:#x}, sp {:#x}", record.ip, record.sp);
    for (depth, address) in record.backtrace.iter().enumerate() {
        text += &format!("\n    #{depth} {address:#x}");
    }
    let line = &record.timeline;
    let since = |at: u64| at.checked_sub(line.noticed).map_or("-".into(), |ns| ns.to_string());
    let phases: Vec<String> =
        phases(line)[1..].iter().map(|(name, at)| format!("{name} {}", since(*at))).collect();
    text += &format!("\n    ns after the death: {}", phases.join(", "));
    for ipc in &record.history {
        let (_, method) = libipc::protocol::ProtocolId::of_label(ipc.label);
        let before = line.noticed.saturating_sub(ipc.time_ns);
        text += &format!("\n    {before} ns before: badge {:#x}, method {method}", ipc.badge);
    }
    text
}

/// What the host tool is told of a death: `key=value` lines ([`skink_abi::exec::Kind::Crash`]).
pub fn crash_frame(record: &CrashRecord) -> String {
    let mut text = format!(
        "number={}\nserver={}\nincarnation={}\ncause={}\nin_flight={}\nip={:#x}\nsp={:#x}\n",
        record.number,
        record.server,
        record.incarnation,
        cause(record).replace('\n', " "),
        record.in_flight,
        record.ip,
        record.sp,
    );
    if let Some(placed) = &record.placed {
        text += &format!("placed={}\n", place(placed));
    }
    for address in &record.backtrace {
        text += &format!("frame={address:#x}\n");
    }
    for (name, at) in phases(&record.timeline) {
        text += &format!("{name}_ns={at}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_plain_words() {
        assert_eq!(describe_fault(1, 0, 4, 0), "load from 0x0 (null pointer)");
        assert_eq!(describe_fault(1, 0x5000, 6, 1), "store to 0x5000");
        assert_eq!(describe_fault(2, 0, 0, 6), "undefined instruction (code 0x0)");
        assert_eq!(describe_fault(99, 0, 0, 0), "unknown fault 99");
    }
}
