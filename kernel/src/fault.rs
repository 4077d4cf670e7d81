//! Page faults on user memory: what was tried, and whether the address space makes it possible.
//!
//! `arch::page_fault` decodes a fault, refuses what can only be a bug of the kernel, and asks [`resolve`]. Interrupts are off and the
//! interrupted code may be anywhere in `arch::usercopy`, so whatever resolves a fault must not touch user memory itself.

use core::cell::Cell;

use abi::debug::Counter;
use percpu::{IrqOff, core_local};
use perf::trace::Event;
use x86_64::VirtAddr;

use crate::{metrics, spaces, trace};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A load.
    Read,
    /// A store, or a read-modify-write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Who tried it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The kernel, in `arch::usercopy`.
    Kernel,
    /// A user program.
    User,
}

/// What stood in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Obstacle {
    /// Nothing is mapped.
    Absent,
    /// What is mapped does not allow it.
    Protection,
}

/// An access that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) obstacle: Obstacle,
}

impl Access {
    /// As in a trace record ([`Event::PageFault`]).
    fn bits(self) -> u64 {
        u64::from(self.kind == Kind::Write)
            | u64::from(self.kind == Kind::Execute) << 1
            | u64::from(self.mode == Mode::User) << 2
            | u64::from(self.obstacle == Obstacle::Protection) << 3
    }
}

/// What becomes of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Resolution {
    /// The access is possible now: it is made again.
    Retry = 0,
    /// It is not allowed: the copy ends with an error.
    Refused = 1,
}

/// Resolves faults of one core.
pub(crate) type Resolver = fn(&mut IrqOff, VirtAddr, Access) -> Resolution;

core_local! {
    /// Who resolves this core's faults in place of the active space: what tests of the path itself set.
    static RESOLVER: Cell<Option<Resolver>> = Cell::new(None);
}

/// Makes `resolver` the one of this core, and returns the one before.
pub(crate) fn set_resolver(irq: &IrqOff, resolver: Option<Resolver>) -> Option<Resolver> {
    RESOLVER.owned(irq).replace(resolver)
}

/// Asks whether an access to the user half can be made possible.
#[inline]
pub(crate) fn resolve(irq: &mut IrqOff, address: VirtAddr, access: Access) -> Resolution {
    metrics::count(irq, Counter::PageFaults);
    let resolution = match RESOLVER.owned(irq).get() {
        Some(resolver) => resolver(irq, address, access),
        None => spaces::fault(irq, address, access),
    };
    trace::event(irq, Event::PageFault, address.as_u64(), access.bits(), resolution as u32);
    resolution
}
