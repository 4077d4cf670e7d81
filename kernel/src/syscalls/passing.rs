//! Passing pages to another process (`mm::space`, `pass`).
//!
//! A pass does a bounded piece of work and then has the caller make the call again, with how far it has come in the word that says how pages
//! are passed: so the core is its scheduler's in between, and a caller that is ended leaves what has arrived where it is, and claims, which
//! are unmapped like anything else. A word that a program makes up goes on with a pass that never began, and meets pages that are not claimed.

use abi::cap::Rights;
use abi::error::Error;
use abi::quota::Passing as Asked;
use abi::syscall::Syscall;
use mm::PageSize;
use mm::space::{Course, Cx, Pass, Passing, Phase, Shortage, SpaceError, Steps};
use mm::virt::{PageId, PageRange};
use percpu::IrqOff;

use super::memory::{FIRST_PAGE, LAST_PAGE, range, refusal, visit};
use super::{Result, find};
use crate::dispatch;
use crate::process::Process;
use crate::spaces::{self, Physical, Space, Tap};

/// What one call may cost, in leaves of page tables that are taken and put: some 60 instructions each. The last load may exceed it.
const BUDGET: usize = 160;

/// The word that says how pages are passed, and how far that has come.
///
/// | bits | |
/// |---|---|
/// | 0..2 | how ([`Asked`]) |
/// | 2..4 | the phase: 0 for a pass to be begun |
/// | 4..8 | why it is taken back, or 0 |
/// | 8..64 | pages that are done with |
struct Word;

const PHASE_SHIFT: u32 = 2;
const ERROR_SHIFT: u32 = 4;
const DONE_SHIFT: u32 = 8;

/// Why a pass is taken back, by the number in its word, from 1.
const ERRORS: [SpaceError; 5] = [
    SpaceError::Occupied,
    SpaceError::NotMapped,
    SpaceError::Shortage(Shortage::Memory),
    SpaceError::TooManyMappings,
    SpaceError::WrongKind,
];

impl Word {
    fn decode(word: u64, pages: u64) -> Result<(Passing, Course)> {
        let how = match Asked::decode(word & 3) {
            Some(Asked::Move) => Passing::Move,
            Some(Asked::Share) => Passing::Share,
            Some(Asked::CopyOnWrite) => Passing::Copy,
            None => return Err(Error::BadArgument),
        };
        let phase = match word >> PHASE_SHIFT & 3 {
            0 if word >> PHASE_SHIFT == 0 => return Ok((how, Course::START)),
            1 => Phase::Forward,
            2 => Phase::Back,
            3 => Phase::Clear,
            _ => return Err(Error::BadArgument),
        };
        let number = (word >> ERROR_SHIFT & 0xf) as usize;
        let error = number.checked_sub(1).and_then(|at| ERRORS.get(at).copied());
        match word >> DONE_SHIFT {
            done if done <= pages => Ok((how, Course { phase, error, done: done as usize })),
            _ => Err(Error::BadArgument),
        }
    }

    fn encode(how: u64, course: Course) -> u64 {
        let phase = match course.phase {
            Phase::Begin | Phase::Over => 0,
            Phase::Forward => 1,
            Phase::Back => 2,
            Phase::Clear => 3,
        };
        // A quota that is used up is told like memory.
        let number = |error| ERRORS.iter().position(|&known| known == error).unwrap_or(2) + 1;
        let error = course.error.map_or(0, number) as u64;
        how & 3 | phase << PHASE_SHIFT | error << ERROR_SHIFT | (course.done as u64) << DONE_SHIFT
    }
}

/// Runs steps on this core.
struct Here<'i>(&'i mut IrqOff);

impl Steps<Physical> for Here<'_> {
    type Pool<'p> = Tap<'p>;

    fn step<R>(&mut self, space: &Space, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        spaces::with(self.0, space, f)
    }
}

pub(super) fn pages_pass(
    irq: &mut IrqOff,
    from: u64,
    address: u64,
    pages: u64,
    to: u64,
    target: u64,
    how: u64,
) -> Result {
    let (target, course) = pass(irq, (from, address), pages, (to, target), how)?;
    if course.phase == Phase::Over {
        return Ok(target);
    }
    let arguments = [from, address, pages, to, target, Word::encode(how, course)];
    dispatch::current(irq).call_again(Syscall::PagesPass as u64, arguments);
    dispatch::leave()
}

/// Goes on with a pass for a bounded time; says where the pages go.
fn pass(
    irq: &mut IrqOff,
    (from, address): (u64, u64),
    pages: u64,
    (to, target): (u64, u64),
    how: u64,
) -> Result<(u64, Course)> {
    let giver = find::<Process>(irq, from, Rights::MAP)?;
    let taker = find::<Process>(irq, to, Rights::MAP)?;
    let (how, course) = Word::decode(how, pages)?;
    let source = range(address, pages)?;
    visit(irq, &giver, |irq, from| {
        visit(irq, &taker, |irq, to| {
            let target = match target {
                0 => room(irq, to, &taker, source)?,
                target => range(target, pages)?,
            };
            let mut pass = Pass { from: (from, source), to: (to, target), how, course };
            pass.run(&mut Here(irq), BUDGET).map_err(refusal)?;
            Ok((target.start().address() as u64, pass.course))
        })
    })
}

/// A place for pages in a process: if there are many, one that lies in blocks of 2 MiB as they do.
fn room(irq: &mut IrqOff, space: &Space, process: &Process, source: PageRange) -> Result<PageRange> {
    const BLOCK: usize = PageSize::Huge.pages();
    let slack = if source.len() >= BLOCK { BLOCK - 1 } else { 0 };
    let pages = source.len() + slack;
    let next = || process.next_place(pages as u64);
    let place = spaces::with(irq, space, |cx| space.place(cx, pages, PageSize::Small, next));
    let start = place.ok_or(Error::NoMemory)?.start().number();
    let ahead = source.start().number().wrapping_sub(start) % BLOCK;
    PageRange::new(PageId::new(start + ahead.min(slack)), source.len())
        .filter(|place| place.start().number() >= FIRST_PAGE && place.end().number() <= LAST_PAGE)
        .ok_or(Error::NoMemory)
}
