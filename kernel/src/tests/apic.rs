//! The interrupt controller of every core, and which cores an interrupt reaches.

use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::{CoreId, CoreSet, Held};
use perf::prng::Prng;

use super::bed::{self, Blame, Gate};
use super::{Bed, Result, Verdict, ensure};
use crate::arch::apic::{self, Mode, Setup};
use crate::{cores, machine};

/// Every core's unit is on, in the reported mode, masked where it should be, and has the id that the topology says. The logical id is the
/// one that interrupts to several cores are addressed by.
///
/// Planted: `apic::enable` leaves LINT0 open; leaves errors masked (as it did); `Topology::clusters` adds a neighbour.
pub(super) fn setup(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| blame.note(own_unit(held.core())));
    blame.verdict()
}

fn own_unit(core: CoreId) -> Result {
    let mode = Some(apic::mode());
    let expected = Setup { mode, enabled: true, masked: true, timer: true, reports_errors: true };
    let found = Setup::read();
    ensure!(found == expected, "{core}: {found:?}, expected {expected:?}");
    let (id, listed) = (apic::id(), machine::apic_id(core));
    ensure!(id == listed, "{core} has APIC id {id}, the topology says {listed}");
    if apic::mode() == Mode::X2apic {
        let own = CoreSet::one(core);
        let derived = machine::topology().clusters(&own).next().map(|cluster| cluster.destination());
        let logical = apic::logical_id();
        ensure!(derived == Some(logical), "{core}: logical id {logical:#x}, addressed as {derived:#x?}");
    }
    Ok(())
}

/// Sets that are tried.
const ROUNDS: u64 = 6;
/// Tries for a round in which no core has an older interrupt waiting.
const TRIES: u32 = 50;

/// What the boot core tells the others in a round.
const WAIT: usize = 0;
const SENT: usize = 1;
const AGAIN: usize = 2;

/// One command for several cores: all cores have interrupts off and look at their request registers, so it is seen whom it reached.
struct Round {
    targets: CoreSet,
    members: usize,
    unclean: AtomicUsize,
    word: AtomicUsize,
    ready: Gate,
    reached: AtomicUsize,
}

/// An interrupt to a set of cores reaches each of them and nobody else; so does the one to all others.
///
/// Planted: `Topology::clusters` adds a neighbour to every cluster; `apic::send_set` sends to all.
pub(super) fn multicast(bed: &mut Bed) -> Result {
    let others = cores::all_online().difference(&CoreSet::one(machine::boot_core()));
    if others.is_empty() {
        return Err(Verdict::Skipped("needs a second core"));
    }
    let mut prng = Prng::new(bed.seed);
    for number in 0..ROUNDS {
        let mut some: CoreSet = others.iter().filter(|_| prng.bits() & 1 == 0).collect();
        if number == 0 || some.is_empty() {
            some.insert(others.lowest().expect("there are others"));
        }
        round(bed, &some, apic::send_set)?;
    }
    round(bed, &others, apic::send_set)?;
    round(bed, &others, |_| apic::send_all_but_self())
}

fn round(bed: &mut Bed, targets: &CoreSet, send: impl Fn(&CoreSet) + Sync) -> Result {
    let all = cores::all_online();
    for _ in 0..TRIES {
        let round = Round {
            targets: *targets,
            members: all.len(),
            unclean: AtomicUsize::new(0),
            word: AtomicUsize::new(WAIT),
            ready: Gate::new(),
            reached: AtomicUsize::new(0),
        };
        let blame = Blame::new();
        bed.crew.run(&all, |held| blame.note(round.take_part(held, &send)));
        blame.verdict()?;
        // ORDER: Relaxed; the call's completion published it.
        if round.word.load(Ordering::Relaxed) == SENT {
            return Ok(());
        }
        // The older interrupts are taken when the cores go back to sleep.
        (0..1_000).for_each(|_| core::hint::spin_loop());
    }
    ensure!(false, "in {TRIES} tries some core always had an interrupt waiting");
    Ok(())
}

impl Round {
    fn take_part(&self, held: &Held<'_, 0>, send: &impl Fn(&CoreSet)) -> Result {
        let (core, boot) = (held.core(), machine::boot_core());
        // The boot core never takes interrupts while it runs tests, so one may always be waiting there.
        if core != boot && apic::is_requested() {
            // ORDER: Relaxed; the gate publishes it.
            self.unclean.fetch_add(1, Ordering::Relaxed);
        }
        ensure!(self.ready.pass(self.members), "the cores did not meet");
        if core == boot {
            // ORDER: Relaxed; ordered by the gate.
            let clean = self.unclean.load(Ordering::Relaxed) == 0;
            if clean {
                send(&self.targets);
            }
            // ORDER: Release pairs with Acquire below: the command comes before the word.
            self.word.store(if clean { SENT } else { AGAIN }, Ordering::Release);
        }
        // ORDER: Acquire pairs with Release above.
        let word = || self.word.load(Ordering::Acquire);
        ensure!(bed::wait(|| word() != WAIT), "{core} heard nothing from the boot core");
        if word() == AGAIN {
            return Ok(());
        }
        if self.targets.contains(core) {
            ensure!(bed::wait(apic::is_requested), "an interrupt to {:?} did not reach {core}", self.targets);
            // ORDER: Release pairs with Acquire below.
            self.reached.fetch_add(1, Ordering::Release);
            return Ok(());
        }
        // ORDER: Acquire pairs with Release above: who is not meant looks when all who are have theirs.
        let all_reached = || self.reached.load(Ordering::Acquire) == self.targets.len();
        ensure!(bed::wait(all_reached), "an interrupt to {:?} did not reach all", self.targets);
        ensure!(core == boot || !apic::is_requested(), "an interrupt to {:?} reached {core}", self.targets);
        Ok(())
    }
}
