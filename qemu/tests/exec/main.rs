//! `skink exec` and a guest that is not to be believed: what the tool says and with which status it
//! ends, when QEMU is a fake.

mod fake_qemu;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds given to the lines of the guest.
const TIMEOUT_S: u64 = 4;
/// What a run may take: the end after the lines has a time of its own.
const PATIENCE: Duration = Duration::from_secs(40);
/// What may pass before: the guest's programs are built if they are not there.
const BUILD_PATIENCE: Duration = Duration::from_secs(1200);

/// What the fake QEMU is; nothing when the tests are run as usual.
#[test]
fn fake_qemu() {
    if let Ok(role) = std::env::var(fake_qemu::ROLE) {
        fake_qemu::play(&role);
    }
}

struct Ended {
    status: i32,
    out: String,
    err: String,
    /// From the start of QEMU on: building is not counted.
    took: Duration,
    folder: PathBuf,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `skink exec LINE` with a QEMU of that role.
fn exec(role: &str, line: &str) -> Ended {
    let name = format!("skink-exec-{}-{}", role.replace(' ', "-"), std::process::id());
    let folder = std::env::temp_dir().join(format!("{name}-{}", line.len()));
    std::fs::create_dir_all(&folder).unwrap();
    fake_qemu::install(&folder);
    let path = std::env::var("PATH").unwrap_or_default();
    let file = |name: &str| std::fs::File::create(folder.join(name)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_skink"))
        .args(["exec", "--timeout", &TIMEOUT_S.to_string(), "--disk", "none", "--log"])
        .arg(folder.join("console.log"))
        .arg("--crash-dir")
        .arg(folder.join("crashes"))
        .arg(line)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env(fake_qemu::ROLE, role)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap();
    let log = folder.join("console.log");
    let (start, mut began) = (Instant::now(), None::<Instant>);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        // The log is made when QEMU is there.
        if began.is_none() && log.exists() {
            began = Some(Instant::now());
        }
        let is_late = match began {
            Some(began) => began.elapsed() > PATIENCE,
            None => start.elapsed() > BUILD_PATIENCE,
        };
        if is_late {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`{role}`: no end after {:?}", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
    let read = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(folder.join(name)).unwrap()).into_owned()
    };
    Ended { status, out: read("out"), err: read("err"), took, folder }
}

#[test]
fn a_line_that_ends_gives_its_status() {
    let ended = exec("is good", "echo hi");
    assert_eq!((ended.status, &*ended.out), (7, "hi\n"), "{}", ended.err);
}

#[test]
fn a_qemu_that_fails_at_once_is_no_success_and_its_words_are_shown() {
    let ended = exec("refuses", "echo hi");
    assert_eq!(ended.status, 5, "{}", ended.err);
    assert!(ended.err.contains("could not open kernel file '/nonexistent'"), "{}", ended.err);
    // Also a line that may end the machine did not, if no shell ever had it.
    for (role, line) in [
        ("refuses", "shutdown"),
        ("fails without a word", "echo hi"),
        ("fails without a word", "shutdown"),
    ] {
        let ended = exec(role, line);
        assert_ne!(ended.status, 0, "{role}, `{line}`: {}", ended.err);
        assert!(ended.err.contains("QEMU"), "{role}: {}", ended.err);
    }
}

#[test]
fn an_end_before_the_lines_own_is_a_success_only_if_the_line_asked_for_it() {
    for line in ["echo hi", "echo shutdown", "echo 'a; shutdown'", "# shutdown"] {
        let ended = exec("ends in the line", line);
        assert_eq!(ended.status, 4, "`{line}`: {}", ended.err);
        assert!(ended.err.contains("ended before"), "`{line}`: {}", ended.err);
    }
    for line in ["shutdown", "sleep 0; \"shutdown\" 0"] {
        let ended = exec("ends in the line", line);
        assert_eq!(ended.status, 0, "`{line}`: {}", ended.err);
    }
}

#[test]
fn a_guest_that_reads_nothing_and_says_again_does_not_outlast_the_deadline() {
    let ended = exec("says again", &"x".repeat(30_000));
    assert_eq!(ended.status, 124, "{}", ended.err);
    assert!(ended.took < Duration::from_secs(TIMEOUT_S + 10), "{:?}", ended.took);
}

#[test]
fn the_exit_of_another_line_is_not_taken() {
    assert_eq!(exec("ends another line", "true").status, 3);
}

#[test]
fn a_shell_that_does_not_start_or_is_given_up_is_told_at_once() {
    for (role, why) in
        [("cannot start the shell", "cannot start"), ("gives the shell up", "died too often")]
    {
        let ended = exec(role, "true");
        assert_eq!(ended.status, 1, "{role}: {}", ended.err);
        assert!(ended.err.contains(&format!("no shell runs: {why}")), "{role}: {}", ended.err);
        assert!(ended.took < Duration::from_secs(TIMEOUT_S), "{role}: {:?}", ended.took);
    }
}

#[test]
fn a_line_on_the_console_does_not_end_a_shell_that_lives() {
    for role in ["a program panics", "a program writes the log"] {
        let ended = exec(role, "true");
        assert_eq!(ended.status, 3, "{role}: {}", ended.err);
    }
}

#[test]
fn a_last_sync_that_fails_is_told_and_is_no_success() {
    let ended = exec("cannot sync", "write /disk/A a");
    assert_eq!(ended.status, 1, "{}", ended.err);
    assert!(ended.err.contains("sync: disk: the disk failed"), "{}", ended.err);
    assert!(ended.out.is_empty() && !ended.err.contains('\x1b'), "{:?}", ended.err);
    let ended = exec("never ends its sync", "write /disk/A a");
    assert_eq!(ended.status, 124, "{}", ended.err);
    assert!(ended.err.contains("sync"), "{}", ended.err);
}

#[test]
fn crash_records_are_shown_harmless_and_lost_ones_are_counted() {
    let ended = exec("dies often", "true");
    assert_eq!(ended.status, 0, "{}", ended.err);
    for harmful in ['\x1b', '\x07', '\r', '\u{202e}'] {
        assert!(!ended.err.contains(harmful), "{:?}", ended.err);
    }
    assert!(ended.err.contains("\\u{1b}]0;owned"), "{}", ended.err);
    assert!(ended.err.contains("no record of 68 deaths"), "{}", ended.err);
    let files = std::fs::read_dir(ended.folder.join("crashes")).unwrap().count();
    assert_eq!(files, 3, "{}", ended.err);
    let ended = exec("dies before its end", "true");
    assert_eq!(ended.status, 124, "{}", ended.err);
    assert!(ended.err.contains("deaths that came last, 3 at least"), "{}", ended.err);
}
