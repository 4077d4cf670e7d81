//! Taking translations back from other cores.

use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::{CoreSet, IrqOff};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit, Value};
use perf::runner::Trouble;

use super::crew::{self, BootOnly, Gate};
use super::{Lab, Meter, place};
use crate::arch::tlb;
use crate::cores;
use crate::handmade::Handmade;

/// Pages of a batch: one, several, and too many to invalidate one by one.
const PAGES: [u64; 3] = [1, 16, 64];
/// The targets run with interrupts on, the space in use.
const BUSY: &str = "busy";
/// The targets sleep, the space still loaded.
const IDLE: &str = "idle";

/// A shootdown and its acknowledgements.
pub(super) const SHOOTDOWN: Bench<Lab> = Bench {
    id: "tlb.shootdown",
    version: 1,
    doc: "taking pages back from so many other cores until the last has acknowledged; writing the page tables not included",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Scaling],
    batch: 1,
    cases: |_, visit| {
        for cores in place::scales() {
            let placement = if cores == 1 { place::alone() } else { Placement::scaling(cores as u32) };
            let states: &[&'static str] = if cores == 1 { &[BUSY] } else { &[BUSY, IDLE] };
            for &state in states {
                for pages in PAGES {
                    let case = Case::new(placement).with("targets", Value::Num(cores as u64 - 1));
                    visit(case.with("pages", Value::Num(pages)).with("target", Value::Word(state)));
                }
            }
        }
    },
    run,
};

fn run(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let targets = case.params.num("targets").unwrap_or(0) as usize;
    let pages = case.params.num("pages").unwrap_or(1) as usize;
    let made = Handmade::new().ok_or(Trouble::Skipped("no memory for an address space"))?;
    let all = place::first(targets + 1);
    let others = all.difference(&CoreSet::one(place::here()));
    let before = counts(&all);
    if case.params.word("target") == Some(IDLE) {
        lab.crew.run(&all, |held| made.activate(held));
        meter.windows(&mut (), |()| crew::await_idle(&others), |()| shoot(&made, pages), |()| {});
    } else {
        let (gate, over) = (Gate::new(), AtomicBool::new(false));
        // The meter's reporter is not for other cores; the boot core, which has it, is the initiator.
        let own = BootOnly::new(&mut *meter);
        lab.crew.run(&all, |held| {
            made.activate(held);
            gate.pass(all.len());
            if held.core() == place::here() {
                own.with(held, |meter| meter.windows(&mut (), |()| {}, |()| shoot(&made, pages), |()| {}));
                // ORDER: Release pairs with Acquire below.
                return over.store(true, Ordering::Release);
            }
            // ORDER: Acquire pairs with Release above.
            // SAFETY: a function that was sent to an idle core; nothing core-local is in use here.
            unsafe { cores::expose(held, || !over.load(Ordering::Acquire)) };
        });
    }
    report(meter, before, counts(&all));
    Ok(())
}

#[inline(always)]
fn shoot(made: &Handmade, pages: usize) {
    let batch = Handmade::batch(0, pages);
    IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &batch));
}

/// Shootdowns, requests, interrupts, pages invalidated one by one, flushes: of all these cores.
type Sums = [u64; 5];
const NAMES: [&str; 4] = ["requests", "interrupts", "pages", "flushes"];

fn counts(cores: &CoreSet) -> Sums {
    cores.iter().map(tlb::counts).fold([0; 5], |sum, c| {
        let one = [c.initiated, c.messages, c.interrupts, c.pages, c.flushes];
        core::array::from_fn(|i| sum[i] + one[i])
    })
}

/// Reports what one shootdown took, all cores together.
fn report(meter: &mut Meter<'_>, before: Sums, after: Sums) {
    let [shootdowns, each @ ..] = core::array::from_fn::<u64, 5, _>(|i| after[i] - before[i]);
    for (name, count) in NAMES.into_iter().zip(each) {
        meter.metric(name, count / shootdowns.max(1), Unit::Count);
    }
}
