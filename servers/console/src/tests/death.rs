//! What outlives the console: it is killed at any access to device or survivor region, the
//! clients ask again, and no byte is lost, repeated, or lost silently.

use super::fake::{self, Device, Sender, Timing, has_died, set_life};
use super::{Slot, World, bytes, on_each_uart, span};
use proptest::prelude::*;
use skink_protocols::console::Input;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

/// Runs `act`; true if the console died of it. Then the next instance has been started, which may
/// have died in turn, as often as `lives` says.
fn survive<D: Device>(
    world: &mut World<D>,
    lives: &mut Vec<u64>,
    act: impl FnOnce(&mut World<D>),
) -> bool {
    let mut has_died = catch_unwind(AssertUnwindSafe(|| act(world))).is_err();
    if !has_died {
        return false;
    }
    while has_died {
        world.console = None;
        let is_chatty = world.wire(1).is_chatty;
        if is_chatty {
            world.uart(1).log();
        }
        set_life(lives.pop().unwrap_or(u64::MAX));
        has_died = catch_unwind(AssertUnwindSafe(|| world.start())).is_err();
    }
    true
}

/// A client that writes pieces and asks again until each is answered.
fn write_all<D: Device>(world: &mut World<D>, lives: &mut Vec<u64>, pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut position = 0;
    for piece in pieces {
        world.shared[0].write(0, piece);
        let end = position + piece.len() as u64;
        let mut slot = Slot::default();
        let mut asks = true;
        while slot.borrow().is_none() {
            let mut asked = slot.clone();
            let has_died = survive(world, lives, |world| {
                if asks {
                    asked = world.write(0, 1, position, span(0, piece.len() as u32));
                }
                world.interrupts();
                world.uart(1).drain(3);
                world.interrupts();
            });
            // An answer that came before the death counts; otherwise the caller asks again.
            slot = asked;
            asks = has_died;
        }
        assert_eq!(*slot.borrow(), Some(Ok(end)));
        position = end;
    }
    world.uart(1).drain(100);
    world.sent(1)
}

/// A client that reads `count` bytes; the numbers of those that came with a gap before them.
fn read_all<D: Device>(
    world: &mut World<D>,
    lives: &mut Vec<u64>,
    count: usize,
) -> (Vec<u8>, Vec<usize>) {
    let (mut got, mut gaps) = (Vec::new(), Vec::new());
    let mut rounds = 0;
    while got.len() < count && rounds < 10_000 {
        rounds += 1;
        let mut slot = Slot::<Input>::default();
        survive(world, lives, |world| {
            slot = world.read(0, 1, got.len() as u64, span(0, 50));
            world.uart(1).arrive(9);
            world.interrupts();
        });
        let Some(Ok(input)) = *slot.borrow() else {
            continue;
        };
        if input.gap {
            gaps.push(got.len());
        }
        got.extend(bytes(&world.shared[0], 0, input.length as usize));
        if world.wire(1).waiting.is_empty() && got.len() + gaps.len() >= count {
            break;
        }
    }
    (got, gaps)
}

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8)
}

on_each_uart! {
    output_is_exact_wherever_the_console_dies,
    output_is_exact_beside_the_kernels_log,
    input_is_exact_or_its_gap_is_told_wherever_the_console_dies,
    the_successor_finishes_what_was_under_way_and_its_client_hears_of_it,
    a_spoiled_survivor_region_is_not_believed,
}

/// Writes 40 bytes in two pieces, once for each place where the console may die.
fn write_and_die<D: Device>(timing: Timing, is_chatty: bool) {
    let pieces = [Vec::from(*b"the quick brown fox "), Vec::from(*b"jumps over the dog.\n")];
    for life in 0.. {
        let mut world = World::<D>::new();
        world.wire(1).timing = timing;
        world.wire(1).is_chatty = is_chatty;
        set_life(life);
        let sent = write_all(&mut world, &mut Vec::new(), &pieces);
        assert_eq!(sent, pieces.concat(), "death at {life}, {timing:?}, chatty {is_chatty}");
        assert_eq!(world.wire(1).logged > 1, is_chatty);
        if !has_died() {
            // It got to the end alive: there is no place left.
            assert!(life > 250, "it could die in {life} places only");
            break;
        }
    }
    set_life(u64::MAX);
}

