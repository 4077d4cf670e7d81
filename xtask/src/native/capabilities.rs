//! The rows of capability tables: looking up, beside registries of generational handles.
//!
//! Every entry holds the handle of another one, and all together are one ring in random order, so that a lookup begins when the one before
//! has ended. Everybody checks a kind and a right, which the peers keep in the entry; a table's handle is worth 64 bits, as theirs are.

use super::Native;
use super::contest::{Contestant, Match, Player, Then, Window};
use super::rows::{self, NativeMeter, SITE};
use abi::cap::{Handle, ObjectKind, Rights};
use cap::{Capability, Doomed, Family, Leaf, LeafAt, Memory, Node, NodeAt, SLOTS, Table, TableAt, Ticket};
use core::ptr::NonNull;
use perf::bench::{Bench, Case, Placement, Value};
use perf::prng::Prng;
use perf::runner::Trouble;
use sharded_slab::Slab;
use slotmap::{DefaultKey, Key, KeyData, SlotMap};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::hint::black_box;
use std::time::Instant;

/// Entries: one, what fits into a core's caches, and as many as a table can have.
const ENTRIES: [usize; 3] = [1, 4_096, SLOTS - 1];
/// Lookups of a window.
const LOOKUPS: usize = 1_024;

const KIND: ObjectKind = ObjectKind::Endpoint;
const RIGHTS: Rights = Rights::SEND;

pub(super) const LOOKUP: Bench<Native> = rows::timed(
    "cap.lookup",
    "the entry of a handle, of a kind and with a right; each names the next one, in random order",
    cases,
    run,
);

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Registry {
    Ours,
    SlotMap,
    ShardedSlab,
}

impl Registry {
    const ALL: [Self; 3] = [Self::Ours, Self::SlotMap, Self::ShardedSlab];

    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::SlotMap => Some("slotmap"),
            Self::ShardedSlab => Some("sharded-slab"),
        }
    }

    fn contestant(self, entries: usize, seed: u64) -> Option<Box<dyn Contestant>> {
        Some(match self {
            Self::Ours => Box::new(Ring::new(|| Table::new(Heap, SLOTS - 1), entries, seed)?),
            Self::SlotMap => Box::new(Ring::new(SlotMap::<DefaultKey, Entry>::new, entries, seed)?),
            Self::ShardedSlab => Box::new(Ring::new(Slab::<Entry>::new, entries, seed)?),
        })
    }
}

fn cases(native: &Native, visit: &mut dyn FnMut(Case)) {
    for entries in ENTRIES {
        for cores in 1..=2u16.min(native.cores()) {
            for registry in Registry::ALL {
                let placement =
                    if cores == 1 { Placement::alone(SITE) } else { Placement::scaling(u32::from(cores)) };
                let case = Case::new(placement)
                    .with("entries", Value::Num(u64::try_from(entries).unwrap_or(0)))
                    .with("cores", Value::Num(u64::from(cores)));
                let case = match registry.word() {
                    Some(word) => case.with("peer", Value::Word(word)),
                    None => case,
                };
                visit(case.batch(u32::try_from(LOOKUPS).unwrap_or(u32::MAX)));
            }
        }
    }
}

fn run(native: &mut Native, case: &Case, meter: &mut NativeMeter<'_>) -> Result<(), Trouble> {
    let number = |name| case.params.num(name);
    let threads = number("cores").and_then(|cores| u16::try_from(cores).ok()).unwrap_or(1);
    let entries = number("entries").and_then(|entries| usize::try_from(entries).ok()).unwrap_or(1);
    let peer = Registry::ALL.into_iter().find(|registry| registry.word() == case.params.word("peer"));
    let peer = peer.ok_or(Trouble::Failed("the case names an unknown peer"))?;
    let both = [Registry::Ours, peer];
    let registries = if peer == Registry::Ours { &both[..1] } else { &both[..] };
    let contestants = registries.iter().map(|registry| registry.contestant(entries, native.seed()));
    let contestants = contestants.collect::<Option<_>>().ok_or(Trouble::Failed("the ring is none"))?;
    rows::measure(native, meter, &Match { contestants, operations: LOOKUPS, threads })
}

/// What peers keep for a handle: as much as a slot does.
#[derive(Clone, Copy)]
struct Entry {
    object: u64,
    _badge: u64,
    kind: ObjectKind,
    rights: Rights,
}

impl Entry {
    const fn new(object: u64) -> Self {
        Self { object, _badge: 0, kind: KIND, rights: Rights::ALL }
    }

    fn object(self) -> Option<u64> {
        (self.kind == KIND && self.rights.has(RIGHTS)).then_some(self.object)
    }
}

/// A registry of objects by handles.
trait Lookup: Sync {
    /// Puts an object in.
    fn insert(&mut self, object: u64) -> Option<u64>;

    /// The object of a handle.
    fn find(&self, handle: u64) -> Option<u64>;
}

impl Lookup for Table<Heap> {
    fn insert(&mut self, object: u64) -> Option<u64> {
        let capability = Capability { kind: KIND, rights: Rights::ALL, object, badge: 0 };
        Table::insert(self, capability).ok().map(|handle| handle.0)
    }

