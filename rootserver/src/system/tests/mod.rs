//! The whole root server on the host, from the boot info to the death of what it started: on a kernel
//! that agrees to everything and remembers it.
//!
//! There are a driver `disk`, a file server `files` that uses it, a `shell` with control over all, and
//! a slot for programs.

pub(in crate::system) mod machine;

mod deaths;
mod messages;
mod programs;
mod starts;
mod told;

use super::*;
use crate::kernel::kit_cptr;
use crate::loader::tests::file as program;
use crate::supervise::Cause;
use crate::supervise::tests::server;
use libipc::arch::with_kernel;
use machine::Machine;
use skink_abi::bootimage::{self, ARCH_X86_64, File, HEADER_SIZE, NAME_SIZE};
use skink_abi::bootinfo::slot as boot;
use skink_abi::bootinfo::{BootInfo, MAGIC, MAX_UNTYPED, SlotRange, UntypedDesc, VERSION};
use skink_manifest::{Edge, Privileges, Restart, Server as Described};
use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec as StdVec;

pub(in crate::system) const DISK: ServerId = ServerId(0);
pub(in crate::system) const FILES: ServerId = ServerId(1);
pub(in crate::system) const SHELL: ServerId = ServerId(2);
pub(in crate::system) const SLOT: ServerId = ServerId(3);
/// Bytes of address space for what the root server maps.
const WINDOW: usize = 64 << 20;
const RAM_BITS: u8 = 27;

pub(in crate::system) struct World {
    pub system: Box<System>,
    machine: Rc<RefCell<Machine>>,
}

fn described() -> [Described; 4] {
    let with = |name, change: fn(&mut Described)| {
        let mut described = server(name, Restart::Permanent);
        change(&mut described);
        described
    };
    [
        with("disk", |disk| {
            (disk.priority, disk.heap_bytes, disk.dma_bytes) = (190, 8192, 8192);
            (disk.extra_threads, disk.budget_us, disk.period_us) = (2, 300, 3000);
            (disk.fpu, disk.heartbeat_ms) = (true, 100);
        }),
        with("files", |files| {
            (files.priority, files.survivor_bytes, files.replies) = (150, 8192, 3);
            (files.heartbeat_ms, files.privileges.boot_image) = (100, true);
        }),
        with("shell", |shell| {
            shell.privileges = Privileges { log: true, control: true, ..Default::default() };
        }),
        with("p0", |slot| (slot.is_slot, slot.restart) = (true, Restart::Temporary)),
    ]
}

fn edge(name: &str, protocol: &str, [client, server]: [ServerId; 2], shared_bytes: u32) -> Edge {
    Edge {
        name: name.try_into().unwrap(),
        client: client.0,
        server: server.0,
        protocol: protocol.try_into().unwrap(),
        sessions: 1,
        shared_bytes,
        dma: false,
        grant: Default::default(),
        may_complain: false,
    }
}

fn manifest() -> Manifest {
    let mut manifest = crate::image::NO_MANIFEST;
    manifest.version = skink_manifest::VERSION;
    manifest.target = "host".try_into().unwrap();
    manifest.experiment = None;
    manifest.servers.extend(described());
    let edges = [
        Edge { dma: true, may_complain: true, ..edge("block", "block", [FILES, DISK], 16384) },
        Edge { sessions: 2, ..edge("files", "file", [SHELL, FILES], 4096) },
        edge("files", "file", [SLOT, FILES], 8192),
        edge("output", "output", [SLOT, SHELL], 4096),
    ];
    manifest.edges.extend(edges);
    manifest
}

