//! What a session is good for: how much of its protocol a client may use. Said by the edge in the
//! manifest (or by a program's entry, which can only ask for less than its slot offers), enforced by
//! the server.
//!
//! Which protocol has which options stands here, so that the host tool and the root server refuse the
//! same.

use core::fmt;
use heapless::String;
use serde::{Deserialize, Serialize};

/// Bytes of a folder's path at most.
pub const MAX_FOLDER: usize = 64;

/// The path of a folder: see [`is_folder`].
pub type Folder = String<MAX_FOLDER>;

/// How much of its protocol a session is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionGrant {
    /// In which direction (`file`, `console`).
    pub access: Access,
    /// The folder that is the session's root (`file`); `None`: all that the server has.
    pub folder: Option<Folder>,
    /// The one channel that it reaches (`console`); `None`: no channel at all.
    pub channel: Option<Channel>,
}

/// In which direction a session moves data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// In both.
    #[default]
    ReadWrite,
    /// It changes nothing, and puts nothing out.
    Read,
    /// It learns nothing that comes in.
    Write,
}

impl Access {
    /// Whether the client may read.
    pub const fn can_read(self) -> bool {
        matches!(self, Access::ReadWrite | Access::Read)
    }

    /// Whether the client may write.
    pub const fn can_write(self) -> bool {
        matches!(self, Access::ReadWrite | Access::Write)
    }
}

/// A byte stream to and from the outside, of the protocol `console`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The user's terminal (the first serial port).
    Terminal,
    /// Frames between the shell and the host tool (the second serial port).
    Exec,
}

impl Channel {
    /// Every channel, by index.
    pub const ALL: [Channel; 2] = [Channel::Terminal, Channel::Exec];

    /// Its place in [`Channel::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a protocol cannot be granted so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The protocol has no such option.
    NoOption(&'static str),
    /// Files can be read, or read and written.
    WriteOnlyFiles,
    /// The folder's path is none: see [`is_folder`].
    BadFolder,
    /// A session of `console` reaches one channel, and which one is not said.
    NoChannel,
}

impl GrantError {
    /// The option that is wrong, or missing.
    pub const fn option(&self) -> &'static str {
        match self {
            GrantError::NoOption(option) => option,
            GrantError::WriteOnlyFiles => "access",
            GrantError::BadFolder => "folder",
            GrantError::NoChannel => "channel",
        }
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantError::NoOption(option) => write!(f, "the protocol has no option `{option}`"),
            GrantError::WriteOnlyFiles => f.write_str("`access` is \"read\" or \"read-write\""),
            GrantError::BadFolder => {
                write!(f, "`folder` is a path such as \"/DATA/IN\", of {MAX_FOLDER} bytes at most")
            }
            GrantError::NoChannel => {
                f.write_str("say `channel = \"terminal\"` or `channel = \"exec\"`")
            }
        }
    }
}

/// The options that sessions of a protocol have.
pub fn options(protocol: &str) -> &'static [&'static str] {
    match protocol {
        "file" => &["access", "folder"],
        "console" => &["access", "channel"],
        _ => &[],
    }
}

impl SessionGrant {
    /// The grant that the words of a manifest or an entry come to.
    ///
    /// # Errors
    /// The option that the protocol does not have, whatever its value, or a value that it does not
    /// take.
    pub fn of_words(
        protocol: &str,
        access: Option<Access>,
        folder: Option<&str>,
        channel: Option<Channel>,
    ) -> Result<SessionGrant, GrantError> {
        if access.is_some() && !options(protocol).contains(&"access") {
            return Err(GrantError::NoOption("access"));
        }
        let folder = folder.map(|folder| folder.try_into().map_err(|_| GrantError::BadFolder));
        let access = access.unwrap_or_default();
        let grant = SessionGrant { access, folder: folder.transpose()?, channel };
        grant.check_options(protocol)?;
        Ok(grant)
    }

    /// Whether a session of `protocol` can be restricted so.
    ///
    /// # Errors
    /// The option that the protocol does not have, or a value that it does not take.
    pub fn check_options(&self, protocol: &str) -> Result<(), GrantError> {
        let is_set = [
            ("access", self.access != Access::default()),
            ("folder", self.folder.is_some()),
            ("channel", self.channel.is_some()),
        ];
        let known = options(protocol);
        if let Some((option, _)) = is_set.iter().find(|(name, set)| *set && !known.contains(name)) {
            return Err(GrantError::NoOption(option));
        }
        if protocol == "file" && self.access == Access::Write {
            return Err(GrantError::WriteOnlyFiles);
        }
        match &self.folder {
            Some(folder) if !is_folder(folder) => Err(GrantError::BadFolder),
            _ => Ok(()),
        }
    }

    /// Whether an edge of `protocol` can be granted so: [`SessionGrant::check_options`], and nothing
    /// is missing.
    ///
    /// # Errors
    /// As there; or a `console` session without its channel.
    pub fn check(&self, protocol: &str) -> Result<(), GrantError> {
        self.check_options(protocol)?;
        match protocol == "console" && self.channel.is_none() {
            true => Err(GrantError::NoChannel),
            false => Ok(()),
        }
    }

