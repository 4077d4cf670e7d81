//! Copies between the kernel and user memory, and a page fault that is resolved.

use core::cell::Cell;
use core::ptr::NonNull;

use mm::user::{CheckedPtr, CheckedSlice, UserPtr};
use mm::virt::PAGE_BYTES;
use percpu::{IrqOff, core_local};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::runner::Trouble;
use x86_64::VirtAddr;

use super::{Lab, Meter, place};
use crate::arch::tsc::{consume, opaque};
use crate::arch::usercopy::{self, Word};
use crate::fault::{self, Access, Resolution};
use crate::trial::{self, BASE, Map, PAGES, Trial};

const SIZES: [(usize, u32); 4] = [(8, 64), (64, 64), (256, 32), (4096, 4)];
const NO_MEMORY: Trouble = Trouble::Skipped("no memory for a user mapping");

/// A copy of so many bytes, by the routine that takes any length.
pub(super) const COPY: Bench<Lab> = Bench {
    id: "usercopy",
    version: 1,
    doc: "copying checked user memory of one mapped page into the kernel, or out of it",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| {
        for way in ["in", "out"] {
            for (bytes, batch) in SIZES {
                let case = Case::new(place::alone()).with("way", Value::Word(way));
                visit(case.with("bytes", Value::Num(bytes as u64)).batch(batch));
            }
        }
    },
    run: copy,
};

fn copy(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let trial = Trial::new().ok_or(NO_MEMORY)?;
    trial.set_all(Map::Writable);
    let bytes = case.params.num("bytes").and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.ok_or(Trouble::Failed("a case without a size"))?;
    let user =
        trial::claim(0, bytes).check().map_err(|_| Trouble::Failed("the mapping is no user memory"))?;
    let inwards = case.params.word("way") == Some("in");
    IrqOff::with(|irq| {
        trial.enter(irq, |irq| {
            // The small sizes as most callers have them: constants.
            match bytes {
                8 => copy_sized::<8>(irq, user, inwards, meter),
                64 => copy_sized::<64>(irq, user, inwards, meter),
                256 => copy_sized::<256>(irq, user, inwards, meter),
                _ => copy_sized::<4096>(irq, user, inwards, meter),
            }
        })
    })
}

fn copy_sized<const N: usize>(
    irq: &mut IrqOff,
    user: CheckedSlice,
    inwards: bool,
    meter: &mut Meter<'_>,
) -> Result<(), Trouble> {
    let mut buffer = [0_u8; N];
    let batch = meter.batch();
    let mut state = (irq, &mut buffer, false);
    if inwards {
        let timed = |(irq, buffer, refused): &mut (&mut IrqOff, &mut [u8; N], bool)| {
            *refused |= (0..batch).any(|_| usercopy::copy_in(irq, user, &mut buffer[..]).is_err());
        };
        meter.windows(&mut state, |_| {}, timed, |_| {});
    } else {
        let timed = |(irq, buffer, refused): &mut (&mut IrqOff, &mut [u8; N], bool)| {
            *refused |= (0..batch).any(|_| usercopy::copy_out(irq, &buffer[..], user).is_err());
        };
        meter.windows(&mut state, |_| {}, timed, |_| {});
    }
    if state.2 { Err(Trouble::Failed("a copy of mapped memory faulted")) } else { Ok(()) }
}

/// From the load that faults to its value, with a resolver that works out one entry and stores it: some forty
/// instructions of the figure.
pub(super) const FAULT: Bench<Lab> = Bench {
    id: "fault.entry",
    version: 1,
    doc: "a load of user memory that faults, one entry of the page table filled in, and the load made again",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: PAGES as u32,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: fault_entry,
};

core_local! {
    /// The mapping that `map_it` completes.
    static MAPPED: Cell<Option<&'static Trial>> = Cell::new(None);
}

fn map_it(irq: &mut IrqOff, address: VirtAddr, _: Access) -> Resolution {
    match MAPPED.owned(irq).get() {
        Some(trial) => {
            trial.set((address.as_u64() as usize - BASE) / PAGE_BYTES, Map::Writable);
            Resolution::Retry
        }
        None => Resolution::Refused,
    }
}

fn fault_entry(_: &mut Lab, _: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let trial = Trial::new().ok_or(NO_MEMORY)?;
    let mut pointers: [Option<CheckedPtr<u64>>; PAGES] = [None; PAGES];
    for (page, pointer) in pointers.iter_mut().enumerate() {
        *pointer = UserPtr::new(BASE + page * PAGE_BYTES).check().ok();
    }
    IrqOff::with(|irq| {
        trial.enter(irq, |irq| {
            // SAFETY: taken back below, before the mapping ends.
            MAPPED.owned(irq).set(Some(unsafe { NonNull::from(&trial).as_ref() }));
            let before = fault::set_resolver(irq, Some(map_it));
            let mut state = (irq, 0_u64);
            let absent = |_: &mut (&mut IrqOff, u64)| {
                trial.set_all(Map::Absent);
                (0..PAGES).for_each(trial::flush);
            };
            let timed = |(irq, refused): &mut (&mut IrqOff, u64)| {
                for &pointer in pointers.iter().flatten() {
                    match u64::load(irq, pointer) {
                        Ok(value) => consume(opaque(value)),
                        Err(_) => *refused += 1,
                    }
                }
            };
            meter.windows(&mut state, absent, timed, |_| {});
            let (irq, refused) = state;
            fault::set_resolver(irq, before);
            MAPPED.owned(irq).set(None);
            if refused == 0 { Ok(()) } else { Err(Trouble::Failed("a fault was not resolved")) }
        })
    })
}
