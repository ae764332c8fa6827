//! The checkout is tidy: what `skink tidy` prints has no error.

use skink_tool::tidy::{look, size};
use skink_tool::workspace::Workspace;

#[test]
fn the_kernel_is_small_and_the_rules_hold() {
    let report = look(&Workspace::find().unwrap()).unwrap();
    println!("{}", size::table(&report.parts));
    let errors: Vec<String> = report.errors().map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}
