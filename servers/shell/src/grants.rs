//! What the person who starts a program grants it. A program brings its entry along, so what that
//! asks for is a wish: the program gets the least of what the entry asks for, what is granted here, and
//! what the system's manifest offers to programs (which the root server looks at).
//!
//! Without a word of the person it gets the place where it prints, which comes by itself, and a look
//! at the folder that it lies in: its own files, to read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use skink_manifest::{Access, Folder, SessionGrant, is_folder};
use skink_protocols::control::{ProgramEntry, ProgramNeed};

use crate::format as look;

/// The word that grants all that is asked for.
const ALL: &str = "all";
/// The word for writing to the system's log.
const LOG: &str = "log";
/// What that stands for.
pub const LOGGING: &str = "it writes to the system's log";

/// What names of `--with` say that are no need's.
pub const WORDS: [&str; 2] = [ALL, LOG];

/// What the person says: words of `--with`.
#[derive(Debug, Default)]
pub struct Granted {
    names: Vec<String>,
}

impl Granted {
    /// Adds names, with commas between them: of needs of the entry, `log`, `all`.
    pub fn add(&mut self, names: &str) {
        self.names.extend(names.split(',').filter(|name| !name.is_empty()).map(String::from));
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|granted| granted == name || granted == ALL)
    }
}

/// The folder that a program lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFolder {
    /// The server that has it, by its name in the manifest.
    pub server: &'static str,
    /// Reading in it.
    grant: SessionGrant,
}

impl OwnFolder {
    /// The folder of the file at `path` of the file server `server`; `None` if it cannot be granted
    /// by name.
    pub fn of(server: &'static str, path: &str) -> Option<OwnFolder> {
        let (folder, _) = path.rsplit_once('/')?;
        let folder = match folder {
            "" => None,
            folder if is_folder(folder) => Some(Folder::try_from(folder).ok()?),
            _ => return None,
        };
        let grant = SessionGrant { access: Access::Read, folder, channel: None };
        Some(OwnFolder { server, grant })
    }
}

/// What an entry comes to.
#[derive(Debug)]
pub struct Least {
    /// It asks for no more than is granted.
    pub entry: ProgramEntry,
    /// What it asked for in vain.
    pub withheld: Vec<Withheld>,
}

/// Something that was asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// The word of `--with` that grants it. For a need the program has chosen it.
    pub name: String,
    /// What it stands for.
    pub what: String,
}

