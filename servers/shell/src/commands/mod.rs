//! The commands, by theme, and the table that names them.

mod basic;
mod campaign;
mod crashes;
mod files;
mod kill;
mod last_sync;
mod measure;
mod program;
mod service;
mod system;
mod tree;

use alloc::string::String;

pub use crashes::{capabilities, crash_frame};
pub use tree::completions;

use libipc::escape::Escaped;

use crate::context::{Context, Failure, Outcome, UNKNOWN, USAGE};

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// How it is called.
    pub usage: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    run: fn(&mut Context<'_>, &[String]) -> Outcome,
}

/// All of them, in the order of `help`.
pub const COMMANDS: &[Command] = &[
    command("ls", "ls [-l] [PATH]...", "list a directory", tree::ls),
    command("cat", "cat FILE...", "print files", files::cat),
    command("hexdump", "hexdump FILE [OFFSET [LENGTH]]", "print bytes as numbers", files::hexdump),
    command(
        "write",
        "write FILE TEXT...",
        "make a file of the words and a line feed",
        files::write,
    ),
    command(
        "append",
        "append FILE TEXT...",
        "add the words and a line feed to a file",
        files::append,
    ),
    command("cp", "cp FROM TO", "copy a file, also between file systems", files::cp),
    command("mv", "mv FROM TO", "rename a file or directory", tree::mv),
    command(
        "rm",
        "rm [-r] PATH...",
        "remove files and empty directories (-r: full ones)",
        tree::rm,
    ),
    command("mkdir", "mkdir [-p] PATH...", "make directories", tree::mkdir),
    command("fill", "fill FILE SIZE [SEED]", "make a file of pseudo-random bytes", files::fill),
    command("sha256", "sha256 FILE...", "print SHA-256 sums", files::sha256),
    command("sync", "sync", "make all that was written durable", tree::sync),
    command("df", "df", "show what the file systems hold", tree::df),
    command("ps", "ps", "list the servers", system::ps),
    command("kill", kill::KILL_USAGE, "kill a server, now or at a moment", kill::kill),
    command("moments", "moments [NAME]...", "show what `kill --at` counts", kill::moments),
    command("restart", "restart NAME", "end a server and start it again", service::restart),
    command("stop", "stop NAME", "end a server for good", service::stop),
    command("start", "start NAME", "start a server that was stopped or given up", service::start),
    command("service", "service NAME", "show all that is known of a server", service::service),
    command(
        "run",
        program::USAGE,
        "start a program, which gets what is granted with it; wait until it ends or serves (-d: do not)",
        program::run,
    ),
    command("crashes", "crashes [-v] [COUNT]", "show the latest crash records", crashes::crashes),
    command("free", "free", "show free memory and capability slots", system::free),
    command("uptime", "uptime [--ns]", "show the time since boot", system::uptime),
    command("hello", "hello [NAME]", "be greeted by the example server", basic::hello),
    command("echo", "echo WORD...", "print the words", basic::echo),
    command("time", "time COMMAND...", "run a command and say how long it took", basic::time),
    command("repeat", "repeat COUNT COMMAND...", "run a command several times", basic::repeat),
    command("sleep", "sleep SECONDS", "wait", basic::sleep),
    command("wait", "wait", "wait for background jobs", basic::wait),
    command(
        "bench",
        "bench NAME [COUNT | SECONDS [VICTIM]]",
        "print measurements for `skink bench`",
        measure::bench,
    ),
    command("true", "true", "succeed", basic::succeed),
    command("false", "false", "fail", basic::fail),
    command("help", "help [COMMAND]", "list the commands", basic::help),
    command("shutdown", "shutdown [CODE]", "end the machine", system::shutdown),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&mut Context<'_>, &[String]) -> Outcome,
) -> Command {
    Command { name, usage, about, run }
}

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.name == name)
}

/// Commands within each other (`time repeat 3 …`) at most: each takes stack.
const MAX_NESTED: usize = 8;

/// Runs a command; `words[0]` is its name. Prints why it failed.
pub fn run(context: &mut Context<'_>, words: &[String]) -> i32 {
    let Some((name, arguments)) = words.split_first() else {
        return 0;
    };
    if context.nested == MAX_NESTED {
        context.line(format_args!("{name}: more than {MAX_NESTED} commands within each other"));
        return USAGE;
    }
    context.nested += 1;
    let status = run_one(context, name, arguments);
    context.nested -= 1;
    status
}

fn run_one(context: &mut Context<'_>, name: &str, arguments: &[String]) -> i32 {
    let Some(command) = find(name) else {
        context.line(format_args!("{name}: unknown command; `help` lists them"));
        return UNKNOWN;
    };
    match (command.run)(context, arguments) {
        Ok(()) => 0,
        Err(failure) => {
            // Whatever a call said that was not waited for.
            let Failure { text, status } = context.check_interrupt().err().unwrap_or(failure);
            // A command that runs another has shown the failure already.
            // Its words may be a file's: of the names in it, of the entry beside a program.
            if !text.is_empty() {
                context.line(format_args!("{name}: {}", Escaped(text)));
            }
            status
        }
    }
}

/// The failure of calling `name` wrongly.
fn misused(name: &str) -> Failure {
    Failure::usage(find(name).map_or(name, |c| c.usage))
}
