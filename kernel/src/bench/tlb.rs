//! Taking translations back from other cores.

use mm::space::{Access, Fault, Mapping, Protection, SpaceError};
use mm::virt::{PageId, PageRange};
use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::{CoreSet, IrqOff};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit, Value};
use perf::runner::Trouble;

use super::crew::{self, BootOnly, Gate};
use super::{Lab, Meter, place};
use crate::arch::tlb;
use crate::cores;
use crate::handmade::Handmade;
use crate::spaces::{self, Owned};

/// Pages of a batch: one, several, and too many to invalidate one by one.
const PAGES: [u64; 3] = [1, 16, 64];
/// The targets run with interrupts on, the space in use.
const BUSY: &str = "busy";
/// The targets sleep, the space still loaded.
const IDLE: &str = "idle";

/// The shootdown alone, of a batch that is made in the window: no page table is written.
const ONLY: &str = "only";
/// Making pages read-only: the walk, the entries, the shootdown.
const PROTECT: &str = "protect";
/// Taking pages of the space's own out: the same, and giving their frames back.
const UNMAP: &str = "unmap";

/// A shootdown and its acknowledgements.
pub(super) const SHOOTDOWN: Bench<Lab> = Bench {
    id: "tlb.shootdown",
    version: 2,
    doc: "taking pages back from so many other cores until the last has acknowledged: that alone, or as a part of changing a real space",
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
                for op in [ONLY, PROTECT, UNMAP] {
                    for pages in PAGES {
                        let case = Case::new(placement).with("targets", Value::Num(cores as u64 - 1));
                        let case = case.with("pages", Value::Num(pages)).with("target", Value::Word(state));
                        visit(case.with("op", Value::Word(op)));
                    }
                }
            }
        }
    },
    run,
};

fn run(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let targets = case.params.num("targets").unwrap_or(0) as usize;
    let pages = case.params.num("pages").unwrap_or(1) as usize;
    let scene = Scene::new(case.params.word("op").unwrap_or(ONLY), pages);
    let scene = scene.ok_or(Trouble::Skipped("no memory for an address space"))?;
    let all = place::first(targets + 1);
    let others = all.difference(&CoreSet::one(place::here()));
    let before = counts(&all);
    if case.params.word("target") == Some(IDLE) {
        lab.crew.run(&all, |held| scene.activate(held));
        let ready = |()| {
            scene.prepare();
            crew::await_idle(&others);
        };
        meter.windows(&mut (), |_| ready(()), |()| scene.shoot(), |()| {});
    } else {
        let (gate, over) = (Gate::new(), AtomicBool::new(false));
        // The meter's reporter is not for other cores; the boot core, which has it, is the initiator.
        let own = BootOnly::new(&mut *meter);
        lab.crew.run(&all, |held| {
            scene.activate(held);
            gate.pass(all.len());
            if held.core() == place::here() {
                own.with(held, |meter| scene.measure(meter));
                // ORDER: Release pairs with Acquire below.
                return over.store(true, Ordering::Release);
            }
            // ORDER: Acquire pairs with Release above.
            // SAFETY: a function that was sent to an idle core; nothing core-local is in use here.
            unsafe { cores::expose(held, || !over.load(Ordering::Acquire)) };
        });
    }
    report(meter, before, counts(&all));
    scene.end();
    Ok(())
}

/// What is taken back.
enum Scene {
    /// Pages of a space whose tables nobody changes.
    Only(Handmade, usize),
    /// Pages of a real one.
    Real { space: Owned, range: PageRange, unmaps: bool },
}

impl Scene {
    fn new(op: &str, pages: usize) -> Option<Self> {
        if op == ONLY {
            return Some(Self::Only(Handmade::new()?, pages));
        }
        let space = Owned::new()?;
        // The page before it stays, and with it the tables.
        let whole = PageRange::new(PageId::new((5 << 18) + 7), pages + 1)?;
        let range = PageRange::new(PageId::new((5 << 18) + 8), pages)?;
        let mapped = IrqOff::with(|irq| {
            spaces::with(irq, &space, |cx| space.map(cx, whole, &Mapping::anonymous())).is_ok()
                && touch(irq, &space, whole)
        });
        mapped.then_some(Self::Real { space, range, unmaps: op == UNMAP })
    }

    fn measure(&self, meter: &mut Meter<'_>) {
        meter.windows(&mut (), |()| self.prepare(), |()| self.shoot(), |()| {});
    }

    fn activate(&self, irq: &IrqOff) {
        match self {
            Self::Only(made, _) => made.activate(irq),
            Self::Real { space, .. } => space.activate(irq),
        }
    }

    /// Before a window: the pages are there, and writable.
    fn prepare(&self) {
        let Self::Real { space, range, unmaps } = self else { return };
        IrqOff::with(|irq| {
            let sound = if *unmaps {
                let mapping = Mapping::anonymous();
                // They are there before the first window, and not before the others.
                let mapped = spaces::with(irq, space, |cx| space.map(cx, *range, &mapping));
                matches!(mapped, Ok(()) | Err(SpaceError::Occupied)) && touch(irq, space, *range)
            } else {
                change(irq, space, *range, Protection::ReadWrite)
            };
            assert!(sound, "the pages were there before");
        });
    }

    #[inline(always)]
    fn shoot(&self) {
        IrqOff::with(|irq| match self {
            Self::Only(made, pages) => tlb::shootdown(irq, made.space(), &Handmade::batch(0, *pages)),
            Self::Real { space, range, unmaps: true } => {
                let done = spaces::all(irq, space, *range, |cx, rest| space.unmap(cx, rest));
                assert!(done.is_ok(), "nothing has to be cut");
            }
            Self::Real { space, range, .. } => {
                assert!(change(irq, space, *range, Protection::Read), "nothing has to be cut");
            }
        });
    }

    fn end(self) {
        if let Self::Real { space, .. } = self {
            space.destroy();
        }
    }
}

#[inline(always)]
fn change(irq: &mut IrqOff, space: &Owned, range: PageRange, to: Protection) -> bool {
    spaces::all(irq, space, range, |cx, rest| space.protect(cx, rest, to)).is_ok()
}

/// Brings every page of a range.
fn touch(irq: &mut IrqOff, space: &Owned, range: PageRange) -> bool {
    (range.start().number()..range.end().number()).all(|page| {
        let fault = spaces::with(irq, space, |cx| space.fault(cx, PageId::new(page), Access::Write));
        fault == Fault::Resolved
    })
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
