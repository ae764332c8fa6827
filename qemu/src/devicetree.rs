//! A device tree as a value: read from QEMU's dump, altered, and written again.
//!
//! Reading and writing follow the Devicetree Specification 0.4, §5. Memory reservations are not
//! kept: QEMU makes none.
//!
//! Why not the walk of [`skink_fdt::Tree`]: it goes around damage, and shows a node's children
//! before the node; here the whole tree is wanted in its order, or an error that says where it ends.
//!
//! Not here: damaged trees. What is read is QEMU's own; what makes no sense in it is an error.

use anyhow::{Context, Result, bail};
use skink_fdt::build::Builder;
use skink_fdt::{BEGIN_NODE, END_NODE, MAGIC, NOP, PROPERTY};

/// A node with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// With the unit address; empty for the root.
    pub name: String,
    /// Names and values, in order.
    pub properties: Vec<(String, Vec<u8>)>,
    /// In order.
    pub children: Vec<Node>,
}

impl Node {
    /// The root of a flattened tree.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(blob: &[u8]) -> Result<Node> {
        let mut reader = Reader { blob, at: 0, strings: 0 };
        let magic = reader.word()?;
        if magic != MAGIC {
            bail!("no device tree: it begins with {magic:#x}");
        }
        reader.at = 8;
        let structure = reader.word()? as usize;
        reader.strings = reader.word()? as usize;
        reader.at = structure;
        match reader.word()? {
            BEGIN_NODE => reader.node(),
            token => bail!("the device tree's structure begins with token {token}"),
        }
    }

    /// The flattened tree whose root this is.
    pub fn flatten(&self) -> Vec<u8> {
        let mut builder = Builder::new();
        self.build(&mut builder);
        builder.finish()
    }

    fn build(&self, builder: &mut Builder) {
        builder.begin(&self.name);
        for (name, value) in &self.properties {
            builder.prop(name, value);
        }
        for child in &self.children {
            child.build(builder);
        }
        builder.end();
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Gives it a property, in place of one of the same name.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.properties.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name.into(), value)),
        }
    }

    /// Whether it is a device of this kind.
    pub fn is_compatible(&self, kind: &str) -> bool {
        let list = self.property("compatible").unwrap_or_default();
        list.split(|byte| *byte == 0).any(|entry| entry == kind.as_bytes())
    }

    /// The child with this name; an empty one is made if there is none.
    pub fn child(&mut self, name: &str) -> &mut Node {
        let index = self.children.iter().position(|child| child.name == name);
        let index = index.unwrap_or_else(|| {
            self.children.push(Node { name: name.into(), ..Node::default() });
            self.children.len() - 1
        });
        &mut self.children[index]
    }

    /// Removes every node below that is chosen, with all that is in it. Returns how many.
    pub fn remove(&mut self, chosen: &dyn Fn(&Node) -> bool) -> usize {
        let before = self.children.len();
        self.children.retain(|child| !chosen(child));
        let here = before - self.children.len();
        here + self.children.iter_mut().map(|child| child.remove(chosen)).sum::<usize>()
    }
}

struct Reader<'a> {
    blob: &'a [u8],
    at: usize,
    strings: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(*self.bytes(4)?.first_chunk().context("four bytes")?))
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let bytes = self.blob.get(self.at..self.at + count);
        let bytes = bytes
            .with_context(|| format!("the device tree ends before byte {}", self.at + count))?;
        self.at += count;
        Ok(bytes.to_vec())
    }

    /// The text at a place, to its zero byte.
    fn text(&self, at: usize) -> Result<String> {
        let rest = self.blob.get(at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0);
        let end =
            end.with_context(|| format!("no name ends behind byte {at} of the device tree"))?;
        String::from_utf8(rest[..end].to_vec()).context("a name that is no text")
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(4);
    }

    /// A node behind its first token.
    fn node(&mut self) -> Result<Node> {
        let mut node = Node { name: self.text(self.at)?, ..Node::default() };
        self.at += node.name.len() + 1;
        self.align();
        loop {
            match self.word()? {
                BEGIN_NODE => node.children.push(self.node()?),
                END_NODE => return Ok(node),
                PROPERTY => {
                    let size = self.word()? as usize;
                    let name = self.strings + self.word()? as usize;
                    let value = self.bytes(size)?;
                    self.align();
                    node.properties.push((self.text(name)?, value));
                }
                NOP => {}
                token => bail!("token {token} at {:#x} of the device tree", self.at - 4),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Node {
        let mut root = Node::default();
        root.set("model", b"x\0");
        let uart = root.child("uart@1");
        uart.set("compatible", b"arm,pl011\0arm,primecell\0");
        uart.set("reg", vec![0, 0, 0, 1, 9]);
        root.child("soc").child("uart@2").set("compatible", b"arm,pl011\0");
        root
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Node::parse(&tree().flatten()).unwrap(), tree());
        let mut other = Vec::new();
        skink_fdt::Tree::parse(&tree().flatten())
            .ok()
            .unwrap()
            .walk(|node, _| other.push(node.name.to_vec()))
            .unwrap();
        assert_eq!(other, [&b"uart@1"[..], b"uart@2", b"soc", b""]);
    }

    #[test]
    fn nodes_are_changed_and_removed_at_any_depth() {
        let mut root = tree();
        root.child("uart@1").set("reg", [7]);
        assert_eq!(root.child("uart@1").property("reg"), Some(&[7][..]));
        assert_eq!(root.remove(&|node| node.is_compatible("arm,pl011")), 2);
        assert_eq!(root.children.len(), 1);
        assert_eq!(root.remove(&|node| node.is_compatible("arm,pl011")), 0);
    }

    #[test]
    fn no_tree_and_a_part_of_one_are_errors() {
        let error = |blob: &[u8]| Node::parse(blob).unwrap_err().to_string();
        assert!(error(&[0; 64]).contains("no device tree"));
        let whole = tree().flatten();
        for length in 0..whole.len() {
            error(&whole[..length]);
        }
        assert_eq!(error(&whole[..20]), "the device tree ends before byte 60");
        assert_eq!(error(&whole[..60]), "no name ends behind byte 60 of the device tree");
    }
}
