//! Which instance of the server may touch devices: the first, and whoever follows one that died while
//! it enumerated. Drivers of the others' devices are at work.

use super::{no_windows, numbered_bridges, windows};
use crate::survivor::Survivor;
use crate::takeover::functions;
use libipc::Shared;

/// Bytes of a region with room for all.
const ROOM: usize = 8192;

#[test]
fn a_successor_touches_no_device() {
    for windows in [no_windows(), windows()] {
        let mut fake = numbered_bridges();
        let memory = Shared::leaked(ROOM);
        let first = functions(&mut fake, Survivor::open(memory), 1, windows.clone());
        assert!(!first.is_empty());
        let accesses = fake.accesses.get();
        for number in 2..6 {
            let kept = functions(&mut fake, Survivor::open(memory), number, windows.clone());
            assert_eq!((&kept, fake.accesses.get()), (&first, accesses), "instance {number}");
        }
    }
}

/// Whether instances from the second on touch nothing and know of nothing, once `spoil` was done to the
/// region of the first.
fn nobody_touches_anything(memory: Shared, spoil: impl Fn()) {
    let mut fake = numbered_bridges();
    assert!(!functions(&mut fake, Survivor::open(memory), 1, windows()).is_empty());
    spoil();
    let (accesses, before) = (fake.accesses.get(), fake.root.clone());
    for number in 2..7 {
        let known = functions(&mut fake, Survivor::open(memory), number, windows());
        assert_eq!((known.len(), fake.accesses.get()), (0, accesses), "instance {number}");
    }
    assert_eq!(fake.root, before);
}

#[test]
fn devices_at_work_are_not_enumerated_again_whatever_became_of_the_table() {
    // Any word of the header, and the table itself.
    for at in [0, 8, 16, 24, 48, 100] {
        let memory = Shared::leaked(ROOM);
        nobody_touches_anything(memory, || {
            let mut old = [0; 2];
            memory.read(at, &mut old);
            memory.write(at, &old.map(|byte| byte ^ 0x5e));
        });
    }
    let memory = Shared::leaked(ROOM);
    nobody_touches_anything(memory, || memory.write(0, &[0xff; ROOM]));
    // No room for the table; for anything; no region.
    for size in [128, 64, 0] {
        let memory = if size > 0 { Shared::leaked(size) } else { Shared::EMPTY };
        nobody_touches_anything(memory, || ());
    }
}

#[test]
fn a_blank_region_of_a_later_instance_is_one_that_nobody_came_to() {
    // The instances before it died before they could touch anything.
    let mut fake = numbered_bridges();
    let found = functions(&mut fake, Survivor::open(Shared::leaked(ROOM)), 3, no_windows());
    assert!(!found.is_empty());
}
