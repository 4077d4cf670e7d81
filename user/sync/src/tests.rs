//! The tests.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use perf::clock::Nanos;
use rt::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::sync::{Barrier, Condvar, Kernel, Mutex, Semaphore, Waited};
use rt::thread::{self, JoinHandle};
use rt::time::{self, Deadline};

use super::{Effort, Test, fibers};

pub(super) const TESTS: &[(&str, Test)] = &[
    ("threads", threads),
    ("mutex", mutex),
    ("condvar", condvar),
    ("notify-all", notify_all),
    ("semaphore", semaphore),
    ("barrier", barrier),
    ("deadlines", deadlines),
    ("heap", heap),
    ("fibers", fibers::turns),
    ("fiber-blocks", fibers::blocked),
    ("fiber-crowd", fibers::crowd),
];

/// Starts threads that all do the same; gives what they return.
fn all<T: Send + 'static, W>(effort: Effort, work: W) -> Option<Vec<T>>
where
    W: Fn(u32) -> T + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let start = |number| {
        let work = Arc::clone(&work);
        thread::spawn(move || work(number)).ok()
    };
    let handles: Option<Vec<JoinHandle<T>>> = (0..effort.threads).map(start).collect();
    handles?.into_iter().map(|handle| handle.join().ok()).collect()
}

/// Every thread runs once and leaves its own value.
fn threads(effort: Effort) -> bool {
    all(effort, |number| number).is_some_and(|numbers| numbers.into_iter().eq(0..effort.threads))
}

/// Two words that only a holder sees different.
fn mutex(effort: Effort) -> bool {
    let shared = Arc::new(Mutex::new((0_u64, 0_u64)));
    let other = Arc::clone(&shared);
    let clean = all(effort, move |_| {
        (0..effort.rounds).all(|round| {
            let mut guard = other.lock();
            let same = guard.0 == guard.1;
            guard.0 += 1;
            // Gives the others a chance to see it half done.
            if round % 64 == 0 {
                thread::yield_now();
            }
            guard.1 += 1;
            same
        })
    });
    let total = u64::from(effort.threads) * effort.rounds;
    clean.is_some_and(|clean| clean.into_iter().all(|same| same)) && *shared.lock() == (total, total)
}

/// A queue with room for few, and two condition variables.
struct Queue {
    items: Mutex<VecDeque<u64>, Kernel>,
    filled: Condvar<Kernel>,
    emptied: Condvar<Kernel>,
}

const ROOM: usize = 4;

impl Queue {
    fn put(&self, item: u64) {
        let mut items = self.items.lock();
        while items.len() == ROOM {
            items = self.emptied.wait(items);
        }
        items.push_back(item);
        self.filled.notify_one();
    }

    fn take(&self) -> u64 {
        let mut items = self.items.lock();
        loop {
            if let Some(item) = items.pop_front() {
                self.emptied.notify_one();
                return item;
            }
            items = self.filled.wait(items);
        }
    }
}

/// What half of the threads put into a queue the other half take out.
fn condvar(effort: Effort) -> bool {
    let queue = Queue { items: Mutex::new(VecDeque::new()), filled: Condvar::new(), emptied: Condvar::new() };
    let effort = Effort { threads: effort.threads & !1, ..effort };
    let sums = all(effort, move |number| {
        if number % 2 == 0 {
            (1..=effort.rounds).for_each(|item| queue.put(item));
            0
        } else {
            (0..effort.rounds).map(|_| queue.take()).sum::<u64>()
        }
    });
    let each = effort.rounds * (effort.rounds + 1) / 2;
    sums.is_some_and(|sums| sums.into_iter().sum::<u64>() == each * u64::from(effort.threads / 2))
}

