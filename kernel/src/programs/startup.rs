//! The block at the top of a new process's stack: `abi::task::Startup`, handles, texts.
//!
//! ```text
//! stack top ─► arguments, environment, up to 15 bytes of zeroes
//!              handles
//! rdi, rsp ──► Startup
//!              the stack grows down from here
//! ```

use abi::cap::Handle;
use abi::task::{ProcessSpec, Startup as Block};
use mm::space::{Access, Fault, SpaceError};
use mm::virt::{PAGE_BYTES, PageId};
use percpu::IrqOff;

use super::load::LoadError;
use super::supply::Supply;
use super::with_page;
use crate::machine;
use crate::spaces::Space;

/// What a new process is told, besides where its parts are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Startup<'a> {
    /// Bytes of the arguments and of the environment; together at most `ProcessSpec::MAX_TEXT`.
    pub(crate) arguments: usize,
    /// See `arguments`.
    pub(crate) environment: usize,
    /// Handles of the capabilities that it has been given.
    pub(crate) handles: &'a [Handle],
    /// The process itself.
    pub(crate) process: Handle,
    /// Its main thread.
    pub(crate) thread: Handle,
    /// Number of the process.
    pub(crate) id: u64,
}

/// A text that the block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The arguments.
    Arguments,
    /// The environment.
    Environment,
}

/// Copies bytes of a text, from an offset on, into the buffer, or answers `false`.
pub(crate) type Text<'t> = &'t mut dyn FnMut(&mut IrqOff, Part, usize, &mut [u8]) -> bool;

/// What the stack pointer of a new thread is a multiple of (System V ABI, AMD64 supplement, §3.4.1).
const STACK_ALIGN: usize = 16;
const HANDLES_AT: usize = size_of::<Block>();
/// Where the parts of the block are, as offsets from its start, and how long it is.
#[derive(Clone, Copy)]
struct Shape {
    arguments: usize,
    environment: usize,
    end: usize,
    bytes: usize,
}

impl Shape {
    fn of(startup: &Startup<'_>) -> Option<Self> {
        let texts = startup.arguments.checked_add(startup.environment)?;
        if texts > ProcessSpec::MAX_TEXT as usize || startup.handles.len() > ProcessSpec::MAX_GRANTS as usize
        {
            return None;
        }
        let arguments = HANDLES_AT + size_of_val(startup.handles);
        let end = arguments + texts;
        let bytes = end.next_multiple_of(STACK_ALIGN);
        Some(Self { arguments, environment: arguments + startup.arguments, end, bytes })
    }
}

/// Where the process finds its parts: what `load` has decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) slide: usize,
    pub(super) stack_bottom: usize,
    pub(super) stack_top: usize,
    pub(super) heap: usize,
    pub(super) random: [u64; 2],
}

/// Writes the block; returns its address. Its pages become the space's own; no core has the space active yet.
///
/// # Errors
/// [`LoadError::TooMuchText`], [`LoadError::Unreadable`], [`LoadError::Space`]: the pages that were taken stay with the space.
pub(super) fn write<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    (startup, places): (&Startup<'_>, &Places),
    text: Text<'_>,
) -> Result<usize, LoadError> {
    let shape = Shape::of(startup).ok_or(LoadError::TooMuchText)?;
    if shape.bytes > (places.stack_top - places.stack_bottom) / 2 {
        return Err(LoadError::TooMuchText);
    }
    let start = places.stack_top - shape.bytes;
    let block = block(startup, places, (start, shape));
    let first = PageId::containing(start).number();
    for page in first..PageId::containing(places.stack_top).number() {
        let page = PageId::new(page);
        let skip = start.saturating_sub(page.address());
        let from = page.address() + skip - start;
        with_stack_page(irq, supply, space, page, |irq, bytes| {
            let mut window = Window { bytes: &mut bytes[skip..], from };
            window.put(0, as_bytes(&[block]));
            window.put(HANDLES_AT, as_bytes(startup.handles));
            [
                (Part::Arguments, shape.arguments, shape.environment),
                (Part::Environment, shape.environment, shape.end),
            ]
            .into_iter()
            .all(|(part, start, end)| match window.piece(start, end) {
                Some((at, piece)) => text(irq, part, at, piece),
                None => true,
            })
        })?;
    }
    Ok(start)
}

fn block(startup: &Startup<'_>, places: &Places, (start, shape): (usize, Shape)) -> Block {
    let topology = machine::topology();
    Block {
        version: Block::VERSION,
        ticks_per_second: machine::clock().0,
        cores: topology.core_count() as u64,
        nodes: topology.node_count() as u64,
        arguments: (start + shape.arguments) as u64,
        arguments_bytes: startup.arguments as u64,
        environment: (start + shape.environment) as u64,
        environment_bytes: startup.environment as u64,
        handles: (start + HANDLES_AT) as u64,
        handles_count: startup.handles.len() as u64,
        process: startup.process,
        thread: startup.thread,
        slide: places.slide as u64,
        stack_bottom: places.stack_bottom as u64,
        stack_top: places.stack_top as u64,
        heap: places.heap as u64,
        random: places.random,
        id: startup.id,
    }
}

/// Brings a page of the stack and runs `f` on its bytes.
fn with_stack_page<S: Supply>(
    irq: &mut IrqOff,
    supply: &S,
    space: &Space,
    page: PageId,
    f: impl FnOnce(&mut IrqOff, &mut [u8; PAGE_BYTES]) -> bool,
) -> Result<(), LoadError> {
    match supply.with(irq, space, |cx| space.fault(cx, page, Access::Write)) {
        Fault::Resolved => {}
        Fault::Shortage(shortage) => return Err(LoadError::Space(SpaceError::Shortage(shortage))),
        _ => return Err(LoadError::Space(SpaceError::NotMapped)),
    }
    let frame = space.frame_of(page).ok_or(LoadError::Space(SpaceError::NotMapped))?;
    // SAFETY: the space's own frame, which was zeroed; nobody runs in the space yet.
    let read = unsafe { with_page(frame, |bytes| f(irq, bytes)) };
    if read { Ok(()) } else { Err(LoadError::Unreadable) }
}

/// The part of the block that a page holds.
struct Window<'a> {
    bytes: &'a mut [u8],
    /// The offset in the block of its first byte.
    from: usize,
}

impl Window<'_> {
    /// What the page holds of the bytes `start..end` of the block, and where in them it begins.
    fn piece(&mut self, start: usize, end: usize) -> Option<(usize, &mut [u8])> {
        let (low, high) = (start.max(self.from), end.min(self.from + self.bytes.len()));
        if low >= high {
            return None;
        }
        Some((low - start, &mut self.bytes[low - self.from..high - self.from]))
    }

    fn put(&mut self, start: usize, from: &[u8]) {
        if let Some((at, piece)) = self.piece(start, start + from.len()) {
            piece.copy_from_slice(&from[at..at + piece.len()]);
        }
    }
}

/// # Safety
/// 1. The type has no padding.
unsafe trait Whole: Copy {}

// SAFETY: eight bytes each, one after the other, as asserted below.
unsafe impl Whole for Block {}
// SAFETY: one word.
unsafe impl Whole for Handle {}

const _: () = assert!(size_of::<Block>() == 19 * size_of::<u64>() && size_of::<Handle>() == size_of::<u64>());

fn as_bytes<T: Whole>(values: &[T]) -> &[u8] {
    // SAFETY: `Whole`: every byte of the values is initialised.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
