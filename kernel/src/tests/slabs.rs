//! Memory of all sizes on all cores at once, freed anywhere, and what happens when there is no more.

use core::alloc::Layout;
use core::ptr::NonNull;

use mm::bank::{Bank, BankError};
use mm::slab::{Banked, Cache, Local, MAX_SMALL, SlabError};
use percpu::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use percpu::{CoreId, Held, core_local};
use perf::prng::Prng;
use x86_64::{PhysAddr, VirtAddr};

use super::bed::{Blame, Scratch, nearest, node_at};
use super::{Bed, Result, ensure, failed};
use crate::cores::{self, Crew};
use crate::layout::DIRECT;
use crate::slabs::{HERE, Near, SIZES};
use crate::{machine, memory};

/// Pieces that one core has at once in the first test, and turns of each core in the second.
const PIECES: usize = 300;
const TURNS: usize = 4_000;
/// Places for pieces on their way, in the second test.
const PLACES: usize = 256;

/// A piece: its bytes in the first word, then words that its address and its size determine.
#[derive(Clone, Copy)]
struct Piece(NonNull<usize>);

const WORD: usize = size_of::<usize>();

impl Piece {
    fn layout(words: usize) -> Option<Layout> {
        Layout::from_size_align(words * WORD, WORD).ok()
    }

    fn mark(self, index: usize, words: usize) -> usize {
        self.0.addr().get().rotate_left(17) ^ index.wrapping_mul(0x9e37_79b9) ^ words
    }

    /// Takes one of so many words and marks it.
    fn take(held: &Held<'_, 0>, words: usize) -> Option<Self> {
        let at = HERE.owned(held).allocate(Self::layout(words)?).ok()?;
        let piece = Self(at.cast());
        for index in 0..words {
            let value = if index == 0 { words } else { piece.mark(index, words) };
            // SAFETY: within the piece, which was just handed out.
            let word = unsafe { piece.0.add(index) };
            // SAFETY: as above.
            unsafe { word.write(value) };
        }
        Some(piece)
    }

    /// Whether nobody has written to it; if so, spoils it, so that a second user would notice.
    fn check(self) -> core::result::Result<usize, ()> {
        // SAFETY: a piece that was taken has a word at least.
        let words = unsafe { self.0.read() };
        if words == 0 || words * WORD > MAX_SMALL {
            return Err(());
        }
        for index in 1..words {
            // SAFETY: within the piece.
            let word = unsafe { self.0.add(index) };
            // SAFETY: as above.
            if unsafe { word.read() } != self.mark(index, words) {
                return Err(());
            }
            // SAFETY: as above; the piece is ours.
            unsafe { word.write(usize::MAX) };
        }
        // SAFETY: as above.
        unsafe { self.0.write(0) };
        Ok(words)
    }

    /// Checks it and gives it back, on whichever core this is.
    fn give(self, held: &Held<'_, 0>) -> Result {
        let Ok(words) = self.check() else {
            return Err(failed(format_args!("{}: the piece at {:p} was overwritten", held.core(), self.0)));
        };
        let layout = Self::layout(words).unwrap_or(Layout::new::<usize>());
        // SAFETY: it was taken with this layout, and is ours; nobody uses it any more.
        let refused = unsafe { HERE.owned(held).free(self.0.cast(), layout) };
        ensure!(refused.is_ok(), "{}: {:p} of {words} words: {refused:?}", held.core(), self.0);
        Ok(())
    }

    fn is_near(self, core: CoreId) -> bool {
        let topology = machine::topology();
        let address = PhysAddr::new(VirtAddr::from_ptr(self.0.as_ptr()).as_u64() - DIRECT.base).as_u64();
        let home = topology.node_of(core);
        let populated = topology.nodes().filter(|&node| memory::frames().node_stats(node).frames > 0);
        Some(topology.distance(home, node_at(address))) == nearest(home, populated)
    }
}

