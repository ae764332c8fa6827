//! `assault`: programs of `cargo skink fuzz protocols`, which calls every method of every protocol
//! with everything that makes no sense, beside others who work and must not notice.
//!
//! * `fuzz SEED CALLS`: so many calls by all its sessions, and by its way to the supervisor.
//! * `victim SEED`: works with files, the console and others, and checks every byte.
//! * `giver`, `taker SEED`: a server that gives all that it was lent to its client before it dies, and
//!   the client, which tries what it was given.
//! * `tenant`: has its memory full of secrets whenever it writes nothing, and dies amidst its writes.
//!
//! The first instance of each only waits, so that what is there before can be measured: whoever runs
//! them starts them again. Nothing here lists methods: those are found in `skink_protocols::names`.
//! Left out is the privilege `control`, whose holder may end the machine: its methods are called
//! without it, and must all refuse.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod accomplices;
#[cfg(target_os = "none")]
mod attack;
#[cfg(target_os = "none")]
mod fuzzer;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod targets;
#[cfg(target_os = "none")]
mod tenant;
#[cfg(target_os = "none")]
mod texts;
#[cfg(target_os = "none")]
mod victim;

#[cfg(target_os = "none")]
mod guest {
    use alloc::vec::Vec;
    use libipc::start::StartInfo;

    libipc::main!(main);

    fn main(start: &'static StartInfo) -> i32 {
        let words: Vec<&str> = start.args.split_whitespace().collect();
        if start.incarnation == 1 && words != ["tenant"] {
            crate::fuzzer::rest();
        }
        match words.as_slice() {
            ["fuzz", seed, calls] => crate::fuzzer::run(start, number(seed), number(calls)),
            ["victim", seed] => crate::victim::run(start, number(seed)),
            ["giver"] => crate::accomplices::give(start),
            ["taker", seed] => crate::accomplices::take(start, number(seed)),
            ["tenant"] => crate::tenant::run(start),
            _ => panic!("args `{}`: see the head of the program", start.args),
        }
    }

    fn number(word: &str) -> u64 {
        word.parse().expect("a number")
    }
}

/// The program runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
