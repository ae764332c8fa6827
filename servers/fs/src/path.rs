//! Paths: UTF-8, `/` between components, always from the root.
//!
//! `.` and `..` are resolved in the text (FAT has no links, so that means the same); `..` at the
//! root stays there.

use crate::error::FsError;
use crate::name::Name;
use alloc::string::String;
use alloc::vec::Vec;

/// The most bytes of a path.
pub const MAX_PATH_BYTES: usize = 8192;

/// The parts of a path, with `.` and `..` resolved; none for the root.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts
}

/// The components of a path, none for the root: each can be made a name.
pub(crate) fn parse(path: &str) -> Result<Vec<&str>, FsError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(FsError::PathTooLong);
    }
    let parts = parts(path);
    parts.iter().try_for_each(|part| Name::check(part).map(|_| ()))?;
    Ok(parts)
}

/// The path of these components.
pub(crate) fn join(parts: &[&str]) -> String {
    match parts {
        [] => String::from("/"),
        parts => parts.iter().flat_map(|part| ["/", part]).collect(),
    }
}

/// Whether a path names the root.
pub(crate) fn is_root(path: &str) -> bool {
    parts(path).is_empty()
}

/// The path of what `path` names if the folder is the root.
pub(crate) fn within(folder: &str, path: &str) -> String {
    let mut all = String::from(folder.trim_end_matches('/'));
    for part in parts(path) {
        all.push('/');
        all.push_str(part);
    }
    if all.is_empty() || means_directory(path) {
        all.push('/');
    }
    all
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
        let text = |p: &str| parse(p).unwrap().join("/");
        assert_eq!(text("/a//b/./c/"), "a/b/c");
        assert_eq!(text("a/../../b"), "b");
        assert_eq!(text("/"), "");
        assert_eq!(parse(&"a/".repeat(5000)), Err(FsError::PathTooLong));
        assert!(is_root("") && is_root("/a/..") && is_root("/../..") && !is_root("/a/."));
        for (path, expected) in [
            ("/x", "/D/E/x"),
            ("x/../../../y", "/D/E/y"),
            ("/../..", "/D/E/"),
            ("x/", "/D/E/x/"),
            ("", "/D/E/"),
            ("/.../..x", "/D/E/.../..x"),
        ] {
            assert_eq!(within("/D/E", path), expected, "{path}");
        }
        assert!(means_directory("a/") && means_directory("/") && !means_directory("a"));
    }
}
