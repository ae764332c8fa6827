//! The system at work: all state of the root server, and what it does with it.
//!
//! * [`setup`]: from the boot info to every server's lasting resources.
//! * [`prepare`]: what an instance of a server is made of: image, plan, grants, start info;
//!   [`wiring`]: what connects it with others and with devices.
//! * [`instance`]: builds and starts an instance. [`lending`]: what it is lent, and how that ends
//!   with it. [`teardown`]: takes it apart, and records it.
//! * [`firmware`]: what firmware left: ACPI's tables or a device tree.
//! * [`devices`]: who drives what; [`functions`], [`platform`]: devices on PCI and in the device
//!   tree: registers, interrupts, activation, silence.
//! * [`calls`]: which calls a server had when it died.
//! * [`dispatch`]: one message or signal in, one answer out. [`control`]: the protocols;
//!   [`service`], [`capabilities`]: what they tell of one server.
//! * [`slots`]: programs from a disk. [`arming`]: deaths placed by events. [`pulse`]: what tells a server that hangs.
//! * [`quarantine`]: memory that a device may still write.
//!
//! Data flows one way: message → event → [`crate::supervise`] → actions → system calls. Nothing
//! here waits for a server, and nothing that a server says can make it panic.

pub mod arming;
pub mod calls;
pub mod capabilities;
pub mod control;
pub mod devices;
pub mod dispatch;
pub mod firmware;
pub mod functions;
pub mod grants;
pub mod instance;
pub mod lending;
pub mod platform;
pub mod prepare;
pub mod pulse;
pub mod quarantine;
pub mod service;
pub mod setup;
pub mod slots;
pub mod teardown;
pub mod wiring;

use heapless::Vec;
use libipc::control::Control;
use skink_abi::Slot;
use skink_manifest::{Broken, MAX_SERVERS, Manifest, Name};

use crate::crash::Crashes;
use crate::custody::untyped::Block;
use crate::custody::{Custody, CustodyError, Frames};
use crate::image::{BootImage, FileError, NO_MANIFEST};
use crate::kernel::RootCaps;
use crate::loader::ElfError;
use crate::orders::Orders;
use crate::plan::{MAX_THREADS, Plan, PlanError, kit};
use crate::supervise::{Action, Actions, Event, Failure, Seen, ServerId, State, Supervisor};
use crate::window::{Memory, Window};
use arming::{Armed, Doom, Watch};
use devices::Assigned;
use functions::Functions;
use grants::Grant;
use platform::Platform;
use teardown::Detail;

/// Sessions of all edges at most.
pub const MAX_SESSIONS: usize = 128;
/// Grants of one instance at most.
pub const MAX_GRANTS: usize = 192;
/// Priority of the root server's thread, which no server reaches.
pub const ROOT_PRIORITY: u8 = 255;

/// Lasting slots of a server in the root CNode, by offset.
pub mod lasting {
    /// Its instance's kit (the CNode as it was made, without guard).
    pub const KIT: u64 = 0;
    /// The root server's endpoint, for its clients when it was given up.
    pub const UNAVAILABLE: u64 = 1;
    /// Its endpoint with the badge [`RECEIVER`]: what its instances receive by is derived from it.
    pub const RECEIVE: u64 = 2;
    /// The kernel's log with the server's badge, whether its instances are granted it or not.
    pub const LOG: u64 = 3;
    /// How many.
    pub const COUNT: u64 = 4;

    /// The badge of a capability to receive by. No message bears it: such a capability does not
    /// send. With a badge it has children of its own, which can be revoked.
    pub const RECEIVER: u64 = 2;
}

/// An interrupt of a server: it survives the instances.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    /// Slot of the handler.
    pub handler: Slot,
    /// Root slot of the instance's notification, badged with the bit; empty while there is none.
    pub notification: Slot,
    /// The bit.
    pub bit: u8,
}