fn words(prng: &mut Prng) -> usize {
    // Small ones are the rule.
    let most = (MAX_SMALL / WORD) >> prng.below(7);
    1 + prng.below(most as u64) as usize
}

/// Every core gives back what it keeps without need.
pub(super) fn drain(crew: &mut Crew) {
    crew.run(&cores::all_online(), |held| HERE.owned(held).drain());
}

fn all_back(crew: &mut Crew) -> Result {
    drain(crew);
    let stats = SIZES.stats();
    ensure!(stats.current_allocated == 0 && stats.frames == 0 && stats.refused == 0, "in the end {stats:?}");
    ensure!(stats.allocation_count == stats.free_count, "{stats:?}");
    Ok(())
}

/// All cores take pieces of all sizes at once: near, disjoint, whole to the end.
///
/// Planted: `Home::load` hands out every second object of a slab twice.
pub(super) fn each_core(bed: &mut Bed) -> Result {
    let seed = bed.seed;
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let mut prng = Prng::stream(seed, u32::from(held.core().raw()));
        let mut pieces = [None; PIECES];
        for piece in &mut pieces {
            *piece = Piece::take(held, words(&mut prng));
            blame.note(match piece {
                Some(piece) if piece.is_near(held.core()) => Ok(()),
                Some(piece) => Err(failed(format_args!("{}: {:p} is not near", held.core(), piece.0))),
                None => Err(failed(format_args!("{}: no memory", held.core()))),
            });
        }
        prng.shuffle(&mut pieces);
        pieces.into_iter().flatten().for_each(|piece| blame.note(piece.give(held)));
    });
    blame.verdict()?;
    all_back(&mut bed.crew)
}

/// All cores take pieces, put them in places that all share, and free what they find there, whoever took it.
///
/// Planted: `Home::settle` retires a slab while one object is out.
pub(super) fn cross_core(bed: &mut Bed) -> Result {
    let seed = bed.seed;
    let places = Scratch::new(PLACES, |_| AtomicPtr::<usize>::new(core::ptr::null_mut()))?;
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let mut prng = Prng::stream(seed ^ 1, u32::from(held.core().raw()));
        for _ in 0..TURNS {
            let Some(piece) = Piece::take(held, words(&mut prng)) else {
                return blame.note(Err(failed(format_args!("{}: no memory", held.core()))));
            };
            let place = &places[prng.below(PLACES as u64) as usize];
            // ORDER: AcqRel: Release hands the piece over, Acquire takes another core's.
            let found = place.swap(piece.0.as_ptr(), Ordering::AcqRel);
            if let Some(found) = NonNull::new(found) {
                blame.note(Piece(found).give(held));
            }
            if prng.below(512) == 0 {
                HERE.owned(held).drain();
            }
        }
    });
    bed.crew.run(&percpu::CoreSet::one(machine::boot_core()), |held| {
        for place in places.iter() {
            // ORDER: Acquire; the end of the call above has published it.
            let found = NonNull::new(place.swap(core::ptr::null_mut(), Ordering::Acquire));
            blame.note(found.map_or(Ok(()), |found| Piece(found).give(held)));
        }
    });
    blame.verdict()?;
    all_back(&mut bed.crew)
}

/// Frames that the last test may use.
const QUOTA: usize = 40;
/// Bytes of its objects.
type Thing = [u64; 24];

static ROOT: Bank<'static> = Bank::root(QUOTA * mm::id::FRAME_BYTES);
static THINGS: Cache<Thing, Banked<'static, Near>> = Cache::new(Banked::new(Near, &ROOT), || [0x600d; 24]);

core_local! {
    static PART: Local<'static, Thing, Banked<'static, Near>> = Local::new(&THINGS);
}

