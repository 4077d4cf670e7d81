//! Where cases run.

use perf::bench::{Placement, Site};
use rt::handle::Core;

use super::Lab;

/// The core that measures.
pub(super) const HERE: usize = 0;

impl Lab {
    /// Cores of the machine.
    pub(super) fn cores(&self) -> usize {
        self.start.raw().cores as usize
    }

    /// The measuring core, alone.
    pub(super) fn alone(&self) -> Placement {
        // A program without capabilities for cores does not know the nodes; its figures are no worse for it.
        let info = self.start.cores().next().and_then(|core: Core| core.info().ok());
        let node = info.map_or(0, |info| info.node as u32);
        Placement::alone(Site { core: HERE as u32, node })
    }

    /// How many cores the points of a scaling curve have: 1, 2, 4, … and all.
    pub(super) fn scales(&self) -> impl Iterator<Item = usize> {
        let all = self.cores();
        let powers =
            core::iter::successors(Some(1_usize), |n| n.checked_mul(2)).take_while(move |&n| n < all);
        powers.chain(core::iter::once(all))
    }
}
