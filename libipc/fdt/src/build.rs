//! Builds trees: for tests, and for the host tool.

use super::{BEGIN_NODE, END, END_NODE, HEADER_BYTES, MAGIC, PROPERTY};
use std::vec::Vec;

/// A tree under construction.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    /// An empty tree.
    pub fn new() -> Builder {
        Builder::default()
    }

    fn put(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        let size = self.structure.len().next_multiple_of(4);
        self.structure.resize(size, 0);
    }

    /// Opens a node.
    pub fn begin(&mut self, name: &str) {
        self.put(BEGIN_NODE);
        self.structure.extend(name.bytes());
        self.structure.push(0);
        self.pad();
    }

    /// Closes the innermost open node.
    pub fn end(&mut self) {
        self.put(END_NODE);
    }

    /// Gives the open node a property.
    pub fn prop(&mut self, name: &str, value: &[u8]) {
        self.put(PROPERTY);
        self.put(value.len() as u32);
        self.put(self.strings.len() as u32);
        self.strings.extend(name.bytes());
        self.strings.push(0);
        self.structure.extend(value);
        self.pad();
    }

    /// Gives it a property of 32-bit cells.
    pub fn words(&mut self, name: &str, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.prop(name, &bytes);
    }

    /// The tree as a blob.
    pub fn finish(&self) -> Vec<u8> {
        let structure = [&self.structure[..], &END.to_be_bytes()].concat();
        let at = HEADER_BYTES + 16;
        let strings_at = at + structure.len();
        let fields = [
            MAGIC as usize,
            strings_at + self.strings.len(),
            at,
            strings_at,
            HEADER_BYTES,
            17,
            16,
            0,
            self.strings.len(),
            structure.len(),
        ];
        let mut bytes: Vec<u8> = Vec::new();
        bytes.extend(fields.iter().flat_map(|field| (*field as u32).to_be_bytes()));
        bytes.extend([0; 16]);
        bytes.extend(structure);
        bytes.extend(&self.strings);
        bytes
    }
}
