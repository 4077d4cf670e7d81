//! Objects that cores exchange and retire at random are given back, all of them, and never while a core can still be looking at one.

use core::ptr::NonNull;

use percpu::epoch::{self, Retired};
use percpu::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use percpu::{Held, IrqOff};
use perf::prng::Prng;

use super::bed::{Blame, Deadline, Gate, Scratch};
use super::{Bed, Result, ensure};
use crate::{cores, machine};

/// Shared places, and objects for each core.
const PLACES: usize = 8;
const OBJECTS_PER_CORE: usize = 24;
const STEPS: u64 = 300;
const MS: u64 = 500;
/// How long an object is looked at, in turns of a loop, at most: now and then long enough for others to leave the kernel many times.
const SHORT: u64 = 20;
const LONG: u64 = 600;
/// Exits after which everything retired has ripened, if no core stays in the kernel.
const EXITS: u64 = 1_000;

/// Lowest bit of [`Object::life`]: in use. The rest counts its lives.
const ALIVE: u64 = 1;

/// What is exchanged. The link comes first: an object is found again by its address.
#[repr(C, align(64))]
struct Object {
    link: Retired,
    life: AtomicU64,
}

const _: () = assert!(core::mem::offset_of!(Object, link) == 0);

/// # Safety
/// 1. `link` is the first field of an [`Object`] that lives.
unsafe fn give_back(link: NonNull<Retired>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1; the objects are in memory that the test holds to its end.
    let object = unsafe { link.cast::<Object>().as_ref() };
    // ORDER: Release pairs with Acquire in `revive`: whoever takes it again does so after this.
    object.life.fetch_add(1, Ordering::Release);
    // ORDER: Relaxed; the completion of calls publishes it.
    GIVEN_BACK.fetch_add(1, Ordering::Relaxed);
}

/// Objects given back in all runs.
static GIVEN_BACK: AtomicUsize = AtomicUsize::new(0);

struct Exchange<'a> {
    objects: &'a [Object],
    /// Index of an object plus 1; 0 for none.
    places: [AtomicUsize; PLACES],
    retired: AtomicUsize,
}

/// See the header. The boot core takes part.
///
/// Planted: objects ripen in the epoch they are retired in; `Global::advance` does not look at seats; one object in eight is dropped.
pub(super) fn reclaims_late_and_all(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let objects = Scratch::new(all.len() * OBJECTS_PER_CORE, |_| Object {
        link: Retired::new(),
        life: AtomicU64::new(0),
    })?;
    let exchange = Exchange {
        objects: &objects,
        places: [const { AtomicUsize::new(0) }; PLACES],
        retired: AtomicUsize::new(0),
    };
    // ORDER: Relaxed, as wherever this test counts: the completion of calls orders it.
    let before = GIVEN_BACK.load(Ordering::Relaxed);
    let (seed, deadline) = (bed.seed, Deadline::after_ms(MS));
    let (gate, done, blame) = (Gate::new(), Gate::new(), Blame::new());
    bed.crew.run(&all, |held| {
        let together = gate.pass(all.len());
        let mut prng = Prng::stream(seed, u32::from(held.core().raw()));
        IrqOff::with(|irq| {
            epoch::leave_idle(irq);
            blame.note(exchange.work(irq, &mut prng, deadline));
            let met = together && done.pass(all.len());
            blame.note(if met {
                exchange.wind_down(irq)
            } else {
                Err(super::failed(format_args!("no meeting")))
            });
            epoch::enter_idle(irq);
        });
    });
    // ORDER: Relaxed; see above.
    let given_back = GIVEN_BACK.load(Ordering::Relaxed) - before;
    // ORDER: Relaxed; see above.
    let retired = exchange.retired.load(Ordering::Relaxed);
    blame.verdict()?;
    ensure!(retired >= all.len(), "only {retired} objects were retired, which shows nothing");
    ensure!(given_back == retired, "{retired} objects were retired, {given_back} given back");
    Ok(())
}

impl Exchange<'_> {
    fn work(&self, irq: &mut IrqOff, prng: &mut Prng, deadline: Deadline) -> Result {
        for step in 0..STEPS {
            let place = &self.places[prng.below(PLACES as u64) as usize];
            if prng.bits() & 1 == 0 {
                self.look(place, prng)?;
            } else {
                self.replace(irq, place, prng);
            }
            if prng.bits() & 3 == 0 {
                epoch::leave_kernel(irq, machine::topology().core_count());
            }
            if step > 8 && deadline.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Holds on to what a place leads to for a while: its life does not end meanwhile.
    fn look(&self, place: &AtomicUsize, prng: &mut Prng) -> Result {
        // ORDER: Acquire pairs with AcqRel in `replace`.
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { return Ok(()) };
        let object = &self.objects[index];
        // ORDER: Acquire pairs with Release in `give_back`, which must not have come yet.
        let first = object.life.load(Ordering::Acquire);
        let patience = if prng.below(8) == 0 { LONG } else { SHORT };
        (0..prng.below(patience)).for_each(|_| core::hint::spin_loop());
        // ORDER: Acquire; as above.
        let last = object.life.load(Ordering::Acquire);
        ensure!(
            first & ALIVE != 0 && first == last,
            "object {index} was given back while it was looked at: life {first}, then {last}"
        );
        Ok(())
    }

    /// Puts a new object into a place and retires the one that was there.
    fn replace(&self, irq: &IrqOff, place: &AtomicUsize, prng: &mut Prng) {
        let new = self.revive(prng).map_or(0, |index| index + 1);
        // ORDER: AcqRel: Release pairs with Acquire in `look`; Acquire with the Release of who put the old one there.
        let old = place.swap(new, Ordering::AcqRel);
        if let Some(index) = old.checked_sub(1) {
            self.retire(irq, index);
        }
    }

    fn retire(&self, irq: &IrqOff, index: usize) {
        // ORDER: Relaxed; see `reclaims_late_and_all`.
        self.retired.fetch_add(1, Ordering::Relaxed);
        let link = NonNull::from(&self.objects[index]).cast::<Retired>();
        // SAFETY: the swap took the object out of the only place that led to it; it lives until the test ends, which waits for it;
        // `give_back` expects an object's link; this core has left idle.
        unsafe { epoch::retire(irq, link, give_back) };
    }

    /// A new life for an object that is not in use.
    fn revive(&self, prng: &mut Prng) -> Option<usize> {
        let from = prng.below(self.objects.len() as u64) as usize;
        (0..self.objects.len()).map(|step| (from + step) % self.objects.len()).find(|&index| {
            let life = &self.objects[index].life;
            // ORDER: Relaxed; a guess.
            let now = life.load(Ordering::Relaxed);
            // ORDER: Acquire pairs with Release in `give_back`. Relaxed on failure: only another guess.
            now & ALIVE == 0
                && life.compare_exchange(now, now + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })
    }

    /// Retires what is left and leaves the kernel until everything that this core retired has been given back.
    fn wind_down(&self, irq: &mut IrqOff) -> Result {
        for place in &self.places {
            // ORDER: AcqRel; as in `replace`.
            if let Some(index) = place.swap(0, Ordering::AcqRel).checked_sub(1) {
                self.retire(irq, index);
            }
        }
        let deadline = Deadline::after_ms(5_000);
        let mut exits = 0;
        while epoch::has_retired(irq) {
            epoch::leave_kernel(irq, machine::topology().core_count());
            exits += 1;
            ensure!(
                exits < EXITS || !deadline.is_over(),
                "after {exits} exits {} still has retired objects",
                irq.core()
            );
            core::hint::spin_loop();
        }
        Ok(())
    }
}
