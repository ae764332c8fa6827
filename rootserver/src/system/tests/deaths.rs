//! What a death comes to: the order of taking apart, the record, what others are told.

use super::*;
use crate::arch::{FRAME_POINTER, REGISTER_WORDS};
use crate::custody::Owner;
use crate::plan::{IMAGE_BASE, Source, kit};
use libipc::supervisor::Misconduct;
use skink_abi::invocation::registers;
use skink_abi::{Invocation, PAGE_SIZE};
use skink_protocols::control::{Cause as Told, CrashRecord, FaultRecord, Place};

const PAGE: u64 = PAGE_SIZE as u64;

/// The record of the last death.
fn last(world: &World) -> CrashRecord {
    world.system.crashes.get(0).unwrap().clone()
}

fn dies(world: &mut World, server: ServerId, cause: Cause) -> CrashRecord {
    world.system.event(Event::Died(server, cause));
    last(world)
}

/// A fault of the server's thread at this address.
fn faults(world: &mut World, server: ServerId, thread: u8, address: u64) -> CrashRecord {
    let fault = Some(FaultRecord { kind: 3, address, ..FaultRecord::default() });
    world.system.death = teardown::Detail { fault, thread, ..Default::default() };
    dies(world, server, Cause::Fault)
}

#[test]
fn callers_wake_first_then_threads_stop_then_all_is_revoked() {
    booted(|mut world| {
        let own = &world.system.servers[DISK.index()];
        let quota = world.system.custody.untyped.slot(own.quota.unwrap());
        world.asked();
        world.system.event(Event::Died(DISK, Cause::Heartbeat));
        let asked = world.asked();
        let place = |is: &dyn Fn(&machine::Asked) -> bool| asked.iter().position(is).unwrap();
        let revoked = |slot: u64| {
            place(&move |a: &machine::Asked| {
                a.what == Invocation::CNodeRevoke && a.words[0] == slot
            })
        };
        let suspended = |n: u64| {
            let tcb = kit_cptr(DISK.0, kit::TCBS + n).0;
            place(&move |a: &machine::Asked| a.what == Invocation::TcbSuspend && a.cap == tcb)
        };
        let order = [
            revoked(kit_cptr(DISK.0, kit::REPLIES).0),
            suspended(0),
            suspended(1),
            suspended(2),
            revoked(quota),
        ];
        assert!(order.is_sorted(), "{order:?}");
        assert!(!world.system.is_running(DISK));
        assert!(matches!(world.system.supervisor.state(DISK), State::Backoff { .. }));
    });
}

#[test]
fn each_cause_is_recorded_and_said_in_its_words() {
    booted(|mut world| {
        for (cause, told, said) in [
            (Cause::Panic, Told::Panic, "died (panic"),
            (Cause::Exit(3), Told::Exit(3), "ended with code 3"),
            (Cause::Exit(0), Told::Exit(0), "ended with code 0"),
            (Cause::OutOfMemory, Told::OutOfMemory, "died ("),
            (Cause::Killed, Told::Killed, "died ("),
            (Cause::Restarted, Told::Restarted, "died ("),
            (Cause::Heartbeat, Told::HeartbeatMissed, "died ("),
            (Cause::Budget, Told::BudgetExhausted, "died ("),
            (Cause::OutOfCapabilities, Told::OutOfCapabilities, "died ("),
            (Cause::Device, Told::DeviceSilent, "died ("),
            (Cause::Group(DISK), Told::Group, "is taken down with disk's group"),
            (
                Cause::Complaint(SHELL, Misconduct::Late),
                Told::Complaint(Misconduct::Late),
                "died (complaint of shell: it ",
            ),
        ] {
            // Supervision is not asked: how many it bears is not the matter here.
            world.system.servers[FILES.index()].is_built = true;
            world.said();
            let before = world.system.crashes.count();
            world.system.tear_down(FILES, cause, 77);
            let record = last(&world);
            assert_eq!((record.number, record.server.as_str()), (before + 1, "files"));
            assert_eq!((record.cause, record.timeline.noticed), (told, 77));
            let log = world.said();
            let lines: StdVec<_> = log.lines().collect();
            assert!(lines[0].starts_with(&std::format!("root: files {said}")), "{log}");
            assert!(lines[0].contains("0 requests in flight"), "{log}");
            let line = &record.timeline;
            assert!(line.declared != 0 && line.declared <= line.silenced);
            assert!(line.silenced <= line.revoked);
        }
        // Who is not there is not taken apart.
        let count = world.system.crashes.count();
        world.system.tear_down(FILES, Cause::Killed, 0);
        assert_eq!((world.system.crashes.count(), world.said().as_str()), (count, ""));
    });
}

