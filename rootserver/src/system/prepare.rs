//! What an instance of a server is made of, found out once: its image is checked and relocated
//! into the pristine copy, its memory taken, its plan made, its grants and start info listed.

use core::ops::Range;

use heapless::String;
use libipc::start::{DeviceGrant, Region, StartInfo, ThreadKit, slot};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, PAGE_SIZE};

use super::grants::{CALL, From, Grant, RECEIVE};
use super::{StartError, StartInfoPage, System, ThreadPlace, lasting};
use crate::custody::{Frames, Owner, Placement, SMALL_BITS};
use crate::image::FileError;
use crate::kernel::{Kernel, zero_guard};
use crate::loader::{Machine, Program};
use crate::plan::{IMAGE_BASE, Plan, Source, kit};

const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;
/// Bytes of an encoded start info at most.
const INFO_BYTES: usize = 4 * PAGE_SIZE;

/// What is put together on the way.
pub(super) struct Draft {
    /// Of which server.
    pub index: u8,
    /// What is mapped where.
    pub plan: Plan,
    /// What the instance is told.
    pub info: StartInfo,
    next_slot: u64,
    /// Bit of the next interrupt.
    pub next_bit: u8,
}

impl Draft {
    /// Of this server, with nothing in it.
    pub fn new(index: u8) -> Draft {
        let (plan, info) = (Plan::EMPTY, empty_info());
        Draft { index, plan, info, next_slot: slot::FIRST_GRANT, next_bit: 0 }
    }

    /// The next slot of the instance's CSpace.
    pub fn take_slot(&mut self) -> u64 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    /// Plans frames of custody's; returns where they are for the instance.
    pub fn granted(&mut self, frames: &Frames, rights: u64) -> Result<Region, StartError> {
        let vaddr = self.plan.add_granted(frames, rights, MemoryType::Normal)?;
        Ok(Region { vaddr, size: frames.bytes(), paddr: frames.paddr })
    }
}

impl System {
    /// Prepares server `index`: everything up to, but without, building an instance.
    ///
    /// # Errors
    /// Why it can never be started.
    pub fn prepare(&mut self, index: u8) -> Result<(), StartError> {
        let i = usize::from(index);
        if self.servers[i].is_prepared {
            return Ok(());
        }
        if self.servers[i].is_broken {
            return Err(StartError::TriedBefore);
        }
        let prepared = self.prepare_anew(index);
        self.servers[i].is_broken = prepared.is_err();
        prepared
    }

    /// Kept apart, so that the large draft is on the stack only while it is needed.
    #[inline(never)]
    fn prepare_anew(&mut self, index: u8) -> Result<(), StartError> {
        let mut draft = Draft::new(index);
        self.load_image(&mut draft)?;
        self.facts_of(&mut draft)?;
        self.threads(&mut draft)?;
        self.memory(&mut draft)?;
        self.fixed_grants(&draft)?;
        self.sessions_of(&mut draft)?;
        self.hardware(&mut draft)?;
        self.finish(&mut draft)
    }

    /// Adds a grant to a server's list.
    pub(super) fn grant(
        &mut self,
        index: u8,
        slot: u64,
        from: From,
        rights: CapRights,
    ) -> Result<(), StartError> {
        let grant = Grant { slot, from, rights, guard: 0 };
        let grants = &mut self.servers[usize::from(index)].grants;
        grants.push(grant).map_err(|_| StartError::TooManyGrants)
    }

    /// Takes the program from the boot image, or what was just loaded.
    fn load_image(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let server = &self.manifest.servers[usize::from(draft.index)];
        if server.is_slot {
            let (memory, size) = self.loaded().ok_or(FileError::Missing)?;
            return memory.with_slice(|file| self.load_file(draft, &file[..size]));
        }
        let image = self.facts.map(|f| f.image).ok_or(FileError::Missing)?;
        self.load_file(draft, image.file("server/", &server.binary)?)
    }

    /// Checks the program, relocates it into the pristine copy, and plans its pages.
    fn load_file(&mut self, draft: &mut Draft, file: &[u8]) -> Result<(), StartError> {
        let i = usize::from(draft.index);
        let machine = self.facts.and_then(|f| f.image.machine()).unwrap_or(Machine::X86_64);
        let program = Program::parse(file, machine)?;
        let bytes = program.pristine_pages() * PAGE_SIZE as u64;
        let owner = self.owner_of(draft.index);
        let frames = self.custody.small_frames(&mut Kernel, owner, bytes)?;
        self.note_frames(draft.index, frames);
        let pristine = self.show(draft.index, &frames)?;
        pristine.with_slice(|memory| {
            program.write_pages(IMAGE_BASE, memory)?;
            // The pages with code are executed where they are, through other mappings.
            libipc::arch::sync_instructions(memory);
            Ok::<(), crate::loader::ElfError>(())
        })?;
        // From here on nobody can write it, the root server included.
        pristine.protect(&frames)?;
        draft.plan.add_image(program.pages(), frames.first)?;
        let server = &mut self.servers[i];
        server.pristine = pristine;
        server.entry = program.entry();
        Ok(())
    }

