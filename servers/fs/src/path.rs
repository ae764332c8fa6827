//! Paths: UTF-8, `/` between components, always from the root.
//!
//! `.` and `..` are resolved in the text (FAT has no links, so that means the same); `..` at the
//! root stays there.

use crate::error::FsError;
use crate::name::Name;
use alloc::vec::Vec;

/// The most bytes of a path.
pub const MAX_PATH_BYTES: usize = 8192;

/// The components of a path, none for the root.
pub(crate) fn parse(path: &str) -> Result<Vec<Name>, FsError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(FsError::PathTooLong);
    }
    let mut names = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(Name::new(name)?),
        }
    }
    Ok(names)
}

/// Whether the path's last component says that a directory is meant (`a/`, `a/.`).
pub(crate) fn means_directory(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_resolved() {
        let text = |p: &str| {
            let names = parse(p).unwrap();
            names
                .iter()
                .map(|n| String::from_utf16(n.units()).unwrap())
                .collect::<Vec<_>>()
                .join("/")
        };
        assert_eq!(text("/a//b/./c/"), "a/b/c");
        assert_eq!(text("a/../../b"), "b");
        assert_eq!(text("/"), "");
        assert_eq!(parse(&"a/".repeat(5000)), Err(FsError::PathTooLong));
        assert!(means_directory("a/") && means_directory("/") && !means_directory("a"));
    }
}
