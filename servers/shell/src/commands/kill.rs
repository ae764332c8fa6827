//! `kill`: a server dies, now or when something happens. `moments`: what is counted for it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::control::Misbehaviour;
use libipc::trigger::Moment;
use skink_protocols::control::{At, KillSpec, When};

use super::misused;
use crate::context::{Context, Outcome};
use crate::format as look;

/// How `kill` is called.
pub const KILL_USAGE: &str = "kill NAME [--at MOMENT:N | --when SERVER:MOMENT:N | --disarm] \
     [--every N] [--times K] [--how HOW] (MOMENT: receive, reply, notification, ring, interrupt, \
     start; HOW: kill, null, illegal, stack, memory, loop, panic, exit, hang, caps, device; \
     --at-request N is --at receive:N)";

/// `MOMENT:N`.
fn parse_at(word: &str) -> Option<At> {
    let (moment, number) = word.split_once(':')?;
    let number = look::number(number).filter(|n| *n > 0)?;
    Some(At { moment: Moment::named(moment)?, number })
}

/// `SERVER:MOMENT:N`.
fn parse_when(word: &str) -> Option<When> {
    let (server, at) = word.split_once(':')?;
    Some(When::Other(server.try_into().ok()?, parse_at(at)?))
}

/// The name and the specification that `kill`'s words give.
fn parse_kill(words: &[String]) -> Option<(&str, KillSpec)> {
    let mut name = None;
    let mut when = None;
    let (mut every, mut times, mut how) = (0, 0, Misbehaviour::Kill);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--at-request" => {
                let number = look::number(words.next()?).filter(|n| *n > 0)?;
                When::Own(At { moment: Moment::Receive, number })
            }
            "--at" => When::Own(parse_at(words.next()?)?),
            "--when" => parse_when(words.next()?)?,
            "--disarm" => When::Never,
            "--every" => {
                every = look::number(words.next()?).filter(|n| *n > 0)?;
                continue;
            }
            "--times" => {
                times = look::number(words.next()?)?.try_into().ok().filter(|n| *n > 0)?;
                continue;
            }
            "--how" => {
                how = Misbehaviour::named(words.next()?)?;
                continue;
            }
            word if word.starts_with('-') || name.is_some() => return None,
            word => {
                name = Some(word);
                continue;
            }
        };
        if when.replace(place).is_some() {
            return None;
        }
    }
    // `--every N` alone: the first of them too is the N-th request from now.
    let first = At { moment: Moment::Receive, number: every };
    let when = when.unwrap_or(if every > 0 { When::Own(first) } else { When::Now });
    if every == 0 && times > 1 || every > 0 && when == When::Never {
        return None;
    }
    let times = if every == 0 { 1 } else { times };
    Some((name?, KillSpec { when, every, times, how }))
}

pub fn kill(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (name, spec) = parse_kill(words).ok_or_else(|| misused("kill"))?;
    context.sessions.control.kill(name, spec)?;
    if name == libipc::startup::name() {
        // The shell's first thread waits for keys, not for signals.
        libipc::accounting::obey_now();
    }
    Ok(())
}

/// The counts of each server's moments, since boot.
pub fn moments(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let names = Moment::NAMED.map(|(name, _)| name.to_uppercase());
    let mut rows = Vec::from([core::iter::once("NAME".to_string()).chain(names).collect()]);
    for index in 0.. {
        let Some(status) = context.sessions.control.status(index)? else {
            break;
        };
        if words.is_empty() || words.iter().any(|word| *word == status.name.as_str()) {
            let counts = status.moments.iter().map(ToString::to_string);
            rows.push(core::iter::once(status.name.to_string()).chain(counts).collect());
        }
    }
    context.out.write(look::table(&rows, &[1, 2, 3, 4, 5, 6]).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill_of(line: &str) -> Option<(String, KillSpec)> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse_kill(&words).map(|(name, spec)| (name.into(), spec))
    }

    fn own(moment: Moment, number: u64) -> When {
        When::Own(At { moment, number })
    }

    #[test]
    fn kill_understands_its_options() {
        let spec = |when, every, times, how| {
            Some((String::from("fs"), KillSpec { when, every, times, how }))
        };
        let kill = Misbehaviour::Kill;
        assert_eq!(kill_of("fs"), spec(When::Now, 0, 1, kill));
        let receive = |number| own(Moment::Receive, number);
        assert_eq!(kill_of("fs --at-request 5"), spec(receive(5), 0, 1, kill));
        assert_eq!(kill_of("--every 7 fs --times 3"), spec(receive(7), 7, 3, kill));
        assert_eq!(kill_of("fs --every 7"), spec(receive(7), 7, 0, kill));
        assert_eq!(kill_of("fs --how loop"), spec(When::Now, 0, 1, Misbehaviour::Loop));
        assert_eq!(kill_of("fs --at ring:12"), spec(own(Moment::Ring, 12), 0, 1, kill));
        assert_eq!(kill_of("fs --disarm"), spec(When::Never, 0, 1, kill));
        let when =
            When::Other("virtio-blk".try_into().unwrap(), At { moment: Moment::Start, number: 1 });
        assert_eq!(
            kill_of("fs --when virtio-blk:start:1 --how exit"),
            spec(when, 0, 1, Misbehaviour::Exit)
        );
    }

    #[test]
    fn kill_refuses_what_makes_no_sense() {
        for bad in [
            "",
            "fs hello",
            "fs --every",
            "fs --every 0",
            "fs --times 3",
            "fs --how nicely",
            "fs -x",
            "fs --at",
            "fs --at ring",
            "fs --at ring:0",
            "fs --at dinner:1",
            "fs --when ring:1",
            "fs --at ring:1 --when hello:ring:1",
            "fs --at-request 0",
            "fs --disarm --every 2",
        ] {
            assert_eq!(kill_of(bad), None, "{bad}");
        }
    }
}
