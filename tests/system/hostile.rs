//! A server and its client that mean harm, in the manifest as any others.

use anyhow::{Result, ensure};
use skink_tests::Fixture;
use skink_tool::machine::Options;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "POISON0001 a request that kills its servers ends with an error, is not the servers' death, \
               and who goes on with it loses the session",
        run: poison,
    },
    Test {
        name: "LEND0001 what a server passed on before it died leads nowhere, and its successor serves",
        run: passed_on,
    },
];

/// A server that may die twice in ten seconds, and a client whose six requests each kill it.
fn heard(shipped: &Fixture, name: &str) -> Result<(Vec<skink_tests::Said>, String)> {
    let server = |name: &str, args: &str, more: &str| {
        format!(
            "\n[[server]]\nname = \"{name}\"\nbinary = \"probe\"\nargs = \"{args}\"\n\
             memory = \"512KiB\"\nheap = \"64KiB\"\nprivileges = [\"log\"]\n{more}\n"
        )
    };
    let mortal = "priority = 60\nprovides = [\"hello\"]\nrestart = \"permanent\"\nintensity = 2\n";
    let caller = "priority = 50\nrestart = \"temporary\"\n\
         needs = [{ name = \"x\", server = \"mortal\", protocol = \"hello\" }]\n";
    let tables = server("mortal", "serves", mortal) + &server("caller", "calls x", caller);
    let fixture = Fixture::with_tables(shipped.arch(), name, &tables)?;
    let lines = ["sleep 2; crashes 40", "service mortal", "hello"];
    fixture.exec_heard(&Options::default(), &lines)
}

fn poison(shipped: &Fixture) -> Result<()> {
    let (said, console) = heard(shipped, "poison")?;
    for number in 1..=2 {
        let told = format!("death {number}: hello: the server died three times with this request");
        ensure!(console.contains(&told), "{told}: {console}");
    }
    let closed = "root: caller: its requests go on killing mortal: its session is closed";
    ensure!(console.matches(closed).count() == 1, "{console}");
    for name in ["death 3", "death 6", "life after death"] {
        let told = format!("{name}: hello: the service is not running");
        ensure!(console.contains(&told), "{told}: {console}");
    }
    let crashes = &said[0].text;
    for death in ["death 1)", "death 2)", "death 3: it is not sent again)"] {
        let told = format!("(during caller's hello.greet, {death}");
        ensure!(crashes.matches(&told).count() == 2, "two of `{told}`: {crashes}");
    }
    ensure!(said[1].text.starts_with("mortal: running"), "{}", said[1].text);
    ensure!(said[1].text.contains("incarnation  7, 6 restarts"), "{}", said[1].text);
    ensure!(said[1].text.contains("0 of 2 deaths in"), "{}", said[1].text);
    ensure!(console.contains("life greets as life"), "{console}");
    ensure!(said[2].text == "Hello, world!\n", "{:?}", said[2]);
    Ok(())
}

fn passed_on(shipped: &Fixture) -> Result<()> {
    let (_, console) = heard(shipped, "passed-on")?;
    ensure!(console.contains("caller: takes "), "{console}");
    let gone = "what was taken is gone: [true, true, true, true]";
    ensure!(console.contains(gone), "{console}");
    ensure!(console.contains("life greets as life"), "{console}");
    Ok(())
}