/// What custody holds for one server for ever, and what its instances are made of.
#[derive(Debug)]
pub struct Server {
    /// First of the [`lasting`] slots.
    pub slots: Slot,
    /// Its endpoint.
    pub endpoint: Slot,
    /// Its control page.
    pub control_frame: Frames,
    /// The same, in the root server's space.
    pub control: Memory,
    /// Memory of the instance.
    pub quota: Option<Block>,
    /// Survivor region.
    pub survivor: Frames,
    /// DMA memory.
    pub dma: Frames,
    /// The image as it must be when an instance starts.
    pub pristine: Memory,
    /// Entry point, from the image's base.
    pub entry: u64,
    /// What is mapped where.
    pub plan: Plan,
    /// What its CSpace holds.
    pub grants: Vec<Grant, MAX_GRANTS>,
    /// Addresses that the threads start with.
    pub threads: Vec<ThreadPlace, MAX_THREADS>,
    /// Slots of its `Reply` objects: first and count.
    pub replies: (Slot, u64),
    /// The start info, encoded, in the root server's space; mapped read-only in instances.
    pub info: StartInfoPage,
    /// Wired lines and message-signalled interrupts.
    pub interrupts: Vec<Interrupt, 16>,
    /// Its devices.
    pub devices: Vec<Assigned, 4>,
    /// They were looked for.
    pub has_devices: bool,
    /// Doorbell bits given out.
    pub doorbells: u8,
    /// An instance is there: the capabilities in its kit may be named. (To invoke one that is not
    /// there is a fault of the root server's own thread.)
    pub is_built: bool,
    /// [`prepare`] was done.
    pub is_prepared: bool,
    /// [`prepare`] failed; it is tried once.
    pub is_broken: bool,
    /// A device did not obey, or there is no memory but what it reaches: no instance starts.
    pub is_quarantined: bool,
    /// Number of its present or last instance.
    pub incarnation: u32,
    /// CPU time of earlier instances.
    pub cpu_ns: u64,
    /// [`Control::loops`] at the last timeout.
    pub loops_at_timeout: u64,
    /// Its own armed death.
    pub armed: Option<Armed>,
    /// Whose death is armed at one of its moments.
    pub watch: Option<Watch>,
    /// The present instance was told to misbehave.
    pub doom: Option<Doom>,
    /// It is a place for programs.
    pub slot: Option<slots::Slot>,
}

/// Where a thread has its stack and IPC buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadPlace {
    /// End of the stack.
    pub stack_top: u64,
    /// IPC buffer.
    pub ipc_buffer: u64,
    /// Kit slot of the frame of the IPC buffer.
    pub buffer_frame: u64,
    /// Kit slot of the uppermost frame of the stack.
    pub stack_frame: u64,
    /// Frames of the stack.
    pub stack_frames: u64,
}

/// The encoded start info: the incarnation alone changes.
#[derive(Clone, Copy, Debug)]
pub struct StartInfoPage {
    /// The memory.
    pub memory: Memory,
    /// Address in the instance.
    pub vaddr: u64,
    /// Bytes before the incarnation.
    pub head: usize,
    /// Bytes of the incarnation.
    pub number: usize,
    /// Bytes behind it.
    pub tail: usize,
}

/// What one end of a session signals the other with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doorbell {
    /// Root slot of the badged notification of the instance that is signalled; empty while there
    /// is none.
    pub cap: Slot,
    /// Slot of its copy in the CSpace of the instance that signals, once that is prepared.
    pub held: u64,
    /// The bit.
    pub bit: u8,
}

/// One session of an edge.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Index of the edge.
    pub edge: u8,
    /// Which of the edge's.
    pub index: u8,
    /// The server's endpoint with the session's badge, all rights.
    pub cap: Slot,
    /// The badge.
    pub badge: u64,
    /// Shared memory.
    pub shared: Frames,
    /// Signals the client's notification; the server's instance holds it.
    pub client_bell: Doorbell,
    /// Signals the server's notification; the client's instance holds it.
    pub server_bell: Doorbell,
    /// Slot of `cap`'s copy in the client's CSpace, once it is prepared.
    pub client_slot: u64,
}

/// What does not change after start-up.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Hz.
    pub counter_hz: u64,
    /// Counter at 0 ns.
    pub counter_base: u64,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// The boot image.
    pub image: BootImage,
    /// Its frames.
    pub image_frames: Frames,
    /// Endpoint, `Reply`, notification (badged), timer of the root server.
    pub endpoint: Slot,
    /// The one `Reply` object.
    pub reply: Slot,
    /// Signals the root server's notification [`dispatch::TIMER_BIT`].
    pub timer: Slot,
    /// An empty slot, for copies that live for a moment.
    pub copy_slot: Slot,
}

