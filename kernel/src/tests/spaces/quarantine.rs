//! A pool that keeps what is given back for a while, filled with poison, and looks whether the poison is still there when a frame leaves.
//!
//! The poison is also an entry of a page table: it leads, from any level, to one frame that is full of it. So whoever walks a table that
//! was given back reads poison, too, and whoever writes through it changes that frame.

use mm::frames::Policy;
use mm::id::FRAME_BYTES;
use mm::space::{Cx, Memory, Pending, Pool, Shortage};
use mm::{FrameId, Order};
use percpu::epoch::{self, Retired};
use percpu::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use percpu::{CoreCell, Held, IrqOff, core_local};

use core::ptr::NonNull;

use crate::arch::tlb;
use crate::cores::{self, Crew};
use crate::layout::DIRECT;
use crate::spaces::{Physical, Space, Tap};
use crate::tests::{Result, Verdict, bed, ensure};

/// Blocks that a core keeps, single frames and those of 2 MiB.
const FRAMES: usize = 128;
const BLOCKS: usize = 2;
const WORDS: usize = FRAME_BYTES / size_of::<u64>();

/// Present, writable, a user's, accessed and dirty (SDM volume 3, tables 5-16 to 5-20), with a mark in bits that the CPU ignores.
const BITS: u64 = 0b110_0111 | 0x5a << 52;

static POISON: AtomicU64 = AtomicU64::new(0);
/// Frames that were written after they had been given back; the first of them.
static SPOILT: AtomicUsize = AtomicUsize::new(0);
static FIRST: AtomicU64 = AtomicU64::new(0);

core_local! {
    static KEPT: CoreCell<Ring<FRAMES>> = CoreCell::new(Ring::new());
    static KEPT_BLOCKS: CoreCell<Ring<BLOCKS>> = CoreCell::new(Ring::new());
}

/// Frames in the order in which they came; 0 for none.
struct Ring<const N: usize> {
    frames: [usize; N],
    next: usize,
}

impl<const N: usize> Ring<N> {
    const fn new() -> Self {
        Self { frames: [0; N], next: 0 }
    }

    /// Puts a frame in, or nothing, and takes the oldest out.
    fn turn(&mut self, frame: usize) -> Option<FrameId> {
        let oldest = core::mem::replace(&mut self.frames[self.next], frame);
        self.next = (self.next + 1) % N;
        (oldest != 0).then_some(FrameId::new(oldest))
    }
}

/// The poison of this run.
pub(super) fn poison() -> u64 {
    // ORDER: Relaxed: set before the cores start, whose call orders it.
    POISON.load(Ordering::Relaxed)
}

/// The frame that poison leads to, for as long as the hunt lasts.
pub(super) struct Quarantine(FrameId);

