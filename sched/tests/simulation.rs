//! What threads get of a core, in simulated time: shares, response, deadlines, budgets, and interrupts that are not needed.
//! A tick is a microsecond.

mod common;
mod world;

use abi::error::Error;
use abi::task::SchedSpec;
use common::Ref;
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};
use sched::{Decision, NEVER, Ready, Tunables};
use world::{Habit, World};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

fn world() -> World {
    World::new(Tunables::at(MS))
}

fn deadline(budget: u64, deadline: u64, period: u64) -> SchedSpec {
    SchedSpec { class: SchedSpec::DEADLINE, priority: 0, budget, period, deadline }
}

fn real_time(priority: u64, budget: u64, period: u64) -> SchedSpec {
    SchedSpec { class: SchedSpec::REAL_TIME, priority, budget, period, deadline: 0 }
}

/// Equal hogs get shares that differ by 5 % at most, over any second.
///
/// Planted: turns that do not get shorter with more threads, turns that never end.
#[test]
fn equal_hogs_get_equal_shares() {
    for hogs in 2..=16_u64 {
        let mut world = world();
        for _ in 0..hogs {
            world.add(Habit::Hog, 0);
        }
        // Windows that begin anywhere: on a boost, beside one, and far from one.
        for start in [0, 137 * MS, 999 * MS, 1500 * MS] {
            world.run(world.now + start);
            let before: Vec<u64> = world.lives.iter().map(|life| life.ran).collect();
            world.run(world.now + SECOND);
            let fair = SECOND / hogs;
            for (life, before) in world.lives.iter().zip(before) {
                let off = (life.ran - before).abs_diff(fair);
                assert!(
                    off * 100 <= fair * 5,
                    "{hogs} hogs, from {start}: {} instead of {fair}",
                    life.ran - before
                );
            }
        }
    }
}

/// Beside eight hogs, a thread that needs a hundredth of the core runs at once, but for a boost, after which each of the hogs has a first
/// quantum before it: 8 ms at most. So does one that computed for long before it became interactive.
///
/// Planted: threads that do not sink.
#[test]
fn interactive_threads_do_not_wait_for_hogs() {
    for busy_before in [200, 300 * MS] {
        let mut world = world();
        for _ in 0..8 {
            world.add(Habit::Hog, 0);
        }
        let thread = world.add(Habit::Periodic { work: busy_before, every: 20 * MS }, 3 * MS);
        world.run(4 * SECOND);
        world.lives[thread.id()].habit = Habit::Periodic { work: 200, every: 20 * MS };
        world.run(8 * SECOND);
        let life = &mut world.lives[thread.id()];
        (life.worst_wait, life.worst_response) = (0, 0);
        let released = life.released;
        world.run(20 * SECOND);
        let life = &world.lives[thread.id()];
        assert!(life.released - released >= 599, "{}", life.released);
        assert!(life.worst_wait <= 8 * MS, "waited {}", life.worst_wait);
    }
}

/// Giving the core up just before the end of the quantum gains nothing over a hog.
///
/// Planted: a full quantum after each wait.
#[test]
fn no_habit_gains_more_than_a_share() {
    for habit in [
        Habit::Dodger { work: 900, rest: 20 },
        Habit::Dodger { work: 4 * MS, rest: 1 },
        Habit::Yielder { work: 900 },
    ] {
        let mut world = world();
        let gamer = world.add(habit, 0);
        for _ in 0..4 {
            world.add(Habit::Hog, 0);
        }
        world.run(10 * SECOND);
        let fair = 2 * SECOND;
        let ran = world.lives[gamer.id()].ran;
        assert!(ran * 100 <= fair * 105, "{habit:?} ran {ran}, fair are {fair}");
    }
}

/// Threads that stay at the first level and need more than the whole core leave a hog its quantum after each boost.
#[test]
fn boosts_keep_a_hog_from_starving() {
    let mut world = world();
    let hog = world.add(Habit::Hog, 0);
    for dodger in 0..12 {
        world.add(Habit::Dodger { work: MS, rest: 10 * MS }, dodger * MS);
    }
    world.run(5 * SECOND);
    let before = world.lives[hog.id()].ran;
    world.run(15 * SECOND);
    let ran = world.lives[hog.id()].ran - before;
    assert!(ran >= 9 * MS, "{ran}");
}

