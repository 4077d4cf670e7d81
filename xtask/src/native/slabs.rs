//! The rows of slabs and heaps.

use super::Native;
use super::contest::{Contestant, Match, Player, Then, Window};
use super::heaps::{Arena, Heap, Objects, Visit};
use super::rows::{self, NativeMeter, SITE};
use core::alloc::Layout;
use mm::bench::heap::{self, Change, HeapSource, Piece, Pieces};
use perf::bench::{Bench, Case, Placement, Value};
use perf::prng::Prng;
use perf::runner::Trouble;
use std::sync::Mutex;
use std::time::Instant;

/// What a window does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// One object taken and given back, again and again.
    Pair,
    /// [`BURST`] objects taken, given back last to first.
    Burst,
    /// [`LIVE`] pieces of any size; a random one is replaced.
    Mixed,
    /// [`BURST`] objects taken, then as many given back that the other thread has taken.
    Cross,
}

/// Objects of one burst.
const BURST: usize = 256;
/// Operations of a window.
const SHORT: usize = 1_024;
/// Pieces in use in a mix.
const LIVE: usize = 512;
/// Replacements that are drawn in advance, so that drawing is not measured.
const SCRIPT: usize = 16 * SHORT;
/// Sizes of objects.
const SIZES: [usize; 3] = [64, 256, 1024];

pub(super) const PAIR: Bench<Native> = rows::timed(
    "slab.pair",
    "one object taken and given back, again and again",
    |native, visit| SIZES.iter().for_each(|&bytes| cases(native, Work::Pair, Some(bytes), visit)),
    |native, case, meter| run(native, case, meter, Work::Pair),
);

pub(super) const BURSTS: Bench<Native> = rows::timed(
    "slab.burst",
    "256 objects taken, given back last to first; per object",
    |native, visit| SIZES.iter().for_each(|&bytes| cases(native, Work::Burst, Some(bytes), visit)),
    |native, case, meter| run(native, case, meter, Work::Burst),
);

pub(super) const MIXED: Bench<Native> = rows::timed(
    "slab.mixed",
    "a random one of 512 pieces replaced by one of 9 to 2048 bytes, each doubling as likely",
    |native, visit| cases(native, Work::Mixed, None, visit),
    |native, case, meter| run(native, case, meter, Work::Mixed),
);

pub(super) const CROSS: Bench<Native> = rows::timed(
    "slab.xfree",
    "an object taken, and one given back that another thread has taken; 256 at once",
    |native, visit| cases(native, Work::Cross, Some(64), visit),
    |native, case, meter| run(native, case, meter, Work::Cross),
);

fn cases(native: &Native, work: Work, bytes: Option<usize>, visit: &mut dyn FnMut(Case)) {
    let least = if work == Work::Cross { 2 } else { 1 };
    for cores in least..=2u16.min(native.cores()) {
        for heap in Heap::ALL {
            let placement =
                if cores == 1 { Placement::alone(SITE) } else { Placement::scaling(u32::from(cores)) };
            let mut case = Case::new(placement);
            if let Some(bytes) = bytes {
                case = case.with("bytes", Value::Num(u64::try_from(bytes).unwrap_or(0)));
            }
            case = case.with("cores", Value::Num(u64::from(cores)));
            if let Some(word) = heap.word() {
                case = case.with("peer", Value::Word(word));
            }
            visit(case.batch(u32::try_from(operations(work)).unwrap_or(u32::MAX)));
        }
    }
}

const fn operations(work: Work) -> usize {
    match work {
        Work::Pair | Work::Mixed => SHORT,
        Work::Burst => SHORT / BURST * BURST,
        Work::Cross => BURST,
    }
}

fn run(native: &mut Native, case: &Case, meter: &mut NativeMeter<'_>, work: Work) -> Result<(), Trouble> {
    let heap = Heap::of(case.params.word("peer")).ok_or(Trouble::Failed("the case names an unknown peer"))?;
    let number = |name| case.params.num(name);
    let threads = number("cores").and_then(|cores| u16::try_from(cores).ok()).unwrap_or(1);
    let bytes = number("bytes").and_then(|bytes| usize::try_from(bytes).ok());
    let seed = native.seed();
    let both = [Heap::Ours, heap];
    let heaps = if heap == Heap::Ours { &both[..1] } else { &both[..] };
    let contestant = |&heap: &Heap| Box::new(Table::new(heap, work, bytes, seed)) as Box<dyn Contestant>;
    let contestants = heaps.iter().map(contestant).collect();
    rows::measure(native, meter, &Match { contestants, operations: operations(work), threads })
}

