//! Unpredictable numbers: where a process's parts come, and the words that it is given.
//!
//! Each core has two generators (`perf::prng`, xoshiro256++), seeded with `arch::random` when the core first needs them: one for places,
//! one for words that programs see, so that a program's words tell nothing about the next one's places. It is no generator for keys: who sees
//! enough of its output can continue it, and it holds no more than its seed's 64 bits. Without `RDRAND` those are the low bits of the
//! time-stamp counter, which keep programs apart and attackers out only by accident.

use percpu::{CoreCell, IrqOff, core_local};
use perf::prng::Prng;

use crate::arch::random;

/// A core's generators.
struct Draws {
    places: Prng,
    words: Prng,
}

core_local! {
    static DRAWS: CoreCell<Option<Draws>> = CoreCell::new(None);
}

impl Draws {
    /// Cores that start at the same tick must not draw the same.
    #[cold]
    fn new(irq: &IrqOff) -> Self {
        let own = u32::from(irq.core().raw());
        Self { places: Prng::stream(random::seed(), own), words: Prng::stream(!random::seed(), own) }
    }
}

fn with<R>(irq: &IrqOff, f: impl FnOnce(&mut Draws) -> R) -> R {
    DRAWS.with_mut(irq, |draws| f(draws.get_or_insert_with(|| Draws::new(irq))))
}

/// A number below `bound` for a place; 0 if `bound` is 0.
pub(crate) fn below(irq: &IrqOff, bound: usize) -> usize {
    with(irq, |draws| draws.places.below(bound as u64) as usize)
}

/// Words for a program.
pub(crate) fn words(irq: &IrqOff) -> [u64; 2] {
    with(irq, |draws| [draws.words.bits(), draws.words.bits()])
}
