//! The tool against guests of a few dozen instructions, assembled here: that QEMU starts, serial
//! ports are wired, frames pass, and each way to end is told apart. No kernel is needed.

use skink_abi::exec::{HEADER_SIZE, Header, Kind, VERSION};
use skink_tool::compile::Programs;
use skink_tool::install::ensure_qemu;
use skink_tool::machine::{BootFiles, Ending, Options, PANIC_CODE};
use skink_tool::session::{Guest, Outcome, System, Watch};
use skink_tool::workspace::Arch;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TERMINAL: u16 = 0x3f8;
const EXEC: u16 = 0x2f8;
const TIMEOUT: Duration = Duration::from_secs(60);

/// 32-bit x86 code, as PVH starts it.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    /// `mov dx, port`
    fn port(&mut self, port: u16) {
        self.0.extend([0x66, 0xba]);
        self.0.extend(port.to_le_bytes());
    }

    fn send(mut self, port: u16, bytes: &[u8]) -> Code {
        self.port(port);
        for byte in bytes {
            // mov al, byte; out dx, al
            self.0.extend([0xb0, *byte, 0xee]);
        }
        self
    }

    fn frame(self, kind: Kind, payload: &[u8]) -> Code {
        let head = Header { kind, length: payload.len() };
        self.send(EXEC, &head.to_bytes()).send(EXEC, payload)
    }

    /// Waits for so many bytes on the exec channel.
    fn receive(mut self, count: usize) -> Code {
        // mov ecx, count
        self.0.push(0xb9);
        self.0.extend((count as u32).to_le_bytes());
        self.port(EXEC + 5);
        // in al, dx; test al, 1; jz to the mov dx
        self.0.extend([0xec, 0xa8, 0x01, 0x74, 0xf7]);
        self.port(EXEC);
        // in al, dx; dec ecx; jnz to the first mov dx
        self.0.extend([0xec, 0x49, 0x75, 0xef]);
        self
    }

    fn run(self, commands: &str) -> Code {
        self.receive(HEADER_SIZE + commands.len())
    }

    /// Ends QEMU by isa-debug-exit.
    fn exit(mut self, code: i32) -> Code {
        self.port(0xf4);
        self.0.push(0xb8);
        self.0.extend(code.to_le_bytes());
        self.0.push(0xef);
        self.hang()
    }

    fn hang(mut self) -> Code {
        // cli; hlt; jmp to the hlt
        self.0.extend([0xfa, 0xf4, 0xeb, 0xfd]);
        self
    }

    /// Loads an empty interrupt table and traps: a triple fault.
    fn triple_fault(mut self) -> Code {
        // push 0; push 0; lidt [esp]; int3
        self.0.extend([0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc]);
        self
    }

    /// An ELF file with a PVH note that starts the code at 1 MiB.
    fn elf(&self) -> Vec<u8> {
        const BASE: u64 = 0x10_0000;
        const CODE: u64 = 0x1000;
        const NOTE: u64 = 0x800;
        let mut elf = vec![0; CODE as usize];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x10, &[2, 0, 62, 0, 1, 0, 0, 0]);
        put(0x18, &BASE.to_le_bytes());
        put(0x20, &64u64.to_le_bytes());
        put(0x34, &[64, 0, 56, 0, 2, 0]);
        let size = self.0.len() as u64;
        let headers: [(u32, [u64; 6]); 2] =
            [(1, [CODE, BASE, BASE, size, size + 0x1000, 0x1000]), (4, [NOTE, 0, 0, 24, 24, 4])];
        for (index, (kind, words)) in headers.iter().enumerate() {
            let at = 64 + 56 * index;
            put(at, &kind.to_le_bytes());
            put(at + 4, &7u32.to_le_bytes());
            for (i, word) in words.iter().enumerate() {
                put(at + 8 + 8 * i, &word.to_le_bytes());
            }
        }
        // XEN_ELFNOTE_PHYS32_ENTRY
        put(NOTE as usize, &[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
        put(NOTE as usize + 12, b"Xen\0");
        put(NOTE as usize + 16, &BASE.to_le_bytes());
        elf.extend_from_slice(&self.0);
        elf
    }
}

