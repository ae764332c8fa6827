//! Running a line: its commands one after the other, those with `&` on other workers.

use alloc::string::String;
use libipc::StartInfo;
use libipc::events::Events;

use crate::commands;
use crate::context::{Context, Sessions, USAGE};
use crate::jobs::{Job, Jobs, Origin};
use crate::parse::{self, Command};
use crate::stream::{self, Output, Sink};

/// The worker that serves the host tool.
pub const EXEC: usize = 0;
/// The worker that runs what is typed.
pub const FOREGROUND: usize = 1;
/// The first worker of background jobs.
pub const FIRST_BACKGROUND: usize = 2;

/// Makes the context of worker `index` (thread `index + 2`).
///
/// # Errors
/// What keeps the console session from being used, in words.
pub fn context<'a>(
    start: &StartInfo,
    thread: u8,
    origin: Origin,
    events: &'a Events,
    jobs: &'a Jobs,
) -> Result<Context<'a>, String> {
    let stream = stream::open(start, thread, origin.channel(), events)
        .map_err(|error| alloc::format!("open the console's session {thread}: {error}"))?;
    let sink = match origin {
        Origin::Terminal => Sink::Terminal(stream),
        Origin::Exec(number) => Sink::Exec(stream, number),
    };
    Ok(Context {
        out: Output::new(sink),
        sessions: Sessions::open(start, thread),
        events,
        interrupted: &jobs.interrupted,
        jobs,
        is_ending: false,
        nested: 0,
        thread,
    })
}

/// Runs a line; the status is the last command's.
pub fn line(context: &mut Context<'_>, text: &str, origin: Origin) -> i32 {
    let commands = match parse::parse(text) {
        Ok(commands) => commands,
        Err(error) => {
            context.line(format_args!("{error}"));
            return USAGE;
        }
    };
    let mut status = 0;
    for command in &commands {
        if let Err(interrupted) = context.check_interrupt() {
            status = interrupted.status;
            break;
        }
        status = if command.background {
            background(context, command, origin)
        } else {
            commands::run(context, &command.words)
        };
        context.out.flush();
        if context.is_ending {
            break;
        }
    }
    context.jobs.calls_nobody(context.thread);
    status
}

fn background(context: &mut Context<'_>, command: &Command, origin: Origin) -> i32 {
    let quoted = command.words.iter().map(|word| quote(word));
    let line = quoted.fold(
        String::new(),
        |all, word| {
            if all.is_empty() { word } else { all + " " + &word }
        },
    );
    match context.jobs.background(FIRST_BACKGROUND, line, origin) {
        Some(number) => {
            if !context.out.is_exec() {
                context.line(format_args!("[{number}]"));
            }
            0
        }
        None => {
            context.line("no thread is free for a background job; `wait` for one");
            1
        }
    }
}

/// A word as the parser reads it back.
fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// The life of a worker: line after line.
pub fn worker(
    start: &'static StartInfo,
    index: usize,
    events: &Events,
    jobs: &'static Jobs,
    prompt: fn(&Events),
) -> ! {
    loop {
        // Looked for first: who posts it arms the timer, by which this thread may have slept.
        let Some(job) = jobs.take(index) else {
            events.wait_for(libipc::start::event::TIMER);
            continue;
        };
        let status = run_job(start, index, events, jobs, &job);
        jobs.finish(index, status);
        if job.origin == Origin::Terminal {
            prompt(events);
        }
    }
}

fn run_job(
    start: &'static StartInfo,
    index: usize,
    events: &Events,
    jobs: &'static Jobs,
    job: &Job,
) -> i32 {
    let mut context = match context(start, index as u8 + 2, job.origin, events, jobs) {
        Ok(context) => context,
        Err(error) => {
            log::error!("{error}");
            return 1;
        }
    };
    let status = line(&mut context, &job.line, job.origin);
    if let Some(number) = job.number.filter(|_| !context.out.is_exec()) {
        context.line(format_args!("[{number}] done ({status}): {}", job.line));
    }
    context.out.flush();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_read_back_as_it_was() {
        for word in ["a", "", "a b", "it's", "say \"x\\y\"", "&;#"] {
            let parsed = parse::parse(&quote(word)).unwrap();
            assert_eq!(parsed[0].words, [word]);
        }
    }
}
