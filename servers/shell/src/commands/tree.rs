//! Commands on directories and whole file systems.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use libipc::escape::Escaped;
use libipc::time;
use skink_protocols::Span;
use skink_protocols::file::client;
use skink_protocols::file::{EntryReader, FileError, FileSystemClient, Kind, Metadata};

use super::misused;
use crate::context::{Context, Failure, INTERRUPTED, Outcome, is_unavailable};
use crate::format as look;
use crate::watch;

/// An entry of a directory.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub metadata: Metadata,
}

/// Bytes of memory that the entries of a directory may take at a time: a disk may have more of them
/// than the shell has heap.
const MOST_BYTES: usize = 384 << 10;
/// Rows of a table that are aligned with each other at most.
const ROWS: usize = 512;

/// The entries of a directory from `cursor` on, sorted, as many as there is memory for, and where
/// to go on. `check` is asked before each call, for nobody knows how many there will be.
///
/// # Errors
/// As the file server says, or `check`.
fn sorted_entries<E: From<FileError>>(
    client: &FileSystemClient,
    path: &str,
    cursor: u64,
    check: impl Fn() -> Result<(), E>,
) -> Result<(Vec<Entry>, Option<u64>), E> {
    let (mut found, mut next, mut bytes) = (Vec::new(), Some(cursor), 0);
    while let Some(cursor) = next.filter(|_| bytes < MOST_BYTES) {
        check()?;
        let (some, behind) = some_entries(client, path, cursor)?;
        bytes += some.iter().map(|entry| size_of::<Entry>() + entry.name.len()).sum::<usize>();
        found.extend(some);
        next = behind;
    }
    found.sort_by(|a: &Entry, b| a.name.cmp(&b.name));
    Ok((found, next))
}

/// As many entries as come at once, from `cursor` on, and where to go on.
fn some_entries(
    files: &FileSystemClient,
    path: &str,
    cursor: u64,
) -> Result<(Vec<Entry>, Option<u64>), FileError> {
    let shared = &files.session().shared;
    let span = Span { offset: 0, length: shared.size().min(64 * 1024) as u32 };
    let listing = files.list(path, cursor, span)?;
    // A cursor that does not grow would never end.
    if listing.next.is_some_and(|next| next <= cursor) || listing.length > span.length {
        return Err(client::bad_answer());
    }
    let mut reader = EntryReader::new(*shared, listing.length);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry() {
        found.push(Entry { name: entry.name.to_string(), metadata: entry.metadata });
    }
    if !reader.is_whole() {
        return Err(client::bad_answer());
    }
    Ok((found, listing.next))
}

pub fn ls(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (flags, paths): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|w| w.starts_with('-'));
    if flags.iter().any(|f| *f != "-l") {
        return Err(misused("ls"));
    }
    let is_long = !flags.is_empty();
    if paths.is_empty() {
        return ls_one(context, "/", is_long);
    }
    for (i, path) in paths.iter().enumerate() {
        if paths.len() > 1 {
            context.line(format_args!("{}{path}:", if i > 0 { "\n" } else { "" }));
        }
        ls_one(context, path, is_long)?;
    }
    Ok(())
}

fn ls_one(context: &mut Context<'_>, path: &str, is_long: bool) -> Outcome {
    if path.trim_matches('/').is_empty() {
        let names: Vec<String> =
            context.sessions.mounts.iter().map(|m| format!("{}/", m.name)).collect();
        names.iter().for_each(|name| context.line(name));
        return Ok(());
    }
    let (client, inner) = context.resolve(path)?;
    let metadata = client.status(&inner).map_err(|e| Failure::at(path, e))?;
    if metadata.kind == Kind::File {
        show_entries(context, &[Entry { name: path.to_string(), metadata }], is_long);
        return Ok(());
    }
    let mut next = Some(0);
    while let Some(cursor) = next {
        let at = |failure: Failure| match failure.status {
            INTERRUPTED => failure,
            _ => Failure::at(path, failure.text),
        };
        let (found, behind) =
            sorted_entries(&client, &inner, cursor, || context.check_interrupt()).map_err(at)?;
        show_entries(context, &found, is_long);
        next = behind;
    }
    Ok(())
}

