//! Where cases run.

use abi::task::{CoreMask, SchedSpec};
use perf::bench::{Class, Placement, Site};
use rt::handle::{Core, Result};
use rt::start::Start;
use rt::thread::Builder;

use super::Lab;

/// Arguments that are no words of the kernel's command line but name partners: `partner.llc=2`.
pub(super) const PARTNER: &str = "partner.";

/// The core that measures.
pub(super) const HERE: usize = 0;

/// Threads that yield to each other have one fixed priority: in the normal class they could drift to different levels, and then a yield
/// switches to nobody.
pub(super) const PEERS: SchedSpec = fixed(SchedSpec::REAL_TIME_LOWEST);
/// The main thread comes before them, so that it can end what they do.
const MAIN: SchedSpec = fixed(SchedSpec::REAL_TIME_LOWEST + 1);
/// Of a thread that comes before the main thread.
pub(super) const FIRST: SchedSpec = fixed(SchedSpec::REAL_TIME_LOWEST + 2);

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
        Placement::alone(self.site(HERE))
    }

    /// A core as records name it.
    pub(super) fn site(&self, core: usize) -> Site {
        // A program without capabilities for cores does not know the nodes; its figures are no worse for it.
        let info = self.start.cores().nth(core).and_then(|core: Core| core.info().ok());
        Site { core: core as u32, node: info.map_or(0, |info| info.node as u32) }
    }

    /// For each class that the machine has, a core that stands so to the measuring one; itself left out. Told by who started this program.
    pub(super) fn partners(&self) -> impl Iterator<Item = (Class, usize)> {
        let start = self.start;
        [Class::Smt, Class::Llc, Class::Node, Class::Remote].into_iter().filter_map(move |class| {
            let named =
                |word: &&str| word.strip_prefix(PARTNER).is_some_and(|word| word.starts_with(class.word()));
            let word = start.arguments().find(named)?;
            let (_, core) = word.split_once('=')?;
            core.parse().ok().map(|core| (class, core))
        })
    }

    /// How many cores the points of a scaling curve have: 1, 2, 4, … and all.
    pub(super) fn scales(&self) -> impl Iterator<Item = usize> {
        let all = self.cores();
        let powers =
            core::iter::successors(Some(1_usize), |n| n.checked_mul(2)).take_while(move |&n| n < all);
        powers.chain(core::iter::once(all))
    }
}
