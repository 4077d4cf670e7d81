//! The work of one thread in one arena: what is prepared once, what a window does, what lies between windows.

use super::contest::{Contestant, Player, Then, Window};
use super::peers::{Arena, Peer, Visit};
use mm::bench::{self, Block, FrameSource, Walk};
use mm::{FrameId, Order};
use perf::prng::Prng;
use std::time::{Duration, Instant};

/// What a window does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One block taken and given back, again and again.
    Pair,
    /// Sixty-four blocks taken, given back last to first.
    Burst,
    /// Half the arena taken, given back first to last.
    Bulk,
    /// Blocks given back in random order, into chunks that no core has reserved. Only the giving back is timed.
    PutRandom,
    /// The arena was filled, and a random half given back. Batches of 4,096 are taken and given back.
    Aged,
    /// The arena is half full with blocks of many orders; a random one is replaced.
    Mixed,
}

/// Blocks of one burst.
const BURST: usize = 64;
/// Operations of a window of short ones.
const SHORT: usize = 1_024;
/// Blocks of one batch in an aged arena.
const BATCH: usize = 4_096;
/// Blocks that [`Work::PutRandom`] scatters at once, all threads together.
const SCATTERED: usize = 1 << 18;
/// Windows are kept below a tenth of a millisecond, so that few of them meet the host's scheduler: longer work is timed in slices.
const SLICE: usize = 2_048;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What a window does.
    pub work: Work,
    /// The size of blocks, where they have one size.
    pub order: Order,
    /// Frames of the arena.
    pub frames: usize,
    /// Threads that share it.
    pub threads: u16,
    /// Seed of the random sequences.
    pub seed: u64,
}

impl Setup {
    /// Operations of one thread in one window.
    #[must_use]
    pub fn operations(&self) -> usize {
        let threads = usize::from(self.threads);
        let blocks = self.frames >> self.order.get();
        match self.work {
            Work::Pair | Work::Mixed => SHORT,
            Work::Burst => SHORT / BURST * BURST,
            Work::Bulk | Work::PutRandom => SLICE,
            // What the holes of all threads can serve at once, with room to spare.
            Work::Aged => BATCH.min(blocks / 8 / threads),
        }
    }
}

/// A frame allocator and the work it does.
pub struct Frames {
    arena: Arena,
    setup: Setup,
}

impl Frames {
    /// A fresh arena of a peer, or of ours.
    #[must_use]
    pub fn new(peer: Peer, setup: Setup) -> Self {
        Self { arena: Arena::new(peer, setup.frames), setup }
    }
}

impl Contestant for Frames {
    fn sit(&self, thread: u16, then: Then<'_>) {
        self.arena.enter(thread, Entry { setup: self.setup, thread, then });
    }
}

struct Entry<'t> {
    setup: Setup,
    thread: u16,
    then: Then<'t>,
}

impl Visit<()> for Entry<'_> {
    fn visit<S: FrameSource>(self, source: &mut S) {
        let state = State::new(self.setup, self.thread, source);
        (self.then)(Box::new(Seat { source, state }));
    }
}

struct Seat<'a, S: FrameSource> {
    source: &'a mut S,
    state: State,
}

impl<S: FrameSource> Player for Seat<'_, S> {
    fn window(&mut self) -> Option<Window> {
        self.state.window(self.source)
    }
}

/// A thread's state in one arena.
pub struct State {
    setup: Setup,
    blocks: Vec<FrameId>,
    live: Vec<Block>,
    taken: usize,
    prng: Prng,
    gets: Vec<Duration>,
}

