//! A QEMU that is none: this test program again, started under QEMU's name by a script on the
//! `PATH`. It connects the guest's serial ports and plays a guest that behaves in one certain way.

use skink_abi::exec::{HEADER_SIZE, Header, Kind, NUMBER_SIZE, VERSION};
use skink_abi::invocation::exit_code;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Tells the fake how to behave.
pub const ROLE: &str = "SKINK_FAKE_QEMU";
/// QEMU's command line, from the script.
const WORDS: &str = "SKINK_FAKE_QEMU_WORDS";
/// QEMU's status when the guest gave the code 0.
const CLEAN: i32 = 1;

/// Longer than the tool takes to believe that no shell runs.
const LONGER_THAN_A_LOOK: Duration = Duration::from_millis(2500);

/// Puts the scripts into `folder`, which is to be the first of the `PATH`. They start the test
/// `fake_qemu` of this program.
pub fn install(folder: &Path) {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n{WORDS}=\"$*\" exec '{}' --exact fake_qemu --nocapture\n",
        program.display()
    );
    for name in ["qemu-system-x86_64", "qemu-system-aarch64"] {
        let path = folder.join(name);
        std::fs::write(&path, &script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The guest's two serial ports, from inside.
struct Guest {
    terminal: UnixStream,
    exec: UnixStream,
}

impl Guest {
    fn connect() -> Guest {
        let words = std::env::var(WORDS).unwrap();
        let port = |name: &str| {
            let before = format!("socket,id={name},path=");
            let path = words.split(' ').find_map(|word| word.strip_prefix(&before)).unwrap();
            UnixStream::connect(path).unwrap()
        };
        Guest { terminal: port("terminal"), exec: port("exec") }
    }

    /// The tool is gone if this fails; then so is the fake.
    fn send(&mut self, kind: Kind, payload: &[u8]) {
        let head = Header { kind, length: payload.len() }.to_bytes();
        if self.exec.write_all(&[&head, payload].concat()).is_err() {
            std::process::exit(0);
        }
    }

    fn ready(&mut self) {
        self.send(Kind::Ready, &[VERSION, 0, 0, 0, 0]);
    }

    fn answer(&mut self, number: u32, output: &str, status: i32) {
        let number = number.to_le_bytes();
        if !output.is_empty() {
            self.send(Kind::Output, &[&number, output.as_bytes()].concat());
        }
        self.send(Kind::Exit, &[number, status.to_le_bytes()].concat());
    }

    /// Number and text of the next line.
    fn line(&mut self) -> (u32, String) {
        let mut head = [0; HEADER_SIZE];
        if self.exec.read_exact(&mut head).is_err() {
            std::process::exit(0);
        }
        let head = Header::parse(head).unwrap();
        let mut payload = vec![0; head.length];
        self.exec.read_exact(&mut payload).unwrap();
        let (number, text) = payload.split_first_chunk::<NUMBER_SIZE>().unwrap();
        (u32::from_le_bytes(*number), String::from_utf8_lossy(text).into_owned())
    }

    /// Answers the lines that end a run: everything is synced and then ends.
    fn end_well(&mut self) -> ! {
        loop {
            let (number, text) = self.line();
            if text.starts_with("shutdown") {
                std::process::exit(CLEAN);
            }
            self.answer(number, "", 0);
        }
    }

    /// Says that the shell lives, for so long, whenever it is asked.
    fn answer_pings(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.exec.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut head = [0; HEADER_SIZE];
        while Instant::now() < end {
            if self.exec.read_exact(&mut head).is_ok() {
                assert_eq!(Header::parse(head).unwrap().kind, Kind::Ping);
                self.send(Kind::Pong, &[]);
            }
        }
        self.exec.set_read_timeout(None).unwrap();
    }

    fn print(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }
}

/// Does what the role says; never returns.
pub fn play(role: &str) -> ! {
    let mut guest = Guest::connect();
    match role {
        "refuses" => {
            eprintln!("qemu: could not open kernel file '/nonexistent': No such file or directory");
            std::process::exit(1);
        }
        "fails without a word" => std::process::exit(1),
        "cannot start the shell" => {
            guest.print("root: shell: cannot start; its clients are told\r\n");
            stay();
        }
        _ => {}
    }
    guest.print("skink: kernel\r\n");
    guest.ready();
    if role == "says again" {
        loop {
            guest.send(Kind::Again, &[]);
        }
    }
    let (number, _) = guest.line();
    match role {
        "is good" => guest.answer(number, "hi\n", 7),
        "ends in the line" => std::process::exit(CLEAN),
        "ends another line" => {
            guest.answer(number + 6, "", 0);
            guest.answer(number, "", 3);
        }
        "gives the shell up" => {
            guest.print("root: shell: died too often; its clients are told\r\n");
            stay();
        }
        "a program panics" => {
            let message = "panic: root: shell: gone; its clients are told";
            guest.print(&format!("root: evil died ({message}, 0 requests in flight)\r\n"));
            std::thread::sleep(LONGER_THAN_A_LOOK);
            guest.answer(number, "", 3);
        }
        "a program writes the log" => {
            guest.print("root: shell: died too often; its clients are told\r\n");
            guest.answer_pings(LONGER_THAN_A_LOOK);
            guest.answer(number, "", 3);
        }
        "cannot sync" => {
            guest.answer(number, "", 0);
            let (number, text) = guest.line();
            assert_eq!(text, "shutdown");
            let said = b"sync: disk: the disk failed\x1b[2J at sector 9\n";
            guest.send(Kind::Output, &[&number.to_le_bytes(), &said[..]].concat());
            std::process::exit(i32::from(exit_code::UNSYNCED) << 1 | 1);
        }
        "never ends its sync" => {
            guest.answer(number, "", 0);
            guest.line();
            stay();
        }
        "dies often" => {
            for number in [1, 70, 71] {
                let cause = "panic: \x1b]0;owned\x07\u{202e}\r\nnumber=9";
                let record = format!("number={number}\nserver=fs\ncause={cause}\nip=0x10\n");
                guest.send(Kind::Crash, record.as_bytes());
            }
            guest.answer(number, "", 0);
        }
        "dies before its end" => {
            for _ in 0..3 {
                guest.print("root: fs died (killed, 0 requests in flight), restart 1\r\n");
            }
            stay();
        }
        other => panic!("no role `{other}`"),
    }
    guest.end_well();
}

/// Longer than any test waits.
fn stay() -> ! {
    std::thread::sleep(Duration::from_secs(300));
    std::process::exit(0);
}
