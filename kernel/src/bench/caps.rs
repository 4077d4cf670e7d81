//! Capability tables without the system calls around them.

use core::hint::black_box;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use cap::{Drained, Purged, Sentence};
use percpu::{CoreId, IrqOff};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::clock::{Clock, Ticks};
use perf::runner::Trouble;

use super::{Lab, Meter, Tsc, place};
use crate::machine_object::Core;
use crate::revoke;
use crate::tables::{Capabilities, Holder};

/// Finding what a handle names.
pub(super) const LOOKUP: Bench<Lab> = Bench {
    id: "cap.lookup",
    version: 1,
    doc: "finding the object of a handle, of a kind and with a right",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: |_, _, meter| {
        IrqOff::with(|irq| {
            let tables = Tables::<1>::new(irq)?;
            let table = &tables.0[0];
            let handle = table.insert(core()?, Rights::ALL).map_err(refused)?;
            meter.ops(&mut (), |()| {
                let found = table.find::<Core>(black_box(handle), Rights::OBSERVE);
                black_box(found.is_ok());
            });
            tables.free(irq);
            Ok(())
        })
    },
};

/// Descendants that are revoked.
const MANY: usize = 100_000;
/// Tables that they are in, each beneath its limit.
const TABLES: usize = 8;

/// The longest time without interrupts that a revocation takes.
pub(super) const STEP: Bench<Lab> = Bench {
    id: "cap.step",
    version: 1,
    doc: "the longest step of revoking a chain of capabilities through several tables: nothing interrupts it",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    // Seconds for each sample where the emulator takes its time.
    lanes: Lanes::NONE.with(abi::boot::Lane::Hw).with(abi::boot::Lane::Kvm).with(abi::boot::Lane::Icount),
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |_, visit| visit(Case::new(place::alone()).with("children", Value::Num(MANY as u64))),
    run: |_, _, meter| {
        IrqOff::with(|irq| {
            let tables = Tables::<TABLES>::new(irq)?;
            let root = tables.0[0].insert(core()?, Rights::ALL).map_err(refused)?;
            for _ in 0..ROUNDS {
                longest(irq, &tables, root, meter)?;
            }
            tables.free(irq);
            Ok(())
        })
    },
};

/// Samples: each is the longest of thousands.
const ROUNDS: usize = 3;

/// Capability tables that belong to no process.
struct Tables<const N: usize>([Capabilities; N]);

impl<const N: usize> Tables<N> {
    fn new(irq: &IrqOff) -> Result<Self, Trouble> {
        let mut missing = false;
        let tables = core::array::from_fn(|_| {
            let table = Capabilities::new(irq, None);
            missing |= table.is_none();
            table
        });
        if missing {
            return Err(Trouble::Skipped("not enough memory for capability tables"));
        }
        Ok(Self(tables.map(|table| table.expect("none is missing"))))
    }

    fn free(self, irq: &IrqOff) {
        for table in self.0 {
            while table.drain(irq, 128) == Drained::More {}
            table.free(irq);
        }
    }
}

fn core() -> Result<crate::object::Ref<Core>, Trouble> {
    Core::of(CoreId::new(0)).ok_or(Trouble::Failed("the first core is an object"))
}

fn refused(error: Error) -> Trouble {
    Trouble::Failed(error.words())
}

/// Derives a chain from a capability of the first table, revokes it, and takes the longest step.
fn longest(
    irq: &IrqOff,
    tables: &Tables<TABLES>,
    root: Handle,
    meter: &mut Meter<'_>,
) -> Result<(), Trouble> {
    let mut last = (&tables.0[0], root);
    for link in 0..MANY {
        let into = &tables.0[link % TABLES];
        last = (into, last.0.derive(irq, last.1, (Rights::ALL, 0), into, Holder::Runs).map_err(refused)?);
    }
    let own = &tables.0[0];
    if own.doom(root).map_err(refused)? == Sentence::Nothing {
        return Err(Trouble::Failed("nothing was derived"));
    }
    let mut longest = (Ticks::ZERO, Ticks::ZERO);
    let mut count = 0;
    loop {
        let start = Tsc.start();
        let purged = own.purge(irq, root, revoke::STEP);
        let stop = Tsc.stop();
        if stop.count().saturating_sub(start.count()) > longest.1.count() - longest.0.count() {
            longest = (start, stop);
        }
        let (purged, gone) = purged.map_err(refused)?;
        count += gone;
        if purged == Purged::Done {
            break;
        }
    }
    if count != MANY {
        return Err(Trouble::Failed("not all were revoked"));
    }
    meter.rare_window(longest.0, longest.1);
    Ok(())
}
