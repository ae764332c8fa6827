//! Requests: data, refusals, batches, splitting, and devices that lie.

use super::fake::{DATA_BYTES, Fake, Lie, Wiring};
use super::{AREA, OWNER, TestDisk, accept, reap, request, start};
use crate::disk::Submitted;
use crate::error::DeviceError;
use proptest::prelude::*;
use skink_protocols::block::{Completion, MAX_SECTORS, Operation, Request, Status};
use std::collections::BTreeMap;
use std::vec::Vec;

fn done(id: u64) -> Completion {
    Completion { id, status: Status::Done }
}

#[test]
fn what_is_written_is_read_back_and_flushed() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 64);
        let mut disk = start(&fake).unwrap();
        fake.borrow_mut().data[512..1536].fill(0x5a);
        accept(&mut disk, request(1, Operation::Write, 10, 2, 512));
        disk.kick();
        fake.borrow_mut().work();
        assert_eq!(reap(&mut disk).unwrap(), [done(1)]);
        accept(&mut disk, request(2, Operation::Flush, 0, 0, 0));
        accept(&mut disk, request(3, Operation::Read, 9, 4, 4096));
        disk.kick();
        fake.borrow_mut().work();
        assert_eq!(reap(&mut disk).unwrap(), [done(2), done(3)]);
        let fake = fake.borrow();
        assert_eq!(fake.flushes, 1);
        assert_eq!(fake.data[4096..6144], fake.disk[9 * 512..13 * 512]);
        assert_eq!(fake.disk[10 * 512..12 * 512], [0x5a; 1024]);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_and_touch_nothing() {
    for wiring in Wiring::ALL {
        use Operation::*;
        let fake = Fake::new(wiring, 100);
        let mut disk = start(&fake).unwrap();
        let end = DATA_BYTES as u64;
        for (request, status) in [
            (request(1, Read, 0, 0, 0), Status::Malformed),
            (request(2, Read, 0, MAX_SECTORS + 1, 0), Status::Malformed),
            (request(3, Flush, 0, 1, 0), Status::Malformed),
            (request(4, Read, 100, 1, 0), Status::BeyondEnd),
            (request(5, Write, 99, 2, 0), Status::BeyondEnd),
            (request(6, Read, u64::MAX, 2, 0), Status::BeyondEnd),
            (request(7, Read, 0, 1, 1), Status::BadMemory),
            (request(8, Read, 0, 1, end), Status::BadMemory),
            (request(9, Read, 0, 2, end - 512), Status::BadMemory),
            (request(10, Write, 0, 1, u64::MAX - 511), Status::BadMemory),
        ] {
            let refused = Submitted::Refused(Completion { id: request.id, status });
            assert_eq!(disk.submit(OWNER, AREA, request, 0), refused);
        }
        disk.kick();
        fake.borrow_mut().work();
        assert_eq!(fake.borrow().doorbells, 0);
        assert_eq!(reap(&mut disk).unwrap(), []);
    }
}

#[test]
fn a_read_only_disk_refuses_writes_and_a_disk_without_cache_flushes_at_once() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 8);
        fake.borrow_mut().features |= 1 << 5;
        fake.borrow_mut().features &= !(1 << 9);
        let mut disk = start(&fake).unwrap();
        let write = request(1, Operation::Write, 0, 1, 0);
        let status = Status::ReadOnly;
        let refused = Submitted::Refused(Completion { id: 1, status });
        assert_eq!(disk.submit(OWNER, AREA, write, 0), refused);
        let flush = request(2, Operation::Flush, 0, 0, 0);
        assert_eq!(disk.submit(OWNER, AREA, flush, 0), Submitted::Refused(done(2)));
    }
}

#[test]
fn a_bad_sector_fails_its_request_alone() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 64);
        fake.borrow_mut().bad_sectors.push(20);
        let mut disk = start(&fake).unwrap();
        accept(&mut disk, request(1, Operation::Read, 16, 8, 0));
        accept(&mut disk, request(2, Operation::Read, 24, 8, 4096));
        disk.kick();
        fake.borrow_mut().work();
        let failed = Completion { id: 1, status: Status::DeviceError };
        assert_eq!(reap(&mut disk).unwrap(), [failed, done(2)]);
    }
}