/// All state.
#[derive(Debug)]
pub struct System {
    /// Names of capabilities.
    pub caps: RootCaps,
    /// The ledger.
    pub custody: Custody,
    /// The root server's address space.
    pub window: Window,
    /// What runs.
    pub manifest: Manifest,
    /// When it runs.
    pub supervisor: Supervisor,
    /// Each server's resources.
    pub servers: [Server; MAX_SERVERS],
    /// All sessions.
    pub sessions: Vec<Session, MAX_SESSIONS>,
    /// PCI.
    pub functions: Functions,
    /// The device tree's devices.
    pub platform: Platform,
    /// The device tree as it was left in memory; empty where there is none.
    pub device_tree: &'static [u8],
    /// Programs from a disk.
    pub programs: slots::Programs,
    /// Every device that there is was assigned, if anybody wants it.
    pub devices_assigned: bool,
    /// The last deaths.
    pub crashes: Crashes,
    /// The last orders.
    pub orders: Orders,
    /// What is known of the death that is being handled.
    pub death: Detail,
    /// Set at start-up.
    pub facts: Option<Facts>,
}

/// Why a server cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// It was tried before, and failed.
    TriedBefore,
    /// Its file.
    File(FileError),
    /// Its file is no program.
    Elf(ElfError),
    /// It does not fit.
    Plan(PlanError),
    /// Resources.
    Custody(CustodyError),
    /// Its start info or list of grants does not fit.
    TooManyGrants,
    /// The kernel refused while the instance was built.
    Kernel(libipc::SysError),
}

impl From<CustodyError> for StartError {
    fn from(error: CustodyError) -> Self {
        StartError::Custody(error)
    }
}
impl From<PlanError> for StartError {
    fn from(error: PlanError) -> Self {
        StartError::Plan(error)
    }
}
impl From<FileError> for StartError {
    fn from(error: FileError) -> Self {
        StartError::File(error)
    }
}
impl From<ElfError> for StartError {
    fn from(error: ElfError) -> Self {
        StartError::Elf(error)
    }
}
impl From<libipc::SysError> for StartError {
    fn from(error: libipc::SysError) -> Self {
        StartError::Kernel(error)
    }
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StartError::TriedBefore => f.write_str("as before: the reason is in the log"),
            StartError::File(error) => error.fmt(f),
            StartError::Elf(error) => error.fmt(f),
            StartError::Plan(error) => error.fmt(f),
            StartError::Custody(error) => error.fmt(f),
            StartError::TooManyGrants => f.write_str("it is granted more than fits its start info"),
            StartError::Kernel(error) => write!(f, "the kernel refused: {error}"),
        }
    }
}

impl Server {
    const EMPTY: Server = Server {
        slots: 0,
        endpoint: 0,
        control_frame: Frames::NONE,
        control: Memory::EMPTY,
        quota: None,
        survivor: Frames::NONE,
        dma: Frames::NONE,
        pristine: Memory::EMPTY,
        entry: 0,
        plan: Plan::EMPTY,
        grants: Vec::new(),
        threads: Vec::new(),
        replies: (0, 0),
        info: StartInfoPage::NONE,
        interrupts: Vec::new(),
        devices: Vec::new(),
        has_devices: false,
        doorbells: 0,
        is_built: false,
        is_prepared: false,
        is_broken: false,
        is_quarantined: false,
        incarnation: 0,
        cpu_ns: 0,
        loops_at_timeout: 0,
        armed: None,
        watch: None,
        doom: None,
        slot: None,
    };

    /// Its control page.
    pub fn control(&self) -> Option<&'static Control> {
        self.control.control()
    }
}

impl System {
    /// Before [`setup`]. All bytes are zero, so that it takes no space in the boot image.
    pub const EMPTY: System = System {
        caps: RootCaps::EMPTY,
        custody: Custody::EMPTY,
        window: Window::EMPTY,
        manifest: NO_MANIFEST,
        supervisor: Supervisor::EMPTY,
        servers: [const { Server::EMPTY }; MAX_SERVERS],
        sessions: Vec::new(),
        functions: Functions::EMPTY,
        platform: Platform::EMPTY,
        device_tree: &[],
        programs: slots::Programs::EMPTY,
        devices_assigned: false,
        crashes: Crashes::EMPTY,
        orders: Orders::EMPTY,
        death: Detail { fault: None, thread: 0, watched: None, order: None, calls: Vec::new() },
        facts: None,
    };

