//! The host tool of Skink (being written).
fn main() {}
