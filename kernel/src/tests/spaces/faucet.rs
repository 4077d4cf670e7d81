//! A pool that fails when it is told to, counts what is out, and remembers what it gave last.

use core::cell::Cell;

use mm::frames::Policy;
use mm::space::{Cx, Pending, Pool, Shortage};
use mm::{FrameId, Order};
use percpu::IrqOff;

use crate::arch::tlb;
use crate::spaces::{Space, Tap};

/// What the pool knows from one operation to the next.
pub(super) struct Faucet {
    /// Takes until one fails, which is the first after 0; `None`: all succeed.
    left: Cell<Option<usize>>,
    /// Whether one has failed.
    failed: Cell<bool>,
    /// Frames taken and not given back, those retired not counted.
    out: Cell<isize>,
    last: Cell<FrameId>,
}

impl Faucet {
    pub(super) const fn new() -> Self {
        Self {
            left: Cell::new(None),
            failed: Cell::new(false),
            out: Cell::new(0),
            last: Cell::new(FrameId::new(0)),
        }
    }

    /// Makes the `nth` take from now on fail, counted from 0; or none.
    pub(super) fn fail_at(&self, nth: Option<usize>) {
        self.left.set(nth);
        self.failed.set(false);
    }

    /// Whether a take has failed since.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Frames that are out.
    pub(super) fn out(&self) -> isize {
        self.out.get()
    }

    /// The frame that was taken last.
    pub(super) fn last(&self) -> FrameId {
        self.last.get()
    }

    /// The pool on this core.
    pub(super) fn pool<'a>(&'a self, irq: &'a IrqOff) -> Dripping<'a> {
        Dripping { tap: Tap::new(irq), faucet: self }
    }

    /// As `spaces::with`, with this pool.
    pub(super) fn with<R>(
        &self,
        irq: &mut IrqOff,
        space: &Space,
        f: impl FnOnce(&mut Cx<'_, Dripping<'_>>) -> R,
    ) -> R {
        let mut pending = Pending::new();
        let result = f(&mut Cx::new(irq, &mut self.pool(irq), &mut pending));
        self.settle(irq, space, &mut pending);
        result
    }

    /// As `spaces::settle`, with this pool.
    pub(super) fn settle(&self, irq: &mut IrqOff, space: &Space, pending: &mut Pending) {
        tlb::shootdown(irq, space.tlb(), pending.batch());
        space.settle(&mut self.pool(irq), pending);
    }

    fn count(&self, frames: isize) {
        self.out.set(self.out.get() + frames);
    }
}

/// The frame allocator behind a [`Faucet`].
pub(super) struct Dripping<'a> {
    tap: Tap<'a>,
    faucet: &'a Faucet,
}

impl Pool for Dripping<'_> {
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        if let Some(left) = self.faucet.left.get() {
            self.faucet.left.set(left.checked_sub(1));
            if left == 0 {
                self.faucet.failed.set(true);
                return Err(Shortage::Memory);
            }
        }
        let frame = self.tap.take(order, policy)?;
        self.faucet.count(order.frames() as isize);
        self.faucet.last.set(frame);
        Ok(frame)
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        self.faucet.count(-(order.frames() as isize));
        self.tap.give(frame, order);
    }

    fn retire(&mut self, frame: FrameId) {
        self.faucet.count(-1);
        self.tap.retire(frame);
    }

    fn split(&mut self, block: FrameId) {
        self.tap.split(block);
    }

    fn merge(&mut self, block: FrameId) -> bool {
        self.tap.merge(block)
    }
}
