//! The frame allocator when memory runs out, and when all cores want it at once.

use mm::frames::{Policy, Request, Stats};
use mm::{FrameError, FrameId, Order, Zone};
use percpu::Held;
use percpu::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use perf::prng::Prng;

use super::bed::{Blame, Deadline, Scratch, get, order, put};
use super::frames::{frames_of, give_back, word};
use super::{Bed, Result, Verdict, ensure, failed};
use crate::{cores, machine, memory};

/// Any number of blocks: a list whose links lie in the blocks themselves, since what holds them cannot be allocated when all is taken.
/// Only the first frame of a block is touched.
pub(super) struct Hoard {
    newest: Option<(FrameId, Order)>,
    /// Frames in it.
    frames: usize,
}

/// A link in one word: frame number, then order; 0 for none.
fn pack(block: Option<(FrameId, Order)>) -> u64 {
    block.map_or(0, |(frame, order)| (frame.number() as u64) << 8 | u64::from(order.raw()) | VALID)
}

/// Tells a link to block 0 from none.
const VALID: u64 = 1 << 63;

fn unpack(link: u64) -> Option<(FrameId, Order)> {
    let order = Order::new((link & 0xff) as u8)?;
    (link & VALID != 0).then(|| (FrameId::new(((link & !VALID) >> 8) as usize), order))
}

impl Hoard {
    pub(super) const fn new() -> Self {
        Self { newest: None, frames: 0 }
    }

    fn push(&mut self, frame: FrameId, order: Order) {
        // ORDER: Relaxed; the list belongs to one core.
        word(frame).store(pack(self.newest), Ordering::Relaxed);
        self.newest = Some((frame, order));
        self.frames += order.frames();
    }

    fn pop(&mut self) -> Option<(FrameId, Order)> {
        let (frame, order) = self.newest?;
        // ORDER: Relaxed; as above.
        self.newest = unpack(word(frame).load(Ordering::Relaxed));
        self.frames -= order.frames();
        Some((frame, order))
    }

    /// Takes blocks of one order, `count` at most; returns why there are no more.
    fn take(&mut self, order: Order, request: Request, count: usize) -> Option<FrameError> {
        for _ in 0..count {
            match get(order, request) {
                Ok(frame) => self.push(frame, order),
                Err(error) => return Some(error),
            }
        }
        None
    }

    /// Takes everything, the largest blocks first; returns why there is no more.
    pub(super) fn fill(&mut self, top: Order, request: Request) -> Option<FrameError> {
        (0..=top.raw()).rev().map(|number| self.take(order(number), request, usize::MAX)).last().flatten()
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) -> Result {
        while let Some((frame, order)) = self.pop() {
            give_back(frame, order.raw())?;
        }
        Ok(())
    }
}

/// Chunks that are used up frame by frame. The rest goes in large blocks, of which one frame each is touched: an emulator finds room for
/// every frame that is.
const SPARE: usize = 12;

/// Everything is taken: that is an error, not a panic, on every core. After everything is given back there is as much of every size as
/// before.
///
/// Planted: `Index::set_run` sets one bit too few; normal requests may use the DMA zone. With 8 GiB it has found blocks of 256 MiB that were
/// not aligned and could not be given back.
pub(super) fn exhaust(bed: &mut Bed) -> Result {
    let frames = memory::frames();
    let before = (frames.stats(), free_blocks());
    let mut hoards = [const { Hoard::new() }; 3];
    let judged = use_up(bed, &mut hoards, before.0);
    hoards.iter_mut().try_for_each(Hoard::release)?;
    memory::drain_all(&mut bed.crew);
    judged?;
    let after = (frames.stats(), free_blocks());
    ensure!(before == after, "before {before:?}, after {after:?}");
    Ok(())
}

/// How many blocks of 2 MiB, and of 1 GiB, could be had at once.
fn free_blocks() -> [usize; 2] {
    [Order::HUGE, Order::GIANT].map(|order| memory::frames().free_blocks(order))
}

