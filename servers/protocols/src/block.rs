//! `block`: sectors of a disk, asked for and answered through a shared-memory ring.
//!
//! The session's shared region is a ring area of [`RING_BYTES`] (`libipc::ring` of
//! [`RING_CAPACITY`]: submissions are [`Request`]s, completions [`Completion`]s) followed by the data area, which is physically
//! contiguous: the device moves the bytes itself, nothing is copied. The calls only introduce the
//! two sides to each other; everything hot goes through the ring and its doorbells.
//!
//! Invariants: from its submission to its completion the bytes of a request belong to the device.
//! Completions come in any order and carry the request's id. All requests are idempotent: after
//! the driver's death the client submits again whatever has not been completed.
//!
//! Not here: files, partitions, caching (the client), the device (the server).

use serde::{Deserialize, Serialize};

/// Bytes of the ring area at the start of the shared region; the data area follows.
pub const RING_BYTES: u64 = 64 * 1024;
/// Entries of the ring: requests of one session in flight at most.
pub const RING_CAPACITY: usize = 256;
/// Bytes of a sector, whatever the device's own block size is (virtio 1.2 §5.2.4).
pub const SECTOR_BYTES: u64 = 512;
/// Sectors that one request moves at most (1 MiB).
pub const MAX_SECTORS: u32 = 2048;
/// Words of an encoded [`Request`].
pub const REQUEST_WORDS: usize = 4;
/// Words of an encoded [`Completion`].
pub const COMPLETION_WORDS: usize = 2;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// Make every write that completed before durable; has no sectors.
    Flush,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client, unique among its requests in flight; comes back in the completion.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
    /// First sector of the disk.
    pub sector: u64,
    /// Sectors to move: 1 to [`MAX_SECTORS`]; 0 for `Flush`.
    pub sectors: u32,
    /// Byte in the *data area* where the memory starts, a multiple of [`SECTOR_BYTES`].
    pub offset: u64,
}

impl Request {
    /// The words that travel in the ring.
    pub fn to_words(self) -> [u64; REQUEST_WORDS] {
        let operation = match self.operation {
            Operation::Read => 0,
            Operation::Write => 1,
            Operation::Flush => 2,
        };
        let packed = operation << 32 | u64::from(self.sectors);
        [self.id, packed, self.sector, self.offset]
    }

    /// Reads the words back; the id alone where the operation is none that exists.
    ///
    /// # Errors
    /// The id, for the completion that says [`Status::Malformed`].
    pub fn from_words(words: [u64; REQUEST_WORDS]) -> Result<Request, u64> {
        let [id, packed, sector, offset] = words;
        let operation = match packed >> 32 {
            0 => Operation::Read,
            1 => Operation::Write,
            2 => Operation::Flush,
            _ => return Err(id),
        };
        let sectors = packed as u32;
        Ok(Request { id, operation, sector, sectors, offset })
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Done, all of it.
    Done,
    /// The device could not (`VIRTIO_BLK_S_IOERR`): the medium is bad or gone. Of a write, any
    /// part may be on the disk.
    DeviceError,
    /// The device does not know the operation (`VIRTIO_BLK_S_UNSUPP`).
    Unsupported,
    /// Refused: sectors beyond the end of the disk.
    BeyondEnd,
    /// Refused: the memory is outside the data area or not aligned to a sector.
    BadMemory,
    /// Refused: no sectors, too many, or an operation that does not exist.
    Malformed,
    /// Refused: the disk is read-only.
    ReadOnly,
}

impl Status {
    /// Every value, by its number in the ring.
    pub const ALL: [Status; 7] = [
        Status::Done,
        Status::DeviceError,
        Status::Unsupported,
        Status::BeyondEnd,
        Status::BadMemory,
        Status::Malformed,
        Status::ReadOnly,
    ];
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Whose.
    pub id: u64,
    /// How it went.
    pub status: Status,
}

impl Completion {
    /// The words that travel in the ring.
    pub fn to_words(self) -> [u64; COMPLETION_WORDS] {
        [self.id, self.status as u64]
    }

    /// Reads the words back; an unknown status is a device error.
    pub fn from_words(words: [u64; COMPLETION_WORDS]) -> Completion {
        let status =
            usize::try_from(words[1]).ok().and_then(|number| Status::ALL.get(number).copied());
        Completion { id: words[0], status: status.unwrap_or(Status::DeviceError) }
    }
}

/// What the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Size in sectors of [`SECTOR_BYTES`].
    pub sectors: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// `Flush` reaches the medium (else writes are durable when they complete).
    pub write_cache: bool,
    /// Requests that the device works on at once.
    pub depth: u32,
    /// Incarnation of the driver: another number than before means that it has been restarted.
    pub incarnation: u32,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockError {
    /// The session shares no memory, or too little for a ring, or not for a device.
    NoRing,
    /// The badge belongs to no session of this server.
    UnknownSession,
    /// There is no disk.
    NoDevice,
    /// The call itself failed.
    Ipc(libipc::Error),
}

impl core::fmt::Display for BlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            BlockError::Ipc(error) => return write!(f, "block: {error}"),
            BlockError::NoRing => {
                "block: the session shares no ring; give the edge `shared_bytes` and `dma`"
            }
            BlockError::UnknownSession => "block: unknown session; open it again",
            BlockError::NoDevice => "block: no disk is attached; start with --disk",
        })
    }
}

impl core::error::Error for BlockError {}

impl From<libipc::Error> for BlockError {
    fn from(error: libipc::Error) -> Self {
        match error {
            libipc::Error::UnknownSession => BlockError::UnknownSession,
            other => BlockError::Ipc(other),
        }
    }
}

/// Introduces client and driver to each other.
#[libipc::protocol(name = "block", version = 2)]
pub trait Block {
    /// Tells what the disk is.
    #[idempotent]
    fn info(&self) -> Result<Info, BlockError>;

    /// Joins the session's ring. A client calls it when it starts, and again after each death of
    /// the driver; then it submits again whatever has not been completed. Answered when no
    /// request of an earlier attachment is with the device any more. Clients call it again
    /// themselves when the driver dies in it: they count the time that it takes.
    #[deferred]
    fn attach(&self) -> Result<Info, BlockError>;
}

const _: () = assert!(
    libipc::ring::bytes(RING_CAPACITY, REQUEST_WORDS, COMPLETION_WORDS) as u64 <= RING_BYTES
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_completions_round_trip() {
        for operation in [Operation::Read, Operation::Write, Operation::Flush] {
            let request =
                Request { id: u64::MAX, operation, sector: 1 << 40, sectors: u32::MAX, offset: 7 };
            assert_eq!(Request::from_words(request.to_words()), Ok(request));
        }
        assert_eq!(Request::from_words([9, 3 << 32, 0, 0]), Err(9));
        for (number, status) in Status::ALL.into_iter().enumerate() {
            let done = Completion { id: 5, status };
            assert_eq!(done.to_words(), [5, number as u64]);
            assert_eq!(Completion::from_words(done.to_words()), done);
        }
        let strange = Completion::from_words([1, u64::MAX]);
        assert_eq!(strange.status, Status::DeviceError);
    }
}
