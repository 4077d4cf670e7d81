//! Programs: images that processes are made of.
//!
//! An image is read and checked once (`mm::image`), and its pages are put into a memory object once, with zeroes where the file ends inside a
//! page. A process shows them: text and constants as they are, data until it writes to it. So making one copies nothing.
//!
//! Programs that the loader has brought are the bundle's members `user/NAME`; they are there from [`install`] on, numbered in the bundle's
//! order. Others come from a process's memory and live as long as somebody shows them. [`load`](load::load) maps one.

pub(crate) mod load;
pub(crate) mod startup;
mod supply;

use alloc::vec::Vec;

use abi::image::ImageFlaw;
use mm::frames::Policy;
use mm::image::{HEAD_BYTES, Plan};
use mm::space::{Memory, Pool, Shortage};
use mm::virt::PAGE_BYTES;
use mm::{FrameId, Order, PageSize};
use percpu::IrqOff;
use spin::Once;

use crate::loader::Module;
use crate::spaces::{Object, Physical};
use crate::{layout, log, memory, start};

pub(crate) use supply::{Machine, Paid, Supply};

/// The programs of the bundle.
static BUNDLED: Once<Vec<Bundled>> = Once::new();

/// A program of the bundle.
struct Bundled {
    name: &'static str,
    program: Program,
}

/// Copies the bytes of a file from an offset on into the buffer, or answers `false`.
pub(crate) type Read<'r> = &'r mut dyn FnMut(&mut IrqOff, usize, &mut [u8]) -> bool;

/// Why a program cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BuildError {
    /// The image is not one.
    Flaw(ImageFlaw),
    /// The image cannot be read where it is said to be.
    Unreadable,
    /// No frame could be had.
    Shortage(Shortage),
}

impl From<Shortage> for BuildError {
    fn from(shortage: Shortage) -> Self {
        Self::Shortage(shortage)
    }
}

/// An image that is ready to be mapped. It is given up by [`Program::release`]; processes that show it are not affected.
#[derive(Debug)]
#[must_use = "a program that is dropped keeps its pages for ever"]
pub(crate) struct Program {
    plan: Plan,
    object: Object,
}

impl Program {
    /// Builds a program from a file of `bytes` bytes. `read` is never asked for more than a page, nor for anything beyond the end, and what it has given once is not asked for again after it has been
    /// checked, so it may come from memory that somebody is writing to.
    ///
    /// # Errors
    /// [`BuildError`]; everything is given back.
    pub(crate) fn build<S: Supply>(
        irq: &mut IrqOff,
        supply: &S,
        bytes: usize,
        read: Read<'_>,
    ) -> Result<Self, BuildError> {
        let plan = Self::plan_of(irq, supply, bytes, read)?;
        let payer = supply.payer();
        let made = Object::paid_by(payer, Physical, &mut supply.pool(irq), plan.filled(), PageSize::Small);
        let object = made.inspect_err(|_| supply.pool(irq).forget(payer))?;
        let program = Self { plan, object };
        match program.fill(irq, supply, read) {
            Ok(()) => Ok(program),
            Err(error) => {
                program.release(irq, supply);
                Err(error)
            }
        }
    }

    /// Reads the headers, on a copy of the file's first page.
    fn plan_of<S: Supply>(
        irq: &mut IrqOff,
        supply: &S,
        bytes: usize,
        read: Read<'_>,
    ) -> Result<Plan, BuildError> {
        let frame = supply.pool(irq).take(Order::FRAME, Policy::Local)?;
        let check = |head: &mut [u8; PAGE_BYTES]| {
            let head = &mut head[..bytes.min(HEAD_BYTES)];
            if !read(irq, 0, head) {
                return Err(BuildError::Unreadable);
            }
            Plan::of(head, bytes).map_err(BuildError::Flaw)
        };
        // SAFETY: just taken, and given back below.
        let plan = unsafe { with_page(frame, check) };
        supply.pool(irq).give(frame, Order::FRAME);
        plan
    }

    /// Puts the file's bytes into the object: the pages of each segment that hold any, one segment after the other.
    fn fill<S: Supply>(&self, irq: &mut IrqOff, supply: &S, read: Read<'_>) -> Result<(), BuildError> {
        let pieces = self
            .plan
            .segments()
            .iter()
            .flat_map(|segment| (0..segment.filled()).filter_map(|index| segment.piece(index)));
        for (index, piece) in pieces.enumerate() {
            let frame = self.object.page(&mut supply.pool(irq), index)?;
            let frame = frame.expect("I1: the object has as many pages as the plan's segments");
            let copy = |page: &mut [u8; PAGE_BYTES]| {
                read(irq, piece.offset, &mut page[piece.at..piece.at + piece.bytes])
            };
            // SAFETY: the object's, which nobody shows yet.
            if !unsafe { with_page(frame, copy) } {
                return Err(BuildError::Unreadable);
            }
        }
        Ok(())
    }

    /// Gives the program up.
    pub(crate) fn release<S: Supply>(self, irq: &IrqOff, supply: &S) {
        self.object.release(&mut supply.pool(irq));
    }

    /// What its image wants.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Runs `f` on the bytes of a frame.
///
/// # Safety
/// 1. The frame is the caller's: nobody else reads or writes a byte of it meanwhile.
unsafe fn with_page<R>(frame: FrameId, f: impl FnOnce(&mut [u8; PAGE_BYTES]) -> R) -> R {
    // SAFETY: the direct map shows the whole frame, and any bytes are bytes; obligation 1.
    f(unsafe { Physical.at(frame).cast().as_mut() })
}

/// Builds the programs that the loader has brought. What is wrong with one is logged, and it is left out.
pub(crate) fn install() {
    BUNDLED.call_once(|| start::handover().programs().iter().filter_map(bundled).collect());
}

fn bundled(module: &'static Module) -> Option<Bundled> {
    let name = module.name();
    let at = layout::direct(module.start).as_ptr::<u8>();
    // SAFETY: the loader has put the file there, the direct map shows it, and nobody else has its frames until they are given back below.
    let file = unsafe { core::slice::from_raw_parts(at, module.bytes) };
    let mut copy = |_: &mut IrqOff, offset: usize, to: &mut [u8]| {
        to.copy_from_slice(&file[offset..offset + to.len()]);
        true
    };
    let built = IrqOff::with(|irq| Program::build(irq, &Machine, file.len(), &mut copy));
    memory::give_back(module);
    match built {
        Ok(program) => Some(Bundled { name, program }),
        Err(error) => {
            log!("programs: {name} is left out: {error:?}");
            None
        }
    }
}

/// How many programs the loader has brought.
pub(crate) fn count() -> usize {
    BUNDLED.get().map_or(0, Vec::len)
}

/// A program that the loader has brought, by its number.
pub(crate) fn get(number: usize) -> Option<&'static Program> {
    BUNDLED.get()?.get(number).map(|bundled| &bundled.program)
}

/// Its name.
pub(crate) fn name(number: usize) -> Option<&'static str> {
    BUNDLED.get()?.get(number).map(|bundled| bundled.name)
}

/// The number of the program with a name.
pub(crate) fn find(name: &str) -> Option<usize> {
    BUNDLED.get()?.iter().position(|bundled| bundled.name == name)
}
