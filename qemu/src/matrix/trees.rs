//! Altered device trees on aarch64: what the kernel must take, and what it must refuse in one line.
//!
//! QEMU corrects the memory and the boot image in a tree that it is given, and refuses a damaged
//! one. So kernel, boot image and tree are put into memory as they are, and the first CPU begins at
//! a stub of ours, which does what a boot loader does: the tree's address in `x0`, then the kernel.
//! The tree is QEMU's own dump of the same machine, altered.
//!
//! Not here: trees that are sound and lie. A kernel has nothing to hold them against.

use super::{COMMANDS, Rig, TIMEOUT};
use crate::devicetree::Node;
use crate::machine::arguments::{DEFAULT_MEM_MB, arguments, path_word};
use crate::machine::{Ending, Loading, Options, PortOrder, Serial, Transport};
use crate::session::Guest;
use crate::workspace::sibling;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where RAM begins on `virt`. QEMU puts a tree of its own there when it loads no kernel.
const RAM: u64 = 0x4000_0000;
const STUB: u64 = RAM + 0x18_0000;
/// A multiple of 2 MiB.
const KERNEL: u64 = RAM + 0x20_0000;
const TREE: u64 = RAM + 0x300_0000;
const IMAGE: u64 = RAM + 0x400_0000;

/// What is done to QEMU's tree.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It is edited and written anew.
    Edit(fn(&mut Node)),
    /// Only so many thousandths of its bytes are there; zeroes follow.
    Cut(usize),
    /// So many thousandths of its structure are there; zeroes follow up to the names.
    CutStructure(usize),
    /// Noise in its place.
    Garbage(u64),
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// It boots and serves the tool's channel.
    Boots,
    /// So it does, and says that it has so many MiB.
    BootsWithRam(u64),
    /// It boots; there is one serial port, and that is the terminal.
    BootsWithTerminalOnly,
    /// It says that it cannot boot, with these words, and ends with the code for that.
    Refused(&'static str),
    /// It ends with the code for that; it says so if the console can still be found in the tree.
    RefusedIfHeard,
    /// Nobody can hear it; it neither ends nor panics.
    Silent,
}

/// A tree and what must come of it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    change: Change,
    expect: Expect,
    /// The console is the machine's first UART, or the second.
    ports: PortOrder,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "tree: {}", self.name)
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    use Change::{Cut, CutStructure, Edit, Garbage};
    use Expect::{Boots, BootsWithRam, BootsWithTerminalOnly, Refused, RefusedIfHeard, Silent};
    let ports = PortOrder::TerminalFirst;
    let case = |name, change, expect| Case { name, change, expect, ports };
    let on_second = |case| Case { ports: PortOrder::ExecFirst, ..case };
    vec![
        case("as it is", Edit(|_| {}), Boots),
        on_second(case("the other UART is the console", Edit(choose_second_uart), Boots)),
        on_second(case(
            "the UART is elsewhere, the first is gone",
            Edit(move_uart),
            BootsWithTerminalOnly,
        )),
        case("no stdout-path", Edit(|root| forget(root, "stdout-path")), Boots),
        case("memory in two banks with a hole", Edit(two_banks), BootsWithRam(RAM_LEFT)),
        case("memory in two nodes", Edit(two_nodes), BootsWithRam(RAM_LEFT)),
        case("no memory", Edit(|root| remove(root, "memory")), Refused("names no RAM")),
        case(
            "no GIC",
            Edit(|root| remove(root, "arm,cortex-a15-gic")),
            Refused("interrupt controller"),
        ),
        case("no timer", Edit(|root| remove(root, "arm,armv8-timer")), Refused("timer")),
        case("no UART", Edit(|root| remove(root, "arm,pl011")), Silent),
        case("no PSCI", Edit(|root| remove(root, "arm,psci-1.0")), Boots),
        case("no PCIe", Edit(|root| remove(root, "pci-host-ecam-generic")), Boots),
        case("no v2m frame", Edit(|root| remove(root, "arm,gic-v2m-frame")), Boots),
        case(
            "no boot image",
            Edit(|root| forget(root, "linux,initrd-start")),
            Refused("boot image"),
        ),
        case("nothing at all", Edit(|root| *root = Node::default()), RefusedIfHeard),
        case("structure cut at 50 %", CutStructure(500), RefusedIfHeard),
        case("structure cut at 90 %", CutStructure(900), Refused("is damaged at byte")),
        case("structure cut at 99 %", CutStructure(990), Refused("is damaged at byte")),
        case("cut to nothing", Cut(0), RefusedIfHeard),
        case("cut at 1 %", Cut(10), RefusedIfHeard),
        case("cut at 25 %", Cut(250), RefusedIfHeard),
        case("cut at 50 %", Cut(500), RefusedIfHeard),
        case("cut at 90 %", Cut(900), RefusedIfHeard),
        case("cut at 99 %", Cut(990), RefusedIfHeard),
        case("garbage 1", Garbage(1), RefusedIfHeard),
        case("garbage 2", Garbage(2), RefusedIfHeard),
    ]
}