#[test]
fn a_full_queue_needs_one_doorbell_and_one_interrupt() {
    let both = |wiring| [(wiring, true), (wiring, false)];
    for (wiring, event_index) in Wiring::ALL.into_iter().flat_map(both) {
        let fake = Fake::new(wiring, 4096);
        if !event_index {
            fake.borrow_mut().features &= !(1 << 29);
        }
        let mut disk = start(&fake).unwrap();
        // Several rounds, so that the indices wrap around the ring.
        for round in 0..10 {
            fake.borrow_mut().doorbells = 0;
            fake.borrow_mut().interrupts = 0;
            let mut id = 0;
            while disk.has_room() {
                accept(&mut disk, request(id, Operation::Read, id, 1, id * 512));
                id += 1;
            }
            assert_eq!(id, 85);
            disk.kick();
            disk.kick();
            fake.borrow_mut().work();
            assert_eq!(fake.borrow().doorbells, 1, "round {round}");
            assert_eq!(fake.borrow().interrupts, 1, "round {round}");
            assert_eq!(reap(&mut disk).unwrap().len(), 85);
            assert_eq!(disk.in_flight(), 0);
        }
    }
}

#[test]
fn a_device_that_has_not_looked_yet_is_not_rung_again() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 64);
        let mut disk = start(&fake).unwrap();
        for id in 0..3 {
            accept(&mut disk, request(id, Operation::Read, id, 1, id * 512));
            disk.kick();
        }
        assert_eq!(fake.borrow().doorbells, 1);
        fake.borrow_mut().work();
        assert_eq!(reap(&mut disk).unwrap().len(), 3);
        // It has seen all: the next needs a doorbell.
        accept(&mut disk, request(3, Operation::Read, 3, 1, 0));
        disk.kick();
        assert_eq!(fake.borrow().doorbells, 2);
    }
}

#[test]
fn completions_between_an_interrupt_and_the_reaping_bring_no_other() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 64);
        let mut disk = start(&fake).unwrap();
        for id in 0..8 {
            accept(&mut disk, request(id, Operation::Read, id, 1, id * 512));
        }
        disk.kick();
        let mut device = fake.borrow_mut();
        device.collect();
        for _ in 0..7 {
            device.answer(0);
            device.interrupt();
        }
        assert_eq!(device.interrupts, 1);
        drop(device);
        assert_eq!(reap(&mut disk).unwrap().len(), 7);
        fake.borrow_mut().answer(0);
        fake.borrow_mut().interrupt();
        assert_eq!(fake.borrow().interrupts, 2);
        assert_eq!(reap(&mut disk).unwrap().len(), 1);
    }
}

#[test]
fn a_request_larger_than_the_device_takes_is_split_even_beyond_the_queue() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 4096);
        fake.borrow_mut().features |= 1 << 1;
        // Not a multiple of a sector: cut down to 4 KiB. 256 pieces, three times the queue.
        fake.borrow_mut().size_max = 4096 + 100;
        let mut disk = start(&fake).unwrap();
        accept(&mut disk, request(1, Operation::Read, 100, MAX_SECTORS, 512));
        assert!(!disk.has_room(), "the request is not yet wholly in the queue");
        assert!(disk.is_busy(OWNER));
        let mut completions = Vec::new();
        let mut rounds = 0;
        while completions.is_empty() {
            disk.kick();
            fake.borrow_mut().work();
            completions.extend(reap(&mut disk).unwrap());
            rounds += 1;
            assert!(rounds < 10, "no progress");
        }
        assert_eq!(completions, [done(1)]);
        assert!(!disk.is_busy(OWNER) && disk.has_room());
        let fake = fake.borrow();
        let bytes = MAX_SECTORS as usize * 512;
        assert_eq!(fake.largest, 4096);
        assert_eq!(fake.data[512..512 + bytes], fake.disk[100 * 512..100 * 512 + bytes]);
        assert!(fake.data[512 + bytes..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn one_bad_piece_fails_the_whole_request_once() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 64);
        fake.borrow_mut().features |= 1 << 1;
        fake.borrow_mut().size_max = 512;
        fake.borrow_mut().bad_sectors.push(3);
        let mut disk = start(&fake).unwrap();
        accept(&mut disk, request(1, Operation::Write, 0, 8, 0));
        disk.kick();
        fake.borrow_mut().work();
        let failed = Completion { id: 1, status: Status::DeviceError };
        assert_eq!(reap(&mut disk).unwrap(), [failed]);
    }
}

