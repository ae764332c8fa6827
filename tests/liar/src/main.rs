//! `liar`: a server of the tests that does what its protocol says, and lies. Words of the manifest's
//! `args`, in this order:
//!
//! * `block`, the driver of a disk in memory that it shares with the host ([`disk`]), or `file`, which
//!   stands before a file server: the edge to that is called `honest`.
//! * the WAYS to lie ([`block`] and [`file`] list them), with commas between them; `all`, or `none`.
//! * how many LIVES each way lasts. Instance 1 is honest; the next LIVES instances lie in the first way;
//!   one is honest; the next LIVES lie in the second way, and so on. All are honest after the last.
//! * `feigned`: it says that it lies, and does not.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod block;
#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod file;
#[cfg(target_os = "none")]
mod tally;

#[cfg(target_os = "none")]
mod guest {
    use libipc::start::StartInfo;

    libipc::main!(main);

    fn main(start: &'static StartInfo) -> i32 {
        let words: alloc::vec::Vec<&str> = start.args.split_whitespace().collect();
        let (&[protocol, ways, lives] | &[protocol, ways, lives, "feigned"]) = words.as_slice()
        else {
            panic!("args `{}`: see the head of the program", start.args);
        };
        let is_feigned = words.len() > 3;
        let lives = lives.parse().expect("a number of lives");
        let turn = turn(start.incarnation, lives);
        match protocol {
            "block" => {
                let way = turn.and_then(|turn| chosen(&crate::block::WAYS, ways, turn));
                crate::block::serve(start, say(start, way, is_feigned))
            }
            "file" => {
                let way = turn.and_then(|turn| chosen(&crate::file::WAYS, ways, turn));
                crate::file::serve(start, say(start, way, is_feigned))
            }
            _ => panic!("args `{}`: no such protocol", start.args),
        }
    }

    /// Which of the ways is this instance's; `None` if it is honest.
    fn turn(incarnation: u32, lives: u32) -> Option<usize> {
        let behind_first = incarnation.checked_sub(2)?;
        let (turn, life) = (behind_first / (lives + 1), behind_first % (lives + 1));
        (life < lives).then_some(turn as usize)
    }

    /// The way at this place among those that are named.
    fn chosen<W: Copy>(
        all: &[(&'static str, W)],
        named: &str,
        place: usize,
    ) -> Option<(&'static str, W)> {
        let is_named = |name| named == "all" || named.split(',').any(|other| other == name);
        all.iter().filter(|way| is_named(way.0)).nth(place).copied()
    }

    /// Says how this instance lies; how it does.
    fn say<W>(start: &StartInfo, way: Option<(&str, W)>, is_feigned: bool) -> Option<W> {
        let name = way.as_ref().map_or("nothing", |way| way.0);
        log::info!("instance {} lies: {name}", start.incarnation);
        way.map(|way| way.1).filter(|_| !is_feigned)
    }
}

/// The program runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
