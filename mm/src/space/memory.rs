//! What an address space asks of the machine: how frames are reached, and who gives and takes them.

use super::info::FrameInfo;
use crate::bank::{BATCH, Exhausted, Payer, Purse, Source};
use crate::frames::Policy;
use crate::id::{FRAME_BYTES, FrameId, Order};
use core::fmt;
use core::ptr::NonNull;

/// How frames are reached.
///
/// # Safety
/// 1. `at` gives the first byte of the frame's memory, aligned to a page, readable and writable for ever; frames that follow each other
///    do so in memory, too.
/// 2. `info` gives the frame's own word, the same each time.
pub unsafe trait Memory: Copy {
    /// The frame's first byte.
    fn at(self, frame: FrameId) -> NonNull<u8>;

    /// The frame's word.
    fn info(self, frame: FrameId) -> &'static FrameInfo;

    /// Fills a block that is nobody else's with zeroes.
    #[inline]
    fn zero(self, frame: FrameId, order: Order) {
        let words = order.frames() * FRAME_BYTES / size_of::<u64>();
        // SAFETY: obligation 1, for every frame of the block, which is the caller's alone.
        unsafe { self.at(frame).cast::<u64>().write_bytes(0, words) };
    }

    /// Fills a frame that is nobody else's with a word.
    #[inline]
    fn fill(self, frame: FrameId, word: u64) {
        let words = self.at(frame).cast::<u64>();
        for index in 0..FRAME_BYTES / size_of::<u64>() {
            // SAFETY: obligation 1: inside the frame.
            let place = unsafe { words.add(index) };
            // SAFETY: as above; the frame is the caller's alone.
            unsafe { place.write(word) };
        }
    }

    /// Makes a root table of a frame that is nobody else's: zeroes, and the upper half of another root, which does not change.
    #[inline]
    fn root(self, from: FrameId, to: FrameId) {
        const HALF: usize = FRAME_BYTES / size_of::<u64>() / 2;
        let (from, to) = (self.at(from).cast::<[u64; HALF]>(), self.at(to).cast::<[u64; HALF]>());
        // SAFETY: obligation 1: two halves make a frame, which is the caller's alone.
        unsafe { to.write_bytes(0, 1) };
        // SAFETY: obligation 1; inside the frame.
        let from = unsafe { from.add(1) };
        // SAFETY: as above.
        let to = unsafe { to.add(1) };
        // SAFETY: obligation 1; two frames do not overlap.
        unsafe { from.copy_to_nonoverlapping(to, 1) };
    }

    /// Copies a frame into another, which is nobody else's.
    #[inline]
    fn copy(self, from: FrameId, to: FrameId) {
        let (from, to) = (self.at(from).cast::<u64>(), self.at(to).cast::<u64>());
        // SAFETY: obligation 1; two frames do not overlap. Who writes `from` meanwhile through a mapping races with the copy as it would with
        // any other core's read.
        unsafe { from.copy_to_nonoverlapping(to, FRAME_BYTES / size_of::<u64>()) };
    }
}

/// Why there is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Shortage {
    /// The machine has none where the request may look.
    Memory,
    /// The bank that pays has none left.
    Quota,
}

impl From<Exhausted> for Shortage {
    fn from(_: Exhausted) -> Self {
        Self::Quota
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "the machine is out of memory",
            Self::Quota => "the bank's quota is used up",
        })
    }
}

/// Gives frames to an address space, on the core that asks, and takes them back.
pub trait Pool {
    /// Takes a block.
    ///
    /// # Errors
    /// [`Shortage`]; nothing has changed.
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage>;

    /// Takes a block back. No core caches a translation to it.
    fn give(&mut self, frame: FrameId, order: Order);

    /// Takes a page table back when no core can be reading it any more.
    fn retire(&mut self, frame: FrameId);

    /// Turns a block of 2 MiB into 512 frames that go back one by one.
    fn split(&mut self, block: FrameId);

    /// As [`Pool::split`], but the frames whose bit in `keep` is 0 go back at once: frame i is bit i % 64 of word i / 64.
    fn split_keeping(&mut self, block: FrameId, keep: &[u64; Order::HUGE.frames() / 64]) {
        self.split(block);
        for index in 0..Order::HUGE.frames() {
            if keep.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 0) {
                self.give(FrameId::new(block.number() + index), Order::FRAME);
            }
        }
    }

    /// Turns 512 frames back into the block that they were; `false` if that is not possible now.
    fn merge(&mut self, block: FrameId) -> bool;

    /// As [`Source::draw`]. A pool that knows no banks lets everybody have everything.
    fn draw(&mut self, _payer: Payer, _least: usize, most: usize) -> Option<usize> {
        Some(most)
    }

    /// As [`Source::pay_back`].
    fn pay_back(&mut self, _payer: Payer, _amount: usize) {}

    /// As [`Source::spare`].
    fn spare(&self, _payer: Payer) -> usize {
        usize::MAX
    }

    /// Another object that the payer pays for keeps its bank; `None` if the bank is about to go.
    fn keep(&mut self, payer: Payer) -> Option<Payer> {
        Some(payer)
    }

    /// An object that the payer paid for is gone, and will not ask for it again.
    fn forget(&mut self, _payer: Payer) {}

    /// Offers an object that nobody refers to any more and that has many frames, by its own frame: `true` if it is among
    /// [`Orphans`](super::Orphans) now, `false` if it shall go at once.
    fn orphan(&mut self, _frame: FrameId) -> bool {
        false
    }
}

/// A pool as what quota comes from.
#[derive(Debug)]
pub struct Frames<'p, P>(pub &'p mut P);

impl<P: Pool> Source for Frames<'_, P> {
    #[inline]
    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize> {
        self.0.draw(payer, least, most)
    }

    #[inline]
    fn pay_back(&mut self, payer: Payer, amount: usize) {
        self.0.pay_back(payer, amount);
    }

    #[inline]
    fn spare(&self, payer: Payer) -> usize {
        self.0.spare(payer)
    }
}

/// Takes a block that the purse pays for.
#[inline(always)]
pub(super) fn take<P: Pool>(
    purse: &Purse,
    pool: &mut P,
    order: Order,
    policy: Policy,
) -> Result<FrameId, Shortage> {
    take_ahead(purse, pool, order, policy, BATCH)
}

/// As [`take`], for something that will never need more than so many frames from now on.
#[inline(always)]
pub(super) fn take_ahead<P: Pool>(
    purse: &Purse,
    pool: &mut P,
    order: Order,
    policy: Policy,
    most: usize,
) -> Result<FrameId, Shortage> {
    purse.take_ahead(order.frames(), most, &mut Frames(pool))?;
    let taken = pool.take(order, policy);
    if taken.is_err() {
        purse.put(order.frames(), &mut Frames(pool));
    }
    taken
}

/// Gives a block back that the purse has paid for.
#[inline(always)]
pub(super) fn give<P: Pool>(purse: &Purse, pool: &mut P, frame: FrameId, order: Order) {
    pool.give(frame, order);
    purse.put(order.frames(), &mut Frames(pool));
}
