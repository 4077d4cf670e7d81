//! Two tables against a naive model: a map from handle to what was put in.
//!
//! Random insertions, derivations within and between the tables, deletions and lookups, with handles that are live, gone, made up or of the
//! other table. The model also knows when a slot or a leaf is missing, and how many references each object has.
//!
//! Planted: a generation that stays; rights that do not shrink; no look at `GRANT`; a slot that stays claimed when memory is missing; a handle
//! whose bits above the slot's are not compared; a limit that is off by one; a leaf that is not cleared.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pool;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use cap::{Capability, Drained, Entry, Found, Gone, Table};
use pool::{Objects, Pool};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Insert {
        table: usize,
        rights: u16,
        badge: u64,
    },
    /// Many at once, so that leaves fill.
    Fill {
        table: usize,
        count: usize,
    },
    Derive {
        from: usize,
        into: usize,
        handle: Pick,
        rights: u16,
        badge: u64,
    },
    Delete {
        table: usize,
        handle: Pick,
    },
    /// Many at once, every so-manyth.
    Thin {
        table: usize,
        step: usize,
    },
    Lookup {
        table: usize,
        handle: Pick,
        kind: usize,
        rights: u16,
    },
}

/// Which handle an operation gets.
#[derive(Clone, Debug)]
enum Pick {
    /// One that was returned at some time, by either table.
    Known(usize),
    /// As before with bits changed.
    Bent(usize, u64),
    Any(u64),
}

fn pick() -> impl Strategy<Value = Pick> {
    let bits = prop_oneof![
        (0..64_u32).prop_map(|bit| 1 << bit),
        (0..64_u32, 0..64_u32).prop_map(|(a, b)| 1 << a | 1 << b)
    ];
    prop_oneof![
        8 => any::<usize>().prop_map(Pick::Known),
        3 => (any::<usize>(), bits).prop_map(|(known, bits)| Pick::Bent(known, bits)),
        1 => any::<u64>().prop_map(Pick::Any),
    ]
}

fn rights() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0..=Rights::ALL.0, 2 => Just(Rights::ALL.0), 1 => any::<u16>()]
}

fn op() -> impl Strategy<Value = Op> {
    let table = 0..2_usize;
    prop_oneof![
        6 => (table.clone(), rights(), any::<u64>()).prop_map(|(table, rights, badge)| Op::Insert { table, rights, badge }),
        1 => (table.clone(), 1..200_usize).prop_map(|(table, count)| Op::Fill { table, count }),
        6 => (table.clone(), table.clone(), pick(), rights(), any::<u64>())
            .prop_map(|(from, into, handle, rights, badge)| Op::Derive { from, into, handle, rights, badge }),
        6 => (table.clone(), pick()).prop_map(|(table, handle)| Op::Delete { table, handle }),
        1 => (table.clone(), 1..5_usize).prop_map(|(table, step)| Op::Thin { table, step }),
        9 => (table, pick(), 0..ObjectKind::ALL.len(), rights())
            .prop_map(|(table, handle, kind, rights)| Op::Lookup { table, handle, kind, rights }),
    ]
}

/// Objects that there can be in a case: as many as insertions.
const OBJECTS: usize = 60 * 200;
/// Capabilities and leaves of each table: the first meets its limit, the second the end of its memory.
const ROOM: [(usize, usize); 2] = [(150, 5), (1000, 2)];

#[derive(Default)]
struct Side {
    /// By the word of the handle.
    live: BTreeMap<u64, Entry>,
    /// The last generation of each slot: the next is one more, so no handle comes twice.
    generations: BTreeMap<u32, u32>,
    /// The most that were ever live at once: slots that were used.
    peak: usize,
}

impl Side {
    /// What an insertion into a table of this room answers.
    fn admits(&self, (limit, leaves): (usize, usize)) -> Result<(), Error> {
        if self.live.len() >= limit {
            return Err(Error::NoSlot);
        }
        // Slot 0 is not used; a slot that was used before is free if not all are live.
        if self.live.len() == self.peak && self.peak + 1 >= leaves * 128 {
            return Err(Error::NoMemory);
        }
        Ok(())
    }

    fn put(&mut self, handle: Handle, entry: Entry) {
        let last = self.generations.insert(handle.index(), handle.generation());
        assert_eq!(handle.generation(), last.unwrap_or(0) + 1);
        assert_eq!(self.live.insert(handle.0, entry), None);
        self.peak = self.peak.max(self.live.len());
    }
}

struct Bed {
    tables: [Table<Pool>; 2],
    sides: [Side; 2],
    known: Vec<Handle>,
    objects: Objects,
    made: u64,
}

impl Bed {
    fn new() -> Self {
        let tables = ROOM.map(|(limit, leaves)| Table::new(Pool::new(leaves), limit));
        Self {
            tables,
            sides: Default::default(),
            known: vec![Handle::NONE],
            objects: Objects::new(OBJECTS),
            made: 0,
        }
    }

    fn handle(&self, pick: &Pick) -> Handle {
        let known = |at: usize| self.known[at % self.known.len()];
        match *pick {
            Pick::Known(at) => known(at),
            Pick::Bent(at, bits) => Handle(known(at).0 ^ bits),
            Pick::Any(word) => Handle(word),
        }
    }

