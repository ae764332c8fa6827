//! Retype.

use libipc::cap::{self, CNodePath, Cap};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{Error, ObjectType};

use crate::env::{Env, PLAYGROUND, Test, slot, test};

pub const TESTS: &[Test] = &[
    test("UNTYPED0001", "every type of object can be made", each),
    test(
        "UNTYPED0002",
        "retype goes on until the memory is used up, then says what is left",
        exhaust,
    ),
    test("UNTYPED0003", "sizes, counts and types that make no sense are refused", nonsense),
    test(
        "UNTYPED0004",
        "retype into slots that are full or do not exist is refused and makes nothing",
        slots,
    ),
    test("UNTYPED0005", "memory is free again when the last child goes", reset),
    test("UNTYPED0006", "memory that was used before comes back zeroed", zeroed),
    test("UNTYPED0007", "device memory gives frames and Untyped, nothing else", device),
    test(
        "UNTYPED0008",
        "an object in use keeps its memory when others around it are deleted",
        neighbours,
    ),
];

fn each(env: &mut Env) {
    let sized = [
        (ObjectType::Untyped, 4),
        (ObjectType::Untyped, 12),
        (ObjectType::CNode, 1),
        (ObjectType::CNode, 8),
        (ObjectType::Frame, 12),
    ];
    let fixed = ObjectType::ALL.iter().filter(|t| skink_abi::cap::fixed_size_bits(**t).is_some());
    for (object, bits) in sized.into_iter().chain(fixed.map(|t| (*t, 0))) {
        let slot = env.slots(2);
        env.untyped()
            .retype(object, bits, env.cnode(), slot, 2)
            .unwrap_or_else(|e| panic!("{object:?}: {e}"));
        env.path(slot).delete().unwrap();
    }
}

fn exhaust(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 14);
    let first = env.slots(8);
    for slot in first..first + 3 {
        pool.retype(ObjectType::Frame, 12, env.cnode(), slot, 1).unwrap();
    }
    let error = pool.retype(ObjectType::Frame, 12, env.cnode(), first + 3, 2).unwrap_err();
    assert_eq!((error.error, error.detail[0]), (Error::NotEnoughMemory, 4096));
    pool.retype(ObjectType::Frame, 12, env.cnode(), first + 3, 1).unwrap();
    let error = pool.retype(ObjectType::Reply, 0, env.cnode(), first + 4, 1).unwrap_err();
    assert_eq!((error.error, error.detail[0]), (Error::NotEnoughMemory, 0));
}

fn nonsense(env: &mut Env) {
    let slot = env.slot();
    let refused = |object: u64, bits: u8, count: u64, error: Error| {
        let words = [object, u64::from(bits), 0, 0, slot, count];
        for (i, word) in words.iter().enumerate().skip(4) {
            libipc::buffer::set_word(i, *word);
        }
        libipc::buffer::set_send_caps(&[env.cnode().cptr()]);
        let info = skink_abi::MessageInfo::new(skink_abi::Invocation::UntypedRetype.raw(), 6, 1);
        let first: [u64; 4] = core::array::from_fn(|i| words[i]);
        let called = libipc::raw::call(env.untyped().cptr(), info, first);
        assert_eq!(called.unwrap_err().error, error, "{words:?}");
    };
    refused(99, 12, 1, Error::InvalidArgument);
    refused(u64::MAX, 12, 1, Error::InvalidArgument);
    refused(ObjectType::Untyped.raw(), 3, 1, Error::RangeError);
    refused(ObjectType::Untyped.raw(), 48, 1, Error::RangeError);
    refused(ObjectType::Untyped.raw(), 255, 1, Error::RangeError);
    refused(ObjectType::CNode.raw(), 0, 1, Error::RangeError);
    refused(ObjectType::CNode.raw(), 60, 1, Error::RangeError);
    refused(ObjectType::Frame.raw(), 13, 1, Error::InvalidArgument);
    refused(ObjectType::Endpoint.raw(), 0, 0, Error::RangeError);
    refused(ObjectType::Endpoint.raw(), 0, 257, Error::RangeError);
    refused(ObjectType::Endpoint.raw(), 0, u64::MAX, Error::RangeError);
}

