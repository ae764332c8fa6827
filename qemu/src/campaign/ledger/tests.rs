//! What adds up, and each way in which it does not.

use super::*;

const HEAD: &str = "NUMBER  SERVER  ORDER  TIMES  REACHED  DIED  MISSED  WITHDRAWN\n";

fn death(number: u64, server: &str, order: Option<u64>) -> Death {
    Death { number, server: server.into(), order, ..Death::default() }
}

fn restarts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// A boot with these orders, deaths and restarts; after all of them the answers were right.
fn ledger(orders: &str, deaths: &[Death], after: &[(&str, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.begin(restarts(&[("fs", 1), ("pci", 0)]));
    ledger.take_orders(&format!("{HEAD}{orders}")).unwrap();
    deaths.iter().for_each(|death| ledger.hear(death));
    ledger.answered_right();
    ledger.take_restarts(restarts(after));
    ledger
}

fn complaint(ledger: &Ledger) -> String {
    ledger.check().unwrap_err().to_string()
}

const GOOD: &str = "1 fs kill 1 1 1 0 -\n2 pci hang 1 0 0 0 refused: the server has no heartbeat\n\
    3 fs kill 1 0 0 0 disarmed\n4 fs null 3 1 1 0 -\n";

fn good_deaths() -> [Death; 2] {
    [death(1, "fs", Some(1)), death(2, "fs", Some(4))]
}

#[test]
fn records_that_fit_add_up() {
    let ledger = ledger(GOOD, &good_deaths(), &[("fs", 3), ("pci", 0)]);
    ledger.check().unwrap();
    let totals = ledger.totals();
    totals.check().unwrap();
    let expected = Totals {
        wanted: 6,
        refused: 1,
        withdrawn: 1,
        not_reached: 2,
        reached: 2,
        died: 2,
        recovered: 2,
        right: 2,
    };
    assert_eq!(totals, expected);
    assert_eq!((ledger.last_order(), ledger.settled_up_to()), (4, 3));
    let after = ledger.orders_after(1).map(|order| order.number).collect::<Vec<_>>();
    assert_eq!(after, [2, 3, 4]);
}

#[test]
fn a_campaign_in_which_nobody_died_is_none() {
    let ledger = ledger("1 fs kill 1 0 0 0 -\n", &[], &[("fs", 1), ("pci", 0)]);
    let error = ledger.totals().check().unwrap_err().to_string();
    assert!(error.starts_with("nobody died: 1 deaths ordered: 0 reached"), "{error}");
}

#[test]
fn each_crash_record_has_an_order_of_its_own_server_and_no_number_is_missing() {
    let after = [("fs", 3), ("pci", 0)];
    let [first, second] = good_deaths();
    let of_nobody = death(2, "fs", None);
    assert!(
        complaint(&ledger(GOOD, &[first.clone(), of_nobody], &after)).starts_with("nobody ordered")
    );
    let unknown = death(2, "fs", Some(9));
    assert!(
        complaint(&ledger(GOOD, &[first.clone(), unknown], &after)).starts_with("nobody ordered")
    );
    let of_another = death(2, "pci", Some(4));
    assert!(
        complaint(&ledger(GOOD, &[first.clone(), of_another], &after))
            .starts_with("death 2 of pci is of")
    );
    let dropped = complaint(&ledger(GOOD, &[second], &after));
    assert_eq!(dropped, "death 1 has no crash record");
    let dropped = complaint(&ledger(GOOD, &[first], &after));
    assert_eq!(dropped, "fs died 1 times by order 4, with 0 crash records");
}

#[test]
fn who_died_is_started_again_as_often() {
    let deaths = good_deaths();
    let error = complaint(&ledger(GOOD, &deaths, &[("fs", 2), ("pci", 0)]));
    assert_eq!(error, "fs died 2 times and was started again 1 times");
    let ledger = ledger(GOOD, &deaths, &[("fs", 2), ("pci", 0)]);
    let error = ledger.totals().check().unwrap_err().to_string();
    assert!(error.starts_with("not all who died were started again"), "{error}");
}

#[test]
fn a_moment_without_its_death_is_a_failure() {
    let missed = "1 fs kill 1 1 0 1 -\n";
    assert!(complaint(&ledger(missed, &[], &[])).contains("of something else than order 1"));
    let open = "1 fs hang 1 1 0 0 -\n";
    assert!(complaint(&ledger(open, &[], &[])).contains("came, and fs did not die"));
}

#[test]
fn a_death_after_which_nobody_looked_is_a_failure() {
    let mut ledger = ledger("1 fs kill 1 1 1 0 -\n", &[], &[("fs", 2)]);
    ledger.hear(&death(1, "fs", Some(1)));
    assert_eq!(complaint(&ledger), "after death 1 of fs nobody saw a right answer");
    assert!(ledger.totals().check().unwrap_err().to_string().contains("answers were right"));
}

#[test]
fn orders_that_are_forgotten_are_missed_and_later_tables_replace_earlier_ones() {
    let mut ledger = ledger("1 fs kill endless 1 1 0 -\n", &[], &[]);
    let error = ledger.take_orders(&format!("{HEAD}3 fs kill 1 1 1 0 -\n")).unwrap_err();
    assert_eq!(error.to_string(), "orders 2 to 2 are forgotten");
    ledger.take_orders(&format!("{HEAD}1 fs kill endless 5 5 0 replaced\n")).unwrap();
    assert_eq!((ledger.totals().wanted, ledger.totals().died), (5, 5));
    let error = ledger.take_orders(&format!("{HEAD}no table\n")).unwrap_err().to_string();
    assert_eq!(error, "`orders` printed \"no table\"");
}
