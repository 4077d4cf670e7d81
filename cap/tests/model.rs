//! Three tables against a naive model: maps from handle to what was put in, and a graph that says who was derived of whom.
//!
//! Random insertions, derivations and moves within and between the tables, deletions, revocations that are carried out at once or bit by
//! bit, and lookups, with handles that are live, gone, made up or of another table. In the end the tables are drained, one after the other.
//! The model also knows when a slot or a leaf is missing, and how many references each object has.
//!
//! Which doomed capabilities go first is not said; the model learns it from the tables, and checks how many and that none else.
//!
//! Planted: a generation that stays; rights that do not shrink; no look at `GRANT`; a slot that stays claimed when memory is missing; a handle
//! whose bits above the slot's are not compared; a limit that is off by one; a leaf that is not cleared; a child
//! that is put beside its source instead of beneath; a moved node that names its old slot; derivations that help once; a deleted capability that
//! keeps an end in the tour; a node that is not given back.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pool;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use cap::{Capability, Drained, Entry, Found, Gone, Purged, Sentence, Table};
use pool::{Objects, Pool, World};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// A chain, each derived of the one before, through all tables.
    Chain {
        from: usize,
        handle: Pick,
        length: usize,
    },
    Move {
        from: usize,
        into: usize,
        handle: Pick,
    },
    Delete {
        table: usize,
        handle: Pick,
    },
    /// Dooms what descends from it, and takes so many out.
    Revoke {
        table: usize,
        handle: Pick,
        steps: usize,
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
    let table = 0..TABLES;
    prop_oneof![
        6 => (table.clone(), rights(), any::<u64>()).prop_map(|(table, rights, badge)| Op::Insert { table, rights, badge }),
        1 => (table.clone(), 1..200_usize).prop_map(|(table, count)| Op::Fill { table, count }),
        6 => (table.clone(), table.clone(), pick(), rights(), any::<u64>())
            .prop_map(|(from, into, handle, rights, badge)| Op::Derive { from, into, handle, rights, badge }),
        2 => (table.clone(), pick(), 1..40_usize).prop_map(|(from, handle, length)| Op::Chain { from, handle, length }),
        4 => (table.clone(), table.clone(), pick()).prop_map(|(from, into, handle)| Op::Move { from, into, handle }),
        6 => (table.clone(), pick()).prop_map(|(table, handle)| Op::Delete { table, handle }),
        3 => (table.clone(), pick(), prop_oneof![Just(usize::MAX), 0..4_usize])
            .prop_map(|(table, handle, steps)| Op::Revoke { table, handle, steps }),
        1 => (table.clone(), 1..5_usize).prop_map(|(table, step)| Op::Thin { table, step }),
        9 => (table, pick(), 0..ObjectKind::ALL.len(), rights())
            .prop_map(|(table, handle, kind, rights)| Op::Lookup { table, handle, kind, rights }),
    ]
}

/// Objects that there can be in a case: as many as insertions.
const OBJECTS: usize = 60 * 200;
const TABLES: usize = 3;
/// Capabilities and leaves of each table: the first meets its limit, the second the end of its memory.
const ROOM: [(usize, usize); TABLES] = [(150, 5), (1000, 2), (400, 5)];

/// A live capability, in the model.
#[derive(Clone, Copy, Debug)]
struct Item {
    entry: Entry,
    table: usize,
    handle: Handle,
    /// Of whom it was derived, or who has inherited it.
    parent: Option<usize>,
    doomed: bool,
}

#[derive(Default)]
struct Side {
    /// Numbers of items, by the word of the handle.
    live: BTreeMap<u64, usize>,
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

    fn put(&mut self, handle: Handle, item: usize) {
        let last = self.generations.insert(handle.index(), handle.generation());
        assert_eq!(handle.generation(), last.unwrap_or(0) + 1);
        assert_eq!(self.live.insert(handle.0, item), None);
        self.peak = self.peak.max(self.live.len());
    }
}

struct Bed {
    /// Nodes say where they are.
    tables: Vec<Table<Pool>>,
    world: Arc<World>,
    sides: [Side; TABLES],
    items: BTreeMap<usize, Item>,
    known: Vec<Handle>,
    objects: Objects,
    made: u64,
    numbered: usize,
}

