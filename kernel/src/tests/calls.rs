//! Calls between all cores, alone and all at once, and what wakes a sleeping core.
//!
//! A function that was sent to a core may not wait for another core by rights (Q2 in `percpu::call`). These tests make every core the
//! initiator by starting a second chain (hatch 2 in `percpu::lock`). That ends, because each core is sent one such function and all
//! others return at once: a request can only lie undelivered behind a function that started later, so no circle of them exists.

use abi::boot::Idle;
use percpu::mailbox::{INBOX, Kick, Rest, Signal, Urgency};
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CallSlot, CoreId, CoreSet, Held, IrqOff, core_local};
use perf::prng::Prng;

use super::bed::{self, Blame, Deadline, Gate, Scratch};
use super::{Bed, Result, Verdict, ensure};
use crate::arch::idle;
use crate::arch::ipi::{self, Interrupts};
use crate::{cores, machine, start};

/// With more cores than this, each calls a sample of the others.
const FULL_MATRIX: usize = 16;
/// The size of that sample.
const SAMPLE: usize = 4;

const ALONE: Verdict = Verdict::Skipped("needs a second core");

/// Every core calls every other core in turn: the function has run, there and nowhere else, when the call returns.
///
/// Planted: `percpu::call` sends to the core after the one it was given.
pub(super) fn each(bed: &mut Bed) -> Result {
    let count = machine::topology().core_count();
    if count < 2 {
        return Err(ALONE);
    }
    let mut prng = Prng::new(bed.seed);
    for from in machine::topology().cores() {
        for step in 1..count {
            let mut random = || 1 + prng.below(count as u64 - 1) as usize;
            let distance = if count <= FULL_MATRIX { step } else { random() };
            one_call(from, (from.index() + distance) % count)?;
            if count > FULL_MATRIX && step >= SAMPLE {
                break;
            }
        }
    }
    Ok(())
}

fn one_call(from: CoreId, to: usize) -> Result {
    /// No core's number.
    const NOBODY: u64 = u64::MAX;
    let to = CoreId::from_index(to).expect("a remainder by the number of cores");
    let ran = AtomicU64::new(NOBODY);
    let blame = Blame::new();
    cores::call(from, |held| {
        let caller = held.core();
        IrqOff::with(|irq| {
            percpu::call::call(irq, &Interrupts, to, |held| {
                // ORDER: Relaxed; the call's completion publishes it.
                ran.store(u64::from(held.core().raw()), Ordering::Relaxed);
            });
        });
        // ORDER: Relaxed; see above.
        let ran = ran.load(Ordering::Relaxed);
        blame.note(arrived(caller == from && ran == u64::from(to.raw()), (from, to), ran));
    });
    blame.verdict()
}

fn arrived(well: bool, (from, to): (CoreId, CoreId), ran: u64) -> Result {
    ensure!(well, "a call from {from} to {to} ran on {ran} by the time it returned");
    Ok(())
}

/// Operations of each core in the storm, at most.
const STORM: u64 = 100;
const STORM_MS: u64 = 600;
/// Slots of a broadcast in the storm: fewer than targets, so that they are used again.
const SLOTS: usize = 3;

core_local! {
    /// Functions of the storm that ran on this core.
    static RAN: AtomicU64 = AtomicU64::new(0);
}

