//! Tests of what one instance leaves to the next.

use super::fake::Fake;
use super::{find, no_windows, numbered_bridges, windows};
use crate::survivor::{Journal, Kept, Probe, Survivor};
use crate::walk::enumerate;
use crate::windows::Windows;
use libipc::Shared;
use skink_protocols::pci::{Address, Function};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

#[test]
fn a_kept_table_is_found_again_and_a_spoiled_one_is_not() {
    let memory = Shared::leaked(4096);
    let survivor = Survivor::open(memory);
    assert_eq!(survivor.functions(), Kept::Nothing);
    let functions = find(&mut numbered_bridges(), no_windows());
    assert!(survivor.keep(&functions));
    assert_eq!(Survivor::open(memory).functions(), Kept::Functions(functions.clone()));
    // A byte of the table, its length, its check, the version: drivers may be at work all the same.
    for at in [100, 8, 16, 0] {
        let mut old = [0];
        memory.read(at, &mut old);
        memory.write(at, &[old[0] ^ 0xee]);
        assert_eq!(Survivor::open(memory).functions(), Kept::Spoiled, "byte {at}");
        memory.write(at, &old);
        assert_eq!(Survivor::open(memory).functions(), Kept::Functions(functions.clone()));
    }
    // Too small for the table; too small for anything; nothing at all.
    assert!(!Survivor::open(Shared::leaked(128)).keep(&functions));
    for survivor in [Survivor::open(Shared::leaked(64)), Survivor::open(Shared::EMPTY)] {
        assert!(!survivor.exists() && !survivor.keep(&functions));
    }
}

#[test]
fn a_spoiled_region_stays_spoiled_for_every_later_instance() {
    let functions = find(&mut numbered_bridges(), no_windows());
    for at in [0, 8, 16, 24, 48, 100] {
        let memory = Shared::leaked(4096);
        assert!(Survivor::open(memory).keep(&functions));
        let mut old = [0; 2];
        memory.read(at, &mut old);
        memory.write(at, &old.map(|byte| byte ^ 0x5e));
        for instance in 2..6 {
            let mut fake = numbered_bridges();
            let survivor = Survivor::open(memory);
            assert_eq!(survivor.functions(), Kept::Spoiled, "byte {at}, instance {instance}");
            survivor.recover(&mut fake);
            assert_eq!(fake.accesses.get(), 0, "byte {at}, instance {instance}");
        }
    }
}

#[test]
fn a_table_without_room_is_not_enumerated_again() {
    let memory = Shared::leaked(128);
    let functions = find(&mut numbered_bridges(), no_windows());
    assert!(!Survivor::open(memory).keep(&functions));
    for _ in 2..5 {
        assert_eq!(Survivor::open(memory).functions(), Kept::NoRoom);
    }
}

#[test]
fn a_table_that_fills_the_region_to_its_last_byte_is_kept() {
    let functions = find(&mut numbered_bridges(), no_windows());
    let fits = |bytes| Survivor::open(Shared::leaked(bytes)).keep(&functions);
    let bytes = (64..4096).find(|bytes| fits(*bytes)).unwrap();
    let memory = Shared::leaked(bytes);
    assert!(Survivor::open(memory).keep(&functions));
    assert_eq!(Survivor::open(memory).functions(), Kept::Functions(functions));
}

/// A function whose base address registers keep what they are given.
fn one_function() -> Fake {
    let function = super::FakeFunction::new(1, 1, 0).wide_bar(2, 0x8_0000_0000, 0x4000, true);
    Fake::new([((2, 0), function.bar(1, 0xfebd_0000, !0xfff))])
}

#[test]
fn a_probe_that_was_noted_is_undone_register_by_register() {
    let before = one_function();
    let address = Address::new(0, 2, 0);
    for (offset, is_wide, original) in
        [(0x14, false, 0xfebd_0000), (0x18, true, 0x8_0000_000c), (0x18, false, 0xc)]
    {
        let survivor = Survivor::open(Shared::leaked(4096));
        survivor.begin(Probe { address, command: 7, offset, is_wide, original });
        let mut fake = before.clone();
        let words = &mut fake.root.get_mut(&(2, 0)).unwrap().words;
        (words[5], words[6], words[7]) = (u32::MAX, u32::MAX, u32::MAX);
        let mut expected = *words;
        let index = usize::from(offset) / 4;
        expected[1] |= 7;
        let stays = before.root[&(2, 0)].writable[index];
        expected[index] = original as u32 & stays | !stays;
        if is_wide {
            expected[7] = (original >> 32) as u32;
        }
        survivor.recover(&mut fake);
        assert_eq!(fake.root[&(2, 0)].words, expected, "{offset:#x}");
        // It is undone once.
        let accesses = fake.accesses.get();
        survivor.recover(&mut fake);
        assert_eq!(fake.accesses.get(), accesses);
    }
}

