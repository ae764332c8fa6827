//! What a start comes to: each server's objects, memory and threads, and what it is told.

use super::*;
use crate::plan::{Content, IMAGE_BASE, Source, kit};
use skink_abi::invocation::{TCB_FLAG_FPU, map_rights, registers};
use skink_abi::{Invocation, PAGE_SIZE};
use std::collections::BTreeMap;

#[test]
fn everybody_starts_and_slots_stay_empty() {
    booted(|world| {
        for server in [DISK, FILES, SHELL] {
            assert!(world.system.is_running(server));
            assert_eq!(world.system.supervisor.state(server), State::Running);
        }
        assert!(!world.system.is_running(SLOT) && world.system.is_vacant(SLOT));
        assert!(world.system.has_life());
        assert_eq!(world.said(), "");
    });
}

#[test]
fn every_thread_gets_spaces_buffer_budget_priority_and_somebody_who_hears_of_its_faults() {
    booted(|world| {
        let asked = world.asked();
        for server in [DISK, FILES, SHELL] {
            let own = &world.system.servers[server.index()];
            let described = &world.system.manifest.servers[server.index()];
            let threads = own.threads.len() as u64;
            assert_eq!(threads, 1 + u64::from(described.extra_threads));
            let name = |slot| kit_cptr(server.0, slot).0;
            let of = |cap: u64, what| {
                let its = |asked: &&machine::Asked| asked.cap == cap && asked.what == what;
                let all: StdVec<_> = asked.iter().filter(its).collect();
                assert_eq!(all.len(), 1, "{what:?} of {cap:#x}");
                (all[0].words.clone(), all[0].caps.clone())
            };
            for n in 0..threads {
                let tcb = name(kit::TCBS + n);
                let (words, caps) = of(tcb, Invocation::TcbSetSpace);
                assert_eq!(caps, [name(kit::CSPACE), name(kit::VSPACE)]);
                assert_eq!(words, [u64::from(64 - own.plan.cspace_radix)]);
                let place = own.threads[n as usize];
                let (words, caps) = of(tcb, Invocation::TcbSetIpcBuffer);
                assert_eq!(
                    (words, caps),
                    (std::vec![place.ipc_buffer], std::vec![name(place.buffer_frame)])
                );
                let (words, caps) = of(tcb, Invocation::TcbSetSchedParams);
                assert_eq!(words, [u64::from(described.priority); 2]);
                let faults = name(kit::FAULTS + n);
                assert_eq!(caps, [boot::TCB, faults, name(kit::SCHED_CONTEXTS + n)]);
                assert_eq!(of(tcb, Invocation::TcbSetTimeoutEndpoint).1, [faults]);
                let timer = name(kit::TIMERS + n);
                let (_, caps) = of(timer, Invocation::TimerSetNotification);
                assert_eq!(caps, [name(kit::TIMER_BADGES + n)]);
            }
            let (_, caps) = of(name(kit::TCBS), Invocation::TcbBindNotification);
            assert_eq!(caps, [name(kit::NOTIFICATIONS)]);
            let with_state = asked.iter().filter(|asked| asked.what == Invocation::TcbSetFlags);
            let with_state = with_state.filter(|asked| asked.cap >> 20 == name(0) >> 20);
            let all: StdVec<_> = with_state.map(|asked| asked.words.clone()).collect();
            let expected = if described.fpu { threads as usize } else { 0 };
            assert_eq!(all, std::vec![std::vec![0, TCB_FLAG_FPU]; expected]);
        }
    });
}

#[test]
fn a_limited_budget_is_for_all_threads_together_and_others_take_turns() {
    booted(|world| {
        let machine = world.machine.borrow();
        let mut given: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for asked in machine.all(Invocation::SchedControlConfigure) {
            assert_eq!(asked.cap, boot::SCHED_CONTROL);
            given.insert(asked.caps[0], (asked.words[0], asked.words[1], asked.words[2]));
        }
        let of = |server: ServerId, n| given[&kit_cptr(server.0, kit::SCHED_CONTEXTS + n).0];
        for n in 0..3 {
            assert_eq!(of(DISK, n), (100_000, 3_000_000, n));
        }
        assert_eq!(of(SHELL, 0), (1_000_000, 1_000_000, 0));
    });
}

