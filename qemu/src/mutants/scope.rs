//! Where mutants are made, and which tests are to notice them.

/// A package, the part of it that is mutated, and the tests of that.
#[derive(Debug)]
pub struct Scope {
    /// Its name in `Cargo.toml`.
    pub package: &'static str,
    /// How the paths of its mutated files begin.
    pub parts: &'static [&'static str],
    /// Files of these that are left out.
    pub without: &'static [&'static str],
    /// Which tests of the package are run: words for `cargo test`.
    pub tests: &'static [&'static str],
    /// What is run for a mutant that these tests miss.
    pub second: Option<Second>,
}

/// Tests that cost more, or are another package's.
#[derive(Debug)]
pub struct Second {
    /// Whose tests.
    pub packages: &'static [&'static str],
    /// Words for `cargo test`.
    pub tests: &'static [&'static str],
}

/// The binary of a server only starts its library in the guest: no host test runs it.
const MAIN: &str = "/src/main.rs";

/// All that is mutated.
pub const SCOPES: [Scope; 7] = [
    Scope {
        package: "pci",
        parts: &["servers/pci/src/"],
        without: &[MAIN],
        tests: &["--lib"],
        second: None,
    },
    Scope {
        package: "virtio-blk",
        parts: &["servers/virtio-blk/src/"],
        without: &[MAIN],
        tests: &["--lib"],
        second: None,
    },
    Scope {
        package: "console",
        parts: &["servers/console/src/"],
        without: &[MAIN],
        tests: &["--lib"],
        second: None,
    },
    Scope {
        package: "libipc",
        // The rings, and what servers and their supervisor share.
        parts: &[
            "libipc/src/accounting.rs",
            "libipc/src/client.rs",
            "libipc/src/control.rs",
            "libipc/src/events.rs",
            "libipc/src/heartbeat.rs",
            "libipc/src/output.rs",
            "libipc/src/protocol.rs",
            "libipc/src/replies.rs",
            "libipc/src/ring/",
            "libipc/src/sealed.rs",
            "libipc/src/server.rs",
            "libipc/src/sessions.rs",
            "libipc/src/shared.rs",
            "libipc/src/steps.rs",
            "libipc/src/supervisor.rs",
            "libipc/src/trigger.rs",
            "libipc/src/wire.rs",
        ],
        without: &[],
        tests: &["--tests"],
        second: Some(Second {
            packages: &["skink-protocols", "console", "fs", "virtio-blk", "rootserver", "shell"],
            tests: &["--tests"],
        }),
    },
    Scope {
        package: "skink",
        parts: &["qemu/src/campaign/"],
        without: &[],
        tests: &["--lib", "campaign::"],
        second: None,
    },
    Scope {
        package: "rootserver",
        parts: &["rootserver/src/"],
        without: &[MAIN],
        tests: &["--lib"],
        second: None,
    },
    Scope {
        package: "fs",
        parts: &["servers/fs/src/"],
        // The fake disk, of which tests are made.
        without: &[MAIN, "servers/fs/src/testing.rs"],
        // All but what takes longer than everything else together.
        tests: &[
            "--lib",
            "--",
            "--skip=a_cross_link_with_a_deep_directory_is_their_damage_alone",
            "--skip=a_death_at_any_step_is_not_seen",
            "--skip=a_device_may_end_in_the_middle_of_a_line",
            "--skip=a_spoiled_region_is_not_believed",
            "--skip=no_step_is_long_on_any_disk",
        ],
        second: Some(Second { packages: &["fs"], tests: &["--tests"] }),
    },
];

impl Scope {
    /// The one of this package.
    pub fn of(package: &str) -> Option<&'static Scope> {
        SCOPES.iter().find(|scope| scope.package == package)
    }

    /// Whether this file is mutated.
    pub fn has(&self, file: &str) -> bool {
        self.parts.iter().any(|part| file.starts_with(part))
            && !self.without.iter().any(|end| file.ends_with(end))
    }
}