#[test]
fn a_message_is_recorded_where_the_server_has_the_word() {
    booted(|mut world| {
        let page = world.page(SHELL);
        for (to, from) in page.message.iter().zip(b"main.rs:1: no") {
            to.store(*from, core::sync::atomic::Ordering::Relaxed);
        }
        page.message_size.store(13, core::sync::atomic::Ordering::Relaxed);
        page.in_flight.store(1, core::sync::atomic::Ordering::Relaxed);
        let record = dies(&mut world, SHELL, Cause::Panic);
        assert_eq!((record.message.as_str(), record.in_flight), ("main.rs:1: no", 1));
        let said = world.said();
        assert!(
            said.contains("shell died (panic: main.rs:1: no, 1 request in flight), restart 1\n"),
            "{said}"
        );
    });
}

#[test]
fn an_orderly_end_of_one_that_need_not_run_for_ever_is_no_crash() {
    for (restart, code, records) in [
        (Restart::Temporary, 0, 0),
        (Restart::Transient, 0, 0),
        (Restart::Transient, 1, 1),
        (Restart::Permanent, 0, 1),
    ] {
        booted(move |mut world| {
            world.system.manifest.servers[SHELL.index()].restart = restart;
            world.system.event(Event::Died(SHELL, Cause::Exit(code)));
            assert_eq!(world.system.crashes.count(), records, "{restart:?} {code}");
        });
    }
}

#[test]
fn what_is_at_a_faulting_address_is_told_by_the_plan() {
    booted(|mut world| {
        let own = &world.system.servers[DISK.index()];
        let threads = own.threads.clone();
        let granted = |slot: u64| {
            let mappings = own.plan.mappings.iter();
            mappings.clone().find(|m| m.source == Source::Granted(slot)).unwrap().vaddr
        };
        let heap = own
            .plan
            .mappings
            .iter()
            .find(|m| m.source == Source::Own && m.vaddr > threads[2].ipc_buffer);
        let heap = heap.unwrap().vaddr;
        let shared = granted(world.system.sessions[0].shared.first);
        let control = granted(own.control_frame.first);
        let last_of_image = own.plan.mappings.iter().rfind(|m| m.vaddr < crate::plan::FIRST_REGION);
        let image_end = last_of_image.map(|m| m.vaddr + u64::from(m.count) * PAGE).unwrap();
        let (top, bottom) =
            (threads[1].stack_top, threads[1].stack_top - threads[1].stack_frames * PAGE);
        let block = || Place::Shared("block".try_into().unwrap());
        for (address, place) in [
            (0, Place::NullPointer),
            (PAGE - 1, Place::NullPointer),
            (PAGE, Place::Unmapped),
            (bottom - 1, Place::StackGuard),
            (bottom - PAGE, Place::StackGuard),
            // What lies below the guard is the other thread's.
            (bottom - PAGE - 1, Place::IpcBuffer),
            (bottom, Place::Stack),
            (top - 1, Place::Stack),
            (threads[2].ipc_buffer + 8, Place::IpcBuffer),
            (IMAGE_BASE + 0x1000, Place::Image),
            (image_end - 1, Place::Image),
            (image_end, Place::Unmapped),
            (heap, Place::Heap),
            (heap + 8191, Place::Heap),
            (shared, block()),
            (shared + 16383, block()),
            (control, Place::Granted),
            (u64::MAX, Place::Unmapped),
        ] {
            world.system.servers[DISK.index()].is_built = true;
            world.system.death = teardown::Detail {
                fault: Some(FaultRecord { kind: 3, address, ..Default::default() }),
                ..Default::default()
            };
            world.system.tear_down(DISK, Cause::Fault, 0);
            let Told::Fault(fault) = last(&world).cause else { panic!() };
            assert_eq!(
                (fault.place, fault.address, fault.kind),
                (place, address, 3),
                "{address:#x}"
            );
        }
        // Of a fault of which nothing is known, there is a record too.
        world.system.servers[DISK.index()].is_built = true;
        world.system.tear_down(DISK, Cause::Fault, 0);
        assert!(matches!(last(&world).cause, Told::Fault(FaultRecord { kind: 0, .. })));
    });
}

