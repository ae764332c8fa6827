//! `kill`: a server dies, now or when something happens to it.

use alloc::string::String;

use libipc::control::Misbehaviour;
use skink_protocols::control::KillSpec;

use super::misused;
use crate::context::{Context, Outcome};
use crate::format as look;

/// How `kill` is called.
pub const KILL_USAGE: &str = "kill NAME [--at-request N] [--every N] [--times K] \
                              [--how kill|null|illegal|stack|memory|loop|panic]";

const WAYS: [(&str, Misbehaviour); 7] = [
    ("kill", Misbehaviour::Kill),
    ("null", Misbehaviour::NullDereference),
    ("illegal", Misbehaviour::IllegalInstruction),
    ("stack", Misbehaviour::StackOverflow),
    ("memory", Misbehaviour::ExhaustMemory),
    ("loop", Misbehaviour::Loop),
    ("panic", Misbehaviour::Panic),
];

/// The name and the specification that `kill`'s words give.
fn parse_kill(words: &[String]) -> Option<(&str, KillSpec)> {
    let mut name = None;
    let mut spec = KillSpec { at_request: 0, every: 0, times: 0, how: Misbehaviour::Kill };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--at-request" => spec.at_request = look::number(words.next()?)?,
            "--every" => spec.every = look::number(words.next()?).filter(|n| *n > 0)?,
            "--times" => {
                spec.times = look::number(words.next()?)?.try_into().ok().filter(|n| *n > 0)?;
            }
            "--how" => {
                let way = words.next()?;
                spec.how = WAYS.iter().find(|(name, _)| name == way)?.1;
            }
            word if word.starts_with('-') || name.is_some() => return None,
            word => name = Some(word),
        }
    }
    if spec.every > 0 && spec.at_request == 0 {
        // `--every N` alone: the first of them too is the N-th request from now.
        spec.at_request = spec.every;
    }
    if spec.every == 0 && spec.times > 1 {
        return None;
    }
    if spec.every == 0 {
        spec.times = 1;
    }
    Some((name?, spec))
}

pub fn kill(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let (name, spec) = parse_kill(words).ok_or_else(|| misused("kill"))?;
    context.sessions.control.kill(name, spec)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn kill_of(line: &str) -> Option<(String, KillSpec)> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse_kill(&words).map(|(name, spec)| (name.into(), spec))
    }

    #[test]
    fn kill_understands_its_options() {
        let spec = |at_request, every, times, how| KillSpec { at_request, every, times, how };
        let kill = Misbehaviour::Kill;
        assert_eq!(kill_of("fs"), Some(("fs".into(), spec(0, 0, 1, kill))));
        assert_eq!(kill_of("fs --at-request 5"), Some(("fs".into(), spec(5, 0, 1, kill))));
        assert_eq!(kill_of("--every 7 fs --times 3"), Some(("fs".into(), spec(7, 7, 3, kill))));
        assert_eq!(kill_of("fs --every 7"), Some(("fs".into(), spec(7, 7, 0, kill))));
        let looping = spec(0, 0, 1, Misbehaviour::Loop);
        assert_eq!(kill_of("fs --how loop"), Some(("fs".into(), looping)));
        for bad in [
            "",
            "fs hello",
            "fs --every",
            "fs --every 0",
            "fs --times 3",
            "fs --how nicely",
            "fs -x",
        ] {
            assert_eq!(kill_of(bad), None, "{bad}");
        }
    }
}
