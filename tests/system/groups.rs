//! Groups of the manifest on real servers: who is restarted with whom, escalation, giving up.

use anyhow::{Result, ensure};
use skink_tests::Fixture;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "GROUP0001 rest_for_one restarts the dead server and those that need it, nobody else",
        run: rest_for_one,
    },
    Test { name: "GROUP0002 one_for_all restarts the whole group, nobody else", run: one_for_all },
    Test {
        name: "GROUP0003 too many deaths restart the group, then its parent's, then it is given up",
        run: escalation,
    },
];

/// The shipped manifest with four more servers: `second` needs `first`, `third` needs nobody;
/// `fourth` has no group.
fn fixture(shipped: &Fixture, name: &str, groups: &str) -> Result<Fixture> {
    let need = "needs = [{ name = \"x\", server = \"first\", protocol = \"hello\" }]";
    let in_group = "group = \"trio\"";
    let servers = [
        ("first", 60, in_group.to_owned()),
        ("second", 50, format!("{in_group}\n{need}")),
        ("third", 40, in_group.to_owned()),
        ("fourth", 30, String::new()),
    ];
    let server = |(name, priority, more)| {
        format!(
            "\n[[server]]\nname = \"{name}\"\nbinary = \"hello\"\npriority = {priority}\n\
             memory = \"512KiB\"\nheap = \"64KiB\"\nprovides = [\"hello\"]\n\
             privileges = [\"log\"]\nrestart = \"permanent\"\nintensity = 2\nbackoff_ms = 5\n\
             {more}\n"
        )
    };
    let tables: String = servers.into_iter().map(server).collect();
    Fixture::with_tables(shipped.arch(), name, &(groups.to_owned() + &tables))
}

/// The servers that were restarted or given up, as `ps` shows them: name, state, restarts.
fn restarted(ps: &str) -> Vec<(String, String, u32)> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, state) = (words.next()?.to_owned(), words.next()?.to_owned());
        let restarts = words.nth(1)?.parse().ok()?;
        Some((name, state, restarts))
    };
    let mut rows: Vec<_> = ps.lines().skip(1).filter_map(row).collect();
    rows.retain(|(_, state, restarts)| *restarts > 0 || state == "failed");
    rows.sort();
    rows
}

fn ran(names: &[&str], restarts: u32) -> Vec<(String, String, u32)> {
    names.iter().map(|name| ((*name).to_owned(), "running".to_owned(), restarts)).collect()
}

const STRATEGY: &str = "\n[[group]]\nname = \"trio\"\nstrategy = \"STRATEGY\"\n";

fn rest_for_one(shipped: &Fixture) -> Result<()> {
    let fixture = fixture(shipped, "rest-for-one", &STRATEGY.replace("STRATEGY", "rest_for_one"))?;
    let lines = ["kill first; sleep 0.1; ps", "crashes", "kill third; sleep 0.1; ps", "hello"];
    let said = fixture.exec(None, &lines)?;
    ensure!(restarted(&said[0].text) == ran(&["first", "second"], 1), "{}", said[0].text);
    let told = "second (incarnation 1): restarted with first's group";
    ensure!(said[1].text.contains(told), "{}", said[1].text);
    ensure!(restarted(&said[2].text) == ran(&["first", "second", "third"], 1), "{}", said[2].text);
    ensure!(said[3].text == "Hello, world!\n", "{:?}", said[3]);
    Ok(())
}

fn one_for_all(shipped: &Fixture) -> Result<()> {
    let fixture = fixture(shipped, "one-for-all", &STRATEGY.replace("STRATEGY", "one_for_all"))?;
    let said = fixture.exec(None, &["kill third; sleep 0.1; ps", "kill fourth; sleep 0.1; ps"])?;
    let trio = ran(&["first", "second", "third"], 1);
    ensure!(restarted(&said[0].text) == trio, "{}", said[0].text);
    let all = ran(&["first", "fourth", "second", "third"], 1);
    ensure!(restarted(&said[1].text) == all, "{}", said[1].text);
    Ok(())
}

fn escalation(shipped: &Fixture) -> Result<()> {
    let groups = "\n[[group]]\nname = \"top\"\nstrategy = \"one_for_all\"\nintensity = 1\n\
         \n[[group]]\nname = \"trio\"\nparent = \"top\"\nstrategy = \"one_for_one\"\nintensity = 0\n";
    let fixture = fixture(shipped, "escalation", groups)?;
    // Two deaths are its own, the third is the group's, which has none, and so its parent's.
    let kill = "kill first; sleep 0.1";
    let three = [kill, kill, kill, "ps"].join("; ");
    let lines = [three.as_str(), three.as_str(), "hello; ls /boot/server"];
    let said = fixture.exec(None, &lines)?;
    let mut expected = ran(&["first"], 3);
    expected.extend(ran(&["second", "third"], 1));
    ensure!(restarted(&said[0].text) == expected, "{}", said[0].text);
    let failed = restarted(&said[1].text);
    let state = |name: &str| failed.iter().find(|row| row.0 == name).map(|row| row.1.as_str());
    ensure!(
        ["first", "second", "third"].map(state) == [Some("failed"); 3] && failed.len() == 3,
        "{}",
        said[1].text
    );
    ensure!(said[2].status == 0 && said[2].text.starts_with("Hello, world!\n"), "{:?}", said[2]);
    Ok(())
}