fn output_is_exact_wherever_the_console_dies<D: Device>() {
    for timing in Timing::ALL {
        write_and_die::<D>(timing, false);
    }
}

fn output_is_exact_beside_the_kernels_log<D: Device>() {
    for timing in Timing::ALL {
        write_and_die::<D>(timing, true);
    }
}

fn input_is_exact_or_its_gap_is_told_wherever_the_console_dies<D: Device>() {
    let data: Vec<u8> = (0..60).collect();
    let mut gaps_seen = 0;
    for life in 0.. {
        let mut world = World::<D>::new();
        world.wire(1).waiting.extend(&data);
        set_life(life);
        let (got, gaps) = read_all(&mut world, &mut Vec::new(), data.len());
        gaps_seen += gaps.len();
        explain(&data, &got, &gaps, 1);
        if !has_died() {
            assert!(life > 400, "it could die in {life} places only");
            break;
        }
    }
    set_life(u64::MAX);
    assert!(gaps_seen > 50, "the test killed it between taking and storing");
}

#[test]
fn every_overrun_is_told_wherever_the_console_dies() {
    // Of the PL011, whose overrun stays until it has been noted. Of up to three bytes at once, one
    // finds room.
    for life in 0.. {
        let mut world = World::<fake::Pl011>::new();
        world.wire(1).sender = Sender::Overruns;
        let (mut got, mut flagged) = (Vec::new(), Vec::new());
        set_life(life);
        for round in 0..20_u8 {
            let count = 1 + round % 3;
            world.wire(1).waiting.extend((0..count).map(|i| 4 * round + i));
            world.uart(1).arrive(count.into());
            // Now and then the reader is slow, and there is more than one gap to tell.
            let mut reads = u8::from(round % 4 != 2);
            while reads > 0 {
                let mut slot = Slot::default();
                survive(&mut world, &mut Vec::new(), |world| {
                    world.interrupts();
                    slot = world.read(0, 1, got.len() as u64, span(0, 50));
                });
                let Some(Ok(input)) = slot.take() else {
                    reads -= 1;
                    continue;
                };
                if input.gap {
                    flagged.push(got.len());
                }
                got.extend(bytes(&world.shared[0], 0, input.length as usize));
            }
        }
        for place in 1..got.len() {
            let (before, after) = (got[place - 1], got[place]);
            let next = if before % 4 < before / 4 % 3 { before + 1 } else { 4 * (before / 4 + 1) };
            let is_told = flagged.contains(&place);
            assert!(after == next || is_told, "{after} after {before} untold, death at {life}");
        }
        if !has_died() {
            assert!(life > 100, "it could die in {life} places only");
            break;
        }
    }
    set_life(u64::MAX);
}

/// Each byte sent was received, in order, but for at most one for each of `deaths`, and only at
/// gaps (or at the very end, where the gap is told with the byte that comes next).
fn explain(sent: &[u8], got: &[u8], gaps: &[usize], deaths: usize) {
    let mut next = 0;
    let mut missing = 0;
    for (place, byte) in got.iter().enumerate() {
        while gaps.contains(&place) && next < sent.len() && sent[next] != *byte {
            next += 1;
            missing += 1;
        }
        assert_eq!(sent.get(next), Some(byte), "byte {place} of {got:?}, gaps {gaps:?}");
        next += 1;
    }
    missing += sent.len() - next;
    assert!(missing <= deaths, "{missing} bytes are missing after {deaths} deaths");
}

