//! The life of a small process's address space: made, filled as a program is, taken down.
//!
//! The shape is that of an image of four segments and a stack, in one gibibyte, as `mm::image` places them: a root, a table of level 3, one
//! of level 2, two of level 1, the records, and two pages of the stack. Frames lie where this core has just given others back.

use mm::PageSize;
use mm::space::{Access, Backing, Fault, Mapping, Protection};
use mm::virt::{PageId, PageRange};
use percpu::IrqOff;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::runner::Trouble;

use super::{Lab, Meter, place};
use crate::machine;
use crate::spaces::{self, Object, Owned, Physical, Tap};

/// What is measured.
const CREATE: &str = "create";
const FILL: &str = "fill";
const DESTROY: &str = "destroy";

/// The parts of a space's life.
pub(super) const LIFE: Bench<Lab> = Bench {
    id: "space.life",
    version: 1,
    doc: "an address space of a small process: made empty, filled with six regions of which two pages are touched, taken down",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |_, visit| {
        for part in [CREATE, FILL, DESTROY] {
            visit(Case::new(place::alone()).with("part", Value::Word(part)));
        }
    },
    run: life,
};

/// Where the image lies, and the stack: not at the beginning of a table, as places are drawn.
const IMAGE: usize = (5 << 18) + 0x1_2345;
const STACK: usize = (5 << 18) + (1 << 17) + 0x6_789;
const STACK_PAGES: usize = 64;
/// Pages of the segments: constants, text, data, and what is zero at first.
const CONSTANTS: usize = 3;
const TEXT: usize = 12;
const DATA: usize = 2;
const ZEROES: usize = 8;
/// Pages of the stack that are touched, from its top.
const TOUCHED: usize = 2;

/// Fills a space. `false`: there is no memory for it.
#[inline(never)]
fn fill(irq: &mut IrqOff, space: &Owned, object: &Object) -> bool {
    let lent = |first, protection| Mapping::new(Backing::Shared(object, first), protection).now();
    let copied = Mapping::new(Backing::Copy(object, CONSTANTS + TEXT), Protection::ReadWrite).now();
    let guard = || Mapping::new(Backing::Guard, Protection::Read);
    let regions = [
        (IMAGE, CONSTANTS, lent(0, Protection::Read)),
        (IMAGE + CONSTANTS, TEXT, lent(CONSTANTS, Protection::ReadExecute)),
        (IMAGE + CONSTANTS + TEXT, DATA, copied),
        (IMAGE + CONSTANTS + TEXT + DATA, ZEROES, Mapping::anonymous()),
        (STACK, STACK_PAGES, Mapping::anonymous()),
        (STACK - 1, 1, guard()),
        (STACK + STACK_PAGES, 1, guard()),
    ];
    let mapped = regions.iter().all(|(first, pages, mapping)| {
        let range = PageRange::new(PageId::new(*first), *pages).expect("a part of the user half");
        spaces::with(irq, space, |cx| space.map(cx, range, mapping)).is_ok()
    });
    let top = STACK + STACK_PAGES;
    mapped
        && (top - TOUCHED..top).all(|page| {
            let page = PageId::new(page);
            spaces::with(irq, space, |cx| space.fault(cx, page, Access::Write)) == Fault::Resolved
        })
}

fn life(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    const NO_MEMORY: Trouble = Trouble::Skipped("not enough memory for an address space");
    let part = case.params.word("part").ok_or(Trouble::Failed("which part?"))?;
    IrqOff::with(|irq| {
        let pages = CONSTANTS + TEXT + DATA;
        let object = Object::new(Physical, &mut Tap::new(irq), pages, PageSize::Small);
        let object = object.map_err(|_| NO_MEMORY)?;
        let ready = object.populate(&mut Tap::new(irq), 0, pages).is_ok();
        let sound = ready && measure(irq, part, &object, meter);
        object.release(&mut Tap::new(irq));
        if sound { Ok(()) } else { Err(NO_MEMORY) }
    })
}

/// A space that is not there yet, or not any more, and whether memory has sufficed so far.
struct Life {
    space: Option<Owned>,
    sound: bool,
}

fn measure(irq: &mut IrqOff, part: &str, object: &Object, meter: &mut Meter<'_>) -> bool {
    let mut life = Life { space: None, sound: true };
    let filled = |irq: &mut IrqOff, life: &mut Life| match &life.space {
        Some(space) => life.sound &= fill(irq, space, object),
        None => life.sound = false,
    };
    let mut state = (irq, &mut life);
    meter.windows(
        &mut state,
        |(irq, life)| {
            if part != CREATE {
                life.space = Owned::new();
            }
            if part == DESTROY {
                filled(irq, life);
            }
        },
        |(irq, life)| match part {
            CREATE => life.space = Owned::new(),
            FILL => filled(irq, life),
            _ => life.space.take().into_iter().for_each(Owned::destroy),
        },
        |(irq, life)| {
            life.sound &= part == DESTROY || life.space.is_some();
            life.space.take().into_iter().for_each(Owned::destroy);
            percpu::epoch::leave_kernel(irq, machine::topology().core_count());
        },
    );
    life.sound
}