/// A system whose kernel is that code; its folder is removed by the caller's `drop`.
struct Tiny {
    folder: PathBuf,
    system: System,
}

impl Tiny {
    fn new(name: &str, code: Code) -> Tiny {
        ensure_qemu(Arch::X86_64).unwrap();
        let folder = std::env::temp_dir().join(format!("skink-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (kernel, image) = (folder.join("kernel"), folder.join("image"));
        std::fs::write(&kernel, code.elf()).unwrap();
        std::fs::write(&image, [0; 512]).unwrap();
        let system = System {
            arch: Arch::X86_64,
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

#[test]
fn commands_run_and_the_guest_ends_by_itself() {
    let code = Code::default()
        .frame(Kind::Ready, &[VERSION])
        .run("one")
        .frame(Kind::Output, b"first\n")
        .frame(Kind::Exit, &0i32.to_le_bytes())
        .run("two")
        .frame(Kind::Output, b"\x00\xff")
        .frame(Kind::Exit, &7i32.to_le_bytes())
        .run("shutdown")
        .exit(0);
    let tiny = Tiny::new("exec", code);
    let mut guest = tiny.boot();
    assert_eq!(guest.capture("one", TIMEOUT).unwrap(), (b"first\n".into(), Outcome::Status(0)));
    assert_eq!(guest.capture("two", TIMEOUT).unwrap(), (vec![0, 255], Outcome::Status(7)));
    assert_eq!(guest.shut_down().unwrap(), Some(Ending::Clean));
}

#[test]
fn a_kernel_panic_is_told_with_its_dump() {
    let dump = b"boot\r\nPANIC at lib.rs:1: oh\r\n  #0 0x100000\r\n";
    let tiny = Tiny::new("panic", Code::default().send(TERMINAL, dump).exit(PANIC_CODE));
    let mut guest = tiny.boot();
    let (output, outcome) = guest.capture("ls", TIMEOUT).unwrap();
    assert_eq!((output, outcome), (vec![], Outcome::Ended(Ending::KernelPanic)));
    let told = guest.post_mortem();
    assert!(told.starts_with("PANIC at lib.rs:1: oh\n  #0 0x100000\n"), "{told}");
}

#[test]
fn other_ends_are_told_apart() {
    let tiny = Tiny::new("code", Code::default().exit(1));
    assert_eq!(tiny.boot().wait_ending(soon()).unwrap(), Some(Ending::Code(1)));
    let tiny = Tiny::new("reset", Code::default().triple_fault());
    assert_eq!(tiny.boot().wait_ending(soon()).unwrap(), Some(Ending::Reset));
}

#[test]
fn a_guest_that_hangs_is_given_up() {
    let tiny = Tiny::new("hang", Code::default().send(TERMINAL, b"stuck\r\n").hang());
    let mut guest = tiny.boot();
    let (_, outcome) = guest.capture("ls", Duration::from_millis(1500)).unwrap();
    assert_eq!(outcome, Outcome::TimedOut);
    assert!(guest.post_mortem().contains("stuck"));
}

#[test]
fn a_disk_in_use_is_explained() {
    let tiny = Tiny::new("lock", Code::default().hang());
    let disk = tiny.folder.join("d.img");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let options = Options { disk: Some(disk), ..Options::default() };
    let _first = Guest::boot(&tiny.system, &options, &Watch::default()).unwrap();
    let mut second = Guest::boot(&tiny.system, &options, &Watch::default()).unwrap();
    assert_eq!(second.wait_ending(soon()).unwrap(), Some(Ending::Qemu(1)));
    let told = second.post_mortem();
    assert!(told.contains("another QEMU uses that disk"), "{told}");
}
