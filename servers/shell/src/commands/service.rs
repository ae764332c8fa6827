//! Commands about one server: what is known of it, stopping and starting it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::trigger::Moment;
use skink_protocols::control::{Name, Policy, Restart, Service, ServiceSession};

use super::misused;
use crate::context::{Context, Failure, Outcome};
use crate::format as look;

pub fn restart(context: &mut Context<'_>, words: &[String]) -> Outcome {
    Ok(context.sessions.control.restart(only_name("restart", words)?)?)
}

pub fn stop(context: &mut Context<'_>, words: &[String]) -> Outcome {
    Ok(context.sessions.control.stop(only_name("stop", words)?)?)
}

pub fn start(context: &mut Context<'_>, words: &[String]) -> Outcome {
    Ok(context.sessions.control.start(only_name("start", words)?)?)
}

/// The one word that a command takes.
fn only_name<'a>(command: &str, words: &'a [String]) -> Result<&'a str, Failure> {
    match words {
        [name] => Ok(name),
        _ => Err(misused(command)),
    }
}

pub fn service(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let name = only_name("service", words)?;
    let service = context.sessions.control.service(name)?;
    context.line(describe(&service));
    let mut sessions = Vec::new();
    loop {
        let page = context.sessions.control.sessions(name, sessions.len() as u32)?;
        if page.is_empty() {
            break;
        }
        sessions.extend(page);
    }
    if !sessions.is_empty() {
        let header = ["CLIENT", "SESSION", "BADGE", "SHARED", "ALIVE", "WAITING"];
        let mut rows = Vec::from([header.map(String::from).to_vec()]);
        rows.extend(sessions.iter().map(row));
        context.out.write(look::table(&rows, &[2, 3, 5]).as_bytes());
    }
    Ok(())
}

fn row(session: &ServiceSession) -> Vec<String> {
    Vec::from([
        session.client.to_string(),
        format!("{}#{}", session.edge, session.index),
        format!("{:#x}", session.badge),
        look::size(session.shared_bytes),
        if session.is_client_alive { "yes" } else { "no" }.into(),
        session.waiting.to_string(),
    ])
}

fn list(names: &[Name]) -> String {
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}

fn describe(service: &Service) -> String {
    let Service { status, holdings, .. } = service;
    let mut state = status.state.name().to_string();
    if !service.reason.is_empty() {
        state += &format!(" ({})", service.reason);
    }
    if service.starts_in_ns > 0 {
        state += &format!(", starts in {}", look::seconds(service.starts_in_ns));
    }
    let received = status.moments[Moment::Receive as usize];
    let held = [
        ("quota", holdings.quota_bytes),
        ("survivor region", holdings.survivor_bytes),
        ("DMA memory", holdings.dma_bytes),
        ("in quarantine", holdings.quarantined_bytes),
    ];
    let held: Vec<String> = held
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(what, bytes)| format!("{what} {}", look::size(*bytes)))
        .collect();
    let privileges = match holdings.privileges.as_str() {
        "" => "none",
        some => some,
    };
    format!(
        "{}: {state}\n\
         incarnation  {}, {} restarts; {} bytes of memory, {} of CPU, priority {}\n\
         requests     {received} received, {} in flight\n\
         policy       {}\n\
         holds        {}; {} devices, {} port ranges, {} interrupts\n\
         privileges   {privileges}\n\
         needs        {}\n\
         needed by    {}",
        status.name,
        status.incarnation,
        status.restarts,
        status.memory_bytes,
        look::seconds(status.cpu_ns),
        status.priority,
        status.in_flight,
        policy(&service.policy),
        held.join(", "),
        holdings.devices,
        holdings.port_ranges,
        holdings.interrupts,
        list(&service.needs),
        list(&service.needed_by),
    )
}

fn policy(policy: &Policy) -> String {
    let restart = match policy.restart {
        Restart::Permanent => "permanent",
        Restart::Transient => "transient",
        Restart::Temporary => "temporary",
    };
    let intensity = policy.intensity.map_or("any number of".to_string(), |n| n.to_string());
    let group = match policy.group.as_str() {
        "" => "no group".to_string(),
        group => format!("group {group}"),
    };
    let heartbeat = match policy.heartbeat_ms {
        0 => "no heartbeat".to_string(),
        ms => format!("heartbeat every {ms} ms"),
    };
    format!(
        "{restart}; {} of {intensity} deaths in {} ms; back-off {} to {} ms; {heartbeat}; {group}",
        policy.deaths, policy.period_ms, policy.backoff_ms, policy.backoff_max_ms
    )
}
