//! What may stand in a `system.toml`, and in a file that it includes: the latter has `[[server]]`,
//! `[[group]]` and `[programs]` tables only. An unknown field is an error; sizes are numbers of bytes or texts such as
//! `"256KiB"`.

use super::Source;
use anyhow::Result;
use serde::Deserialize;
use skink_manifest::{Access, Broken, Bytes, Channel, Devices, Restart, Switch};
use toml::Spanned;

/// The whole file, with what it includes behind it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[system]`.
    pub system: System,
    /// `[experiment]`.
    pub experiment: Option<Experiment>,
    /// `[[hardware]]`, one a server at most.
    #[serde(default)]
    pub hardware: Vec<Hardware>,
    /// `[programs]`.
    pub programs: Option<Programs>,
    /// `[[group]]`, any number of them.
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
    /// `[[server]]`, any number of them.
    #[serde(default, rename = "server")]
    pub servers: Vec<Server>,
}

/// A file that is included.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Included {
    #[serde(rename = "programs")]
    _programs: Option<Programs>,
    #[serde(default, rename = "group")]
    _groups: Vec<Group>,
    #[serde(default, rename = "server")]
    _servers: Vec<Server>,
}

/// `[system]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// The folder under `targets/` that this is for.
    pub target: Spanned<String>,
    /// Files with more servers; paths are relative to this file's folder.
    #[serde(default)]
    pub include: Vec<Spanned<String>>,
}

/// `[experiment]`: for kill experiments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Only `"unlimited"`: no server is ever given up.
    pub intensity: Option<Unlimited>,
    /// Milliseconds between death and restart of every server.
    #[serde(default)]
    pub backoff_ms: u32,
    /// `"off"`: servers keep nothing for crash records.
    #[serde(default)]
    pub recording: Switch,
    /// `"off"`: nobody is asked for heartbeats.
    #[serde(default)]
    pub heartbeats: Switch,
    /// What the root server does wrong on purpose, such as `"orders-ignored"`.
    #[serde(default)]
    pub broken: Broken,
    /// `"deaf"`: devices whose drivers died cannot be silenced.
    #[serde(default)]
    pub devices: Devices,
}

/// The word `"unlimited"`.
#[derive(Debug, Deserialize)]
pub enum Unlimited {
    /// It.
    #[serde(rename = "unlimited")]
    Unlimited,
}

/// `[[group]]`: servers that are restarted together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: Spanned<String>,
    /// Who is restarted when a member dies.
    pub strategy: Strategy,
    /// The group that it is a member of.
    pub parent: Option<Spanned<String>>,
    /// Restarts of the group tolerated in the period.
    pub intensity: Option<u8>,
    /// The period, milliseconds.
    pub intensity_period_ms: Option<Spanned<u32>>,
    /// First delay, milliseconds.
    pub backoff_ms: Option<u32>,
    /// Longest delay, milliseconds.
    pub backoff_max_ms: Option<u32>,
}

/// `[programs]`: what `run` may start from a disk, beside the servers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    /// So many at once.
    pub count: Spanned<u8>,
    /// At most.
    pub priority: Spanned<u8>,
    /// Quota of each, at most; a power of two.
    pub memory: Spanned<Bytes>,
    /// What each may be given to talk to.
    #[serde(default)]
    pub needs: Vec<Spanned<Need>>,
}

/// OTP's strategies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The dead one.
    OneForOne,
    /// It, and those that need it.
    RestForOne,
    /// All.
    OneForAll,
}

/// `[[hardware]]`: what a server drives on this machine alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The server's name.
    pub server: Spanned<String>,
    /// Devices.
    #[serde(default)]
    pub devices: Vec<Spanned<Device>>,
    /// I/O ports.
    #[serde(default)]
    pub ports: Vec<Spanned<Ports>>,
    /// Wired interrupts.
    #[serde(default)]
    pub lines: Vec<Spanned<Line>>,
}