fn show_entries(context: &mut Context<'_>, found: &[Entry], is_long: bool) {
    if !is_long {
        for entry in found {
            context.line(shown(entry));
        }
        return;
    }
    for some in found.chunks(ROWS) {
        let rows: Vec<Vec<String>> = some.iter().map(long_row).collect();
        context.out.write(look::table(&rows, &[1]).as_bytes());
    }
}

fn long_row(entry: &Entry) -> Vec<String> {
    let metadata = &entry.metadata;
    let kind = match (metadata.kind, metadata.is_read_only) {
        (Kind::Directory, _) => "dir",
        (Kind::File, true) => "ro",
        (Kind::File, false) => "rw",
    };
    let time = metadata.modified.map_or("-".into(), |t| {
        let (hour, minute, second) = (t.hour, t.minute, t.second);
        format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", t.year, t.month, t.day)
    });
    vec![kind.into(), metadata.size.to_string(), time, shown(entry)]
}

/// A name as it is listed: a directory's with a slash. A disk may have names that move a cursor.
fn shown(entry: &Entry) -> String {
    let mark = if entry.metadata.kind == Kind::Directory { "/" } else { "" };
    format!("{}{mark}", Escaped(&entry.name))
}

pub fn mv(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let [from, to] = words else {
        return Err(misused("mv"));
    };
    let (source, from_inner) = context.resolve(from)?;
    let (target, to_inner) = context.resolve(to)?;
    if source.session().endpoint != target.session().endpoint {
        return Err(Failure::at(to, "it is on another file system; use cp and rm"));
    }
    client::rename(&source, &from_inner, &to_inner).map_err(|e| Failure::at(from, e))
}

pub fn rm(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (flags, paths): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|w| w.starts_with('-'));
    if paths.is_empty() || flags.iter().any(|f| *f != "-r") {
        return Err(misused("rm"));
    }
    for path in paths {
        let (client, inner) = context.resolve(path)?;
        let result = if flags.is_empty() {
            client::remove(&client, &inner)
        } else {
            remove_tree(context, &client, &inner)?
        };
        result.map_err(|e| Failure::at(path, e))?;
    }
    Ok(())
}