fn the_successor_finishes_what_was_under_way_and_its_client_hears_of_it<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(1).timing = Timing::Slow;
    world.shared[0].write(0, &[b'x'; 30]);
    let lost = world.write(0, 1, 0, span(0, 30));
    world.start();
    assert!(lost.borrow().is_none());
    // Another session's write has to wait.
    world.shared[1].write(0, b"yy");
    let other = world.write(1, 1, 0, span(0, 2));
    let attached = world.attach(0, 1);
    while attached.borrow().is_none() {
        assert!(other.borrow().is_none());
        world.uart(1).drain(1);
        world.interrupts();
    }
    // Late: all but the other's bytes are out.
    let again = world.write(0, 1, 0, span(0, 30));
    assert_eq!(*again.borrow(), Some(Ok(30)));
    assert_eq!(attached.borrow().unwrap().unwrap().write, 30);
    while other.borrow().is_none() {
        world.uart(1).drain(1);
        world.interrupts();
    }
    assert_eq!(*other.borrow(), Some(Ok(2)));
    world.uart(1).drain(16);
    assert_eq!(world.sent(1), [&[b'x'; 30][..], b"yy"].concat());
}

fn a_spoiled_survivor_region_is_not_believed<D: Device>() {
    for word in 0..40 {
        let mut world = World::<D>::new();
        world.shared[0].write(0, b"before");
        world.write(0, 0, 0, span(0, 6));
        let old = world.survivor.word(8 * word);
        old.store(0xdead_beef_dead_beef, std::sync::atomic::Ordering::Relaxed);
        world.start();
        let attached = world.attach(0, 0);
        let positions = attached.borrow().unwrap().unwrap();
        world.shared[0].write(0, b"after");
        let slot = world.write(0, 0, positions.write, span(0, 5));
        world.interrupts();
        let end = positions.write + 5;
        assert_eq!(*slot.borrow(), Some(Ok(end)), "word {word}");
        assert!(world.sent(0).ends_with(b"after"));
        world.type_in(0, b"k");
        let slot = world.read(0, 0, positions.read, span(0, 1));
        let input = slot.borrow().unwrap().unwrap();
        assert_eq!(input.length, 1, "word {word}");
        // The rest of the header is not used.
        assert_eq!(input.gap, !(3..8).contains(&word), "word {word}");
    }
}

/// Writes `pieces` while the console dies after each of `lives`, and is exact.
fn write_exactly<D: Device>(
    pieces: &[Vec<u8>],
    mut lives: Vec<u64>,
    (timing, is_chatty): (Timing, bool),
) -> Result<(), TestCaseError> {
    let mut world = World::<D>::new();
    world.wire(1).timing = timing;
    world.wire(1).is_chatty = is_chatty;
    set_life(lives.pop().unwrap_or(u64::MAX));
    let sent = write_all(&mut world, &mut lives, pieces);
    set_life(u64::MAX);
    prop_assert_eq!(sent, pieces.concat());
    Ok(())
}

/// Reads `count` bytes while the console dies after each of `lives`, and can explain each gap.
fn read_exactly<D: Device>(count: usize, mut lives: Vec<u64>) {
    let mut world = World::<D>::new();
    let deaths = lives.len();
    let data: Vec<u8> = (0..count).map(|i| i as u8).collect();
    world.wire(1).waiting.extend(&data);
    set_life(lives.pop().unwrap_or(u64::MAX));
    let (got, gaps) = read_all(&mut world, &mut lives, count);
    set_life(u64::MAX);
    explain(&data, &got, &gaps, deaths);
}

proptest! {
    #[test]
    fn random_deaths_change_no_byte_of_output(
        pieces in pieces(),
        lives in prop::collection::vec(0..300u64, 0..30),
        timing in prop::sample::select(Timing::ALL.to_vec()),
        is_chatty in any::<bool>(),
    ) {
        write_exactly::<fake::Ns16550>(&pieces, lives.clone(), (timing, is_chatty))?;
        write_exactly::<fake::Pl011>(&pieces, lives, (timing, is_chatty))?;
    }

    #[test]
    fn random_deaths_lose_no_input_silently(
        count in 1..200usize,
        lives in prop::collection::vec(0..200u64, 0..30),
    ) {
        read_exactly::<fake::Ns16550>(count, lives.clone());
        read_exactly::<fake::Pl011>(count, lives);
    }
}

#[test]
fn the_region_is_as_large_as_it_says() {
    let memory = libipc::Shared::leaked(crate::survivor::REGION_BYTES - 8);
    let opened = catch_unwind(|| crate::survivor::Survivor::open(memory));
    let said = opened.err().unwrap().downcast::<std::string::String>().unwrap();
    assert!(said.contains("region"), "{said}");
}
