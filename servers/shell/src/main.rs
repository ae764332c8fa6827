//! The shell's threads: the first reads the terminal; the kits of the start info are the reader
//! of the host tool's frames, then the workers (host tool, foreground, background jobs), then the one
//! that watches over their calls.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    extern crate alloc;

    use alloc::boxed::Box;

    use libipc::StartInfo;
    use libipc::cap::Cap;
    use libipc::events::Events;
    use shell::jobs::Jobs;
    use shell::{exec, run, stream, terminal, watch};
    use skink_protocols::console::Channel;

    libipc::main!(main);

    fn main(start: &'static StartInfo) -> i32 {
        let [reader, workers @ .., watcher] = start.threads.as_slice() else {
            panic!("the manifest must grant the shell 5 extra threads or more");
        };
        let watcher_timer = Cap::from_slot(watcher.timer);
        let jobs: &'static Jobs = Box::leak(Box::new(Jobs::new(workers, watcher_timer)));
        // Thread 0 is this one, 1 the reader of frames, 2 and up the workers.
        for (index, kit) in workers.iter().enumerate() {
            let started = libipc::thread::start(kit, move |events| match index {
                run::EXEC => exec::worker(start, run::thread_of(index), events, jobs),
                _ => run::worker(start, index, events, jobs, prompt),
            });
            started.expect("start a worker");
        }
        let frames = move |events: &Events| {
            if let Err(error) = exec::reader(start, 1, events, jobs) {
                log::info!("the host tool's channel is not served: {error}");
            }
        };
        libipc::thread::start(reader, frames).expect("start the reader of frames");
        let watch = move |events: &Events| watch::run(start, events, jobs);
        libipc::thread::start(watcher, watch).expect("start the watcher");
        libipc::accounting::ready();
        let ended = terminal::run(start, 0, libipc::events::main(), jobs);
        panic!("the terminal cannot be used: {ended:?}");
    }

    /// Draws the prompt after a command, through the session of the thread that ran it.
    fn prompt(events: &Events) {
        let start = libipc::startup::start_info().expect("the program has started");
        let thread = run::thread_of(run::FOREGROUND);
        if let Ok(mut stream) = stream::open(start, thread, Channel::Terminal, events) {
            stream.write(terminal::PROMPT.as_bytes());
        }
    }
}

/// The shell runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