#[test]
fn registers_and_return_addresses_are_recorded_as_linked() {
    booted(|mut world| {
        let place = world.system.servers[DISK.index()].threads[1];
        let frame = |below: u64| place.stack_top - below;
        let mut words = [0; REGISTER_WORDS];
        words[registers::IP] = IMAGE_BASE + 0x1234;
        words[registers::SP] = frame(PAGE + 96);
        words[FRAME_POINTER] = frame(PAGE + 80);
        let tcb = kit_cptr(DISK.0, kit::TCBS + 1).0;
        let page = |n: u64| kit_cptr(DISK.0, place.stack_frame - n).0;
        {
            let mut machine = world.machine.borrow_mut();
            machine.registers.insert(tcb, words);
            // Frames in the second page from above, and then in the first.
            let mut put = |below: u64, next: u64, address: u64| {
                let number = (below - 1) / PAGE;
                let bytes =
                    machine.frames.entry(page(number)).or_insert_with(|| std::vec![0; PAGE_SIZE]);
                let at = ((number + 1) * PAGE - below) as usize;
                bytes[at..at + 8].copy_from_slice(&next.to_le_bytes());
                bytes[at + 8..at + 16].copy_from_slice(&address.to_le_bytes());
            };
            put(PAGE + 80, frame(PAGE + 32), IMAGE_BASE + 0x1100);
            put(PAGE + 32, frame(2048), IMAGE_BASE + 0x1200);
            put(2048, frame(1024), IMAGE_BASE + 0x1300);
            // A caller's frame lies above: this one ends the walk.
            put(1024, frame(1024), IMAGE_BASE + 0x1400);
        }
        let record = faults(&mut world, DISK, 1, 0);
        assert_eq!((record.ip, record.sp), (0x1234, frame(PAGE + 96)));
        assert_eq!(record.registers[..], words);
        assert_eq!(record.backtrace[..], [0x1100, 0x1200, 0x1300, 0x1400]);
        assert!(world.said().contains("at 0x1234"));
    });
}

#[test]
fn a_stack_that_makes_no_sense_is_followed_no_further() {
    // Where the frame pointer stands from the top, the word there and the one above it, and what is found.
    let code = IMAGE_BASE + 0x1100;
    for (below, next, address, found) in [
        (1024, 0, code, 1),
        // Not in the image; outside the stack; not aligned; in the last word, where no frame fits.
        (1024, 0, 0x1234_5678, 0),
        (0, 0, code, 0),
        (4 * PAGE + 16, 0, code, 0),
        (1028, 0, code, 0),
        (8, 0, code, 0),
        (16, 0, code, 1),
        (4 * PAGE, 0, code, 1),
    ] {
        booted(move |mut world| {
            let place = world.system.servers[SHELL.index()].threads[0];
            assert_eq!(place.stack_frames, 4);
            let mut words = [0; REGISTER_WORDS];
            words[FRAME_POINTER] = place.stack_top - below;
            let tcb = kit_cptr(SHELL.0, kit::TCBS).0;
            {
                let mut machine = world.machine.borrow_mut();
                machine.registers.insert(tcb, words);
                for n in 0..4 {
                    let frame = kit_cptr(SHELL.0, place.stack_frame - n).0;
                    let mut bytes = std::vec![0; PAGE_SIZE];
                    if below > n * PAGE && below <= (n + 1) * PAGE {
                        let at = ((n + 1) * PAGE - below) as usize & !3;
                        let all = [u64::to_le_bytes(next), u64::to_le_bytes(address)].concat();
                        let fits = all.len().min(PAGE_SIZE - at);
                        bytes[at..at + fits].copy_from_slice(&all[..fits]);
                    }
                    machine.frames.insert(frame, bytes);
                }
            }
            let record = faults(&mut world, SHELL, 0, 0);
            assert_eq!(record.backtrace.len(), found, "{below} {next:#x} {address:#x}");
            // An instruction pointer outside the image is none.
            assert_eq!(record.ip, 0);
        });
    }
}

