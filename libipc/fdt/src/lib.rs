//! Flattened device trees (Devicetree Specification 0.4, §5): header, reservations, nodes.
//!
//! Shared by the kernel (RAM, interrupt controller, console), the root server (devices) and the
//! host tool (it writes altered trees for tests; [`build`]). Nothing in a tree is trusted: a walk is
//! bounded, reads each byte once, and visits what stands before any damage, so that a console
//! can be found to say what is wrong. That is why this is not a crate that refuses a damaged tree
//! whole.
//!
//! Invariant: a tree deeper than [`MAX_DEPTH`] is damaged; nothing recurses.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "build"))]
extern crate std;

#[cfg(any(test, feature = "build"))]
pub mod build;

/// Nodes within nodes at most.
pub const MAX_DEPTH: usize = 16;
/// First word of every tree, big-endian.
pub const MAGIC: u32 = 0xd00d_feed;
/// Bytes of a tree's header.
pub const HEADER_BYTES: usize = 40;
/// Token of the structure: a node begins; its name follows.
pub const BEGIN_NODE: u32 = 1;
/// Token: the innermost node ends.
pub const END_NODE: u32 = 2;
/// Token: a property; size, place of the name and value follow.
pub const PROPERTY: u32 = 3;
/// Token: nothing.
pub const NOP: u32 = 4;
const END: u32 = 9;
/// Memory reservations that are read.
const MAX_RESERVATIONS: usize = 64;

/// Why a tree cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdtError {
    /// There is none, or one of another version.
    Missing,
    /// It makes no sense at this byte of its structure.
    Damaged(usize),
}

/// A tree whose header is sound.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    size: usize,
    structure: &'a [u8],
    strings: &'a [u8],
    reservations: &'a [u8],
}

/// A node: its name and where its properties are.
#[derive(Clone, Copy, Default)]
pub struct Node<'a> {
    /// With the unit address.
    pub name: &'a [u8],
    strings: &'a [u8],
    properties: &'a [u8],
    /// Cells of an address in its children's `reg`.
    pub address_cells: usize,
    /// Cells of a size there.
    pub size_cells: usize,
}

/// A big-endian number of 1 or 2 cells of 4 bytes.
pub fn cells(bytes: &[u8], count: usize) -> Option<u64> {
    match count {
        1 => Some(u32::from_be_bytes(*bytes.first_chunk()?).into()),
        2 => Some(u64::from_be_bytes(*bytes.first_chunk()?)),
        _ => None,
    }
}

/// The strings of a list, each without its zero byte.
pub fn strings(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|s| !s.is_empty())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Bytes of a tree up to the end of its last block, from its first [`HEADER_BYTES`]: what must be
/// seen to read it. Loaders leave room behind it (QEMU: to 1 MiB).
pub fn used_bytes(header: &[u8]) -> Option<usize> {
    let field = |index: usize| u32_at(header, 4 * index).map(|value| value as usize);
    let end = |offset: usize, size: usize| field(offset)?.checked_add(field(size)?);
    // The reservations end with an entry of zeroes; room for all that are read.
    let reservations = field(4)?.checked_add(16 * (MAX_RESERVATIONS + 1))?;
    let used = end(2, 9)?.max(end(3, 8)?).max(reservations);
    (field(0)? == MAGIC as usize).then_some(used.min(field(1)?))
}

/// One token of the structure.
enum Token<'a> {
    Begin(&'a [u8]),
    End,
    /// The names from this property's on, and its value.
    Property(&'a [u8], &'a [u8]),
    Nop,
    Finish,
}

/// Reads the token at `at` and says where the next one is.
fn token<'a>(structure: &'a [u8], names: &'a [u8], at: usize) -> Option<(Token<'a>, usize)> {
    let body = at + 4;
    Some(match u32_at(structure, at)? {
        BEGIN_NODE => {
            let name = until_zero(structure.get(body..)?)?;
            let end = (body + name.len() + 1).next_multiple_of(4);
            (Token::Begin(name), end)
        }
        END_NODE => (Token::End, body),
        PROPERTY => {
            let size = u32_at(structure, body)? as usize;
            let name = names.get(u32_at(structure, body + 4)? as usize..)?;
            let value = structure.get(body + 8..)?.get(..size)?;
            let end = (body + 8 + size).next_multiple_of(4);
            (Token::Property(name, value), end)
        }
        NOP => (Token::Nop, body),
        END => (Token::Finish, body),
        _ => return None,
    })
}