#[test]
fn a_probe_that_is_not_as_it_was_noted_is_not_undone() {
    for (at, what) in [(24, "the probe"), (32, "the value"), (40, "the check")] {
        let memory = Shared::leaked(4096);
        let survivor = Survivor::open(memory);
        let address = Address::new(0, 2, 0);
        let original = 0xfebd_0000;
        survivor.begin(Probe { address, command: 0, offset: 0x14, is_wide: false, original });
        let mut old = [0];
        memory.read(at, &mut old);
        memory.write(at, &[old[0] ^ 1]);
        let mut fake = one_function();
        survivor.recover(&mut fake);
        assert_eq!((fake.accesses.get(), survivor.functions()), (0, Kept::Spoiled), "{what}");
    }
}

#[test]
fn a_probe_is_undone_only_while_no_driver_is_at_work() {
    let memory = Shared::leaked(4096);
    let survivor = Survivor::open(memory);
    survivor.begin(Probe {
        address: Address::new(0, 2, 0),
        command: 7,
        offset: 0x10,
        is_wide: false,
        original: 0xfee0_0000,
    });
    let functions = find(&mut numbered_bridges(), no_windows());
    assert!(survivor.keep(&functions));
    let mut fake = numbered_bridges();
    let successor = Survivor::open(memory);
    successor.recover(&mut fake);
    assert_eq!((fake.accesses.get(), successor.functions()), (0, Kept::Spoiled));
}

#[test]
fn an_instance_that_died_while_it_enumerated_is_followed_by_one_that_does() {
    let memory = Shared::leaked(4096);
    for _ in 1..4 {
        assert_eq!(Survivor::open(memory).functions(), Kept::Nothing);
    }
}

/// One instance of the server: what `main` does.
fn instance(fake: &mut Fake, survivor: Survivor, windows: Windows) -> Vec<Function> {
    survivor.recover(fake);
    match survivor.functions() {
        Kept::Functions(functions) => functions,
        Kept::Nothing => {
            let functions = enumerate(fake, &survivor, windows);
            assert!(survivor.keep(&functions));
            functions
        }
        Kept::Spoiled | Kept::NoRoom => panic!("nobody spoils it, and there is room"),
    }
}

fn survives(fake: Fake, windows: Windows, lives: &[u64]) {
    let mut undisturbed = fake.clone();
    let expected = find(&mut undisturbed, windows.clone());
    let mut fake = fake;
    let memory = Shared::leaked(8192);
    for life in lives {
        fake.life.set(*life);
        let survivor = Survivor::open(memory);
        let _ = catch_unwind(AssertUnwindSafe(|| instance(&mut fake, survivor, windows.clone())));
    }
    fake.life.set(u64::MAX);
    let functions = instance(&mut fake, Survivor::open(memory), windows);
    assert_eq!(functions, expected, "deaths at {lives:?}");
    assert_eq!(fake.root, undisturbed.root, "deaths at {lives:?}");
}

#[test]
fn a_death_at_any_access_leaves_no_trace() {
    let mut fake = numbered_bridges();
    for function in fake.root.values_mut() {
        function.words[1] |= 0x3;
    }
    let _ = find(&mut fake.clone(), no_windows());
    for life in (0..1200).step_by(3) {
        survives(fake.clone(), no_windows(), &[life]);
    }
    let unnumbered = numbered_bridges();
    for life in (0..1200).step_by(7) {
        survives(unnumbered.clone(), windows(), &[life]);
    }
}

#[test]
fn a_successor_touches_no_device() {
    let mut fake = numbered_bridges();
    let survivor = Survivor::open(Shared::leaked(8192));
    instance(&mut fake, survivor, no_windows());
    let accesses = fake.accesses.get();
    instance(&mut fake, survivor, no_windows());
    assert_eq!(fake.accesses.get(), accesses);
}