/// `/chosen` of the root.
fn chosen(root: &mut Node) -> &mut Node {
    root.child("chosen")
}

fn forget(root: &mut Node, property: &str) {
    chosen(root).properties.retain(|(name, _)| name != property);
}

/// Removes the devices of a kind, or with this `device_type`.
fn remove(root: &mut Node, kind: &str) {
    let is_type =
        |node: &Node| node.property("device_type") == Some([kind, "\0"].concat().as_bytes());
    let removed = root.remove(&|node| node.is_compatible(kind) || is_type(node));
    assert!(removed > 0, "QEMU's tree has no {kind}");
}

/// The names of the UARTs, by address.
fn uarts(root: &Node) -> Vec<String> {
    let uarts = root.children.iter().filter(|node| node.is_compatible("arm,pl011"));
    let mut names: Vec<String> = uarts.map(|node| node.name.clone()).collect();
    names.sort();
    names
}

fn choose_second_uart(root: &mut Node) {
    let path = format!("/{}\0", uarts(root)[1]);
    chosen(root).set("stdout-path", path);
}

fn move_uart(root: &mut Node) {
    choose_second_uart(root);
    let first = uarts(root)[0].clone();
    root.children.retain(|node| node.name != first);
}

/// The memory of the tree, which is then to be set anew.
fn memory(root: &mut Node) -> &mut Node {
    let is_memory = |node: &&mut Node| node.property("device_type") == Some(b"memory\0");
    root.children.iter_mut().find(is_memory).expect("QEMU's tree has memory")
}

/// Address and size as two cells each.
fn ranges(list: &[(u64, u64)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(start, size)| [start.to_be_bytes(), size.to_be_bytes()].concat())
        .collect()
}

const MEM_BYTES: u64 = (DEFAULT_MEM_MB as u64) << 20;
/// Behind everything that is loaded.
const HOLE: u64 = 0x600_0000;
const HOLE_BYTES: u64 = 0x200_1000;
const BANKS: [(u64, u64); 2] =
    [(RAM, HOLE), (RAM + HOLE + HOLE_BYTES, MEM_BYTES - HOLE - HOLE_BYTES)];

/// MiB in both banks together.
const RAM_LEFT: u64 = (MEM_BYTES - HOLE_BYTES) >> 20;

fn two_banks(root: &mut Node) {
    memory(root).set("reg", ranges(&BANKS));
}

fn two_nodes(root: &mut Node) {
    let first = memory(root);
    let mut second = first.clone();
    first.set("reg", ranges(&BANKS[..1]));
    second.name = format!("memory@{:x}", BANKS[1].0);
    second.set("reg", ranges(&BANKS[1..]));
    // Not in the order of addresses.
    root.children.insert(0, second);
}

