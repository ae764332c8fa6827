//! x
use crate::{doctor, workspace::Workspace};
/// m
pub fn main() -> std::process::ExitCode {
    let w = Workspace::find().unwrap();
    println!("{:?}", doctor::report(&w));
    println!("{:?}", doctor::ensure_all(&w));
    println!("{:?}", doctor::report(&w));
    std::process::ExitCode::SUCCESS
}
