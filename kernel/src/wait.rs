//! Waiting: lists of threads by what they wait for.
//!
//! A key is anything: a word of a program's memory (space and address), a thread or process whose end is waited for. Keys are spread
//! over buckets, each with its own lock and line; two keys in one bucket only cost each other time. A thread enlists *before* it looks
//! whether it has to wait at all, so no wake falls between the look and the wait, and no user memory is touched under a lock. From
//! then on whoever takes it out of the list decides how the wait ends (Y3): the waker, its own timeout, or its own second thoughts.
//!
//! After futexes: U. Drepper, "Futexes Are Tricky" (2011); H. Franke, R. Russell, M. Kirkwood, "Fuss, Futexes and Furwocks" (OLS 2002).

use core::cell::Cell;

use ipc::{At, Withdrawn};
use percpu::{Held, IrqOff, Lock};

use crate::homes;
use crate::talk;
use crate::thread::{State, ThreadRef};

/// What is waited for, exactly: no two things share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Number of the address space, which is never used again; 0 for an object.
    space: u64,
    /// Address in the space, or of the object.
    at: u64,
}

impl Key {
    /// Nothing.
    const NONE: Self = Self { space: 0, at: 0 };

    /// A word of a space.
    pub(crate) const fn word(space: u64, address: u64) -> Self {
        Self { space, at: address }
    }

    /// An object.
    pub(crate) fn object<T>(at: core::ptr::NonNull<T>) -> Self {
        Self { space: 0, at: at.addr().get() as u64 }
    }

    /// The number of its list.
    fn list(self) -> u32 {
        (mix(self.at ^ self.space << 47) % COUNT as u64) as u32
    }
}

/// A permutation of words that spreads neighbours (the finaliser of S. Vigna's SplitMix64, 2015).
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Where threads wait, as [`At`] tells it: what is waited for in the low bits, where it is above them.
pub(crate) mod place {
    use core::ptr::NonNull;

    use ipc::At;

    /// Low bits that say what it is. 0 and 1 are `ipc`'s own.
    pub(crate) const MARKS: u64 = 7;
    /// A list of this module, by its number.
    pub(crate) const LIST: u64 = 2;
    /// The queue of an endpoint.
    pub(crate) const ENDPOINT: u64 = 3;
    /// The reply slot of a thread.
    pub(crate) const CALLEE: u64 = 4;
    /// The slot of a reply object.
    pub(crate) const REPLY: u64 = 5;
    /// The queue of a notification.
    pub(crate) const NOTIFICATION: u64 = 6;

    const SHIFT: u32 = MARKS.count_ones();

    /// A list.
    pub(super) const fn list(number: u32) -> At {
        At((number as u64) << SHIFT | LIST)
    }

    /// The number of a list.
    pub(super) const fn number(at: At) -> usize {
        (at.0 >> SHIFT) as usize
    }

    /// An object, aligned to 8 at least.
    #[inline(always)]
    pub(crate) fn object<T>(at: NonNull<T>, mark: u64) -> At {
        At(at.expose_provenance().get() as u64 | mark)
    }

    /// The object of a place.
    ///
    /// # Safety
    /// 1. `at` was made by [`object`] of a `T`, and was read since the core entered the kernel (IQ2).
    pub(crate) unsafe fn get<'a, T>(at: At) -> &'a T {
        let at = core::ptr::with_exposed_provenance::<T>((at.0 & !MARKS) as usize);
        // SAFETY: obligation 1: it is there until the core leaves the kernel.
        unsafe { &*at }
    }
}

/// A thread's place in a list; which one, its `link` says.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | all | who holds the list's lock | the same | by the lock |
#[derive(Debug)]
pub(crate) struct Waiter {
    key: Cell<Key>,
    next: Cell<Option<ThreadRef>>,
    previous: Cell<Option<ThreadRef>>,
}

impl Waiter {
    /// In no list.
    pub(crate) const fn new() -> Self {
        Self { key: Cell::new(Key::NONE), next: Cell::new(None), previous: Cell::new(None) }
    }
}

/// The waiters of some keys, in the order of their coming.
struct List {
    first: Option<ThreadRef>,
    last: Option<ThreadRef>,
}

/// Level of the buckets' locks.
const LEVEL: u8 = 60;

#[repr(align(64))]
struct Bucket(Lock<LEVEL, List>);

/// Enough that the cores of a large machine seldom meet in one.
const COUNT: usize = 256;

static BUCKETS: [Bucket; COUNT] = [const { Bucket(Lock::new(List { first: None, last: None })) }; COUNT];

