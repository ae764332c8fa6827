//! Procedural macros of libipc (being written).