impl Quarantine {
    pub(super) fn open() -> core::result::Result<Self, Verdict> {
        let frame = bed::get(Order::FRAME, mm::frames::Request::LOCAL).map_err(|_| super::NO_MEMORY)?;
        let poison = frame.address() | BITS;
        Physical.fill(frame, poison);
        // ORDER: Relaxed, all: see `poison`.
        POISON.store(poison, Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        SPOILT.store(0, Ordering::Relaxed);
        Ok(Self(frame))
    }

    /// Lets all frames of all cores go; nothing may have been written to any of them, nor to the frame that poison leads to.
    pub(super) fn close(self, crew: &mut Crew) -> Result {
        bed::settle(crew)?;
        crew.run(&cores::all_online(), |held| {
            let irq: &IrqOff = held;
            for _ in 0..FRAMES {
                release(irq, KEPT.with_mut(irq, |ring| ring.turn(0)), Order::FRAME);
            }
            for _ in 0..BLOCKS {
                release(irq, KEPT_BLOCKS.with_mut(irq, |ring| ring.turn(0)), Order::HUGE);
            }
        });
        let changed = differs(self.0, poison());
        let back = bed::put(self.0, Order::FRAME);
        ensure!(back.is_ok(), "the frame that poison leads to does not go back: {back:?}");
        // ORDER: Relaxed, both; the call above orders them.
        let (spoilt, first) = (SPOILT.load(Ordering::Relaxed), FIRST.load(Ordering::Relaxed));
        ensure!(
            spoilt == 0,
            "{spoilt} frames were written after they had been given back, one with {first:#x}"
        );
        ensure!(
            changed.is_none(),
            "somebody wrote {changed:x?} through a page table that had been given back"
        );
        Ok(())
    }
}

/// A word of a frame that is not what it should be.
fn differs(frame: FrameId, poison: u64) -> Option<u64> {
    let words = Physical.at(frame).cast::<u64>();
    (0..WORDS).find_map(|index| {
        // SAFETY: inside the frame, which the direct map shows.
        let at = unsafe { words.add(index) };
        // SAFETY: as above. The frame is the quarantine's; who writes it all the same is whom we look for.
        let found = unsafe { at.read_volatile() };
        (found != poison).then_some(found)
    })
}

/// Looks at a block that leaves, and lets it go.
fn release(irq: &IrqOff, block: Option<FrameId>, order: Order) {
    let Some(block) = block else { return };
    for index in 0..order.frames() {
        if let Some(found) = differs(FrameId::new(block.number() + index), poison()) {
            // ORDER: Relaxed, both: read after the call that this happens in, or for a message.
            SPOILT.fetch_add(1, Ordering::Relaxed);
            // ORDER: Relaxed; as above.
            FIRST.store(found, Ordering::Relaxed);
        }
    }
    Tap::new(irq).give(block, order);
}

/// The frame allocator behind the quarantine of the core that has the witness.
pub(super) struct Poisoning<'a> {
    irq: &'a IrqOff,
    tap: Tap<'a>,
}

impl<'a> Poisoning<'a> {
    pub(super) fn new(irq: &'a IrqOff) -> Self {
        Self { irq, tap: Tap::new(irq) }
    }
}

/// # Safety
/// 1. `table` is the first word of a page table that nobody can be looking at any more.
unsafe fn give_table(table: NonNull<Retired>, held: &mut Held<'_, 0>) {
    let address = table.addr().get() as u64 - DIRECT.base;
    Poisoning::new(held).give(FrameId::containing(address), Order::FRAME);
}

impl Pool for Poisoning<'_> {
    fn take(&mut self, order: Order, policy: Policy) -> core::result::Result<FrameId, Shortage> {
        self.tap.take(order, policy)
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        for index in 0..order.frames() {
            Physical.fill(FrameId::new(frame.number() + index), poison());
        }
        let oldest = if order == Order::FRAME {
            KEPT.with_mut(self.irq, |ring| ring.turn(frame.number()))
        } else {
            KEPT_BLOCKS.with_mut(self.irq, |ring| ring.turn(frame.number()))
        };
        release(self.irq, oldest, order);
    }

    fn retire(&mut self, frame: FrameId) {
        let link = Physical.at(frame).cast::<Retired>();
        // SAFETY: the frame is a table that has been taken out and invalidated, so it is ours to write to.
        unsafe { link.write(Retired::new()) };
        // SAFETY: unlinked by whoever calls this (A2), valid until it is given back, retired once; cores that work are awake.
        unsafe { epoch::retire(self.irq, link, give_table) };
    }

    fn split(&mut self, block: FrameId) {
        self.tap.split(block);
    }

    fn merge(&mut self, block: FrameId) -> bool {
        self.tap.merge(block)
    }
}

/// As `spaces::with`, with this pool.
pub(super) fn with<R>(irq: &mut IrqOff, space: &Space, f: impl FnOnce(&mut Cx<'_, Poisoning<'_>>) -> R) -> R {
    let mut pending = Pending::new();
    let result = f(&mut Cx::new(irq, &mut Poisoning::new(irq), &mut pending));
    settle(irq, space, &mut pending);
    result
}

/// As `spaces::settle`, with this pool.
pub(super) fn settle(irq: &mut IrqOff, space: &Space, pending: &mut Pending) {
    tlb::shootdown(irq, space.tlb(), pending.batch());
    space.settle(&mut Poisoning::new(irq), pending);
}
