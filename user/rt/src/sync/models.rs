//! Loom models: every interleaving, up to the bound, of what can go wrong between a fast path in user mode and sleeping in the kernel.
//! The futex is a queue under a lock, as the kernel's is; a wait with a deadline ends at once, as the kernel's may.

use alloc::vec::Vec;

use abi::task::NEVER;
use loom::sync::{Arc, Condvar as LoomCondvar, Mutex as LoomMutex};
use loom::thread;

use super::atomic::{AtomicU32, Ordering};
use super::{Barrier, Condvar, Futex, Mutex, Semaphore, Waited};

/// Preemptions that a model explores: the bound at which loom's authors find most bugs show.
const PREEMPTIONS: usize = 3;

#[derive(Default)]
struct Queue {
    /// Number and word of each sleeper, the longest one first.
    sleepers: Vec<(u32, usize)>,
    next: u32,
}

#[derive(Clone)]
struct Fake(Arc<(LoomMutex<Queue>, LoomCondvar)>);

impl Fake {
    fn new() -> Self {
        Self(Arc::new((LoomMutex::new(Queue::default()), LoomCondvar::new())))
    }
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word).addr()
}

impl Futex for Fake {
    fn wait(&self, word: &AtomicU32, expected: u32, deadline: u64) -> Waited {
        let (queue, woken) = &*self.0;
        let mut queue = queue.lock().unwrap();
        if word.load(Ordering::Relaxed) != expected {
            return Waited::LookAgain;
        }
        if deadline != NEVER {
            return Waited::TimedOut;
        }
        let me = queue.next;
        queue.next += 1;
        queue.sleepers.push((me, address(word)));
        while queue.sleepers.iter().any(|&(sleeper, _)| sleeper == me) {
            queue = woken.wait(queue).unwrap();
        }
        Waited::LookAgain
    }

    fn wake(&self, word: &AtomicU32, count: u32) {
        let (queue, woken) = &*self.0;
        let mut queue = queue.lock().unwrap();
        for _ in 0..count {
            let Some(first) = queue.sleepers.iter().position(|&(_, on)| on == address(word)) else { break };
            queue.sleepers.remove(first);
        }
        woken.notify_all();
    }

    fn wake_one_and_move(&self, word: &AtomicU32, to: &AtomicU32) {
        self.wake(word, 1);
        let mut queue = self.0.0.lock().unwrap();
        for (_, on) in queue.sleepers.iter_mut().filter(|(_, on)| *on == address(word)) {
            *on = address(to);
        }
    }
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

/// No two threads hold it, whoever waits gets it, and the last one's write is seen. Planted: Relaxed for `unlock`'s Release; who has slept
/// locks as if nobody else did.
#[test]
fn loom_a_mutex_excludes() {
    model(|| {
        let mutex = Arc::new(Mutex::with(0, Fake::new()));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                thread::spawn(move || *mutex.lock() += 1)
            })
            .collect();
        *mutex.lock() += 1;
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*mutex.lock(), 3);
    });
}

/// Who waits for a change is told of it, though notifying skips the kernel when nobody waits. Planted: the waiter counts itself after it
/// has freed the mutex.
#[test]
fn loom_a_notification_is_not_lost() {
    model(|| {
        let futex = Fake::new();
        let shared = Arc::new((Mutex::with(false, futex.clone()), Condvar::with(futex)));
        let other = Arc::clone(&shared);
        let waiter = thread::spawn(move || {
            let (mutex, changed) = &*other;
            let mut guard = mutex.lock();
            while !*guard {
                guard = changed.wait(guard);
            }
        });
        let (mutex, changed) = &*shared;
        *mutex.lock() = true;
        changed.notify_one();
        waiter.join().unwrap();
    });
}

/// All who wait go on, those too that were moved to the mutex. Planted: who has waited locks as if nobody slept on the mutex.
#[test]
fn loom_all_are_notified() {
    model(|| {
        let futex = Fake::new();
        let shared = Arc::new((Mutex::with(false, futex.clone()), Condvar::with(futex)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (mutex, changed) = &*shared;
                    let mut guard = mutex.lock();
                    while !*guard {
                        guard = changed.wait(guard);
                    }
                })
            })
            .collect();
        let (mutex, changed) = &*shared;
        let mut guard = mutex.lock();
        *guard = true;
        changed.notify_all();
        drop(guard);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// Every permit lets one pass, and nobody sleeps beside a permit.
#[test]
fn loom_permits_are_not_lost() {
    model(|| {
        let semaphore = Arc::new(Semaphore::with(0, Fake::new()));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let semaphore = Arc::clone(&semaphore);
                thread::spawn(move || semaphore.acquire())
            })
            .collect();
        assert!(semaphore.release() && semaphore.release());
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(!semaphore.try_acquire());
    });
}

/// A permit that comes as a wait times out is either had or left, never both or neither; and the others still get theirs. Planted: the late
/// permit is taken and not told; waiters are not counted.
#[test]
fn loom_a_late_permit_counts_once() {
    model(|| {
        let semaphore = Arc::new(Semaphore::with(0, Fake::new()));
        let other = Arc::clone(&semaphore);
        let late = thread::spawn(move || other.acquire_until(0));
        let other = Arc::clone(&semaphore);
        let patient = thread::spawn(move || other.acquire());
        assert!(semaphore.release() && semaphore.release());
        let had = late.join().unwrap();
        patient.join().unwrap();
        assert_eq!(semaphore.try_acquire(), !had);
    });
}

/// Nobody passes before all have come, twice in a row, and one of them is told that it was the last. Planted: the count starts anew after
/// the round has ended.
#[test]
fn loom_a_barrier_holds() {
    model(|| {
        let shared = Arc::new((Barrier::with(2, Fake::new()), AtomicU32::new(0)));
        let other = Arc::clone(&shared);
        let round = |(barrier, count): &(Barrier<Fake>, AtomicU32), expected| {
            count.fetch_add(1, Ordering::Relaxed);
            let last = barrier.wait();
            assert!(count.load(Ordering::Relaxed) >= expected);
            last
        };
        let thread = thread::spawn(move || [round(&other, 2), round(&other, 4)]);
        let here = [round(&shared, 2), round(&shared, 4)];
        let there = thread.join().unwrap();
        assert!(here[0] != there[0] && here[1] != there[1]);
    });
}
