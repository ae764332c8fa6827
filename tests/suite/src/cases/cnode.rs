//! CNode operations.

use libipc::cap::{self, Cap};
use skink_abi::{CapRights, Error};

use crate::env::{Env, Test, slot};

pub const TESTS: &[Test] = &[
    Test {
        id: "CNODE0001",
        sentence: "copy makes a second capability of the same object",
        run: copy,
    },
    Test {
        id: "CNODE0002",
        sentence: "copy into a full slot is refused",
        run: copy_full,
    },
    Test {
        id: "CNODE0003",
        sentence: "delete empties a slot, and an empty slot may be deleted",
        run: delete,
    },
    Test {
        id: "CNODE0004",
        sentence: "move empties its source",
        run: move_,
    },
];

fn copy(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let copy = env.slot();
    env.path(copy)
        .copy(env.path(notification.cptr().0), CapRights::all())
        .unwrap();
    Cap::<cap::Notification>::from_slot(copy).signal().unwrap();
    let badged = env.badge(notification, 6);
    badged.signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 6);
}

fn copy_full(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let full = env.path(slot::TCB);
    let error = full
        .copy(env.path(notification.cptr().0), CapRights::all())
        .unwrap_err();
    assert_eq!(error.error, Error::DeleteFirst);
}

fn delete(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    env.delete(notification);
    env.delete(notification);
    assert_eq!(
        notification.signal().unwrap_err().error,
        Error::InvalidCapability
    );
}

fn move_(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let to = env.slot();
    env.path(to).move_(env.path(notification.cptr().0)).unwrap();
    assert_eq!(
        notification.signal().unwrap_err().error,
        Error::InvalidCapability
    );
    Cap::<cap::Notification>::from_slot(to).signal().unwrap();
}
