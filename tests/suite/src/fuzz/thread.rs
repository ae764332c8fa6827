//! A fuzzed thread: makes random system calls for ever.
//!
//! It runs on a read-only copy of the image, so it uses no statics that change, and it must not
//! panic: what it does depends on its [`State`] alone.

use libipc::arch;
use skink_abi::message::{MAX_CAPS, PROTOCOL_FAULT_LABEL, buffer};
use skink_abi::{Invocation, MessageInfo, Syscall};

use super::operations::{OPERATIONS, Operation, kind, total_weight};
use super::state::{CALLS, REGION, SLOTS, STACK_LIMIT, State, without};
use super::words;

/// First code of a fuzzed thread, and where it begins again whenever somebody says so.
pub extern "C" fn main(_: u64, _: u64) -> ! {
    let mark = 0u64;
    let here = &raw const mark as u64;
    if here % REGION < STACK_LIMIT + 0x1000 {
        // Begun again too often on top of itself: the supervisor gives it a fresh stack.
        arch::load_null();
    }
    // SAFETY: the stack is in the thread's region, which begins with its state.
    let state = unsafe { &mut *((here & !(REGION - 1)) as *mut State) };
    loop {
        step(state);
    }
}

fn step(state: &mut State) {
    match state.random.below(64) {
        0..36 => invoke(state),
        36..62 => communicate(state),
        62 => garbage(state),
        _ => special(state),
    }
}

/// One invocation of the table.
fn invoke(state: &mut State) {
    let (index, operation) = choose(state);
    if state.leaves_out(operation.call.raw()) {
        return;
    }
    let target = match operation.on {
        // Its own CNode, as a rule.
        kind::CNODE if !state.random.chance(4) => 1,
        kind::IRQ_CONTROL | kind::PORT_CONTROL => SLOTS as u64,
        wanted => state.find(wanted),
    };
    let mut chosen = words::Chosen::default();
    for (at, word) in operation.words.iter().enumerate() {
        chosen.words[at % 8] = words::make(state, *word, &chosen.words, at);
    }
    let is_port = operation.on == kind::PORT_CONTROL;
    if !is_port && !operation.words.is_empty() && state.random.chance(16) {
        let at = state.random.below(operation.words.len() as u64) as usize;
        chosen.words[at % 8] = words::edge(state);
    }
    let mut length = operation.words.len();
    let mut count = operation.caps.len();
    for (at, wanted) in operation.caps.iter().enumerate() {
        chosen.caps[at % MAX_CAPS] = match *wanted {
            kind::CNODE if !state.random.chance(6) => 1,
            _ if state.random.chance(32) => state.random.below(SLOTS as u64),
            wanted => state.find(wanted),
        };
    }
    if state.random.chance(32) {
        length = state.random.below(9) as usize;
        count = state.random.below(4) as usize;
    }
    let cptr = match target {
        // A control capability, in its own CNode.
        there if there == SLOTS as u64 => {
            if state.controls == 0 {
                return;
            }
            state.controls | u64::from(operation.on == kind::PORT_CONTROL)
        }
        slot => state.cptr(slot),
    };
    send_along(state, &chosen, length, count);
    let info = MessageInfo::new(operation.call.raw(), length, count);
    // A call on a missing capability is a fault, a send that does not block an error.
    let is_missing = target < SLOTS as u64 && state.believed(target) == kind::EMPTY;
    let call = match state.random.below(16) {
        0 => Syscall::Send,
        1 => Syscall::NbSend,
        2.. if is_missing => Syscall::NbSend,
        _ => Syscall::Call,
    };
    let [a, b, c, d, ..] = chosen.words;
    state.last = operation.call.raw();
    let answer = arch::syscall(call, cptr, info, [a, b, c, d]);
    state.count(index, answer.status);
    if answer.status == 0 {
        words::took_effect(state, operation, target, &chosen);
    } else {
        words::failed(state, operation, target, &chosen, answer.status, answer.words[0]);
    }
}

fn choose(state: &mut State) -> (usize, &'static Operation) {
    let mut left = state.random.below(const { total_weight() });
    for (index, operation) in OPERATIONS.iter().enumerate() {
        let weight = u64::from(operation.weight);
        if left < weight {
            return (index, operation);
        }
        left -= weight;
    }
    (0, &OPERATIONS[0])
}

