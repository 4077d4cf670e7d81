//! What the kernel calls on its way out, into idle and back; the process's one epoch and each core's part of it.

use super::limbo::{Limbo, Reclaim, Retired};
use super::protocol::{Global, Seat};
use super::word::Epoch;
use crate::id::CoreId;
use crate::local::CoreCell;
use crate::pin::IrqOff;
use core::ptr::NonNull;

/// Callbacks run per [`leave_kernel`], at most.
pub const BUDGET: usize = 16;

static GLOBAL: Global = Global::new();

crate::core_local! {
    static SEAT: Seat = Seat::new();
    static LIMBO: CoreCell<Limbo> = CoreCell::new(Limbo::new());
}

/// Announces that this core holds no reference to shared objects: called on every way out of the kernel. Then tries to advance the
/// epoch and gives back what is ripe, both in bounded steps. Returns the number of objects given back.
///
/// `cores` is the number of cores of the machine; those not yet online count as idle.
#[inline]
pub fn leave_kernel(irq: &mut IrqOff, cores: usize) -> usize {
    let global = GLOBAL.quiesce(SEAT.local(irq));
    if LIMBO.with_mut(irq, |limbo| limbo.is_empty()) { 0 } else { collect(irq, cores, global) }
}

/// As [`leave_kernel`], but gives nothing back: for ways out that have no time for it.
#[inline(always)]
pub fn pass(irq: &IrqOff) {
    GLOBAL.quiesce(SEAT.local(irq));
}

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

/// A moment: whatever a core did in the kernel then is over when it is past.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Epoch);

/// Now.
#[must_use]
pub fn moment() -> Moment {
    Moment(GLOBAL.moment())
}

/// How often the epoch has to advance until every core has left the kernel that was in it at a moment, this one included; 0 when it is past.
/// Tries to advance it, as [`leave_kernel`] does.
pub fn until_past(irq: &mut IrqOff, cores: usize, moment: Moment) -> u64 {
    let seat = |core: usize| CoreId::from_index(core).and_then(|core| SEAT.of(core));
    LIMBO.with_mut(irq, |limbo| GLOBAL.advance(&mut limbo.scan, cores, seat));
    GLOBAL.until_past(moment.0)
}

/// Announces that this core idles: until [`leave_idle`] it holds no reference and nobody waits for it.
pub fn enter_idle(irq: &IrqOff) {
    SEAT.local(irq).rest();
}

/// Announces that this core is back; before it looks at any shared object. Also how a core comes online.
pub fn leave_idle(irq: &IrqOff) {
    GLOBAL.wake(SEAT.local(irq));
}

/// Whether objects retired by this core wait to be given back. While it idles they stay where they are.
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
#[inline]
pub unsafe fn retire(irq: &IrqOff, object: NonNull<Retired>, reclaim: Reclaim) {
    let ripe = SEAT.local(irq).own_epoch().ripe();
    // SAFETY: obligations 1 to 4 are the callee's.
    LIMBO.with_mut(irq, |limbo| unsafe { limbo.push(object, reclaim, ripe) });
}

#[cfg(test)]
mod tests {
    use super::{BUDGET, enter_idle, has_retired, leave_idle, leave_kernel, retire};
    use crate::epoch::Retired;
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
