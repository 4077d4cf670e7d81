//! Leases: giving them out, ending them, and how late the kernel ends what is over.

use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope};
use perf::clock::{Clock, Nanos, Ticks};
use perf::runner::Trouble;
use rt::handle::{Lease, Notification, Owned};
use rt::time::{Deadline, Tsc};

use super::{Lab, Meter, failed};

/// From an allocation to the end of its time: long enough to be asleep by then.
const TURN: Nanos = Nanos::new(200_000);

/// Giving one out.
pub(super) const ALLOCATE: Bench<Lab> = Bench {
    id: "lease.allocate",
    version: 1,
    doc: "giving a lease to an owner: the call, with a capability for the turn and a time at which it ends",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| visit(Case::new(lab.alone())),
    run: |_, _, meter| turns(Part::Allocate, meter),
};

/// Ending one.
pub(super) const RELEASE: Bench<Lab> = Bench {
    id: "lease.release",
    doc: "ending a lease before its time: the call, by its owner",
    run: |_, _, meter| turns(Part::Return, meter),
    ..ALLOCATE
};

/// Its end by itself.
pub(super) const EXPIRE: Bench<Lab> = Bench {
    id: "lease.expire",
    doc: "from the time at which a lease ends to the return of one who waits for its end, on a core that sleeps",
    scope: Scope::OneWay,
    run: |_, _, meter| {
        let (bell, lease) = make()?;
        while meter.more() {
            let until = Deadline::after(TURN);
            let _turn = lease.allocate(until, 0).map_err(failed)?;
            bell.wait().map_err(failed)?;
            let to = Tsc.stop();
            meter.window(Ticks::new(until.0), to);
        }
        Ok(())
    },
    ..ALLOCATE
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Allocate,
    Return,
}

fn make() -> Result<(Owned<Notification>, Owned<Lease>), Trouble> {
    let bell = Notification::create().map_err(failed)?;
    let lease = Lease::create(*bell, 1).map_err(failed)?;
    Ok((bell, lease))
}

fn turns(part: Part, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let (bell, lease) = make()?;
    // So far away that it changes nothing of when the core is interrupted.
    let until = Deadline::after(Nanos::from_millis(600_000));
    while meter.more() {
        let from = Tsc.start();
        let turn = lease.allocate(until, 0).map_err(failed)?;
        let given = Tsc.stop();
        let ends = Tsc.start();
        turn.release().map_err(failed)?;
        let ended = Tsc.stop();
        match part {
            Part::Allocate => meter.window(from, given),
            Part::Return => meter.window(ends, ended),
        }
        bell.poll().map_err(failed)?;
    }
    Ok(())
}
