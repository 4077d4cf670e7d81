//! Where cases run.

use abi::task::{CoreMask, SchedSpec};
use perf::bench::{Placement, Site};
use rt::handle::{Core, Result};
use rt::start::Start;
use rt::thread::Builder;

use super::Lab;

/// The core that measures.
pub(super) const HERE: usize = 0;

/// Threads that yield to each other have one fixed priority: in the normal class they could drift to different levels, and then a yield
/// switches to nobody.
pub(super) const PEERS: SchedSpec = fixed(SchedSpec::REAL_TIME_LOWEST);
/// The main thread comes before them, so that it can end what they do.
const MAIN: SchedSpec = fixed(SchedSpec::REAL_TIME_LOWEST + 1);

const fn fixed(priority: u64) -> SchedSpec {
    SchedSpec { class: SchedSpec::REAL_TIME, priority, budget: 0, period: 0, deadline: 0 }
}

/// Puts the main thread where it measures.
pub(super) fn settle(start: Start) -> Result<()> {
    start.thread().bind(&CoreMask::one(HERE))?;
    start.thread().schedule(&MAIN)
}

/// A thread that yields to others on a core.
pub(super) fn peer(core: usize) -> Builder {
    Builder::default().cores(CoreMask::one(core)).schedule(PEERS)
}

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