/// virtio 1.2 §2.7.8.2 and §5.2.6: a device that fails counts what it has written, which need not
/// be all. Firecracker and crosvm count the status byte alone, Cloud Hypervisor nothing.
#[test]
fn a_failed_request_may_be_answered_with_fewer_bytes() {
    for wiring in Wiring::ALL {
        for delta in [-512, -513] {
            for (answer, status) in [(1, Status::DeviceError), (2, Status::Unsupported)] {
                let fake = Fake::new(wiring, 64);
                let mut disk = start(&fake).unwrap();
                accept(&mut disk, request(1, Operation::Read, 5, 1, 0));
                accept(&mut disk, request(2, Operation::Read, 6, 1, 512));
                disk.kick();
                let mut device = fake.borrow_mut();
                device.collect();
                device.lie = Lie::FailsShort { status: answer, delta };
                device.answer(0);
                device.lie = Lie::Honest;
                device.answer(0);
                drop(device);
                assert_eq!(reap(&mut disk).unwrap(), [Completion { id: 1, status }, done(2)]);
                // The driver goes on.
                accept(&mut disk, request(3, Operation::Read, 7, 1, 0));
                disk.kick();
                fake.borrow_mut().work();
                assert_eq!(reap(&mut disk).unwrap(), [done(3)]);
            }
        }
    }
}

/// A disk with three requests at the device, which then answers one with this lie.
fn lied_to(wiring: Wiring, lie: Lie) -> Result<Vec<Completion>, DeviceError> {
    let fake = Fake::new(wiring, 64);
    let mut disk = start(&fake).unwrap();
    for id in 0..3 {
        accept(&mut disk, request(id, Operation::Read, id, 1, id * 512));
    }
    disk.kick();
    let mut device = fake.borrow_mut();
    device.collect();
    device.lie = lie;
    device.answer(0);
    drop(device);
    reap(&mut disk)
}

#[test]
fn every_lie_is_a_device_error() {
    for wiring in Wiring::ALL {
        let lied_to = |lie| lied_to(wiring, lie);
        assert_eq!(lied_to(Lie::Honest).unwrap(), [done(0)]);
        for id in [1, 2, 9, 253, 255, 256, 300, u32::MAX] {
            let error = DeviceError::UsedUnknown { id };
            assert_eq!(lied_to(Lie::UsedId(id)), Err(error));
        }
        let error = DeviceError::UsedUnknown { id: 0 };
        assert_eq!(lied_to(Lie::UsedTwice), Err(error));
        for delta in [1, -1, -512, 1 << 20] {
            let claimed = 513u32.wrapping_add_signed(delta);
            let error = DeviceError::UsedLength { claimed, expected: 513 };
            // §2.7.8.1: a legacy device's length means nothing.
            let result = if wiring.is_legacy() { Ok(std::vec![done(0)]) } else { Err(error) };
            assert_eq!(lied_to(Lie::LengthOff(delta)), result);
        }
        // More than there was room for is a lie, whatever the status.
        let longer = lied_to(Lie::FailsShort { status: 1, delta: 1 });
        let error = DeviceError::UsedLength { claimed: 514, expected: 513 };
        let failed = Completion { id: 0, status: Status::DeviceError };
        assert_eq!(longer, if wiring.is_legacy() { Ok(std::vec![failed]) } else { Err(error) });
        for jump in [3, 256, 0x8000, 0xfffe] {
            let claimed = 1u16.wrapping_add(jump);
            let error = DeviceError::UsedIndexJump { claimed, in_flight: 3 };
            assert_eq!(lied_to(Lie::IndexJump(jump)), Err(error));
        }
        for status in [3, 0x80, 0xff] {
            let error = DeviceError::StatusGarbage { status };
            assert_eq!(lied_to(Lie::Status(status)), Err(error));
        }
        let error = DeviceError::StatusGarbage { status: 0xff };
        assert_eq!(lied_to(Lie::ReportsBeforeWriting), Err(error));
    }
}

