//! The kernel's deadlines: armed timers and used-up budgets, in one intrusive leftist heap.
//!
//! Insertion and removal of any node take O(log n) steps in the worst case and no memory: a
//! leftist heap's right spine has at most log2(n + 1) nodes, and after a removal the ranks that
//! change are distinct numbers on one path. No recursion.
//!
//! Invariants: a parent's deadline is not later than its children's; the rank of the left child
//! is not less than the right's; a node is linked if and only if it is reachable from the root.
//!
//! Not here: what happens when a deadline passes (see `sched`).

use core::cell::Cell;

use crate::addr::KernelAddr;
use crate::machine::Ticks;
use crate::obj::Obj;

/// What a node is the first field of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A `Timer`.
    Timer,
    /// A `SchedContext` that waits for its refill.
    Refill,
}

/// A node, 32 bytes, the first field of an object that is aligned to 64 bytes: the low six bits
/// of the links hold rank, kind and whether it is linked.
#[repr(C)]
pub struct Node {
    /// Left child; low bits: the rank.
    left: Cell<u64>,
    /// Right child; bit 0: the kind.
    right: Cell<u64>,
    /// Parent; bit 0: linked.
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
        let kind = match kind {
            NodeKind::Timer => 0,
            NodeKind::Refill => 1,
        };
        Node { left: Cell::new(0), right: Cell::new(kind), parent: Cell::new(0), at: Cell::new(0) }
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

/// The heap.
#[derive(Default)]
pub struct Deadlines {
    root: Option<Obj<Node>>,
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

impl Deadlines {
    /// An empty heap.
    pub const fn new() -> Deadlines {
        Deadlines { root: None }
    }

    /// The node with the earliest deadline.
    pub fn first(&self) -> Option<Obj<Node>> {
        self.root
    }

    /// The earliest deadline, `Ticks::MAX` if there is none.
    pub fn earliest(&self) -> Ticks {
        self.root.map_or(Ticks::MAX, |node| node.at())
    }

    /// Puts in a node that is not linked.
    pub fn insert(&mut self, node: Obj<Node>, at: Ticks) {
        assert!(!node.is_linked() && node.addr().0 & LOW == 0);
        node.left.set(1);
        store(&node.right, None);
        node.parent.set(1);
        node.at.set(at);
        self.root = merge(self.root, Some(node));
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
        let parent = link(node.parent.get());
        let merged = merge(left, right);
        if let Some(merged) = merged {
            store(&merged.parent, parent);
        }
        node.left.set(0);
        store(&node.right, None);
        node.parent.set(0);
        let Some(mut above) = parent else {
            self.root = merged;
            return;
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

    /// Checks order, ranks and links, and returns the number of nodes. The walk follows parent
    /// links instead of a stack.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<usize, &'static str> {
        let Some(root) = self.root else { return Ok(0) };
        if link(root.parent.get()).is_some() {
            return Err("the root of the deadlines has a parent");
        }
        let (mut node, mut from, mut count) = (root, None, 0);
        loop {
            let (left, right) = (link(node.left.get()), link(node.right.get()));
            let parent = link(node.parent.get());
            let first_visit = from == parent;
            if first_visit {
                count += 1;
                node.check()?;
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
            let mut model: Vec<(Ticks, usize)> = Vec::new();
            let mut state = seed * 0x9e37_79b9;
            for _ in 0..400 {
                let index = next(&mut state) as usize % homes.len();
                let at = next(&mut state) % 50;
                match model.iter().position(|(_, i)| *i == index) {
                    Some(place) => {
                        model.remove(place);
                        heap.remove(node(&homes[index]));
                    }
                    None => {
                        model.push((at, index));
                        heap.insert(node(&homes[index]), at);
                    }
                }
                assert_eq!(heap.check(), Ok(model.len()));
                assert_eq!(heap.earliest(), model.iter().map(|m| m.0).min().unwrap_or(Ticks::MAX));
                assert!(!node(&homes[index]).is_linked() || model.iter().any(|m| m.1 == index));
            }
        }
    }

    #[test]
    fn deadlines_come_out_in_order() {
        let homes = homes(500);
        let mut heap = Deadlines::new();
        let mut state = 7;
        for home in &homes {
            heap.insert(node(home), next(&mut state) % 1000);
        }
        let mut last = 0;
        while let Some(first) = heap.first() {
            assert!(first.at() >= last);
            last = first.at();
            heap.remove(first);
        }
        assert_eq!(heap.earliest(), Ticks::MAX);
    }

    #[test]
    fn removing_an_unlinked_node_does_nothing_and_kind_survives() {
        let home = Home(Node::new(NodeKind::Refill));
        let mut heap = Deadlines::new();
        heap.remove(node(&home));
        heap.insert(node(&home), 5);
        heap.remove(node(&home));
        assert_eq!(node(&home).kind(), NodeKind::Refill);
    }

    #[test]
    fn the_right_spine_stays_logarithmic() {
        let homes = homes(1023);
        let mut heap = Deadlines::new();
        for (i, home) in homes.iter().enumerate() {
            heap.insert(node(home), i as u64);
        }
        assert!(rank(heap.first()) <= 10);
    }
}
