//! `probe`: a program for `run`, which does what its arguments say and tells what it can and cannot
//! do.
//!
//! * `exit CODE`, `panic WORD`, `spin`: ends so, or never.
//! * `say WORD...`: logs the words, and its incarnation. `count N`: prints the numbers below N.
//! * `holds`: logs what it was given; `reach`: what it gets when it asks for more; `touch SLOT`:
//!   calls by a capability that it was not given; `meddle`: asks the kernel's log for whatever it
//!   is not for.
//! * `cat EDGE PATH`: logs the first line of a file; `greet EDGE NAME`: what the hello server says.
//! * `share EDGE`: logs how many bytes of the memory shared by this edge are not zero, and fills it.
//! * `race panic` or `race exit`: panics, and while it says so its second thread ends it too.
//! * `listen EDGE`: logs what a session of the console lets it do on each channel, where it also writes
//!   what would be a death, output and the end of a line to the host. `shout`: panics with words that are not only seen.
//! * `keeps EDGE PATH MS`, `steals EDGE PATH`, `hoards EDGE PATH MS`, `forges EDGE PATH`, `strays EDGE
//!   NAME`: neighbours at a file server (`files.rs`).
//! * `serves`, `calls EDGE`: a server that means harm, and its client (`hostile.rs`).
//! * `registers`: what a device shows its driver (`devices.rs`).
//! * `asks`: asks other servers for small things for ever, and logs each longest answer (`asks.rs`).
//! * `tries CODE`: counts in its survivor region, panics twice, then exits with the code.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod asks;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod files;
#[cfg(target_os = "none")]
mod hostile;

#[cfg(target_os = "none")]
mod guest {

    use alloc::string::String;
    use alloc::vec::Vec;
    use core::fmt;
    use core::sync::atomic::AtomicBool;
    use core::sync::atomic::Ordering::{Acquire, Release};

    use libipc::Session;
    use libipc::cap::{Cap, Endpoint};
    use libipc::events::Events;
    use libipc::raw::call;
    use libipc::start::{StartInfo, slot};
    use skink_abi::exec::{Header, Kind};
    use skink_abi::{Invocation, MessageInfo};
    use skink_protocols::Span;
    use skink_protocols::console::{Channel, ConsoleClient};
    use skink_protocols::control::{ControlClient, KillSpec};
    use skink_protocols::file::client::File;
    use skink_protocols::file::{Access, Create, FileSystemClient};
    use skink_protocols::hello::HelloClient;
    use skink_protocols::pci::PciRegistryClient;

    libipc::main!(main);

    fn main(start: &'static StartInfo) -> i32 {
        let words: Vec<&str> = start.args.split_whitespace().collect();
        match words.as_slice() {
            ["exit", code] => return code.parse().expect("a code"),
            ["panic", word] => panic!("{word}"),
            ["spin"] => loop {
                libipc::raw::yield_now();
            },
            ["say", words @ ..] => {
                log::info!("says {} (incarnation {})", words.join(" "), start.incarnation);
            }
            ["count", number] => {
                let number: u32 = number.parse().expect("a number");
                (0..number).for_each(|number| libipc::println!("{number}"));
            }
            ["holds"] => holds(start),
            ["reach"] => reach(),
            ["touch", slot] => {
                let slot = Cap::<Endpoint>::from_slot(slot.parse().expect("a slot"));
                let client = HelloClient::new(Session::of_endpoint(slot));
                log::info!("is answered {:?}", client.add(1, 1));
            }
            ["meddle"] => meddle(),
            ["cat", edge, path] => return cat(start, edge, path),
            ["greet", edge, name] => {
                let client = HelloClient::connect(start, edge).expect("an edge of this name");
                log::info!("hears {}", client.greet(name).expect("a greeting").text);
            }
            ["share", edge] => share(start, edge),
            ["race", how] => race(start, *how == "panic"),
            ["listen", edge] => listen(start, edge),
            ["shout"] => panic!("\x1b[2J\u{9b}31m\r\nroot: shutdown with code 7"),
            ["keeps", edge, path, ms] => {
                crate::files::keeps(start, edge, path, ms.parse().expect("a number"));
            }
            ["steals", edge, path] => crate::files::steals(start, edge, path),
            ["hoards", edge, path, ms] => {
                crate::files::hoards(start, edge, path, ms.parse().expect("a number"));
            }
            ["forges", edge, path] => crate::files::forges(start, edge, path),
            ["strays", edge, name] => crate::files::strays(start, edge, name),
            ["serves"] => crate::hostile::serves(),
            ["calls", edge] => crate::hostile::calls(start, edge),
            ["registers"] => crate::devices::registers(start),
            ["asks"] => crate::asks::asks(start),
            ["tries", code] => return tries(start, code.parse().expect("a code")),
            _ => panic!("args `{}`: see the head of the program", start.args),
        }
        0
    }

