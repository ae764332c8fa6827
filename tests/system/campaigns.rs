//! The short forms of the tool's campaigns.

use anyhow::{Result, ensure};
use skink_tests::{Fixture, one_at_a_time};
use skink_tool::campaign::soak;
use skink_tool::session::Watch;
use skink_tool::workspace::Workspace;

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "SOAK0001 350 restarts of all servers in turn leave nothing behind and do not get dearer",
    run: short_soak,
}];

fn short_soak(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let report = soak::run(&Workspace::find()?, fixture.arch(), 350, &Watch::default())?;
    ensure!(report.restarts >= 350, "{} restarts", report.restarts);
    report.check()
}
