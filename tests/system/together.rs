//! Deaths that come together: two at once, one during another's recovery, a client's in the middle
//! of a call; and a server that dies at once at every start.

use anyhow::{Context, Result, ensure};
use skink_tests::{Died, Disk, Fixture, SHELL_DIED, noise};
use skink_tool::machine::Options;

use crate::Test;
use crate::disks::sha256;

pub const TESTS: &[Test] = &[
    Test { name: "TWO0001 two servers die at once, in both orders", run: at_once },
    Test { name: "TWO0002 a server dies while another one is restarted", run: during_recovery },
    Test {
        name: "TWO0003 a client dies in the middle of a call, before and after its server does",
        run: client,
    },
    Test {
        name: "LOOP0001 a server that dies at every start is given up, and starves nobody",
        run: crash_loop,
    },
    Test {
        name: "LOOP0002 a driver that dies at every start without a back-off starves nobody either",
        run: crash_loop_at_once,
    },
];

const SIZE: usize = 9 << 20;

/// Whether these servers were killed, in this order, each at a place that has these words.
fn were_killed(died: &[Died], expected: &[(&str, &str)]) -> bool {
    let is = |(died, (server, place)): (&Died, &(&str, &str))| {
        died.server == *server && died.told.starts_with("killed") && died.told.contains(place)
    };
    died.len() == expected.len() && died.iter().zip(expected).all(is)
}

/// Arms deaths, reads the whole file, and looks at the deaths and at what is free; `status` is how
/// the reading ends.
fn read_while(fixture: &Fixture, arm: &str, status: i32, expected: &[(&str, &str)]) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let read = "sha256 /disk/BIG.BIN";
    let armed = format!("{arm}; {read}");
    let lines = [read, "free", armed.as_str(), "crashes", read, "free"];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    let sum = format!("{}  /disk/BIG.BIN\n", sha256(&noise(42, SIZE))?);
    ensure!(said[2].status == status, "`{armed}`: {:?}", said[2]);
    ensure!(status != 0 || said[2].text == sum, "`{armed}`: {:?}", said[2]);
    let died = Died::all(&said[3].text);
    ensure!(were_killed(&died, expected), "`{arm}`: {died:?}, expected {expected:?}");
    ensure!(said[4].text == sum, "afterwards: {:?}", said[4]);
    ensure!(said[1].text == said[5].text, "{} and {}", said[1].text, said[5].text);
    Ok(())
}

fn at_once(fixture: &Fixture) -> Result<()> {
    // At one count of one server both die, the other one first.
    let both = |server: &str, other: &str, at: &str| {
        format!("kill {other} --when {server}:{at}; kill {server} --at {at}")
    };
    for (server, other, at) in [
        ("virtio-blk", "fs", "receive:5"),
        ("virtio-blk", "fs", "interrupt:2"),
        ("fs", "virtio-blk", "reply:3"),
        ("fs", "virtio-blk", "ring:9"),
    ] {
        let arm = both(server, other, at);
        let place = format!("at {server}:{}", at.split_once(':').context("a moment")?.0);
        read_while(fixture, &arm, 0, &[(other, &place), (server, &place)])?;
    }
    Ok(())
}

fn during_recovery(fixture: &Fixture) -> Result<()> {
    for (first, second) in [("virtio-blk", "fs"), ("fs", "virtio-blk"), ("pci", "virtio-blk")] {
        let arm = format!("kill {second} --when {first}:start:1; kill {first}");
        let place = format!("at {first}:start:2");
        read_while(fixture, &arm, 0, &[(first, ""), (second, &place)])?;
    }
    // The new instance of the dead one dies as well.
    let arm = "kill fs --at start:1; kill fs; kill virtio-blk --at start:1; kill virtio-blk";
    let expected = [("fs", ""), ("fs", "start"), ("virtio-blk", ""), ("virtio-blk", "start")];
    let disk = Disk::with_noise(SIZE)?;
    let lines = ["ls /disk", arm, "sha256 /disk/BIG.BIN", "crashes"];
    let said = fixture.exec(Some(disk.path()), &lines)?;
    ensure!(said[2].text.starts_with(&sha256(&noise(42, SIZE))?), "{:?}", said[2]);
    let mut died = Died::all(&said[3].text);
    died.sort_by_key(|died| (died.server.clone(), died.told.clone()));
    ensure!(were_killed(&died, &expected), "{died:?}");
    Ok(())
}

