//! A naive model of capabilities: plain maps, explicit parents, recursion, nothing packed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use skink_abi::{CapRights, Error};

/// A slot: the address of its container's object, and the index in it.
pub type Place = (u64, u64);
/// A capability's name in the model.
pub type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Untyped,
    CNode,
    Tcb,
    Endpoint,
    Frame,
    PageTable,
    Space,
}

/// An object: its kind, address and log2 of its bytes.
pub type Object = (Kind, u64, u8);

#[derive(Clone, Debug)]
pub struct ModelCap {
    pub object: Object,
    /// The nearest capability that this one is derived from.
    pub parent: Option<Id>,
    /// Whether copies are its children (else its siblings).
    pub is_parent: bool,
    pub badge: u64,
    pub rights: CapRights,
    pub watermark: u64,
    /// Identifier of a space; where a frame or table says that it is mapped.
    pub asid: u16,
    pub addr: u64,
    /// A table's level.
    pub level: u8,
    /// Whether the space that it says it is mapped in has gone.
    pub is_stale: bool,
}

#[derive(Default)]
pub struct Model {
    pub caps: BTreeMap<Id, ModelCap>,
    pub slots: BTreeMap<Place, Id>,
    /// Live spaces by identifier: the root's address.
    pub spaces: BTreeMap<u16, u64>,
    /// Tables by space, level and first address that they span.
    pub tables: BTreeMap<(u16, u8, u64), u64>,
    /// Pages by space and address.
    pub pages: BTreeMap<(u16, u64), (u64, bool)>,
    next: Id,
}

pub type Expected = Result<(), Error>;

/// Log2 of what a table at `level` spans.
pub fn span(level: u8) -> u32 {
    12 + 9 * (4 - u32::from(level))
}

impl Model {
    pub fn add(&mut self, place: Place, cap: ModelCap) -> Id {
        self.next += 1;
        assert!(self.slots.insert(place, self.next).is_none());
        self.caps.insert(self.next, cap);
        self.next
    }

    pub fn root(&mut self, place: Place, object: Object) {
        self.add(place, ModelCap::of(object, None));
    }

    pub fn at(&self, place: Place) -> Option<&ModelCap> {
        Some(&self.caps[self.slots.get(&place)?])
    }

    fn children(&self, id: Id) -> bool {
        self.caps.values().any(|cap| cap.parent == Some(id))
    }

    /// All descendants.
    pub fn below(&self, id: Id) -> BTreeSet<Id> {
        let mut found = BTreeSet::new();
        for (child, cap) in &self.caps {
            if cap.parent == Some(id) {
                found.insert(*child);
                found.append(&mut self.below(*child));
            }
        }
        found
    }

    pub fn retype(&mut self, from: Place, kind: Kind, bits: u8, places: &[Place]) -> Expected {
        let id = self.slots[&from];
        if places.iter().any(|place| self.slots.contains_key(place)) {
            return Err(Error::DeleteFirst);
        }
        let (_, base, size) = self.caps[&id].object;
        let used = if self.children(id) { self.caps[&id].watermark } else { 0 };
        let start = used.next_multiple_of(1 << bits);
        let end = start + ((places.len() as u64) << bits);
        if end > 1 << size {
            return Err(Error::NotEnoughMemory);
        }
        for (i, place) in places.iter().enumerate() {
            let object = (kind, base + start + ((i as u64) << bits), bits);
            self.add(*place, ModelCap::of(object, Some(id)));
        }
        self.caps.get_mut(&id).unwrap().watermark = end;
        Ok(())
    }

    pub fn copy(
        &mut self,
        to: Place,
        from: Place,
        rights: CapRights,
        badge: Option<u64>,
    ) -> Expected {
        if self.slots.contains_key(&to) {
            return Err(Error::DeleteFirst);
        }
        let id = *self.slots.get(&from).ok_or(Error::InvalidCapability)?;
        let old = self.caps[&id].clone();
        let mut new = old.clone();
        new.is_parent = false;
        new.parent = if old.is_parent { Some(id) } else { old.parent };
        new.rights &= rights;
        match (old.object.0, badge) {
            (Kind::Endpoint, Some(badge)) if old.badge == 0 => {
                new.badge = badge;
                new.is_parent = badge != 0;
            }
            (_, Some(_)) => return Err(Error::IllegalOperation),
            _ => {}
        }
        match old.object.0 {
            Kind::Untyped if self.children(id) => return Err(Error::RevokeFirst),
            Kind::Untyped => {
                new.is_parent = true;
                self.caps.get_mut(&id).unwrap().watermark = 1 << old.object.2;
            }
            Kind::Frame => (new.asid, new.addr, new.is_stale) = (0, 0, false),
            Kind::PageTable | Kind::Space if old.asid == 0 => return Err(Error::IllegalOperation),
            _ => {}
        }
        self.add(to, new);
        Ok(())
    }