#[test]
fn the_first_thread_begins_at_the_entry_point_when_all_else_is_there() {
    booted(|world| {
        let asked = world.asked();
        for server in [DISK, FILES, SHELL] {
            let tcb = kit_cptr(server.0, kit::TCBS).0;
            // Doorbells follow: they are made of what runs.
            let its = |asked: &&machine::Asked| {
                asked.cap >> 20 == tcb >> 20 && asked.cap != kit_cptr(server.0, kit::CSPACE).0
            };
            let last = asked.iter().rfind(its).unwrap();
            assert_eq!((last.cap, last.what), (tcb, Invocation::TcbWriteRegisters));
            assert_eq!(last.words[0], 1, "it runs");
            if let Some(ip) = last.words.get(2 + registers::IP) {
                assert_eq!(*ip, IMAGE_BASE + 0x1010);
            }
        }
    });
}

#[test]
fn memory_is_mapped_where_the_plan_says_with_its_rights_and_never_both_written_and_executed() {
    booted(|world| {
        let asked = world.asked();
        for server in [DISK, FILES, SHELL] {
            let plan = &world.system.servers[server.index()].plan;
            let vspace = kit_cptr(server.0, kit::VSPACE).0;
            let into = |what| asked.iter().filter(move |a| a.what == what && a.caps == [vspace]);
            let assigned: StdVec<_> = into(Invocation::AsidPoolAssign).map(|a| a.cap).collect();
            assert_eq!(assigned, [boot::ASID_POOL]);
            let tables: StdVec<_> = into(Invocation::PageTableMap).map(|a| a.words[0]).collect();
            assert_eq!(tables, plan.tables[..]);
            let mapped: StdVec<_> =
                into(Invocation::FrameMap).map(|a| (a.words[0], a.words[1], a.words[2])).collect();
            let planned = plan.mappings.iter().flat_map(|m| {
                (0..u64::from(m.count))
                    .map(|i| (m.vaddr + (i << m.size_bits), m.rights, m.memory.raw()))
            });
            assert_eq!(mapped, planned.collect::<StdVec<_>>());
            let both = map_rights::WRITE | map_rights::EXECUTE;
            assert!(mapped.iter().all(|(_, rights, _)| rights & both != both));
            // No frame is mapped twice, and the thread's own are those that it was told.
            let mut frames: StdVec<_> = into(Invocation::FrameMap).map(|a| a.cap).collect();
            let own = &world.system.servers[server.index()];
            for place in &own.threads {
                let at =
                    |vaddr| into(Invocation::FrameMap).find(|a| a.words[0] == vaddr).unwrap().cap;
                assert_eq!(at(place.ipc_buffer), kit_cptr(server.0, place.buffer_frame).0);
                let top = at(place.stack_top - PAGE_SIZE as u64);
                assert_eq!(top, kit_cptr(server.0, place.stack_frame).0);
            }
            let count = frames.len();
            frames.sort_unstable();
            frames.dedup();
            assert_eq!(frames.len(), count);
        }
    });
}

#[test]
fn what_is_shared_is_copied_without_the_right_to_write_where_nobody_may() {
    booted(|world| {
        let asked = world.asked();
        let own = &world.system.servers[DISK.index()];
        for mapping in &own.plan.mappings {
            let Source::Granted(first) = mapping.source else { continue };
            for slot in first..first + u64::from(mapping.count) {
                let copies = asked.iter().filter(|asked| {
                    asked.what == Invocation::CNodeCopy
                        && asked.words[2] == slot
                        && asked.words[0] >> 20 == u64::from(DISK.0) + 1
                });
                let rights: StdVec<_> = copies.map(|asked| asked.words[4] as u8).collect();
                let expected = match mapping.rights & map_rights::WRITE {
                    0 => skink_abi::CapRights::READ,
                    _ => skink_abi::CapRights::READ | skink_abi::CapRights::WRITE,
                };
                assert_eq!(rights, [expected.bits()], "{mapping:x?}");
            }
        }
    });
}