impl Change {
    /// The bytes that lie in memory.
    fn apply(self, tree: &Node) -> Vec<u8> {
        let mut tree = tree.clone();
        if let Change::Edit(edit) = self {
            edit(&mut tree);
        }
        let mut blob = tree.flatten();
        let field = |index: usize| {
            let bytes = blob[4 * index..].first_chunk().copied().unwrap_or_default();
            u32::from_be_bytes(bytes) as usize
        };
        let structure = field(2)..field(2) + field(9);
        match self {
            Change::Edit(_) => {}
            Change::Cut(part) => blob.truncate(blob.len() * part / 1000),
            Change::CutStructure(part) => {
                let from = structure.start + structure.len() * part / 1000 / 4 * 4;
                blob[from..structure.end].fill(0);
            }
            Change::Garbage(seed) => blob = crate::disk::pseudo_random(blob.len(), seed),
        }
        blob
    }

    /// Whether the tree, as it lies in memory, still shows a UART to whoever walks it.
    fn shows_uart(self, blob: &[u8]) -> bool {
        let padded = [blob, &[0; 0x1_0000]].concat();
        let Ok(tree) = skink_fdt::Tree::parse(&padded) else {
            return false;
        };
        let mut found = false;
        let _ = tree.walk(|node, _| {
            let kinds = node.property("compatible").unwrap_or_default();
            found |= skink_fdt::strings(kinds).any(|kind| kind == b"arm,pl011");
        });
        found
    }
}

/// The files of one case, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let folder = sibling(&std::env::temp_dir().join("skink-tree"));
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Folder(folder))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a boot loader does at the end, for a kernel and a tree below 4 GiB.
fn stub() -> Vec<u8> {
    let half = |address: u64, shift: u32| (address >> shift & 0xffff) as u32;
    let code = [
        0xd280_0000 | half(TREE, 0) << 5, // movz x0, #low half of the tree's address
        0xf2a0_0000 | half(TREE, 16) << 5, // movk x0, #high half, lsl #16
        0xd280_0004 | half(KERNEL, 0) << 5, // movz x4, #low half of the kernel's address
        0xf2a0_0004 | half(KERNEL, 16) << 5, // movk x4, #high half, lsl #16
        0xd61f_0080,                      // br x4
    ];
    code.iter().flat_map(|instruction: &u32| instruction.to_le_bytes()).collect()
}

/// The tree that QEMU makes for a machine.
fn dump(rig: &Rig, options: &Options, folder: &Path) -> Result<Node> {
    let arch = rig.system.arch;
    let path = folder.join("dump");
    let words = arguments(arch, &rig.system.files, options, Serial::Terminal);
    let mut dumpdtb = OsString::from("dumpdtb=");
    dumpdtb.push(path_word(&path));
    let output = Command::new(arch.qemu())
        .args(words)
        .arg("-machine")
        .arg(dumpdtb)
        .stdin(Stdio::null())
        .output()
        .context("having QEMU dump its device tree")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let blob = std::fs::read(&path).with_context(|| format!("QEMU's device tree: {said}"))?;
    Node::parse(&blob)
}