/// With others waiting, the timer is asked for the boost too.
///
/// Planted: `feedback_event` without the boost.
#[test]
fn boosts_are_events() {
    let tunables =
        Tunables { quanta: [10_000; 5], boost: 700, rotation: 100_000, promise: 0, least_budget: 1 };
    let core = World::new(tunables).core;
    for id in 0..2 {
        let _ = core.ready(Ref::new(id), 0, Ready::New);
    }
    assert!(core.pick(0).is_some());
    assert_eq!(core.tick(0), Decision::Keep);
    assert_eq!(core.next_event(), 700);
}

/// One thread alone, whatever its class without budget, takes no interrupts; nor do threads that take no turns.
///
/// Planted: `feedback_event` for a thread alone; `at_least_until` with the first quantum for every class.
#[test]
fn nothing_timed_means_no_interrupts() {
    let mut world = world();
    world.add(Habit::Hog, 0);
    world.run(100 * SECOND);
    assert_eq!((world.interrupts, world.core.next_event()), (1, NEVER));

    let mut world = self::world();
    for _ in 0..2 {
        let thread = world.add(Habit::Hog, 0);
        assert!(world.core.configure(thread, &real_time(100, 0, 0), 0).is_ok());
    }
    world.add(Habit::Hog, 0);
    world.run(100 * SECOND);
    assert_eq!((world.interrupts, world.core.next_event()), (1, NEVER));
    assert_eq!(world.core.at_least_until(world.now), NEVER);
    assert_eq!(world.core.load(), 3);
}

/// Two hogs are interrupted for their turns and at boosts, and no more often than that.
#[test]
fn turns_of_two_hogs_are_long() {
    let mut world = world();
    world.add(Habit::Hog, 0);
    world.add(Habit::Hog, 0);
    world.run(100 * SECOND);
    assert!(world.interrupts < 100 * (25 + 12), "{}", world.interrupts);
}

/// A thread never gets more than its budget in a period, nor less if it wants it and is the most urgent.
///
/// Planted: `requeue` without throttling, `next_event` without the budget.
#[test]
fn budgets_are_kept() {
    for spec in [
        real_time(200, 2 * MS, 10 * MS),
        deadline(2 * MS, 10 * MS, 10 * MS),
        deadline(2 * MS, 4 * MS, 10 * MS),
    ] {
        let mut world = world();
        let thread = world.add(Habit::Hog, 0);
        assert!(world.core.configure(thread, &spec, 0).is_ok());
        let other = world.add(Habit::Hog, 0);
        for period in 1..=1000 {
            world.run(period * 10 * MS);
            assert_eq!(world.lives[thread.id()].ran, period * 2 * MS, "{spec:?}");
            assert_eq!(world.lives[other.id()].ran, period * 8 * MS, "{spec:?}");
        }
    }
}

/// Periods that end before the work does are told at its end.
#[test]
fn a_period_that_was_overrun_is_counted() {
    let mut world = world();
    let thread = world.add(Habit::Periodic { work: 5 * MS, every: 10 * MS }, 0);
    assert!(world.core.configure(thread, &real_time(200, 2 * MS, 10 * MS), 0).is_ok());
    world.run(300 * MS - 1);
    let life = &world.lives[thread.id()];
    // 5 ms of work take three budgets of 2 ms: two periods end before the work does.
    assert_eq!((life.released, life.missed), (10, 20), "{}", life.ran);
}