/// Whether the first of `names` is `name`. (Where it ends is not looked for: properties may share a
/// name as long as the whole block, and a walk reads each byte once.)
fn is_named(names: &[u8], name: &str) -> bool {
    names.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

fn until_zero(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|byte| *byte == 0).next().filter(|text| text.len() < bytes.len())
}

impl<'a> Tree<'a> {
    /// Checks the header; `bytes` may go on behind the tree, or end behind its last block (what
    /// follows up to the tree's size is unused; see [`used_bytes`]).
    ///
    /// # Errors
    /// [`FdtError::Missing`].
    pub fn parse(bytes: &'a [u8]) -> Result<Tree<'a>, FdtError> {
        Tree::from_header(bytes).ok_or(FdtError::Missing)
    }

    fn from_header(bytes: &'a [u8]) -> Option<Tree<'a>> {
        let field = |index: usize| u32_at(bytes, 4 * index);
        let size = field(1)? as usize;
        // Version 17 has all the fields below; its last compatible version is 16.
        if field(0)? != MAGIC || field(5)? < 17 || field(6)? > 17 || size < HEADER_BYTES {
            return None;
        }
        let bytes = &bytes[..size.min(bytes.len())];
        let part = |from: u32, size: u32| bytes.get(from as usize..)?.get(..size as usize);
        Some(Tree {
            size,
            structure: part(field(2)?, field(9)?)?,
            strings: part(field(3)?, field(8)?)?,
            reservations: bytes.get(field(4)? as usize..)?,
        })
    }

    /// Bytes of the tree, unused ones included.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Name of the node that `/chosen` gives as the console (`stdout-path`, a path or an alias of
    /// one); empty if there is none. `/chosen` may stand behind any damage.
    pub fn stdout(&self) -> &'a [u8] {
        let last = |path: &'a [u8]| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_end = |byte: &u8| matches!(byte, b':' | 0);
        let path = self.property_of(b"chosen", "stdout-path").unwrap_or_default();
        let path = path.split(is_end).next().unwrap_or_default();
        if path.contains(&b'/') {
            return last(path);
        }
        let name = core::str::from_utf8(path).unwrap_or_default();
        let target = self.property_of(b"aliases", name).unwrap_or_default();
        last(target.split(is_end).next().unwrap_or_default())
    }

    /// A property of the last node with this name, as far as the tree can be walked.
    fn property_of(&self, node: &[u8], name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        let _ = self.walk(|here, _| {
            if here.name == node {
                found = here.property(name).or(found);
            }
        });
        found
    }

    /// Memory that nobody may use: address and size.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> {
        let (entries, _) = self.reservations.as_chunks::<16>();
        entries
            .iter()
            .take(MAX_RESERVATIONS)
            .map(|entry| (cells(entry, 2).unwrap_or(0), cells(&entry[8..], 2).unwrap_or(0)))
            .take_while(|(_, size)| *size != 0)
    }

    /// Calls `visit` with each node, after its children, and with its parent.
    ///
    /// # Errors
    /// [`FdtError::Damaged`]; nodes before the damage have been visited.
    pub fn walk(&self, mut visit: impl FnMut(&Node<'a>, &Node<'a>)) -> Result<(), FdtError> {
        let mut stack = [Node::default(); MAX_DEPTH];
        let (mut depth, mut at) = (0, 0);
        loop {
            let damaged = FdtError::Damaged(at);
            let (found, next) = token(self.structure, self.strings, at).ok_or(damaged)?;
            match found {
                Token::Begin(name) => {
                    depth += 1;
                    *stack.get_mut(depth).ok_or(damaged)? = Node {
                        name,
                        strings: self.strings,
                        properties: self.structure.get(next..).ok_or(damaged)?,
                        address_cells: 2,
                        size_cells: 1,
                    };
                }
                Token::Property(name, value) => {
                    let node = &mut stack[depth];
                    if is_named(name, "#address-cells") {
                        node.address_cells = number(value);
                    } else if is_named(name, "#size-cells") {
                        node.size_cells = number(value);
                    }
                }
                Token::End if depth == 0 => return Err(damaged),
                Token::End => {
                    visit(&stack[depth], &stack[depth - 1]);
                    depth -= 1;
                }
                Token::Nop => {}
                Token::Finish if depth == 0 => return Ok(()),
                Token::Finish => return Err(damaged),
            }
            at = next;
        }
    }
}

