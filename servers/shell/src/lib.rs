//! The shell: a client like any other, with a terminal in front of it and the host tool behind.
//!
//! * [`line`]: the line editor. [`parse`]: the command language. [`format`]: how things look.
//! * [`stream`]: console sessions as byte streams. [`context`]: what a command works with.
//! * [`entry`]: what stands beside a program; [`depth`]: how deep its text is nested.
//! * [`grants`]: what the person who starts a program grants it.
//! * [`commands`]: the commands. [`run`]: a line of them. [`jobs`]: the threads that run lines.
//! * [`terminal`]: the user's side. [`exec`]: the host tool's side. [`watch`]: an end for calls.
//!
//! Not here: file systems, servers, policy: the shell only asks.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod commands;
pub mod context;
pub mod depth;
pub mod entry;
pub mod exec;
pub mod format;
pub mod grants;
pub mod jobs;
pub mod line;
pub mod parse;
pub mod run;
pub mod stream;
pub mod terminal;
pub mod watch;
