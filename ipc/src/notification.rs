//! Bits that can be set without waiting, and waited for: one word, and a queue of those who wait.
//!
//! Who waits comes into the queue first and looks at the bits then; who signals sets bits first and looks at the queue then. Both accesses to
//! the bits are read-modify-writes of one word, so one of the two comes first, and the second sees what the first has done: either the
//! signaller finds the waiter, or the waiter the bits. No fence is needed, and nobody waits for anybody.
//!
//! * IN1: of a waiter and a set bit each finds the other: when no call is under way, no bit is set while somebody waits.
//! * IN2: every bit that was signalled is handed out exactly once, however often it was signalled before; a broadcast hands its bits to each of
//!   those who wait when it looks, and sets them if nobody does.
//!
//! A signaller that finds a waiter hands it its bits without setting them. What else may be set then is found by the waiter, which is still
//! to look, or by whoever set it, who is still to look.

use percpu::const_fn;
use percpu::race_point;
use percpu::sync::atomic::{AtomicU64, Ordering};

use crate::link::{At, Party};
use crate::queue::{Guard, Kind, Queue};

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

/// What came of the wish to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Parked {
    /// It waits.
    Waits,
    /// These bits were set, and are the waiter's; it does not wait.
    Has(u64),
    /// These bits were set, and are the waiter's; somebody has taken it out meanwhile, and is about to tell it more.
    HasMore(u64),
    /// Nobody may wait any more.
    Closed,
}

/// Bits, and who waits for them.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `bits` | any core | any core | AcqRel to set and to take |
/// | `queue` | any core | any core | its own |
#[derive(Debug)]
#[repr(C)]
pub struct Notification<P> {
    bits: AtomicU64,
    queue: Queue<P>,
}

impl<P: Party> Notification<P> {
    const_fn! {
        /// No bit, nobody.
        #[must_use]
        pub const fn new() -> Self {
            Self { bits: AtomicU64::new(0), queue: Queue::new() }
        }
    }

    /// Takes all bits that are set; for one who does not wait.
    #[inline(always)]
    pub fn poll(&self) -> u64 {
        // ORDER: Relaxed: who does not wait may come a moment too early.
        if self.bits.load(Ordering::Relaxed) == 0 { 0 } else { self.take() }
    }

    /// Takes all bits that are set, as one who waits, and is in the queue or elsewhere where `set`'s caller looks.
    #[inline(always)]
    pub fn take(&self) -> u64 {
        // ORDER: AcqRel: Acquire pairs with Release in `set`: what was done before the signal is seen. Release pairs with Acquire there: who
        // sets a bit afterwards finds this party where it waits.
        self.bits.swap(0, Ordering::AcqRel)
    }

    /// Sets bits; whoever does must look for those who wait afterwards.
    #[inline(always)]
    pub fn set(&self, bits: u64) {
        // ORDER: AcqRel: Release pairs with Acquire in `take`; Acquire pairs with Release there, so that a waiter whose look came before this is
        // found by the look that comes next.
        self.bits.fetch_or(bits, Ordering::AcqRel);
    }

    /// Whether nobody is in the queue; after [`set`](Self::set).
    #[inline(always)]
    pub fn is_deserted(&self) -> bool {
        self.queue.is_free()
    }

    /// The waiter, if it is one alone, out of the queue: the caller hands it its bits, and writes its `at`.
    #[inline(always)]
    pub fn take_alone(&self) -> Option<P> {
        self.queue.alone().filter(|&waiter| self.queue.take(waiter))
    }

    /// Sets bits, or hands them to whoever has waited longest, which is then out of the queue: the caller tells it the bits that are returned
    /// with it, and writes its `at`.
    #[inline(always)]
    pub fn signal(&self, bits: u64) -> Option<(P, u64)> {
        if let Some(waiter) = self.take_alone() {
            return Some((waiter, bits));
        }
        self.set(bits);
        if self.is_deserted() { None } else { self.hand_over() }
    }

    /// Hands the bits that are set to whoever has waited longest, if there are both; as [`signal`](Self::signal).
    #[cold]
    pub fn hand_over(&self) -> Option<(P, u64)> {
        race_point!("notification.set");
        let mut queue = self.queue.lock();
        if queue.kind() != Kind::Receivers {
            return None;
        }
        // Under the lock nobody leaves the queue, so who is found gets what is taken.
        let bits = self.take();
        if bits == 0 {
            return None;
        }
        queue.pop().map(|waiter| (waiter, bits))
    }

    /// Hands bits to everybody who waits, each taken out of the queue: `tell` gets each with the bits and writes its `at`. Sets them if nobody
    /// waits, unless somebody comes meanwhile. Returns how many were told.
    pub fn broadcast(&self, bits: u64, mut tell: impl FnMut(P, u64)) -> u64 {
        let mut chain = self.queue.lock().pop_all();
        let mut count = 0;
        while let Some((waiter, rest)) = chain {
            chain = rest.next();
            tell(waiter, bits);
            count += 1;
        }
        if count == 0
            && let Some((waiter, bits)) = self.signal(bits)
        {
            tell(waiter, bits);
            return 1;
        }
        count
    }

    /// Has a party wait, whose `at` names this notification already (IQ2), unless a bit is set.
    #[inline(always)]
    pub fn park(&self, waiter: P) -> Parked {
        if !self.queue.park(waiter) && !self.park_behind(waiter) {
            return Parked::Closed;
        }
        race_point!("notification.parked");
        match self.take() {
            0 => Parked::Waits,
            bits => self.second_thoughts(waiter, bits),
        }
    }

    #[cold]
    fn park_behind(&self, waiter: P) -> bool {
        let mut queue = self.queue.lock();
        let open = queue.kind() != Kind::Closed;
        if open {
            queue.push_receiver(waiter);
        }
        open
    }

    #[cold]
    fn second_thoughts(&self, waiter: P, bits: u64) -> Parked {
        race_point!("notification.thoughts");
        let out = self.queue.lock().remove(waiter);
        if out { Parked::Has(bits) } else { Parked::HasMore(bits) }
    }

    /// The queue, locked: to take a waiter out that waits no longer, or to close it.
    pub fn lock(&self) -> Guard<'_, P> {
        self.queue.lock()
    }

    /// Nobody waits here any more; `tell` gets each who does, and writes its `at`.
    pub fn close(&self, mut tell: impl FnMut(P)) {
        self.queue.lock().close();
        loop {
            let Some(waiter) = self.queue.lock().pop() else { break };
            debug_assert!(waiter.link().at() == At::MOVING, "IQ2: who is popped is moving");
            tell(waiter);
        }
    }
}

impl<P: Party> Default for Notification<P> {
    fn default() -> Self {
        Self::new()
    }
}