fn number(value: &[u8]) -> usize {
    cells(value, 1).unwrap_or(0) as usize
}

impl<'a> Node<'a> {
    /// The value of a property, which stand before the node's children.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        let mut at = 0;
        loop {
            match token(self.properties, self.strings, at)? {
                (Token::Property(found, value), _) if is_named(found, name) => {
                    return Some(value);
                }
                (Token::Property(..) | Token::Nop, next) => at = next,
                _ => return None,
            }
        }
    }

    /// The pairs of address and size in `reg`, whose form the parent says.
    pub fn registers(&self, parent: &Node<'_>) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (address, size) = (parent.address_cells, parent.size_cells);
        let bytes = self.property("reg").unwrap_or_default();
        // Sizes that `cells` does not know give nothing.
        let each = 4 * (address.min(4) + size.min(4)).max(1);
        bytes.chunks_exact(each).filter_map(move |pair| {
            Some((cells(pair, address)?, cells(pair.get(4 * address..)?, size)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use build::Builder;
    use std::time::{Duration, Instant};

    /// A walk must not look for the end of each property's name: of one long name that would be all
    /// bytes for each of the properties. (Half a minute; linear: milliseconds.)
    #[test]
    fn a_name_without_end_costs_no_more_than_others() {
        const PROPERTIES: usize = 20_000;
        let mut tree = Builder::new();
        tree.begin("");
        for _ in 0..PROPERTIES {
            tree.prop("x", b"");
        }
        tree.end();
        let mut bytes = tree.finish();
        let strings = bytes.len() - 2 * PROPERTIES;
        bytes[strings..].fill(b'x');
        bytes.resize(strings + (1 << 20) - 1, b'x');
        bytes.push(0);
        bytes[4..8].copy_from_slice(&(strings as u32 + (1 << 20)).to_be_bytes());
        bytes[32..36].copy_from_slice(&(1u32 << 20).to_be_bytes());
        let tree = Tree::parse(&bytes).ok().unwrap();
        let started = Instant::now();
        let mut visited = 0;
        let walked = tree.walk(|node, _| {
            visited += 1;
            assert_eq!(node.property("x"), None, "the name goes on");
        });
        assert_eq!((walked, visited), (Ok(()), 1));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    fn console(path: &[u8]) -> std::vec::Vec<u8> {
        let mut tree = Builder::new();
        tree.begin("");
        tree.begin("aliases");
        tree.prop("serial0", b"/soc/uart@2\0");
        tree.end();
        tree.begin("chosen");
        tree.prop("stdout-path", path);
        tree.end();
        tree.end();
        let bytes = tree.finish();
        Tree::parse(&bytes).ok().unwrap().stdout().to_vec()
    }

    #[test]
    fn the_console_is_named_by_path_or_alias() {
        assert_eq!(console(b"/soc/uart@1:115200n8\0"), b"uart@1");
        assert_eq!(console(b"serial0:9600\0"), b"uart@2");
        assert_eq!(console(b"serial1\0"), b"");
    }

    #[test]
    fn the_unused_end_need_not_be_seen() {
        let mut tree = Builder::new();
        tree.begin("");
        tree.prop("model", b"x\0");
        tree.end();
        let mut bytes = tree.finish();
        let used = bytes.len();
        bytes[4..8].copy_from_slice(&(1u32 << 20).to_be_bytes());
        // The few reservations that the builder writes are padded by what follows.
        assert!(used_bytes(&bytes).unwrap() >= used);
        let tree = Tree::parse(&bytes).ok().unwrap();
        assert_eq!(tree.size(), 1 << 20);
        assert!(tree.walk(|node, _| assert_eq!(node.property("model"), Some(&b"x\0"[..]))).is_ok());
        bytes[0] = 0;
        assert_eq!(used_bytes(&bytes), None);
    }

    #[test]
    fn a_tree_without_end_or_too_deep_is_damaged() {
        let mut tree = Builder::new();
        for _ in 0..MAX_DEPTH {
            tree.begin("n");
        }
        let bytes = tree.finish();
        let tree = Tree::parse(&bytes).ok().unwrap();
        assert!(matches!(tree.walk(|_, _| ()), Err(FdtError::Damaged(_))));
    }
}