    pub fn relocate(&mut self, to: Place, from: Place) -> Expected {
        if self.slots.contains_key(&to) {
            return Err(Error::DeleteFirst);
        }
        let id = self.slots.remove(&from).ok_or(Error::InvalidCapability)?;
        self.slots.insert(to, id);
        Ok(())
    }

    pub fn rotate(&mut self, dest: Place, pivot: Place, source: Place) -> Expected {
        if !self.slots.contains_key(&pivot) || !self.slots.contains_key(&source) {
            return Err(Error::InvalidCapability);
        }
        if pivot == source || pivot == dest {
            return Err(Error::InvalidArgument);
        }
        if source != dest && self.slots.contains_key(&dest) {
            return Err(Error::DeleteFirst);
        }
        let (p, s) = (self.slots[&pivot], self.slots[&source]);
        self.slots.remove(&source);
        self.slots.insert(dest, p);
        self.slots.insert(pivot, s);
        Ok(())
    }

    /// What goes if these go: also what the containers hold that lose their last capability.
    pub fn doomed(&self, mut set: BTreeSet<Id>) -> BTreeSet<Id> {
        loop {
            let before = set.len();
            for (place, id) in &self.slots {
                let is_holder = |cap: &ModelCap| {
                    matches!(cap.object.0, Kind::CNode | Kind::Tcb) && cap.object.1 == place.0
                };
                let mut holders = self.caps.iter().filter(|(_, cap)| is_holder(cap));
                if holders.all(|(holder, _)| set.contains(holder)) {
                    set.insert(*id);
                }
            }
            if set.len() == before {
                return set;
            }
        }
    }

    pub fn delete(&mut self, set: BTreeSet<Id>) {
        let doomed = self.doomed(set);
        for id in &doomed {
            let cap = self.caps[id].clone();
            let is_last = |cap: &ModelCap| {
                self.caps.iter().all(|(id, c)| c.object != cap.object || doomed.contains(id))
            };
            match cap.object.0 {
                Kind::Frame => self.unmap_page(&cap),
                Kind::PageTable if is_last(&cap) => self.unmap_table(&cap),
                Kind::Space if is_last(&cap) && cap.asid != 0 => {
                    self.spaces.remove(&cap.asid);
                    self.tables.retain(|key, _| key.0 != cap.asid);
                    self.pages.retain(|key, _| key.0 != cap.asid);
                    for other in self.caps.values_mut().filter(|other| other.asid == cap.asid) {
                        other.is_stale = true;
                    }
                }
                _ => {}
            }
        }
        for id in &doomed {
            let gone = self.caps.remove(id).unwrap();
            for cap in self.caps.values_mut().filter(|cap| cap.parent == Some(*id)) {
                cap.parent = gone.parent;
            }
        }
        self.slots.retain(|_, id| self.caps.contains_key(id));
    }

    pub fn assign(&mut self, place: Place) -> Expected {
        let cap = self.caps.get_mut(&self.slots[&place]).unwrap();
        if cap.asid != 0 {
            return Err(Error::DeleteFirst);
        }
        cap.asid = (1..).find(|asid| !self.spaces.contains_key(asid)).unwrap();
        self.spaces.insert(cap.asid, cap.object.1);
        Ok(())
    }

    fn space(&self, place: Place) -> Result<u16, Error> {
        let cap = self.at(place).filter(|cap| cap.object.0 == Kind::Space && cap.asid != 0);
        Ok(cap.ok_or(Error::InvalidCapability)?.asid)
    }

