//! Endpoints and messages.

use libipc::cap::{self, Cap};
use libipc::{buffer, raw};
use skink_abi::{CPtr, MessageInfo};

use crate::env::{Env, Space, Test};

pub const TESTS: &[Test] = &[
    Test {
        id: "IPC0001",
        sentence: "a call is answered with its own words, in the same space",
        run: |e| echo(e, Space::Same),
    },
    Test {
        id: "IPC0002",
        sentence: "a call is answered with its own words, across spaces",
        run: |e| echo(e, Space::Other),
    },
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

fn echo(env: &mut Env, space: Space) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    env.spawn(
        space,
        101,
        echo_server,
        endpoint.cptr().0 | reply.cptr().0 << 16,
    );
    for length in [0usize, 1, 3, 4, 5, 64, 120, 496] {
        for word in 4..length {
            buffer::set_word(word, word as u64 * 3);
        }
        let words = [length as u64, 2, 3, 4];
        let answer = endpoint
            .call(MessageInfo::new(7, length, 0), words)
            .unwrap();
        assert_eq!(answer.info.label(), 8);
        assert_eq!(answer.info.length(), length);
        let in_registers = length.min(4);
        assert_eq!(answer.words[..in_registers], words[..in_registers]);
        for word in 4..length {
            assert_eq!(
                buffer::word(word),
                word as u64 * 3,
                "word {word} of {length}"
            );
        }
    }
}
