//! `run`: programs from a disk, with what the entry beside them allows and no more.

use anyhow::{Context, Result, ensure};
use skink_tests::{Disk, Fixture, SHELL_DIED, Said};
use skink_tool::machine::Options;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "RUN0001 a program gets arguments, what it prints is shown, its exit code is the status",
        run: arguments_and_status,
    },
    Test {
        name: "RUN0002 without an entry a program has memory and its output, and reaches nothing else",
        run: least_privilege,
    },
    Test {
        name: "RUN0003 an entry grants what it says, and is refused where it asks for too much",
        run: entries,
    },
    Test {
        name: "RUN0004 programs are supervised as their entries say, and each is to be killed",
        run: supervised,
    },
    Test {
        name: "RUN0005 fifty programs, however they end, leave nothing behind",
        run: nothing_is_left,
    },
    Test {
        name: "RUN0006 a program that may write the log can neither end the machine nor stop it",
        run: log_alone,
    },
    Test {
        name: "RUN0007 a program's session of the console writes to the terminal, and does nothing else",
        run: console_session,
    },
    Test {
        name: "RUN0008 the last words of a program are shown as text, in a line with its name",
        run: last_words,
    },
    Test {
        name: "RUN0009 an entry nested deeply is refused with its line, and the shell goes on",
        run: nested_entries,
    },
    Test {
        name: "RUN0010 what a program asks for it gets as far as the person grants it",
        run: granted,
    },
    Test {
        name: "RUN0011 a program that two threads end at once ends as the first of them says",
        run: first_end_counts,
    },
];

/// Runs lines on a disk with the program `/P` and these further files; what was said, and the
/// console.
pub fn tried(
    fixture: &Fixture,
    files: &[(&str, &[u8])],
    lines: &[&str],
) -> Result<(Vec<Said>, String)> {
    let disk = Disk::fat32(64 << 20, 1)?;
    disk.put("/P", &fixture.program("probe")?)?;
    for (name, bytes) in files {
        disk.put(name, bytes)?;
    }
    let options = Options { disk: Some(disk.path().into()), ..Options::default() };
    fixture.exec_heard(&options, lines)
}

/// Each line's status and some words of it.
pub fn check(said: &[Said], expected: &[(i32, &str)]) -> Result<()> {
    ensure!(said.len() == expected.len(), "{} lines: {said:?}", said.len());
    for (index, (said, (status, words))) in said.iter().zip(expected).enumerate() {
        let as_expected = said.status == *status && said.text.contains(words);
        ensure!(as_expected, "line {index}, {status} and `{words}`: {said:?}");
    }
    Ok(())
}

