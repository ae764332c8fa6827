//! The kernel's deadlines: armed timers and used-up budgets, in an intrusive leftist heap for
//! each priority, so that nobody is delayed by what passes for threads of lower priority.
//!
//! Insertion and removal of any node take O(log n) steps in the worst case and no memory: a
//! leftist heap's right spine has at most log2(n + 1) nodes, and after a removal the ranks that
//! change are distinct numbers on one path. No recursion. The earliest deadline of each heap
//! stands in a tournament tree over the priorities, so that the earliest from some priority
//! upwards, and the highest priority that has a passed one, take eight steps.
//!
//! Invariants: a parent's deadline is not later than its children's; the rank of the left child
//! is not less than the right's; a node is linked if and only if it is reachable from its root;
//! a place of the tournament is the earlier of the two below it.
//!
//! Not here: what happens when a deadline passes (see `sched`).

use core::cell::Cell;

use crate::addr::KernelAddr;
use crate::kernel::PRIORITIES;
use crate::machine::Ticks;
use crate::obj::Obj;

/// What a node is the first field of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A `Timer`.
    Timer = 0,
    /// A `SchedContext` that waits for its refill.
    Refill = 1,
}

/// A node, 32 bytes, the first field of an object that is aligned to 64 bytes: the low six bits
/// of the links hold rank, kind, priority and whether it is linked.
#[repr(C)]
pub struct Node {
    /// Left child; low bits: the rank.
    left: Cell<u64>,
    /// Right child; bit 0: the kind; bits 1 to 4: the low half of the priority.
    right: Cell<u64>,
    /// Parent; bit 0: linked; bits 1 to 4: the high half of the priority.
    parent: Cell<u64>,
    /// The deadline.
    at: Cell<Ticks>,
}

/// Bits of a link that are no address.
const LOW: u64 = 63;

fn link(word: u64) -> Option<Obj<Node>> {
    let addr = word & !LOW;
    // SAFETY: links are written from `Obj`s only, and an object leaves the heap before its
    // memory is reused.
    (addr != 0).then(|| unsafe { Obj::from_addr(KernelAddr(addr)) })
}

fn store(word: &Cell<u64>, node: Option<Obj<Node>>) {
    word.set(node.map_or(0, |n| n.addr().0) | word.get() & LOW);
}

fn rank(node: Option<Obj<Node>>) -> u64 {
    node.map_or(0, |n| n.left.get() & LOW)
}

impl Node {
    /// A node outside the heap.
    pub const fn new(kind: NodeKind) -> Node {
        let right = Cell::new(kind as u64);
        Node { left: Cell::new(0), right, parent: Cell::new(0), at: Cell::new(0) }
    }

    /// What it belongs to.
    pub fn kind(&self) -> NodeKind {
        if self.right.get() & 1 == 0 { NodeKind::Timer } else { NodeKind::Refill }
    }

    /// Whether it is in the heap.
    pub fn is_linked(&self) -> bool {
        self.parent.get() & 1 == 1
    }

    /// Its deadline, while linked.
    pub fn at(&self) -> Ticks {
        self.at.get()
    }

    /// The priority of its heap, while linked.
    fn priority(&self) -> u8 {
        (self.right.get() >> 1 & 15 | (self.parent.get() >> 1 & 15) << 4) as u8
    }

    /// Restores the order of the children's ranks; whether its own rank changed.
    fn settle_rank(&self) -> bool {
        let (left, right) = (link(self.left.get()), link(self.right.get()));
        if rank(left) < rank(right) {
            store(&self.left, right);
            store(&self.right, left);
        }
        let new = rank(link(self.right.get())) + 1;
        let changed = new != self.left.get() & LOW;
        self.left.set(self.left.get() & !LOW | new);
        changed
    }
}

/// The heaps, and the tournament over them.
pub struct Deadlines {
    roots: [Option<Obj<Node>>; PRIORITIES],
    /// Place 1 is the earliest of all; those below place `i` are `2 i` and `2 i + 1`; the last
    /// half are the heaps by priority. `Ticks::MAX` where there is none.
    tournament: [Ticks; 2 * PRIORITIES],
}

/// Merges two heaps whose roots have no parent.
fn merge(mut a: Option<Obj<Node>>, mut b: Option<Obj<Node>>) -> Option<Obj<Node>> {
    let mut last: Option<Obj<Node>> = None;
    while let (Some(x), Some(y)) = (a, b) {
        let (small, large) = if y.at() < x.at() { (y, x) } else { (x, y) };
        store(&small.parent, last);
        if let Some(last) = last {
            store(&last.right, Some(small));
        }
        last = Some(small);
        (a, b) = (link(small.right.get()), Some(large));
    }
    let rest = a.or(b);
    let Some(mut node) = last else { return rest };
    store(&node.right, rest);
    if let Some(rest) = rest {
        store(&rest.parent, last);
    }
    loop {
        node.settle_rank();
        match link(node.parent.get()) {
            Some(parent) => node = parent,
            None => return Some(node),
        }
    }
}