/// A heap, and what is done with it.
struct Table {
    arena: Arena,
    work: Work,
    bytes: Option<usize>,
    seed: u64,
    /// What each thread has taken for the other, in this window and in the one before.
    mail: [[Mutex<Vec<Option<Piece>>>; 2]; 2],
}

impl Table {
    fn new(heap: Heap, work: Work, bytes: Option<usize>, seed: u64) -> Self {
        Self { arena: Arena::new(heap), work, bytes, seed, mail: Default::default() }
    }
}

impl Contestant for Table {
    fn sit(&self, thread: u16, then: Then<'_>) {
        let objects = self.bytes.map_or(Objects::Any, Objects::Of);
        self.arena.enter(thread, objects, Entry { table: self, thread, then });
    }
}

struct Entry<'t> {
    table: &'t Table,
    thread: u16,
    then: Then<'t>,
}

impl Visit for Entry<'_> {
    fn visit<S: HeapSource>(self, source: &mut S) {
        let Entry { table, thread, then } = self;
        let mut prng = Prng::stream(table.seed, u32::from(thread));
        let script = match table.work {
            Work::Mixed => (0..SCRIPT).map(|_| Change::random(LIVE, &mut prng)).collect(),
            _ => Vec::new(),
        };
        let room = if table.work == Work::Mixed { LIVE } else { BURST };
        let buffer = (0..room).map(|_| None).collect();
        then(Box::new(Seat { source, table, thread: usize::from(thread), buffer, script, at: 0 }));
    }
}

struct Seat<'a, S: HeapSource> {
    source: &'a mut S,
    table: &'a Table,
    thread: usize,
    buffer: Vec<Option<Piece>>,
    script: Vec<Change>,
    at: usize,
}

impl<S: HeapSource> Player for Seat<'_, S> {
    fn window(&mut self) -> Option<Window> {
        if self.table.work == Work::Cross {
            return self.cross();
        }
        let start = Instant::now();
        let fine = self.timed();
        let length = start.elapsed();
        fine.then_some(Window::Sample(length))
    }
}

/// The layout of objects of a size, for those that are measured.
const fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, 8) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<u64>(),
    }
}

impl<S: HeapSource> Seat<'_, S> {
    #[inline(always)]
    fn timed(&mut self) -> bool {
        let source = &mut *self.source;
        match (self.table.work, self.table.bytes) {
            // The size is a constant wherever a kernel allocates; it is here too.
            (Work::Pair, Some(64)) => heap::pairs(source, const { layout(64) }, SHORT),
            (Work::Pair, Some(256)) => heap::pairs(source, const { layout(256) }, SHORT),
            (Work::Pair, Some(1024)) => heap::pairs(source, const { layout(1024) }, SHORT),
            (Work::Mixed, _) => {
                let script = self.script.get(self.at..self.at + SHORT).unwrap_or_default();
                self.at = (self.at + SHORT) % SCRIPT;
                // SAFETY: the buffer is this seat's, whose source is always the same.
                unsafe { Pieces::new(&mut self.buffer, LIVE) }.replace(source, script)
            }
            (_, bytes) => {
                let layout = layout(bytes.unwrap_or(64));
                (0..SHORT / BURST).all(|_| {
                    // SAFETY: as above.
                    let mut pieces = unsafe { Pieces::new(&mut self.buffer, 0) };
                    let fine = pieces.fill(source, layout);
                    pieces.clear(source);
                    fine
                })
            }
        }
    }

    /// Takes a batch for the other thread and gives back the one that it has taken a window before.
    fn cross(&mut self) -> Option<Window> {
        let (own, other) =
            (&self.table.mail[self.thread][self.at], &self.table.mail[1 - self.thread][1 - self.at]);
        self.at = 1 - self.at;
        let mut theirs = core::mem::take(&mut *other.lock().ok()?);
        let count = theirs.len();
        let start = Instant::now();
        // SAFETY: the buffer's pieces go to the other thread's source, which is of the same heap.
        let fine = unsafe { Pieces::new(&mut self.buffer, 0) }.fill(self.source, const { layout(64) });
        // SAFETY: they come from the other thread's source, which is of the same heap.
        unsafe { Pieces::new(&mut theirs, count) }.clear_in_order(self.source);
        let length = start.elapsed();
        // The emptied buffer is the next one's room; a fresh one comes with the first window.
        theirs.resize_with(BURST, || None);
        *own.lock().ok()? = core::mem::replace(&mut self.buffer, theirs);
        let window = if count == BURST { Window::Sample(length) } else { Window::Part };
        fine.then_some(window)
    }
}
