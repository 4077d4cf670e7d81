//! Epoch reclamation: an object is given back when no core can still be looking at it.
//!
//! Kernel code holds references only between entering and leaving the kernel, so leaving is a quiescent state and idling an
//! extended one: readers pay nothing on entry and, on exit, one load of a line that rarely changes. After K. Fraser, "Practical
//! Lock-Freedom" (UCAM-CL-TR-579, 2004), ch. 5.2.3, and quiescent-state-based reclamation as in P. McKenney, "Exploiting Deferred
//! Destruction" (2004), ch. 4–5; compared in T. Hart et al., "Performance of memory reclamation for lockless synchronization" (2007).
//!
//! A global epoch G advances from `e` to `e + 1` only when every core that is not idle has left the kernel with G = `e` in sight.
//!
//! * E1: while a core is in the kernel, G is at most one beyond the epoch `L` the core has announced: the next advance needs the core.
//! * E2: an object retired by a core at `L` ripens at G = `L + 3`. G was at most `L + 1` when it was unlinked; to reach `L + 2` its
//!   retirer must have announced `L + 1`, which publishes the unlinking to all who see G = `L + 2`; to reach `L + 3` every core must
//!   have left the kernel having seen `L + 2`. Whoever still held it has let go, and nobody can have found it since.
//! * E3: a core that leaves idle announces itself before it reads anything, and an advance looks at the announcements after it has
//!   read G: of two full fences one comes first, so either the advance sees the core or the core sees all that the advance relies on.

mod word;

#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
use crate::CACHE_LINE;
use crate::const_fn;
use crate::id::CoreId;
use crate::lock::Held;
use crate::pin::IrqOff;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
pub use word::Epoch;
use word::Word;

/// Callbacks run per [`leave_kernel`], at most.
pub const BUDGET: usize = 16;

/// Announcements looked at per [`leave_kernel`], at most; a longer look goes on at the next exit.
pub const SCAN: usize = 64;

