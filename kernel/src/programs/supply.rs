//! Where the frames of a new process come from.

use mm::bank::Payer;
use mm::space::{Cx, Pending, Pool};
use percpu::IrqOff;

use crate::arch::tlb;
use crate::bank::{self, Bank};
use crate::object::Ref;
use crate::spaces::{Space, Tap};

/// Gives pools to the steps of a longer operation: a pool lasts as long as interrupts stay off, which is one step.
pub(crate) trait Supply {
    /// A pool on the core that has the witness.
    type Pool<'a>: Pool
    where
        Self: 'a;

    /// The pool for one step.
    fn pool<'a>(&'a self, irq: &'a IrqOff) -> Self::Pool<'a>;

    /// Who pays for the pages of a program; it is kept until the pool is told to forget it.
    fn payer(&self) -> Payer {
        Payer::NOBODY
    }

    /// Runs one step on a space and settles it, as `spaces::with` does.
    #[inline(always)]
    fn with<R>(
        &self,
        irq: &mut IrqOff,
        space: &Space,
        f: impl FnOnce(&mut Cx<'_, Self::Pool<'_>>) -> R,
    ) -> R {
        let mut pending = Pending::new();
        let result = f(&mut Cx::new(irq, &mut self.pool(irq), &mut pending));
        if !pending.is_empty() {
            self.settle(irq, space, &mut pending);
        }
        result
    }

    /// Tells the cores, then gives back.
    #[cold]
    fn settle(&self, irq: &mut IrqOff, space: &Space, pending: &mut Pending) {
        if !pending.batch().is_empty() {
            tlb::shootdown(irq, space.tlb(), pending.batch());
        }
        space.settle(&mut self.pool(irq), pending);
    }
}

/// All memory of the machine; nobody pays for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine;

impl Supply for Machine {
    type Pool<'a> = Tap<'a>;

    #[inline(always)]
    fn pool<'a>(&'a self, irq: &'a IrqOff) -> Tap<'a> {
        Tap::new(irq)
    }
}

/// All memory of the machine; a bank pays for programs.
pub(crate) struct Paid<'b>(pub(crate) &'b Ref<Bank>);

impl Supply for Paid<'_> {
    type Pool<'a>
        = Tap<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn pool<'a>(&'a self, irq: &'a IrqOff) -> Tap<'a> {
        Tap::new(irq)
    }

    fn payer(&self) -> Payer {
        bank::keep(self.0.clone())
    }
}
