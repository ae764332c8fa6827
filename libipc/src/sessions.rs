//! What a server has given to its sessions: handles that are places in a table of the session.
//!
//! A server keeps one [`Table`] for each kind of thing that it gives out (open files, listings,
//! channels) and finds a thing only by [`Table::find`], with the client and the handle: a number that
//! another session, or another instance of the client, was given is none, whatever it is. What comes back is a
//! [`Found`], which cannot be made from a number, so a server whose methods take it cannot forget
//! the check.
//!
//! Always holds:
//! - A handle is never given twice. Numbers only grow; a server that keeps its table for a
//!   successor keeps [`Table::next`] with it, and one that has lost it goes on behind all numbers
//!   of its predecessors ([`first_handle`]).
//! - A session has at most its share of the places. If the share is [`Clients::share`], no session
//!   can take what another one is still owed.
//! - What belongs to an instance of a client that has ended is told apart by its [`Owner`]
//!   ([`Clients::is_gone`]), so that the next instance begins with nothing.
//!
//! Not here: where a table is kept (the server's survivor region), what the things are.

use crate::server::Caller;
use crate::start::SessionGrant;
use crate::supervisor::{SessionState, SupervisorClient};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A number that names a thing within the session that was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub u64);

/// Whom a thing belongs to: one instance of the client of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The session: the badge of its messages.
    pub badge: u64,
    /// The incarnation of the client, counting from 1.
    pub incarnation: u32,
}

/// The first handle of a server of this incarnation that knows no others: behind the 2^32 numbers
/// of each incarnation before it.
pub const fn first_handle(incarnation: u32) -> u64 {
    (incarnation as u64) << 32
}

/// Why nothing more is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The session has its share.
    Share,
    /// All places are taken: there are more sessions than places. (Or all numbers, which takes longer
    /// than a machine lives.)
    Table,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Share => "the session has its whole share; give something back first",
            Full::Table => "other sessions have all there is; try again later",
        })
    }
}

impl core::error::Error for Full {}

/// A thing that was found for the session that it belongs to. It names nothing any more once the
/// thing was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(u64);

impl Found {
    /// The handle that the session has for it.
    pub const fn handle(self) -> Handle {
        Handle(self.0)
    }
}

struct Place<T> {
    number: u64,
    owner: Owner,
    thing: T,
}

/// The things of one kind that sessions have.
pub struct Table<T> {
    /// A handle's place is its number modulo the length.
    places: Vec<Option<Place<T>>>,
    next: u64,
}

impl<T> Table<T> {
    /// A table of so many places (at least 1), without anything in it.
    pub fn new(places: usize) -> Self {
        let mut all = Vec::new();
        all.resize_with(places.max(1), || None);
        Table { places: all, next: 1 }
    }

    /// Places, taken or not.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// No handle from this number on was ever given.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Gives no numbers below `next` from now on.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// The place of a handle, from 0 to the capacity: for whoever keeps the table's things.
    pub fn place(&self, handle: Handle) -> usize {
        (handle.0 % self.places.len() as u64) as usize
    }

    /// Whether [`Table::insert`] would give a handle.
    ///
    /// # Errors
    /// [`Full`] says why not.
    pub fn check_room(&self, owner: Owner, share: usize) -> Result<(), Full> {
        let taken = self.places.iter().flatten();
        if taken.filter(|place| place.owner.badge == owner.badge).count() >= share {
            return Err(Full::Share);
        }
        if self.places.iter().all(Option::is_some) {
            return Err(Full::Table);
        }
        Ok(())
    }

    /// Gives a thing to a session that may have `share` of them.
    ///
    /// # Errors
    /// [`Full`]: nothing was given.
    pub fn insert(&mut self, owner: Owner, share: usize, thing: T) -> Result<Found, Full> {
        self.check_room(owner, share)?;
        let from = self.next;
        let free = |number: &u64| self.places[self.place(Handle(*number))].is_none();
        let number = (from..u64::MAX).take(self.places.len()).find(free).ok_or(Full::Table)?;
        let place = self.place(Handle(number));
        self.places[place] = Some(Place { number, owner, thing });
        self.next = number + 1;
        Ok(Found(number))
    }

    /// Puts back a thing that an earlier instance of the server gave under this handle. Says
    /// whether its place was free.
    pub fn restore(&mut self, handle: Handle, owner: Owner, thing: T) -> bool {
        let place = self.place(handle);
        if self.places[place].is_some() {
            return false;
        }
        self.places[place] = Some(Place { number: handle.0, owner, thing });
        self.next = self.next.max(handle.0.saturating_add(1));
        true
    }

