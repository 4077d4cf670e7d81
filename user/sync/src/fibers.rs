//! Tests of user threads.

use alloc::sync::Arc;
use alloc::vec::Vec;

use perf::clock::Nanos;
use rt::fiber::{Handle, Pool};
use rt::sync::Mutex;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::time::{self, Deadline};

use super::Effort;

/// Fibers that yield and join each other keep what they had on their stacks.
pub(super) fn turns(effort: Effort) -> bool {
    let Ok(pool) = Pool::new(4) else { return false };
    let rounds = effort.rounds;
    let start = |number: u64| {
        pool.spawn(move |context| {
            let child = context.spawn(move |_| number * 2).ok();
            let mut words = [number; 16];
            for round in 0..rounds {
                context.yield_now();
                for word in &mut words {
                    *word = word.wrapping_mul(3).wrapping_add(round);
                }
            }
            let same = words.iter().all(|word| *word == words[0]);
            same && child.is_some_and(|child| child.join(context) == number * 2)
        })
        .ok()
    };
    let handles: Option<Vec<Handle<bool>>> = (0..u64::from(effort.threads)).map(start).collect();
    let finished = pool.finish().is_ok();
    finished && handles.is_some_and(|handles| handles.into_iter().all(|handle| handle.value() == Some(true)))
}

/// With one worker, a fiber that sleeps in the kernel does not keep another one from ending first.
pub(super) fn blocked(_: Effort) -> bool {
    let Ok(pool) = Pool::new(1) else { return false };
    let order = Arc::new(AtomicU64::new(1));
    let (first, second) = (Arc::clone(&order), order);
    let sleeper = pool.spawn(move |_| {
        time::sleep(Deadline::after(Nanos::from_millis(200)));
        // ORDER: SeqCst: a number for each, and speed does not matter.
        first.fetch_add(1, Ordering::SeqCst)
    });
    let other = pool.spawn(move |context| {
        (0..100).for_each(|_| context.yield_now());
        // ORDER: SeqCst, as above.
        second.fetch_add(1, Ordering::SeqCst)
    });
    let finished = pool.finish().is_ok();
    let value = |handle: rt::handle::Result<Handle<u64>>| handle.ok().and_then(Handle::value);
    finished && (value(other), value(sleeper)) == (Some(1), Some(2))
}

/// Many fibers that contend for a mutex and sleep now and then: nothing is lost, and all end.
pub(super) fn crowd(effort: Effort) -> bool {
    let Ok(pool) = Pool::new(3) else { return false };
    let shared = Arc::new(Mutex::new(0_u64));
    let rounds = effort.rounds.min(100);
    for number in 0..u64::from(effort.threads) {
        let shared = Arc::clone(&shared);
        let spawned = pool.spawn(move |context| {
            for round in 0..rounds {
                *shared.lock() += 1;
                if (round + number) % 16 == 0 {
                    time::sleep(Deadline::after(Nanos::new(50_000)));
                } else {
                    context.yield_now();
                }
            }
        });
        if spawned.is_err() {
            return false;
        }
    }
    pool.finish().is_ok() && *shared.lock() == u64::from(effort.threads) * rounds
}
