//! The shipped manifest is good, and each mistake is told with its line.

use super::*;
use crate::workspace::{Arch, Workspace};
use skink_manifest::Restart;

const HEAD: &str = "[system]\ntarget = \"t\"\n";

fn source(text: &str) -> Source {
    Source { path: "system.toml".into(), text: text.into() }
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

#[test]
fn the_pcs_manifest_is_good_and_in_start_order() {
    let arch = Arch::X86_64;
    let path = Workspace::find().unwrap().target_folder(arch).join("system.toml");
    let manifest = load(&path, arch.target()).unwrap();
    for edge in &manifest.edges {
        assert!(edge.server < edge.client, "{edge:?}");
    }
    let blk = manifest.servers.iter().find(|server| server.name == "virtio-blk").unwrap();
    assert_eq!(blk.restart, Restart::Permanent);
    assert_eq!(blk.quota_bytes, 1 << 20);
    let encoded = encode(&manifest).unwrap();
    assert_eq!(postcard::from_bytes::<Manifest>(&encoded).unwrap(), manifest);
    assert_eq!(binaries(&manifest).len(), manifest.servers.len());
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
    refused(&server("a", 1, "").replace("1MiB", "3MiB"), 6, "a power of two");
    refused(&server("a", 1, "heap = \"1MiB\""), 6, "do not fit into the quota");
    refused(&server("a", 1, "replies = 0"), 8, "must be 1 to 16");
    refused(&server("a", 1, "devices = [{ pci = \"zz\" }]"), 8, "in hexadecimal");
    refused(&server("a", 1, "devices = [{ index = 1 }]"), 8, "either `pci` or `compatible`");
}