/// Leaves of `entry` what is granted.
///
/// # Errors
/// Something is granted that it does not ask for.
pub fn least(
    mut entry: ProgramEntry,
    granted: &Granted,
    own: Option<&OwnFolder>,
) -> Result<Least, String> {
    let is_asked = |name: &str| match name {
        ALL => true,
        LOG => entry.log,
        name => entry.needs.iter().any(|need| need.name == name),
    };
    if let Some(name) = granted.names.iter().find(|name| !is_asked(name)) {
        return Err(format!("`{name}` is granted, and its entry asks for no such thing"));
    }
    let mut withheld = Vec::new();
    if entry.log && !granted.has(LOG) {
        entry.log = false;
        withheld.push(Withheld { name: LOG.into(), what: LOGGING.into() });
    }
    let needs = core::mem::take(&mut entry.needs);
    for mut need in needs {
        if !granted.has(&need.name) {
            let is_own = |own: &&OwnFolder| need.protocol == "file" && need.server == own.server;
            let reading = own.filter(is_own).and_then(|own| own.grant.narrowed(&need.grant));
            let Some(grant) = reading else {
                let ProgramNeed { name, server, protocol, grant, .. } = &need;
                let what = format!("{protocol} of {server}{}", look::grant(grant));
                withheld.push(Withheld { name: name.as_str().into(), what });
                continue;
            };
            need.grant = grant;
        }
        // There were as many before.
        let _ = entry.needs.push(need);
    }
    Ok(Least { entry, withheld })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry;
    use skink_manifest::Channel;

    const ENTRY: &str = r#"
        privileges = ["log"]
        needs = [
            { name = "files", server = "fs", protocol = "file" },
            { name = "logs", server = "fs", protocol = "file", folder = "/LOGS" },
            { name = "mine", server = "fs", protocol = "file", folder = "/BIN/DATA" },
            { name = "boot", server = "bootfs", protocol = "file" },
            { name = "screen", server = "console", protocol = "console", channel = "terminal" },
        ]
    "#;

    fn comes_to(with: &[&str], path: &str) -> Result<Least, String> {
        let mut granted = Granted::default();
        with.iter().for_each(|names| granted.add(names));
        let own = OwnFolder::of("fs", path);
        least(entry::parse(path, ENTRY).unwrap(), &granted, own.as_ref())
    }

    fn withheld(least: &Least) -> Vec<&str> {
        least.withheld.iter().map(|withheld| withheld.name.as_str()).collect()
    }

    fn names(least: &Least) -> Vec<&str> {
        least.entry.needs.iter().map(|need| need.name.as_str()).collect()
    }

    #[test]
    fn without_a_word_a_program_reads_its_own_folder() {
        let least = comes_to(&[], "/BIN/P").unwrap();
        assert_eq!(names(&least), ["files", "mine"]);
        for (need, folder) in least.entry.needs.iter().zip(["/BIN", "/BIN/DATA"]) {
            assert_eq!(
                (need.grant.access, need.grant.folder.as_deref()),
                (Access::Read, Some(folder))
            );
        }
        assert!(!least.entry.log);
        assert_eq!(withheld(&least), ["log", "logs", "boot", "screen"]);
        assert_eq!(least.withheld[1].what, "file of fs, /LOGS");
        assert_eq!(least.withheld[3].what, "console of console, the terminal");
        // At the root of the disk, its own folder is all of it.
        let least = comes_to(&[], "/P").unwrap();
        assert_eq!(names(&least), ["files", "logs", "mine"]);
        assert!(least.entry.needs.iter().all(|need| need.grant.access == Access::Read));
        assert_eq!(least.entry.needs[0].grant.folder, None);
    }

    #[test]
    fn what_is_granted_is_as_it_was_asked_for() {
        let least = comes_to(&["screen,log", "logs"], "/BIN/P").unwrap();
        assert_eq!(names(&least), ["files", "logs", "mine", "screen"]);
        assert!(least.entry.log);
        assert_eq!(withheld(&least), ["boot"]);
        let grant = |at: usize| least.entry.needs[at].grant.clone();
        assert_eq!(
            (grant(1).access, grant(1).folder.as_deref()),
            (Access::ReadWrite, Some("/LOGS"))
        );
        assert_eq!(grant(3).channel, Some(Channel::Terminal));
        let all = comes_to(&["all"], "/BIN/P").unwrap();
        assert_eq!(all.entry, entry::parse("/BIN/P", ENTRY).unwrap());
        assert!(all.withheld.is_empty());
    }

    #[test]
    fn what_is_not_asked_for_cannot_be_granted() {
        let error = comes_to(&["files,disk"], "/BIN/P").unwrap_err();
        assert_eq!(error, "`disk` is granted, and its entry asks for no such thing");
        let plain = entry::without_file("/P").unwrap();
        let mut granted = Granted::default();
        granted.add("log");
        assert!(least(plain.clone(), &granted, None).is_err());
        assert_eq!(least(plain.clone(), &Granted::default(), None).unwrap().entry, plain);
    }

    #[test]
    fn a_folder_that_has_no_name_is_not_granted() {
        let deep = format!("/{}/P", "x".repeat(80));
        for path in ["P", "//P", "/A//P", "/A/../P", "/A/./P", deep.as_str()] {
            assert_eq!(OwnFolder::of("fs", path), None, "{path}");
        }
        let least = comes_to(&[], "/A/../P").unwrap();
        assert!(names(&least).is_empty());
    }
}
