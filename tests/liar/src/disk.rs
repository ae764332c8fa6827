//! The disk that the liar drives: memory that the host shares with the guest (QEMU's `ivshmem-plain`).
//!
//! It answers within the instructions that ask it, so no run depends on how busy the host's disk is, and
//! time that is counted does not jump meanwhile. The host fills and judges it as a file.

use libipc::Shared;
use libipc::mmio::Mmio;
use libipc::start::DeviceGrant;
use skink_protocols::block::{Operation, Request, SECTOR_BYTES, Status};

/// The BAR of the memory itself (QEMU, docs/specs/ivshmem-spec).
const MEMORY_BAR: usize = 2;

/// The disk.
pub struct Disk(Mmio);

impl Disk {
    /// The device of this grant.
    pub fn new(grant: &DeviceGrant) -> Disk {
        Disk(Mmio::granted(grant.bars[MEMORY_BAR]))
    }

    /// Its size.
    pub fn sectors(&self) -> u64 {
        self.0.size() as u64 / SECTOR_BYTES
    }

    /// Does what a request wants, with the client's `data` area.
    pub fn serve(&self, request: &Request, data: &Shared) -> Status {
        if request.operation == Operation::Flush {
            return Status::Done;
        }
        let bytes = u64::from(request.sectors) * SECTOR_BYTES;
        let first = request.sector.checked_mul(SECTOR_BYTES);
        let Some(disk) = first.and_then(|first| self.0.part(first, bytes)) else {
            return Status::BeyondEnd;
        };
        let Some(data) = data.part(request.offset, bytes) else {
            return Status::BadMemory;
        };
        use core::sync::atomic::Ordering::Relaxed;
        for at in (0..bytes as usize).step_by(8) {
            match request.operation {
                Operation::Read => data.word(at).store(disk.read64(at), Relaxed),
                _ => disk.write64(at, data.word(at).load(Relaxed)),
            }
        }
        Status::Done
    }
}
