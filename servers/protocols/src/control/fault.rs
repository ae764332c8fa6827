//! A fault in plain words: the one place that says them, for the console and for `crashes`.

use core::fmt;

use libipc::abi::Fault;
use libipc::abi::fault::Access;
use libipc::arch::exceptions::exception_name;
use serde::{Deserialize, Serialize};

use super::Name;

/// A fault, as the kernel told it ([`libipc::abi::fault`]), and what the root server's plan says
/// about its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Number of the [`libipc::abi::Fault`].
    pub kind: u64,
    /// Faulting address, where there is one.
    pub address: u64,
    /// The CPU's code (x86_64 error code, aarch64 ESR).
    pub syndrome: u64,
    /// [`libipc::abi::fault::Access`] of a page fault; vector or class of an exception.
    pub detail: u64,
    /// What is at the address.
    pub place: Place,
}

/// What is at an address of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Nothing is mapped there.
    #[default]
    Unmapped,
    /// In the first page, where nothing ever is.
    NullPointer,
    /// The page below a stack that is left empty.
    StackGuard,
    /// The program's code and data.
    Image,
    /// A thread's stack.
    Stack,
    /// A thread's IPC buffer.
    IpcBuffer,
    /// The heap.
    Heap,
    /// The region shared by the sessions of the edge of this name.
    Shared(Name),
    /// A device's registers.
    Device,
    /// Other memory that the root server lent: control page, start info, DMA, survivor region.
    Granted,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Unmapped => "unmapped",
            Place::NullPointer => "null pointer",
            Place::StackGuard => "stack overflow",
            Place::Image => "the program's own code or data",
            Place::Stack => "stack",
            Place::IpcBuffer => "IPC buffer",
            Place::Heap => "heap",
            Place::Shared(edge) => return write!(f, "shared region of `{edge}`"),
            Place::Device => "device registers",
            Place::Granted => "memory lent by the root server",
        })
    }
}

impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultRecord { kind, address, syndrome, detail, place } = self;
        match Fault::from_raw(*kind) {
            Some(Fault::PageFault) => {
                let verb = match Access::from_raw(*detail) {
                    Some(Access::Read) => "load from",
                    Some(Access::Write) => "store to",
                    Some(Access::Execute) => "jump to",
                    None => "access to",
                };
                write!(f, "{verb} {address:#x} ({place})")
            }
            Some(Fault::Exception) => match exception_name(*detail) {
                Some(name) => write!(f, "{name} (code {syndrome:#x})"),
                None => write!(f, "exception {detail:#x} (code {syndrome:#x})"),
            },
            Some(Fault::CapFault) => write!(f, "no such capability: {address:#x}"),
            Some(Fault::UnknownSyscall) => write!(f, "no such system call: {address}"),
            Some(Fault::Timeout) => f.write_str("budget used up without progress"),
            None => write!(f, "unknown fault {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn faults_are_told_in_words() {
        let words = |kind: Fault, address, detail, place| {
            FaultRecord { kind: kind.raw(), address, syndrome: 0, detail, place }.to_string()
        };
        let null = words(Fault::PageFault, 8, 0, Place::NullPointer);
        assert_eq!(null, "load from 0x8 (null pointer)");
        let overflow = words(Fault::PageFault, 0x5000, 1, Place::StackGuard);
        assert_eq!(overflow, "store to 0x5000 (stack overflow)");
        let shared = words(Fault::PageFault, 0x5000, 2, Place::Shared("disk".try_into().unwrap()));
        assert_eq!(shared, "jump to 0x5000 (shared region of `disk`)");
        let named = words(Fault::Exception, 0, 7, Place::Unmapped);
        assert_eq!(named, "FPU instruction without FPU state (code 0x0)", "on either machine");
        assert_eq!(words(Fault::Exception, 0, 0x3f, Place::Unmapped), "exception 0x3f (code 0x0)");
        assert_eq!(words(Fault::CapFault, 9, 0, Place::Unmapped), "no such capability: 0x9");
        let unknown = FaultRecord { kind: 99, ..FaultRecord::default() };
        assert_eq!(unknown.to_string(), "unknown fault 99");
    }
}