    /// A server's name.
    pub fn name(&self, server: ServerId) -> &str {
        self.manifest.servers.get(server.index()).map_or("?", |s| s.name.as_str())
    }

    /// All servers and slots, in the manifest's order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ServerId> + Clone + use<> {
        (0..self.manifest.servers.len() as u8).map(ServerId)
    }

    /// Whether an instance of it runs.
    pub fn is_running(&self, server: ServerId) -> bool {
        self.servers.get(server.index()).is_some_and(|s| s.is_built)
    }

    /// Whether it was given up: its clients are answered by the root server.
    pub fn is_failed(&self, server: ServerId) -> bool {
        matches!(self.supervisor.state(server), State::Failed(_))
    }

    /// Says what runs, and under which overrides.
    pub fn say_start(&self) {
        let (all, edges) = (self.manifest.servers.len(), self.manifest.edges.len());
        let slots = self.manifest.servers.iter().filter(|server| server.is_slot).count();
        let (target, servers) = (&self.manifest.target, all - slots);
        crate::say!("{target}: {servers} servers, {slots} slots for programs, {edges} edges");
        if let Some(experiment) = &self.manifest.experiment {
            let unlimited = experiment.unlimited_intensity;
            let backoff = experiment.backoff_ms;
            crate::say!("experiment: unlimited intensity {unlimited}, back-off {backoff} ms");
            if experiment.broken != Broken::Nothing {
                crate::say!("experiment: broken on purpose: {:?}", experiment.broken);
            }
        }
    }

    /// Whether anything runs or may still be started.
    pub fn has_life(&self) -> bool {
        let mut states = self.ids().map(|id| self.supervisor.state(id));
        states.any(|state| !matches!(state, State::Failed(_) | State::Waiting))
    }

    /// Takes an event, and does what follows from it, to the end.
    pub fn event(&mut self, event: Event) {
        let mut queue: heapless::Deque<Event, { 2 * MAX_SERVERS }> = heapless::Deque::new();
        let mut next = Some(event);
        while let Some(event) = next {
            let mut actions = Actions::new();
            let now_ns = libipc::time::now_ns();
            let pulses = match event {
                Event::TimerFired => self.pulses(),
                _ => Vec::new(),
            };
            let calls = match event {
                Event::Died(server, cause) => self.declare(server, cause),
                _ => Vec::new(),
            };
            let seen = Seen { pulses: &pulses, calls: &calls };
            self.supervisor.step(now_ns, event, seen, &mut actions);
            self.death.calls = calls;
            for action in actions {
                if let Some(event) = self.act(action, now_ns) {
                    let kept = queue.push_back(event);
                    debug_assert!(kept.is_ok(), "each server has one start under way");
                }
            }
            next = queue.pop_front();
        }
    }

    /// Does one action; its outcome may be an event.
    fn act(&mut self, action: Action, noticed_ns: u64) -> Option<Event> {
        match action {
            Action::TearDown(server, cause) => self.tear_down(server, cause, noticed_ns),
            Action::Start(server, n) if n > 1 && self.is_broken(Broken::NotRestarted) => {
                return Some(Event::StartFailed(server, Failure::CannotStart));
            }
            Action::Start(server, incarnation) => return Some(self.start(server, incarnation)),
            Action::TellBackoff(server, delay_ns) => {
                let name = self.name(server);
                crate::say!("{name}: restart in {} ms", delay_ns / 1_000_000);
            }
            Action::TellIgnored(client, server) => {
                let (client, server) = (self.name(client), self.name(server));
                crate::say!("{client} complains of {server} too often: ignored for now");
            }
            Action::CloseSession(number) => self.close_session(number),
            Action::OpenSession(number) => self.open_session(number),
            Action::MarkFailed(server, why) => self.mark_failed(server, why),
            Action::Revive(server) => self.revive(server),
            Action::Ping(server) => self.signal(server, kit::HEARTBEAT),
            Action::Declare(server, cause) => return Some(Event::Died(server, cause)),
            Action::ArmTimer(at_ns) => self.arm_timer(at_ns),
        }
        None
    }
}

#[cfg(test)]
mod tests;
