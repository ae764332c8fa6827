//! Texts for arguments: paths of which many exist at some time, names of edges and servers, and what
//! nobody expects.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use libipc::StartInfo;

/// Names of files and folders.
const NAMES: [&str; 10] = [
    "A",
    "b.txt",
    "A long name with spaces.text",
    "C",
    "d\u{17f}",
    "DS",
    "ж",
    "Ж",
    "same.txt ",
    "SAME.TXT",
];
/// What leads elsewhere, or nowhere.
const ODD: [&str; 14] = [
    "",
    "/",
    ".",
    "..",
    "/..",
    "/../SECRET/CANARY.BIN",
    "/A/../../SECRET",
    "//A//b.txt",
    "/A/./b.txt/",
    "\\A\\b.txt",
    "/A\0b",
    "/con:\u{1b}[2J",
    "/\u{202e}txt.A",
    "/SECRET",
];
/// Bytes of the longest.
const LONG: usize = 3900;

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// All of them; made once and kept.
pub fn all(start: &'static StartInfo) -> &'static [&'static str] {
    let mut texts: Vec<&'static str> = Vec::new();
    // The short ones are drawn more often than the others: calls meet each other.
    for _ in 0..2 {
        texts.extend(NAMES.map(|name| leaked(format!("/{name}"))));
    }
    for folder in ["A", "C"] {
        texts.extend(NAMES.map(|name| leaked(format!("/{folder}/{name}"))));
    }
    texts.extend(ODD);
    texts.extend(start.outgoing.iter().map(|session| session.edge.as_str()));
    texts.push(start.name.as_str());
    let long = leaked("x/".repeat(LONG / 2));
    let wide = leaked("y".repeat(LONG));
    let up = leaked(format!("{}SECRET/CANARY.BIN", "../".repeat(100)));
    texts.extend([long, &long[..600], wide, &wide[..255], &wide[..256], &wide[..70], up]);
    texts.extend(["/README.txt", "/motd", "world"]);
    Box::leak(texts.into_boxed_slice())
}
