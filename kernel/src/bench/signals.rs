//! Reaching other cores: interrupts, calls, a contended lock.

use core::cell::Cell;

use percpu::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use percpu::{CoreId, CoreSet, Held, Lock};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::runner::{MatrixHead, Probe, Trouble};
use x86_64::instructions::interrupts;

use super::crew::{self, Body, BootOnly, Gate};
use super::place::{self, Cells};
use super::{Lab, Meter};
use crate::arch::{apic, ipi};
use crate::{cores, machine, start};

/// Interrupting one core and seeing that its handler has run.
pub(super) const IPI_ONE: Bench<Lab> = Bench {
    id: "ipi.one",
    version: 2,
    doc: "sending an interrupt to one core until its handler's acknowledgement is seen",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote, Class::Matrix],
    batch: 1,
    cases: |_, visit| {
        for state in [HALTED, SPINNING] {
            for (class, partner) in place::partners() {
                let (placement, word) = place::pair(class, partner);
                visit(Case::new(placement).with("to", word).with("target", Value::Word(state)));
            }
            let count = place::shown().count();
            if count > 1 {
                let case = Case::new(Placement::matrix(count as u32));
                visit(case.with("to", Value::Word("all")).with("target", Value::Word(state)));
            }
        }
    },
    run: ipi_one,
};

/// The target sleeps.
const HALTED: &str = "halted";
/// The target runs with interrupts on.
const SPINNING: &str = "spinning";
/// Samples and warm-up of a matrix cell.
const CELL: usize = 16;
const CELL_WARM_UP: u32 = 4;