    /// What a client gets that asks for `wanted` where this is offered; what it does not speak of is
    /// as offered. `None`: it asks for more.
    pub fn narrowed(&self, wanted: &SessionGrant) -> Option<SessionGrant> {
        let access = match (self.access, wanted.access) {
            (offered, Access::ReadWrite) => offered,
            (Access::ReadWrite, wanted) => wanted,
            (offered, wanted) if offered == wanted => offered,
            _ => return None,
        };
        let folder = match (&self.folder, &wanted.folder) {
            (offered, None) => offered.clone(),
            (None, wanted) => wanted.clone(),
            (Some(offered), Some(wanted)) if is_inside(offered, wanted) => Some(wanted.clone()),
            _ => return None,
        };
        match wanted.channel.is_none() || wanted.channel == self.channel {
            true => Some(SessionGrant { access, folder, channel: self.channel }),
            false => None,
        }
    }
}

/// Whether a text is the path of a folder, in the one way to write it: `/NAME`, `/NAME/NAME` …;
/// no part is empty, `.` or `..`, and there are no control characters.
pub fn is_folder(path: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    path.len() <= MAX_FOLDER
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part))
}

/// Whether the folder `path` is `folder`, or below it.
fn is_inside(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn folder(path: &str) -> SessionGrant {
        SessionGrant { folder: Some(path.try_into().unwrap()), ..SessionGrant::default() }
    }

    fn access(access: Access) -> SessionGrant {
        SessionGrant { access, ..SessionGrant::default() }
    }

    fn channel(channel: Channel) -> SessionGrant {
        SessionGrant { channel: Some(channel), ..SessionGrant::default() }
    }

    #[test]
    fn each_protocol_has_its_options_and_no_others() {
        let all = SessionGrant::default();
        for protocol in ["file", "block", "output"] {
            assert_eq!(all.check(protocol), Ok(()));
        }
        assert_eq!(all.check("console"), Err(GrantError::NoChannel));
        assert_eq!(all.check_options("console"), Ok(()));
        assert_eq!(channel(Channel::Exec).check("console"), Ok(()));
        assert_eq!(folder("/A").check("file"), Ok(()));
        assert_eq!(access(Access::Read).check("file"), Ok(()));
        assert_eq!(access(Access::Write).check("file"), Err(GrantError::WriteOnlyFiles));
        assert_eq!(folder("/A").check("console"), Err(GrantError::NoOption("folder")));
        assert_eq!(channel(Channel::Exec).check("file"), Err(GrantError::NoOption("channel")));
        assert_eq!(access(Access::Read).check("block"), Err(GrantError::NoOption("access")));
    }

    #[test]
    fn a_folder_is_written_in_one_way() {
        for good in ["/A", "/DATA/LOGS", "/.hidden", "/a b", "/ä"] {
            assert!(is_folder(good), "{good}");
        }
        let long = String::from("/") + &"x".repeat(MAX_FOLDER);
        let bad =
            ["", "/", "A", "A/B", "/A/", "//A", "/A//B", "/.", "/A/..", "/../A", "/A\n", "/\x1b"];
        for bad in bad.into_iter().chain([long.as_str()]) {
            assert!(!is_folder(bad), "{bad:?}");
        }
    }

    #[test]
    fn asking_never_comes_to_more_than_is_offered() {
        use Access::{Read, ReadWrite, Write};
        let all = SessionGrant::default();
        for (offered, wanted, comes_to) in [
            (ReadWrite, ReadWrite, Some(ReadWrite)),
            (ReadWrite, Read, Some(Read)),
            (ReadWrite, Write, Some(Write)),
            (Read, ReadWrite, Some(Read)),
            (Read, Read, Some(Read)),
            (Read, Write, None),
            (Write, Read, None),
        ] {
            let got = access(offered).narrowed(&access(wanted)).map(|grant| grant.access);
            assert_eq!(got, comes_to, "{offered:?}, {wanted:?}");
        }
        assert_eq!(folder("/A").narrowed(&all), Some(folder("/A")));
        assert_eq!(all.narrowed(&folder("/A")), Some(folder("/A")));
        assert_eq!(folder("/A").narrowed(&folder("/A/B")), Some(folder("/A/B")));
        assert_eq!(folder("/A").narrowed(&folder("/A")), Some(folder("/A")));
        assert_eq!(folder("/A").narrowed(&folder("/AB")), None);
        assert_eq!(folder("/A/B").narrowed(&folder("/A")), None);
        let terminal = channel(Channel::Terminal);
        assert_eq!(terminal.narrowed(&all), Some(terminal.clone()));
        assert_eq!(terminal.narrowed(&terminal), Some(terminal.clone()));
        assert_eq!(terminal.narrowed(&channel(Channel::Exec)), None);
        assert_eq!(all.narrowed(&terminal), None);
    }
}