/// Removes a file, or a directory with all below it: depth first, without recursion.
///
/// A name that is not one of an entry alone (`..`, or a path) ends it, whatever the server says:
/// nothing outside of `path` is removed.
fn remove_tree(
    context: &Context<'_>,
    files: &FileSystemClient,
    path: &str,
) -> Result<Result<(), FileError>, Failure> {
    let target = path.trim_end_matches('/');
    let mut at = target.to_string();
    loop {
        context.check_interrupt()?;
        match client::remove(files, &at) {
            Ok(()) if at.len() == target.len() => return Ok(Ok(())),
            // Below the target, so there is a slash.
            Ok(()) => at.truncate(at.rfind('/').unwrap_or(0)),
            Err(FileError::NotEmpty) => match empty(context, files, &at)? {
                Ok(Some(directory)) => at = directory,
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            },
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Removes some entries of a directory, until one is a directory that is not empty: that one is
/// returned.
fn empty(
    context: &Context<'_>,
    files: &FileSystemClient,
    directory: &str,
) -> Result<Result<Option<String>, FileError>, Failure> {
    let found = match some_entries(files, directory, 0) {
        Ok((found, _)) if found.is_empty() => return Err(Failure::new(NAMELESS)),
        Ok((found, _)) => found,
        Err(error) => return Ok(Err(error)),
    };
    for entry in found {
        context.check_interrupt()?;
        if !is_plain(&entry.name) {
            return Ok(Err(FileError::InvalidName));
        }
        let path = format!("{directory}/{}", entry.name);
        match client::remove(files, &path) {
            Ok(()) => {}
            Err(FileError::NotEmpty) => return Ok(Ok(Some(path))),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(None))
}

/// Of a directory that is not empty and lists nothing.
const NAMELESS: &str =
    "a directory has entries whose names no path can have; run fsck.fat on the disk";

/// Whether a name is that of an entry, and no way to another directory.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}

pub fn mkdir(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (flags, paths): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|w| w.starts_with('-'));
    if paths.is_empty() || flags.iter().any(|f| *f != "-p") {
        return Err(misused("mkdir"));
    }
    for path in paths {
        let (files, inner) = context.resolve(path)?;
        if flags.is_empty() {
            client::make_directory(&files, &inner).map_err(|e| Failure::at(path, e))?;
            continue;
        }
        for (end, _) in inner.match_indices('/').skip(1).chain([(inner.len(), "")]) {
            match client::make_directory(&files, &inner[..end]) {
                Ok(()) | Err(FileError::Exists) => {}
                Err(error) => return Err(Failure::at(path, error)),
            }
        }
    }
    Ok(())
}

pub fn sync(context: &mut Context<'_>, words: &[String]) -> Outcome {
    if !words.is_empty() {
        return Err(misused("sync"));
    }
    for mount in &context.sessions.mounts {
        match mount.client.sync() {
            Ok(()) | Err(FileError::Unsupported | FileError::ReadOnly) => {}
            Err(error) => return Err(Failure::at(mount.name, error)),
        }
    }
    Ok(())
}

pub fn df(context: &mut Context<'_>, _: &[String]) -> Outcome {
    let header = ["NAME", "FORMAT", "SIZE", "FREE", "CLUSTER", "STATE"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for mount in &context.sessions.mounts {
        let name = format!("/{}", mount.name);
        rows.push(match mount.client.statistics() {
            Ok(s) => {
                let state = match (s.is_read_only, s.damaged) {
                    (_, 1..) => format!("{} damaged", s.damaged),
                    (true, _) => "read-only".into(),
                    (false, _) => "ok".into(),
                };
                let (total, free) = (look::size(s.total_bytes), look::size(s.free_bytes));
                vec![name, s.format.to_string(), total, free, s.cluster_bytes.to_string(), state]
            }
            Err(error) if is_unavailable(&error) => {
                vec![name, "-".into(), "-".into(), "-".into(), "-".into(), "unavailable".into()]
            }
            Err(error) => {
                vec![name, "-".into(), "-".into(), "-".into(), "-".into(), error.to_string()]
            }
        });
    }
    let table = look::table(&rows, &[2, 3, 4]);
    context.out.write(table.as_bytes());
    Ok(())
}

/// Names in the directory of `path` that begin as its last part does, for completion; without
/// those that would have to be escaped, for what is completed is a name and is shown as well.
pub fn completions(context: &Context<'_>, path: &str) -> Vec<String> {
    let (directory, stem) = match path.rfind('/') {
        Some(slash) => path.split_at(slash + 1),
        None => return Vec::new(),
    };
    let fits = |name: &str| name.to_lowercase().starts_with(&stem.to_lowercase());
    if directory == "/" {
        let names = context.sessions.mounts.iter().map(|m| format!("{}/", m.name));
        return names.filter(|name| fits(name)).collect();
    }
    let Ok((client, inner)) = context.resolve(directory) else {
        return Vec::new();
    };
    // Of a directory with more than there is memory or time for, some.
    let until_ns = time::now_ns() + watch::COMPLETION_NS;
    let check = || match time::now_ns() < until_ns {
        true => Ok(()),
        false => Err(FileError::from(libipc::Error::Interrupted)),
    };
    let (found, _) = sorted_entries(&client, &inner, 0, check).unwrap_or_default();
    let is_plain_text = |entry: &&Entry| Escaped(&entry.name).to_string() == entry.name;
    let fitting = found.iter().filter(|entry| fits(&entry.name)).filter(is_plain_text);
    let mut names: Vec<String> = fitting.map(shown).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_moves_the_cursor_is_listed_as_text() {
        let metadata = |kind| Metadata { kind, size: 0, is_read_only: false, modified: None };
        let entry = |name: &str, kind| Entry { name: name.to_string(), metadata: metadata(kind) };
        assert_eq!(shown(&entry("\u{9b}2Ja", Kind::File)), "\\u{9b}2Ja");
        assert_eq!(long_row(&entry("d\u{202e}", Kind::Directory))[3], "d\\u{202e}/");
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_plain() {
        for name in ["", ".", "..", "a/b", "/", "../x"] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["a", "...", "..a", " ", "a."] {
            assert!(is_plain(name), "{name:?}");
        }
    }
}
