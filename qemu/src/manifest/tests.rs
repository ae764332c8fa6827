//! The shipped manifests are good, and each mistake is told with its file and line.

use super::*;
use crate::workspace::{Arch, Workspace};
use skink_manifest::{Access, Channel, Device, Restart, Server, SessionGrant, Strategy};
use std::path::PathBuf;

const HEAD: &str = "[system]\ntarget = \"t\"\n";

fn source(text: &str) -> Source {
    Source::new("system.toml", text)
}

fn server(name: &str, priority: u8, more: &str) -> String {
    format!(
        "[[server]]\nname = \"{name}\"\npriority = {priority}\nmemory = \"1MiB\"\n\
         restart = \"permanent\"\n{more}\n"
    )
}

/// Asserts that `HEAD` and `text` together are refused at `line`, with a text that has `words`.
fn refused(text: &str, line: usize, words: &str) {
    let error = parse(&source(&format!("{HEAD}{text}")), "t").unwrap_err().to_string();
    assert!(error.starts_with(&format!("system.toml:{line}: ")), "{error}");
    assert!(error.contains(words), "{error}");
}

fn shipped(arch: Arch) -> Manifest {
    let path = Workspace::find().unwrap().target_folder(arch).join("system.toml");
    load(&path, arch.target()).unwrap()
}

fn server_called<'a>(manifest: &'a Manifest, name: &str) -> &'a Server {
    manifest.servers.iter().find(|server| server.name == name).unwrap()
}

#[test]
fn the_shipped_manifests_are_good_and_in_start_order() {
    for arch in Arch::ALL {
        let manifest = shipped(arch);
        for edge in &manifest.edges {
            assert!(edge.server < edge.client, "{edge:?}");
        }
        let blk = server_called(&manifest, "virtio-blk");
        assert_eq!(blk.restart, Restart::Permanent);
        assert_eq!((blk.quota_bytes, blk.devices.len()), (1 << 20, 1));
        let encoded = encode(&manifest).unwrap();
        assert_eq!(postcard::from_bytes::<Manifest>(&encoded).unwrap(), manifest);
        assert_eq!(binaries(&manifest).len(), servers(&manifest).count());
    }
}

#[test]
fn the_machines_differ_in_hardware_only() {
    let [pc, arm] = Arch::ALL.map(shipped);
    let console = |manifest: &Manifest| server_called(manifest, "console").clone();
    assert_eq!((console(&pc).ports.len(), console(&pc).devices.len()), (2, 0));
    assert_eq!((console(&arm).ports.len(), console(&arm).devices.len()), (0, 2));
    let without_hardware = |manifest: &Manifest| {
        let mut manifest = manifest.clone();
        manifest.target.clear();
        for server in &mut manifest.servers {
            server.devices.clear();
            server.ports.clear();
            server.lines.clear();
        }
        manifest
    };
    assert_eq!(without_hardware(&pc), without_hardware(&arm));
}

