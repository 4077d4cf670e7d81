//! How far the time-stamp counters of two cores are apart.
//!
//! One core stamps, the other answers with its own stamp, the first stamps again: the answer must lie between the two. The tightest of
//! several exchanges bounds the distance; half of it is the uncertainty that no such comparison can go below.

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, CoreSet};

use crate::arch::tsc;
use crate::cores::Crew;
use crate::{log, machine};

/// The result of a comparison, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skew {
    /// How far the second core's stamp was from the middle of the first core's two.
    pub(crate) offset: u64,
    /// By how much `offset` can be wrong: half of the tightest exchange.
    pub(crate) uncertainty: u64,
}

impl Skew {
    /// Whether the counters are certainly apart: the answer lay outside the exchange.
    pub(crate) const fn is_certain(self) -> bool {
        self.offset > self.uncertainty
    }
}

/// The line over which two cores compare their counters: odd turns are the second core's.
#[repr(align(64))]
struct Exchange {
    turn: AtomicU64,
    stamp: AtomicU64,
}

impl Exchange {
    fn await_turn(&self, turn: u64) {
        // ORDER: Acquire pairs with Release in `pass_turn`: the other side's stamp is there.
        while self.turn.load(Ordering::Acquire) != turn {
            core::hint::spin_loop();
        }
    }

    fn pass_turn(&self, turn: u64) {
        // ORDER: Release pairs with Acquire in `await_turn`.
        self.turn.store(turn, Ordering::Release);
    }

    /// The second core's side of one exchange.
    fn answer(&self, round: u64) {
        self.await_turn(2 * round + 1);
        // ORDER: Relaxed; `pass_turn` publishes it.
        self.stamp.store(tsc::start(), Ordering::Relaxed);
        self.pass_turn(2 * round + 2);
    }

    /// The first core's side: the skew as this exchange shows it.
    fn ask(&self, round: u64) -> Skew {
        let sent = tsc::start();
        self.pass_turn(2 * round + 1);
        self.await_turn(2 * round + 2);
        let back = tsc::stop();
        // ORDER: Relaxed; after the Acquire in `await_turn`.
        let stamp = self.stamp.load(Ordering::Relaxed);
        let half = back.saturating_sub(sent) / 2;
        Skew { offset: stamp.abs_diff(sent + half), uncertainty: half }
    }
}

/// Compares the counters of two different cores; the tightest of so many exchanges.
pub(crate) fn compare(crew: &mut Crew, a: CoreId, b: CoreId, exchanges: u64) -> Skew {
    let line = Exchange { turn: AtomicU64::new(0), stamp: AtomicU64::new(0) };
    let (offset, uncertainty) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let pair: CoreSet = [a, b].into_iter().collect();
    crew.run(&pair, |held| {
        if held.core() == b {
            return (0..exchanges).for_each(|round| line.answer(round));
        }
        let tightest = (0..exchanges).map(|round| line.ask(round)).min_by_key(|skew| skew.uncertainty);
        if let Some(skew) = tightest {
            // ORDER: Relaxed, both; the end of the call publishes them.
            offset.store(skew.offset, Ordering::Relaxed);
            // ORDER: Relaxed; as above.
            uncertainty.store(skew.uncertainty, Ordering::Relaxed);
        }
    });
    // ORDER: Relaxed, both; see above.
    let offset = offset.load(Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    Skew { offset, uncertainty: uncertainty.load(Ordering::Relaxed) }
}

/// Exchanges with each core when the machine comes up.
const CHECK_EXCHANGES: u64 = 8;

/// Compares every core's counter with the boot core's and logs the outcome: figures that span cores are only as good as this.
pub(crate) fn check(crew: &mut Crew) {
    let boot = machine::boot_core();
    let (mut widest, mut apart) = (0, 0_u32);
    for core in machine::topology().cores().filter(|&core| core != boot) {
        let skew = compare(crew, boot, core, CHECK_EXCHANGES);
        widest = widest.max(skew.uncertainty);
        if skew.is_certain() {
            log!(
                "clock: the counter of {core:?} is {} ticks from {boot:?}'s, give or take {}",
                skew.offset,
                skew.uncertainty
            );
            apart += 1;
        }
    }
    if apart == 0 && widest > 0 {
        log!("clock: the counters of all cores agree within {widest} ticks");
    }
}
