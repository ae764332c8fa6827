//! What the root server tells a new instance of a server: [`StartInfo`], `postcard`-encoded at
//! the address in the first argument register, its length in the second.
//!
//! Fixed capability slots are in [`slot`]; everything else that the instance holds is listed in
//! the start info, and nothing is held that is not listed. The bits of the server's own
//! notification are laid out in [`event`].

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};
pub use skink_manifest::{Access, Channel, Folder, SessionGrant};

/// Fixed slots of a server's CSpace (a `CPtr` is the slot's index).
pub mod slot {
    use skink_abi::CPtr;
    /// The first thread's TCB (with the right to nothing but itself).
    pub const TCB: CPtr = CPtr(1);
    /// The server's own CNode.
    pub const CNODE: CPtr = CPtr(2);
    /// The root server, badged with the instance: `supervisor` protocol, never blocks long.
    pub const SUPERVISOR: CPtr = CPtr(3);
    /// The endpoint that the server receives on. It belongs to the root server and outlives it.
    pub const ENDPOINT: CPtr = CPtr(4);
    /// The server's notification, bound to its first thread; outlives it too.
    pub const NOTIFICATION: CPtr = CPtr(5);
    /// The kernel's log, if the manifest grants it.
    pub const LOG: CPtr = CPtr(6);
    /// A timer that signals [`super::event::TIMER`] in the notification.
    pub const TIMER: CPtr = CPtr(7);
    /// First of the slots that the start info hands out.
    pub const FIRST_GRANT: u64 = 16;
}

/// Bits of the server's notification (the badge that `recv` or `wait` returns).
pub mod event {
    /// Interrupt `i` of the start info's list is bit `i` (0 to 15).
    pub const IRQ_FIRST: u32 = 0;
    /// Doorbell of incoming or outgoing session `i` (its `doorbell_bit`) is bit 16 to 55.
    pub const DOORBELL_FIRST: u32 = 16;
    /// The timer fired.
    pub const TIMER: u64 = 1 << 60;
    /// The list of sessions changed: ask the supervisor (a client died or opened one).
    pub const SESSIONS: u64 = 1 << 61;
    /// The root server wants a heartbeat: bump [`crate::control::Control::heartbeats`].
    pub const HEARTBEAT: u64 = 1 << 62;
}

/// Bytes of address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Address in the server's space.
    pub vaddr: u64,
    /// Bytes.
    pub size: u64,
    /// Physical address where devices may reach it (contiguous), else 0.
    pub paddr: u64,
}

/// Everything that an instance starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartInfo {
    /// The server's name.
    pub name: String<32>,
    /// Words from the manifest.
    pub args: String<96>,
    /// 1 for the first instance; the epoch of its rings.
    pub incarnation: u32,
    /// Frequency of the counter that `time` reads, Hz.
    pub counter_hz: u64,
    /// Counter at 0 ns of the kernel's clock.
    pub counter_base: u64,
    /// The heap, zeroed; size 0 for none.
    pub heap: Region,
    /// The control page ([`crate::control::Control`]); belongs to the root server.
    pub control: Region,
    /// The survivor region; size 0 for none.
    pub survivor: Region,
    /// DMA memory; size 0 for none.
    pub dma: Region,
    /// The boot image, read-only; size 0 if not granted.
    pub boot_image: Region,
    /// IPC buffer of the first thread.
    pub ipc_buffer: u64,
    /// Slots of `Reply` objects.
    pub replies: Vec<u64, 16>,
    /// Threads that wait to be started.
    pub threads: Vec<ThreadKit, 8>,
    /// Sessions in which this server is the client.
    pub outgoing: Vec<OutgoingSession, 32>,
    /// Sessions in which this server is the server.
    pub incoming: Vec<IncomingSession, 32>,
    /// Devices, in the manifest's order.
    pub devices: Vec<DeviceGrant, 4>,
    /// Slots of I/O port ranges, in the manifest's order.
    pub ports: Vec<u64, 8>,
    /// Slots of interrupt handlers of wired lines, in the manifest's order; entry `i` signals
    /// bit `IRQ_FIRST + i`. The vectors of devices follow with the next bits.
    pub lines: Vec<u64, 8>,
    /// [`slot::LOG`] is there.
    pub has_log: bool,
}