/// Puts words beyond the registers and the capabilities to send into the buffer.
fn send_along(state: &mut State, chosen: &words::Chosen, length: usize, count: usize) {
    for at in 4..length.min(8) {
        state.set_word(at, chosen.words[at]);
    }
    for at in 0..count.min(MAX_CAPS) {
        let cptr = match chosen.caps[at] {
            0 if state.random.chance(4) => state.random.next(),
            slot => state.cptr(slot),
        };
        state.set_word(buffer::SEND_CAPS + at, cptr);
    }
}

/// A message: sent, received, answered or signalled.
fn communicate(state: &mut State) {
    // Calls that block are rarer: there must be somebody to wake those who wait.
    let call = match state.random.below(128) {
        0..6 => Syscall::Call,
        6..11 => Syscall::ReplyRecv,
        11..13 => Syscall::Send,
        13..50 => Syscall::NbSend,
        50..52 => Syscall::NbSendRecv,
        52..55 => Syscall::Recv,
        55..80 => Syscall::NbRecv,
        80..102 => Syscall::Signal,
        102..104 => Syscall::Wait,
        104..122 => Syscall::Poll,
        _ => Syscall::Yield,
    };
    let wanted = match call {
        Syscall::Signal | Syscall::Wait | Syscall::Poll => kind::NOTIFICATION,
        Syscall::Send | Syscall::NbSend | Syscall::NbSendRecv => {
            state.random.one(&[kind::ENDPOINT, kind::ENDPOINT, kind::REPLY, kind::NOTIFICATION])
        }
        Syscall::Recv | Syscall::NbRecv if state.random.chance(8) => kind::NOTIFICATION,
        _ => kind::ENDPOINT,
    };
    let slot = if state.random.chance(48) { words::edge(state) } else { state.find(wanted) };
    let info = message(state);
    let is_receiving = matches!(
        call,
        Syscall::ReplyRecv | Syscall::NbSendRecv | Syscall::Recv | Syscall::NbRecv | Syscall::Call
    );
    let window = if is_receiving { receive_window(state) } else { 0 };
    let kinds = (0..3).map(|at| u64::from(state.believed(sent(state, at))) << (8 * at)).sum();
    let reply = match state.random.below(16) {
        0 => 0,
        1 => state.random.below(SLOTS as u64),
        _ => state.find(kind::REPLY),
    };
    let reply = if reply == 0 { 0 } else { state.cptr(reply) };
    let from_kind = if state.random.chance(8) { kind::NOTIFICATION } else { kind::ENDPOINT };
    let from = state.find(from_kind);
    let [a, b, c] = [0; 3].map(|_: u64| state.random.next());
    let (cptr, from) = (state.cptr(slot), state.cptr(from));
    state.last = 200 + call.raw();
    let answer = arch::syscall_reply_from(call, cptr, info, [kinds, a, b, c], reply, from);
    state.count(OPERATIONS.len() + call.raw() as usize, answer.status);
    if answer.status == 0 && window != 0 {
        for at in 0..answer.info.caps().min(3) as u64 {
            let arrived = (answer.words[0] >> (8 * at) & 0xff) as u8;
            state.believe(window + at, arrived.min(kind::ANY));
        }
    }
}

/// The slot of capability `at` that was put into the buffer to send.
fn sent(state: &State, at: usize) -> u64 {
    // SAFETY: as in `State::set_word`.
    unsafe { (state.buffer as *const u64).add(buffer::SEND_CAPS + at).read_volatile() % 64 }
}

/// Label, length and capabilities of a message; the latter are put into the buffer.
fn message(state: &mut State) -> MessageInfo {
    let length = match state.random.below(32) {
        0..18 => state.random.below(5),
        18..28 => state.random.below(10),
        28..30 => 64,
        30 => state.random.below(496),
        _ => 511,
    };
    let caps = if state.random.chance(4) { 1 + state.random.below(3) } else { 0 };
    for at in 0..caps as usize {
        let slot = state.full();
        let cptr = if state.random.chance(16) { state.random.next() } else { state.cptr(slot) };
        state.set_word(buffer::SEND_CAPS + at, cptr);
    }
    let label = match state.random.below(32) {
        0 => PROTOCOL_FAULT_LABEL,
        // No invocation has such a label: the message may reach an object.
        _ => 0x1000 + state.random.below(8),
    };
    MessageInfo::new(label, 0, caps as usize).with_raw_length(length)
}

