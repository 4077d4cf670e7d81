//! Threads on few families: each thread has a table, and everybody hands capabilities to everybody.
//!
//! A capability's badge says at which round of its family it was derived. Whoever revokes at a root ends a round first and begins the next
//! when nothing is doomed: then whatever was derived in the rounds before is gone, wherever it went. A root that is used for that
//! is its thread's own. In the end everything is drained beside what is still going on, and no reference, slot or node is left.
//!
//! Planted: a source that is not looked at again with the lock; a moved node that still names its old slot.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pool;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use cap::{Capability, Drained, Purged, Sentence, Table};
use percpu::sync::atomic::{AtomicU64, Ordering};
use perf::prng::Prng;
use pool::{Objects, Pool, World};
use std::sync::Mutex;
use std::thread;

const THREADS: usize = 4;
const OPS: usize = 60_000;
const LIMIT: usize = 400;
const PLACES: usize = 12;

/// A capability that somebody may know: table and handle.
#[derive(Clone, Copy)]
struct Known(usize, Handle);

struct Bed {
    tables: Vec<Table<Pool>>,
    objects: Objects,
    board: [Mutex<Known>; PLACES],
    /// The round of each family.
    rounds: [AtomicU64; THREADS],
    /// The last round of each family of which nothing is left.
    over: [AtomicU64; THREADS],
}

/// A thread with the root of the family that has its number.
struct Worker<'a> {
    bed: &'a Bed,
    own: usize,
    root: Handle,
    random: Prng,
}

impl Worker<'_> {
    fn known(&mut self) -> Known {
        *self.bed.board[self.random.below(PLACES as u64) as usize].lock().unwrap()
    }

    fn show(&mut self, known: Known) {
        *self.bed.board[self.random.below(PLACES as u64) as usize].lock().unwrap() = known;
    }

    fn release(&self, gone: cap::Gone) {
        self.bed.objects.release(gone.object);
    }

    fn derive(&mut self, Known(from, handle): Known, badge: u64) {
        let into = self.random.below(THREADS as u64) as usize;
        let (source, table) = (&self.bed.tables[from], &self.bed.tables[into]);
        let acquire = |made: &Capability| self.bed.objects.acquire(made.object);
        let sink = |gone| self.release(gone);
        match source.derive(handle, table, (Rights::ALL, badge), acquire, sink) {
            Ok(new) => self.show(Known(into, new)),
            Err(refusal) => {
                let error = refusal.settle(|gone| self.release(gone));
                assert!(matches!(error, Error::BadHandle | Error::NoSlot), "{error:?}");
            }
        }
    }

    /// Derives of what is known; the child says what its source says.
    fn derive_known(&mut self) {
        let known = self.known();
        if let Ok(entry) = self.bed.tables[known.0].entry(known.1) {
            self.derive(known, entry.badge);
        }
    }

    fn move_known(&mut self) {
        let (Known(from, handle), into) = (self.known(), self.random.below(THREADS as u64) as usize);
        if let Ok(new) = self.bed.tables[from].move_to(handle, &self.bed.tables[into]) {
            self.show(Known(into, new));
        }
    }

    fn delete_known(&mut self) {
        let Known(table, handle) = self.known();
        if let Ok(gone) = self.bed.tables[table].delete(handle) {
            self.release(gone);
        }
    }

    /// Revokes what descends from some capability that is known: no round ends by that.
    fn revoke_known(&mut self) {
        let Known(table, handle) = self.known();
        if let Ok(entry) = self.bed.tables[table].entry(handle)
            && self.bed.tables[table].doom(handle).is_ok()
        {
            let _ = cap::purge(self.bed.tables[table].memory(), entry.object, 5, |gone| self.release(gone));
        }
    }

    /// Ends the own family's round.
    fn revoke_root(&mut self) {
        let bed = self.bed;
        let object = self.own as u64;
        let ended = bed.rounds[self.own].fetch_add(1, Ordering::SeqCst);
        let table = &bed.tables[self.own];
        let sentence = table.doom(self.root).unwrap();
        let purge = || cap::purge(table.memory(), object, 8, |gone| self.release(gone));
        while sentence == Sentence::Doomed && purge() == Purged::More {}
        bed.over[self.own].store(ended + 1, Ordering::SeqCst);
    }

    /// Nothing that is found is of a round that was over before it was looked for.
    fn look(&mut self) {
        let Known(table, handle) = self.known();
        let over: Vec<_> = self.bed.over.iter().map(|over| over.load(Ordering::SeqCst)).collect();
        if let Ok(entry) = self.bed.tables[table].entry(handle) {
            let over = over[entry.object as usize];
            assert!(entry.badge >= over, "of round {} and found when {over} had begun", entry.badge);
        }
    }

    fn step(&mut self) {
        match self.random.below(64) {
            0..8 => {
                let round = self.bed.rounds[self.own].load(Ordering::SeqCst);
                self.derive(Known(self.own, self.root), round);
            }
            8..26 => self.derive_known(),
            26..34 => self.move_known(),
            34..44 => self.delete_known(),
            44..46 => self.revoke_known(),
            46 => self.revoke_root(),
            _ => self.look(),
        }
    }
}

#[test]
fn nothing_survives_its_round() {
    let world = World::new(THREADS);
    let bed = Bed {
        tables: (0..THREADS).map(|_| Table::new(Pool::new(16, &world), LIMIT)).collect(),
        objects: Objects::new(THREADS),
        board: [const { Mutex::new(Known(0, Handle::NONE)) }; PLACES],
        rounds: [const { AtomicU64::new(0) }; THREADS],
        over: [const { AtomicU64::new(0) }; THREADS],
    };
    thread::scope(|scope| {
        for own in 0..THREADS {
            let bed = &bed;
            let object = own as u64;
            bed.objects.make(object);
            let (kind, rights) = (Objects::kind(object), Rights::ALL);
            let root = bed.tables[own].insert(Capability { kind, rights, object, badge: u64::MAX }).unwrap();
            scope.spawn(move || {
                let mut worker = Worker { bed, own, root, random: Prng::stream(9, own as u32) };
                for _ in 0..OPS {
                    worker.step();
                }
                while bed.tables[own].drain(50, |gone| worker.release(gone)) == Drained::More {
                    thread::yield_now();
                }
            });
        }
    });
    assert!(bed.tables.iter().all(|table| table.count() == 0 && table.memory().out() == 0));
    assert!((0..THREADS as u64).all(|object| bed.objects.count(object) == 0));
    assert_eq!(world.nodes(), 0);
}
