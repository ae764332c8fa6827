//! Sequences of calls with deaths in them.

use super::super::model::{cases, round};
use super::world::{Client, PATHS, Step, World};
use super::{set_life, steps};
use proptest::prelude::*;
use skink_protocols::file::Create;

/// Each kind of call, with what makes each hard: replacing, growing with and without a first
/// cluster, shrinking to nothing and to something, long names, a directory that grows or moves.
fn all_kinds() -> Vec<Step> {
    let write = |file, position, len, seed| Step::Write { file, position, len, seed };
    vec![
        Step::MakeDirectory { path: 1 },
        Step::Open { path: 0, create: Create::IfMissing },
        write(0, 0, 9000, 1),
        write(0, 100, 3000, 2),
        Step::Sync,
        write(0, 512, 1024, 3),
        write(0, 8500, 2000, 4),
        Step::Open { path: 2, create: Create::Truncate },
        write(1, 0, 32_000, 5),
        write(1, 31_000, 20_000, 6),
        Step::Truncate { file: 1, size: 1500 },
        Step::Truncate { file: 1, size: 7000 },
        Step::MakeDirectory { path: 4 },
        Step::Open { path: 5, create: Create::IfMissing },
        write(2, 0, 700, 7),
        Step::Rename { from: 1, to: 6 },
        Step::Open { path: 9, create: Create::IfMissing },
        Step::Close { file: 3 },
        Step::Rename { from: 9, to: 8 },
        Step::Remove { path: 8 },
        Step::Sync,
        write(2, 700, 30_000, 8),
        Step::Truncate { file: 0, size: 0 },
        Step::Close { file: 0 },
        Step::Open { path: 0, create: Create::Truncate },
        Step::Close { file: 2 },
        Step::Remove { path: 0 },
        Step::Rename { from: 0, to: 8 },
    ]
}

/// Work of a step, from one piece at a time to no bound.
const STEP_WORKS: [u64; 6] = [u64::MAX, 1, 2, 20, 100, 500];

/// Runs a sequence in which the server dies at its `n`-th step.
fn run(sequence: &[Step], n: u64, client: Client) -> u32 {
    let mut world = World::new(n);
    // Some servers do little in a step, as if the disk held much.
    world.set_step_work(STEP_WORKS[n as usize % STEP_WORKS.len()]);
    set_life(n);
    for step in sequence {
        world.call(step, client);
    }
    let deaths = world.deaths;
    world.finish();
    deaths
}

#[test]
fn calls_in_steps_are_answered_as_in_one_go() {
    for n in 0..STEP_WORKS.len() as u64 {
        let mut world = World::new(7);
        world.set_step_work(STEP_WORKS[n as usize]);
        for step in all_kinds() {
            world.call(&step, Client::CallsAgain);
        }
        world.restart();
        world.finish();
    }
}

#[test]
fn a_death_at_any_step_is_not_seen() {
    let start = steps();
    assert_eq!(run(&all_kinds(), u64::MAX, Client::CallsAgain), 0);
    let total = steps() - start;
    let every = if std::env::var_os("SKINK_EVERY_STEP").is_some() { 1 } else { 13 };
    let mut deaths = 0;
    for n in (0..total).step_by(every) {
        let client = if n % 2 == 0 { Client::CallsAgain } else { Client::DiesToo };
        deaths += run(&all_kinds(), n, client);
    }
    println!("{deaths} deaths in {total} steps");
    assert!(u64::from(deaths) * every as u64 > total / 2, "{deaths} deaths in {total} steps");
}

fn client() -> impl Strategy<Value = Client> {
    prop_oneof![4 => Just(Client::CallsAgain), 1 => Just(Client::DiesToo)]
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let create = prop::sample::select(vec![Create::Never, Create::IfMissing, Create::Truncate]);
    prop_oneof![
        4 => (path(), create).prop_map(|(path, create)| Step::Open { path, create }),
        1 => (0usize..6).prop_map(|file| Step::Close { file }),
        6 => (0usize..6, round(30_000), round(32_000), any::<u64>()).prop_map(
            |(file, position, len, seed)| Step::Write { file, position, len: len + 1, seed }
        ),
        2 => (0usize..6, round(50_000)).prop_map(|(file, size)| Step::Truncate { file, size }),
        3 => path().prop_map(|path| Step::MakeDirectory { path }),
        3 => path().prop_map(|path| Step::Remove { path }),
        3 => (path(), path()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_calls_over_random_deaths_are_those_of_the_model(
        sequence in prop::collection::vec((step(), 0u64..600, client()), 1..60),
        seed in any::<u64>(),
        work in prop::sample::select(&STEP_WORKS[..]),
    ) {
        let mut world = World::new(seed);
        world.set_step_work(work);
        for (step, life, client) in &sequence {
            // Some calls meet a death, some a death of the successor too.
            set_life(*life);
            world.call(step, *client);
        }
        world.check_handles();
        world.restart();
        world.finish();
    }
}