/// Keeps a target as the case wants it until `over` is set.
fn be_target(held: &mut Held<'_, 0>, halted: bool, rests: &AtomicU64, over: &AtomicBool) {
    // ORDER: Acquire pairs with Release in `release_target`.
    let turn = || !over.load(Ordering::Acquire);
    if !halted {
        // SAFETY: a function that was sent to an idle core; nothing core-local is in use here.
        return unsafe { cores::expose(held, turn) };
    }
    while turn() {
        // ORDER: Release pairs with Acquire in `await_rest`: what comes next is the instruction that sleeps.
        rests.fetch_add(1, Ordering::Release);
        // As in `cores::expose`.
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

/// Waits until a halted target has gone to sleep once more than the `seen` times known so far.
fn await_rest(rests: &AtomicU64, seen: &Cell<u64>) {
    loop {
        // ORDER: Acquire pairs with Release in `be_target`.
        let now = rests.load(Ordering::Acquire);
        if now > seen.get() {
            seen.set(now);
            return crew::settle();
        }
        core::hint::spin_loop();
    }
}

/// Ends [`be_target`]. A last interrupt makes sure that a sleeping target looks.
fn release_target(target: CoreId, over: &AtomicBool) {
    // ORDER: Release pairs with Acquire in `be_target`.
    over.store(true, Ordering::Release);
    apic::send(machine::apic_id(target));
}

/// Runs `measure` on `source` while `target` is halted or spinning. `measure` is given what to do before each interrupt: wait until the
/// target is as it should be.
fn with_target(
    lab: &mut Lab,
    source: CoreId,
    target: CoreId,
    halted: bool,
    measure: impl Fn(&mut Held<'_, 0>, &dyn Fn()) + Sync,
) {
    let (gate, over, rests) = (Gate::new(), AtomicBool::new(false), AtomicU64::new(0));
    lab.crew.run(&[source, target].into_iter().collect(), |held| {
        gate.pass(2);
        if held.core() == target {
            return be_target(held, halted, &rests, &over);
        }
        let seen = Cell::new(0);
        measure(held, &|| {
            if halted {
                await_rest(&rests, &seen);
            }
        });
        release_target(target, &over);
    });
}

/// One interrupt and its acknowledgement.
#[inline(always)]
fn interrupt(target: CoreId, apic_id: u32) {
    let before = ipi::taken(target);
    apic::send(apic_id);
    while ipi::taken(target) == before {
        core::hint::spin_loop();
    }
}

fn ipi_one(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let halted = case.params.word("target") == Some(HALTED);
    if case.placement.class == Class::Matrix {
        ipi_matrix(lab, meter, halted);
        return Ok(());
    }
    let target = place::partner(case.placement.class).ok_or(Trouble::Failed("the partner is gone"))?;
    let apic_id = machine::apic_id(target);
    // The meter's reporter is not for other cores; the boot core, which has it, is the source.
    let meter = BootOnly::new(meter);
    with_target(lab, place::here(), target, halted, |held, ready| {
        meter.with(held, |meter| {
            meter.windows(&mut (), |()| ready(), |()| interrupt(target, apic_id), |()| {});
        });
    });
    Ok(())
}

fn ipi_matrix(lab: &mut Lab, meter: &mut Meter<'_>, halted: bool) {
    let mut cells: Cells = [[None; _]; _];
    for (i, source) in place::shown().enumerate() {
        for (j, target) in place::shown().enumerate().filter(|&(j, _)| j != i) {
            let apic_id = machine::apic_id(target);
            let mut probe: Lock<30, Probe<CELL>> = Lock::new(meter.probe(CELL_WARM_UP));
            with_target(lab, source, target, halted, |held, ready| {
                probe.with(held, |probe, _| crew::fill(probe, ready, || interrupt(target, apic_id)));
            });
            cells[i][j] = probe.get_mut().median();
            meter.absorb(probe.get_mut());
        }
    }
    core_matrix(meter, "round trip", &cells);
}

/// Reports a matrix of cores.
pub(super) fn core_matrix(meter: &mut Meter<'_>, name: &str, cells: &Cells) {
    let (labels, count) = place::labels();
    let labels = &labels[..count];
    let unit = Quantity::Time.unit(start::params().lane);
    let head = MatrixHead {
        name,
        unit,
        row_axis: "source core",
        col_axis: "target core",
        rows: labels,
        cols: labels,
    };
    meter.matrix(&head, &mut |i, j| cells[i][j]);
}

/// Interrupting every other core and seeing that all handlers have run.
pub(super) const IPI_BCAST: Bench<Lab> = Bench {
    id: "ipi.bcast",
    version: 2,
    doc: "interrupting all other of so many cores, asleep, until every acknowledgement is seen",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::Scaling],
    batch: 1,
    cases: |_, visit| {
        for cores in place::scales().filter(|&n| n > 1) {
            visit(Case::new(Placement::scaling(cores as u32)).with("cores", Value::Num(cores as u64)));
        }
    },
    run: |_, case, meter| {
        let cores = case.params.num("cores").unwrap_or(0) as usize;
        let mut others = place::first(cores);
        others.remove(place::here());
        let total = |set: &CoreSet| set.iter().map(ipi::taken).sum::<u64>();
        meter.windows(
            &mut (),
            |()| crew::await_idle(&others),
            |()| {
                let wanted = total(&others) + others.len() as u64;
                apic::send_set(&others);
                while total(&others) < wanted {
                    core::hint::spin_loop();
                }
            },
            |()| {},
        );
        Ok(())
    },
};

/// Calling an empty function on another core.
pub(super) const MAILBOX_RTT: Bench<Lab> = Bench {
    id: "mailbox.rtt",
    version: 2,
    doc: "running an empty function on a sleeping core, from the post to its mailbox until it has returned",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote],
    batch: 1,
    cases: |_, visit| {
        for (class, partner) in place::partners() {
            let (placement, word) = place::pair(class, partner);
            visit(Case::new(placement).with("to", word));
        }
    },
    run: |_, case, meter| {
        let target = place::partner(case.placement.class).ok_or(Trouble::Failed("the partner is gone"))?;
        let asleep = CoreSet::one(target);
        meter.windows(&mut (), |()| crew::await_idle(&asleep), |()| cores::call(target, |_| {}), |()| {});
        Ok(())
    },
};

/// The kernel's lock under contention.
pub(super) const LOCK: Bench<Lab> = Bench {
    id: "lock.kernel",
    version: 1,
    doc: "taking a levelled ticket lock, adding one to a counter under it, and releasing it",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Scaling],
    batch: 16,
    cases: |_, visit| {
        for cores in place::scales() {
            let placement = if cores == 1 { place::alone() } else { Placement::scaling(cores as u32) };
            visit(Case::new(placement).with("cores", Value::Num(cores as u64)));
        }
    },
    run: |lab, case, meter| {
        let cores = case.params.num("cores").unwrap_or(1) as usize;
        crew::measure(lab, &place::first(cores), meter, &Locked(Lock::new(0)))
    },
};

/// A counter that all cores of a case fight for.
struct Locked(Lock<40, u64>);

impl Body for Locked {
    type State = ();

    fn state(&self, _: &Held<'_, 0>) -> Option<()> {
        Some(())
    }

    #[inline(always)]
    fn timed(&self, (): &mut (), held: &mut Held<'_, 0>, batch: u32) {
        for _ in 0..batch {
            self.0.with(held, |count, _| *count += 1);
        }
    }
}