fn use_up(bed: &mut Bed, [spare, rest, small]: &mut [Hoard; 3], before: Stats) -> Result {
    spare.take(Order::HUGE, Request::LOCAL, SPARE);
    let chunks = spare.frames / Order::HUGE.frames();
    let kept = dma_free();
    let end = rest.fill(Order::MAX, Request::LOCAL);
    ensure!(end == Some(FrameError::OutOfMemory), "the end of memory is {end:?}");
    ensure!(dma_free() == kept, "normal requests took {} frames for old devices", kept - dma_free());
    rest.fill(Order::MAX, Request::zone(Zone::Dma));
    let left = memory::frames().stats().free;
    ensure!(left == 0, "{left} frames are free and cannot be had");
    let had = spare.frames + rest.frames;
    ensure!(had == before.free, "{} frames were free, {had} could be had", before.free);
    refused_everywhere(bed)?;
    spare.release()?;
    let end = small.take(Order::FRAME, Request::LOCAL, usize::MAX);
    ensure!(end == Some(FrameError::OutOfMemory), "the end of single frames is {end:?}");
    let wanted = chunks * Order::HUGE.frames();
    ensure!(small.frames == wanted, "{wanted} frames were free, {} single ones could be had", small.frames);
    refused_everywhere(bed)?;
    // Given back with gaps first, so that chunks come together from both sides.
    let mut second = Hoard::new();
    while let Some((frame, order)) = small.pop() {
        if frame.number() % 3 == 0 {
            second.push(frame, order);
        } else {
            give_back(frame, order.raw())?;
        }
    }
    second.release()
}

fn dma_free() -> usize {
    machine::topology().nodes().map(|node| memory::frames().zone_stats(node, Zone::Dma).free).sum()
}

/// No core gets a block of any order from anywhere.
fn refused_everywhere(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        for number in 0..=Order::MAX.raw() {
            blame.note(refused(held, number));
        }
    });
    blame.verdict()
}

fn refused(held: &Held<'_, 0>, number: u8) -> Result {
    let all = machine::topology().nodes().collect();
    for policy in [Policy::Local, Policy::Interleave(all)] {
        let found = get(order(number), Request::policy(policy));
        let core = held.core();
        ensure!(found == Err(FrameError::OutOfMemory), "{core}, order {number}, {policy:?}: {found:?}");
    }
    Ok(())
}

/// Blocks that a core holds at most, and places through which cores exchange them.
const LIVE: usize = 24;
const PLACES: usize = 32;
/// Orders of the storm: up to 8 MiB, so that blocks of several chunks are among them.
const STORM_ORDERS: u64 = 12;
/// Steps of a core, at most.
const STEPS: u64 = 2_000;
const STORM_MS: u64 = 1_000;
/// One step in so many gives back what the core has reserved.
const DRAIN_EVERY: u64 = 16;

/// What all cores of the storm share.
struct Storm {
    places: Scratch<AtomicU64>,
    /// Part of every mark, so that what an earlier run left in memory is not taken for one.
    salt: u64,
    taken: AtomicUsize,
    given_back: AtomicUsize,
}

