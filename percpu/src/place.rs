//! Where something lives that moves between cores, and how it is reached there.
//!
//! * J1: what a core may do with it is done by its home, with interrupts off. Only the home gives it away ([`Place::depart`]), and from then
//!   on has nothing to do with it; only the core that gets it by a message makes itself its home ([`Place::settle`]).
//! * J2: a function given to [`at_home`] runs once, at the home, and never while the thing is on its way.

use crate::call;
use crate::call::Ipi;
use crate::const_fn;
use crate::id::CoreId;
use crate::lock::Held;
use crate::pin::IrqOff;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::hint;

#[cfg(all(test, loom))]
mod models;

/// On its way to the core named beside.
const IN_FLIGHT: u32 = 1 << 16;

/// Where something is, as one word: its home writes it, any core reads it.
#[derive(Debug)]
pub struct Place(AtomicU32);

/// Where something was when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its home, or the one that it will have.
    pub core: CoreId,
    /// It is on its way there.
    pub in_flight: bool,
}

impl Place {
    const_fn! {
        /// At a home.
        #[must_use]
        pub const fn new(home: CoreId) -> Self {
            Self(AtomicU32::new(home.raw() as u32))
        }
    }

    /// Where it is.
    ///
    /// # Panics
    /// Never: a word names a core.
    #[inline(always)]
    pub fn look(&self) -> Seen {
        // ORDER: Acquire pairs with Release in `settle` and `depart`: who finds it here sees what its last home did.
        let word = self.0.load(Ordering::Acquire);
        let core = CoreId::from_index((word & 0xffff) as usize).expect("J1: a home is a core");
        Seen { core, in_flight: word & IN_FLIGHT != 0 }
    }

    /// Says that it is on its way to a core. By its home (J1), before the message is sent.
    #[inline]
    pub fn depart(&self, to: CoreId) {
        // ORDER: Release pairs with Acquire in `look`.
        self.0.store(u32::from(to.raw()) | IN_FLIGHT, Ordering::Release);
    }

    /// Says that it has a new home: the core that calls, when the message has arrived.
    #[inline]
    pub fn settle(&self, here: CoreId) {
        // ORDER: Release pairs with Acquire in `look`.
        self.0.store(u32::from(here.raw()), Ordering::Release);
    }
}

/// Runs `f` at the home (J2), and returns what it returns. While this core waits for another, it serves its own messages.
#[cfg(not(loom))]
pub fn at_home<I: Ipi>(
    irq: &mut IrqOff,
    ipi: &I,
    place: &Place,
    f: impl Fn(&mut Held<'_, 0>) -> u64 + Sync,
) -> u64 {
    let own = irq.core();
    at_home_from(own, irq, ipi, place, f)
}

fn at_home_from<I: Ipi>(
    own: CoreId,
    irq: &mut IrqOff,
    ipi: &I,
    place: &Place,
    f: impl Fn(&mut Held<'_, 0>) -> u64 + Sync,
) -> u64 {
    let result = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    loop {
        let core = place.look().core;
        crate::race_point!("place.called");
        call::call_from(own, irq, ipi, core, |held| {
            // Looked at again where it counts: only this core could change it now.
            if place.look() == (Seen { core, in_flight: false }) {
                // ORDER: Relaxed, both: the end of the call publishes them.
                result.store(f(held), Ordering::Relaxed);
                // ORDER: Relaxed; as above.
                done.store(1, Ordering::Relaxed);
            }
        });
        // ORDER: Relaxed, both: as above.
        if done.load(Ordering::Relaxed) != 0 {
            // ORDER: Relaxed; as above.
            return result.load(Ordering::Relaxed);
        }
        // On its way, perhaps to here.
        ipi.inbox(own).serve(irq);
        hint::spin_loop();
    }
}