#[test]
fn writable_pages_of_the_image_hold_what_the_pristine_copy_holds_at_each_start() {
    booted(|mut world| {
        for instance in 1..3 {
            let own = &world.system.servers[FILES.index()];
            let mut next = own.plan.small_slot;
            let mut looked_at = 0;
            for mapping in own.plan.mappings.iter().filter(|m| m.source == Source::Own) {
                for i in 0..mapping.count {
                    if let Content::Pristine(page) = mapping.content {
                        let frame = kit_cptr(FILES.0, next).0;
                        let mut machine = world.machine.borrow_mut();
                        let held = machine.frames.get_mut(&frame).unwrap();
                        let from = own.pristine.part((page + i) as usize * PAGE_SIZE, PAGE_SIZE);
                        from.unwrap().with_slice(|pristine| assert_eq!(held, pristine));
                        // What the instance makes of it.
                        held.fill(0xee);
                        looked_at += 1;
                    }
                    next += 1;
                }
            }
            assert_eq!(looked_at, 1, "instance {instance}");
            world.system.event(Event::Died(FILES, Cause::Killed));
            world.system.event(Event::Order(FILES, crate::supervise::Order::Start));
            let mut actions = Actions::new();
            world.system.supervisor.step(
                u64::MAX / 2,
                Event::TimerFired,
                Seen::default(),
                &mut actions,
            );
            for action in actions {
                world.system.act(action, 0);
            }
            assert!(world.system.is_running(FILES));
        }
    });
}

#[test]
fn objects_are_made_of_the_quota_as_planned_and_replies_last() {
    booted(|world| {
        let asked = world.asked();
        for server in [DISK, FILES, SHELL] {
            let own = &world.system.servers[server.index()];
            let quota = world.system.custody.untyped.slot(own.quota.unwrap());
            let retype = |asked: &&machine::Asked| asked.what == Invocation::UntypedRetype;
            let made = asked.iter().filter(retype).filter(|asked| asked.cap == quota);
            let made: StdVec<_> =
                made.map(|a| (a.words[0], a.words[1] as u8, a.words[4], a.words[5])).collect();
            let kit = own.slots + lasting::KIT;
            let mut expected =
                std::vec![(skink_abi::ObjectType::CNode.raw(), own.plan.kit_radix, kit, 1)];
            expected.extend(
                own.plan.retypes.iter().map(|r| (r.object.raw(), r.size_bits, r.slot, r.count)),
            );
            assert_eq!(made, expected);
            let replies = kit_cptr(server.0, kit::REPLIES).0;
            let replies: StdVec<_> =
                asked.iter().filter(retype).filter(|a| a.cap == replies).collect();
            let (first, count) = own.replies;
            assert_eq!(count, u64::from(world.system.manifest.servers[server.index()].replies));
            assert_eq!(replies.len(), 1);
            assert_eq!((replies[0].words[4], replies[0].words[5]), (first, count));
            assert_eq!(replies[0].caps, [kit_cptr(server.0, kit::CSPACE).0]);
        }
    });
}