fn client(fixture: &Fixture) -> Result<()> {
    // The server has the client's request when the client dies; then it goes on.
    let arm = "kill shell --when fs:receive:4";
    read_while(fixture, arm, SHELL_DIED, &[("shell", "at fs:receive")])?;
    // The client first, then the server that serves it.
    let arm = "kill shell --when fs:receive:4; kill fs --at receive:4";
    read_while(fixture, arm, SHELL_DIED, &[("shell", "at fs:receive"), ("fs", "at fs:receive")])?;
    // The server first; the client while it waits for the successor.
    let arm = "kill shell --when fs:start:1; kill fs --at receive:4";
    read_while(fixture, arm, SHELL_DIED, &[("fs", "at fs:receive"), ("shell", "at fs:start")])?;
    // The client of the driver, with DMA into its buffers under way.
    let arm = "kill fs --when virtio-blk:receive:9";
    read_while(fixture, arm, 0, &[("fs", "at virtio-blk:receive")])
}

/// Seconds that `time` printed.
fn seconds(text: &str) -> Result<f64> {
    let line = text.lines().last().context("nothing was printed")?;
    Ok(line.trim_end_matches(" s").parse()?)
}

/// The driver, which waits for no back-off: it may die a hundred times in a row.
fn crash_loop_at_once(fixture: &Fixture) -> Result<()> {
    let disk = Disk::with_noise(SIZE)?;
    let options = Options { icount: true, disk: Some(disk.path().into()), ..Options::default() };
    let work = "time repeat 1000000 true";
    let while_it_dies =
        format!("kill virtio-blk --at start:1 --every 1; restart virtio-blk; {work}");
    // Its starts are spread out meanwhile: the last ones may come behind the work.
    let service = "sleep 2; service virtio-blk";
    // A machine whose disk has lost its driver ends with a failed sync: it gets the driver back.
    let back = "restart virtio-blk; sleep 0.2; sync";
    let lines = [work, &while_it_dies, service, "time cat /disk/BIG.BIN", "hello", back];
    let said = fixture.exec_with(&options, &lines)?;
    let (calm, beside) = (seconds(&said[0].text)?, seconds(&said[1].text)?);
    ensure!(beside <= calm * 1.10, "{calm} s of work took {beside} s");
    ensure!(said[2].text.starts_with("virtio-blk: failed (died too often)"), "{}", said[2].text);
    // One by `restart`, a hundred that are tolerated, and the last.
    ensure!(said[2].text.contains("incarnation  102, "), "{}", said[2].text);
    let later = seconds(&said[3].text)?;
    ensure!(said[3].status == 1 && later < 0.01, "told after {later} s: {:?}", said[3]);
    ensure!(said[4].text == "Hello, world!\n", "{:?}", said[4]);
    ensure!(said[5].status == 0, "{:?}", said[5]);
    Ok(())
}

fn crash_loop(fixture: &Fixture) -> Result<()> {
    let options = Options { icount: true, ..Options::default() };
    let work = "time repeat 100000 true";
    let while_it_dies = format!("kill hello --at start:1 --every 1; restart hello; {work}");
    let lines = [work, &while_it_dies, "time hello", "time hello", "crashes 40", "service hello"];
    let said = fixture.exec_with(&options, &lines)?;
    // The shell stands below `hello`; its work takes as long as its share of instructions says.
    let (calm, beside) = (seconds(&said[0].text)?, seconds(&said[1].text)?);
    ensure!(beside <= calm * 1.10, "{calm} s of work took {beside} s");
    // Whoever waits for it is told when it is given up, and later callers at once.
    let told = |text: &str| text.contains("hello: the service is not running");
    ensure!(told(&said[2].text) && told(&said[3].text), "{said:?}");
    let (wait, later) = (seconds(&said[2].text)?, seconds(&said[3].text)?);
    ensure!(wait < 10.0, "given up after {wait} s, its period is 10 s");
    ensure!(later < 0.002, "told after {later} s");
    // One by `restart`, ten that are tolerated, and the last.
    ensure!(Died::all(&said[4].text).len() == 12, "{}", said[4].text);
    ensure!(said[5].text.starts_with("hello: failed (died too often)"), "{}", said[5].text);
    Ok(())
}
