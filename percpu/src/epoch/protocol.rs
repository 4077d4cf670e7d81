//! The global epoch, what the cores announce, and how it advances; the invariants are stated in [`super`].

use super::word::{Epoch, Word};
#[cfg(not(loom))]
use crate::CACHE_LINE;
use crate::const_fn;
use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// Announcements looked at per [`leave_kernel`](super::leave_kernel), at most; a longer look goes on at the next exit.
const SCAN: usize = 64;

/// The global epoch.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `epoch` | any core that finds all others past it | every core at each kernel exit | AcqRel / Acquire | its own, read-mostly |
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Global {
    pub(super) epoch: AtomicU64,
}

/// What a core announces.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `word` | the core itself | whoever tries to advance | Release / Acquire, fences as in E3 | its own |
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Seat {
    word: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Seat>() == CACHE_LINE && size_of::<Global>() == CACHE_LINE);

/// How far a core's current attempt to advance has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    epoch: Epoch,
    next: usize,
}

impl Scan {
    /// Nothing looked at yet.
    pub(super) const NEW: Self = Self { epoch: Epoch::FIRST, next: 0 };
}

impl Global {
    const_fn! {
        pub(super) const fn new() -> Self {
            Self { epoch: AtomicU64::new(Epoch::FIRST.raw()) }
        }
    }

    /// Announces a quiescent state.
    #[inline]
    pub(super) fn quiesce(&self, seat: &Seat) -> Epoch {
        // ORDER: Acquire pairs with Release in `advance`: what we read from now on is at least as new as this epoch (E2).
        let global = Epoch::from_raw(self.epoch.load(Ordering::Acquire));
        seat.announce(Word::active(global));
        global
    }

    /// The epoch now: what was done before is seen by whoever finds a later one.
    pub(super) fn moment(&self) -> Epoch {
        // ORDER: Release pairs with Acquire in `quiesce` and `advance`: the next epoch is made of this exchange (E5).
        Epoch::from_raw(self.epoch.fetch_add(0, Ordering::Release))
    }

    /// How many advances are missing until a moment is past (E5).
    pub(super) fn until_past(&self, moment: Epoch) -> u64 {
        // ORDER: Acquire pairs with Release in `advance`: what the others did at the moment is seen.
        let now = Epoch::from_raw(self.epoch.load(Ordering::Acquire));
        moment.past().raw().saturating_sub(now.raw())
    }

    /// Ends an extended quiescent state (E3).
    pub(super) fn wake(&self, seat: &Seat) {
        // ORDER: Relaxed: a guess, looked at again below.
        let guess = Epoch::from_raw(self.epoch.load(Ordering::Relaxed));
        seat.announce(Word::active(guess));
        // ORDER: SeqCst pairs with the fence in `advance` (E3): an advance that has not seen the announcement is one whose
        // epoch, and whatever it relies on, we see below.
        fence(Ordering::SeqCst);
        // An advance that was under way may have passed us by; from here on at most one more step can (E1).
        self.quiesce(seat);
    }

    /// Tries to advance the epoch, looking at no more than [`SCAN`] seats.
    pub(super) fn advance<'a>(
        &self,
        scan: &mut Scan,
        cores: usize,
        seat: impl Fn(usize) -> Option<&'a Seat>,
    ) -> bool {
        // ORDER: Acquire pairs with Release below, of whoever made this epoch: its unlinkings are ours to pass on (E2).
        let now = Epoch::from_raw(self.epoch.load(Ordering::Acquire));
        if scan.epoch != now {
            *scan = Scan { epoch: now, next: 0 };
        }
        // ORDER: SeqCst pairs with the fence in `wake` (E3).
        fence(Ordering::SeqCst);
        let last = cores.min(scan.next + SCAN);
        while scan.next < last {
            if seat(scan.next).is_some_and(|seat| !seat.has_passed(now)) {
                return false;
            }
            scan.next += 1;
        }
        if scan.next < cores {
            return false;
        }
        // ORDER: AcqRel: Release pairs with Acquire in `quiesce` and above; passes on what all seats have published. Relaxed on
        // failure: somebody else has advanced, which the next attempt will see.
        let next = now.next().raw();
        self.epoch.compare_exchange(now.raw(), next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Seat {
    const_fn! {
        /// A core that is not online yet counts as idle.
        pub(super) const fn new() -> Self {
            Self { word: AtomicU64::new(Word::IDLE.0) }
        }
    }

    #[inline]
    pub(super) fn announce(&self, word: Word) {
        // ORDER: Relaxed: only this core writes it.
        if self.word.load(Ordering::Relaxed) != word.0 {
            // ORDER: Release pairs with Acquire in `has_passed`: all our accesses before this are over. An unchanged word needs no
            // store: E2 rests on the stores that change it.
            self.word.store(word.0, Ordering::Release);
        }
    }

    pub(super) fn rest(&self) {
        self.announce(Word::IDLE);
    }

    /// The epoch this core has announced.
    #[inline]
    pub(super) fn own_epoch(&self) -> Epoch {
        // ORDER: Relaxed: only this core writes it.
        Word(self.word.load(Ordering::Relaxed)).epoch()
    }

    /// Whether the core does not stand in the way of leaving `epoch`.
    pub(super) fn has_passed(&self, epoch: Epoch) -> bool {
        // ORDER: Acquire pairs with Release in `announce`.
        Word(self.word.load(Ordering::Acquire)).permits_leaving(epoch)
    }
}