impl Bed {
    fn new() -> Self {
        let world = World::new(OBJECTS);
        let tables =
            ROOM.iter().map(|&(limit, leaves)| Table::new(Pool::new(leaves, &world), limit)).collect();
        Self {
            tables,
            world,
            sides: Default::default(),
            items: BTreeMap::new(),
            known: vec![Handle::NONE],
            objects: Objects::new(OBJECTS),
            made: 0,
            numbered: 0,
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

    fn item(&self, table: usize, handle: Handle) -> Option<(usize, Item)> {
        let number = *self.sides[table].live.get(&handle.0)?;
        Some((number, self.items[&number]))
    }

    /// A new item.
    fn record(&mut self, item: Item) {
        let number = self.numbered;
        self.numbered += 1;
        self.sides[item.table].put(item.handle, number);
        self.known.push(item.handle);
        self.items.insert(number, item);
    }

    /// An item goes; what was derived of it is now its parent's.
    fn forget(&mut self, number: usize) {
        let item = self.items.remove(&number).unwrap();
        self.sides[item.table].live.remove(&item.handle.0).unwrap();
        self.items.values_mut().filter(|other| other.parent == Some(number)).for_each(|child| {
            child.parent = item.parent;
        });
    }

    fn descends(&self, mut number: usize, from: usize) -> bool {
        while let Some(parent) = self.items[&number].parent {
            if parent == from {
                return true;
            }
            number = parent;
        }
        false
    }

    fn doomed(&self, object: u64) -> Vec<usize> {
        let doomed = self.items.iter().filter(|(_, item)| item.doomed && item.entry.object == object);
        doomed.map(|(&number, _)| number).collect()
    }

    /// Of the doomed of an object so many should have gone, and no others.
    fn follow(&mut self, object: u64, gone: usize, most: usize) {
        let doomed = self.doomed(object);
        assert_eq!(gone, doomed.len().min(most));
        let missing = |number: &usize| {
            let Item { table, handle, .. } = self.items[number];
            self.tables[table].entry(handle) == Err(Error::BadHandle)
        };
        let missing: Vec<_> = doomed.into_iter().filter(missing).collect();
        assert_eq!(missing.len(), gone);
        missing.into_iter().for_each(|number| self.forget(number));
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
                let entry = Entry { kind, rights: rights.and(Rights::ALL), object, badge };
                self.record(Item { entry, table, handle, parent: None, doomed: false });
            }
            Err(error) => {
                assert_eq!(expected, Err(error));
                self.objects.release(object);
            }
        }
    }

    /// The source of what is to be handed on, or what the tables should say.
    fn source(&self, from: usize, into: usize, handle: Handle) -> Result<(usize, Item), Error> {
        match self.item(from, handle) {
            None => Err(Error::BadHandle),
            Some((_, item)) if !item.entry.rights.has(Rights::GRANT) => Err(Error::MissingRight),
            Some(source) => self.sides[into].admits(ROOM[into]).map(|()| source),
        }
    }

    fn derive(
        &mut self,
        from: usize,
        into: usize,
        handle: Handle,
        rights: Rights,
        badge: u64,
    ) -> Option<Handle> {
        let expected = self.source(from, into, handle);
        let mut helped = 0;
        let acquire = |made: &Capability| {
            let Entry { kind, rights: all, object, .. } = expected.unwrap().1.entry;
            assert_eq!(*made, Capability { kind, rights: all.and(rights), object, badge });
            self.objects.acquire(object)
        };
        let sink = |gone: Gone| {
            helped += 1;
            self.objects.release(gone.object);
        };
        let derived = self.tables[from].derive(handle, &self.tables[into], (rights, badge), acquire, sink);
        if let Ok((_, source)) = expected {
            self.follow(source.entry.object, helped, 2);
        }
        match derived {
            Ok(handle) => {
                let (parent, source) = expected.unwrap();
                let entry = Entry { rights: source.entry.rights.and(rights), badge, ..source.entry };
                self.record(Item { entry, table: into, handle, parent: Some(parent), doomed: source.doomed });
                Some(handle)
            }
            Err(refusal) => {
                // The source itself may have been doomed, and one of those that went by the way.
                let error =
                    expected.and_then(|(number, _)| self.items.get(&number).ok_or(Error::BadHandle)).err();
                assert_eq!(Some(refusal.error), error);
                refusal.reference.into_iter().for_each(|gone| self.objects.release(gone.object));
                None
            }
        }
    }

    fn chain(&mut self, from: usize, handle: Handle, length: usize) {
        let mut link = Some((from, handle));
        for step in 0..length {
            let Some((table, handle)) = link else { return };
            let into = (from + step) % TABLES;
            link = self.derive(table, into, handle, Rights::ALL, 0).map(|new| (into, new));
        }
    }

