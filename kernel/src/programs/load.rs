//! Mapping a program into an empty space, with a stack that tells it what it is.

use mm::image::Layout;
use mm::space::{Backing, Mapping, Protection, SpaceError};
use mm::virt::{PageId, PageRange};
use percpu::IrqOff;

use super::Program;
use super::startup::{self, Places, Startup, Text};
use super::supply::Supply;
use crate::chance;
use crate::spaces::{Physical, Space};

/// Pages of a part of a segment up to which all are shown from the start: entering one costs a hundredth of a fault. Larger parts are mostly
/// not touched whole.
const SHOWN_AT_ONCE: usize = 64;

/// Whether places and words are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Randomness {
    /// They are.
    Drawn,
    /// All the same each time: `ProcessSpec::FIXED`.
    Fixed,
}

/// Why a program could not be mapped. What was mapped until then stays for whoever destroys the space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadError {
    /// Arguments and environment, or capabilities, are more than may be, or than half the stack.
    TooMuchText,
    /// A text cannot be read where it is said to be.
    Unreadable,
    /// The stack has no pages, or more than it may have.
    BadStack,
    /// The space has no memory, or was not empty.
    Space(SpaceError),
}

impl From<SpaceError> for LoadError {
    fn from(error: SpaceError) -> Self {
        Self::Space(error)
    }
}

/// Where everything has come: addresses of the new process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loaded {
    /// The first instruction.
    pub(crate) entry: usize,
    /// The startup block: what `rdi` is to be, and the first stack pointer, a multiple of 16.
    pub(crate) startup: usize,
    /// The pages of the image, of which some may be unmapped, and of the stack, guards not included.
    pub(crate) layout: Layout,
}

/// Maps a program into an empty space that no core has active, with a stack of `stack` pages.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn load<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    program: &Program,
    (stack, randomness): (usize, Randomness),
    startup: &Startup<'_>,
    text: Text<'_>,
) -> Result<Loaded, LoadError> {
    let draw = |bound| match randomness {
        Randomness::Drawn => chance::below(irq, bound),
        Randomness::Fixed => 0,
    };
    let layout = program.plan.place(stack, draw).ok_or(LoadError::BadStack)?;
    map_image(irq, supply, space, program, &layout)?;
    map_stack(irq, supply, space, layout.stack)?;
    let random = match randomness {
        Randomness::Drawn => chance::words(irq),
        Randomness::Fixed => [0; 2],
    };
    let places = Places {
        slide: layout.slide(),
        stack_bottom: layout.stack.start().address(),
        stack_top: layout.stack.end().address(),
        heap: layout.heap.address(),
        random,
    };
    let at = startup::write(irq, supply, space, (startup, &places), text)?;
    Ok(Loaded { entry: program.plan.entry() + layout.slide(), startup: at, layout })
}

/// Once in the image: a process has half a dozen regions, and a copy of the way for each would be larger than what a call costs.
#[inline(never)]
fn map<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    range: PageRange,
    mapping: &Mapping<'_, Physical>,
) -> Result<(), SpaceError> {
    supply.with(irq, space, |cx| space.map(cx, range, mapping))
}

fn map_image<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    program: &Program,
    layout: &Layout,
) -> Result<(), SpaceError> {
    let mut shown = 0;
    for segment in program.plan.segments() {
        let first = layout.moved(segment.first());
        let (filled, empty) = (segment.filled(), segment.pages() - segment.filled());
        if let Some(range) = PageRange::new(first, filled) {
            let backing = match segment.protection {
                Protection::ReadWrite => Backing::Copy(&program.object, shown),
                Protection::Read | Protection::ReadExecute => Backing::Shared(&program.object, shown),
            };
            let mapping = Mapping::new(backing, segment.protection);
            let mapping = if filled <= SHOWN_AT_ONCE { mapping.now() } else { mapping };
            map(irq, supply, space, range, &mapping)?;
        }
        if let Some(range) = PageRange::new(PageId::new(first.number() + filled), empty) {
            map(irq, supply, space, range, &Mapping::new(Backing::Anonymous, segment.protection))?;
        }
        shown += filled;
    }
    Ok(())
}

/// The stack first: it makes the tables that the guards fit in.
fn map_stack<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    stack: PageRange,
) -> Result<(), SpaceError> {
    map(irq, supply, space, stack, &Mapping::anonymous())?;
    for page in [stack.start().number() - 1, stack.end().number()] {
        let guard = PageRange::new(PageId::new(page), 1).ok_or(SpaceError::NotMapped)?;
        map(irq, supply, space, guard, &Mapping::new(Backing::Guard, Protection::Read))?;
    }
    Ok(())
}
