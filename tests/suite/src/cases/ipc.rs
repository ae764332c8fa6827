//! Endpoints and messages.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::{buffer, raw};
use skink_abi::message::ReceiveWindow;
use skink_abi::{CPtr, CapRights, Error, MessageInfo};

use crate::env::{Env, PRIORITY, Space, Test, test};

pub const TESTS: &[Test] = &[
    test("IPC0001", "a call is answered word for word, in the same space", |e| {
        echo(e, Space::Same, 101)
    }),
    test("IPC0002", "a call is answered word for word, across spaces", |e| {
        echo(e, Space::Other, 101)
    }),
    test("IPC0003", "a call to a server of lower priority is answered too", |e| {
        echo(e, Space::Other, 99)
    }),
    test("IPC0004", "a send is received with label, words and badge", send),
    test(
        "IPC0005",
        "a receiver that comes first gets the message, and one that comes later",
        order,
    ),
    test("IPC0006", "a non-blocking send is dropped when nobody waits", nb_send),
    test("IPC0007", "a non-blocking receive says WouldBlock when nobody sends", nb_recv),
    test("IPC0008", "a capability travels with a message", transfer),
    test(
        "IPC0009",
        "three capabilities travel, and a window that is full takes none",
        transfer_many,
    ),
    test("IPC0010", "without the grant right no capability travels", no_grant),
    test("IPC0011", "a capability of the endpoint itself arrives unwrapped, as its badge", unwrap),
    test("IPC0012", "sending needs the write right, receiving the read right", rights),
    test(
        "IPC0013",
        "waiting senders are received by priority, first come first within one",
        priorities,
    ),
    test("IPC0014", "deleting an endpoint cancels those who wait on it", delete_endpoint),
    test("IPC0015", "suspending a queued sender takes its message back", suspend_sender),
    test("IPC0016", "a receiver with a bound notification gets messages and signals", bound),
    test("IPC0017", "nb_send_recv sends, then receives", nb_send_recv),
    test("IPC0018", "messages of one sender keep their order", in_order),
];

/// A server that answers each message with the same words, label plus 1.
pub fn echo_server(slots: u64) {
    let (endpoint, reply) = (CPtr(slots & 0xffff), CPtr(slots >> 16));
    let mut message = raw::recv(endpoint, reply).unwrap();
    loop {
        let info = MessageInfo::new(message.info.label() + 1, message.info.length(), 0);
        message = raw::reply_recv(endpoint, info, message.words, reply).unwrap();
    }
}

fn echo(env: &mut Env, space: Space, priority: u8) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    env.spawn(space, priority, echo_server, endpoint.cptr().0 | reply.cptr().0 << 16);
    for length in [0usize, 1, 3, 4, 5, 64, 120, 496] {
        for word in 4..length {
            buffer::set_word(word, word as u64 * 3);
        }
        let words = [length as u64, 2, 3, 4];
        let answer = endpoint.call(MessageInfo::new(7, length, 0), words).unwrap();
        assert_eq!((answer.info.label(), answer.info.length()), (8, length));
        let in_registers = length.min(4);
        assert_eq!(answer.words[..in_registers], words[..in_registers]);
        for word in 4..length {
            assert_eq!(buffer::word(word), word as u64 * 3, "word {word} of {length}");
        }
    }
}

static DONE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn status(result: libipc::SysResult<()>) -> u64 {
    match result {
        Ok(()) => 100,
        Err(error) => error.error.raw(),
    }
}

/// Sends label `index` (bits 32 and up) to the endpoint, and leaves the status behind.
fn send_one(argument: u64) {
    let (endpoint, index) = (CPtr(argument & 0xffff_ffff), argument >> 32);
    let sent = raw::send(endpoint, MessageInfo::new(index, 2, 0), [index, 77, 0, 0]);
    DONE[index as usize].store(status(sent), SeqCst);
}

fn send(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let badged = env.badge(endpoint, u64::MAX);
    env.spawn(Space::Other, 101, send_one, badged.cptr().0 | 3 << 32);
    let message = endpoint.recv(reply).unwrap();
    assert_eq!((message.badge, message.info.label(), message.info.length()), (u64::MAX, 3, 2));
    assert_eq!(message.words[..2], [3, 77]);
    raw::yield_now();
    assert_eq!(DONE[3].load(SeqCst), 100);
}