fn bucket(key: Key) -> &'static Bucket {
    &BUCKETS[key.list() as usize % COUNT]
}

impl List {
    fn push(&mut self, thread: ThreadRef, key: Key) {
        let waiter = &thread.waiter;
        waiter.key.set(key);
        waiter.next.set(None);
        waiter.previous.set(self.last);
        match self.last {
            Some(last) => last.waiter.next.set(Some(thread)),
            None => self.first = Some(thread),
        }
        self.last = Some(thread);
        thread.link.set_at(place::list(key.list()));
    }

    /// Takes a thread out, which from then on is nowhere, or moving.
    fn remove(&mut self, thread: ThreadRef, now: At) {
        let waiter = &thread.waiter;
        let (previous, next) = (waiter.previous.take(), waiter.next.take());
        match previous {
            Some(previous) => previous.waiter.next.set(next),
            None => self.first = next,
        }
        match next {
            Some(next) => next.waiter.previous.set(previous),
            None => self.last = previous,
        }
        thread.link.set_at(now);
    }

    /// Takes out the oldest waiter of a key, which from then on is nowhere, or moving.
    fn pop(&mut self, key: Key, now: At) -> Option<ThreadRef> {
        let mut at = self.first;
        while let Some(thread) = at {
            if thread.waiter.key.get() == key {
                self.remove(thread, now);
                return Some(thread);
            }
            at = thread.waiter.next.get();
        }
        None
    }
}

/// Puts the current thread into the list of a key: from now on it can be woken, even before it has left the core.
pub(crate) fn enlist(irq: &mut IrqOff, thread: ThreadRef, key: Key) {
    thread.state.set(State::Blocked);
    irq.locks(|held| bucket(key).0.with(held, |list, _| list.push(thread, key)));
    percpu::race_point!("wait.enlisted");
}

/// Takes a thread out of where it waits; `false` if it waits nowhere: somebody else has taken it, and has sent it home. At its home.
pub(crate) fn delist(held: &mut Held<'_, 0>, thread: ThreadRef) -> bool {
    loop {
        let at = thread.link.at();
        percpu::race_point!("wait.delist");
        match at {
            At::NOWHERE => return false,
            // For as long as another core needs from one place to the next.
            At::MOVING => core::hint::spin_loop(),
            at if at.0 & place::MARKS == place::LIST => {
                if delist_from(held, thread, at) {
                    return true;
                }
            }
            at => match talk::withdraw(held, thread, at) {
                Withdrawn::Yes => return true,
                Withdrawn::No => return false,
                Withdrawn::LookAgain => core::hint::spin_loop(),
            },
        }
    }
}

/// Takes a thread out of a list; `false` if it is not there any more.
fn delist_from(held: &mut Held<'_, 0>, thread: ThreadRef, at: At) -> bool {
    let bucket = &BUCKETS[place::number(at) % COUNT];
    bucket.0.with(held, |list, _| {
        let here = thread.link.at() == at;
        if here {
            list.remove(thread, At::NOWHERE);
        }
        here
    })
}

/// Wakes at most `most` threads that wait for a key, oldest first; what they asked for returns `status` and `value`. Returns how many.
pub(crate) fn wake(held: &mut Held<'_, 0>, key: Key, most: u64, status: u64, value: u64) -> u64 {
    let mut count = 0;
    while count < most {
        let Some(thread) = bucket(key).0.with(held, |list, _| list.pop(key, At::NOWHERE)) else { break };
        percpu::race_point!("wait.woken");
        thread.answer(status, value);
        homes::send_home(held, thread);
        count += 1;
    }
    count
}

/// Wakes one thread that waits for a key, with success: by a message even if it lives here, so that this goes no deeper.
pub(crate) fn wake_by_message(held: &mut Held<'_, 0>, key: Key) {
    let thread = bucket(key).0.with(held, |list, _| list.pop(key, At::NOWHERE));
    if let Some(thread) = thread {
        thread.answer(0, 0);
        homes::send_message(thread);
    }
}

/// Lets at most `most` threads that wait for one key wait for another instead. Returns how many.
pub(crate) fn requeue(held: &mut Held<'_, 0>, from: Key, to: Key, most: u64) -> u64 {
    let mut count = 0;
    while count < most {
        // Out of one list before it is in the other: the locks are of one level. It never seems to be in none: who wants to take it out
        // would believe that it had been woken.
        let moved = bucket(from).0.with(held, |list, _| list.pop(from, At::MOVING));
        let Some(thread) = moved else { break };
        percpu::race_point!("wait.moving");
        bucket(to).0.with(held, |list, _| list.push(thread, to));
        count += 1;
    }
    count
}
