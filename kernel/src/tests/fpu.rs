//! The extended registers: each thread's own survive, and nobody finds another's.

use percpu::{CoreId, CoreSet, Held, IrqOff, Lock};

use super::bed::Blame;
use super::slabs;
use super::{Bed, Result, Verdict, ensure};
use crate::arch::fpu::probe::{self, Values};
use crate::arch::fpu::{self, Area};
use crate::cores;

/// Cores that are tried, at most.
const CORES: usize = 4;
/// Numbers that make values; a core's number is added.
const FIRST: u8 = 40;
const SECOND: u8 = 80;

const NO_MEMORY: Verdict = Verdict::Skipped("not enough memory for areas");

/// What the registers hold, against what they should.
fn hold(expected: &Values, when: &str, core: CoreId) -> Result {
    let found = Values::read();
    if found != *expected {
        crate::log!("{core}, {when}: {found:x?}");
    }
    ensure!(found == *expected, "{core}: {when}, the registers are not what they should be");
    Ok(())
}

/// Two threads with registers and one without take turns: each finds its own, a new one finds the initial state, and behind the block there is
/// nothing to be found.
///
/// Planted: `fpu::switch` from area to area does not save; does not restore; does not clear before it blocks; does not block; a new area's MXCSR
/// is 0.
pub(super) fn switch(bed: &mut Bed) -> Result {
    for core in cores::all_online().iter().take(CORES) {
        let blame = Blame::new();
        bed.crew.run(&CoreSet::one(core), |held| blame.note(take_turns(held)));
        blame.verdict()?;
    }
    slabs::drain(&mut bed.crew);
    Ok(())
}

fn take_turns(held: &Held<'_, 0>) -> Result {
    let core = held.core();
    let first = Area::new(held).ok_or(NO_MEMORY)?;
    let second = Area::new(held).ok_or(NO_MEMORY)?;
    let own = |number: u8| Values::marked(number.wrapping_add(core.index() as u8));
    ensure!(probe::is_blocked(), "{core}: registers are not blocked though nobody has them");
    let turn = |from: Option<&Area>, to: Option<&Area>| {
        // SAFETY: every call names as `from` what the call before named as `to`; no other core knows the areas.
        unsafe { fpu::switch(held, from, to) };
    };
    turn(None, Some(&first));
    ensure!(!probe::is_blocked(), "{core}: registers are blocked for one who has some");
    hold(&Values::INITIAL, "for a new thread after none", core)?;
    own(FIRST).load();
    turn(Some(&first), Some(&second));
    hold(&Values::INITIAL, "for a new thread after another", core)?;
    own(SECOND).load();
    turn(Some(&second), Some(&first));
    hold(&own(FIRST), "back again", core)?;
    // Reading has taken the value off the stack.
    own(FIRST).load();
    turn(Some(&first), None);
    ensure!(probe::is_blocked(), "{core}: registers are not blocked for one who has none");
    probe::behind_the_block(held, || hold(&Values::INITIAL, "behind the block", core))?;
    turn(None, None);
    ensure!(probe::is_blocked(), "{core}: registers are not blocked for one who has none");
    turn(None, Some(&second));
    hold(&own(SECOND), "after one who has none", core)?;
    turn(Some(&second), Some(&first));
    hold(&own(FIRST), "unchanged meanwhile", core)?;
    turn(Some(&first), None);
    Ok(())
}

/// A thread's registers go with it from core to core; each core that has had them keeps nothing.
///
/// Planted: `fpu::switch` from none to an area does not restore; does not clear before it blocks.
pub(super) fn migrate(bed: &mut Bed) -> Result {
    let area = IrqOff::with(|irq| Area::new(irq)).ok_or(NO_MEMORY)?;
    let mut before = Values::INITIAL;
    for round in 0..2 {
        for core in cores::all_online().iter().take(CORES) {
            let next = Values::marked((core.index() * 3 + round * 100) as u8);
            let blame = Blame::new();
            bed.crew.run(&CoreSet::one(core), |held| blame.note(visit(held, &area, &before, &next)));
            blame.verdict()?;
            before = next;
        }
    }
    let last = cores::all_online().iter().take(CORES).last().expect("this core is online");
    let area = Lock::<150, _>::new(Some(area));
    // The memory goes home from another core, if there is one.
    bed.crew.run(&CoreSet::one(last), |held| drop(area.with(held, |area, _| area.take())));
    slabs::drain(&mut bed.crew);
    Ok(())
}

fn visit(held: &Held<'_, 0>, area: &Area, before: &Values, next: &Values) -> Result {
    // SAFETY: the registers are blocked; one core has the area at a time.
    unsafe { fpu::switch(held, None, Some(area)) };
    let arrived = hold(before, "with what another core saved", held.core());
    next.load();
    // SAFETY: as above; restored just now.
    unsafe { fpu::switch(held, Some(area), None) };
    let left = probe::behind_the_block(held, || hold(&Values::INITIAL, "behind the block", held.core()));
    arrived.and(left)
}