/// Boots the tree of a case and looks at what comes of it.
///
/// # Errors
/// If it is not what must come of it.
pub fn run(rig: &Rig, case: &Case) -> Result<()> {
    let folder = Folder::new()?;
    let mut options = rig.with_disk(Options { transport: Transport::Mmio, ..Options::default() });
    let mut tree = dump(rig, &options, &folder.0)?;
    ensure!(
        uarts(&tree).len() == 2,
        "this QEMU's virt has one UART; version 9.1 is the first with two"
    );
    let image = std::fs::metadata(&rig.system.files.image).context("the boot image")?.len();
    ensure!(image < HOLE - (IMAGE - RAM), "the boot image reaches into the hole");
    chosen(&mut tree).set("linux,initrd-start", IMAGE.to_be_bytes());
    chosen(&mut tree).set("linux,initrd-end", (IMAGE + image).to_be_bytes());
    let blob = case.change.apply(&tree);
    let pieces = vec![
        (rig.system.files.kernel.clone(), KERNEL),
        (rig.system.files.image.clone(), IMAGE),
        (folder.put("tree", &blob)?, TREE),
        (folder.put("stub", &stub())?, STUB),
    ];
    // A file without bytes cannot be loaded; memory is zero anyway.
    let pieces = pieces.into_iter().filter(|(_, at)| *at != TREE || !blob.is_empty()).collect();
    options.loading = Loading::Raw { pieces, entry: STUB };
    options.ports = case.ports;
    match case.expect {
        Expect::Boots => rig.boots(options).map(drop),
        Expect::BootsWithRam(mib) => {
            let console = rig.boots(options)?;
            ensure!(console.contains(&format!(" {mib} MiB RAM")), "not {mib} MiB: {console}");
            Ok(())
        }
        Expect::BootsWithTerminalOnly => boots_with_terminal_only(rig, &options),
        Expect::Refused(words) => refused(rig, &options, Some(words)),
        Expect::RefusedIfHeard if case.change.shows_uart(&blob) => refused(rig, &options, Some("")),
        Expect::RefusedIfHeard => refused(rig, &options, None),
        Expect::Silent => silent(rig, &options),
    }
}

/// With `words`, the console ends in one line which says that the kernel cannot boot and has these,
/// behind the kernel's greeting or nothing; without, it has nothing.
fn refused(rig: &Rig, options: &Options, words: Option<&str>) -> Result<()> {
    let mut guest = Guest::boot(&rig.system, options, &rig.watch)?;
    let ending = guest.wait_ending(Instant::now() + TIMEOUT)?;
    let console = guest.console();
    let mut lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() == 2 && lines[0].starts_with("skink: kernel ") {
        lines.remove(0);
    }
    let as_expected = match (words, &lines[..]) {
        (None, []) => true,
        (Some(words), [line]) => line.starts_with("skink: cannot boot: ") && line.contains(words),
        _ => false,
    };
    ensure!(ending == Some(Ending::CannotBoot), "{ending:?}, the console has {lines:?}");
    ensure!(as_expected, "the console has {lines:?}");
    Ok(())
}

/// How long a guest that nobody hears is watched.
const WATCHED: Duration = Duration::from_secs(4);

fn silent(rig: &Rig, options: &Options) -> Result<()> {
    let mut guest = Guest::boot(&rig.system, options, &rig.watch)?;
    let ending = guest.wait_ending(Instant::now() + WATCHED)?;
    ensure!(ending.is_none() && guest.console().is_empty(), "{ending:?}\n{}", guest.post_mortem());
    Ok(())
}

/// Types at the terminal, as a user without the tool's channel does.
fn boots_with_terminal_only(rig: &Rig, options: &Options) -> Result<()> {
    use std::io::Write;
    let mut guest = Guest::boot(&rig.system, options, &rig.watch)?;
    let mut keyboard = guest.terminal()?;
    let deadline = Instant::now() + TIMEOUT;
    let mut answered = |keys: &str, text: &str| -> Result<()> {
        keyboard.write_all(keys.as_bytes()).context("typing")?;
        while !guest.console().contains(text) {
            if let Some(ending) = guest.poll_ending(Instant::now() + Duration::from_millis(20))? {
                bail!("{ending} before `{}`\n{}", text.trim(), guest.post_mortem());
            }
            let late = Instant::now() > deadline;
            ensure!(!late, "no `{}`\n{}", text.trim(), guest.post_mortem());
        }
        Ok(())
    };
    answered("", "skink> ")?;
    answered(&format!("{COMMANDS}\r"), "\nok\r\nHELLO.TXT\r\n")?;
    keyboard.write_all(b"shutdown\r").context("typing")?;
    let ending = guest.wait_ending(deadline)?;
    ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
    Ok(())
}
