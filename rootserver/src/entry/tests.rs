//! Entries that are refused, each for what is wrong with it; and what the others come to.

use super::*;
use crate::image::NO_MANIFEST;
use crate::supervise::tests::server;
use proptest::prelude::*;
use skink_manifest::{Access, Channel, Restart};
use std::boxed::Box;
use std::format;
use std::string::{String as StdString, ToString};

const LIMITS: Limits = Limits { priority: 90, quota_bytes: 4 << 20 };

fn named(name: &str) -> Name {
    name.try_into().unwrap()
}

fn of(entry: &ProgramEntry) -> Result<Server, StdString> {
    server_of(entry, named("p"), LIMITS).map_err(|why| why.to_string())
}

/// The manifest of a server `s`, another, and a slot with two edges to `s` and none to the other.
fn manifest() -> Box<Manifest> {
    let mut manifest = Box::new(NO_MANIFEST);
    for name in ["s", "other", "slot"] {
        manifest.servers.push(server(name, Restart::Temporary)).unwrap();
    }
    for (name, client) in [("a", 1), ("b", 2), ("c", 2)] {
        let edge = Edge {
            name: named(name),
            client,
            server: 0,
            protocol: named("speech"),
            sessions: 1,
            shared_bytes: 8192,
            dma: false,
            grant: SessionGrant::default(),
            may_complain: false,
        };
        manifest.edges.push(edge).unwrap();
    }
    manifest
}

fn need(name: &str, server: &str, protocol: &str, shared_bytes: u32) -> ProgramNeed {
    ProgramNeed {
        name: named(name),
        server: named(server),
        protocol: named(protocol),
        shared_bytes,
        grant: SessionGrant::default(),
    }
}

fn edges(needs: &[ProgramNeed]) -> Result<Vec<GrantedEdge, MAX_GRANTED>, StdString> {
    let entry = ProgramEntry { needs: needs.try_into().unwrap(), ..ProgramEntry::default() };
    edges_of(&entry, &manifest(), 2).map_err(|why| why.to_string())
}

#[test]
fn without_an_entry_a_program_has_memory_and_its_output_and_nothing_else() {
    let server = of(&ProgramEntry::default()).unwrap();
    assert_eq!(server.privileges, Privileges::default());
    assert!(server.devices.is_empty() && server.ports.is_empty() && server.lines.is_empty());
    assert_eq!((server.priority, server.dma_bytes, server.survivor_bytes), (90, 0, 0));
    assert!(server.is_slot && server.restart == Restart::Temporary);
    assert!(edges(&[]).unwrap().is_empty());
}

