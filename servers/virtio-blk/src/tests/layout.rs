//! The capability walk over hostile configuration space.

use crate::layout::{Layout, LayoutError, Window};
use std::vec::Vec;

/// Configuration space with virtio capabilities (kind, BAR, offset, length) in a row from 0x40.
fn config(structures: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut config = std::vec![0; 256];
    config[6] = 0x10;
    config[0x34] = 0x40;
    // An MSI-X capability first, to be skipped.
    config[0x40] = 0x11;
    config[0x41] = 0x50;
    for (i, (kind, bar, offset, length)) in structures.iter().enumerate() {
        let at = 0x50 + 20 * i;
        let next = if i + 1 < structures.len() { at + 20 } else { 0 };
        config[at..at + 5].copy_from_slice(&[9, next as u8, 20, *kind, *bar]);
        config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
        config[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        config[at + 16..at + 20].copy_from_slice(&4u32.to_le_bytes());
    }
    config
}

const GOOD: [(u8, u8, u32, u32); 5] = [
    (5, 0, 0, 0),
    (2, 4, 0x3000, 0x1000),
    (4, 4, 0x2000, 0x1000),
    (3, 4, 0x1000, 0x1000),
    (1, 4, 0, 0x1000),
];

#[test]
fn qemu_like_capabilities_are_found() {
    let layout = Layout::find(&config(&GOOD)).unwrap();
    let window = |offset| Window { bar: 4, offset, length: 0x1000 };
    assert_eq!(layout.common, window(0));
    assert_eq!(layout.notify, window(0x3000));
    assert_eq!(layout.device, window(0x2000));
    assert_eq!(layout.notify_multiplier, 4);
    assert_eq!(layout.isr(), Ok(window(0x1000)));
}

#[test]
fn the_first_of_a_kind_counts_and_reserved_bars_are_ignored() {
    let mut all = [(1, 6, 0, 0x1000); 7];
    all[1] = (1, 2, 0x40, 0x1000);
    all[2..].copy_from_slice(&GOOD);
    let layout = Layout::find(&config(&all)).unwrap();
    assert_eq!(layout.common, Window { bar: 2, offset: 0x40, length: 0x1000 });
}

#[test]
fn of_each_kind_a_second_structure_is_ignored() {
    let good = Layout::find(&config(&GOOD)).unwrap();
    for kind in 1..=4 {
        let mut twice = GOOD.to_vec();
        twice.push((kind, 2, 0x4000, 0x2000));
        assert_eq!(Layout::find(&config(&twice)), Ok(good), "{kind}");
    }
}

#[test]
fn what_is_missing_or_unusable_is_named() {
    for kind in [1, 2, 4] {
        let without: Vec<_> = GOOD.into_iter().filter(|s| s.0 != kind).collect();
        assert_eq!(Layout::find(&config(&without)), Err(LayoutError::Missing(kind)));
        for (offset, length) in [(0x1001, 0x1000), (0, 1)] {
            let bent = GOOD.map(|s| if s.0 == kind { (s.0, s.1, offset, length) } else { s });
            assert_eq!(Layout::find(&config(&bent)), Err(LayoutError::Unusable(kind)));
        }
    }
    // The ISR status is missed by a driver that needs it.
    for isr in [(9, 0, 0, 0), (3, 4, 0x1000, 0)] {
        let bent = GOOD.map(|s| if s.0 == 3 { isr } else { s });
        let layout = Layout::find(&config(&bent)).unwrap();
        assert_eq!(layout.isr(), Err(LayoutError::Missing(3)));
    }
    let overflow = GOOD.map(|s| if s.0 == 1 { (1, 4, u32::MAX - 3, 0x1000) } else { s });
    assert_eq!(Layout::find(&config(&overflow)), Err(LayoutError::Missing(1)));
}

#[test]
fn loops_and_stray_pointers_end_the_walk() {
    let mut looped = config(&GOOD);
    looped[0x41] = 0x40;
    assert_eq!(Layout::find(&looped), Err(LayoutError::Broken));
    let mut stray = config(&GOOD);
    stray[0x34] = 0x10;
    assert_eq!(Layout::find(&stray), Err(LayoutError::Broken));
    let mut none = config(&GOOD);
    none[6] = 0;
    assert_eq!(Layout::find(&none), Err(LayoutError::NoCapabilities));
    assert_eq!(Layout::find(&[]), Err(LayoutError::NoCapabilities));
    // Cut anywhere: an error or a layout, never a panic.
    let whole = config(&GOOD);
    for length in 0..whole.len() {
        let _ = Layout::find(&whole[..length]);
    }
}