/// All cores take objects until their common bank is exhausted: an error, no more frames than it has, and every object as it was built. Freed
/// on one core, they can be had again; in the end the bank has everything back.
///
/// Planted: `Home::grow` does not build the objects.
pub(super) fn exhaust(bed: &mut Bed) -> Result {
    let most = QUOTA * Local::<Thing, Banked<'static, Near>>::per_slab();
    let things = Scratch::new(most, |_| AtomicPtr::<Thing>::new(core::ptr::null_mut()))?;
    let all = cores::all_online();
    let blame = Blame::new();
    for _ in 0..2 {
        let count = AtomicUsize::new(0);
        bed.crew.run(&all, |held| {
            // SAFETY: a core's copy stays where it is for ever (L1).
            unsafe { PART.owned(held).enter() };
            blame.note(take_all(held, &things, &count));
        });
        let stats = THINGS.stats();
        // ORDER: Relaxed, here and below; the end of the call has published it.
        let taken = count.load(Ordering::Relaxed);
        ensure!(taken > 0 && stats.frames <= QUOTA, "{taken} objects, {stats:?}");
        ensure!(ROOT.stats().used == stats.frames * mm::id::FRAME_BYTES, "{stats:?}, {:?}", ROOT.stats());
        bed.crew.run(&percpu::CoreSet::one(machine::boot_core()), |held| {
            for thing in things.iter() {
                let thing = NonNull::new(thing.swap(core::ptr::null_mut(), Ordering::Acquire));
                // SAFETY: taken from this cache, found once, as it was built.
                let refused = thing.map_or(Ok(()), |thing| unsafe { PART.owned(held).free(thing) });
                blame.note(refused.map_err(|error| failed(format_args!("{error}"))));
            }
        });
    }
    bed.crew.run(&all, |held| PART.owned(held).drain());
    blame.verdict()?;
    let (stats, bank) = (THINGS.stats(), ROOT.stats());
    ensure!(stats.current_allocated == 0 && stats.refused == 0 && bank.used == 0, "{stats:?}, {bank:?}");
    Ok(())
}

fn take_all(held: &Held<'_, 0>, things: &[AtomicPtr<Thing>], count: &AtomicUsize) -> Result {
    loop {
        match PART.owned(held).allocate() {
            Ok(thing) => {
                // SAFETY: just handed out.
                let whole = unsafe { thing.read() } == [0x600d; 24];
                ensure!(whole, "{}: {thing:p} is not as it was built", held.core());
                // ORDER: Relaxed; see `exhaust`.
                let place = things.get(count.fetch_add(1, Ordering::Relaxed));
                ensure!(place.is_some(), "more objects than the bank has memory for");
                // ORDER: Release pairs with Acquire in `exhaust`.
                place.into_iter().for_each(|place| place.store(thing.as_ptr(), Ordering::Release));
            }
            Err(SlabError::OutOfMemory) => return Ok(()),
            Err(error) => return Err(failed(format_args!("{}: {error}", held.core()))),
        }
    }
}

/// A tree of banks on all cores: charges on one bank from everywhere, and its end gives every byte back.
///
/// Planted: `Bank::destroy` gives nothing back to the parent.
pub(super) fn banks(bed: &mut Bed) -> Result {
    const CHARGE: usize = 4096;
    let all = cores::all_online();
    let root = Bank::root(all.len() * CHARGE * 2);
    let bank = root.child(all.len() * CHARGE).map_err(|error| failed(format_args!("{error}")))?;
    let blame = Blame::new();
    bed.crew.run(&all, |held| {
        for _ in 0..TURNS / 4 {
            // Its own share is always there: nobody takes more than one.
            let done = bank.charge(CHARGE).and_then(|()| bank.refund(CHARGE));
            blame.note(done.map_err(|error| failed(format_args!("{}: {error}", held.core()))));
        }
    });
    blame.verdict()?;
    let charged = bank.charge(CHARGE).and_then(|()| bank.destroy());
    ensure!(charged == Err(BankError::Charged), "a bank with a charge: {charged:?}");
    let ended = bank.refund(CHARGE).and_then(|()| bank.destroy());
    ensure!(ended.is_ok() && root.stats().used == 0, "{ended:?}, {:?}", root.stats());
    Ok(())
}