    fn facts_of(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let server = &self.manifest.servers[usize::from(draft.index)];
        draft.info.name = server.name.clone();
        draft.info.args = server.args.clone();
        draft.info.has_log = server.privileges.log;
        if let Some(facts) = &self.facts {
            draft.info.counter_hz = facts.counter_hz;
            draft.info.counter_base = facts.counter_base;
        }
        Ok(())
    }

    /// Stacks, IPC buffers, thread kits.
    fn threads(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let i = usize::from(draft.index);
        let server = &self.manifest.servers[i];
        let stack_bytes = u64::from(server.stack_bytes).next_multiple_of(PAGE_SIZE as u64);
        let count = usize::from(server.extra_threads) + 1;
        self.servers[i].threads.clear();
        for thread in 0..count {
            let stack = draft.plan.add_own(stack_bytes)?;
            let ipc_buffer = draft.plan.add_own(PAGE_SIZE as u64)?;
            let stack_top = stack + stack_bytes;
            let place = ThreadPlace {
                stack_top,
                ipc_buffer,
                buffer_frame: 0,
                stack_frame: 0,
                stack_frames: stack_bytes >> SMALL_BITS,
            };
            let kept = self.servers[i].threads.push(place);
            kept.map_err(|_| StartError::TooManyGrants)?;
            if thread == 0 {
                draft.info.ipc_buffer = ipc_buffer;
                continue;
            }
            let (tcb, notification, timer) =
                (draft.take_slot(), draft.take_slot(), draft.take_slot());
            let n = thread as u64;
            self.grant(draft.index, tcb, From::Kit(kit::TCBS + n), CapRights::all())?;
            let from = From::Kit(kit::NOTIFICATIONS + n);
            self.grant(draft.index, notification, from, CapRights::all())?;
            self.grant(draft.index, timer, From::Kit(kit::TIMERS + n), CapRights::all())?;
            let new = ThreadKit { tcb, stack_top, ipc_buffer, notification, timer };
            draft.info.threads.push(new).map_err(|_| StartError::TooManyGrants)?;
        }
        Ok(())
    }

    /// Heap, control page, survivor region, DMA memory, boot image.
    fn memory(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let i = usize::from(draft.index);
        let manifest = &self.manifest.servers[i];
        let (heap, owner) = (u64::from(manifest.heap_bytes), self.owner_of(draft.index));
        let (survivor, dma) = (manifest.survivor_bytes, manifest.dma_bytes);
        let wants_image = manifest.privileges.boot_image;
        let heap = heap.next_multiple_of(PAGE_SIZE as u64);
        let vaddr = draft.plan.add_heap(heap)?;
        draft.info.heap = Region { vaddr, size: heap, paddr: 0 };
        let control = self.servers[i].control_frame;
        draft.info.control = draft.granted(&control, READ_WRITE)?;
        if survivor > 0 {
            let bytes = u64::from(survivor);
            let frames = self.custody.frames(&mut Kernel, owner, bytes, Placement::Scattered)?;
            self.note_frames(draft.index, frames);
            self.servers[i].survivor = frames;
            draft.info.survivor = draft.granted(&frames, READ_WRITE)?;
        }
        if dma > 0 {
            let frames =
                self.custody.frames(&mut Kernel, owner, dma.into(), Placement::Contiguous)?;
            self.servers[i].dma = frames;
            draft.info.dma = draft.granted(&frames, READ_WRITE)?;
        }
        if let Some(facts) = self.facts.filter(|_| wants_image) {
            draft.info.boot_image = draft.granted(&facts.image_frames, map_rights::READ)?;
        }
        Ok(())
    }

    /// The slots that every server has at the same places.
    pub(super) fn fixed_grants(&mut self, draft: &Draft) -> Result<(), StartError> {
        let (index, i) = (draft.index, usize::from(draft.index));
        let lasting = self.servers[i].slots;
        let has_log = self.manifest.servers[i].privileges.log;
        let all = CapRights::all();
        self.grant(index, slot::TCB.0, From::Kit(kit::TCBS), all)?;
        // The guard is filled in when the plan is finished: see `finish`.
        self.grant(index, slot::CNODE.0, From::Kit(kit::CSPACE), all)?;
        self.grant(index, slot::SUPERVISOR.0, From::Kit(kit::SUPERVISOR), CALL)?;
        let endpoint = From::Lent(lasting + lasting::RECEIVE);
        self.grant(index, slot::ENDPOINT.0, endpoint, RECEIVE)?;
        let notification = From::Kit(kit::NOTIFICATIONS);
        self.grant(index, slot::NOTIFICATION.0, notification, RECEIVE)?;
        self.grant(index, slot::TIMER.0, From::Kit(kit::TIMERS), all)?;
        if has_log {
            self.grant(index, slot::LOG.0, From::Lent(lasting + lasting::LOG), all)?;
        }
        Ok(())
    }