/// A folder of manifests, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = crate::workspace::sibling(&std::env::temp_dir().join("skink-manifest"));
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Folder(folder)
    }

    /// The complaint about `pc/system.toml`, its paths as seen from the folder.
    fn complaint(&self) -> String {
        let error = load(&self.0.join("pc/system.toml"), "t").unwrap_err();
        format!("{error:#}").replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const INCLUDING: &str = "[system]\ntarget = \"t\"\ninclude = [\"../c.toml\"]\n";

#[test]
fn an_included_file_has_servers_and_its_mistakes_are_its_own() {
    let complaint = |main: &str, included: &str| {
        Folder::new(&[("pc/system.toml", main), ("c.toml", included)]).complaint()
    };
    let main = INCLUDING.to_string() + &server("a", 10, "");
    assert_eq!(complaint(&main, &server("a", 10, "")), "c.toml:2: a second server called `a`");
    assert!(complaint(&main, &server("b", 0, "")).starts_with("c.toml:3: 0: must be 1 to"));
    assert!(complaint(&main, &server("b", 1, "x = 1")).starts_with("c.toml:6: unknown field `x`"));
    assert!(complaint(&main, "[[server]\n").starts_with("c.toml:1: "));
    assert!(complaint(&main, "name = \"x\"\n").starts_with("c.toml:1: unknown field `name`"));
    assert!(complaint(&main, HEAD).starts_with("c.toml:1: unknown field `system`"));
    assert!(complaint(&main, "\n[experiment]\n").starts_with("c.toml:2: unknown field"));
    let hardware = "[[hardware]]\nserver = \"a\"\n";
    assert!(complaint(&main, hardware).starts_with("c.toml:1: unknown field `hardware`"));
    // Behind what is included, the first file's lines are still its own.
    let down = "needs = [{ name = \"x\", server = \"b\", protocol = \"q\" }]";
    let text = complaint(&(INCLUDING.to_string() + &server("a", 10, down)), &server("b", 20, ""));
    assert!(text.starts_with("pc/system.toml:9: `b` does not provide"), "{text}");
    let alone = Folder::new(&[("pc/system.toml", INCLUDING)]).complaint();
    assert!(alone.starts_with("pc/system.toml:3: reading the manifest c.toml: No such"), "{alone}");
}

#[test]
fn hardware_is_given_to_its_server() {
    let hardware = |name: &str, more: &str| format!("[[hardware]]\nserver = \"{name}\"\n{more}\n");
    let device = "devices = [{ virtio = \"block\", vectors = 2, optional = true }]";
    let text = HEAD.to_string()
        + &hardware("a", &(device.to_string() + "\nlines = [{ intid = 40 }]"))
        + &server("a", 10, "lines = [{ intid = 41 }]");
    let manifest = parse(&source(&text), "t").unwrap();
    let numbers: Vec<u32> = manifest.servers[0].lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [41, 40]);
    let block = Device::Virtio { kind: 2, index: 0, optional: true, vectors: 2 };
    assert_eq!(manifest.servers[0].devices[..], [block]);
    refused(&hardware("b", ""), 4, "there is no server `b`");
    let twice = hardware("a", "") + &hardware("a", "") + &server("a", 10, "");
    refused(&twice, 7, "a second [[hardware]] of `a`");
    refused(&hardware("a", "heap = 4096"), 5, "unknown field `heap`");
    let clash = hardware("a", "lines = [{ gsi = 4 }]") + &server("a", 10, "lines = [{ gsi = 4 }]");
    refused(&clash, 5, "the line 4 is given to `a` already");
}

#[test]
fn the_same_device_is_known_by_any_name() {
    let two = |a: &str, b: &str| {
        server("a", 10, &format!("devices = [{{ {a} }}]"))
            + &server("b", 20, &format!("devices = [{{ {b} }}]"))
    };
    let good = |a: &str, b: &str| {
        let text = HEAD.to_string() + &two(a, b);
        parse(&source(&text), "t").map(drop).unwrap_or_else(|error| panic!("{a}, {b}: {error}"));
    };
    let block = "virtio = \"block\"";
    refused(&two(block, block), 14, "virtio block number 0 is given to `a` already");
    for id in ["1af4:1042", "1AF4:1001"] {
        let pci = format!("pci = \"{id}\"");
        let key = format!("{} number 0 is given to `a` already", id.to_ascii_lowercase());
        refused(&two(block, &pci), 14, &key);
        refused(&two(&pci, block), 14, &key);
        good(block, &(pci + ", index = 1"));
    }
    refused(&two("virtio = \"gpu\"", "pci = \"1af4:1050\""), 14, "1af4:1050 number 0");
    good(block, "virtio = \"block\", index = 1");
    good(block, "virtio = \"net\"");
    good(block, "pci = \"8086:1042\"");
    let uart = "compatible = \"arm,pl011\"";
    refused(&two(uart, uart), 14, "arm,pl011 number 0 is given");
    good(uart, &(uart.to_string() + ", index = 1"));
}

#[test]
fn servers_start_behind_what_they_need() {
    let need = "needs = [{ name = \"x\", server = \"b\", protocol = \"p\" }]";
    let text = HEAD.to_string() + &server("a", 10, need) + &server("b", 20, "provides = [\"p\"]");
    let manifest = parse(&source(&text), "t").unwrap();
    assert_eq!(manifest.servers[0].name, "b");
    assert_eq!((manifest.edges[0].client, manifest.edges[0].server), (1, 0));
    assert_eq!(manifest.edges[0].sessions, 1);
}

