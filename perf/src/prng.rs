//! The pseudo-random numbers of benchmarks: one seed, one sequence, on every machine.
//!
//! The generator is xoshiro256++ (Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47,
//! 2021) from the crate `rand_xoshiro`, seeded through SplitMix64 as its authors recommend.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A stream of pseudo-random numbers. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prng(Xoshiro256PlusPlus);

impl Prng {
    /// The sequence of a seed; the seed is the kernel command line's `seed=`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// The `number`th stream of a seed, one for each core: 2^128 numbers apart, so streams never overlap.
    #[must_use]
    pub fn stream(seed: u64, number: u32) -> Self {
        let mut prng = Self::new(seed);
        for _ in 0..number {
            prng.0.jump();
        }
        prng
    }

    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, or 0 if `bound` is 0, by one multiplication (Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019) without its rejection step: the bias is below `bound` / 2^64, the cost is constant.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// Puts a slice into random order (Fisher and Yates, in Durstenfeld's form).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}