fn order(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    // A sender of lower priority runs only once we wait.
    env.spawn(Space::Same, PRIORITY - 1, send_one, endpoint.cptr().0 | 1 << 32);
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 1);
    env.spawn(Space::Same, PRIORITY + 1, send_one, endpoint.cptr().0 | 2 << 32);
    assert_eq!(endpoint.nb_recv(reply).unwrap().words[0], 2);
}

fn nb_send(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    endpoint.nb_send(MessageInfo::new(1, 0, 0), [0; 4]).unwrap();
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
}

fn nb_recv(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
    assert_eq!(raw::nb_recv(CPtr::NULL, reply.cptr()).unwrap_err().error, Error::InvalidCapability);
}

/// Receives one message with a window of slots; the words of `argument`, from the low end:
/// endpoint, reply, first slot of the window (16 bits each), count.
fn receive_caps(argument: u64) {
    let field = |shift: u64| argument >> shift & 0xffff;
    let cnode = CPtr(crate::env::slot::CNODE);
    buffer::set_receive_window(ReceiveWindow { cnode, slot: field(32), count: field(48) });
    let message = raw::recv(CPtr(field(0)), CPtr(field(16))).unwrap();
    DONE[0].store(message.info.caps() as u64, SeqCst);
    DONE[1].store(message.info.unwrapped(), SeqCst);
    DONE[2].store(buffer::unwrapped_badge(0), SeqCst);
    DONE[3].store(1, SeqCst);
}

fn send_caps(env: &mut Env, endpoint: Cap<cap::Endpoint>, caps: &[CPtr], window: (u64, u64)) {
    let reply: Cap<cap::Reply> = env.make();
    let arguments = endpoint.cptr().0 | reply.cptr().0 << 16 | window.0 << 32 | window.1 << 48;
    env.spawn(Space::Same, 101, receive_caps, arguments);
    buffer::set_send_caps(caps);
    endpoint.send(MessageInfo::new(0, 0, caps.len()), [0; 4]).unwrap();
    raw::yield_now();
    assert_eq!(DONE[3].load(SeqCst), 1, "the receiver has it");
}

fn transfer(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.badge(notification, 5);
    let to = env.slot();
    send_caps(env, endpoint, &[badged.cptr()], (to, 1));
    assert_eq!((DONE[0].load(SeqCst), DONE[1].load(SeqCst)), (1, 0));
    Cap::<cap::Notification>::from_slot(to).signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 5);
    badged.signal().unwrap();
}

fn transfer_many(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let notification: Cap<cap::Notification> = env.make();
    let caps: [CPtr; 3] = core::array::from_fn(|i| env.badge(notification, 1 << i).cptr());
    let to = env.slots(3);
    send_caps(env, endpoint, &caps, (to, 3));
    assert_eq!(DONE[0].load(SeqCst), 3);
    for slot in to..to + 3 {
        Cap::<cap::Notification>::from_slot(slot).signal().unwrap();
    }
    assert_eq!(notification.wait().unwrap(), 7);
    DONE[3].store(0, SeqCst);
    send_caps(env, endpoint, &caps, (to, 3));
    assert_eq!(DONE[0].load(SeqCst), 0, "the window was full");
    DONE[3].store(0, SeqCst);
    let free = env.slot();
    send_caps(env, endpoint, &caps, (free, 1));
    assert_eq!(DONE[0].load(SeqCst), 1, "the window had one slot");
}

fn no_grant(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let notification: Cap<cap::Notification> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let weak = env.mint(endpoint, CapRights::WRITE, 0);
    let to = env.slot();
    let arguments = endpoint.cptr().0 | reply.cptr().0 << 16 | to << 32 | 1 << 48;
    env.spawn(Space::Same, 101, receive_caps, arguments);
    buffer::set_send_caps(&[notification.cptr()]);
    weak.send(MessageInfo::new(0, 0, 1), [0; 4]).unwrap();
    raw::yield_now();
    assert_eq!((DONE[3].load(SeqCst), DONE[0].load(SeqCst)), (1, 0));
    assert_eq!(
        Cap::<cap::Notification>::from_slot(to).poll().unwrap_err().error,
        Error::InvalidCapability
    );
}