#[test]
fn text_that_is_not_the_schema() {
    refused("[[server]\n", 3, "");
    refused(&server("a", 10, "colour = 1"), 8, "unknown field `colour`");
    refused("[[server]]\nname = \"a\"\n", 3, "missing field");
    refused(&server("a", 10, "heap = \"4 MB\""), 8, "such as \"256KiB\"");
    refused(&server("a", 10, "privileges = [\"root\"]"), 8, "unknown variant `root`");
    refused("[experiment]\nintensity = \"some\"\n", 4, "unknown variant `some`");
    refused("[experiment]\ndevices = \"mute\"\n", 4, "unknown variant `mute`");
    refused(&server("a", 10, "intensity = 300"), 8, "300");
}

#[test]
fn the_target_is_the_folder() {
    let error = parse(&source(HEAD), "other").unwrap_err().to_string();
    assert_eq!(error, "system.toml:2: the target is `t`, not `other`");
}

#[test]
fn needs_that_cannot_be_met() {
    let need = |server: &str, protocol: &str, more: &str| {
        format!(
            "needs = [{{ name = \"x\", server = \"{server}\", protocol = \"{protocol}\"{more} }}]"
        )
    };
    let b = server("b", 20, "provides = [\"p\"]");
    let with = |line: &str| server("a", 10, line) + &b;
    refused(&with(&need("c", "p", "")), 8, "there is no server `c`");
    refused(&with(&need("b", "q", "")), 8, "does not provide the protocol `q`; it provides: p");
    refused(&with(&need("b", "p", ", dma = true")), 8, "`dma` without `shared`");
    refused(&with(&need("b", "p", ", shared = 100")), 8, "not whole pages");
    refused(&with(&need("b", "p", ", sessions = 0")), 8, "at least one session");
    refused(&with(&need("b", "p", ", sessions = 33")), 10, "room for 32");
    let down = server("a", 30, &need("b", "p", "")) + &b;
    refused(&down, 8, "`b` (priority 20) must be above `a` (30)");
    let twice = "needs = [{ name = \"x\", server = \"b\", protocol = \"p\" },\n\
        { name = \"x\", server = \"b\", protocol = \"p\" }]";
    refused(&with(twice), 8, "two needs called `x`");
    let circle = server("a", 10, &need("b", "p", ""))
        + &server("b", 20, &("provides = [\"p\"]\n".to_string() + &need("a", "p", "")));
    refused(&circle, 15, "a cycle of needs: a -> b -> a");
}

#[test]
fn a_client_may_complain_of_its_server_only_if_its_need_says_so() {
    let b = server("b", 20, "provides = [\"p\"]");
    let may_complain = |more: &str| {
        let need = format!("needs = [{{ name = \"x\", server = \"b\", protocol = \"p\"{more} }}]");
        let text = HEAD.to_string() + &server("a", 10, &need) + &b;
        parse(&source(&text), "t").unwrap().edges[0].may_complain
    };
    assert!(!may_complain(""));
    assert!(!may_complain(", may_complain = false"));
    assert!(may_complain(", may_complain = true"));
}