/// Gives an object back.
///
/// # Safety
/// 1. Called once per retirement, with the retired object's link, when nobody can reach the object any more.
pub type Reclaim = unsafe fn(NonNull<Retired>, &mut Held<'_, 0>);

/// The link of a retired object, embedded in the object.
#[derive(Debug)]
#[repr(C)]
pub struct Retired {
    link: UnsafeCell<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: *mut Retired,
    reclaim: Option<Reclaim>,
    ripe: Epoch,
}

const _: () = assert!(size_of::<Retired>() == 24);

// SAFETY: the link is used only by the core that retired the object, under `&mut Limbo`.
unsafe impl Send for Retired {}
// SAFETY: as above; a shared reference gives no access.
unsafe impl Sync for Retired {}

impl Retired {
    /// A link of an object in use.
    #[must_use]
    pub const fn new() -> Self {
        Self { link: UnsafeCell::new(Link { next: ptr::null_mut(), reclaim: None, ripe: Epoch::FIRST }) }
    }
}

impl Default for Retired {
    fn default() -> Self {
        Self::new()
    }
}

/// The global epoch.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `epoch` | any core that finds all others past it | every core at each kernel exit | AcqRel / Acquire | its own, read-mostly |
#[derive(Debug)]
#[repr(C, align(64))]
struct Global {
    epoch: AtomicU64,
}

/// What a core announces.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `word` | the core itself | whoever tries to advance | Release / Acquire, fences as in E3 | its own |
#[derive(Debug)]
#[repr(C, align(64))]
struct Seat {
    word: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Seat>() == CACHE_LINE && size_of::<Global>() == CACHE_LINE);

/// How far a core's current attempt to advance has come.
#[derive(Clone, Copy, Debug)]
struct Scan {
    epoch: Epoch,
    next: usize,
}

/// A core's retired objects, oldest first; only the core itself touches it.
#[derive(Debug)]
struct Limbo {
    oldest: *mut Retired,
    newest: *mut Retired,
    scan: Scan,
}

#[cfg(not(loom))]
static GLOBAL: Global = Global::new();

#[cfg(not(loom))]
crate::core_local! {
    static SEAT: Seat = Seat::new();
    static LIMBO: crate::CoreCell<Limbo> = crate::CoreCell::new(Limbo::new());
}

/// Announces that this core holds no reference to shared objects: called on every way out of the kernel. Then tries to advance the
/// epoch and gives back what is ripe, both in bounded steps. Returns the number of objects given back.
///
/// `cores` is the number of cores of the machine; those not yet online count as idle.
#[cfg(not(loom))]
#[inline]
pub fn leave_kernel(irq: &mut IrqOff, cores: usize) -> usize {
    let global = GLOBAL.quiesce(SEAT.local(irq));
    if LIMBO.with_mut(irq, |limbo| limbo.is_empty()) { 0 } else { collect(irq, cores, global) }
}

#[cfg(not(loom))]
#[cold]
fn collect(irq: &mut IrqOff, cores: usize, global: Epoch) -> usize {
    let seat = |core: usize| CoreId::from_index(core).and_then(|core| SEAT.of(core));
    LIMBO.with_mut(irq, |limbo| GLOBAL.advance(&mut limbo.scan, cores, seat));
    let mut count = 0;
    while count < BUDGET {
        // Taken out first: the callback may retire another object.
        let Some((object, reclaim)) = LIMBO.with_mut(irq, |limbo| limbo.pop_ripe(global)) else { break };
        // SAFETY: ripe, hence unreachable (E2), and popped once; the rest is obligation 3 of `retire`.
        irq.locks(|held| unsafe { reclaim(object, held) });
        count += 1;
    }
    count
}

/// Announces that this core idles: until [`leave_idle`] it holds no reference and nobody waits for it.
#[cfg(not(loom))]
pub fn enter_idle(irq: &IrqOff) {
    SEAT.local(irq).rest();
}

/// Announces that this core is back; before it looks at any shared object. Also how a core comes online.
#[cfg(not(loom))]
pub fn leave_idle(irq: &IrqOff) {
    GLOBAL.wake(SEAT.local(irq));
}

/// Whether objects retired by this core wait to be given back. While it idles they stay where they are.
#[cfg(not(loom))]
#[must_use]
pub fn has_retired(irq: &IrqOff) -> bool {
    LIMBO.with_mut(irq, |limbo| !limbo.is_empty())
}

/// Has an object given back once no core can be looking at it.
///
/// # Safety
/// 1. The object is unlinked: no shared place leads to it, and none will again.
/// 2. It stays valid until `reclaim`; nobody retires it twice.
/// 3. `reclaim` is sound to call once, on this core, with `object`.
/// 4. The core is not announced as idle.
#[cfg(not(loom))]
#[inline]
pub unsafe fn retire(irq: &IrqOff, object: NonNull<Retired>, reclaim: Reclaim) {
    let ripe = SEAT.local(irq).own_epoch().ripe();
    // SAFETY: obligations 1 to 4 are the callee's.
    LIMBO.with_mut(irq, |limbo| unsafe { limbo.push(object, reclaim, ripe) });
}

impl Global {
    const_fn! {
        const fn new() -> Self {
            Self { epoch: AtomicU64::new(Epoch::FIRST.raw()) }
        }
    }

    /// Announces a quiescent state.
    #[inline]
    fn quiesce(&self, seat: &Seat) -> Epoch {
        // ORDER: Acquire pairs with Release in `advance`: what we read from now on is at least as new as this epoch (E2).
        let global = Epoch::from_raw(self.epoch.load(Ordering::Acquire));
        seat.announce(Word::active(global));
        global
    }

    /// Ends an extended quiescent state (E3).
    fn wake(&self, seat: &Seat) {
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
    fn advance<'a>(&self, scan: &mut Scan, cores: usize, seat: impl Fn(usize) -> Option<&'a Seat>) -> bool {
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
        const fn new() -> Self {
            Self { word: AtomicU64::new(Word::IDLE.0) }
        }
    }

    #[inline]
    fn announce(&self, word: Word) {
        // ORDER: Relaxed: only this core writes it.
        if self.word.load(Ordering::Relaxed) != word.0 {
            // ORDER: Release pairs with Acquire in `has_passed`: all our accesses before this are over. An unchanged word needs no
            // store: E2 rests on the stores that change it.
            self.word.store(word.0, Ordering::Release);
        }
    }

    fn rest(&self) {
        self.announce(Word::IDLE);
    }

    /// The epoch this core has announced.
    #[inline]
    fn own_epoch(&self) -> Epoch {
        // ORDER: Relaxed: only this core writes it.
        Word(self.word.load(Ordering::Relaxed)).epoch()
    }

    /// Whether the core does not stand in the way of leaving `epoch`.
    fn has_passed(&self, epoch: Epoch) -> bool {
        // ORDER: Acquire pairs with Release in `announce`.
        Word(self.word.load(Ordering::Acquire)).permits_leaving(epoch)
    }
}

impl Limbo {
    const fn new() -> Self {
        let scan = Scan { epoch: Epoch::FIRST, next: 0 };
        Self { oldest: ptr::null_mut(), newest: ptr::null_mut(), scan }
    }

    fn is_empty(&self) -> bool {
        self.oldest.is_null()
    }

    /// Appends an object; epochs only grow, so the list is in order of ripeness.
    ///
    /// # Safety
    /// 1. Obligations 1 and 2 of [`retire`].
    unsafe fn push(&mut self, object: NonNull<Retired>, reclaim: Reclaim, ripe: Epoch) {
        let link = Link { next: ptr::null_mut(), reclaim: Some(reclaim), ripe };
        // SAFETY: the object is valid (obligation 1), and only this list uses its link.
        unsafe { Self::write(object, link) };
        match NonNull::new(self.newest) {
            None => self.oldest = object.as_ptr(),
            Some(before) => {
                // SAFETY: objects in the list are valid (obligation 1 of their push).
                let link = unsafe { Self::read(before) };
                // SAFETY: as above.
                unsafe { Self::write(before, Link { next: object.as_ptr(), ..link }) };
            }
        }
        self.newest = object.as_ptr();
    }

    /// Takes out the oldest object if it is ripe.
    fn pop_ripe(&mut self, global: Epoch) -> Option<(NonNull<Retired>, Reclaim)> {
        let object = NonNull::new(self.oldest)?;
        // SAFETY: objects in the list are valid.
        let link = unsafe { Self::read(object) };
        if global < link.ripe {
            return None;
        }
        self.oldest = link.next;
        if self.oldest.is_null() {
            self.newest = ptr::null_mut();
        }
        Some((object, link.reclaim.expect("E4: a retired object has its callback")))
    }

    /// # Safety
    /// 1. `object` is valid and its link used by this list only.
    unsafe fn read(object: NonNull<Retired>) -> Link {
        // SAFETY: obligation 1.
        let cell = unsafe { object.as_ref() };
        // SAFETY: nobody else has the link (obligation 1).
        unsafe { *cell.link.get() }
    }

    /// # Safety
    /// 1. `object` is valid and its link used by this list only.
    unsafe fn write(object: NonNull<Retired>, link: Link) {
        // SAFETY: obligation 1.
        let cell = unsafe { object.as_ref() };
        // SAFETY: nobody else has the link (obligation 1).
        unsafe { *cell.link.get() = link };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{BUDGET, Retired, enter_idle, has_retired, leave_idle, leave_kernel, retire};
    use crate::host::Machine;
    use crate::id::CoreId;
    use crate::lock::Held;
    use crate::pin::IrqOff;
    use core::ptr::NonNull;
    use std::boxed::Box;
    use std::sync::{Mutex, PoisonError};

    /// The epoch is global to the process, as it is to a machine: one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// # Safety
    /// 1. `object` is a leaked box.
    unsafe fn free(object: NonNull<Retired>, _: &mut Held<'_, 0>) {
        // SAFETY: obligation 1; called once.
        drop(unsafe { Box::from_raw(object.as_ptr()) });
    }

    fn retire_one(irq: &IrqOff) {
        let object = NonNull::from(Box::leak(Box::new(Retired::new())));
        // SAFETY: nobody else knows the object; `free` expects a leaked box; the core is awake.
        unsafe { retire(irq, object, free) };
    }

    #[test]
    fn one_core_gives_back_in_bounded_steps() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Machine::new(1).run(CoreId::new(0), || {
            IrqOff::with(|irq| {
                leave_idle(irq);
                (0..BUDGET + 3).for_each(|_| retire_one(irq));
                let counts: [usize; 6] = core::array::from_fn(|_| leave_kernel(irq, 1));
                assert_eq!(counts.iter().sum::<usize>(), BUDGET + 3);
                assert!(counts.iter().all(|&count| count <= BUDGET) && counts[0] == 0);
                assert!(!has_retired(irq));
                enter_idle(irq);
            });
        });
    }

    #[test]
    fn a_core_in_the_kernel_holds_everything_and_an_idle_one_nothing() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = Machine::new(2);
        let on = |core, f: &dyn Fn(&mut IrqOff)| machine.run(CoreId::new(core), || IrqOff::with(f));
        on(1, &|irq| leave_idle(irq));
        on(0, &|irq| {
            leave_idle(irq);
            retire_one(irq);
            assert_eq!((0..9).map(|_| leave_kernel(irq, 2)).sum::<usize>(), 0);
        });
        on(1, &|irq| enter_idle(irq));
        on(0, &|irq| {
            assert_eq!((0..9).map(|_| leave_kernel(irq, 2)).sum::<usize>(), 1);
            enter_idle(irq);
        });
    }
}