    fn finish(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let i = usize::from(draft.index);
        let manifest = &self.manifest.servers[i];
        let (replies, quota) = (u64::from(manifest.replies.clamp(1, 16)), manifest.quota_bytes);
        let first_reply = draft.next_slot;
        draft.next_slot += replies;
        for n in 0..replies {
            let _ = draft.info.replies.push(first_reply + n);
        }
        let threads = self.servers[i].threads.len() as u64;
        let page = self.write_info(draft)?;
        // Slots beyond those granted are the server's own, for capabilities that it receives.
        draft.plan.finish(threads, replies, draft.next_slot + 32, quota)?;
        let bits = quota.checked_ilog2().unwrap_or(0) as u8;
        let owner = Owner::Quota(draft.index);
        let block = self.custody.untyped.take(&mut Kernel, owner, bits)?;
        let server = &mut self.servers[i];
        server.quota = Some(block);
        server.replies = (first_reply, replies);
        server.info = page;
        let guard = zero_guard(64 - draft.plan.cspace_radix);
        for grant in server.grants.iter_mut().filter(|g| g.slot == slot::CNODE.0) {
            grant.guard = guard;
        }
        find_frames(&draft.plan, &mut server.threads);
        core::mem::swap(&mut server.plan, &mut draft.plan);
        server.is_prepared = true;
        Ok(())
    }

    /// Encodes the start info into pages of its own, and plans their place.
    fn write_info(&mut self, draft: &mut Draft) -> Result<StartInfoPage, StartError> {
        let owner = self.owner_of(draft.index);
        let frames = self.custody.small_frames(&mut Kernel, owner, INFO_BYTES as u64)?;
        self.note_frames(draft.index, frames);
        let memory = self.show(draft.index, &frames)?;
        let info = &draft.info;
        let encoded = memory.with_slice(|bytes| {
            let head = postcard::to_slice(&(&info.name, &info.args), bytes).map(|b| b.len())?;
            let all = postcard::to_slice(info, bytes).map(|b| b.len())?;
            Ok::<_, postcard::Error>((head, all))
        });
        let (head, all) = encoded.map_err(|_| StartError::TooManyGrants)?;
        // Mapped are the pages in use only; an incarnation takes 5 bytes at most.
        let used = Frames { count: ((all + 4) as u64).div_ceil(PAGE_SIZE as u64), ..frames };
        let (rights, memory_type) = (map_rights::READ, MemoryType::Normal);
        let vaddr = draft.plan.add_granted(&used, rights, memory_type)?;
        // The incarnation follows the name and the arguments; 0 takes one byte.
        Ok(StartInfoPage { memory, vaddr, head, number: 1, tail: all - head - 1 })
    }
}

/// Finds the kit slots of the frames that the root server itself must name: IPC buffers, and
/// stacks for backtraces.
fn find_frames(plan: &Plan, threads: &mut [ThreadPlace]) {
    let mut next = plan.small_slot;
    for mapping in &plan.mappings {
        if mapping.source != Source::Own || mapping.size_bits != SMALL_BITS {
            continue;
        }
        let range: Range<u64> =
            mapping.vaddr..mapping.vaddr + (u64::from(mapping.count) << SMALL_BITS);
        for thread in threads.iter_mut() {
            if range.contains(&thread.ipc_buffer) {
                thread.buffer_frame = next;
            }
            if range.end == thread.stack_top {
                thread.stack_frame = next + u64::from(mapping.count) - 1;
            }
        }
        next += u64::from(mapping.count);
    }
}

fn empty_info() -> StartInfo {
    StartInfo {
        name: String::new(),
        args: String::new(),
        incarnation: 0,
        counter_hz: 0,
        counter_base: 0,
        heap: Region::default(),
        control: Region::default(),
        survivor: Region::default(),
        dma: Region::default(),
        boot_image: Region::default(),
        ipc_buffer: 0,
        replies: heapless::Vec::new(),
        threads: heapless::Vec::new(),
        outgoing: heapless::Vec::new(),
        incoming: heapless::Vec::new(),
        devices: heapless::Vec::new(),
        ports: heapless::Vec::new(),
        lines: heapless::Vec::new(),
        has_log: false,
    }
}

/// An empty device grant, to be filled.
pub fn empty_device() -> DeviceGrant {
    DeviceGrant {
        entry: 0,
        vendor: 0,
        device: 0,
        address: 0,
        config: heapless::Vec::new(),
        bars: [Region::default(); 6],
        vectors: heapless::Vec::new(),
    }
}
