//! The tool against guests of a few dozen instructions, assembled here: that QEMU starts, serial
//! ports are wired, frames pass, and each way to end is told apart, on each machine. No kernel is
//! needed.

mod code;

use code::{Code, Port, Step};
use skink_abi::exec::Kind;
use skink_tool::compile::Programs;
use skink_tool::install::ensure_qemu;
use skink_tool::machine::ending::{CANNOT_BOOT_CODE, PANIC_CODE};
use skink_tool::machine::{BootFiles, Ending, Options};
use skink_tool::session::{Guest, Outcome, System, Watch};
use skink_tool::workspace::Arch;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A system whose kernel is that code; its folder is removed by the caller's `drop`.
struct Tiny {
    folder: PathBuf,
    system: System,
}

impl Tiny {
    fn new(arch: Arch, name: &str, code: &Code) -> Tiny {
        ensure_qemu(arch).unwrap();
        let name = format!("skink-{name}-{}-{}", arch.name(), std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (kernel, image) = (folder.join("kernel"), folder.join("image"));
        std::fs::write(&kernel, code.kernel(arch)).unwrap();
        std::fs::write(&image, [0; 512]).unwrap();
        let system = System {
            arch,
            programs: Programs::new(kernel.clone(), Default::default()),
            binaries: Default::default(),
            root: folder.clone(),
            files: BootFiles { kernel, image },
        };
        Tiny { folder, system }
    }

    fn boot(&self) -> Guest<'_> {
        Guest::boot(&self.system, &Options::default(), &Watch::default()).unwrap()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// How a guest of that one step ends.
fn ending(arch: Arch, name: &str, step: Step) -> Option<Ending> {
    let tiny = Tiny::new(arch, name, &Code::default().then(step).then(Step::Hang));
    tiny.boot().wait_ending(soon()).unwrap()
}

#[test]
fn commands_run_and_the_guest_ends_by_itself() {
    let code = Code::default()
        .ready()
        .run("one")
        .about(1, Kind::Output, b"first\n")
        .about(1, Kind::Exit, &0i32.to_le_bytes())
        .run("two")
        .about(2, Kind::Output, b"\x00\xff")
        .about(2, Kind::Exit, &7i32.to_le_bytes())
        .run("shutdown")
        .then(Step::Exit(0));
    for arch in Arch::ALL {
        let tiny = Tiny::new(arch, "exec", &code);
        let mut guest = tiny.boot();
        let mut capture = |commands| guest.capture(commands, TIMEOUT).unwrap();
        assert_eq!(capture("one"), (b"first\n".into(), Outcome::Status(0)));
        assert_eq!(capture("two"), (vec![0, 255], Outcome::Status(7)));
        assert_eq!(guest.shut_down().unwrap(), Some(Ending::Clean));
    }
}

#[test]
fn a_kernel_panic_is_told_with_its_dump() {
    let dump = b"boot\r\nPANIC at lib.rs:1: oh\r\n  #0 0x100000\r\n";
    let code = Code::default().send(Port::Terminal, dump).then(Step::Exit(PANIC_CODE));
    for arch in Arch::ALL {
        let tiny = Tiny::new(arch, "panic", &code);
        let mut guest = tiny.boot();
        let (output, outcome) = guest.capture("ls", TIMEOUT).unwrap();
        assert_eq!((output, outcome), (vec![], Outcome::Ended(Ending::KernelPanic)));
        let told = guest.post_mortem();
        assert!(told.starts_with("PANIC at lib.rs:1: oh\n  #0 0x100000\n"), "{told}");
    }
}

#[test]
fn other_ends_are_told_apart() {
    for arch in Arch::ALL {
        let exit = |code| ending(arch, "code", Step::Exit(code));
        assert_eq!(exit(0), Some(Ending::Clean));
        assert_eq!(exit(1), Some(Ending::Code(1)));
        assert_eq!(exit(0x7f), Some(Ending::Code(0x7f)));
        assert_eq!(exit(CANNOT_BOOT_CODE), Some(Ending::CannotBoot));
    }
    assert_eq!(ending(Arch::X86_64, "reset", Step::End), Some(Ending::Reset));
    assert_eq!(ending(Arch::Aarch64, "off", Step::End), Some(Ending::Clean));
}

#[test]
fn a_guest_that_hangs_is_given_up() {
    let code = Code::default().send(Port::Terminal, b"stuck\r\n").then(Step::Hang);
    for arch in Arch::ALL {
        let tiny = Tiny::new(arch, "hang", &code);
        let mut guest = tiny.boot();
        let (_, outcome) = guest.capture("ls", Duration::from_millis(1500)).unwrap();
        assert_eq!(outcome, Outcome::TimedOut);
        assert!(guest.post_mortem().contains("stuck"));
    }
}

#[test]
fn semihosting_ends_the_guest_and_reaches_no_file() {
    let folder = std::env::temp_dir().join(format!("skink-semihosting-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("file");
    std::fs::write(&file, b"of the host").unwrap();
    let code = Code::default()
        .then(Step::SpoilFile(file.to_str().unwrap().as_bytes().to_vec()))
        .send(Port::Terminal, b"goes on\r\n")
        .then(Step::Exit(5));
    let tiny = Tiny::new(Arch::Aarch64, "semihosting", &code);
    let mut guest = tiny.boot();
    assert_eq!(guest.wait_ending(soon()).unwrap(), Some(Ending::Code(5)));
    assert!(guest.console().contains("goes on"));
    assert_eq!(std::fs::read(&file).unwrap_or_default(), b"of the host");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_disk_in_use_is_explained() {
    let tiny = Tiny::new(Arch::X86_64, "lock", &Code::default().then(Step::Hang));
    let disk = tiny.folder.join("d.img");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let options = Options { disk: Some(disk), ..Options::default() };
    let _first = Guest::boot(&tiny.system, &options, &Watch::default()).unwrap();
    let mut second = Guest::boot(&tiny.system, &options, &Watch::default()).unwrap();
    assert_eq!(second.wait_ending(soon()).unwrap(), Some(Ending::Qemu(1)));
    let told = second.post_mortem();
    assert!(told.contains("another QEMU uses that disk"), "{told}");
}
