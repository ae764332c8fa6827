//! Commands that need no server: words, time, jobs, help.

use alloc::string::String;
use alloc::vec::Vec;
use libipc::escape::Escaped;
use libipc::start::event;
use libipc::time;

use super::{COMMANDS, find, misused};
use crate::context::{Context, Failure, Outcome};
use crate::format;

pub fn echo(context: &mut Context<'_>, words: &[String]) -> Outcome {
    context.line(words.join(" "));
    Ok(())
}

pub fn succeed(_: &mut Context<'_>, _: &[String]) -> Outcome {
    Ok(())
}

pub fn fail(_: &mut Context<'_>, _: &[String]) -> Outcome {
    Err(Failure { text: String::new(), status: 1 })
}

pub fn hello(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let name = if words.is_empty() { String::from("world") } else { words.join(" ") };
    let client = context.sessions.hello.as_ref();
    let client = client.ok_or_else(|| Failure::new("the manifest grants no hello server"))?;
    let greeting = client.greet(&name)?;
    context.line(Escaped(greeting.text));
    Ok(())
}

/// The status of a command that ran another one, which has shown its failure.
fn passed_on(status: i32) -> Outcome {
    if status == 0 { Ok(()) } else { Err(Failure { text: String::new(), status }) }
}

pub fn time(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if words.is_empty() {
        return Err(misused("time"));
    }
    let start = time::now_ns();
    let status = super::run(context, words);
    context.line(format::seconds(time::now_ns() - start));
    passed_on(status)
}

pub fn repeat(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (count, words) = words.split_first().ok_or_else(|| misused("repeat"))?;
    let count = format::number(count).ok_or_else(|| misused("repeat"))?;
    if words.is_empty() {
        return Err(misused("repeat"));
    }
    for _ in 0..count {
        context.check_interrupt()?;
        passed_on(super::run(context, words))?;
    }
    Ok(())
}

pub fn sleep(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let [seconds] = words else {
        return Err(misused("sleep"));
    };
    let mut left = parse_seconds(seconds).ok_or_else(|| misused("sleep"))?;
    // In short steps, so that Ctrl-C ends it.
    while left > 0 {
        context.check_interrupt()?;
        let step = left.min(100_000_000);
        context.events.sleep_ns(step);
        left -= step;
    }
    Ok(())
}

/// Seconds with up to nine decimals, in nanoseconds.
fn parse_seconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10u64.pow(9 - part.len() as u32);
    let part = if part.is_empty() { 0 } else { part.parse::<u64>().ok()? * scale };
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(part)
}

pub fn wait(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if !words.is_empty() {
        return Err(misused("wait"));
    }
    // The jobs of whoever waits: those that were typed, or those of the host. A job has none.
    let channel = context.origin.channel();
    if context.jobs.is_job(context.thread) {
        return Ok(());
    }
    while context.jobs.any_background(channel) {
        if let Err(interrupted) = context.check_interrupt() {
            // What is waited for ends as well.
            context.jobs.interrupt_background(channel);
            return Err(interrupted);
        }
        context.jobs.wake_me(context.events.timer());
        if context.jobs.any_background(channel) {
            // A wake-up, or a look at Ctrl-C every now and then.
            let soon = time::now_ns() + 200_000_000;
            context.events.wait_until(event::TIMER, soon);
        }
    }
    Ok(())
}

pub fn help(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if let Some(name) = words.first() {
        let command = find(name).ok_or_else(|| Failure::at(name, "unknown command"))?;
        context.line(format_args!("{}\n    {}", command.usage, command.about));
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        COMMANDS.iter().map(|c| [c.usage.into(), c.about.into()].to_vec()).collect();
    let table = format::table(&rows, &[]);
    context.out.write(table.as_bytes());
    context.line("COMMAND; COMMAND & runs two, the second in the background");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_seconds;

    #[test]
    fn seconds_have_decimals() {
        assert_eq!(parse_seconds("2"), Some(2_000_000_000));
        assert_eq!(parse_seconds("0.25"), Some(250_000_000));
        assert_eq!(parse_seconds("1.000000001"), Some(1_000_000_001));
        for bad in ["", ".", "-1", "1.0000000001", "1.+5", "x", "99999999999999"] {
            assert_eq!(parse_seconds(bad), None, "{bad}");
        }
    }
}