trait RawLength {
    fn with_raw_length(self, length: u64) -> Self;
}

impl RawLength for MessageInfo {
    /// Lengths that are too long are the kernel's to cut.
    fn with_raw_length(self, length: u64) -> MessageInfo {
        MessageInfo(self.0 & !0x1ff | length & 0x1ff)
    }
}

/// Offers slots for received capabilities; the first, or 0.
fn receive_window(state: &mut State) -> u64 {
    if state.random.chance(3) {
        state.set_word(buffer::RECEIVE_COUNT, 0);
        return 0;
    }
    let (slot, count) = (state.find(kind::EMPTY), state.random.below(4));
    let cnode = if state.random.chance(16) { state.random.next() } else { state.cptr(1) };
    state.set_word(buffer::RECEIVE_CNODE, cnode);
    state.set_word(buffer::RECEIVE_SLOT, slot);
    let count = if count == 3 { state.random.next() } else { count };
    state.set_word(buffer::RECEIVE_COUNT, count);
    slot
}

/// Any invocation on any capability with any words.
fn garbage(state: &mut State) {
    let call = state.random.one(Invocation::ALL);
    let is_bounded = matches!(call, Invocation::IoPortControlIssue | Invocation::LogWrite);
    if is_bounded || state.leaves_out(call.raw()) {
        return;
    }
    let mut chosen = words::Chosen::default();
    for word in &mut chosen.words {
        *word = words::edge(state);
    }
    for cap in &mut chosen.caps {
        *cap = state.random.below(SLOTS as u64);
    }
    let (length, count) = (state.random.below(9) as usize, state.random.below(4) as usize);
    send_along(state, &chosen, length, count);
    let slot = state.random.below(SLOTS as u64);
    let is_missing = state.believed(slot) == kind::EMPTY && !state.random.chance(16);
    let way = if is_missing { Syscall::NbSend } else { Syscall::Call };
    // A port may be asked for its neighbours, but every thread has only harmless ones.
    let [a, b, c, d, ..] = chosen.words;
    let info = MessageInfo::new(call.raw(), length, count);
    state.last = 300 + call.raw();
    let answer = arch::syscall(way, state.cptr(slot), info, [a, b, c, d]);
    state.count(OPERATIONS.len() + CALLS - 1, answer.status);
}

/// What is no plain system call: faults, touched memory, other control capabilities, the log.
fn special(state: &mut State) {
    match state.random.below(64) {
        0 if !state.leaves_out(u64::from(without::FAULTS)) => fault(state),
        1..4 => {
            let own = state.cptr(1);
            state.set_word(buffer::RECEIVE_CNODE, own);
            let at = state.random.below(16) as usize;
            state.set_word(buffer::SEND_CAPS + at, own);
        }
        4 if state.random.chance(4096) => {
            let slot = state.find(kind::LOG);
            let info = MessageInfo::new(Invocation::LogWrite.raw(), 2, 0);
            let _ = arch::syscall(Syscall::Call, state.cptr(slot), info, [2, 0x0a2e, 0, 0]);
        }
        _ => {
            let address = words::address(state);
            if address >= words::PLAYGROUND && state.random.chance(8) {
                // SAFETY: nothing is at risk: if something is mapped there it is the fuzzed
                // threads' own, and nothing in it is relied on; else the thread faults.
                unsafe { (address as *const u64).read_volatile() };
            }
        }
    }
}

fn fault(state: &mut State) {
    match state.random.below(4) {
        0 => crate::arch::raw_syscall(state.random.next() | 16),
        1 => {
            arch::load_null();
        }
        2 => arch::undefined_instruction(),
        _ => {
            let address = words::edge(state) & !7;
            if !(0x1000..words::PLAYGROUND).contains(&address) {
                // SAFETY: as in `special`.
                unsafe { (address as *mut u64).write_volatile(1) };
            }
        }
    }
}
