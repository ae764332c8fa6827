//! Start-up: from the boot info to every server's lasting resources. Done once, in the order of
//! the manifest; what cannot be had for one server is said and fails that server alone.

use libipc::cap::{self, Cap};
use skink_abi::bootinfo::{BootInfo, MAGIC, VERSION, slot as boot};
use skink_abi::{Badge, CapRights, ObjectType, PAGE_SIZE, Slot};

use super::dispatch::{self, Sender};
use super::{Doorbell, Facts, ROOT_PRIORITY, Session, System, lasting};
use crate::custody::untyped::MAX_NODES;
use crate::custody::{CustodyError, Frames, Owner, Placement, SMALL_BITS};
use crate::image::{BootImage, FileError, read_manifest};
use crate::kernel::{Kernel, RootCaps};
use crate::say;
use crate::window::Memory;
use libipc::events::SIGNAL;
use libipc::start::event;

/// Why the system cannot start at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The boot info is of another build.
    BootInfo,
    /// The boot image.
    Image(FileError),
    /// Its manifest.
    Manifest(FileError),
    /// The image is for no machine that is known.
    Machine,
    /// Resources of the root server itself.
    Custody(CustodyError),
}

impl From<CustodyError> for SetupError {
    fn from(error: CustodyError) -> Self {
        SetupError::Custody(error)
    }
}
impl From<libipc::SysError> for SetupError {
    fn from(error: libipc::SysError) -> Self {
        SetupError::Custody(CustodyError::Kernel(error))
    }
}

impl core::fmt::Display for SetupError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            SetupError::BootInfo => f.write_str("kernel and root server are of different builds"),
            SetupError::Image(error) => error.fmt(f),
            SetupError::Manifest(error) => write!(f, "the manifest cannot be read: {error}"),
            SetupError::Machine => f.write_str("the boot image is for an unknown machine"),
            SetupError::Custody(error) => write!(f, "setting up: {error}"),
        }
    }
}

impl System {
    /// Sets everything up; starts nothing yet.
    ///
    /// # Errors
    /// Without this, nothing can run.
    #[inline(never)]
    pub fn set_up(&mut self, info: &'static BootInfo) -> Result<(), SetupError> {
        if info.magic != MAGIC || info.version != VERSION {
            return Err(SetupError::BootInfo);
        }
        self.take_memory(info)?;
        self.caps = RootCaps::make(&mut self.custody, info.cnode_bits as u8)?;
        self.window.prepare(&mut self.custody)?;
        // SAFETY: the kernel maps the boot image read-only for the root task's whole life.
        let bytes = unsafe { Memory::constant(info.boot_image_vaddr, info.boot_image_size) };
        let image = BootImage::new(bytes).map_err(SetupError::Image)?;
        image.machine().ok_or(SetupError::Machine)?;
        let manifest = image.file("", "manifest").map_err(SetupError::Manifest)?;
        read_manifest(manifest, &mut self.manifest).map_err(SetupError::Manifest)?;
        self.supervisor.load(&self.manifest);
        self.own_objects(info, image)?;
        for index in 0..self.manifest.servers.len() as u8 {
            self.lasting_resources(index)?;
        }
        self.edges();
        self.set_up_slots()?;
        self.find_hardware(info);
        Ok(())
    }

    fn take_memory(&mut self, info: &BootInfo) -> Result<(), CustodyError> {
        self.custody.slots.manage(info.first_empty_slot..1 << info.cnode_bits);
        let nodes = self.custody.take_slots(MAX_NODES as u64)?;
        self.custody.untyped.set_slots(nodes);
        let list = info.untyped_list.iter().take(info.untyped.count as usize);
        for (i, untyped) in list.enumerate() {
            let slot = info.untyped.first_slot + i as u64;
            let is_device = untyped.is_device != 0;
            self.custody.untyped.add_root(slot, untyped.paddr, untyped.size_bits, is_device);
        }
        Ok(())
    }

    /// Endpoint, reply, notification, timer.
    fn own_objects(&mut self, info: &BootInfo, image: BootImage) -> Result<(), SetupError> {
        let kernel = &mut Kernel;
        let endpoint = self.custody.object(kernel, ObjectType::Endpoint)?;
        let reply = self.custody.object(kernel, ObjectType::Reply)?;
        let notification = self.custody.object(kernel, ObjectType::Notification)?;
        let timer = self.custody.object(kernel, ObjectType::Timer)?;
        let badged = self.custody.take_slots(1)?;
        self.mint(badged, notification, CapRights::all(), SIGNAL | dispatch::TIMER_BIT)?;
        let tcb = Cap::<cap::Tcb>::from_slot(boot::TCB);
        tcb.bind_notification(Cap::from_slot(notification))?;
        Cap::<cap::Timer>::from_slot(timer).set_notification(Some(Cap::from_slot(badged)))?;
        tcb.set_priority(tcb, ROOT_PRIORITY)?;
        let image_frames = Frames {
            first: info.boot_image.first_slot,
            count: info.boot_image.count,
            size_bits: SMALL_BITS,
            paddr: 0,
        };
        self.facts = Some(Facts {
            counter_hz: info.counter_hz,
            counter_base: info.counter_base,
            ram_bytes: info.ram_bytes,
            image,
            image_frames,
            endpoint,
            reply,
            timer,
            copy_slot: self.custody.take_slots(1)?,
        });
        Ok(())
    }

