//! Slabs in the kernel: single operations, scaling, and objects that are freed on another core.
//!
//! Each operation finds its core's part anew, as a caller in the kernel does: through the core-local section, with `IrqOff` at hand.

use core::ptr::NonNull;

use mm::slab::{Cache, Local};
use percpu::sync::atomic::{AtomicPtr, Ordering};
use percpu::{CoreId, CoreSet, Held, IrqOff, core_local};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::runner::Trouble;

use super::crew::{self, Body};
use super::{Lab, Meter, place};
use crate::cores;
use crate::slabs::Near;

/// Objects in a window: half a magazine.
const MOST: usize = 64;

type Small = [u64; 8];
type Middle = [u64; 32];
type Large = [u64; 128];

static SMALL: Cache<Small, Near> = Cache::new(Near, || [0; 8]);
static MIDDLE: Cache<Middle, Near> = Cache::new(Near, || [0; 32]);
static LARGE: Cache<Large, Near> = Cache::new(Near, || [0; 128]);

core_local! {
    static SMALL_HERE: Local<'static, Small, Near> = Local::new(&SMALL);
    static MIDDLE_HERE: Local<'static, Middle, Near> = Local::new(&MIDDLE);
    static LARGE_HERE: Local<'static, Large, Near> = Local::new(&LARGE);
}

/// Objects of one size, on whichever core asks.
trait Object: Send + Sized + 'static {
    /// This core's part of their cache.
    fn here(irq: &IrqOff) -> &Local<'static, Self, Near>;
}

impl Object for Small {
    #[inline(always)]
    fn here(irq: &IrqOff) -> &Local<'static, Self, Near> {
        SMALL_HERE.owned(irq)
    }
}

impl Object for Middle {
    #[inline(always)]
    fn here(irq: &IrqOff) -> &Local<'static, Self, Near> {
        MIDDLE_HERE.owned(irq)
    }
}

impl Object for Large {
    #[inline(always)]
    fn here(irq: &IrqOff) -> &Local<'static, Self, Near> {
        LARGE_HERE.owned(irq)
    }
}

fn enter<T: Object>(irq: &IrqOff) {
    // SAFETY: a core's copy stays where it is for ever (L1).
    unsafe { T::here(irq).enter() };
}

/// An object.
///
/// # Panics
/// If there is no memory for one.
#[inline(always)]
fn take<T: Object>(irq: &IrqOff) -> NonNull<T> {
    match T::here(irq).allocate() {
        Ok(object) => object,
        Err(error) => panic!("no memory for a window of objects: {error}"),
    }
}

/// Gives an object back.
///
/// # Panics
/// If the cache refuses it.
#[inline(always)]
fn give<T: Object>(irq: &IrqOff, object: NonNull<T>) {
    // SAFETY: the rows below give back once what `take` has given, of the same type, and forget it.
    let refused = unsafe { T::here(irq).free(object) };
    assert!(refused.is_ok(), "the cache refused an object that it had handed out");
}

/// Taking an object.
pub(super) const ALLOC: Bench<Lab> = Bench {
    id: "heap.alloc",
    doc: "taking an object of a cache, from the core's own magazine",
    run: |lab, case, meter| sized(lab, case, meter, Side::Alloc),
    ..SINGLE
};

/// Giving an object back.
pub(super) const FREE: Bench<Lab> = Bench {
    id: "heap.free",
    doc: "giving an object back on the core that took it",
    run: |lab, case, meter| sized(lab, case, meter, Side::Free),
    ..SINGLE
};

/// Both.
pub(super) const PAIR: Bench<Lab> = Bench {
    id: "heap.pair",
    doc: "taking an object of a cache and giving it back at once",
    run: |lab, case, meter| sized(lab, case, meter, Side::Pair),
    ..SINGLE
};

const SIZES: [usize; 3] = [size_of::<Small>(), size_of::<Middle>(), size_of::<Large>()];

const SINGLE: Bench<Lab> = Bench {
    id: "",
    version: 1,
    doc: "",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Scaling],
    batch: MOST as u32,
    cases: |_, visit| {
        for bytes in SIZES {
            for cores in place::scales() {
                let placement = if cores == 1 { place::alone() } else { Placement::scaling(cores as u32) };
                let params = Case::new(placement).with("bytes", Value::Num(bytes as u64));
                visit(params.with("cores", Value::Num(cores as u64)));
            }
        }
    },
    run: |_, _, _| Err(Trouble::Failed("a row without a body")),
};

/// Which half of an object's life is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Alloc,
    Free,
    Pair,
}

/// One window of objects.
struct Objects<T> {
    side: Side,
    batch: usize,
    of: core::marker::PhantomData<fn() -> T>,
}

/// A window's objects, and how many of them are in use.
struct Taken<T> {
    objects: [NonNull<T>; MOST],
    count: usize,
}

impl<T: Object> Objects<T> {
    #[inline(always)]
    fn take_all(&self, taken: &mut Taken<T>, irq: &IrqOff) {
        for object in taken.objects.iter_mut().take(self.batch) {
            *object = take(irq);
        }
        taken.count = self.batch;
    }

    #[inline(always)]
    fn give_all(&self, taken: &mut Taken<T>, irq: &IrqOff) {
        for object in taken.objects.iter().take(taken.count) {
            give(irq, *object);
        }
        taken.count = 0;
    }
}

impl<T: Object> Body for Objects<T> {
    type State = Taken<T>;

