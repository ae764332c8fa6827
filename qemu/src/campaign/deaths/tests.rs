//! Which cells there are, and which deaths count.

use super::*;

fn args(one_in: u64, seed: u64) -> Args {
    let sample = Sample { one_in, seed };
    Args { arch: Arch::X86_64, server: None, how: None, sample, control: None }
}

#[test]
fn every_server_of_the_manifest_dies_in_every_way_at_every_time() {
    let path = Workspace::find().unwrap().target_folder(Arch::X86_64).join("system.toml");
    let manifest = manifest::load(&path, Arch::X86_64.target()).unwrap();
    let all = cells(&manifest, &args(1, 1));
    let servers = manifest::servers(&manifest).count();
    assert_eq!(all.len(), servers * 11 * 4 + (servers - 2));
    let other = |name: &str| all.iter().find(|cell| cell.server == name).unwrap().other.clone();
    assert_eq!((other("fs"), other("virtio-blk")), ("virtio-blk".into(), "fs".into()));
    assert!(all.iter().all(|cell| cell.other != SHELL && cell.other != cell.server));
    let some = cells(&manifest, &args(10, 3));
    assert!((10..60).contains(&some.len()), "{}", some.len());
}

fn cell(server: &str, way: &'static str, words: &'static [&'static str], time: Time) -> Cell {
    let (server, other) = (server.to_owned(), "virtio-blk".to_owned());
    Cell { server, way, words, time, applies: true, other }
}

fn order() -> Order {
    Order {
        number: 9,
        server: "fs".into(),
        how: "panic".into(),
        times: Some(1),
        reached: 1,
        died: 1,
        missed: 0,
        withdrawn: None,
    }
}

#[test]
fn only_the_death_by_the_cells_own_order_counts() {
    let idle = cell("fs", "panic", &["panic: "], Time::Idle);
    let death = |order: Option<u64>, cause: &str| Death {
        server: "fs".into(),
        cause: cause.into(),
        order,
        ..Death::default()
    };
    check_deaths(&idle, &order(), &[death(Some(9), "panic: x")]).unwrap();
    let complaint =
        |deaths: &[Death]| check_deaths(&idle, &order(), deaths).unwrap_err().to_string();
    assert!(complaint(&[death(None, "panic: x")]).starts_with("no such death"));
    assert!(complaint(&[death(Some(8), "panic: x")]).starts_with("no such death"));
    assert!(complaint(&[death(Some(9), "killed")]).contains("is another"));
    let two = [death(Some(9), "panic: x"), death(Some(9), "panic: x")];
    assert!(complaint(&two).starts_with("deaths: "));
    assert!(complaint(&[]).starts_with("deaths: "));
    let start_up = cell("fs", "panic", &["panic: "], Time::StartUp);
    let deaths = [death(Some(10), "killed"), death(Some(9), "panic: x")];
    let error = check_deaths(&start_up, &order(), &deaths).unwrap_err().to_string();
    assert!(error.starts_with("the other death"), "{error}");
}

#[test]
fn a_matrix_of_refusals_is_a_failure() {
    let report = Report { none: 20, ..Report::default() };
    let error = report.check().unwrap_err().to_string();
    assert_eq!(error, "no cell is as it must be: 20 do not apply");
    let report = Report { good: 1, none: 20, ..Report::default() };
    assert!(report.check().unwrap_err().to_string().starts_with("nobody died"));
    let report = Report { good: 3, failures: vec!["x".into()], ..Report::default() };
    assert_eq!(report.check().unwrap_err().to_string(), "1 cells failed; the first: x");
}
