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
use crate::context::{Context, Failure, Outcome, is_unavailable};
use crate::format as look;
use crate::listing::{Entries, Shown};
use crate::parse;
use crate::watch;

/// Bytes of a listing that are asked for at once.
const LISTED: usize = 8 << 10;
/// Bytes of names among which a word is completed at most.
const MOST_CANDIDATES: usize = 16 << 10;

/// Hands each entry of a directory to `take`, with the name and what it is. `check` is asked before
/// each call, for nobody knows how many there will be.
///
/// # Errors
/// As the file server says; as `check` and `take` say.
fn each_entry(
    files: &FileSystemClient,
    path: &str,
    check: impl Fn() -> Outcome,
    mut take: impl FnMut(&str, Metadata) -> Outcome,
) -> Result<Result<(), FileError>, Failure> {
    let mut next = Some(0);
    while let Some(cursor) = next {
        check()?;
        match some_entries(files, path, cursor, &mut take)? {
            Ok(behind) => next = behind,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// The same with those that come at once, from `cursor` on; where to go on.
fn some_entries(
    files: &FileSystemClient,
    path: &str,
    cursor: u64,
    take: &mut impl FnMut(&str, Metadata) -> Outcome,
) -> Result<Result<Option<u64>, FileError>, Failure> {
    let shared = &files.session().shared;
    let span = Span { offset: 0, length: shared.size().min(LISTED) as u32 };
    let listing = match files.list(path, cursor, span) {
        Ok(listing) => listing,
        Err(error) => return Ok(Err(error)),
    };
    // A cursor that does not grow would never end.
    if listing.next.is_some_and(|next| next <= cursor) || listing.length > span.length {
        return Ok(Err(client::bad_answer()));
    }
    let mut reader = EntryReader::new(*shared, listing.length);
    while let Some(entry) = reader.next_entry() {
        take(entry.name, entry.metadata)?;
    }
    if !reader.is_whole() {
        return Ok(Err(client::bad_answer()));
    }
    Ok(Ok(listing.next))
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
    let mut entries = Entries::new();
    if metadata.kind == Kind::File {
        entries.push(path, metadata);
    } else {
        let watched = context.watched();
        let check = || watched.check_interrupt();
        let found = each_entry(&client, &inner, check, |name, metadata| {
            if entries.is_full() {
                show(context, &mut entries, is_long)?;
            }
            entries.push(name, metadata);
            Ok(())
        })?;
        found.map_err(|e| Failure::at(path, e))?;
    }
    show(context, &mut entries, is_long)
}

fn show(context: &mut Context<'_>, entries: &mut Entries, is_long: bool) -> Outcome {
    context.check_interrupt()?;
    // The output takes everything.
    let _ = entries.show(is_long, &mut context.out);
    Ok(())
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
    let mut found = Vec::new();
    let take = &mut |name: &str, _| {
        found.push(name.to_string());
        Ok(())
    };
    if let Err(error) = some_entries(files, directory, 0, take)? {
        return Ok(Err(error));
    }
    if found.is_empty() {
        return Err(Failure::new(NAMELESS));
    }
    for name in found {
        context.check_interrupt()?;
        let path = match below(directory, &name) {
            Ok(path) => path,
            Err(error) => return Ok(Err(error)),
        };
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

/// The path of an entry of a directory, whose name a file server gave.
///
/// # Errors
/// [`FileError::InvalidName`]: the name is none of an entry, but a way to elsewhere.
fn below(directory: &str, name: &str) -> Result<String, FileError> {
    match matches!(name, "" | "." | "..") || name.contains('/') {
        true => Err(FileError::InvalidName),
        false => Ok(format!("{directory}/{name}")),
    }
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
                vec![
                    name,
                    Escaped(&s.format).to_string(),
                    total,
                    free,
                    s.cluster_bytes.to_string(),
                    state,
                ]
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

/// Names in the directory of `path` that begin as its last part does, for completion; without those that
/// are no words as they stand, for what is completed is a name and is shown as well. Of a directory with
/// more than there is memory for, the first.
pub fn completions(context: &Context<'_>, path: &str) -> Vec<String> {
    let (directory, stem) = match path.rfind('/') {
        Some(slash) => path.split_at(slash + 1),
        None => return Vec::new(),
    };
    let stem = stem.to_lowercase();
    let fits = |name: &str| name.to_lowercase().starts_with(&stem);
    if directory == "/" {
        let names = context.sessions.mounts.iter().map(|m| format!("{}/", m.name));
        return names.filter(|name| fits(name)).collect();
    }
    let Ok((client, inner)) = context.resolve(directory) else {
        return Vec::new();
    };
    let (mut names, mut bytes) = (Vec::new(), 0);
    // Of a directory with more than there is memory or time for, some.
    let until_ns = time::now_ns() + watch::COMPLETION_NS;
    let check = || match time::now_ns() < until_ns {
        true => Ok(()),
        false => Err(Failure::new("more than there is time for")),
    };
    let found = each_entry(&client, &inner, check, |name, Metadata { kind, .. }| {
        if parse::is_plain(name) && fits(name) {
            let shown = Shown { name, kind }.to_string();
            bytes += size_of::<String>() + shown.len();
            names.push(shown);
        }
        if bytes < MOST_CANDIDATES { Ok(()) } else { Err(Failure::new("more than fit")) }
    });
    // What could not be listed completes nothing, and is told by the command that needs it.
    drop(found);
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_no_names() {
        for name in ["", ".", "..", "a/b", "/", "../x"] {
            assert_eq!(below("/a", name), Err(FileError::InvalidName), "{name:?}");
        }
        for name in ["a", "...", "..a", " ", "a."] {
            assert_eq!(below("/a", name), Ok(format!("/a/{name}")));
        }
    }
}