#[test]
fn a_need_says_how_much_of_its_protocol_it_is_good_for() {
    let b = server("b", 20, "provides = [\"file\", \"console\", \"p\"]");
    let with = |protocol: &str, more: &str| {
        let need = format!(
            "needs = [{{ name = \"x\", server = \"b\", protocol = \"{protocol}\",\n{more} }}]"
        );
        server("a", 10, &need) + &b
    };
    let grant = |protocol: &str, more: &str| {
        let text = HEAD.to_string() + &with(protocol, more);
        parse(&source(&text), "t").unwrap().edges[0].grant.clone()
    };
    assert_eq!(grant("file", ""), SessionGrant::default());
    let lesser = grant("file", "access = \"read\", folder = \"/DATA/IN\"");
    assert_eq!((lesser.access, lesser.folder.as_deref()), (Access::Read, Some("/DATA/IN")));
    let output = grant("console", "channel = \"terminal\", access = \"write\"");
    assert_eq!((output.access, output.channel), (Access::Write, Some(Channel::Terminal)));
    assert_eq!(grant("console", "channel = \"exec\"").channel, Some(Channel::Exec));
    for (protocol, more, line, words) in [
        ("file", "access = \"none\"", 9, "unknown variant `none`"),
        ("file", "access = \"write\"", 9, "`access` is"),
        ("file", "channel = \"exec\"", 9, "protocol `file`: the protocol has no option `channel`"),
        ("file", "folder = \"DATA\"", 9, "`folder` is a path such as"),
        ("file", "folder = \"/A/../B\"", 9, "`folder` is a path such as"),
        ("console", "channel = \"com3\"", 9, "unknown variant `com3`"),
        ("console", "", 8, "say `channel = \"terminal\"`"),
        ("console", "channel = \"exec\", folder = \"/A\"", 9, "has no option `folder`"),
        ("p", "access = \"read\"", 9, "protocol `p`: the protocol has no option `access`"),
        ("p", "access = \"read-write\"", 9, "protocol `p`: the protocol has no option `access`"),
        ("p", "colour = 1", 9, "unknown field `colour`"),
    ] {
        refused(&with(protocol, more), line, words);
    }
    let long = format!("folder = \"/{}\"", "x".repeat(64));
    refused(&with("file", &long), 9, "of 64 bytes at most");
}

#[test]
fn groups_stand_behind_their_parents() {
    let group = |name: &str, more: &str| {
        format!("[[group]]\nname = \"{name}\"\nstrategy = \"rest_for_one\"\n{more}\n")
    };
    let child = group("child", "parent = \"top\"");
    let member = server("a", 10, "group = \"child\"");
    let text = HEAD.to_string() + &child + &group("top", "intensity = 9") + &member;
    let manifest = parse(&source(&text), "t").unwrap();
    let names: Vec<_> = manifest.groups.iter().map(|g| (g.name.as_str(), g.parent)).collect();
    assert_eq!(names, [("top", None), ("child", Some(0))]);
    assert_eq!(
        (manifest.groups[0].intensity, manifest.groups[0].strategy),
        (9, Strategy::RestForOne)
    );
    assert_eq!(manifest.servers[0].group, Some(1));
    refused(&child, 6, "there is no group `top`");
    refused(&member, 8, "there is no group `child`");
    let circle = child.clone() + &group("top", "parent = \"child\"");
    refused(&circle, 10, "a cycle of parents: child -> top -> child");
    refused(&(group("x", "") + &group("x", "")), 8, "a second group called `x`");
    refused(&group("x", "").replace("rest", "none"), 5, "unknown variant `none_for_one`");
    let many: String = (0..9).map(|n| group(&format!("g{n}"), "")).collect();
    refused(&many, 36, "more than 8 groups");
}

#[test]
fn many_servers_in_a_row_are_too_many_and_not_too_deep() {
    let name = |n: usize| format!("s{n}");
    let text: String = (0..20_000)
        .map(|n| {
            let next = format!("server = \"{}\", protocol = \"p\"", name(n + 1));
            server(&name(n), 10, &format!("needs = [{{ name = \"x\", {next} }}]"))
        })
        .collect();
    refused(&text, 4 + 6 * 32, "more than 32 servers");
}

#[test]
fn nothing_is_given_twice() {
    let two = |a: &str, b: &str| server("a", 10, a) + &server("b", 20, b);
    let disk = "devices = [{ pci = \"1af4:1042\" }]";
    let both = "devices = [{ pci = [\"1AF4:1001\", \"1AF4:1042\"] }]";
    refused(&two(disk, both), 14, "1af4:1042 number 0 is given to `a` already");
    let ports = |first, last| format!("ports = [{{ first = {first}, last = {last} }}]");
    refused(&two(&ports(8, 15), &ports(15, 20)), 14, "given to `a` already");
    refused(&server("a", 10, &ports(9, 8)), 8, "none");
    refused(&two("lines = [{ gsi = 4 }]", "lines = [{ gsi = 4 }]"), 14, "line 4 is given to `a`");
    refused(&server("a", 1, "lines = [{ level = true }]"), 8, "either `gsi` (PC) or `intid`");
    refused(&two("", "").replace("\"b\"", "\"a\""), 10, "a second server called `a`");
}