impl State {
    /// Prepares the arena, once for each thread.
    pub fn new<S: FrameSource>(setup: Setup, thread: u16, source: &mut S) -> Self {
        let mut prng = Prng::stream(setup.seed, u32::from(thread));
        let share = (setup.frames >> setup.order.get()) / usize::from(setup.threads);
        let none = FrameId::new(0);
        let mut live = Vec::new();
        let blocks = match setup.work {
            Work::Burst => vec![none; BURST],
            Work::Aged => {
                // A few blocks are left to the others, whose private stocks may hold some.
                let mut all = vec![none; share - share / 64];
                let got = bench::get_all(source, setup.order, &mut all);
                all.truncate(got);
                bench::punch(source, setup.order, &mut all, &mut prng);
                source.drain();
                vec![none; setup.operations()]
            }
            Work::Mixed => {
                let target = setup.frames / 2 / usize::from(setup.threads);
                live = vec![Block { frame: none, order: Order::FRAME }; target];
                Vec::new()
            }
            Work::Pair => Vec::new(),
            Work::Bulk => vec![none; share / 2 / SLICE * SLICE],
            Work::PutRandom => vec![none; SCATTERED / usize::from(setup.threads)],
        };
        let mut state = Self { setup, blocks, live, taken: 0, prng, gets: Vec::new() };
        if setup.work == Work::Mixed {
            state.age(source);
        }
        state
    }

    /// Half full, and every block replaced once, so that nothing lies in the order of its allocation.
    fn age<S: FrameSource>(&mut self, source: &mut S) {
        let target = self.live.len();
        let mut walk = Walk::new(&mut self.live);
        walk.fill(source, target, &mut self.prng);
        let count = walk.blocks().len();
        walk.replace(source, count, &mut self.prng);
        self.taken = walk.blocks().len();
    }

    /// One window; nothing if memory ran out.
    pub fn window<S: FrameSource>(&mut self, source: &mut S) -> Option<Window> {
        match self.setup.work {
            Work::Bulk => return self.bulk_slice(source),
            Work::PutRandom if self.taken == 0 => self.scatter(source)?,
            _ => {}
        }
        let start = Instant::now();
        let fine = self.timed(source);
        let length = start.elapsed();
        fine.then_some(Window::Sample(length))
    }

    fn scatter<S: FrameSource>(&mut self, source: &mut S) -> Option<()> {
        let got = bench::get_all(source, self.setup.order, &mut self.blocks);
        self.prng.shuffle(&mut self.blocks);
        // What this core keeps reserved would be cheaper to free: nobody's chunks are the harder case.
        source.drain();
        self.taken = got;
        (got == self.blocks.len()).then_some(())
    }

    /// A slice of half the arena: first all slices are taken, then all are given back. A sample is a slice's both times.
    fn bulk_slice<S: FrameSource>(&mut self, source: &mut S) -> Option<Window> {
        let order = self.setup.order;
        let slices = self.blocks.len() / SLICE;
        let index = self.taken % slices;
        let slice = self.blocks.get_mut(index * SLICE..)?.get_mut(..SLICE)?;
        self.taken = (self.taken + 1) % (2 * slices);
        let start = Instant::now();
        if self.gets.len() < slices && self.taken != 0 && self.taken <= slices {
            let got = bench::get_all(source, order, slice);
            self.gets.push(start.elapsed());
            return (got == SLICE).then_some(Window::Part);
        }
        bench::put_all(source, order, slice);
        let both = start.elapsed() + self.gets.get(index).copied()?;
        if self.taken == 0 {
            self.gets.clear();
        }
        Some(Window::Sample(both))
    }

    /// What a window times; says whether memory sufficed.
    #[inline(always)]
    fn timed<S: FrameSource>(&mut self, source: &mut S) -> bool {
        let order = self.setup.order;
        match self.setup.work {
            Work::Pair => match order {
                // The order is a constant in a kernel's page-fault path; it is here too.
                Order::FRAME => bench::pairs(source, Order::FRAME, SHORT),
                order => bench::pairs(source, order, SHORT),
            },
            Work::Burst => (0..SHORT / BURST).all(|_| bench::burst(source, order, &mut self.blocks)),
            Work::Aged => bench::burst(source, order, &mut self.blocks),
            Work::Bulk | Work::PutRandom => {
                let rest = self.taken - SLICE;
                bench::put_all(source, order, self.blocks.get(rest..self.taken).unwrap_or_default());
                self.taken = rest;
                true
            }
            Work::Mixed => {
                let mut walk = Walk::resume(&mut self.live, self.taken);
                walk.replace(source, SHORT, &mut self.prng);
                self.taken = walk.blocks().len();
                walk.refused == 0
            }
        }
    }
}