#[allow(clippy::new_without_default)]
impl Deadlines {
    /// Without a deadline.
    pub const fn new() -> Deadlines {
        Deadlines { roots: [None; PRIORITIES], tournament: [Ticks::MAX; 2 * PRIORITIES] }
    }

    /// The earliest deadline of priorities from `floor` upwards, `Ticks::MAX` if there is none.
    #[inline(always)]
    pub fn earliest(&self, floor: u8) -> Ticks {
        if floor == 0 { self.tournament[1] } else { self.earliest_above(floor) }
    }

    #[inline(never)]
    fn earliest_above(&self, floor: u8) -> Ticks {
        let mut place = PRIORITIES + usize::from(floor);
        let mut earliest = self.tournament[place];
        while place > 1 {
            if place.is_multiple_of(2) {
                // What stands to its right are higher priorities.
                earliest = earliest.min(self.tournament[place + 1]);
            }
            place /= 2;
        }
        earliest
    }

    /// A node whose deadline is not later than `now`: the first of the highest priority that has
    /// one, unless that priority is below `floor`.
    pub fn due(&self, now: Ticks, floor: u8) -> Option<Obj<Node>> {
        if self.tournament[1] > now {
            return None;
        }
        let mut place = 1;
        while place < PRIORITIES {
            place = 2 * place + usize::from(self.tournament[2 * place + 1] <= now);
        }
        let priority = place - PRIORITIES;
        self.roots[priority].filter(|_| priority >= usize::from(floor))
    }

    fn set_root(&mut self, priority: u8, root: Option<Obj<Node>>) {
        self.roots[usize::from(priority)] = root;
        let mut place = PRIORITIES + usize::from(priority);
        self.tournament[place] = root.map_or(Ticks::MAX, |node| node.at());
        while place > 1 {
            place /= 2;
            let earlier = self.tournament[2 * place].min(self.tournament[2 * place + 1]);
            if self.tournament[place] == earlier {
                return;
            }
            self.tournament[place] = earlier;
        }
    }

    /// Puts in a node that is not linked.
    pub fn insert(&mut self, node: Obj<Node>, at: Ticks, priority: u8) {
        assert!(!node.is_linked() && node.addr().0 & LOW == 0);
        let priority_bits = u64::from(priority);
        node.left.set(1);
        node.right.set(node.right.get() & 1 | (priority_bits & 15) << 1);
        node.parent.set(1 | (priority_bits >> 4) << 1);
        node.at.set(at);
        let root = merge(self.roots[usize::from(priority)], Some(node));
        self.set_root(priority, root);
    }

    /// Takes out a node; nothing happens if it is not linked.
    pub fn remove(&mut self, node: Obj<Node>) {
        if !node.is_linked() {
            return;
        }
        let (left, right) = (link(node.left.get()), link(node.right.get()));
        for child in [left, right].into_iter().flatten() {
            store(&child.parent, None);
        }
        let (parent, priority) = (link(node.parent.get()), node.priority());
        let merged = merge(left, right);
        if let Some(merged) = merged {
            store(&merged.parent, parent);
        }
        node.left.set(0);
        node.right.set(node.right.get() & 1);
        node.parent.set(0);
        let Some(mut above) = parent else {
            return self.set_root(priority, merged);
        };
        let side = if link(above.left.get()) == Some(node) { &above.left } else { &above.right };
        store(side, merged);
        while above.settle_rank() {
            let Some(next) = link(above.parent.get()) else {
                return;
            };
            above = next;
        }
    }

    /// Moves a linked node to the heap of another priority; nothing happens if it is not linked.
    #[inline(always)]
    pub fn move_to(&mut self, node: Obj<Node>, priority: u8) {
        if node.is_linked() {
            let at = node.at();
            self.remove(node);
            self.insert(node, at, priority);
        }
    }

    /// Checks heaps and tournament, and returns the number of nodes.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<usize, &'static str> {
        let mut count = 0;
        for (priority, root) in self.roots.iter().enumerate() {
            let earliest = root.map_or(Ticks::MAX, |node| node.at());
            if self.tournament[PRIORITIES + priority] != earliest {
                return Err("the earliest deadline of a priority is wrong");
            }
            if let Some(root) = root {
                count += check_heap(*root, priority)?;
            }
        }
        let is_earlier = |place: usize| {
            let [left, right] = [self.tournament[2 * place], self.tournament[2 * place + 1]];
            self.tournament[place] == left.min(right)
        };
        if !(1..PRIORITIES).all(is_earlier) {
            return Err("the tournament of deadlines has a wrong winner");
        }
        Ok(count)
    }
}