#[test]
fn values_out_of_range() {
    refused(&server("A b", 10, ""), 4, "`A b`: a name has lower case");
    refused(&server(&"x".repeat(33), 10, ""), 4, "longer than 32 bytes");
    refused(&server("a", 251, ""), 5, "must be 1 to 250");
    refused(&server("a", 1, "budget_us = 2000\nperiod_us = 1000"), 9, "must be 2000 to");
    refused(&server("a", 1, "intensity_period_ms = 1"), 8, "must be 1000 to");
    refused(&server("a", 1, "heartbeat_ms = 1"), 8, "must be 20 to");
    refused(&server("a", 1, "").replace("1MiB", "3MiB"), 6, "a power of two");
    refused(&server("a", 1, "heap = \"1MiB\""), 6, "do not fit into the quota");
    refused(&server("a", 1, "replies = 0"), 8, "must be 1 to 16");
    refused(&server("a", 1, "devices = [{ pci = \"zz\" }]"), 8, "in hexadecimal");
    let one_of = "a device has one of `pci`, `compatible` and `virtio`";
    refused(&server("a", 1, "devices = [{ index = 1 }]"), 8, one_of);
    let both = "devices = [{ virtio = \"net\", pci = \"1af4:1041\" }]";
    refused(&server("a", 1, both), 8, one_of);
    let unknown = "devices = [{ virtio = \"disk\" }]";
    refused(&server("a", 1, unknown), 8, "there are: net, block, console, rng, gpu, input");
    refused(&server("a", 1, "devices = [{ virtio = \"net\", vectors = 9 }]"), 8, "more than 8");
    refused(&server("a", 1, "devices = [{ compatible = \"x\", vectors = 1 }]"), 8, "for PCI");
    let other = server("b", 1, "binary = \"a\"\nfpu = true");
    refused(&(server("a", 1, "") + &other), 10, "only one of them has `fpu = true`");
}

#[test]
fn programs_have_slots_with_all_that_one_may_be_given() {
    let text = format!(
        "{HEAD}[programs]\ncount = 2\npriority = 20\nmemory = \"1MiB\"\n\
         needs = [{{ name = \"x\", server = \"a\", protocol = \"p\", shared = \"8KiB\" }}]\n{}",
        server("a", 30, "provides = [\"p\"]")
    );
    let manifest = parse(&source(&text), "t").unwrap();
    let slots: Vec<&Server> = manifest.servers.iter().filter(|s| s.is_slot).collect();
    assert_eq!((slots.len(), manifest.edges.len()), (2, 2));
    assert_eq!((slots[1].name.as_str(), slots[1].binary.as_str()), ("program-2", ""));
    assert_eq!((slots[1].priority, slots[1].quota_bytes), (20, 1 << 20));
    assert_eq!(slots[1].restart, Restart::Temporary);
    assert_eq!(binaries(&manifest).len(), 1, "a slot has no program of its own");
}

#[test]
fn programs_may_not_have_what_no_program_can() {
    let programs = |count: u8, priority: u8, more: &str| {
        let table = format!("[programs]\ncount = {count}\npriority = {priority}\n");
        let need = format!("name = \"x\", server = \"a\", protocol = \"p\"{more}");
        let needs = format!("memory = \"1MiB\"\nneeds = [{{ {need} }}]\n");
        table + &needs + &server("a", 30, "provides = [\"p\"]")
    };
    refused(&programs(9, 20, ""), 4, "at most 8 programs");
    refused(&programs(1, 30, ""), 7, "calls go uphill");
    refused(&programs(1, 20, ", shared = \"512KiB\""), 7, "shares 256 KiB at most");
    refused(&programs(1, 20, ", shared = \"4KiB\", dma = true"), 7, "no memory with devices");
    refused(&programs(1, 20, ", may_complain = true"), 7, "no program is believed");
    refused(&programs(1, 20, ", sessions = 0"), 7, "at least one session");
}
