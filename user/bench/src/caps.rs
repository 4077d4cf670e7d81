//! Handing capabilities on, and revoking them.

use abi::boot::Lane;
use abi::cap::Rights;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Run, Scope, Value};
use perf::clock::{Clock, Ticks};
use perf::runner::Trouble;
use rt::handle::{Core, Owned, Process, Result, Typed};
use rt::process::{Builder, Image};
use rt::time::Tsc;

use super::team::Hogs;
use super::{Lab, Meter, failed};

/// What all rows of this module have in common.
const fn row(id: &'static str, doc: &'static str, run: Run<Lab>) -> Bench<Lab> {
    Bench {
        id,
        version: 1,
        doc,
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::RoundTrip,
        lanes: Lanes::GUEST,
        classes: &[Class::SelfCore],
        batch: 1,
        cases: |lab, visit| visit(Case::new(lab.alone())),
        run,
    }
}

/// Another capability of one that has children.
pub(super) const DERIVE: Bench<Lab> =
    row("cap.derive", "deriving a capability in the same table", |lab, _, meter| {
        each(lab, meter, |root, _, timed| {
            timed(&mut || root.derive(Rights::ALL, 0).map(|child| child.keep().handle()))
        })
    });

/// The end of one that was derived.
pub(super) const DELETE: Bench<Lab> =
    row("cap.delete", "deleting a capability that was derived and has no children", |lab, _, meter| {
        each(lab, meter, |root, _, timed| {
            let mut child = Some(root.derive(Rights::ALL, 0)?);
            timed(&mut || Ok(child.take().map_or(abi::cap::Handle::NONE, |child| child.handle())))
        })
    });

/// Another capability, in another process.
pub(super) const GRANT: Bench<Lab> =
    row("cap.grant", "deriving a capability into another process's table", |lab, _, meter| {
        each(lab, meter, |root, other, timed| timed(&mut || other.grant(root, Rights::ALL, 0)))
    });

/// The same capability, in another process.
pub(super) const TRANSFER: Bench<Lab> =
    row("cap.transfer", "moving a capability into another process's table", |lab, _, meter| {
        each(lab, meter, |root, other, timed| {
            let child = root.derive(Rights::ALL, 0)?.keep();
            timed(&mut || other.transfer(child))
        })
    });

/// What is to be timed, and a function that times it.
type Timed<'a> = &'a mut dyn FnMut(&mut dyn FnMut() -> Result<abi::cap::Handle>) -> Result<()>;

/// Windows on a capability and a process that has not started; what was derived in one is revoked after it.
fn each(
    lab: &Lab,
    meter: &mut Meter<'_>,
    mut cycle: impl FnMut(Core, Process, Timed<'_>) -> Result<()>,
) -> core::result::Result<(), Trouble> {
    let root = root(lab)?;
    let other = idle(lab)?;
    while meter.more() {
        let mut at = (Tsc.start(), Tsc.stop());
        let mut timed = |work: &mut dyn FnMut() -> Result<abi::cap::Handle>| {
            let start = Tsc.start();
            let result = work();
            at = (start, Tsc.stop());
            result.map(drop)
        };
        cycle(*root, *other, &mut timed).map_err(failed)?;
        meter.window(at.0, at.1);
        root.revoke().map_err(failed)?;
    }
    Ok(())
}

/// A capability with nothing derived of it.
fn root(lab: &Lab) -> core::result::Result<Owned<Core>, Trouble> {
    let core = lab.start.cores().next().ok_or(Trouble::Skipped("no core was given"))?;
    core.derive(Rights::ALL, 0).map_err(failed)
}

/// A process that does nothing but have a table.
fn idle(lab: &Lab) -> core::result::Result<Owned<Process>, Trouble> {
    let nop = lab.start.program("nop").ok_or(Trouble::Skipped("the loader has brought no `nop`"))?;
    Builder::new(Image::Loaded(nop)).create(lab.start.process()).map_err(failed)
}

/// The number of children.
const CHILDREN: &str = "children";
/// Other cores that run programs.
const BUSY: &str = "busy";

/// Few children, with cores to wait for.
pub(super) const REVOKE: Bench<Lab> = Bench {
    classes: &[Class::SelfCore, Class::Scaling],
    cases: |lab, visit| cases(lab, &[1, 10, 100, 1_000, 10_000], visit),
    ..row(
        "cap.revoke",
        "revoking so many children, with so many other cores busy with programs",
        |lab, case, meter| {
            let children = case.params.num(CHILDREN).unwrap_or(1);
            let _hogs = hogs(case)?;
            let root = root(lab)?;
            while meter.more() {
                for _ in 0..children {
                    let _ = root.derive(Rights::ALL, 0).map_err(failed)?.keep();
                }
                let (start, stop) = revoke(&root, children)?;
                meter.window(start, stop);
            }
            Ok(())
        },
    )
};

/// Many children, in many tables.
pub(super) const REVOKE_MANY: Bench<Lab> = Bench {
    // Seconds for each sample where the emulator takes its time.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Icount),
    classes: &[Class::SelfCore, Class::Scaling],
    cases: |lab, visit| cases(lab, &[MANY * TABLES], visit),
    ..row("cap.revoke_many", "revoking children that several processes have, likewise", |lab, case, meter| {
        let _hogs = hogs(case)?;
        let root = root(lab)?;
        for _ in 0..ROUNDS {
            let others = (0..TABLES).map(|_| idle(lab)).collect::<core::result::Result<Vec<_>, _>>()?;
            for other in &others {
                for _ in 0..MANY {
                    other.grant(*root, Rights::ALL, 0).map_err(failed)?;
                }
            }
            let (start, stop) = revoke(&root, MANY * TABLES)?;
            meter.rare_window(start, stop);
        }
        Ok(())
    })
};

/// Children in each table, tables, and samples.
const MANY: u64 = 12_500;
const TABLES: u64 = 8;
const ROUNDS: usize = 3;

/// So many children, beside no, one, three and seven other cores that are busy.
fn cases(lab: &Lab, children: &[u64], visit: &mut dyn FnMut(Case)) {
    for busy in [0, 1, 3, 7].into_iter().filter(|&busy| busy < lab.cores()) {
        let place = if busy == 0 { lab.alone() } else { Placement::scaling(1 + busy as u32) };
        for &children in children {
            let case = Case::new(place).with(CHILDREN, Value::Num(children));
            visit(case.with(BUSY, Value::Num(busy as u64)));
        }
    }
}

/// What keeps the other cores of a case busy.
fn hogs(case: &Case) -> core::result::Result<Vec<Hogs>, Trouble> {
    let busy = case.params.num(BUSY).unwrap_or(0) as usize;
    (1..=busy).map(Hogs::elsewhere).collect::<Result<_>>().map_err(failed)
}

/// Revokes as many as there must be, and says from when to when.
fn revoke(root: &Core, children: u64) -> core::result::Result<(Ticks, Ticks), Trouble> {
    let start = Tsc.start();
    let revoked = root.revoke();
    let stop = Tsc.stop();
    if revoked.map_err(failed)? != children {
        return Err(Trouble::Failed("not all were revoked"));
    }
    Ok((start, stop))
}