    pub fn map_table(&mut self, table: Place, space: Place, addr: u64) -> Expected {
        let asid = self.space(space)?;
        let id = self.slots[&table];
        if self.caps[&id].asid != 0 {
            return Err(Error::DeleteFirst);
        }
        let start = |level| addr >> span(level) << span(level);
        let is_missing = |level: &u8| !self.tables.contains_key(&(asid, *level, start(*level)));
        let level = (1..4).find(is_missing).ok_or(Error::DeleteFirst)?;
        let cap = self.caps.get_mut(&id).unwrap();
        (cap.asid, cap.addr, cap.level) = (asid, start(level), level);
        self.tables.insert((asid, level, cap.addr), cap.object.1);
        Ok(())
    }

    fn unmap_table(&mut self, cap: &ModelCap) {
        let key = (cap.asid, cap.level, cap.addr);
        if cap.is_stale || self.tables.get(&key) != Some(&cap.object.1) {
            return;
        }
        let range = cap.addr..cap.addr + (1 << span(cap.level));
        self.tables.retain(|&(asid, level, addr), _| {
            asid != cap.asid || level < cap.level || !range.contains(&addr)
        });
        self.pages.retain(|&(asid, addr), _| asid != cap.asid || !range.contains(&addr));
    }

    pub fn unmap_table_at(&mut self, place: Place) -> Expected {
        let id = self.slots[&place];
        let cap = self.caps[&id].clone();
        if self.caps.iter().any(|(other, c)| *other != id && c.object == cap.object) {
            return Err(Error::RevokeFirst);
        }
        self.unmap_table(&cap);
        let cap = self.caps.get_mut(&id).unwrap();
        (cap.asid, cap.addr, cap.level, cap.is_stale) = (0, 0, 0, false);
        Ok(())
    }

    pub fn map(&mut self, frame: Place, space: Place, addr: u64, writable: bool) -> Expected {
        let asid = self.space(space)?;
        let id = self.slots[&frame];
        let cap = self.caps[&id].clone();
        let needed = if writable { CapRights::READ | CapRights::WRITE } else { CapRights::READ };
        if !cap.rights.contains(needed) {
            return Err(Error::InsufficientRights);
        }
        let is_live = self.is_live(&cap);
        if is_live && (cap.asid, cap.addr) != (asid, addr) {
            return Err(Error::DeleteFirst);
        }
        if !is_live {
            let start = |level| addr >> span(level) << span(level);
            if (1..4).any(|level| !self.tables.contains_key(&(asid, level, start(level)))) {
                return Err(Error::MissingPageTable);
            }
            if self.pages.contains_key(&(asid, addr)) {
                return Err(Error::DeleteFirst);
            }
        }
        self.pages.insert((asid, addr), (cap.object.1, writable));
        let cap = self.caps.get_mut(&id).unwrap();
        (cap.asid, cap.addr, cap.is_stale) = (asid, addr, false);
        Ok(())
    }

    fn is_live(&self, cap: &ModelCap) -> bool {
        let page = self.pages.get(&(cap.asid, cap.addr));
        !cap.is_stale && page.is_some_and(|(base, _)| *base == cap.object.1)
    }

    fn unmap_page(&mut self, cap: &ModelCap) {
        if self.is_live(cap) {
            self.pages.remove(&(cap.asid, cap.addr));
        }
    }

    pub fn unmap_page_at(&mut self, place: Place) {
        let id = self.slots[&place];
        self.unmap_page(&self.caps[&id].clone());
        let cap = self.caps.get_mut(&id).unwrap();
        (cap.asid, cap.addr, cap.is_stale) = (0, 0, false);
    }

    /// Every slot that holds a capability of a kind.
    pub fn places(&self, kind: Kind) -> Vec<Place> {
        let of_kind = |id: &Id| self.caps[id].object.0 == kind;
        self.slots.iter().filter(|(_, id)| of_kind(id)).map(|(place, _)| *place).collect()
    }
}

impl ModelCap {
    pub fn of(object: Object, parent: Option<Id>) -> ModelCap {
        ModelCap {
            object,
            parent,
            is_parent: true,
            badge: 0,
            rights: CapRights::all(),
            watermark: 0,
            asid: 0,
            addr: 0,
            level: 0,
            is_stale: false,
        }
    }
}
