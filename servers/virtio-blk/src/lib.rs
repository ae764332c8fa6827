//! `virtio-blk`: a virtio block device, driven from user space over PCI or memory-mapped registers.
//!
//! Requests come through each session's shared-memory ring (`skink_protocols::block`), go to the
//! device through a split virtqueue of up to 256 entries with many requests in flight, and come
//! back by interrupt. Data moves between the disk and the client's memory without a copy. After a
//! death at any instruction the next instance sets up everything from scratch: the driver keeps
//! no state that outlives it, the clients submit again what was not completed.
//!
//! * [`transport`]: what a way to the device must offer. [`pci`] (its registers found by
//!   [`layout`]) and [`mmio`] offer it; [`connect`] picks one by what was granted.
//! * [`access`]: the traits behind which all memory lies that somebody else changes.
//! * [`device`]: reset, feature negotiation, queue set-up (virtio 1.2 §3.1), over any transport.
//! * [`interrupts`]: which interrupt announces what, and when it is acknowledged.
//! * [`queue`]: the split virtqueue (virtio 1.2 §2.7), and its barriers.
//! * [`disk`]: block requests: validated, split, put into the queue, completed.
//! * [`error`]: what makes the driver give up.
//! * [`server`]: sessions, their rings, and the turns that move requests and completions.
//!
//! | granted | interface | interrupts |
//! |---|---|---|
//! | PCI function with MSI-X vectors | modern (also of a transitional device) | one for the configuration, one for the queue; or one for both |
//! | PCI function with a line (INTx) | the same | one, level; causes in the ISR status |
//! | virtio-mmio, version 2 | modern | one, edge or level; causes in `InterruptStatus` |
//! | virtio-mmio, version 1 (QEMU's default) | legacy | the same |
//!
//! Invariants:
//! * Nothing that a client says makes the device touch memory outside the client's data area.
//! * Nothing that the device says makes the driver touch memory outside its own, complete a
//!   request that is not in flight, or report success without a valid status: it is a
//!   [`DeviceError`], the instance ends, and the supervisor resets the device.
//! * A slot's descriptors, header and status belong to the device from their publication until
//!   their used element was taken, and are not written meanwhile.
//! * What the device must see before a register or an index is behind a barrier that devices
//!   observe; the tests' fake device refuses work that is not.
//!
//! **Service.** Needs: the root server, and for a PCI function the `pci` server's report before
//! its first start. Is granted: one device, which is either a function's BARs (without the MSI-X
//! table) with a copy of its configuration space, or exactly the registers of a virtio-mmio
//! device; its interrupts (two vectors, or one line); 16 KiB of DMA memory, the shared regions of
//! its sessions with their addresses, the log. The device takes part in cache coherence. Without
//! an IOMMU the driver can make it write anywhere: it is part of the trusted base. When it dies:
//! the root server silences and resets the device; the next instance starts it again; clients see
//! a new epoch in their rings and submit again what was not completed. When it is given up:
//! clients get `ServiceUnavailable`. Without a device (none granted, or an empty virtio-mmio
//! place) it answers `NoDevice`.
//!
//! Why not the crate `virtio-drivers`: its block queue has 16 entries, it knows no MSI-X, and it
//! waits for each request; here 85 requests are in flight and interrupts say what happened.
//!
//! Not here: indirect descriptors and packed rings (three descriptors a request in a split ring
//! are enough for 85 requests), legacy PCI functions (I/O ports), discard, several queues,
//! partitions.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod access;
pub mod connect;
pub mod device;
pub mod disk;
pub mod error;
pub mod interrupts;
pub mod layout;
pub mod mmio;
pub mod pci;
pub mod queue;
pub mod server;
pub mod transport;

#[cfg(test)]
mod tests;

pub use access::{Clock, DmaMemory, Registers};
pub use disk::{DataArea, Disk, Submitted};
pub use error::DeviceError;
pub use server::{Driver, Session};