#[test]
fn a_backtrace_has_an_end() {
    booted(|mut world| {
        let place = world.system.servers[SHELL.index()].threads[0];
        let bottom = place.stack_top - 4 * PAGE;
        let mut words = [0; REGISTER_WORDS];
        words[FRAME_POINTER] = bottom;
        {
            let mut machine = world.machine.borrow_mut();
            machine.registers.insert(kit_cptr(SHELL.0, kit::TCBS).0, words);
            // The whole stack full of frames of 16 bytes.
            for n in 0..4 {
                let base = bottom + (3 - n) * PAGE;
                let frames = (0..PAGE / 16).flat_map(|i| {
                    [base + 16 * (i + 1), IMAGE_BASE + 0x1000 + i].map(u64::to_le_bytes).concat()
                });
                let frame = kit_cptr(SHELL.0, place.stack_frame - n).0;
                machine.frames.insert(frame, frames.collect());
            }
        }
        let record = faults(&mut world, SHELL, 0, 0);
        assert_eq!(record.backtrace.len(), skink_protocols::control::BACKTRACE);
        assert!(record.backtrace.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    });
}

#[test]
fn cpu_time_is_that_of_all_threads_of_all_instances() {
    booted(|mut world| {
        let consume = |world: &World, times: [u64; 3]| {
            let mut machine = world.machine.borrow_mut();
            for (n, ns) in (0..).zip(times) {
                machine.consumed_ns.insert(kit_cptr(DISK.0, kit::SCHED_CONTEXTS + n).0, ns);
            }
        };
        consume(&world, [100, 20, 3]);
        assert_eq!(world.system.cpu_ns(DISK), 123);
        assert_eq!(world.system.cpu_ns(FILES), 0);
        world.system.event(Event::Died(DISK, Cause::Killed));
        assert_eq!(world.system.cpu_ns(DISK), 123, "it was kept");
        world.system.start(DISK, 2);
        world.system.servers[DISK.index()].is_built = true;
        consume(&world, [1000, 0, 0]);
        assert_eq!(world.system.cpu_ns(DISK), 1123);
    });
}

#[test]
fn neighbours_hear_of_a_death_and_of_the_start_that_follows() {
    booted(|mut world| {
        let sessions = |server: ServerId| kit_cptr(server.0, kit::SESSIONS).0;
        world.signalled();
        world.system.tell_neighbours(FILES);
        // Once for each edge: the driver, and the shell. The slot is empty.
        assert_eq!(world.signalled(), [sessions(DISK), sessions(SHELL)]);
        world.system.tell_neighbours(SHELL);
        assert_eq!(world.signalled(), [sessions(FILES)]);
        world.system.event(Event::Died(DISK, Cause::Killed));
        assert!(world.signalled().contains(&sessions(FILES)));
        world.system.start(DISK, 2);
        assert!(world.signalled().contains(&sessions(FILES)));
        world.system.event(Event::Died(FILES, Cause::Killed));
        world.signalled();
        world.system.tell_neighbours(SHELL);
        assert_eq!(world.signalled(), [], "nobody is there");
    });
}

#[test]
fn clients_of_a_server_that_is_given_up_are_woken_and_come_back_when_it_does() {
    booted(|mut world| {
        let caps = |world: &World, of: ServerId| -> StdVec<u64> {
            let its = world.system.sessions.iter().filter(|session| {
                world.system.manifest.edges[usize::from(session.edge)].server == of.0
            });
            its.map(|session| session.cap).collect()
        };
        assert_eq!(caps(&world, FILES).len(), 3);
        world.asked();
        world.said();
        world.system.mark_failed(FILES, Failure::Intensity);
        let asked = world.asked();
        let cancelled = asked.iter().filter(|a| a.what == Invocation::CNodeCancelBadgedSends);
        let cancelled: StdVec<_> = cancelled.map(|asked| asked.words[0]).collect();
        assert_eq!(cancelled, caps(&world, FILES));
        assert!(world.said().starts_with("root: files: "));
        // The shell's slots lead somewhere else now, and back again.
        let slots: StdVec<u64> =
            world.system.sessions[1..3].iter().map(|s| s.client_slot).collect();
        let filled = |asked: &[machine::Asked]| {
            let copied = asked.iter().filter(|a| {
                matches!(a.what, Invocation::CNodeCopy | Invocation::CNodeMint)
                    && slots.contains(&a.words[0])
            });
            copied.count()
        };
        assert_eq!(filled(&asked), 2);
        world.system.revive(FILES);
        assert_eq!(filled(&world.asked()), 2);
        // Of a slot nothing is said.
        world.system.mark_failed(SLOT, Failure::Stopped);
        assert_eq!(world.said(), "");
    });
}

#[test]
fn progress_is_a_turn_of_the_loop_or_an_answered_heartbeat() {
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        let page = world.page(FILES);
        assert!(world.system.made_progress(FILES), "the first time");
        assert!(!world.system.made_progress(FILES));
        page.loops.fetch_add(1, Relaxed);
        assert!(world.system.made_progress(FILES));
        assert!(!world.system.made_progress(FILES));
        page.heartbeats.fetch_add(1, Relaxed);
        assert!(world.system.made_progress(FILES));
        world.system.servers[FILES.index()].control = Memory::EMPTY;
        assert!(!world.system.made_progress(FILES));
    });
}