    fn hand_over(&mut self, from: usize, into: usize, handle: Handle) {
        let expected = self.source(from, into, handle);
        match self.tables[from].move_to(handle, &self.tables[into]) {
            Ok(new) => {
                let (number, _) = expected.unwrap();
                self.sides[from].live.remove(&handle.0);
                self.sides[into].put(new, number);
                // A moment ago both slots were taken.
                self.known.push(new);
                let item = self.items.get_mut(&number).unwrap();
                (item.table, item.handle) = (into, new);
                if from == into {
                    let side = &mut self.sides[into];
                    side.peak = side.peak.max(side.live.len() + 1);
                }
            }
            Err(error) => assert_eq!(Some(error), expected.err()),
        }
    }

    fn delete(&mut self, table: usize, handle: Handle) {
        let item = self.item(table, handle);
        let expected = item
            .map(|(_, Item { entry, .. })| Gone {
                kind: entry.kind,
                rights: entry.rights,
                object: entry.object,
            })
            .ok_or(Error::BadHandle);
        let gone = self.tables[table].delete(handle);
        assert_eq!(gone, expected);
        if let Some((number, item)) = item {
            self.objects.release(item.entry.object);
            self.forget(number);
        }
    }

    fn revoke(&mut self, table: usize, handle: Handle, steps: usize) {
        let sentence = self.tables[table].doom(handle);
        let Some((ancestor, Item { entry: Entry { object, .. }, .. })) = self.item(table, handle) else {
            assert_eq!(sentence, Err(Error::BadHandle));
            return;
        };
        let condemned: Vec<_> =
            self.items.keys().copied().filter(|&number| self.descends(number, ancestor)).collect();
        assert!(
            sentence == Ok(Sentence::Doomed) || sentence == Ok(Sentence::Nothing) && condemned.is_empty()
        );
        for number in condemned {
            let item = self.items.get_mut(&number).unwrap();
            item.doomed = true;
            if item.parent == Some(ancestor) {
                item.parent = None;
            }
        }
        let mut gone = 0;
        let purged = cap::purge(self.tables[table].memory(), object, steps, |one| {
            assert_eq!((one.kind, one.object), (Objects::kind(object), object));
            gone += 1;
            self.objects.release(object);
        });
        self.follow(object, gone, steps);
        assert_eq!(purged == Purged::Done, self.doomed(object).is_empty());
    }

    fn lookup(&self, table: usize, handle: Handle, kind: ObjectKind, rights: Rights) {
        let entry = self.item(table, handle).map(|(_, item)| item.entry).ok_or(Error::BadHandle);
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
            Op::Chain { from, ref handle, length } => self.chain(from, self.handle(handle), length),
            Op::Move { from, into, ref handle } => self.hand_over(from, into, self.handle(handle)),
            Op::Delete { table, ref handle } => self.delete(table, self.handle(handle)),
            Op::Revoke { table, ref handle, steps } => self.revoke(table, self.handle(handle), steps),
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
            for (&handle, number) in &side.live {
                let entry = self.items[number].entry;
                assert_eq!(self.tables[table].entry(Handle(handle)), Ok(entry));
                *counts.entry(entry.object).or_insert(0) += 1;
            }
        }
        for object in 0..self.made {
            assert_eq!(self.objects.count(object), counts.get(&object).copied().unwrap_or(0));
        }
    }

    fn drain(&mut self) {
        for table in 0..TABLES {
            while self.tables[table].drain(7, |gone| {
                assert_eq!(gone.kind, Objects::kind(gone.object));
                self.objects.release(gone.object);
            }) == Drained::More
            {}
            assert_eq!((self.tables[table].count(), self.tables[table].memory().out()), (0, 0));
            let numbers: Vec<_> = self.sides[table].live.values().copied().collect();
            numbers.into_iter().for_each(|number| self.forget(number));
            self.compare_rest(table + 1);
        }
        assert!((0..self.made).all(|object| self.objects.count(object) == 0));
        assert_eq!(self.world.nodes(), 0);
    }

    /// What is left can be revoked by those of its ancestors that are left.
    fn compare_rest(&mut self, table: usize) {
        let handles: Vec<_> =
            self.sides.get(table).into_iter().flat_map(|side| side.live.keys().copied()).collect();
        for handle in handles.into_iter().take(3) {
            self.revoke(table, Handle(handle), usize::MAX);
        }
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