    fn meddle() {
        let own = [Invocation::LogWrite, Invocation::LogStatistics].map(Invocation::raw);
        let granted = (0..256)
            .filter(|label| !own.contains(label))
            // As a code with which the machine ends, it would be the kernel's own for a panic.
            .filter(|&label| {
                call(slot::LOG, MessageInfo::new(label, 1, 0), [0x3e, 0, 0, 0]).is_ok()
            })
            .count();
        log::info!("is granted {granted} requests");
    }

    fn holds(start: &StartInfo) {
        let edges: Vec<String> = start.outgoing.iter().map(|s| s.edge.as_str().into()).collect();
        log::info!(
            "holds edges [{}], {} incoming, {} devices, {} ports, {} lines, dma {}, image {}, \
             survivor {}, heap {}, threads {}",
            edges.join(" "),
            start.incoming.len(),
            start.devices.len(),
            start.ports.len(),
            start.lines.len(),
            start.dma.size,
            start.boot_image.size,
            start.survivor.size,
            start.heap.size,
            start.threads.len()
        );
    }

    /// Asks the root server for what it has no privilege for.
    fn reach() {
        let control = ControlClient::at(slot::SUPERVISOR);
        log::info!("status: {:?}", control.status(0).err());
        log::info!("kill: {:?}", control.kill("fs", KillSpec::default()).err());
        log::info!("load: {:?}", control.load(1).err());
        log::info!("shutdown: {:?}", control.shutdown(1).err());
        log::info!("pci: {:?}", PciRegistryClient::at(slot::SUPERVISOR).done().err());
    }

    fn cat(start: &'static StartInfo, edge: &str, path: &str) -> i32 {
        let Ok(session) = start.session(edge, 0) else {
            log::info!("has no edge `{edge}`");
            return 3;
        };
        let client = FileSystemClient::new(session);
        let file = match File::open(client, path, Access::Read, Create::Never) {
            Ok((file, _)) => file,
            Err(error) => {
                log::info!("{path}: {error}");
                return 4;
            }
        };
        let mut bytes = [0; 64];
        let length = file.read_at(0, &mut bytes).expect("bytes");
        let text = core::str::from_utf8(&bytes[..length]).unwrap_or("?");
        log::info!("reads {}", text.lines().next().unwrap_or_default());
        0
    }

    fn share(start: &'static StartInfo, edge: &str) {
        let session = start.session(edge, 0).expect("an edge of this name");
        let mut bytes = alloc::vec![0; session.shared.size()];
        session.shared.read(0, &mut bytes);
        let count = bytes.iter().filter(|byte| **byte != 0).count();
        log::info!("finds {count} of {} bytes", bytes.len());
        bytes.fill(0xa5);
        session.shared.write(0, &bytes);
    }

    /// A message that takes its time: others run while it is written.
    struct Slow(&'static AtomicBool);

    impl fmt::Display for Slow {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.store(true, Release);
            (0..100).for_each(|_| libipc::raw::yield_now());
            f.write_str("the first thread")
        }
    }

    fn race(start: &'static StartInfo, panics: bool) {
        static BEGAN: AtomicBool = AtomicBool::new(false);
        let second = move |_: &Events| {
            while !BEGAN.load(Acquire) {
                libipc::raw::yield_now();
            }
            assert!(!panics, "the second thread");
            libipc::startup::exit(9)
        };
        libipc::thread::start(&start.threads[0], second).expect("a thread");
        panic!("{}", Slow(&BEGAN));
    }

    fn listen(start: &'static StartInfo, edge: &str) {
        let client = ConsoleClient::new(start.session(edge, 0).expect("an edge of this name"));
        let mut frame = Vec::new();
        let mut add = |kind, payload: &[u8]| {
            frame.extend(Header { kind, length: payload.len() }.to_bytes());
            frame.extend(payload);
        };
        add(Kind::Crash, b"number=99\nserver=fs\nincarnation=7\ncause=forged\nip=0x1000\n");
        for line in 1..=3u32 {
            add(Kind::Output, &[&line.to_le_bytes()[..], b"forged output\n"].concat());
            add(Kind::Exit, &[line.to_le_bytes(), 0i32.to_le_bytes()].concat());
        }
        let shared = client.session().shared;
        for (channel, bytes) in Channel::ALL.into_iter().zip([b"it writes\r\n", frame.as_slice()]) {
            let span = |length| Span { offset: 0, length };
            let attached = client.attach(channel).err();
            let read = client.read(channel, 0, span(64)).err();
            shared.write(0, bytes);
            let written = client.write(channel, 0, span(bytes.len() as u32)).err();
            log::info!("{channel:?}: attach {attached:?}, read {read:?}, write {written:?}");
        }
    }

    fn tries(start: &StartInfo, code: i32) -> i32 {
        let count = libipc::Shared::granted(start.survivor);
        let mut tries = [0];
        count.read(0, &mut tries);
        tries[0] += 1;
        count.write(0, &tries);
        assert!(tries[0] >= 3, "try {}", tries[0]);
        code
    }
}

/// The program runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