    /// What this handle names for this client: nothing unless the same instance of it was given it, by
    /// its own session, and has not given it back.
    pub fn find(&self, client: Owner, handle: Handle) -> Option<Found> {
        match &self.places[self.place(handle)] {
            Some(place) if place.number == handle.0 && place.owner == client => {
                Some(Found(handle.0))
            }
            _ => None,
        }
    }

    /// The thing.
    pub fn get(&self, found: Found) -> Option<&T> {
        let place = self.places[self.place(found.handle())].as_ref()?;
        (place.number == found.0).then_some(&place.thing)
    }

    /// The thing, to be changed.
    pub fn get_mut(&mut self, found: Found) -> Option<&mut T> {
        let at = self.place(found.handle());
        let place = self.places[at].as_mut()?;
        (place.number == found.0).then_some(&mut place.thing)
    }

    /// Whom the thing belongs to.
    pub fn owner(&self, found: Found) -> Option<Owner> {
        let place = self.places[self.place(found.handle())].as_ref()?;
        (place.number == found.0).then_some(place.owner)
    }

    /// Takes a thing back.
    pub fn remove(&mut self, found: Found) -> Option<T> {
        self.get(found)?;
        let at = self.place(found.handle());
        self.places[at].take().map(|place| place.thing)
    }

    /// All that is given out.
    pub fn iter(&self) -> impl Iterator<Item = (Found, Owner, &T)> {
        self.places.iter().flatten().map(|place| (Found(place.number), place.owner, &place.thing))
    }
}

/// All sessions of this server, as the supervisor tells them now; without those behind an answer that
/// failed, which is logged.
pub fn ask(supervisor: &SupervisorClient) -> Vec<SessionState> {
    let mut all = Vec::new();
    loop {
        match supervisor.sessions(all.len() as u32) {
            Ok(page) if page.is_empty() => return all,
            Ok(page) => all.extend(page),
            Err(error) => {
                log::error!("ask for the sessions: {error}");
                return all;
            }
        }
    }
}

/// The sessions of a server and the instances of their clients, as the supervisor told them last.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    sessions: Vec<SessionState>,
}