fn unwrap(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let badged = env.badge(endpoint, 0x1234);
    let to = env.slot();
    send_caps(env, endpoint, &[badged.cptr()], (to, 1));
    assert_eq!((DONE[0].load(SeqCst), DONE[1].load(SeqCst)), (1, 1));
    assert_eq!(DONE[2].load(SeqCst), 0x1234);
}

fn rights(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let reader = env.mint(endpoint, CapRights::READ, 0);
    let writer = env.mint(endpoint, CapRights::WRITE, 0);
    assert_eq!(
        reader.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap_err().error,
        Error::InsufficientRights
    );
    assert_eq!(writer.nb_recv(reply).unwrap_err().error, Error::InsufficientRights);
    writer.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    assert_eq!(reader.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
}

fn priorities(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    for (index, priority) in [(0u64, 101), (1, 103), (2, 101), (3, 102)] {
        env.spawn(Space::Same, priority, send_one, endpoint.cptr().0 | index << 32);
    }
    let received: [u64; 4] = core::array::from_fn(|_| endpoint.recv(reply).unwrap().words[0]);
    assert_eq!(received, [1, 3, 0, 2]);
}

fn delete_endpoint(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    for index in 0..2 {
        env.spawn(Space::Same, 101, send_one, endpoint.cptr().0 | index << 32);
    }
    env.delete(endpoint);
    assert_eq!(DONE[0].load(SeqCst), Error::Cancelled.raw());
    assert_eq!(DONE[1].load(SeqCst), Error::Cancelled.raw());
}

fn suspend_sender(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let sender = env.spawn(Space::Same, 101, send_one, endpoint.cptr().0 | 1 << 32);
    sender.tcb.suspend().unwrap();
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
    sender.tcb.resume().unwrap();
    assert_eq!(endpoint.nb_recv(reply).unwrap().words[0], 1, "resume repeats the call");
}

fn bound(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.badge(notification, 0x40);
    env.tcb().bind_notification(notification).unwrap();
    badged.signal().unwrap();
    let signal = endpoint.recv(reply).unwrap();
    assert_eq!((signal.badge, signal.info), (0x40, MessageInfo(0)));
    env.spawn(Space::Same, 99, send_one, endpoint.cptr().0 | 1 << 32);
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 1);
    env.tcb().unbind_notification().unwrap();
    badged.signal().unwrap();
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
    assert_eq!(notification.wait().unwrap(), 0x40);
}

/// Receives on one endpoint (low half) and sends its word plus 1 to another.
fn relay(argument: u64) {
    let field = |shift: u64| CPtr(argument >> shift & 0xffff);
    let message = raw::recv(field(0), field(16)).unwrap();
    let words = [message.words[0] + 1, 0, 0, 0];
    raw::send(field(32), MessageInfo::new(0, 1, 0), words).unwrap();
}

fn nb_send_recv(env: &mut Env) {
    let (there, back): (Cap<cap::Endpoint>, Cap<cap::Endpoint>) = (env.make(), env.make());
    let (reply, its_reply): (Cap<cap::Reply>, Cap<cap::Reply>) = (env.make(), env.make());
    let arguments = there.cptr().0 | its_reply.cptr().0 << 16 | back.cptr().0 << 32;
    env.spawn(Space::Other, 101, relay, arguments);
    let words = [41, 0, 0, 0];
    let answer = there.nb_send_recv(MessageInfo::new(0, 1, 0), words, back, reply).unwrap();
    assert_eq!(answer.words[0], 42);
}

/// Sends 1 to 50.
fn send_many(endpoint: u64) {
    for i in 1..=50 {
        raw::send(CPtr(endpoint), MessageInfo::new(0, 1, 0), [i, 0, 0, 0]).unwrap();
    }
}

fn in_order(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    env.spawn(Space::Other, 101, send_many, endpoint.cptr().0);
    for i in 1..=50 {
        assert_eq!(endpoint.recv(reply).unwrap().words[0], i);
    }
}
