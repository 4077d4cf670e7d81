//! Threads on one table: each has capabilities of its own, of which it knows everything, and all fight for some that stand on a board.
//!
//! Whatever a handle of the board finds is what was on the board with it: an object is used once, and rights and badge follow from it. In
//! the end the table is drained while some still insert, and no object has a reference left. Seeds are fixed; the order of events is not.
//!
//! Planted: no second look at `meta` in `lookup_badged`. Most races are too narrow for it: see the loom models.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pool;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use cap::{Capability, Drained, Entry, Table};
use percpu::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use perf::prng::Prng;
use pool::{Objects, Pool, World};
use std::sync::Mutex;
use std::thread;

const THREADS: usize = 4;
const OPS: usize = 200_000;
/// Insertions of a thread beside the drain.
const LATE: usize = 5_000;
const LIMIT: usize = 1_500;
/// Places on the board: few, so that threads meet.
const PLACES: usize = 6;

struct Bed {
    table: Table<Pool>,
    objects: Objects,
    board: [Mutex<(Handle, u64)>; PLACES],
    next: AtomicU64,
}

/// Object and rights: what a capability of the board is.
const fn capability(object: u64) -> Capability {
    let rights = Rights::GRANT.with(Rights((object >> 4) as u16)).and(Rights::ALL);
    Capability { kind: Objects::kind(object), rights, object, badge: !object }
}

const fn entry(object: u64) -> Entry {
    let Capability { kind, rights, object, badge } = capability(object);
    Entry { kind, rights, object, badge }
}

impl Bed {
    /// A new object in the table.
    fn insert(&self) -> Result<(Handle, u64), Error> {
        let object = self.next.fetch_add(1, Ordering::Relaxed);
        self.objects.make(object);
        let inserted = self.table.insert(capability(object));
        inserted.map(|handle| (handle, object)).inspect_err(|_| self.objects.release(object))
    }

    /// Looks for what a handle names or has named.
    fn look(&self, handle: Handle, object: u64) -> bool {
        let Capability { kind, rights, .. } = capability(object);
        let plain = self.table.lookup(handle, kind, Rights::GRANT).map(|found| (found.object, found.rights));
        assert!(matches!(plain, Err(Error::BadHandle)) || plain == Ok((object, rights)), "{plain:?}");
        let badged =
            self.table.lookup_badged(handle, kind, Rights::NONE).map(|(found, badge)| (found.object, badge));
        assert!(matches!(badged, Err(Error::BadHandle)) || badged == Ok((object, !object)), "{badged:?}");
        let all = self.table.entry(handle);
        assert!(matches!(all, Err(Error::BadHandle)) || all == Ok(entry(object)), "{all:?}");
        plain.is_ok()
    }

    /// A handle that may come to be: what it finds follows from one object.
    fn guess(&self, handle: Handle) {
        let guessed = Handle::new(handle.index(), handle.generation().wrapping_add(1));
        for &kind in ObjectKind::ALL {
            if let Ok((found, badge)) = self.table.lookup_badged(guessed, kind, Rights::NONE) {
                let Entry { rights, .. } = entry(found.object);
                // Derived ones have a badge of their own, and fewer rights.
                assert!(kind == Objects::kind(found.object) && rights.has(found.rights));
                assert!(badge == !found.object && found.rights == rights || badge == found.object);
            }
        }
    }

    fn delete(&self, handle: Handle, object: u64) -> bool {
        let gone = self.table.delete(handle);
        let _ = gone.as_ref().map(|gone| {
            assert_eq!(gone.object, object);
            self.objects.release(object);
        });
        gone.is_ok()
    }

    fn derive(&self, handle: Handle, object: u64, rights: Rights) -> Option<Handle> {
        let acquire = |made: &Capability| {
            let all = capability(object);
            assert_eq!(*made, Capability { rights: all.rights.and(rights), badge: object, ..all });
            self.objects.acquire(object)
        };
        let derived = self.table.derive(handle, &self.table, (rights, object), acquire, |gone| {
            panic!("{gone:?} was not doomed");
        });
        derived.map_err(|refusal| refusal.settle(|gone| self.objects.release(gone.object))).ok()
    }

    fn step(&self, random: &mut Prng, own: &mut Vec<(Handle, u64)>) {
        let place = &self.board[random.below(PLACES as u64) as usize];
        let (handle, object) = *place.lock().unwrap();
        match random.below(16) {
            0..6 => {
                self.look(handle, object);
            }
            6 => self.guess(handle),
            7..10 => {
                self.delete(handle, object);
                if let Ok(new) = self.insert() {
                    // Somebody else may have put one there; what was there is known to nobody then.
                    let old = core::mem::replace(&mut *place.lock().unwrap(), new);
                    self.delete(old.0, old.1);
                }
            }
            10..12 => {
                if let Some(new) = self.derive(handle, object, Rights::OBSERVE) {
                    let found = self.table.lookup_badged(new, Objects::kind(object), Rights::NONE).unwrap();
                    assert_eq!((found.0.object, found.1), (object, object));
                    assert!(self.delete(new, object));
                }
            }
            12..14 if own.len() < 200 => own.extend(self.insert()),
            _ if own.is_empty() => {}
            14 => {
                let (handle, object) = own[random.below(own.len() as u64) as usize];
                assert!(self.look(handle, object));
            }
            _ => {
                let (handle, object) = own.swap_remove(random.below(own.len() as u64) as usize);
                assert!(
                    self.look(handle, object) && self.delete(handle, object) && !self.look(handle, object)
                );
            }
        }
    }
}

/// Counts a thread as arrived, even if it fails: the others need not wait for ever.
struct Arrival<'a>(&'a AtomicUsize);

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits until every thread has arrived.
fn meet(arrived: &AtomicUsize) {
    while arrived.load(Ordering::Acquire) < THREADS {
        thread::yield_now();
    }
}

/// Inserts and deletes while the table is being drained: nothing stays for sure.
fn meet_the_drain(bed: &Bed, random: &mut Prng) {
    for _ in 0..LATE {
        match bed.insert() {
            Ok((handle, object)) if random.below(2) == 0 => {
                bed.delete(handle, object);
            }
            Ok((handle, object)) => {
                bed.look(handle, object);
            }
            Err(error) => assert_eq!(error, Error::NoSlot),
        }
    }
}

#[test]
fn threads_meet_on_few_capabilities() {
    let world = World::new(1 + THREADS * (OPS + LATE));
    let bed = Bed {
        table: Table::new(Pool::new(16, &world), LIMIT),
        objects: Objects::new(1 + THREADS * (OPS + LATE)),
        board: [const { Mutex::new((Handle::NONE, 0)) }; PLACES],
        next: AtomicU64::new(1),
    };
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..THREADS as u32 {
            let (bed, ended) = (&bed, &ended);
            scope.spawn(move || {
                let (mut random, mut own) = (Prng::stream(5, number), Vec::new());
                let arrival = Arrival(ended);
                for _ in 0..OPS {
                    bed.step(&mut random, &mut own);
                }
                drop(arrival);
                meet(ended);
                meet_the_drain(bed, &mut random);
            });
        }
        meet(&ended);
        while bed.table.drain(50, |gone| bed.objects.release(gone.object)) == Drained::More {
            thread::yield_now();
        }
        assert_eq!((bed.table.count(), bed.table.memory().out()), (0, 0));
    });
    assert_eq!((bed.table.count(), bed.table.memory().out()), (0, 0));
    assert!((0..bed.next.load(Ordering::Relaxed)).all(|object| bed.objects.count(object) == 0));
    assert_eq!(world.nodes(), 0);
}