/// All cores call and broadcast at random at the same time: it ends, and every function ran once.
///
/// Planted: `Inbox::serve` delivers one message in 16 twice; `Word::arm` ignores messages that wait (this then never ends).
pub(super) fn storm(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    if all.len() < 2 {
        return Err(ALONE);
    }
    let sent = Scratch::new(machine::topology().core_count(), |_| AtomicU64::new(0))?;
    let before = Scratch::new(sent.len(), |core| AtomicU64::new(ran_on(core)))?;
    let deadline = Deadline::after_ms(STORM_MS);
    let seed = bed.seed;
    let gate = Gate::new();
    let blame = Blame::new();
    bed.crew.run(&all, |held| {
        blame.note(
            gate.pass(all.len())
                .then_some(())
                .ok_or_else(|| super::failed(format_args!("the cores did not meet"))),
        );
        let mut prng = Prng::stream(seed, u32::from(held.core().raw()));
        IrqOff::with(|irq| {
            for _ in 0..STORM {
                if deadline.is_over() {
                    break;
                }
                storm_step(irq, &mut prng, &sent);
            }
        });
    });
    blame.verdict()?;
    for core in machine::topology().cores() {
        // ORDER: Relaxed, both; the calls' completion published them.
        let sent = sent[core.index()].load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        let ran = ran_on(core.index()) - before[core.index()].load(Ordering::Relaxed);
        ensure!(sent == ran, "{sent} functions were sent to {core}, {ran} ran there");
    }
    Ok(())
}

fn ran_on(core: usize) -> u64 {
    // ORDER: Relaxed; read between storms, ordered by the completion of calls.
    CoreId::from_index(core).and_then(|core| RAN.of(core)).map_or(0, |ran| ran.load(Ordering::Relaxed))
}

fn storm_step(irq: &mut IrqOff, prng: &mut Prng, sent: &[AtomicU64]) {
    let count = |held: &mut Held<'_, 0>| {
        // ORDER: Relaxed; the call's completion publishes it.
        RAN.local(held).fetch_add(1, Ordering::Relaxed);
    };
    let note = |core: CoreId| {
        // ORDER: Relaxed; the completion of the storm publishes it.
        sent[core.index()].fetch_add(1, Ordering::Relaxed);
    };
    let any = |prng: &mut Prng| CoreId::from_index(prng.below(sent.len() as u64) as usize);
    if prng.below(8) > 0 {
        if let Some(target) = any(prng) {
            note(target);
            percpu::call::call(irq, &Interrupts, target, count);
        }
    } else {
        let targets: CoreSet = (0..prng.below(sent.len() as u64) + 1).filter_map(|_| any(prng)).collect();
        targets.iter().for_each(note);
        let mut slots = [const { CallSlot::new() }; SLOTS];
        percpu::call::broadcast(irq, &Interrupts, &targets, &mut slots, count);
    }
}

core_local! {
    /// What the boot core wakes this core with, and how often it has been answered.
    static BELL: Signal = Signal::new(answer);
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
}

fn answer(_: &'static Signal, held: &mut Held<'_, 0>) {
    // ORDER: Release pairs with Acquire in `answers`.
    ANSWERS.local(held).fetch_add(1, Ordering::Release);
}

fn answers(core: CoreId) -> u64 {
    // ORDER: Acquire pairs with Release in `answer`.
    ANSWERS.of(core).map_or(0, |answers| answers.load(Ordering::Acquire))
}

/// Times that each core is woken.
const WAKES: u64 = 4;
/// Cores that are woken, at most.
const WOKEN: usize = 16;
/// Turns of a loop after which a core that has nothing to do sleeps, on any emulator that gives every core its share.
const SETTLE: u32 = 2_000;

/// A message to a core that sleeps asks for an interrupt, which wakes it; one to a core that runs asks for none and is answered all the
/// same. So no message is missed, and no interrupt sent in vain.
///
/// Planted: `Word::push` always asks for an interrupt; `Inbox::serve` delivers one message in 16 twice.
pub(super) fn wake_from_sleep(bed: &mut Bed) -> Result {
    let others = cores::all_online().difference(&CoreSet::one(machine::boot_core()));
    if others.is_empty() {
        return Err(ALONE);
    }
    for core in others.iter().take(WOKEN) {
        while_it_runs(bed, core)?;
        (0..WAKES).try_for_each(|_| from_sleep(core))?;
    }
    Ok(())
}

fn ring(core: CoreId) -> core::result::Result<Kick, Verdict> {
    let (bell, inbox) = BELL.of(core).zip(INBOX.of(core)).ok_or(ALONE)?;
    Ok(bell.raise(inbox, Urgency::Lazy))
}

