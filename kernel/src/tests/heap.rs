//! The heap serves every core and gives empty arenas back to the frame allocator.

use alloc::vec::Vec;

use perf::prng::Prng;

use super::bed::Blame;
use super::{Bed, Result, ensure};
use crate::{cores, heap};

/// Vectors on each core, and their longest, in words: more than one arena in all.
const VECTORS: usize = 32;
const LONGEST: u64 = 1024;

/// All cores allocate, grow, check and drop vectors at once; afterwards only the arena with the heap's own tables is left.
///
/// Planted: `Backing::take` gives the same block twice; `Heap::trim` never gives an arena back.
pub(super) fn vectors(bed: &mut Bed) -> Result {
    let (seed, before) = (bed.seed, heap::arenas());
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let mut prng = Prng::stream(seed, u32::from(held.core().raw()));
        let mark = u64::from(held.core().raw()) << 32;
        let mut vectors: Vec<Vec<u64>> = Vec::new();
        for _ in 0..VECTORS {
            let length = 1 + prng.below(LONGEST);
            vectors.push((0..length).map(|i| mark | i).collect());
        }
        let whole = |vector: &Vec<u64>| vector.iter().zip(0..).all(|(&word, i)| word == (mark | i));
        let check = || -> Result {
            ensure!(vectors.iter().all(whole), "{}: a vector was overwritten", held.core());
            Ok(())
        };
        blame.note(check());
    });
    blame.verdict()?;
    ensure!(
        heap::arenas() == before,
        "{before} arenas before, {} after everything was dropped",
        heap::arenas()
    );
    Ok(())
}