    fn state(&self, held: &Held<'_, 0>) -> Option<Self::State> {
        enter::<T>(held);
        let mut taken = Taken { objects: [NonNull::dangling(); MOST], count: 0 };
        // The magazine is then half full, and there are slabs behind it.
        self.take_all(&mut taken, held);
        self.give_all(&mut taken, held);
        Some(taken)
    }

    fn before(&self, taken: &mut Self::State, held: &mut Held<'_, 0>) {
        match self.side {
            Side::Free => self.take_all(taken, held),
            // What the window takes lies in the magazine already, or comes from a slab every other half.
            Side::Alloc | Side::Pair => {}
        }
    }

    #[inline(always)]
    fn timed(&self, taken: &mut Self::State, held: &mut Held<'_, 0>, _batch: u32) {
        match self.side {
            Side::Alloc => self.take_all(taken, held),
            Side::Free => self.give_all(taken, held),
            Side::Pair => (0..self.batch).for_each(|_| give(held, core::hint::black_box(take::<T>(held)))),
        }
    }

    fn after(&self, taken: &mut Self::State, held: &mut Held<'_, 0>) {
        self.give_all(taken, held);
    }

    fn close(&self, _taken: Self::State, held: &mut Held<'_, 0>) {
        T::here(held).drain();
    }
}

fn sized(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>, side: Side) -> Result<(), Trouble> {
    match case.params.num("bytes") {
        Some(64) => single::<Small>(lab, case, meter, side),
        Some(256) => single::<Middle>(lab, case, meter, side),
        Some(1024) => single::<Large>(lab, case, meter, side),
        _ => Err(Trouble::Failed("no such size")),
    }
}

fn single<T: Object>(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>, side: Side) -> Result<(), Trouble> {
    let cores = case.params.num("cores").unwrap_or(1) as usize;
    let batch = (meter.batch() as usize).min(MOST);
    let body = Objects::<T> { side, batch, of: core::marker::PhantomData };
    let set = if cores == 1 { CoreSet::one(place::here()) } else { place::first(cores) };
    crew::measure(lab, &set, meter, &body)
}

/// An object that is freed on another core: what it costs there, and what the owner pays to collect it.
pub(super) const XFREE: Bench<Lab> = Bench {
    id: "heap.xfree",
    version: 1,
    doc: "an object freed on another core than its own: the sender's part, or the owner's",
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote],
    cases: |_, visit| {
        for side in ["send", "collect"] {
            for (class, partner) in place::partners() {
                let (placement, to) = place::pair(class, partner);
                let placement = Placement { cores: 1, ..placement };
                visit(Case::new(placement).with("side", Value::Word(side)).with("to", to));
            }
        }
    },
    run: xfree,
    ..SINGLE
};

/// Objects on their way between the two cores of a case.
static PARCELS: [AtomicPtr<Small>; MOST] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MOST];

fn parcels(batch: usize) -> impl Iterator<Item = &'static AtomicPtr<Small>> {
    PARCELS.iter().take(batch)
}

/// Takes as many objects as fit and leaves them for the other core.
fn pack(irq: &IrqOff, batch: usize) {
    enter::<Small>(irq);
    // ORDER: Release pairs with Acquire in `free_all`.
    parcels(batch).for_each(|parcel| parcel.store(take(irq).as_ptr(), Ordering::Release));
}

/// Frees what the other core has left.
#[inline(always)]
fn free_all(irq: &IrqOff, batch: usize) {
    for parcel in parcels(batch) {
        // ORDER: Acquire pairs with Release in `pack`.
        if let Some(object) = NonNull::new(parcel.load(Ordering::Acquire)) {
            give(irq, object);
        }
    }
}

fn xfree(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let word = case.params.word("to");
    let partner = place::partners().find(|(class, _)| Some(class.word()) == word);
    let (_, partner) = partner.ok_or(Trouble::Skipped("no such core"))?;
    let batch = (meter.batch() as usize).min(MOST);
    IrqOff::with(|irq| enter::<Small>(irq));
    match case.params.word("side") {
        Some("send") => send(meter, partner, batch),
        _ => collect(meter, partner, batch),
    }
    let drain = |held: &mut Held<'_, 0>| Small::here(held).drain();
    cores::call(partner, drain);
    cores::call(place::here(), drain);
    match SMALL.stats().current_allocated {
        0 => Ok(()),
        _ => Err(Trouble::Failed("an object is lost")),
    }
}

/// The partner's objects are freed here.
fn send(meter: &mut Meter<'_>, partner: CoreId, batch: usize) {
    let pack = |_: &mut ()| cores::call(partner, |held| pack(held, batch));
    let collect = |_: &mut ()| {
        cores::call(partner, |held| {
            Small::here(held).collect();
        });
    };
    meter.windows(&mut (), pack, |()| IrqOff::with(|irq| free_all(irq, batch)), collect);
}

/// Objects of this core were freed by the partner.
fn collect(meter: &mut Meter<'_>, partner: CoreId, batch: usize) {
    let free = |_: &mut ()| {
        IrqOff::with(|irq| pack(irq, batch));
        cores::call(partner, |held| {
            enter::<Small>(held);
            free_all(held, batch);
        });
    };
    let collect = |_: &mut ()| {
        IrqOff::with(|irq| Small::here(irq).collect());
    };
    meter.windows(&mut (), free, collect, |()| {});
}