#[test]
fn after_many_deaths_and_starts_nothing_is_missing() {
    booted(|mut world| {
        let free = |world: &World| {
            (world.system.custody.untyped.free_bytes(), world.system.custody.slots.free())
        };
        let before = free(&world);
        let quota = world.system.custody.untyped.bytes_of(Owner::Quota(DISK.0));
        assert_eq!(quota, 1 << 20);
        for n in 2..40 {
            world.system.tear_down(DISK, Cause::Killed, 0);
            assert!(matches!(world.system.start(DISK, n), Event::Started(DISK)));
            assert_eq!(free(&world), before, "instance {n}");
        }
        assert_eq!(world.system.servers[DISK.index()].incarnation, 39);
    });
}

#[test]
fn a_record_is_completed_by_what_follows() {
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        world.system.event(Event::Died(DISK, Cause::Killed));
        assert_eq!((last(&world).timeline.reloaded, last(&world).timeline.started), (0, 0));
        world.system.start(DISK, 2);
        let line = last(&world).timeline;
        assert!(line.revoked <= line.reloaded && line.reloaded <= line.started);
        assert_ne!(line.reloaded, 0);
        let page = world.page(DISK);
        assert_eq!((page.ready_ns.load(Relaxed), page.first_answer_ns.load(Relaxed)), (0, 0));
        page.ready_ns.store(55, Relaxed);
        page.first_answer_ns.store(66, Relaxed);
        world.system.note_answered(DISK.0);
        let line = last(&world).timeline;
        assert_eq!((line.ready, line.answered), (55, 66));
    });
}

#[test]
fn an_instance_begins_with_a_clean_page() {
    use core::sync::atomic::Ordering::Relaxed;
    booted(|mut world| {
        let page = world.page(DISK);
        page.busy_until_ns.store(9, Relaxed);
        for word in [&page.in_flight, &page.exit_reason, &page.message_size, &page.at_once] {
            word.store(1, Relaxed);
        }
        page.is_recording.store(0, Relaxed);
        page.has_deadline.store(1, Relaxed);
        world.system.servers[DISK.index()].loops_at_timeout = 5;
        world.system.tear_down(DISK, Cause::Killed, 0);
        world.system.start(DISK, 2);
        for word in [&page.in_flight, &page.exit_reason, &page.message_size, &page.at_once] {
            assert_eq!(word.load(Relaxed), 0);
        }
        assert_eq!((page.busy_until_ns.load(Relaxed), page.is_recording.load(Relaxed)), (0, 1));
        assert_eq!(page.has_deadline.load(Relaxed), 0);
        assert_eq!(world.system.servers[DISK.index()].loops_at_timeout, u64::MAX);
    });
}