/// All cores take and give back at random, their own blocks and each other's. Every frame carries the mark of its block while it is taken,
/// so a frame that is given out twice is seen by both who have it; and the counts must come out even.
///
/// Planted: `Word::take_frame` leaves the bit it took in one case of 64; `Index::claim_run` reads and clears in two steps; so does
/// `Index::clear`.
pub(super) fn storm(bed: &mut Bed) -> Result {
    let storm = Storm {
        places: Scratch::new(PLACES, |_| AtomicU64::new(0))?,
        salt: Prng::new(bed.seed).bits() | 1 << 63,
        taken: AtomicUsize::new(0),
        given_back: AtomicUsize::new(0),
    };
    let (seed, deadline, blame) = (bed.seed, Deadline::after_ms(STORM_MS), Blame::new());
    bed.crew.run(&cores::all_online(), |held| {
        let prng = Prng::stream(seed, u32::from(held.core().raw()));
        let mut core = Part { storm: &storm, prng, live: [None; LIVE] };
        let worked = core.work(held, deadline);
        blame.note(worked.and(core.end()));
    });
    for place in storm.places.iter() {
        // ORDER: Relaxed; the call's completion published it.
        blame.note(unpack(place.load(Ordering::Relaxed)).map_or(Ok(()), |block| storm.give_back(block)));
    }
    blame.verdict()?;
    // ORDER: Relaxed, both; as above.
    let taken = storm.taken.load(Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    let given_back = storm.given_back.load(Ordering::Relaxed);
    ensure!(taken > 0 && taken == given_back, "{taken} blocks taken, {given_back} given back");
    Ok(())
}

impl Storm {
    /// What every frame of a block carries while it is taken.
    fn mark(&self, (frame, order): (FrameId, Order)) -> u64 {
        self.salt ^ ((frame.number() as u64) << 8 | u64::from(order.raw()))
    }

    /// The block that a mark names, if it is one: what lies in memory by chance names one in 2^24 times.
    fn marked(&self, mark: u64) -> Option<(FrameId, Order)> {
        let plain = mark ^ self.salt;
        (plain >> 40 == 0)
            .then(|| Order::new(plain as u8).map(|order| (FrameId::new((plain >> 8) as usize), order)))?
    }

    fn take(&self, order: Order) -> core::result::Result<Option<(FrameId, Order)>, Verdict> {
        let frame = match get(order, Request::LOCAL) {
            Ok(frame) => frame,
            Err(FrameError::OutOfMemory | FrameError::Held) => return Ok(None),
            Err(error) => return Err(failed(format_args!("a block of {order:?}: {error:?}"))),
        };
        for own in frames_of(frame, order) {
            // ORDER: AcqRel: Release pairs with Acquire of whoever has the frame too; Acquire with its Release.
            let before = word(own).swap(self.mark((frame, order)), Ordering::AcqRel);
            if let Some(other) = self.marked(before) {
                return Err(failed(format_args!(
                    "{own:?} of {frame:?} {order:?} is taken already, as part of {other:?}"
                )));
            }
        }
        // ORDER: Relaxed; the call's completion publishes it.
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Some((frame, order)))
    }

    fn give_back(&self, (frame, order): (FrameId, Order)) -> Result {
        for own in frames_of(frame, order) {
            // ORDER: AcqRel; as in `take`.
            let found = word(own).swap(0, Ordering::AcqRel);
            ensure!(
                found == self.mark((frame, order)),
                "{own:?} of {frame:?} {order:?} was marked by {:?}",
                self.marked(found)
            );
        }
        // ORDER: Relaxed; the call's completion publishes it.
        self.given_back.fetch_add(1, Ordering::Relaxed);
        let refused = put(frame, order);
        ensure!(refused.is_ok(), "giving back {frame:?} {order:?}: {refused:?}");
        Ok(())
    }
}

/// One core's part of the storm.
struct Part<'a> {
    storm: &'a Storm,
    prng: Prng,
    live: [Option<(FrameId, Order)>; LIVE],
}

impl Part<'_> {
    fn work(&mut self, held: &Held<'_, 0>, deadline: Deadline) -> Result {
        for step in 0..STEPS {
            if step > 16 && deadline.is_over() {
                break;
            }
            self.step()?;
            if self.prng.below(DRAIN_EVERY) == 0 {
                memory::with(held, |frames, cache| frames.drain(cache));
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result {
        let at = self.prng.below(LIVE as u64) as usize;
        let Some(block) = self.live[at].take() else {
            // Small blocks more often: the smaller of two.
            let number = self.prng.below(STORM_ORDERS).min(self.prng.below(STORM_ORDERS)) as u8;
            self.live[at] = self.storm.take(order(number))?;
            return Ok(());
        };
        if self.prng.bits() & 1 == 0 {
            return self.storm.give_back(block);
        }
        let place = &self.storm.places[self.prng.below(PLACES as u64) as usize];
        // ORDER: AcqRel: a block goes with what its core did to it, and comes with what the other did.
        match unpack(place.swap(pack(Some(block)), Ordering::AcqRel)) {
            Some(other) => self.storm.give_back(other),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result {
        let storm = self.storm;
        self.live.iter_mut().filter_map(Option::take).try_for_each(|block| storm.give_back(block))
    }
}