    fn record(&mut self, table: usize, handle: Handle, entry: Entry) {
        self.sides[table].put(handle, entry);
        self.known.push(handle);
    }

    fn insert(&mut self, table: usize, rights: Rights, badge: u64) {
        let object = self.made;
        self.made += 1;
        let kind = Objects::kind(object);
        let expected = self.sides[table].admits(ROOM[table]);
        self.objects.make(object);
        match self.tables[table].insert(Capability { kind, rights, object, badge }) {
            Ok(handle) => {
                assert_eq!(expected, Ok(()));
                self.record(table, handle, Entry { kind, rights: rights.and(Rights::ALL), object, badge });
            }
            Err(error) => {
                assert_eq!(expected, Err(error));
                self.objects.release(object);
            }
        }
    }

    fn derive(&mut self, from: usize, into: usize, handle: Handle, rights: Rights, badge: u64) {
        let expected = match self.sides[from].live.get(&handle.0) {
            None => Err(Error::BadHandle),
            Some(entry) if !entry.rights.has(Rights::GRANT) => Err(Error::MissingRight),
            Some(entry) => self.sides[into].admits(ROOM[into]).map(|()| *entry),
        };
        let derived = self.tables[from].derive(handle, &self.tables[into], rights, badge, |entry| {
            assert_eq!(Ok(*entry), expected);
            self.objects.acquire(entry.object)
        });
        match derived {
            Ok(new) => {
                let source = expected.unwrap();
                self.record(into, new, Entry { rights: source.rights.and(rights), badge, ..source });
            }
            Err(refusal) => assert_eq!((Err(refusal.error), refusal.reference), (expected, None)),
        }
    }

    fn delete(&mut self, table: usize, handle: Handle) {
        let entry = self.sides[table].live.remove(&handle.0);
        let expected = entry
            .map(|entry| Gone { kind: entry.kind, rights: entry.rights, object: entry.object })
            .ok_or(Error::BadHandle);
        let gone = self.tables[table].delete(handle);
        assert_eq!(gone, expected);
        if let Ok(gone) = gone {
            self.objects.release(gone.object);
        }
    }

    fn lookup(&self, table: usize, handle: Handle, kind: ObjectKind, rights: Rights) {
        let entry = self.sides[table].live.get(&handle.0).copied().ok_or(Error::BadHandle);
        assert_eq!(self.tables[table].entry(handle), entry);
        let expected = entry.and_then(|entry| match () {
            () if entry.kind != kind => Err(Error::WrongType),
            () if !entry.rights.has(rights) => Err(Error::MissingRight),
            () => Ok((Found { object: entry.object, rights: entry.rights }, entry.badge)),
        });
        assert_eq!(self.tables[table].lookup_badged(handle, kind, rights), expected);
        assert_eq!(self.tables[table].lookup(handle, kind, rights), expected.map(|(found, _)| found));
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Insert { table, rights, badge } => self.insert(table, Rights(rights), badge),
            Op::Fill { table, count } => (0..count).for_each(|_| self.insert(table, Rights::ALL, 0)),
            Op::Derive { from, into, ref handle, rights, badge } => {
                self.derive(from, into, self.handle(handle), Rights(rights), badge);
            }
            Op::Delete { table, ref handle } => self.delete(table, self.handle(handle)),
            Op::Thin { table, step } => {
                let some: Vec<_> = self.sides[table].live.keys().copied().step_by(step).collect();
                some.into_iter().for_each(|handle| self.delete(table, Handle(handle)));
            }
            Op::Lookup { table, ref handle, kind, rights } => {
                self.lookup(table, self.handle(handle), ObjectKind::ALL[kind], Rights(rights));
            }
        }
    }

    /// Everything that the model knows holds in the tables.
    fn compare(&self) {
        let mut counts = BTreeMap::new();
        for (table, side) in self.sides.iter().enumerate() {
            assert_eq!(self.tables[table].count(), side.live.len());
            let leaves = if side.peak == 0 { 0 } else { side.peak / 128 + 1 };
            assert_eq!(self.tables[table].memory().out(), leaves);
            for (&handle, entry) in &side.live {
                assert_eq!(self.tables[table].entry(Handle(handle)), Ok(*entry));
                *counts.entry(entry.object).or_insert(0) += 1;
            }
        }
        for object in 0..self.made {
            assert_eq!(self.objects.count(object), counts.get(&object).copied().unwrap_or(0));
        }
    }

    fn drain(&self) {
        for table in &self.tables {
            while table.drain(7, |gone| {
                assert_eq!(gone.kind, Objects::kind(gone.object));
                self.objects.release(gone.object);
            }) == Drained::More
            {}
            assert_eq!((table.count(), table.memory().out()), (0, 0));
        }
        assert!((0..self.made).all(|object| self.objects.count(object) == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_do_as_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let mut bed = Bed::new();
        for op in &ops {
            bed.run(op);
        }
        bed.compare();
        bed.drain();
    }
}
