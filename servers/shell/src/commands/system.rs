//! Commands about servers: what runs, what died, killing and restarting.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use libipc::control::Misbehaviour;
use libipc::time;
use skink_protocols::control::{Cause, CrashRecord, KillSpec, ServerStatus};

use super::misused;
use crate::context::{Context, Outcome};
use crate::format as look;

/// How `kill` is called.
pub const KILL_USAGE: &str = "kill NAME [--at-request N] [--every N] [--times K] \
                              [--how kill|null|illegal|stack|memory|loop|panic]";

const WAYS: [(&str, Misbehaviour); 7] = [
    ("kill", Misbehaviour::Kill),
    ("null", Misbehaviour::NullDereference),
    ("illegal", Misbehaviour::IllegalInstruction),
    ("stack", Misbehaviour::StackOverflow),
    ("memory", Misbehaviour::ExhaustMemory),
    ("loop", Misbehaviour::Loop),
    ("panic", Misbehaviour::Panic),
];

pub fn ps(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if !words.is_empty() {
        return Err(misused("ps"));
    }
    let uptime = time::now_ns().max(1);
    let header = ["NAME", "STATE", "INC", "RESTARTS", "PRIO", "CPU%", "MEMORY", "IRQS", "REQUESTS"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for index in 0.. {
        let Some(status) = context.sessions.control.status(index)? else {
            break;
        };
        rows.push(row(&status, uptime));
    }
    let table = look::table(&rows, &[2, 3, 4, 5, 6, 7, 8]);
    context.out.write(table.as_bytes());
    Ok(())
}

fn row(status: &ServerStatus, uptime: u64) -> Vec<String> {
    let permille = u128::from(status.cpu_ns) * 1000 / u128::from(uptime);
    vec![
        status.name.to_string(),
        status.state.name().into(),
        status.incarnation.to_string(),
        status.restarts.to_string(),
        status.priority.to_string(),
        format!("{}.{}", permille / 10, permille % 10),
        look::size(status.memory_bytes),
        status.interrupts.to_string(),
        status.requests.to_string(),
    ]
}

/// The name and the specification that `kill`'s words give.
fn parse_kill(words: &[String]) -> Option<(&str, KillSpec)> {
    let mut name = None;
    let mut spec = KillSpec { at_request: 0, every: 0, times: 0, how: Misbehaviour::Kill };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--at-request" => spec.at_request = look::number(words.next()?)?,
            "--every" => spec.every = look::number(words.next()?).filter(|n| *n > 0)?,
            "--times" => {
                spec.times = look::number(words.next()?)?.try_into().ok().filter(|n| *n > 0)?;
            }
            "--how" => {
                let way = words.next()?;
                spec.how = WAYS.iter().find(|(name, _)| name == way)?.1;
            }
            word if word.starts_with('-') || name.is_some() => return None,
            word => name = Some(word),
        }
    }
    if spec.every > 0 && spec.at_request == 0 {
        // `--every N` alone: the first of them too is the N-th request from now.
        spec.at_request = spec.every;
    }
    if spec.every == 0 && spec.times > 1 {
        return None;
    }
    if spec.every == 0 {
        spec.times = 1;
    }
    Some((name?, spec))
}

pub fn kill(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (name, spec) = parse_kill(words).ok_or_else(|| misused("kill"))?;
    context.sessions.control.kill(name, spec)?;
    Ok(())
}

pub fn restart(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let [name] = words else {
        return Err(misused("restart"));
    };
    context.sessions.control.restart(name)?;
    Ok(())
}

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
        Cause::Restarted => "restarted by command".into(),
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
    format!(
        "#{number} {at} {server} (incarnation {incarnation}): {}; {flight} requests in flight",
        cause(record)
    )
}

fn details(record: &CrashRecord) -> String {
    let mut text = format!("    ip {:#x}, sp {:#x}", record.ip, record.sp);
    for (depth, address) in record.backtrace.iter().enumerate() {
        text += &format!("\n    #{depth} {address:#x}");
    }
    let line = &record.timeline;
    let since = |at: u64| at.checked_sub(line.noticed).map_or("-".into(), |ns| ns.to_string());
    let phases = [
        ("declared", line.declared),
        ("silenced", line.silenced),
        ("revoked", line.revoked),
        ("reloaded", line.reloaded),
        ("started", line.started),
        ("answered", line.answered),
    ];
    let phases: Vec<String> =
        phases.iter().map(|(name, at)| format!("{name} {}", since(*at))).collect();
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
    for address in &record.backtrace {
        text += &format!("frame={address:#x}\n");
    }
    text
}

pub fn free(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if !words.is_empty() {
        return Err(misused("free"));
    }
    let free = context.sessions.control.free()?;
    context.line(format_args!("RAM                 {}", look::size(free.ram_bytes)));
    context.line(format_args!("free frames         {}", free.untyped_bytes / 4096 + free.frames));
    context.line(format_args!("free bytes          {}", free.untyped_bytes + free.frames * 4096));
    context.line(format_args!("free capability slots {}", free.slots));
    context.line(format_args!("kernel objects      {}", free.objects));
    Ok(())
}

pub fn uptime(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let now = time::now_ns();
    match words {
        [] => context.line(look::seconds(now)),
        [flag] if flag == "--ns" => context.line(now),
        _ => return Err(misused("uptime")),
    }
    Ok(())
}

pub fn shutdown(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let code = match words {
        [] => Some(0),
        [code] => look::number(code).and_then(|code| u8::try_from(code).ok()).filter(|c| *c < 128),
        _ => None,
    };
    let code = code.ok_or_else(|| misused("shutdown"))?;
    // A disk that cannot be synced does not keep the machine from ending; it is said.
    if let Err(failure) = super::tree::sync(context, &[]) {
        context.line(format_args!("sync: {}", failure.text));
    }
    context.out.flush();
    context.is_ending = true;
    context.sessions.control.shutdown(code)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill_of(line: &str) -> Option<(String, KillSpec)> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse_kill(&words).map(|(name, spec)| (name.into(), spec))
    }

    #[test]
    fn kill_understands_its_options() {
        let spec = |at_request, every, times, how| KillSpec { at_request, every, times, how };
        let kill = Misbehaviour::Kill;
        assert_eq!(kill_of("fs"), Some(("fs".into(), spec(0, 0, 1, kill))));
        assert_eq!(kill_of("fs --at-request 5"), Some(("fs".into(), spec(5, 0, 1, kill))));
        assert_eq!(kill_of("--every 7 fs --times 3"), Some(("fs".into(), spec(7, 7, 3, kill))));
        assert_eq!(kill_of("fs --every 7"), Some(("fs".into(), spec(7, 7, 0, kill))));
        let looping = spec(0, 0, 1, Misbehaviour::Loop);
        assert_eq!(kill_of("fs --how loop"), Some(("fs".into(), looping)));
        for bad in [
            "",
            "fs hello",
            "fs --every",
            "fs --every 0",
            "fs --times 3",
            "fs --how nicely",
            "fs -x",
        ] {
            assert_eq!(kill_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn faults_are_told_in_plain_words() {
        assert_eq!(describe_fault(1, 0, 4, 0), "load from 0x0 (null pointer)");
        assert_eq!(describe_fault(1, 0x5000, 6, 1), "store to 0x5000");
        assert_eq!(describe_fault(2, 0, 0, 6), "undefined instruction (code 0x0)");
        assert_eq!(describe_fault(99, 0, 0, 0), "unknown fault 99");
    }
}
