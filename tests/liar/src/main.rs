//! `liar`: a server of the tests that stands between a client and the server that it means, passes
//! everything on, and lies. Words of the manifest's `args`:
//!
//! * `block` or `file`: the protocol. The edge to the honest server is called `honest`.
//! * a WAY to lie ([`block`] and [`file`] list them): every instance lies in this way. Or `all`: instance
//!   1 lies in the first way, instance 2 is honest, instance 3 lies in the second way, and so on; all are
//!   honest after the last.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod block;
#[cfg(target_os = "none")]
mod file;

#[cfg(target_os = "none")]
mod guest {
    use libipc::start::StartInfo;

    libipc::main!(main);

    fn main(start: &'static StartInfo) -> i32 {
        let mut words = start.args.split_whitespace();
        let (Some(protocol), Some(ways)) = (words.next(), words.next()) else {
            panic!("args `{}`: see the head of the program", start.args);
        };
        let turn = start.incarnation as usize - 1;
        let place = match ways {
            "all" if turn.is_multiple_of(2) => Some(turn / 2),
            "all" => None,
            _ => Some(0),
        };
        match protocol {
            "block" => crate::block::serve(start, chosen(&crate::block::WAYS, ways, place)),
            "file" => crate::file::serve(start, chosen(&crate::file::WAYS, ways, place)),
            _ => panic!("args `{}`: no such protocol", start.args),
        }
    }

    /// The way at this place among all, or the one that is named; and says so.
    fn chosen<W: Copy>(all: &[(&'static str, W)], named: &str, place: Option<usize>) -> Option<W> {
        let mut its = all.iter().filter(|way| named == "all" || named == way.0);
        let way = place.and_then(|place| its.nth(place));
        log::info!("lies: {}", way.map_or("no", |way| way.0));
        way.map(|way| way.1)
    }
}

/// The program runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
