//! The terminal is put back however the tool ends. Each case runs this program again on a pseudo
//! terminal and looks at that terminal's modes from outside.

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use skink_tool::terminal::{RawTerminal, stop_flag};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Tells the child how to end.
const ROLE: &str = "SKINK_TERMINAL_TEST";

/// What the child does; nothing when the tests are run as usual.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let stop = stop_flag().unwrap();
    let _raw = RawTerminal::enter().unwrap().expect("a terminal");
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
        match role.as_str() {
            "return" => return,
            "panic" => panic!("on purpose"),
            "thread" => {
                let _ = std::thread::spawn(|| panic!("on purpose")).join();
                std::process::exit(0);
            }
            _ => {}
        }
    }
}

struct Case {
    terminal: File,
    child: Child,
}

impl Case {
    fn start(role: &str) -> Case {
        let host = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&host).unwrap();
        unlockpt(&host).unwrap();
        let name = ptsname(&host, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let terminal = open();
        assert!(!is_raw(&terminal));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(ROLE, role)
            .stdin(open())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The host's end stays open as long as the child may use the terminal.
        std::mem::forget(host);
        Case { terminal, child }
    }

    fn wait_raw(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_raw(&self.terminal) {
            assert!(Instant::now() < deadline, "the terminal was never raw");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(&mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        assert!(!is_raw(&self.terminal), "the terminal was left raw");
    }
}

fn is_raw(terminal: &File) -> bool {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

#[test]
fn it_is_put_back_after_a_return_and_after_panics() {
    for (role, code) in [("return", 0), ("panic", 101), ("thread", 0)] {
        Case::start(role).end(code);
    }
}

#[test]
fn it_is_put_back_after_signals() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut case = Case::start("signal");
        case.wait_raw();
        kill_process(Pid::from_child(&case.child), signal).unwrap();
        case.end(0);
    }
}