#[test]
fn a_silent_device_is_given_up_in_time() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 8);
        let mut disk = start(&fake).unwrap();
        assert_eq!(disk.oldest_age_ns(5), None);
        let read = request(1, Operation::Read, 0, 1, 0);
        assert_eq!(disk.submit(OWNER, AREA, read, 1_000_000), Submitted::Accepted);
        disk.kick();
        let second = 1_000_000_000;
        assert_eq!(disk.check_deadline(second, second), Ok(()));
        let late = disk.check_deadline(second + 2_000_000, second);
        assert_eq!(late, Err(DeviceError::Timeout { age_ms: 1001 }));
        fake.borrow_mut().needs_reset = true;
        let late = disk.check_deadline(second + 2_000_000, second);
        assert_eq!(late, Err(DeviceError::NeedsReset));
    }
}

/// A step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        write: bool,
        sector: u64,
        sectors: u32,
        offset: u64,
    },
    Kick,
    /// The device answers one that it holds, whichever.
    Answer(usize),
    Reap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (any::<bool>(), 0..260u64, 0..40u32, 0..64u64);
    let submit = submit.prop_map(|(write, sector, sectors, place)| {
        let offset = place * 20 * 1024;
        Step::Submit { write, sector, sectors, offset }
    });
    let step = prop_oneof![
        6 => submit,
        2 => Just(Step::Kick),
        6 => (0..100usize).prop_map(Step::Answer),
        2 => Just(Step::Reap),
    ];
    prop::collection::vec(step, 0..200)
}

/// Runs one step; accepted requests go into `open`, completed ones out of it.
fn run(
    step: Step,
    fake: &super::fake::Shared,
    disk: &mut TestDisk,
    open: &mut BTreeMap<u64, Request>,
    next: &mut u64,
) {
    match step {
        Step::Submit { write, sector, sectors, offset } if disk.has_room() => {
            let operation = if write { Operation::Write } else { Operation::Read };
            let request = request(*next, operation, sector, sectors, offset);
            *next += 1;
            if disk.submit(OWNER, AREA, request, 0) == Submitted::Accepted {
                open.insert(request.id, request);
            }
        }
        Step::Submit { .. } => {}
        Step::Kick => disk.kick(),
        Step::Answer(which) => {
            let mut device = fake.borrow_mut();
            device.collect();
            let held = device.held.len();
            if held > 0 {
                device.answer(which % held);
            }
            device.interrupt();
            device.interrupt_for_nothing();
        }
        Step::Reap => {
            for completion in reap(disk).unwrap() {
                let request = open.remove(&completion.id).expect("completed twice");
                let end = request.sector + u64::from(request.sectors);
                let mut bad = fake.borrow().bad_sectors.clone().into_iter();
                let status = match bad.any(|bad| (request.sector..end).contains(&bad)) {
                    true => Status::DeviceError,
                    false => Status::Done,
                };
                assert_eq!(completion.status, status, "{request:?}");
            }
        }
    }
}

proptest! {
    /// In whatever order the device answers, and whatever else it is free to do, each accepted request is
    /// completed once, failed only where the disk has a bad sector, in the end none is left, and the fake
    /// found no misuse.
    #[test]
    fn random_runs_complete_everything_once(
        steps in steps(),
        small in any::<bool>(),
        liberties in any::<Option<u64>>(),
        wiring in prop::sample::select(&Wiring::ALL[..]),
    ) {
        let fake = match liberties {
            Some(seed) => Fake::free(wiring, 256, seed),
            None => Fake::new(wiring, 256),
        };
        fake.borrow_mut().bad_sectors.extend([7, 100]);
        if small {
            fake.borrow_mut().features |= 1 << 1;
            fake.borrow_mut().size_max = 1024;
            fake.borrow_mut().queue_max = 16;
        }
        let mut disk = start(&fake).unwrap();
        let mut open = BTreeMap::new();
        let mut next = 0;
        for step in steps {
            run(step, &fake, &mut disk, &mut open, &mut next);
            prop_assert_eq!(open.is_empty(), !disk.is_busy(OWNER));
        }
        for _ in 0..1000 {
            for step in [Step::Kick, Step::Answer(0), Step::Reap] {
                run(step, &fake, &mut disk, &mut open, &mut next);
            }
        }
        prop_assert!(open.is_empty(), "left: {:?}", open);
        prop_assert_eq!(disk.in_flight(), 0);
    }
}
