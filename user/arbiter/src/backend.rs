//! The simulated qubits. Nothing here is quantum: how long each keeps its coherence and how good it is, is drawn once, and outcomes are drawn when
//! they are asked for.

use abi::error::Error;
use perf::clock::Nanos;
use rt::handle::{Lease, Notification, Owned};

/// Most qubits: a bit each in a notification.
pub(crate) const MOST: usize = 32;

/// A simulated qubit.
pub(crate) struct Qubit {
    /// Who has it; the kernel ends each turn at its deadline.
    pub(crate) lease: Owned<Lease>,
    /// How long it keeps its coherence.
    pub(crate) coherence: Nanos,
    /// In parts per million.
    pub(crate) fidelity: u64,
}

/// Pseudo-random numbers: "SplitMix64" (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = self.0;
        let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

impl Qubit {
    /// Simulates one, whose leases signal their end by a bit of a notification.
    pub(crate) fn simulate(
        number: usize,
        ended: Notification,
        coherence: Nanos,
        random: &mut Random,
    ) -> Result<Self, Error> {
        let lease = Lease::create(ended, 1 << number)?;
        // Up to a quarter longer.
        let more = coherence.count() / 4 * (random.next() % 1000) / 1000;
        let fidelity = 990_000 + random.next() % 10_000;
        Ok(Self { lease, coherence: Nanos::new(coherence.count() + more), fidelity })
    }

    /// The simulated outcome of a measurement: 0 or 1.
    pub(crate) fn measure(&self, random: &mut Random) -> u64 {
        random.next() >> 63
    }
}
