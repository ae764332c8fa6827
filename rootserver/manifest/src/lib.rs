//! The system manifest, as the root server reads it: checked and packed by the host tool from
//! `targets/<target>/system.toml`, encoded with `postcard` into the boot image's file `manifest`.
//!
//! Invariants that the host tool's check establishes and the root server may rely on: names are
//! unique; indices are in range; the graph of edges has no cycle; each edge goes uphill (the
//! server's priority is above the client's); no device, port or line is given twice; a group's
//! parent has a lower index.
//!
//! Not here: TOML (only the host tool knows it) and policy (only the root server acts on it).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod grant;
pub mod limits;
mod size;

pub use grant::{Access, Channel, Folder, GrantError, MAX_FOLDER, SessionGrant, is_folder};
pub use size::Bytes;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// Version of this encoding; the first field of [`Manifest`].
pub const VERSION: u16 = 8;
/// Servers at most.
pub const MAX_SERVERS: usize = 32;
/// Groups at most.
pub const MAX_GROUPS: usize = 8;
/// Edges at most.
pub const MAX_EDGES: usize = 64;
/// Devices, port ranges, lines or protocols of one server at most, each.
pub const MAX_GRANTS: usize = 8;

/// A name of a server, edge or protocol: lower case letters, digits, `-` and `_`.
pub type Name = String<32>;

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u16,
    /// Name of the target, such as `x86_64-q35`.
    pub target: Name,
    /// Overrides for kill experiments; printed with every result.
    pub experiment: Option<Experiment>,
    /// Who is restarted together: each stands behind its parent.
    pub groups: Vec<Group, MAX_GROUPS>,
    /// In start order: each stands behind all that it needs.
    pub servers: Vec<Server, MAX_SERVERS>,
    /// Who talks to whom.
    pub edges: Vec<Edge, MAX_EDGES>,
}

/// The image-wide section `[experiment]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// `intensity = "unlimited"`: no server is ever given up.
    pub unlimited_intensity: bool,
    /// Milliseconds between death and restart, in place of the servers' back-off.
    pub backoff_ms: u32,
    /// Counting moments and keeping the last requests, for crash records.
    pub recording: Switch,
    /// Asking for heartbeats.
    pub heartbeats: Switch,
    /// What the root server does wrong.
    pub broken: Broken,
    /// What is wrong with the devices.
    pub devices: Devices,
}

/// What is wrong with all devices when their drivers are dead: an injected fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Devices {
    /// Nothing.
    #[default]
    Obey,
    /// What the root server writes to silence them does not reach them: they go on with what their
    /// drivers told them, and it sees that.
    Deaf,
}

/// What a root server does wrong on purpose, so that it can be seen whether a campaign notices: a
/// negative control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Broken {
    /// Nothing.
    #[default]
    Nothing,
    /// `kill` succeeds, and nobody dies.
    OrdersIgnored,
    /// A server that died cannot be started again.
    NotRestarted,
    /// Each restart leaves a capability slot behind.
    SlotLeaked,
    /// Of every second death, the first one included, there is no crash record.
    RecordDropped,
}

impl Experiment {
    /// What kill experiments use: no server is given up, or waits to be started again.
    pub const KILLS: Experiment = Experiment {
        unlimited_intensity: true,
        backoff_ms: 0,
        recording: Switch::On,
        heartbeats: Switch::On,
        broken: Broken::Nothing,
        devices: Devices::Obey,
    };
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It is.
    #[default]
    On,
    /// It is not, to measure what it costs.
    Off,
}

/// One server, or a slot: a place for a program that `run` starts from a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name, unique.
    pub name: Name,
    /// File `server/BINARY` of the boot image; empty for a slot.
    pub binary: Name,
    /// It is a slot. Until a program is in it, what stands here is the most that one may have; the
    /// slot's edges are those that one may be given.
    pub is_slot: bool,
    /// Words for the server, split by itself.
    pub args: String<96>,
    /// Fixed priority, 1 to 250 (the root server is above all).
    pub priority: u8,
    /// Microseconds of CPU per period.
    pub budget_us: u32,
    /// Microseconds; equal to the budget: never throttled, round robin.
    pub period_us: u32,
    /// Bytes of the Untyped that pays for everything that an instance has (threads, paging
    /// structures, data, stacks, heap); a power of two.
    pub quota_bytes: u64,
    /// Bytes of stack of each thread.
    pub stack_bytes: u32,
    /// Bytes of heap, 0 for none.
    pub heap_bytes: u32,
    /// Threads beside the first.
    pub extra_threads: u8,
    /// `Reply` objects: callers that it can keep waiting at once (at least 1).
    pub replies: u8,
    /// Threads have FPU state.
    pub fpu: bool,
    /// Devices it drives.
    pub devices: Vec<Device, MAX_GRANTS>,
    /// I/O ports, x86_64.
    pub ports: Vec<PortRange, MAX_GRANTS>,
    /// Wired interrupts (x86_64: GSI, edge unless said otherwise).
    pub lines: Vec<Line, MAX_GRANTS>,
    /// Protocols it provides.
    pub provides: Vec<Name, MAX_GRANTS>,
    /// Bytes of DMA memory with known physical addresses, 0 for none. Owned by custody.
    pub dma_bytes: u32,
    /// Bytes of survivor region, 0 for none.
    pub survivor_bytes: u32,
    /// Extra authority.
    pub privileges: Privileges,
    /// When to start it again.
    pub restart: Restart,
    /// Index of its group in `groups`; `None`: it is restarted, and given up, alone.
    pub group: Option<u8>,
    /// Restarts tolerated within `intensity_period_ms` before it is given up.
    pub intensity: u16,
    /// Milliseconds.
    pub intensity_period_ms: u32,
    /// Delay of the first restart; doubles with each further one in the period.
    pub backoff_ms: u32,
    /// The delay's upper bound.
    pub backoff_max_ms: u32,
    /// Milliseconds between heartbeats, 0 for none.
    pub heartbeat_ms: u32,
}