#[test]
fn each_excess_is_refused_by_its_name() {
    type Change = fn(&mut ProgramEntry);
    let cases: [(&str, Change); 23] = [
        ("`priority` is 91", |e| e.priority = Some(91)),
        ("`priority` is 0", |e| e.priority = Some(0)),
        ("`budget_us` is 99", |e| e.budget_us = 99),
        ("`period_us` is 9999", |e| e.period_us = 9_999),
        ("`memory` is 8388608", |e| e.memory_bytes = 8 << 20),
        ("`memory` is 0", |e| e.memory_bytes = 0),
        ("no power of two", |e| e.memory_bytes = (1 << 20) + 4096),
        ("`extra_threads` is 9", |e| e.extra_threads = 9),
        ("`intensity` is 256", |e| e.intensity = 256),
        ("`intensity_period_ms` is 0", |e| e.intensity_period_ms = 0),
        ("`intensity_period_ms` is 999", |e| e.intensity_period_ms = 999),
        // Restarts are done at the root server's priority: one a second at most.
        ("`intensity` is 11: a program may have 0 to 10", |e| e.intensity = 11),
        ("`intensity` is 2", |e| (e.intensity, e.intensity_period_ms) = (2, 1_999)),
        // Slices that others of its priority wait for.
        ("`budget_us` is 10001", |e| (e.budget_us, e.period_us) = (10_001, 20_000)),
        ("`period_us` is 200001", |e| e.period_us = 200_001),
        ("`heartbeat_ms` is 1:", |e| e.heartbeat_ms = 1),
        ("`heartbeat_ms` is 19", |e| e.heartbeat_ms = 19),
        ("`replies` is 0", |e| e.replies = 0),
        ("`stack` is 0", |e| e.stack_bytes = 0),
        ("`heap` of 5000 bytes is not whole pages", |e| e.heap_bytes = 5000),
        ("`survivor` is 266240", |e| e.survivor_bytes = (256 << 10) + 4096),
        ("do not fit into `memory`", |e| e.heap_bytes = 1 << 20),
        ("do not fit into `memory`", |e| (e.extra_threads, e.stack_bytes) = (8, 128 << 10)),
    ];
    for (words, change) in cases {
        let mut entry = ProgramEntry::default();
        change(&mut entry);
        let refusal = of(&entry).unwrap_err();
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
}

#[test]
fn needs_come_to_edges_of_the_slot_each_once() {
    let two = [need("x", "s", "speech", 0), need("y", "s", "speech", 8192)];
    let granted = edges(&two).unwrap();
    let found: std::vec::Vec<_> = granted.iter().map(|g| (g.edge, g.name.as_str())).collect();
    assert_eq!(found, [(1, "x"), (2, "y")]);
    let refused = |needs: &[ProgramNeed], words: &str| {
        let refusal = edges(needs).unwrap_err();
        assert!(refusal.contains(words), "{words}: {refusal}");
    };
    let [x, y] = two;
    refused(&[x.clone(), y, need("z", "s", "speech", 0)], "may have another session");
    refused(&[need("x", "other", "speech", 0)], "may have a session");
    refused(&[need("x", "nobody", "speech", 0)], "may have a session");
    refused(&[need("x", "s", "signs", 0)], "may have a session");
    refused(&[need("x", "s", "speech", 8193)], "8193 bytes shared; there are 8192");
    refused(&[x.clone(), x], "two needs are called `x`");
    refused(&[need("X", "s", "speech", 0)], "lower case");
}

#[test]
fn a_program_gets_what_its_slot_offers_or_the_less_that_it_asks_for() {
    let mut manifest = manifest();
    let terminal = SessionGrant { channel: Some(Channel::Terminal), ..SessionGrant::default() };
    for (edge, protocol, grant) in [
        (1, "file", SessionGrant { access: Access::Read, ..SessionGrant::default() }),
        (2, "console", SessionGrant { access: Access::Write, ..terminal.clone() }),
    ] {
        manifest.edges[edge].protocol = named(protocol);
        manifest.edges[edge].grant = grant;
    }
    let of = |protocol: &str, grant: &SessionGrant| {
        let need = ProgramNeed { grant: grant.clone(), ..need("x", "s", protocol, 0) };
        let entry = ProgramEntry { needs: [need].into_iter().collect(), ..ProgramEntry::default() };
        let granted = edges_of(&entry, &manifest, 2).map_err(|why| why.to_string())?;
        Ok::<_, StdString>(granted[0].grant.clone())
    };
    let all = SessionGrant::default();
    assert_eq!(of("file", &all).unwrap(), manifest.edges[1].grant);
    assert_eq!(of("console", &all).unwrap(), manifest.edges[2].grant);
    let folder = SessionGrant { folder: Some("/A".try_into().unwrap()), ..all.clone() };
    let narrowed = SessionGrant { access: Access::Read, ..folder.clone() };
    assert_eq!(of("file", &folder).unwrap(), narrowed);
    let refused = |protocol: &str, grant: &SessionGrant, words: &str| {
        let refusal = of(protocol, grant).unwrap_err();
        assert!(refusal.contains(words), "{words}: {refusal}");
    };
    let exec = SessionGrant { channel: Some(Channel::Exec), ..all.clone() };
    refused("console", &exec, "no program may have so much of `console`");
    let read = SessionGrant { access: Access::Read, ..all.clone() };
    refused("console", &read, "no program may have so much of `console`");
    refused("file", &terminal, "has no option `channel`");
    let bad = SessionGrant { folder: Some("/A/..".try_into().unwrap()), ..all };
    refused("file", &bad, "`folder` is a path");
}

#[test]
fn of_several_edges_that_fit_the_first_is_taken_that_offers_enough() {
    let mut manifest = manifest();
    for edge in [1, 2] {
        manifest.edges[edge].protocol = named("file");
    }
    manifest.edges[1].grant.access = Access::Read;
    manifest.edges[1].grant.folder = Some("/A".try_into().unwrap());
    let wanted = SessionGrant { folder: Some("/B".try_into().unwrap()), ..SessionGrant::default() };
    let need = ProgramNeed { grant: wanted.clone(), ..need("x", "s", "file", 0) };
    let entry = ProgramEntry { needs: [need].into_iter().collect(), ..ProgramEntry::default() };
    let granted = edges_of(&entry, &manifest, 2).unwrap();
    assert_eq!((granted[0].edge, &granted[0].grant), (2, &wanted));
}

#[test]
fn the_output_comes_without_asking() {
    let mut manifest = manifest();
    let output = Edge { name: named("x"), protocol: named(EDGE), ..manifest.edges[1].clone() };
    manifest.edges.push(output).unwrap();
    let granted = |needs: &[ProgramNeed]| {
        let entry = ProgramEntry { needs: needs.try_into().unwrap(), ..ProgramEntry::default() };
        let granted = edges_of(&entry, &manifest, 2).unwrap();
        granted
            .iter()
            .map(|g| (g.edge, StdString::from(g.name.as_str())))
            .collect::<std::vec::Vec<_>>()
    };
    assert_eq!(granted(&[]), [(3, EDGE.into())]);
    let both = granted(&[need("x", "s", "speech", 0)]);
    assert_eq!(both, [(1, "x".into()), (3, EDGE.into())]);
    // Who asks for it by another name, or calls another so, prints to nobody.
    assert_eq!(granted(&[need("y", "s", EDGE, 0)]), [(3, "y".into())]);
    assert_eq!(granted(&[need(EDGE, "s", "speech", 0)]), [(1, EDGE.into())]);
}

#[test]
fn names_are_made_unique_and_never_too_long() {
    let taken = ["a", "a-2", "b"];
    let unique = |name: &str| unique_name(&named(name), |n| taken.contains(&n));
    assert_eq!(unique("c").unwrap(), "c");
    assert_eq!(unique("b").unwrap(), "b-2");
    assert_eq!(unique("a").unwrap(), "a-3");
    for name in ["", "A", "ä"] {
        assert_eq!(unique(name), Err(refuse!("`{name}`: {NAME_RULE}")));
    }
    // Lines of the log that begin with it are the root server's.
    assert_eq!(unique("root").unwrap(), "root-2");
    let long = "x".repeat(32);
    let shortened = unique_name(&named(&long), |name| name == long).unwrap();
    assert_eq!(shortened, format!("{}-2", "x".repeat(27)).as_str());
    let full = unique_name(&named("a"), |_| true);
    assert_eq!(full.unwrap_err(), "too many programs are called `a`");
}

proptest! {
    /// Whatever an entry says, what it comes to is within the limits, or nothing.
    #[test]
    fn nothing_beyond_the_limits_gets_through(
        words in prop::array::uniform8(any::<u32>()),
        priority in any::<Option<u8>>(),
        bits in 0u32..40,
        small in prop::array::uniform2(any::<u8>()),
    ) {
        let [budget_us, period_us, stack, heap, survivor, intensity, period, heartbeat_ms] = words;
        let entry = ProgramEntry {
            priority,
            budget_us: budget_us >> (bits % 32),
            period_us,
            memory_bytes: 1 << bits,
            stack_bytes: stack >> 12 << 12 >> (bits % 20),
            heap_bytes: heap >> 20 << 12,
            survivor_bytes: survivor >> 24 << 12,
            extra_threads: small[0] % 12,
            replies: small[1] % 20,
            intensity: (intensity >> (bits % 32)) as u16,
            intensity_period_ms: period >> (bits % 32),
            backoff_ms: period,
            heartbeat_ms: heartbeat_ms >> (bits % 32),
            ..ProgramEntry::default()
        };
        if let Ok(server) = server_of(&entry, named("p"), LIMITS) {
            prop_assert!((1..=90).contains(&server.priority));
            prop_assert!(server.quota_bytes <= LIMITS.quota_bytes);
            let threads = u64::from(server.extra_threads) + 1;
            let used = u64::from(server.stack_bytes) * threads + u64::from(server.heap_bytes);
            prop_assert!(used < server.quota_bytes);
            prop_assert!(server.budget_us <= server.period_us.min(10_000));
            prop_assert!(server.period_us <= 200_000);
            prop_assert!(u32::from(server.intensity) <= server.intensity_period_ms / 1_000);
            prop_assert!(server.survivor_bytes <= MAX_SURVIVOR);
            prop_assert!(server.intensity_period_ms >= MIN_INTENSITY_PERIOD_MS && server.intensity < 256);
            prop_assert!(server.heartbeat_ms == 0 || server.heartbeat_ms >= MIN_HEARTBEAT_MS);
            let only_log = Privileges { log: server.privileges.log, ..Privileges::default() };
            prop_assert_eq!(server.privileges, only_log);
        }
    }
}

#[test]
fn a_program_may_write_to_the_log_if_its_entry_says_so_and_has_no_other_privilege() {
    for log in [false, true] {
        let server = of(&ProgramEntry { log, ..ProgramEntry::default() }).unwrap();
        assert_eq!(server.privileges, Privileges { log, ..Privileges::default() });
    }
}