    #[inline(always)]
    fn find(&self, handle: u64) -> Option<u64> {
        self.lookup(Handle(handle), KIND, RIGHTS).ok().map(|found| found.object)
    }
}

impl Lookup for SlotMap<DefaultKey, Entry> {
    fn insert(&mut self, object: u64) -> Option<u64> {
        Some(SlotMap::insert(self, Entry::new(object)).data().as_ffi())
    }

    #[inline(always)]
    fn find(&self, handle: u64) -> Option<u64> {
        self.get(DefaultKey::from(KeyData::from_ffi(handle)))?.object()
    }
}

impl Lookup for Slab<Entry> {
    fn insert(&mut self, object: u64) -> Option<u64> {
        Slab::insert(self, Entry::new(object)).and_then(|key| u64::try_from(key).ok())
    }

    #[inline(always)]
    fn find(&self, handle: u64) -> Option<u64> {
        self.get(usize::try_from(handle).ok()?)?.object()
    }
}

/// Entries each of which holds the handle of the next.
struct Ring<L> {
    registry: L,
    first: u64,
    entries: usize,
}

impl<L: Lookup> Ring<L> {
    /// Fills a registry, after another one has shown which handles there will be.
    fn new(make: impl Fn() -> L, entries: usize, seed: u64) -> Option<Self> {
        let mut registry = make();
        let handles: Vec<u64> = (0..entries).map(|_| registry.insert(0)).collect::<Option<_>>()?;
        let mut order: Vec<usize> = (0..entries).collect();
        Prng::new(seed).shuffle(&mut order);
        let mut next = vec![0; entries];
        let following = order.iter().cycle().skip(1);
        order.iter().zip(following).for_each(|(&one, &other)| next[one] = handles[other]);
        let mut registry = make();
        let again = next.iter().map(|&next| registry.insert(next)).collect::<Option<Vec<_>>>()?;
        let ring = Self { registry, first: *handles.first()?, entries };
        (again == handles && ring.is_whole()).then_some(ring)
    }

    /// It comes back to its beginning after as many steps as there are entries, and not before.
    fn is_whole(&self) -> bool {
        let mut at = Some(self.first);
        let steps = (1..=self.entries).find(|_| {
            at = at.and_then(|handle| self.registry.find(handle));
            at.is_none_or(|handle| handle == self.first)
        });
        at == Some(self.first) && steps == Some(self.entries)
    }
}

impl<L: Lookup> Contestant for Ring<L> {
    fn sit(&self, thread: u16, then: Then<'_>) {
        // The second thread begins elsewhere.
        let ahead = usize::from(thread) * self.entries / 2;
        let at = (0..ahead).try_fold(self.first, |at, _| self.registry.find(at)).unwrap_or(self.first);
        then(Box::new(Seat { registry: &self.registry, at }));
    }
}

struct Seat<'a, L> {
    registry: &'a L,
    at: u64,
}

impl<L: Lookup> Player for Seat<'_, L> {
    fn window(&mut self) -> Option<Window> {
        let start = Instant::now();
        let end = (0..LOOKUPS).try_fold(self.at, |at, _| self.registry.find(black_box(at)));
        let length = start.elapsed();
        self.at = end?;
        Some(Window::Sample(length))
    }
}

/// Leaves from the heap; there are no nodes, since nothing is derived.
struct Heap;

static LOCK: Ticket = Ticket::new();
static DOOMED: Doomed = Doomed::new();

impl Memory for Heap {
    fn take(&self) -> Option<NonNull<Leaf>> {
        // SAFETY: a leaf is not empty.
        NonNull::new(unsafe { alloc_zeroed(Layout::new::<Leaf>()) }).map(NonNull::cast)
    }

    #[inline(always)]
    fn leaf(&self, at: LeafAt) -> &Leaf {
        // SAFETY: one that `take` gave, or the empty one; zeros are words, and all are atomic.
        unsafe { &*at.pointer() }
    }

    fn give_back(&self, leaf: LeafAt) {
        // SAFETY: from `take`, given back once; no thread looks anything up in a table that is drained.
        unsafe { dealloc(leaf.pointer().cast(), Layout::new::<Leaf>()) };
    }

    fn take_node(&self) -> Option<NonNull<Node>> {
        None
    }

    fn node(&self, _: NodeAt) -> &Node {
        unreachable!("no node was given")
    }

    fn give_node(&self, _: NodeAt) {}

    fn table(&self, _: TableAt<Self>) -> &Table<Self> {
        unreachable!("no node names a table")
    }

    fn family(&self, _: u64) -> Family<'_> {
        Family { lock: &LOCK, doomed: &DOOMED }
    }

    fn disarm(&self, _: NonNull<()>) {}
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES, Registry};

    #[test]
    fn everybody_goes_round() {
        for registry in Registry::ALL {
            for entries in ENTRIES {
                assert!(registry.contestant(entries, 1).is_some(), "{registry:?} {entries}");
            }
        }
    }
}
