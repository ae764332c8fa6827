//! The host tool of Skink, as a library: builds the guest's programs, packs the boot image, makes
//! disk images, runs QEMU and talks to the guest. The command `skink` and the system tests both
//! stand on it.
//!
//! Data flows one way: [`workspace`] finds the sources; [`install`] provides what the host lacks;
//! [`compile`] calls cargo for the guest; [`manifest`] checks `system.toml`; [`elf`] and
//! [`bootimage`] pack; [`disk`] makes the FAT32 image, [`program`] a file for it; [`machine`] starts QEMU; [`terminal`] and
//! [`exec_channel`] talk to what runs in it; [`symbolize`] reads its dumps. [`session`] puts them
//! together, [`bench`](mod@bench), [`suite`] and [`fuzz`] measure and test with it, [`cli`] is the command
//! line. [`campaign`] runs the long experiments with deaths. [`matrix`] boots on every machine, with [`devicetree`]s of its own making. [`tidy`] looks at
//! the sources alone, [`mutants`] at what the tests of the host notice.
//!
//! Invariants: nothing is scraped from a prompt (lengths and status come by frames); every QEMU
//! that was started is ended; the terminal is restored however the tool ends. The guest is believed
//! nothing: no wait for it outlasts its deadline, what is kept of it has bounds and what is dropped is
//! told ([`bounded`]), and its text reaches the terminal escaped ([`escape`]), but for what it was
//! asked to print.
//!
//! Not here: anything that runs in the guest.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bootimage;
pub mod bounded;
pub mod campaign;
pub mod cli;
pub mod compile;
pub mod crash_file;
pub mod devicetree;
pub mod disk;
pub mod doctor;
pub mod elf;
pub mod escape;
pub mod exec_channel;
pub mod fuzz;
pub mod install;
pub mod machine;
pub mod manifest;
pub mod matrix;
pub mod mutants;
pub mod program;
pub mod progress;
pub mod session;
pub mod stats;
pub mod suite;
pub mod symbolize;
pub mod terminal;
pub mod tidy;
pub mod workspace;
