//! Tests of the plan: nothing overlaps, every page has its tables, the quota is what it takes.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec as StdVec;

fn page(offset: u64, kind: PageKind) -> Page {
    Page { offset, kind }
}

fn sample() -> Plan {
    let text = PageKind::Shared { rights: map_rights::READ | map_rights::EXECUTE };
    let constants = PageKind::Shared { rights: map_rights::READ };
    let mut plan = Plan::EMPTY;
    let pages = [
        page(0, constants),
        page(PAGE, constants),
        page(2 * PAGE, text),
        page(3 * PAGE, PageKind::Private),
        page(4 * PAGE, PageKind::Zero),
        page(5 * PAGE, PageKind::Zero),
    ];
    plan.add_image(pages.into_iter(), 1000).unwrap();
    plan.add_own(5000).unwrap();
    for _ in 0..3 {
        plan.add_own(16384).unwrap();
    }
    plan.add_heap(4 << 20).unwrap();
    let shared = Frames { first: 2000, count: 300, size_bits: SMALL_BITS, paddr: 0 };
    plan.add_granted(&shared, READ_WRITE, MemoryType::Normal).unwrap();
    let large = Frames { first: 3000, count: 4, size_bits: LARGE_BITS, paddr: 1 << 21 };
    plan.add_granted(&large, READ_WRITE, MemoryType::Normal).unwrap();
    let bar = Frames { first: 4000, count: 4, size_bits: SMALL_BITS, paddr: 1 << 32 };
    plan.add_granted_except(&bar, READ_WRITE, MemoryType::Device, 1..2).unwrap();
    plan
}

/// Walks the plan as the kernel would: every mapping finds its tables, and no page is mapped twice.
fn check(plan: &Plan) {
    let mut tables: [BTreeSet<u64>; 3] = Default::default();
    for at in &plan.tables {
        let missing =
            [39, 30, 21].iter().enumerate().find(|(i, bits)| !tables[*i].contains(&(at >> *bits)));
        let (level, bits) = missing.expect("no table too many");
        tables[level].insert(at >> bits);
    }
    let mut mapped = BTreeMap::new();
    for m in &plan.mappings {
        for i in 0..u64::from(m.count) {
            let at = m.vaddr + (i << m.size_bits);
            assert!(at.is_multiple_of(1 << m.size_bits) && at < END);
            let levels = if m.size_bits == LARGE_BITS { 2 } else { 3 };
            for (level, bits) in [39, 30, 21].iter().enumerate().take(levels) {
                assert!(tables[level].contains(&(at >> bits)), "no table for {at:#x}");
            }
            assert!(mapped.insert(at, 1u64 << m.size_bits).is_none());
        }
    }
    let mut end = 0;
    for (at, size) in mapped {
        assert!(at >= end, "{at:#x} is mapped twice");
        end = at + size;
    }
}

#[test]
fn nothing_overlaps_and_every_page_has_its_tables() {
    let mut plan = sample();
    plan.finish(2, 3, 100, 16 << 20).unwrap();
    check(&plan);
    // Image: constants, text, data, bss.
    let image: StdVec<_> = plan.mappings.iter().take(4).collect();
    assert_eq!((image[0].count, image[0].source), (2, Source::Granted(1000)));
    assert_eq!((image[1].count, image[1].source), (1, Source::Granted(1002)));
    assert_eq!((image[2].content, image[3].count), (Content::Pristine(3), 2));
    // The hidden page of the BAR is a hole of one page between two runs.
    let bar: StdVec<_> = plan.mappings.iter().rev().take(2).collect();
    assert_eq!((bar[1].count, bar[0].count), (1, 2));
    assert_eq!(bar[0].vaddr, bar[1].vaddr + 2 * PAGE);
    assert_eq!(bar[0].source, Source::Granted(4002));
}

#[test]
fn stacks_have_an_unmapped_page_below() {
    let mut plan = Plan::EMPTY;
    let a = plan.add_own(16384).unwrap();
    let b = plan.add_own(16384).unwrap();
    assert!(b >= a + 16384 + PAGE);
}

#[test]
fn slots_of_the_kit_are_disjoint_and_inside() {
    let mut plan = sample();
    plan.finish(MAX_THREADS as u64, 16, 300, 16 << 20).unwrap();
    let mut taken = BTreeSet::new();
    for r in &plan.retypes {
        assert!((1..=RETYPE_MAX).contains(&r.count));
        for slot in r.slot..r.slot + r.count {
            assert!(taken.insert(slot), "slot {slot} twice");
            assert!(slot < 1 << plan.kit_radix);
        }
    }
    let copies = plan.count(|m| m.source != Source::Own);
    assert!((plan.copies_slot..plan.copies_slot + copies).all(|s| taken.insert(s)));
    assert!(plan.copies_slot + copies <= 1 << plan.kit_radix);
    assert_eq!(plan.cspace_radix, 9);
}

#[test]
fn the_quota_is_checked_to_the_byte() {
    let mut plan = sample();
    plan.finish(1, 1, 100, 16 << 20).unwrap();
    let needed = plan.needed_bytes;
    assert!(sample().finish(1, 1, 100, needed).is_ok());
    let short = sample().finish(1, 1, 100, needed - 1);
    assert_eq!(short, Err(PlanError::Quota { needed, quota: needed - 1 }));
}

#[test]
fn too_much_is_an_error() {
    let mut plan = Plan::EMPTY;
    let mut result = Ok(0);
    for _ in 0..=MAX_MAPPINGS {
        result = plan.add_own(1);
    }
    assert_eq!(result, Err(PlanError::TooManyRegions));
    let mut plan = Plan::EMPTY;
    assert_eq!(plan.add_own(END), Err(PlanError::TooLarge));
    let huge = Frames { first: 0, count: 1 << 16, size_bits: SMALL_BITS, paddr: 0 };
    let mut plan = Plan::EMPTY;
    plan.add_granted(&huge, map_rights::READ, MemoryType::Normal).unwrap();
    assert_eq!(plan.finish(1, 1, 1, 1 << 40), Err(PlanError::TooLarge));
}