/// Authority beyond talking to servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Write to the kernel's log.
    pub log: bool,
    /// See the boot image, read-only.
    pub boot_image: bool,
    /// Ask the root server for `ps`, `kill`, `restart`, `crashes`, `free`, `shutdown`.
    pub control: bool,
    /// Configure PCI functions: all configuration pages (the `pci` server alone).
    pub pci_config: bool,
}

/// A device, by what finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A PCI function by vendor and device ID; `index` counts equal ones in bus order.
    Pci {
        /// Vendor ID.
        vendor: u16,
        /// Device IDs that the driver knows.
        devices: Vec<u16, 4>,
        /// Which of several, from 0.
        index: u8,
        /// The server starts without it if it is absent (else it waits for ever as `no device`).
        optional: bool,
        /// MSI-X vectors wanted.
        vectors: u8,
    },
    /// A node of the device tree by its `compatible` string (aarch64).
    Compatible {
        /// The string.
        compatible: String<48>,
        /// Which of several, from 0: first the node that `/chosen` names as `stdout-path`, if it
        /// is one of them, then by address.
        index: u8,
        /// The server starts without it if it is absent.
        optional: bool,
    },
    /// A virtio device by its type (virtio 1.2 §5), whatever its transport: PCI functions in bus
    /// order, then the device tree's `virtio,mmio` nodes by address.
    Virtio {
        /// Device type: 2 for a block device.
        kind: u16,
        /// Which of several, from 0.
        index: u8,
        /// The server starts without it if it is absent.
        optional: bool,
        /// MSI-X vectors wanted, where it is a PCI function and the machine has them.
        vectors: u8,
    },
}

/// Ports `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// A wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// x86_64: GSI; aarch64: INTID.
    pub number: u32,
    /// Level triggered.
    pub level: bool,
}

/// A client's right to talk to a server, and what the two share. The shared memory, the
/// sessions' badges and the doorbells belong to the edge and survive the death of either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// What the client calls it (the key of `libipc`'s look-up), unique within the client.
    pub name: Name,
    /// Index of the client in `servers`.
    pub client: u8,
    /// Index of the server in `servers`.
    pub server: u8,
    /// Protocol spoken, one that the server provides.
    pub protocol: Name,
    /// Sessions, each with a badge and a shared region of its own (one a client thread).
    pub sessions: u8,
    /// Bytes of shared memory of each session, whole pages; 0 for none.
    pub shared_bytes: u32,
    /// The region is physically contiguous and the server learns its physical address.
    pub dma: bool,
    /// How much of the protocol its sessions are good for.
    pub grant: SessionGrant,
    /// The client is heard when it says that the server lies or is late, and the server is restarted.
    /// Never so for an edge of a slot.
    pub may_complain: bool,
}

/// Servers (and groups) that are restarted together, as OTP's supervisors do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name, unique among groups.
    pub name: Name,
    /// Who is restarted when a member dies.
    pub strategy: Strategy,
    /// Index of the group that it is a member of.
    pub parent: Option<u8>,
    /// Restarts of the whole group tolerated within `intensity_period_ms`, before its parent acts,
    /// or it is given up.
    pub intensity: u16,
    /// Milliseconds.
    pub intensity_period_ms: u32,
    /// Delay of the group's first restart; doubles with each further one in the period.
    pub backoff_ms: u32,
    /// The delay's upper bound.
    pub backoff_max_ms: u32,
}

/// OTP's strategies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The one that died.
    OneForOne,
    /// It, and those of the group that need it, directly or not.
    RestForOne,
    /// All of the group.
    OneForAll,
}

/// OTP's restart types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// Always.
    Permanent,
    /// After a fault, not after an exit with code 0.
    Transient,
    /// Never.
    Temporary,
}