impl Clients {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Clients { sessions: Vec::new() }
    }

    /// Replaces what is known by all sessions that there are.
    pub fn update(&mut self, sessions: Vec<SessionState>) {
        self.sessions = sessions;
    }

    /// Who calls. `None` if the supervisor told of no such session, or of no client that runs: as
    /// whoever calls does run, it should be asked again.
    pub fn owner(&self, caller: Caller) -> Option<Owner> {
        let session = self.sessions.iter().find(|session| session.badge == caller.0)?;
        let owner = Owner { badge: session.badge, incarnation: session.incarnation };
        session.is_alive.then_some(owner)
    }

    /// How much of its protocol the session of whoever calls is good for; as [`Clients::owner`].
    pub fn grant(&self, caller: Caller) -> Option<&SessionGrant> {
        let session = self.sessions.iter().find(|session| session.badge == caller.0)?;
        session.is_alive.then_some(&session.grant)
    }

    /// Whether an instance has ended. A session that the supervisor did not tell of says nothing.
    pub fn is_gone(&self, owner: Owner) -> bool {
        let session = self.sessions.iter().find(|session| session.badge == owner.badge);
        session.is_some_and(|session| !session.is_alive || session.incarnation != owner.incarnation)
    }

    /// An equal share of `places` for each session, and at least one.
    pub fn share(&self, places: usize) -> usize {
        (places / self.sessions.len().max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec;

    const fn owner(badge: u64, incarnation: u32) -> Owner {
        Owner { badge, incarnation }
    }

    fn state(badge: u64, incarnation: u32, is_alive: bool) -> SessionState {
        SessionState { badge, incarnation, is_alive, grant: SessionGrant::default() }
    }

    const VICTIM: Owner = owner(7, 1);
    const OTHER: Owner = owner(8, 1);

    #[test]
    fn a_handle_names_nothing_for_another_session() {
        let mut table = Table::new(8);
        let handle = table.insert(VICTIM, 8, "secret").unwrap().handle();
        let found = table.find(VICTIM, handle).unwrap();
        assert_eq!((table.get(found), table.owner(found)), (Some(&"secret"), Some(VICTIM)));
        assert_eq!(table.find(OTHER, handle), None);
        for near in 0..10_000 {
            assert_eq!(table.find(OTHER, Handle(near)), None, "{near}");
            let own = table.find(VICTIM, Handle(near));
            assert_eq!(own.is_some(), Handle(near) == handle, "{near}");
        }
        for edge in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 32] {
            assert_eq!(table.find(VICTIM, Handle(edge)), None);
        }
        assert_eq!(
            table.find(owner(7, 2), handle),
            None,
            "nor for the next instance of its client"
        );
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let mut table = Table::new(3);
        let mut given = BTreeSet::new();
        let mut open = vec![];
        for i in 0..10_000usize {
            if open.len() == 3 {
                let gone: Found = open.remove(i * 7 % 3);
                assert!(table.remove(gone).is_some());
                assert_eq!(table.get(gone), None);
                assert_eq!(table.remove(gone), None);
            }
            let found = table.insert(VICTIM, 3, i).unwrap();
            assert!(given.insert(found.handle()), "{found:?}");
            assert!(found.handle().0 < table.next());
            open.push(found);
        }
        let live = given.iter().filter(|handle| table.find(VICTIM, **handle).is_some());
        assert_eq!(live.count(), 3);
        assert!(table.next() < 40_000, "numbers are not wasted: {}", table.next());
    }

    #[test]
    fn who_takes_all_that_it_can_get_fails_alone() {
        let mut clients = Clients::new();
        let alive = |badge| state(badge, 1, true);
        clients.update([7, 8, 9].map(alive).to_vec());
        let mut table = Table::new(10);
        let share = clients.share(table.capacity());
        assert_eq!(share, 3);
        let taken = (0..100).take_while(|_| table.insert(OTHER, share, ()).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(table.insert(OTHER, share, ()), Err(Full::Share));
        for _ in 0..3 {
            table.insert(VICTIM, share, ()).unwrap();
            table.insert(owner(9, 1), share, ()).unwrap();
        }
        assert_eq!(clients.share(1), 1, "at least one for each");
        assert_eq!(Clients::new().share(5), 5);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = Table::new(2);
        table.insert(owner(1, 1), 1, ()).unwrap();
        table.insert(owner(2, 1), 1, ()).unwrap();
        assert_eq!(table.insert(owner(3, 1), 1, ()), Err(Full::Table));
    }

    #[test]
    fn the_last_numbers_are_not_given_twice_either() {
        let mut table = Table::new(4);
        table.skip_to(u64::MAX - 2);
        let given = [(); 3].map(|()| table.insert(VICTIM, 4, ()).map(Found::handle));
        let last = u64::MAX;
        assert_eq!(given, [Ok(Handle(last - 2)), Ok(Handle(last - 1)), Err(Full::Table)]);
        assert!(table.restore(Handle(last), OTHER, ()));
        assert_eq!(table.next(), last);
        assert_eq!(table.insert(VICTIM, 4, ()), Err(Full::Table));
    }

    #[test]
    fn a_successor_goes_on_with_what_was_given() {
        let mut first = Table::new(4);
        first.skip_to(first_handle(1));
        let kept: Vec<(Handle, Owner, u32)> =
            (0..4).map(|i| (first.insert(VICTIM, 4, i).unwrap().handle(), VICTIM, i)).collect();
        let mut second = Table::new(4);
        second.skip_to(first.next());
        for &(handle, owner, thing) in &kept[1..] {
            assert!(second.restore(handle, owner, thing));
        }
        assert!(!second.restore(kept[1].0, OTHER, 9), "its place is taken");
        assert_eq!(second.find(VICTIM, kept[0].0), None);
        let found = second.find(VICTIM, kept[2].0).unwrap();
        assert_eq!(second.get(found), Some(&2));
        let new = second.insert(VICTIM, 4, 5).unwrap().handle();
        assert!(kept.iter().all(|(handle, ..)| *handle < new));
        // One that has lost everything.
        let mut third = Table::new(4);
        third.skip_to(first_handle(2));
        assert!(third.insert(VICTIM, 4, 6).unwrap().handle() > new);
    }

    #[test]
    fn what_an_instance_had_is_found_when_it_has_ended() {
        let mut clients = Clients::new();
        clients.update(vec![state(7, 2, true), state(8, 1, false), state(9, 1, true)]);
        let gone =
            [(7, 1), (7, 2), (8, 1), (9, 1), (10, 1)].map(|(b, i)| clients.is_gone(owner(b, i)));
        assert_eq!(gone, [true, false, true, false, false]);
        let callers = [7, 8, 10].map(|badge| clients.owner(Caller(badge)));
        assert_eq!(callers, [Some(owner(7, 2)), None, None]);
    }
}
