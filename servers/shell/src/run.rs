//! Running a line: its commands one after the other, those with `&` on other workers.

use alloc::string::String;
use libipc::StartInfo;
use libipc::events::Events;

use crate::commands;
use crate::context::{Context, Sessions, USAGE};
use crate::jobs::{FIRST_WORKER, Job, Jobs, Origin};
use crate::parse::{self, Command};
use crate::stream::{self, Output, Sink};

/// The worker that serves the host tool.
pub const EXEC: usize = 0;
/// The worker that runs what is typed.
pub const FOREGROUND: usize = 1;
/// The first worker of background jobs.
pub const FIRST_BACKGROUND: usize = 2;

/// The thread of worker `index`.
pub fn thread_of(index: usize) -> u8 {
    (FIRST_WORKER + index) as u8
}

/// Makes the context of a thread that runs lines from `origin`.
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
        activity: jobs.activity(thread),
        origin,
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
    let quoted = command.words.iter().map(|word| parse::quoted(word));
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
        run_job(start, index, events, jobs, &job);
        jobs.finish(index);
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
) {
    let mut context = match context(start, thread_of(index), job.origin, events, jobs) {
        Ok(context) => context,
        Err(error) => return log::error!("{error}"),
    };
    let status = line(&mut context, &job.line, job.origin);
    if let Some(number) = job.number.filter(|_| !context.out.is_exec()) {
        context.line(format_args!("[{number}] done ({status}): {}", job.line));
    }
    context.out.flush();
}
