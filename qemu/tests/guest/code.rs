//! Guests of a few dozen instructions: what they do, step by step, and its machine code for each
//! machine. [`x86_64`] and [`aarch64`] are the assemblers.

pub mod aarch64;
pub mod x86_64;

use skink_abi::exec::{HEADER_SIZE, Header, Kind, NUMBER_SIZE, VERSION};
use skink_tool::workspace::Arch;

/// A serial port.
#[derive(Clone, Copy)]
pub enum Port {
    Terminal,
    Exec,
}

/// What a guest does next.
pub enum Step {
    Send(Port, Vec<u8>),
    /// Waits for so many bytes on the exec channel.
    Receive(usize),
    /// Ends QEMU with a code as the kernel does.
    Exit(i32),
    /// Arm alone: asks the host by semihosting to open a file for writing, which empties it, and to
    /// remove it.
    SpoilFile(Vec<u8>),
    /// What the machine does without a code: a PC's triple fault, Arm's PSCI SYSTEM_OFF.
    End,
    /// Does nothing for ever.
    Hang,
}

/// A guest.
#[derive(Default)]
pub struct Code(Vec<Step>);

impl Code {
    pub fn send(self, port: Port, bytes: &[u8]) -> Code {
        self.then(Step::Send(port, bytes.into()))
    }

    pub fn frame(self, kind: Kind, payload: &[u8]) -> Code {
        let head = Header { kind, length: payload.len() };
        self.send(Port::Exec, &head.to_bytes()).send(Port::Exec, payload)
    }

    /// Says that it listens, and has taken no line.
    pub fn ready(self) -> Code {
        self.frame(Kind::Ready, &[VERSION, 0, 0, 0, 0])
    }

    /// A frame about the line with this number.
    pub fn about(self, line: u32, kind: Kind, payload: &[u8]) -> Code {
        self.frame(kind, &[&line.to_le_bytes(), payload].concat())
    }

    /// Waits for commands.
    pub fn run(self, commands: &str) -> Code {
        self.then(Step::Receive(HEADER_SIZE + NUMBER_SIZE + commands.len()))
    }

    pub fn then(mut self, step: Step) -> Code {
        self.0.push(step);
        self
    }

    /// The file that QEMU boots.
    pub fn kernel(&self, arch: Arch) -> Vec<u8> {
        match arch {
            Arch::X86_64 => x86_64::elf(&self.0),
            Arch::Aarch64 => aarch64::flat(&self.0),
        }
    }
}
