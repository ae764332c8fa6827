//! Flattened device trees (Devicetree Specification 0.4, §5): header, reservations, nodes.
//!
//! Shared by the kernel (RAM, interrupt controller, console), the root server (devices) and the
//! host tool (altered trees for tests; [`build`]). Nothing in a tree is trusted: a walk is
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
const MAGIC: u32 = 0xd00d_feed;
const HEADER_BYTES: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
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
pub struct Tree<'a> {
    bytes: &'a [u8],
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
    address_cells: usize,
    size_cells: usize,
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

/// One token of the structure.
enum Token<'a> {
    Begin(&'a [u8]),
    End,
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
            let name = until_zero(names.get(u32_at(structure, body + 4)? as usize..)?)?;
            let value = structure.get(body + 8..)?.get(..size)?;
            let end = (body + 8 + size).next_multiple_of(4);
            (Token::Property(name, value), end)
        }
        NOP => (Token::Nop, body),
        END => (Token::Finish, body),
        _ => return None,
    })
}

fn until_zero(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|byte| *byte == 0).next().filter(|text| text.len() < bytes.len())
}

impl<'a> Tree<'a> {
    /// Checks the header; `bytes` may go on behind the tree.
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
        let bytes = bytes.get(..size)?;
        let part = |from: u32, size: u32| bytes.get(from as usize..)?.get(..size as usize);
        Some(Tree {
            bytes,
            structure: part(field(2)?, field(9)?)?,
            strings: part(field(3)?, field(8)?)?,
            reservations: bytes.get(field(4)? as usize..)?,
        })
    }

    /// Bytes of the tree.
    pub fn size(&self) -> usize {
        self.bytes.len()
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
                    match name {
                        b"#address-cells" => node.address_cells = number(value),
                        b"#size-cells" => node.size_cells = number(value),
                        _ => {}
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
                (Token::Property(found, value), _) if found == name.as_bytes() => {
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