/// A thread that the server may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadKit {
    /// Slot of its TCB, configured but for its registers.
    pub tcb: u64,
    /// Initial stack pointer.
    pub stack_top: u64,
    /// Address of its IPC buffer.
    pub ipc_buffer: u64,
    /// Slot of a `Notification` of its own.
    pub notification: u64,
    /// Slot of a `Timer` that signals bit [`event::TIMER`] of that notification.
    pub timer: u64,
}

/// A session as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingSession {
    /// The edge's name in the manifest.
    pub edge: String<32>,
    /// Which of the edge's sessions, from 0.
    pub index: u8,
    /// Slot of the badged endpoint capability.
    pub endpoint: u64,
    /// Slot of a capability to signal the server's notification (this session's bit there).
    pub doorbell: u64,
    /// The bit of this server's own notification that the other side signals.
    pub doorbell_bit: u8,
    /// Memory shared with the server; size 0 for none.
    pub shared: Region,
}

/// A session as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingSession {
    /// The badge of its messages.
    pub badge: u64,
    /// The client's name.
    pub client: String<32>,
    /// The protocol spoken.
    pub protocol: String<32>,
    /// Slot of a capability to signal the client's notification.
    pub doorbell: u64,
    /// The bit of this server's own notification that the client signals.
    pub doorbell_bit: u8,
    /// Memory shared with the client (with its physical address if the edge is for DMA).
    pub shared: Region,
    /// How much of the protocol it is good for at most, as the manifest says. A program from a disk
    /// may have been given less: [`crate::supervisor::SessionState::grant`] says what its session is
    /// good for now.
    pub grant: SessionGrant,
}

/// A device that the server drives: a PCI function, or a device of the device tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceGrant {
    /// Place of its entry among the manifest's `devices` of this server (those that are absent
    /// and optional are left out of the list).
    pub entry: u8,
    /// PCI vendor ID; 0 for a device of the device tree.
    pub vendor: u16,
    /// PCI device ID.
    pub device: u16,
    /// Segment 0 address: bus << 8 | device << 3 | function.
    pub address: u16,
    /// A copy of the function's configuration space, taken by the root server after assignment:
    /// the driver finds its capabilities (virtio 1.2 §4.1.4) here, and cannot write it. Empty for
    /// a device of the device tree.
    pub config: Vec<u8, 256>,
    /// PCI: memory BARs. Device tree: the ranges of `reg`, in its order. Mapped uncached; size 0
    /// where there is none. `paddr` is the bus address; of a device tree's range, `vaddr`, `size`
    /// and `paddr` are exact, though whole pages are mapped.
    pub bars: [Region; 6],
    /// Interrupts. PCI: MSI-X vectors, enabled in the function's table by the root server, in
    /// this order; or, where the machine has no message interrupts, the function's one INTx line.
    /// Device tree: the lines of `interrupts`, in its order.
    pub vectors: Vec<Vector, 8>,
}

impl DeviceGrant {
    /// Whether this is a PCI function.
    pub fn is_pci(&self) -> bool {
        !self.config.is_empty()
    }
}

/// How an interrupt signals, which decides when its driver acknowledges it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// A message or a pulse: acknowledged before the device is looked at, so that one that comes
    /// meanwhile is not lost.
    #[default]
    Edge,
    /// Asserted until the device is served, and masked by the kernel until it is acknowledged:
    /// acknowledged after the device was served, else it comes again at once.
    Level,
}

/// One interrupt. For an MSI-X vector the driver writes `index` where the device wants it
/// (virtio: `queue_msix_vector`); the table itself has been programmed by the root server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector {
    /// Slot of the interrupt handler.
    pub handler: u64,
    /// Index in the MSI-X table; [`Vector::WIRED`] for a line.
    pub index: u16,
    /// The bit of the notification that it signals.
    pub bit: u8,
    /// How it signals.
    pub trigger: Trigger,
}

impl Vector {
    /// [`Vector::index`] of a wired line (the value is virtio's `VIRTIO_MSI_NO_VECTOR`).
    pub const WIRED: u16 = 0xffff;
}