#[test]
fn the_start_info_says_where_everything_is() {
    booted(|world| {
        let read = |server: ServerId| {
            let page = &world.system.servers[server.index()].info;
            page.memory.with_slice(|bytes| {
                let (info, rest) =
                    postcard::take_from_bytes::<libipc::start::StartInfo>(bytes).unwrap();
                assert_eq!(bytes.len() - rest.len(), page.bytes() as usize);
                info
            })
        };
        let disk = read(DISK);
        assert_eq!((disk.name.as_str(), disk.incarnation), ("disk", 1));
        assert_eq!((disk.counter_base, disk.has_log), (7, false));
        assert_eq!((disk.heap.size, disk.dma.size, disk.survivor.size), (8192, 8192, 0));
        assert_ne!(disk.dma.paddr, 0);
        assert_eq!((disk.threads.len(), disk.outgoing.len(), disk.incoming.len()), (2, 0, 1));
        for (kit, place) in disk.threads.iter().zip(&world.system.servers[0].threads[1..]) {
            assert_eq!((kit.stack_top, kit.ipc_buffer), (place.stack_top, place.ipc_buffer));
        }
        assert_eq!(disk.incoming[0].client, "files");
        let files = read(FILES);
        assert_eq!((files.survivor.size, files.boot_image.size, files.heap.size), (8192, 8192, 0));
        assert_eq!((files.replies.len(), files.outgoing.len(), files.incoming.len()), (3, 1, 3));
        assert_eq!(files.outgoing[0].edge, "block");
        let shell = read(SHELL);
        assert_eq!((shell.has_log, shell.boot_image.size, shell.outgoing.len()), (true, 0, 2));
        assert_eq!(shell.ipc_buffer, world.system.servers[2].threads[0].ipc_buffer);
    });
}

#[test]
fn a_server_without_its_program_fails_alone_and_is_tried_once() {
    fn without() -> Manifest {
        let mut manifest = manifest();
        manifest.servers[DISK.index()].binary = "elsewhere".try_into().unwrap();
        manifest
    }
    set_up(without, |mut world| {
        // The image has a program for every server; this one's is taken away.
        world.system.manifest.servers[DISK.index()].binary = "nowhere".try_into().unwrap();
        world.system.event(Event::Boot);
        assert!(!world.system.is_running(DISK) && world.system.is_running(FILES));
        assert_eq!(world.system.supervisor.state(DISK), State::Failed(Failure::CannotStart));
        assert!(world.said().contains("disk: cannot start: it is not in the boot image"));
        world.system.event(Event::Order(DISK, crate::supervise::Order::Start));
        assert!(world.said().contains("disk: cannot start: as before: the reason is in the log"));
    });
}

#[test]
fn a_start_that_the_kernel_refuses_is_undone() {
    set_up(manifest, |mut world| {
        let refusal = (Invocation::TcbSetIpcBuffer, skink_abi::Error::InvalidArgument);
        world.machine.borrow_mut().refuses = Some(refusal);
        world.system.event(Event::Boot);
        assert!(!world.system.is_running(SHELL));
        assert!(world.said().contains("shell: cannot start: the kernel refused"));
        let quota = world.system.servers[SHELL.index()].quota.unwrap();
        let quota = world.system.custody.untyped.slot(quota);
        let machine = world.machine.borrow();
        let revoked = machine.all(Invocation::CNodeRevoke);
        assert!(revoked.iter().any(|asked| asked.words[0] == quota));
    });
}

#[test]
fn a_quarantined_server_does_not_start() {
    set_up(manifest, |mut world| {
        world.system.servers[DISK.index()].is_quarantined = true;
        world.system.event(Event::Boot);
        assert_eq!(world.system.supervisor.state(DISK), State::Failed(Failure::DeviceQuarantined));
        assert!(!world.system.is_running(DISK));
    });
}

#[test]
fn an_image_of_another_build_or_machine_sets_nothing_up() {
    set_up(manifest, |world| {
        let mut system = Box::new(System::EMPTY);
        let good = boot_info(image(&manifest()));
        let other = |change: fn(&mut BootInfo)| {
            let mut info = *good;
            change(&mut info);
            &*Box::leak(Box::new(info))
        };
        assert_eq!(system.set_up(other(|i| i.magic += 1)), Err(setup::SetupError::BootInfo));
        assert_eq!(system.set_up(other(|i| i.version += 1)), Err(setup::SetupError::BootInfo));
        assert_eq!(system.custody.untyped.free_bytes(), 0, "nothing was taken");
        drop(world);
    });
}