    /// Puts a badged copy of root slot `from` into root slot `to`.
    pub fn mint(
        &self,
        to: Slot,
        from: Slot,
        rights: CapRights,
        badge: u64,
    ) -> Result<(), libipc::SysError> {
        self.caps.slot(to).mint(self.caps.slot(from), rights, Badge(badge))
    }

    fn lasting_resources(&mut self, index: u8) -> Result<(), SetupError> {
        let kernel = &mut Kernel;
        let slots = self.custody.take_slots(lasting::COUNT)?;
        let endpoint = self.custody.object(kernel, ObjectType::Endpoint)?;
        let owner = Owner::Server(index);
        let page = PAGE_SIZE as u64;
        let control_frame = self.custody.frames(kernel, owner, page, Placement::Scattered)?;
        let control = self.window.map_ram(&mut self.custody, &control_frame)?;
        self.mint_lasting(index, slots, endpoint)?;
        let server = &mut self.servers[usize::from(index)];
        server.slots = slots;
        server.endpoint = endpoint;
        server.control_frame = control_frame;
        server.control = control;
        Ok(())
    }

    /// What a server's instances, and its clients once it is given up, are lent.
    pub(super) fn mint_lasting(
        &self,
        index: u8,
        slots: Slot,
        endpoint: Slot,
    ) -> Result<(), libipc::SysError> {
        let root = self.facts.map_or(0, |facts| facts.endpoint);
        let unavailable = Sender::Unavailable(index).badge(0);
        self.mint(slots + lasting::UNAVAILABLE, root, CapRights::all(), unavailable)?;
        // With a badge of its own each has children of its own, which are revoked alone.
        self.mint(slots + lasting::LOG, boot::LOG, CapRights::all(), u64::from(index) + 1)?;
        self.mint(slots + lasting::RECEIVE, endpoint, CapRights::all(), lasting::RECEIVER)
    }

    /// Sessions of all edges. An edge that cannot be had fails its client alone.
    fn edges(&mut self) {
        for edge in 0..self.manifest.edges.len() as u8 {
            for index in 0..self.manifest.edges[usize::from(edge)].sessions {
                if let Err(error) = self.add_session(edge, index) {
                    let edge = &self.manifest.edges[usize::from(edge)];
                    let client = &self.manifest.servers[usize::from(edge.client)].name;
                    say!("{client}: session {index} of `{}`: {error}", edge.name);
                    self.servers[usize::from(edge.client)].is_broken = true;
                }
            }
        }
    }

    /// One session: shared memory, badge, doorbell bits.
    fn add_session(&mut self, edge_index: u8, index: u8) -> Result<(), CustodyError> {
        if self.sessions.is_full() {
            return Err(CustodyError::TooManySessions);
        }
        let edge = &self.manifest.edges[usize::from(edge_index)];
        let (client, server) = (usize::from(edge.client), usize::from(edge.server));
        let (bytes, dma) = (u64::from(edge.shared_bytes), edge.dma);
        let place = match dma {
            true => Placement::Contiguous,
            false => Placement::Scattered,
        };
        let owner = Owner::Edge(edge_index);
        let shared = match bytes {
            0 => Frames::NONE,
            _ => self.custody.frames(&mut Kernel, owner, bytes, place)?,
        };
        let first = self.custody.take_slots(3)?;
        let (cap, client_bell, server_bell) = (first, first + 1, first + 2);
        let badge = session_badge(edge_index, index);
        self.mint(cap, self.servers[server].endpoint, CapRights::all(), badge)?;
        let session = Session {
            edge: edge_index,
            index,
            cap,
            badge,
            shared,
            client_bell: self.servers[client].next_doorbell(client_bell),
            server_bell: self.servers[server].next_doorbell(server_bell),
            client_slot: 0,
        };
        let kept = self.sessions.push(session);
        kept.map_err(|_| CustodyError::TooManySessions)
    }
}

/// The badge of a session: what its server knows it by, whichever instance the client is.
pub(super) const fn session_badge(edge: u8, index: u8) -> u64 {
    (edge as u64 + 1) << 16 | (index as u64) << 8 | 1
}

impl super::Server {
    /// A doorbell that signals the next of 40 bits; beyond that they are shared, and a doorbell means
    /// "look at all that have this bit". Its capability is kept in this slot.
    fn next_doorbell(&mut self, cap: Slot) -> Doorbell {
        const BITS: u8 = 40;
        let bit = event::DOORBELL_FIRST as u8 + self.doorbells % BITS;
        self.doorbells = self.doorbells.wrapping_add(1);
        Doorbell { cap, held: 0, bit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_manifest::MAX_EDGES;

    #[test]
    fn sessions_have_badges_of_their_own_and_none_is_a_signals() {
        let mut seen = std::collections::BTreeSet::new();
        for edge in 0..MAX_EDGES as u8 {
            for index in 0..=u8::MAX {
                let badge = session_badge(edge, index);
                assert!(seen.insert(badge), "edge {edge}, session {index}");
                assert_eq!(badge & SIGNAL, 0);
            }
        }
    }
}