/// What a thread with a deadline does in a random set.
fn member() -> impl Strategy<Value = (SchedSpec, Habit, u64)> {
    let shape = (2..=50_u64, 1..=60_u64, 30..=100_u64, 0..3_u8, 1..=100_u64, 0..50 * MS);
    shape.prop_map(|(period, share, urgency, kind, part, start)| {
        let period = period * 977;
        let budget = (period * share / 100).max(10);
        let deadline = (period * urgency / 100).max(budget);
        let habit = match kind {
            0 => Habit::Hog,
            1 => Habit::Dodger { work: (budget * part / 100).max(1), rest: (period * part / 300).max(1) },
            _ => Habit::Periodic { work: budget, every: period },
        };
        (self::deadline(budget, deadline, period), habit, start)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Of an admitted set no well-behaved thread misses a deadline, whatever the others do; what is refused would go beyond the bound.
    ///
    /// Planted: no postponement, postponement without the renewal, density by period, no bound, the later deadline first.
    #[test]
    fn admitted_deadlines_are_met(members in collection::vec(member(), 1..12)) {
        let mut world = world();
        world.add(Habit::Hog, 0);
        let mut admitted = Vec::new();
        let mut density = 0.0;
        for (spec, habit, start) in members {
            let own = spec.budget as f64 / spec.deadline as f64;
            let thread = world.add(habit, start);
            match world.core.configure(thread, &spec, 0) {
                Ok(_) => {
                    density += own;
                    admitted.push((thread, spec));
                }
                Err(error) => {
                    prop_assert_eq!(error, Error::NotAdmitted);
                    prop_assert!(density + own > 0.95 - 1e-6, "{} and {} refused", density, own);
                    world.lives[thread.id()].habit = Habit::Hog;
                }
            }
            prop_assert!(density < 0.95 + 1e-9);
            prop_assert!((world.core.promised() as f64 - density * 1e6).abs() < 2.0);
        }
        world.run(3 * SECOND);
        for (thread, spec) in admitted {
            let life = &world.lives[thread.id()];
            if matches!(life.habit, Habit::Periodic { .. }) {
                prop_assert!(life.worst_response <= spec.deadline, "{:?} took {}", spec, life.worst_response);
                prop_assert_eq!(life.missed, 0);
                prop_assert!(life.released >= (3 * SECOND - 50 * MS) / spec.period, "{}", life.released);
            }
            prop_assert!(life.ran <= (3 * SECOND / spec.period + 1) * spec.budget, "{:?} ran {}", spec, life.ran);
        }
    }
}

/// Promises are counted until the last deadline that was made under them.
///
/// Planted: promises that end when they are given back.
#[test]
fn what_was_used_already_is_not_promised_again() {
    let core = World::new(Tunables::at(MS)).core;
    let (a, b) = (Ref::new(0), Ref::new(1));
    assert!(core.configure(a, &deadline(60 * MS, 100 * MS, 100 * MS), 0).is_ok());
    assert!(core.configure(b, &deadline(60 * MS, 100 * MS, 100 * MS), 0).is_err());
    core.leave(a);
    assert_eq!(core.promised(), 0);
    assert_eq!(core.arrive(a, 99 * MS), Err(Error::NotAdmitted));
    assert!(core.configure(b, &deadline(60 * MS, 100 * MS, 100 * MS), 99 * MS).is_err());
    assert!(core.configure(b, &deadline(30 * MS, 100 * MS, 100 * MS), 99 * MS).is_ok());
    assert!(core.configure(b, &deadline(60 * MS, 100 * MS, 100 * MS), 100 * MS).is_ok());
    assert_eq!(core.arrive(a, 100 * MS), Err(Error::NotAdmitted));
}

/// Specs that make no sense are refused, and change nothing.
///
/// Planted: budgets beyond the period.
#[test]
fn senseless_specs_are_refused() {
    let core = World::new(Tunables::at(MS)).core;
    let thread = Ref::new(0);
    let good = deadline(MS, 2 * MS, 3 * MS);
    for bad in [
        SchedSpec { class: 3, ..SchedSpec::default() },
        SchedSpec { class: u64::MAX, ..SchedSpec::default() },
        SchedSpec { priority: 1, ..SchedSpec::default() },
        SchedSpec { budget: MS, period: MS, ..SchedSpec::default() },
        real_time(63, 0, 0),
        real_time(256, 0, 0),
        real_time(u64::MAX, 0, 0),
        real_time(64, 1, 0),
        real_time(64, 0, 1),
        real_time(64, 9, MS),
        real_time(64, 2 * MS, MS),
        SchedSpec { deadline: MS, ..real_time(64, MS, MS) },
        SchedSpec { priority: 64, ..good },
        SchedSpec { budget: 0, ..good },
        SchedSpec { deadline: 0, ..good },
        SchedSpec { deadline: 4 * MS, ..good },
        SchedSpec { budget: 2 * MS + 1, ..good },
        SchedSpec { period: 0, ..good },
        SchedSpec { period: MS - 1, ..good },
    ] {
        assert_eq!(core.configure(thread, &bad, 0), Err(Error::BadArgument), "{bad:?}");
    }
    for largest in
        [deadline(MS, u64::MAX, u64::MAX), real_time(64, u64::MAX, u64::MAX), real_time(255, MS, u64::MAX)]
    {
        assert!(core.configure(thread, &largest, u64::MAX - 1).is_ok(), "{largest:?}");
    }
    assert_eq!(core.configure(thread, &deadline(u64::MAX, u64::MAX, u64::MAX), 0), Err(Error::NotAdmitted));
}