/// A boot image with this manifest and a program for each server.
fn image(manifest: &Manifest) -> &'static [u8] {
    let mut encoded = std::vec![0; 1 << 16];
    let encoded = postcard::to_slice(manifest, &mut encoded).unwrap().to_vec();
    let mut files = std::vec![("manifest".into(), encoded)];
    let servers = manifest.servers.iter().filter(|server| !server.is_slot);
    files.extend(servers.map(|server| (std::format!("server/{}", server.binary), program())));
    let mut bytes = std::vec![0; HEADER_SIZE];
    let mut offset = HEADER_SIZE + files.len() * bootimage::FILE_SIZE;
    for (name, data) in &files {
        let mut entry = File {
            name: [0; NAME_SIZE],
            offset: offset as u64,
            size: data.len() as u64,
            checksum: bootimage::checksum(data),
        };
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        bytes.extend(entry.to_bytes());
        offset += data.len();
    }
    let header = bootimage::Header {
        arch: ARCH_X86_64,
        total_size: offset as u64,
        entry: 0,
        segment_count: 0,
        file_count: files.len() as u32,
        checksum: 0,
    };
    bytes[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    files.iter().for_each(|(_, data)| bytes.extend(data));
    bytes.leak()
}

fn boot_info(image: &'static [u8]) -> &'static BootInfo {
    let mut untyped_list = [UntypedDesc::default(); MAX_UNTYPED];
    untyped_list[0] = UntypedDesc { paddr: 1 << 30, size_bits: RAM_BITS, ..Default::default() };
    Box::leak(Box::new(BootInfo {
        magic: MAGIC,
        version: VERSION,
        cnode_bits: 18,
        first_empty_slot: 300,
        ipc_buffer: 0,
        counter_hz: 0,
        counter_base: 7,
        is_debug: 0,
        firmware_table: 0,
        firmware_table_size: 0,
        boot_image_paddr: 0,
        boot_image_size: image.len() as u64,
        boot_image_vaddr: image.as_ptr() as u64,
        boot_image: SlotRange { first_slot: 100, count: 2 },
        root_image: SlotRange::default(),
        root_tables: SlotRange::default(),
        ram_bytes: 1 << RAM_BITS,
        untyped: SlotRange { first_slot: 200, count: 1 },
        untyped_list,
    }))
}

/// Runs `test` with a system of this manifest that was set up, and nothing started.
fn set_up(manifest: fn() -> Manifest, test: impl FnOnce(World) + Send + 'static) {
    let run = move || {
        let machine = Rc::new(RefCell::new(Machine::default()));
        let kernel = machine.clone();
        with_kernel(
            move |trap| kernel.borrow_mut().answer(trap),
            || {
                let mut system = Box::new(System::EMPTY);
                // Zeroed memory that is not touched is none.
                let window = std::vec![0u8; WINDOW];
                system.window = Window::of_test(&window);
                system.set_up(boot_info(image(&manifest()))).unwrap();
                test(World { system, machine });
                drop(window);
            },
        );
    };
    // All state of the root server is made on the stack first.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap();
    if let Err(cause) = thread.join() {
        std::panic::resume_unwind(cause);
    }
}

/// Runs `test` with a system that has started all servers.
pub(in crate::system) fn booted(test: impl FnOnce(World) + Send + 'static) {
    set_up(manifest, move |mut world| {
        world.system.event(Event::Boot);
        test(world);
    });
}

impl World {
    /// What the kernel was asked since the last look.
    pub(in crate::system) fn asked(&self) -> StdVec<machine::Asked> {
        core::mem::take(&mut self.machine.borrow_mut().asked)
    }

    /// What the root server said since the last look, without its own name.
    pub(in crate::system) fn said(&self) -> std::string::String {
        core::mem::take(&mut self.machine.borrow_mut().log)
    }

    /// Which capabilities were signalled since the last look.
    pub(in crate::system) fn signalled(&self) -> StdVec<u64> {
        core::mem::take(&mut self.machine.borrow_mut().signalled)
    }

    pub(in crate::system) fn page(&self, server: ServerId) -> &'static Control {
        self.system.servers[server.index()].control().unwrap()
    }

    /// What the kernel answers when it is asked for its statistics.
    pub(in crate::system) fn set_statistics(&self, words: [u64; 4]) {
        self.machine.borrow_mut().statistics = words;
    }
}
