//! `skink doctor`: what is installed, what is missing, how to get it; and the same check, with
//! installation, before anything that needs it.

use crate::install::{self, PEERS, PackageManager, find_program};
use crate::workspace::{Arch, FloatAbi, Workspace};
use anyhow::Result;
use std::process::Command;

/// One thing that is needed.
struct Finding {
    what: String,
    found: Option<String>,
    remedy: String,
}

/// Installs what building and running on `arch` needs. (The target of programs with floating point
/// comes when one is built.)
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn ensure(workspace: &Workspace, arch: Arch) -> Result<()> {
    install::ensure_rust_target(workspace, arch.triple(FloatAbi::Soft))?;
    install::ensure_qemu(arch)
}

/// Installs everything: for each machine the Rust target and QEMU, and the tests' peers.
///
/// # Errors
/// If something cannot be installed.
pub fn ensure_all(workspace: &Workspace) -> Result<()> {
    for arch in Arch::ALL {
        ensure(workspace, arch)?;
    }
    install::ensure_peers()
}

/// Prints what is there and what is not. Returns whether nothing is missing.
///
/// # Errors
/// If rustc cannot be asked.
pub fn report(workspace: &Workspace) -> Result<bool> {
    let findings = findings(workspace)?;
    for finding in &findings {
        match &finding.found {
            Some(found) => println!("ok       {:<40} {found}", finding.what),
            None => println!("MISSING  {:<40} {}", finding.what, finding.remedy),
        }
    }
    let missing = findings.iter().filter(|finding| finding.found.is_none()).count();
    if missing > 0 {
        println!("{missing} missing; `cargo skink doctor --install` gets them where it may");
    }
    Ok(missing == 0)
}

fn findings(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut all = vec![Finding {
        what: "the pinned Rust toolchain".into(),
        found: first_line(Command::new("rustc").arg("--version").current_dir(&workspace.root)),
        remedy: "rustup toolchain install".into(),
    }];
    let remedy = |package: &str| match PackageManager::detect() {
        Some(PackageManager::Brew) => format!("brew install {package}"),
        Some(manager) => format!("sudo {}", manager.words(&[package]).join(" ")),
        None => format!("install {package}"),
    };
    for arch in Arch::ALL {
        let triple = arch.triple(FloatAbi::Soft);
        let has = install::has_rust_target(workspace, triple)?;
        all.push(Finding {
            what: format!("Rust target {triple}"),
            found: has.then(|| "installed".into()),
            remedy: format!("rustup target add {triple}"),
        });
        let package = PackageManager::detect().map_or("QEMU", |m| m.qemu_package(arch));
        all.push(Finding {
            what: arch.qemu().into(),
            found: first_line(Command::new(arch.qemu()).arg("--version")),
            remedy: remedy(package),
        });
    }
    for (program, package) in PEERS {
        all.push(Finding {
            what: format!("{program} (tests only)"),
            found: find_program(program).map(|file| file.display().to_string()),
            remedy: remedy(package),
        });
    }
    Ok(all)
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_string())
}
