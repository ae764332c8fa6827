//! Commands about the system: what runs, what is free, the end.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use libipc::abi::invocation::exit_code::UNSYNCED;
use libipc::time;
use libipc::trigger::Moment;
use skink_protocols::control::ServerStatus;

use super::last_sync::last_sync;
use super::misused;
use crate::context::{Context, Outcome};
use crate::format as look;

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
        status.moments[Moment::Receive as usize].to_string(),
    ]
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
    context.line(format_args!("interrupts          {}", free.interrupts));
    context.line(format_args!("timers              {}", free.timers));
    context.line(format_args!("sessions            {}", free.sessions));
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
    let mut code = code.ok_or_else(|| misused("shutdown"))?;
    // A disk that cannot be synced does not keep the machine from ending; it is said, by the code too.
    if let Err(failure) = last_sync(context) {
        context.line(format_args!("sync: {}", failure.text));
        if code == 0 {
            code = UNSYNCED;
        }
    }
    context.out.flush();
    context.is_ending = true;
    context.sessions.control.shutdown(code)?;
    Ok(())
}
