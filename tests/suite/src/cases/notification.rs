//! Notifications.

use libipc::cap::{self, Cap};
use skink_abi::Error;

use crate::env::{Env, Test};

pub const TESTS: &[Test] = &[Test {
    id: "NTFN0001",
    sentence: "signals accumulate bits, wait takes all, poll finds none",
    run: accumulate,
}];

fn accumulate(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let (one, four) = (env.badge(notification, 1), env.badge(notification, 4));
    one.signal().unwrap();
    four.signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 5);
    assert_eq!(notification.poll().unwrap_err().error, Error::WouldBlock);
}
