//! Race points: places in the windows of lock-free protocols where a build that hunts races waits for a pseudo-random while.
//!
//! Without the feature `race` a point is nothing. With it, a core that comes to one mostly goes on at once, now and then waits for a few
//! turns of a loop and rarely for thousands: longer than another core needs for all of its part. The delays of a core follow from the
//! [`seed`] and the core alone; which core is where at the same time does not. A point orders nothing: a fence would hide what it is to show.

/// Names a point in the window of a race: `race_point!("tlb.active")`.
#[macro_export]
macro_rules! race_point {
    ($name:literal) => {
        $crate::race::point($name)
    };
}

/// Sets the seed of all delays; before, none is made.
pub fn seed(seed: u64) {
    on::seed(seed);
}

/// See [`race_point!`](crate::race_point).
#[doc(hidden)]
#[inline(always)]
pub fn point(name: &'static str) {
    on::point(name);
}

#[cfg(not(all(feature = "race", not(loom))))]
mod on {
    //! No delays: nothing is left of a point.

    pub(super) const fn seed(_: u64) {}

    #[inline(always)]
    pub(super) const fn point(_: &'static str) {}
}

#[cfg(all(feature = "race", not(loom)))]
mod on {
    //! The delays.

    use crate::pin::IrqOff;
    use crate::sync::atomic::{AtomicU64, Ordering};
    use crate::sync::hint;

    /// The seed, odd; 0 until it is set.
    static SEED: AtomicU64 = AtomicU64::new(0);

    crate::core_local! {
        /// State of this core's sequence; 0 before its first number.
        static STATE: AtomicU64 = AtomicU64::new(0);
    }

    pub(super) fn seed(seed: u64) {
        // ORDER: Relaxed: a core that sees it late only begins late.
        SEED.store(seed | 1, Ordering::Relaxed);
    }

    /// "SplitMix64" (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    const fn mix(state: u64) -> u64 {
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    }

    /// One turn of so many is a `pause`.
    const TURNS_BETWEEN_PAUSES: u64 = 64;

    /// Turns to wait: 3 of 4 times none, else up to 63, and once in 64 times up to 8191.
    const fn turns(random: u64) -> u64 {
        match random & 63 {
            0 => (random >> 6) & 8191,
            1..16 => (random >> 6) & 63,
            _ => 0,
        }
    }

    #[inline(never)]
    pub(super) fn point(_: &'static str) {
        // ORDER: Relaxed: see `seed`.
        let seed = SEED.load(Ordering::Relaxed);
        if seed == 0 {
            return;
        }
        let random = IrqOff::with(|irq| {
            let state = STATE.local(irq);
            // ORDER: Relaxed: only this core uses it.
            let before = match state.load(Ordering::Relaxed) {
                0 => mix(seed.wrapping_add(irq.core().index() as u64)) | 1,
                before => before,
            };
            let next = before.wrapping_add(0x9e37_79b9_7f4a_7c15);
            // ORDER: Relaxed: as above.
            state.store(next, Ordering::Relaxed);
            mix(next)
        });
        for turn in 0..turns(random) {
            // An emulator with one thread for all cores goes on with the next at a `pause`, else after a tenth of a second: one lets the others into
            // the window, thousands take longer than any watchdog.
            if turn % TURNS_BETWEEN_PAUSES == 0 {
                hint::spin_loop();
            } else {
                core::hint::black_box(turn);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::{mix, turns};

        #[test]
        fn most_points_do_not_wait_and_some_wait_long() {
            let waits: std::vec::Vec<u64> = (1..=6400).map(|n| turns(mix(n))).collect();
            let none = waits.iter().filter(|&&turns| turns == 0).count();
            assert!((4600..5200).contains(&none), "{none}");
            assert!(waits.iter().any(|&turns| turns > 4000));
        }
    }
}
