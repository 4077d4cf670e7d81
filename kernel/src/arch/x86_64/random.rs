//! Random numbers from the CPU.

use x86_64::instructions::random::RdRand;

use super::tsc;

/// How often a failing `RDRAND` is tried again (Intel, "Digital Random Number Generator Software Implementation Guide", §5.2.1).
const TRIES: usize = 10;

/// 64 bits from `RDRAND`; `None` where the CPU has no such instruction, or no numbers left.
pub(crate) fn hardware() -> Option<u64> {
    let source = RdRand::new()?;
    (0..TRIES).find_map(|_| source.get_u64())
}

/// A seed: 64 bits of the CPU's generator, else what an outsider does not know of the time-stamp counter. How many bits that is nobody
/// can say: from the time since power-on, some 20 on hardware, none in an emulator that counts instructions.
pub(crate) fn seed() -> u64 {
    hardware().unwrap_or(0) ^ tsc::now()
}