/// Rounds that begin for all at once: the last one to come tells the others.
fn notify_all(effort: Effort) -> bool {
    let shared = Arc::new((Mutex::new((0_u32, 0_u64)), Condvar::new()));
    let rounds = effort.rounds.min(500);
    let other = Arc::clone(&shared);
    let done = all(effort, move |_| {
        let (mutex, changed) = &*other;
        for round in 0..rounds {
            let mut guard = mutex.lock();
            guard.0 += 1;
            if guard.0 == effort.threads {
                *guard = (0, round + 1);
                changed.notify_all();
            }
            while guard.1 <= round {
                guard = changed.wait(guard);
            }
        }
    });
    done.is_some() && *shared.0.lock() == (0, rounds)
}

/// Never more inside than there are permits, and all permits are there afterwards.
fn semaphore(effort: Effort) -> bool {
    const PERMITS: u16 = 3;
    let shared = Arc::new((Semaphore::new(PERMITS), AtomicU32::new(0), AtomicU32::new(0)));
    let other = Arc::clone(&shared);
    let done = all(effort, move |_| {
        let (semaphore, inside, most) = &*other;
        for round in 0..effort.rounds {
            semaphore.acquire();
            // ORDER: SeqCst, all of these: the count has to be exact, and speed does not matter.
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            if round % 16 == 0 {
                thread::yield_now();
            }
            // ORDER: SeqCst, as above.
            inside.fetch_sub(1, Ordering::SeqCst);
            semaphore.release();
        }
    });
    let (semaphore, _, most) = &*shared;
    let left = (0..PERMITS).all(|_| semaphore.try_acquire()) && !semaphore.try_acquire();
    // ORDER: SeqCst, as above.
    done.is_some() && left && most.load(Ordering::SeqCst) <= u32::from(PERMITS)
}

/// Nobody is a round ahead, and each round has one last.
fn barrier(effort: Effort) -> bool {
    let rounds = effort.rounds.min(500);
    let shared = Arc::new((Barrier::new(effort.threads), AtomicU64::new(0)));
    let lasts = all(effort, move |_| {
        let (barrier, come) = &*shared;
        let mut lasts = 0;
        for round in 1..=rounds {
            // ORDER: SeqCst: the count has to be exact, and speed does not matter.
            come.fetch_add(1, Ordering::SeqCst);
            lasts += u64::from(barrier.wait());
            // ORDER: SeqCst, as above.
            let there = come.load(Ordering::SeqCst);
            if there < round * u64::from(effort.threads) {
                return u64::MAX;
            }
            // A second meeting, so that nobody comes to the next round before all have looked.
            barrier.wait();
        }
        lasts
    });
    lasts.is_some_and(|lasts| lasts.into_iter().try_fold(0, u64::checked_add) == Some(rounds))
}

/// Waits end at their deadlines, not before.
fn deadlines(_: Effort) -> bool {
    let soon = || Deadline::after(Nanos::from_millis(5));
    let semaphore = Semaphore::new(0);
    let until = soon();
    let had = semaphore.acquire_until(until.0);
    let semaphore_ok = !had && until.passed();
    let (mutex, changed) = (Mutex::new(()), Condvar::new());
    let until = soon();
    let mut waited = Waited::LookAgain;
    let mut guard = mutex.lock();
    while waited == Waited::LookAgain {
        (guard, waited) = changed.wait_until(guard, until.0);
    }
    drop(guard);
    let condvar_ok = until.passed();
    let until = soon();
    time::sleep(until);
    semaphore_ok && condvar_ok && until.passed()
}

/// Allocations of many threads and sizes keep what was written to them.
fn heap(effort: Effort) -> bool {
    let kept = all(effort, move |number| {
        let mut held: Vec<Vec<u64>> = Vec::new();
        for round in 0..effort.rounds {
            let size = 1 + (round * 7 + u64::from(number)) % 300;
            held.push((0..size).map(|word| word ^ round).collect());
            if held.len() > 32 {
                let old = held.swap_remove((round % 32) as usize);
                let first = old.first().copied().unwrap_or_default();
                if !old.iter().zip(0..).all(|(&word, place)| word == place ^ first) {
                    return false;
                }
            }
        }
        true
    });
    kept.is_some_and(|kept| kept.into_iter().all(|kept| kept))
}