/// Checks order, ranks and links of a heap, and returns the number of nodes. The walk follows
/// parent links instead of a stack.
fn check_heap(root: Obj<Node>, priority: usize) -> Result<usize, &'static str> {
    if link(root.parent.get()).is_some() {
        return Err("the root of a heap of deadlines has a parent");
    }
    let (mut node, mut from, mut count) = (root, None, 0);
    loop {
        let (left, right) = (link(node.left.get()), link(node.right.get()));
        let parent = link(node.parent.get());
        let first_visit = from == parent;
        if first_visit {
            count += 1;
            node.check()?;
            if usize::from(node.priority()) != priority {
                return Err("a deadline is in the heap of another priority");
            }
        }
        let next = match from {
            _ if first_visit => left.or(right).or(parent),
            _ if from == left => right.or(parent),
            _ => parent,
        };
        if next == parent && node == root {
            return Ok(count);
        }
        (from, node) = (Some(node), next.ok_or("a broken link among the deadlines")?);
    }
}

impl Node {
    fn check(&self) -> Result<(), &'static str> {
        let (left, right) = (link(self.left.get()), link(self.right.get()));
        if !self.is_linked() {
            return Err("a node among the deadlines is not marked so");
        }
        if rank(left) < rank(right) || self.left.get() & LOW != rank(right) + 1 {
            return Err("wrong rank among the deadlines");
        }
        for child in [left, right].into_iter().flatten() {
            if child.at() < self.at() {
                return Err("a deadline is earlier than its parent's");
            }
            if link(child.parent.get()).is_none_or(|p| !core::ptr::eq(p.as_ptr(), self)) {
                return Err("a deadline's parent link is wrong");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-byte-aligned home for a node, as objects are.
    #[repr(align(64))]
    struct Home(Node);

    fn homes(count: usize) -> Vec<Home> {
        (0..count).map(|_| Home(Node::new(NodeKind::Timer))).collect()
    }

    fn node(home: &Home) -> Obj<Node> {
        // SAFETY: the test keeps its homes alive and in place.
        unsafe { Obj::from_addr(KernelAddr(&raw const home.0 as u64)) }
    }

    /// A small deterministic generator (xorshift).
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn random_inserts_and_removals_agree_with_a_sorted_list() {
        for seed in 1..40 {
            let homes = homes(60);
            let mut heap = Deadlines::new();
            let mut model: Vec<(u8, Ticks, usize)> = Vec::new();
            let mut state = seed * 0x9e37_79b9;
            for _ in 0..400 {
                let index = next(&mut state) as usize % homes.len();
                let at = next(&mut state) % 50;
                let priority = [0, 1, 127, 128, 255][next(&mut state) as usize % 5];
                let there = model.iter().position(|(.., i)| *i == index);
                match there {
                    Some(place) if at.is_multiple_of(4) => {
                        model[place].0 = priority;
                        heap.move_to(node(&homes[index]), priority);
                    }
                    Some(place) => {
                        model.remove(place);
                        heap.remove(node(&homes[index]));
                    }
                    None => {
                        model.push((priority, at, index));
                        heap.insert(node(&homes[index]), at, priority);
                    }
                }
                assert_eq!(heap.check(), Ok(model.len()));
                assert!(!node(&homes[index]).is_linked() || model.iter().any(|m| m.2 == index));
                let floor = next(&mut state) as u8;
                let above = model.iter().filter(|m| m.0 >= floor);
                let earliest = above.clone().map(|m| m.1).min().unwrap_or(Ticks::MAX);
                assert_eq!(heap.earliest(floor), earliest);
                // The highest priority that has a passed one; there, the earliest.
                let passed = above.filter(|m| m.1 <= at).map(|m| (m.0, Ticks::MAX - m.1)).max();
                let due = heap.due(at, floor).map(|n| (n.priority(), Ticks::MAX - n.at()));
                assert_eq!(due, passed);
            }
        }
    }

    #[test]
    fn deadlines_come_out_in_order() {
        let homes = homes(500);
        let mut heap = Deadlines::new();
        let mut state = 7;
        for home in &homes {
            heap.insert(node(home), next(&mut state) % 1000, 9);
        }
        let mut last = 0;
        while let Some(first) = heap.due(1000, 9) {
            assert!(first.at() >= last);
            last = first.at();
            heap.remove(first);
        }
        assert_eq!(heap.earliest(0), Ticks::MAX);
    }

    #[test]
    fn removing_an_unlinked_node_does_nothing_and_kind_survives() {
        let home = Home(Node::new(NodeKind::Refill));
        let mut heap = Deadlines::new();
        heap.remove(node(&home));
        heap.insert(node(&home), 5, 255);
        heap.remove(node(&home));
        assert_eq!(node(&home).kind(), NodeKind::Refill);
    }

    #[test]
    fn the_right_spine_stays_logarithmic() {
        let homes = homes(1023);
        let mut heap = Deadlines::new();
        for (i, home) in homes.iter().enumerate() {
            heap.insert(node(home), i as u64, 3);
        }
        assert!(rank(heap.roots[3]) <= 10);
    }
}