fn arguments_and_status(fixture: &Fixture) -> Result<()> {
    let hello = fixture.program("hello")?;
    let files: [(&str, &[u8]); 3] = [
        ("/HELLO", &hello),
        ("/NOTELF", b"no program, whatever it is called, and long enough to be looked at"),
        ("/CUT", &hello[..hello.len() / 2]),
    ];
    let many: String = (0..9000).map(|number| format!("{number}\n")).collect();
    let long = format!("run /disk/P say {}", "x".repeat(97));
    let lines = [
        "run /disk/P exit 0",
        "run /disk/P exit 7",
        "run /disk/P say so it is",
        "run /disk/P panic ouch",
        // An orderly end is no crash; another code is one.
        "run /disk/P exit 0; crashes",
        "run /disk/HELLO",
        "ps; stop hello-2; ps",
        "run; run -x /disk/P",
        "run /disk/NOBODY",
        "run /disk/NOTELF",
        "run /disk/CUT",
        &long,
        "run /disk",
        "run nowhere",
        "run /boot/server/hello; stop hello-2; run -d /disk/P spin; stop p; hello",
        // Many times what is between it and its reader; and without a reader.
        "run /disk/P count 9000",
        "run -d /disk/P count 9000; sleep 2.5; run /disk/P exit 0; echo done",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(
        &said,
        &[
            (0, ""),
            (7, ""),
            (0, "p: says so it is (incarnation 1)\n"),
            (128, "ouch\nrun: p died; `crashes` says how\n"),
            (0, "2 deaths since boot, the latest 2 shown\n#1"),
            (0, "hello-2 serves; `stop hello-2` ends it"),
            (0, "hello-2     running    1         0    90"),
            (2, "usage: run [-d | --dry-run] [--with NAME,...] FILE [ARG]..."),
            (1, "/disk/NOBODY: no such file"),
            (1, "/disk/NOTELF: not a 64-bit little-endian ELF file"),
            (1, "/disk/CUT: "),
            (1, "`arguments` is longer than 96 bytes"),
            (1, "/disk.toml: "),
            (1, "nowhere.toml: paths begin with"),
            (0, "p runs\nHello, world!"),
            (0, ""),
            (0, "done\n"),
        ],
    )?;
    ensure!(said[15].text == many, "{} bytes of {}", said[15].text.len(), many.len());
    ensure!(said[6].text.matches("hello-2").count() == 1, "gone once stopped: {}", said[6].text);
    ensure!(
        said[4].text.contains("ouch") && said[4].text.contains("exit with code 7"),
        "{:?}",
        said[4]
    );
    ensure!(!console.contains("p: says"), "what it prints is not the log's: {console}");
    ensure!(console.contains("p ended with code 7"), "{console}");
    Ok(())
}

fn least_privilege(fixture: &Fixture) -> Result<()> {
    let silent = "args = \"say silence\"\nheap = \"64KiB\"\n";
    let files: [(&str, &[u8]); 3] = [
        ("/SILENT", &fixture.program("probe")?),
        ("/SILENT.toml", silent.as_bytes()),
        ("/X", b"x"),
    ];
    let lines = [
        "run /disk/P holds",
        "run /disk/P reach",
        "run /disk/P cat disk /X",
        "run /disk/P touch 40",
        "crashes -v 1",
        "run /disk/SILENT",
        "run -d /disk/P spin; service p; stop p",
        // An unlimited program is below the shell: it takes nothing from it.
        "run -d /disk/P spin; hello; stop p",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(
        &said,
        &[
            (0, ""),
            (0, ""),
            (3, "p: has no edge `disk`"),
            (128, "p died"),
            (0, "fault: no such capability: 0x28"),
            (0, "silent: says silence"),
            (0, "needs        shell\n"),
            (0, "Hello, world!"),
        ],
    )?;
    for words in [
        "holds edges [output], 0 incoming, 0 devices, 0 ports, 0 lines, dma 0, image 0, survivor 0, \
         heap 131072, threads 0",
        "status: Some(NotPermitted)",
        "kill: Some(NotPermitted)",
        "load: Some(Control(NotPermitted))",
        "shutdown: Some(NotPermitted)",
        "pci: Some(",
    ] {
        let printed = format!("p: {words}");
        ensure!(said.iter().any(|said| said.text.contains(&printed)), "`{words}`: {said:?}");
    }
    ensure!(!console.contains("p: ") && !console.contains("silence"), "no log: {console}");
    ensure!(said[6].text.contains("privileges   none\n"), "{}", said[6].text);
    Ok(())
}

fn log_alone(fixture: &Fixture) -> Result<()> {
    let files: [(&str, &[u8]); 1] = [("/P.toml", b"privileges = [\"log\"]\nheap = \"64KiB\"\n")];
    let lines = ["run --with log /disk/P meddle", "echo it goes on"];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(&said, &[(0, ""), (0, "it goes on")])?;
    ensure!(console.contains("p: is granted 0 requests"), "{console}");
    Ok(())
}

fn console_session(fixture: &Fixture) -> Result<()> {
    let entry = |more: &str| {
        let need = "name = \"it\", server = \"console\", protocol = \"console\"";
        format!("heap = \"64KiB\"\nneeds = [{{ {need}{more} }}]\n")
    };
    let probe = fixture.program("probe")?;
    let entries = [
        ("/P.toml", entry("")),
        ("/R.toml", entry(", access = \"read\"")),
        ("/X.toml", entry(", channel = \"exec\"")),
    ];
    let mut files: Vec<(&str, &[u8])> = vec![("/R", &probe), ("/X", &probe)];
    files.extend(entries.iter().map(|(name, entry)| (*name, entry.as_bytes())));
    let lines = [
        "run --with it /disk/P listen it; false",
        "run --with it /disk/R listen it",
        "run --with it /disk/X listen it",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    let too_much = "need `it`: no program may have so much of `console`";
    check(&said, &[(1, "p: Terminal: "), (1, too_much), (1, too_much)])?;
    ensure!(!said.iter().any(|said| said.text.contains("forged")), "{said:?}");
    for words in [
        "p: Terminal: attach None, read Some(NotGranted), write None\n",
        "p: Exec: attach Some(NotGranted), read Some(NotGranted), write Some(NotGranted)\n",
    ] {
        ensure!(said[0].text.contains(words), "`{words}`: {said:?}");
    }
    ensure!(console.contains("it writes"), "{console}");
    Ok(())
}

fn granted(fixture: &Fixture) -> Result<()> {
    let entry = "privileges = [\"log\"]\nheap = \"64KiB\"\nneeds = [\n\
                 { name = \"files\", server = \"fs\", protocol = \"file\" },\n\
                 { name = \"greeter\", server = \"hello\", protocol = \"hello\" },\n]\n";
    let files: [(&str, &[u8]); 2] = [("/P.toml", entry.as_bytes()), ("/TEXT", b"the text\n")];
    let lines = [
        "run --dry-run /disk/P",
        "run --dry-run --with greeter,log,files /disk/P",
        "run --with disk /disk/P holds",
        "run /disk/P holds",
        "run /disk/P cat files /TEXT",
        "run --with greeter /disk/P greet greeter Ada",
        "run --with all /disk/P holds; echo so it was",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    let note = "run: without log (it writes to the system's log), greeter (hello of hello), which";
    check(
        &said,
        &[
            (
                0,
                "output: output of shell\nlog: it writes to the system's log; withheld, --with log \
                 grants it\ngreeter: hello of hello; withheld",
            ),
            (
                0,
                "files: file of fs\ngreeter: hello of hello\noutput: output of shell\nlog: it writes",
            ),
            (1, "/disk/P: `disk` is granted, and its entry asks for no such thing"),
            (0, "p: holds edges [output files]"),
            (0, "p: reads the text\n"),
            (0, "p: hears Hello, Ada!\n"),
            (0, "so it was"),
        ],
    )?;
    ensure!(said[0].text.starts_with("files: file of fs, only reading\n"), "{said:?}");
    ensure!(said[3].text.starts_with(note) && said[4].text.starts_with(note), "{said:?}");
    ensure!(
        said[5].text.starts_with("run: without log (it writes to the system's log), which"),
        "{said:?}"
    );
    ensure!(said[6].text == "so it was\n", "{said:?}");
    let logged = console.lines().filter(|line| line.starts_with("p: ")).count();
    ensure!(logged == 1, "the log is that of the last alone: {console}");
    ensure!(console.contains("holds edges [output files greeter]"), "{console}");
    Ok(())
}

fn last_words(fixture: &Fixture) -> Result<()> {
    let files: [(&str, &[u8]); 2] = [
        ("/L", &fixture.program("probe")?),
        ("/L.toml", b"privileges = [\"log\"]\nheap = \"64KiB\"\n"),
    ];
    let lines = ["run /disk/P shout", "crashes 1", "run --with log /disk/L shout"];
    let (said, console) = tried(fixture, &files, &lines)?;
    let escaped = "\\u{1b}[2J\\u{9b}31m\\r\\nroot: shutdown with code 7";
    check(&said, &[(128, escaped), (0, escaped), (128, "l died")])?;
    ensure!(console.matches(escaped).count() == 3, "of `root` twice, of `l`: {console}");
    ensure!(!console.contains('\x1b') && !console.contains('\u{9b}'), "{console:?}");
    ensure!(
        !console.lines().any(|line| line.starts_with("root: shutdown with code 7")),
        "{console}"
    );
    Ok(())
}

fn nested_entries(fixture: &Fixture) -> Result<()> {
    let texts = [79, 2000].map(|count| {
        [
            format!("\nname = {}1{}", "[".repeat(count), "]".repeat(count)),
            format!("\nname = {}1{}", "{a=".repeat(count), "}".repeat(count)),
            format!("\n{}a = 1", "a.".repeat(count)),
        ]
    });
    let names: Vec<String> = (0..6).map(|number| format!("/N{number}")).collect();
    let beside: Vec<String> = names.iter().map(|name| format!("{name}.toml")).collect();
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    for ((name, beside), text) in names.iter().zip(&beside).zip(texts.as_flattened()) {
        files.extend([(name.as_str(), b"".as_slice()), (beside.as_str(), text.as_bytes())]);
    }
    let lines: Vec<String> = names.iter().map(|name| format!("run /disk{name}")).collect();
    let commands = format!("{}true", "time ".repeat(700));
    let lines: Vec<&str> = lines.iter().chain([&commands]).map(String::as_str).collect();
    let (said, console) = tried(fixture, &files, &lines)?;
    let (last, said) = said.split_last().context("no line was run")?;
    check(said, &[(1, ".toml: line 2: nested more than 4 deep"); 6])?;
    ensure!(last.text.contains("more than 8 commands within each other"), "{last:?}");
    ensure!(!console.contains("shell died"), "{console}");
    Ok(())
}

fn first_end_counts(fixture: &Fixture) -> Result<()> {
    let entry = b"extra_threads = 1\nheap = \"64KiB\"\n";
    let lines = ["run /disk/P race panic; crashes", "run /disk/P race exit; crashes"];
    let (said, _) = tried(fixture, &[("/P.toml", entry)], &lines)?;
    for (number, said) in (1..).zip(&said) {
        let row = said.text.lines().find(|line| line.starts_with(&format!("#{number}")));
        ensure!(row.is_some_and(|row| row.contains("the first thread")), "{said:?}");
    }
    Ok(())
}

fn entries(fixture: &Fixture) -> Result<()> {
    let need = |server: &str, protocol: &str, more: &str| {
        format!(
            "privileges = [\"log\"]\nheap = \"64KiB\"\n\
             needs = [{{ name = \"it\", server = \"{server}\", protocol = \"{protocol}\"{more} }}]\n"
        )
    };
    let entries = [
        ("/A.toml", need("fs", "file", ", shared = \"16KiB\"")),
        ("/B.toml", need("hello", "hello", "")),
        ("/C.toml", need("virtio-blk", "block", "")),
        ("/D.toml", need("fs", "file", ", shared = \"1MiB\"")),
        ("/E.toml", "priority = 150\n".into()),
        ("/F.toml", "memory = \"64MiB\"\n".into()),
        ("/G.toml", "\ndevices = [{ virtio = \"block\" }]\n".into()),
        ("/H.toml", "privileges = [\"log\", \"control\"]\n".into()),
        ("/I.toml", "memory = \"64KiB\"\nheap = \"16KiB\"\n".into()),
        ("/J.toml", "name = \"j j\"\n".into()),
        (
            "/K.toml",
            "extra_threads = 2\nheap = \"64KiB\"\nsurvivor = \"8KiB\"\nprivileges = [\"log\"]\n"
                .into(),
        ),
    ];
    let probe = fixture.program("probe")?;
    let mut files: Vec<(&str, &[u8])> =
        Vec::from([("/TEXT", b"the text\nof two lines".as_slice())]);
    for (name, entry) in &entries {
        files.push((name, entry.as_bytes()));
        files.push((&name[..2], &probe));
    }
    let lines = [
        "run --with all /disk/A cat it /TEXT; run --with all /disk/A share it; run --with all /disk/A share it",
        "run --with all /disk/B greet it Ada",
        "run --with all /disk/C exit 0",
        "run --with all /disk/D exit 0",
        "run --with all /disk/E exit 0",
        "run --with all /disk/F exit 0",
        "run --with all /disk/G exit 0",
        "run --with all /disk/H exit 0",
        "run --with all /disk/I exit 0",
        "run --with all /disk/J exit 0",
        "run --with all /disk/K holds",
        "run -d --with all /disk/A spin; service a; service fs; stop a",
        // The server that a program talks to dies, and comes back: unseen.
        "kill fs --at receive:1; run --with all /disk/A cat it /TEXT",
        "stop hello; run --with all /disk/B greet it Ada; start hello; run --with all /disk/B greet it Bob",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(
        &said,
        &[
            (0, ""),
            (0, ""),
            (1, "no program may have a session of `block` with `virtio-blk`"),
            (1, "need `it`: 1048576 bytes shared; there are 32768"),
            (1, "`priority` is 150: a program may have 1 to 90"),
            (1, "`memory` is 67108864: a program may have 65536 to 16777216"),
            (1, "/disk/G.toml: line 2: unknown field `devices`"),
            (1, "/disk/H.toml: line 1: unknown variant `control`"),
            (1, "its quota is 64 KiB: raise `memory`"),
            (1, "`j j`: a name has lower case letters"),
            (0, ""),
            (0, "needs        shell, fs\n"),
            (0, ""),
            (0, ""),
        ],
    )?;
    ensure!(said[11].text.contains("a       it#0 "), "a session of fs: {}", said[11].text);
    for (words, count) in [
        ("a: reads the text", 2),
        ("a: finds 0 of 32768 bytes", 2),
        ("b: hears Hello, Ada!", 1),
        ("b: hears Hello, Bob!", 1),
        ("survivor 8192, heap 65536, threads 2", 1),
    ] {
        ensure!(console.matches(words).count() == count, "{count} of `{words}`: {console}");
    }
    Ok(())
}

fn supervised(fixture: &Fixture) -> Result<()> {
    let probe = fixture.program("probe")?;
    let common = "privileges = [\"log\"]\nheap = \"64KiB\"\nsurvivor = \"4KiB\"\n";
    let transient = format!("{common}restart = \"transient\"\n");
    let permanent = format!("{common}restart = \"permanent\"\nintensity = 2\n");
    let files: [(&str, &[u8]); 4] = [
        ("/T", &probe),
        ("/T.toml", transient.as_bytes()),
        ("/Q", &probe),
        ("/Q.toml", permanent.as_bytes()),
    ];
    let lines = [
        "run --with log /disk/T tries 0",
        "run --with log /disk/Q panic again",
        "crashes 5",
        "run -d --with log /disk/Q spin; run -d --with log /disk/Q spin; run -d --with log /disk/Q spin; run -d /disk/P spin",
        "ps",
        "run /disk/P exit 0",
        "kill q-2; sleep 0.1; ps",
        "kill p; sleep 0.1; restart q; ps",
        "stop q; stop q-2; stop q-3; stop q",
        "run /disk/P spin & sleep 0.3; stop p; wait; run /disk/P exit 0",
        "kill q; service q; start q",
    ];
    let (said, console) = tried(fixture, &files, &lines)?;
    check(
        &said,
        &[
            (0, ""),
            (128, "q died too often; `crashes` says how"),
            (0, "q (incarnation 3): panic"),
            (0, "q runs\nq-2 runs\nq-3 runs\np runs\n"),
            (0, "q-3"),
            (1, "no slot is free"),
            (0, "q-2"),
            (0, "q-2"),
            (1, "no server has this name"),
            (0, "p was stopped"),
            (1, "no server has this name"),
        ],
    )?;
    let of = |text: &str, name: &str| -> Result<(String, String)> {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        let mut words = line.with_context(|| format!("{name}: {text}"))?.split_whitespace();
        Ok((words.nth(1).unwrap_or("").into(), words.nth(1).unwrap_or("").into()))
    };
    let running = |restarts: &str| ("running".to_owned(), restarts.to_owned());
    ensure!(of(&said[6].text, "q-2")? == running("1"), "killed, and back: {}", said[6].text);
    ensure!(of(&said[6].text, "q")? == running("0"), "{}", said[6].text);
    ensure!(of(&said[7].text, "q")? == running("1"), "{}", said[7].text);
    ensure!(of(&said[7].text, "p").is_err(), "a temporary one is gone: {}", said[7].text);
    ensure!(console.contains("t ended with code 0"), "{console}");
    Ok(())
}

fn nothing_is_left(fixture: &Fixture) -> Result<()> {
    let probe = fixture.program("probe")?;
    let entry = "memory = \"2MiB\"\nheap = \"512KiB\"\nsurvivor = \"64KiB\"\nextra_threads = 3\n\
                 needs = [{ name = \"it\", server = \"fs\", protocol = \"file\" }]\n";
    let files: [(&str, &[u8]); 3] =
        [("/L", &probe), ("/L.toml", entry.as_bytes()), ("/TEXT", b"text\n")];
    let lines = [
        "free",
        "repeat 30 run /disk/P exit 0",
        "free",
        "repeat 10 run /disk/L cat it /TEXT; run /disk/L panic x; run /disk/P touch 40",
        "run -d /disk/L spin; kill l; run -d /disk/P spin; stop p; sleep 0.1; free",
        // The shell dies while it hands over a file.
        "kill shell --when fs:reply:4; run /disk/P exit 0",
        "free; run /disk/P exit 0; free",
    ];
    let (said, _) = tried(fixture, &files, &lines)?;
    let before = &said[0].text;
    ensure!(said[1].status == 0 && said[3].status == 128, "{said:?}");
    ensure!(said[5].status == SHELL_DIED, "{:?}", said[5]);
    // `repeat` stops at the first that fails.
    ensure!(said[3].text.starts_with(&"l: reads text\n".repeat(10)), "{:?}", said[3]);
    for said in [&said[2], &said[4]] {
        ensure!(said.text.ends_with(before.as_str()), "before:\n{before}after:\n{}", said.text);
    }
    ensure!(said[6].text == before.repeat(2), "before:\n{before}after:\n{}", said[6].text);
    Ok(())
}