/// `[[server]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name.
    pub name: Spanned<String>,
    /// Its program, else its name.
    pub binary: Option<Spanned<String>>,
    /// Words for it.
    pub args: Option<Spanned<String>>,
    /// 1 to 250.
    pub priority: Spanned<u8>,
    /// Microseconds of CPU per period.
    pub budget_us: Option<Spanned<u32>>,
    /// Microseconds; else the budget.
    pub period_us: Option<Spanned<u32>>,
    /// Quota, a power of two.
    pub memory: Spanned<Bytes>,
    /// Stack of each thread.
    pub stack: Option<Spanned<Bytes>>,
    /// Heap.
    pub heap: Option<Spanned<Bytes>>,
    /// Threads beside the first.
    pub extra_threads: Option<Spanned<u8>>,
    /// Callers that it can keep waiting at once.
    pub replies: Option<Spanned<u8>>,
    /// Threads have FPU state.
    #[serde(default)]
    pub fpu: bool,
    /// Devices.
    #[serde(default)]
    pub devices: Vec<Spanned<Device>>,
    /// I/O ports.
    #[serde(default)]
    pub ports: Vec<Spanned<Ports>>,
    /// Wired interrupts.
    #[serde(default)]
    pub lines: Vec<Spanned<Line>>,
    /// Protocols.
    #[serde(default)]
    pub provides: Vec<Spanned<String>>,
    /// What it talks to.
    #[serde(default)]
    pub needs: Vec<Spanned<Need>>,
    /// DMA memory.
    pub dma: Option<Spanned<Bytes>>,
    /// Survivor region.
    pub survivor: Option<Spanned<Bytes>>,
    /// Extra authority.
    #[serde(default)]
    pub privileges: Vec<Spanned<Privilege>>,
    /// When to start it again.
    pub restart: Restart,
    /// Its group.
    pub group: Option<Spanned<String>>,
    /// Restarts tolerated in the period.
    pub intensity: Option<u8>,
    /// The period, milliseconds.
    pub intensity_period_ms: Option<Spanned<u32>>,
    /// First delay, milliseconds.
    pub backoff_ms: Option<Spanned<u32>>,
    /// Longest delay, milliseconds.
    pub backoff_max_ms: Option<u32>,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: Option<Spanned<u32>>,
    /// It is a slot of `[programs]`.
    #[serde(skip)]
    pub is_slot: bool,
}

/// One of `devices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// PCI: `"vendor:device"`, or several with the same vendor.
    pub pci: Option<OneOrMore>,
    /// Device tree: the `compatible` string.
    pub compatible: Option<String>,
    /// virtio, whatever its transport: the name of its type.
    pub virtio: Option<String>,
    /// Which of several.
    #[serde(default)]
    pub index: u8,
    /// The server starts without it.
    #[serde(default)]
    pub optional: bool,
    /// MSI-X vectors wanted.
    #[serde(default)]
    pub vectors: u8,
}

/// A text or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        }
    }
}

/// One of `ports`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// One of `lines`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The PC's global system interrupt.
    pub gsi: Option<u32>,
    /// Arm's interrupt number.
    pub intid: Option<u32>,
    /// Level triggered.
    #[serde(default)]
    pub level: bool,
}

/// One of `needs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// What the client calls it.
    pub name: Spanned<String>,
    /// Who serves it.
    pub server: Spanned<String>,
    /// What is spoken.
    pub protocol: Spanned<String>,
    /// How many sessions.
    pub sessions: Option<Spanned<u8>>,
    /// Memory shared in each session.
    pub shared: Option<Spanned<Bytes>>,
    /// A device may reach that memory.
    #[serde(default)]
    pub dma: bool,
    /// The server is restarted when this client says that it lies or is late. For clients that can be
    /// believed.
    #[serde(default)]
    pub may_complain: bool,
    /// `file`, `console`: in which direction.
    pub access: Option<Spanned<Access>>,
    /// `file`: the folder that is the session's root.
    pub folder: Option<Spanned<String>>,
    /// `console`: the channel that the session reaches.
    pub channel: Option<Spanned<Channel>>,
}

/// One of `privileges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Write to the kernel's log.
    Log,
    /// See the boot image.
    BootImage,
    /// Control other servers.
    Control,
    /// Configure PCI functions.
    PciConfig,
}

/// Reads the text.
///
/// # Errors
/// If it is not TOML, lacks a field, has one of the wrong kind or an unknown one.
pub fn parse(source: &Source) -> Result<File> {
    read(source)
}

/// Checks the text of a file that is to be included, by itself.
///
/// # Errors
/// As [`parse`].
pub fn check_included(source: &Source) -> Result<()> {
    read::<Included>(source).map(drop)
}

fn read<T: serde::de::DeserializeOwned>(source: &Source) -> Result<T> {
    toml::from_str(source.text()).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        source.error(offset, error.message().trim_end())
    })
}