fn slots(env: &mut Env) {
    let before = env.log().statistics().unwrap()[1];
    let make = |first: u64, count: u64| {
        env.untyped().retype(ObjectType::Notification, 0, env.cnode(), first, count)
    };
    assert_eq!(make(slot::CNODE - 1, 2).unwrap_err().error, Error::DeleteFirst);
    assert_eq!(make((1 << crate::env::CNODE_BITS) - 1, 2).unwrap_err().error, Error::RangeError);
    assert_eq!(make(u64::MAX, 2).unwrap_err().error, Error::RangeError);
    assert_eq!(make(1 << 40, 1).unwrap_err().error, Error::RangeError);
    let not_a_cnode = CNodePath { root: env.cnode(), index: slot::TCB, depth: 64 };
    assert_eq!(
        env.untyped().retype(ObjectType::Notification, 0, not_a_cnode, 0, 1).unwrap_err().error,
        Error::InvalidCapability
    );
    assert_eq!(env.log().statistics().unwrap()[1], before);
}

fn reset(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 12);
    let first = env.slots(2);
    for _ in 0..3 {
        pool.retype(ObjectType::Frame, 12, env.cnode(), first, 1).unwrap();
        assert_eq!(
            pool.retype(ObjectType::Reply, 0, env.cnode(), first + 1, 1).unwrap_err().error,
            Error::NotEnoughMemory
        );
        env.path(first).delete().unwrap();
    }
    pool.retype(ObjectType::Reply, 0, env.cnode(), first, 2).unwrap();
}

fn zeroed(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 12);
    let slot = env.slot();
    let frame: Cap<cap::Frame> = Cap::from_slot(slot);
    for round in 0..3 {
        pool.retype(ObjectType::Frame, 12, env.cnode(), slot, 1).unwrap();
        env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ | map_rights::WRITE);
        // SAFETY: one page was just mapped there for this test alone.
        let page = unsafe { core::slice::from_raw_parts_mut(PLAYGROUND as *mut u64, 512) };
        assert!(page.iter().all(|word| *word == 0), "round {round}");
        page.fill(0x5a5a_5a5a_5a5a_5a5a);
        env.path(slot).delete().unwrap();
    }
}

fn device(env: &mut Env) {
    let device: Cap<cap::Untyped> = Cap::from_slot(slot::DEVICE);
    let first = env.slots(4);
    for object in [ObjectType::Tcb, ObjectType::Endpoint, ObjectType::PageTable, ObjectType::VSpace]
    {
        assert_eq!(
            device.retype(object, 0, env.cnode(), first, 1).unwrap_err().error,
            Error::InvalidArgument,
            "{object:?}"
        );
    }
    assert_eq!(
        device.retype(ObjectType::CNode, 4, env.cnode(), first, 1).unwrap_err().error,
        Error::InvalidArgument
    );
    device.retype(ObjectType::Frame, 12, env.cnode(), first, 1).unwrap();
    let frame: Cap<cap::Frame> = Cap::from_slot(first);
    let refused = env.tcb().set_ipc_buffer(Some((frame, crate::env::BUFFER)));
    assert_eq!(
        refused.unwrap_err().error,
        Error::InvalidCapability,
        "a device frame is no IPC buffer"
    );
    env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ);
    let _ = MemoryType::Device;
}

fn neighbours(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 12);
    let first = env.slots(3);
    pool.retype(ObjectType::Notification, 0, env.cnode(), first, 2).unwrap();
    let kept: Cap<cap::Notification> = Cap::from_slot(first + 1);
    let badged = env.badge(kept, 8);
    badged.signal().unwrap();
    env.path(first).delete().unwrap();
    pool.retype(ObjectType::Notification, 0, env.cnode(), first + 2, 1).unwrap();
    Cap::<cap::Notification>::from_slot(first + 2).signal().unwrap();
    assert_eq!(kept.wait().unwrap(), 8);
}