/// While the core is busy with a function, a message is put down without an interrupt; it is answered afterwards.
fn while_it_runs(bed: &mut Bed, core: CoreId) -> Result {
    let before = answers(core);
    let (arrived, rung) = (Gate::new(), Gate::new());
    let blame = Blame::new();
    let both = CoreSet::one(core).union(&CoreSet::one(machine::boot_core()));
    bed.crew.run(&both, |held| {
        blame.note(meet(&arrived));
        if held.core() != core {
            blame.note(ring(core).and_then(|kick| quiet(core, kick)));
        }
        blame.note(meet(&rung));
    });
    blame.verdict()?;
    ensure!(
        bed::wait(|| answers(core) == before + 1),
        "{core} never looked at a message that came while it ran"
    );
    Ok(())
}

fn meet(gate: &Gate) -> Result {
    ensure!(gate.pass(2), "two cores did not meet");
    Ok(())
}

fn quiet(core: CoreId, kick: Kick) -> Result {
    ensure!(kick == Kick::None, "{core} runs, and yet a message that can wait asks for an interrupt");
    Ok(())
}

/// The core sleeps; a message asks for an interrupt and only that wakes it, unless the core watches its inbox: then the message alone does.
fn from_sleep(core: CoreId) -> Result {
    let asleep = || INBOX.of(core).is_some_and(|inbox| !inbox.is_quiet());
    ensure!(bed::wait(asleep), "{core} does not go to sleep");
    // An interrupt left over from before is taken now, not mistaken for the one below.
    (0..SETTLE).for_each(|_| core::hint::spin_loop());
    let (before, taken) = (answers(core), ipi::taken(core));
    let kick = ring(core)?;
    let expected = if idle::kind() == Rest::Watching { Kick::None } else { Kick::Interrupt };
    ensure!(kick == expected, "{core} sleeps, and a message asks for {kick:?}");
    follow(kick, core);
    ensure!(bed::wait(|| answers(core) == before + 1), "{core} sleeps through a message");
    let taken = ipi::taken(core) - taken;
    ensure!(taken == u64::from(kick == Kick::Interrupt), "{core} took {taken} interrupts to wake up once");
    Ok(())
}

fn follow(kick: Kick, core: CoreId) {
    if kick == Kick::Interrupt {
        percpu::Ipi::send(&Interrupts, core);
    }
}

/// Messages to each core, and the longest pause before one in turns of a loop: what it takes to fall asleep is somewhere in between.
const MESSAGES: u64 = 400;
const PAUSE: u64 = 600;
/// Time for all of them.
const WAKE_MS: u64 = 1_500;

/// However a core sleeps, a message that comes while it falls asleep is not slept through.
///
/// The emulator's MWAIT does not sleep, so that what can be lost there is seen on hardware only.
///
/// Planted: `idle::rest` turns interrupts on a while before HLT instead of with it.
pub(super) fn no_wake_lost(bed: &mut Bed) -> Result {
    let others = cores::all_online().difference(&CoreSet::one(machine::boot_core()));
    if others.is_empty() {
        return Err(ALONE);
    }
    let mut prng = Prng::new(bed.seed);
    let tried = [Idle::Hlt, Idle::Mwait].into_iter().try_for_each(|way| {
        idle::choose(way);
        let deadline = Deadline::after_ms(WAKE_MS);
        others.iter().take(WOKEN).try_for_each(|core| falling_asleep(core, &mut prng, deadline))
    });
    idle::choose(start::params().idle);
    tried
}

fn falling_asleep(core: CoreId, prng: &mut Prng, deadline: Deadline) -> Result {
    for number in 0..MESSAGES {
        if deadline.is_over() {
            break;
        }
        let before = answers(core);
        let kick = ring(core)?;
        follow(kick, core);
        let answered = bed::wait(|| answers(core) == before + 1);
        ensure!(answered, "{core} sleeps through message {number}, which asked for {kick:?}");
        (0..prng.below(PAUSE)).for_each(|_| core::hint::spin_loop());
    }
    Ok(())
}
