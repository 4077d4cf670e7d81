//! Address spaces against a naive model, on the real MMU and on all cores at once.
//!
//! Each core has two spaces of its own and shares one with all others, in which its ranges lie 1 GiB or 2 MiB from theirs, down to pages
//! of the same lowest tables. It runs random operations on the three, and the same on an array of *cells*: a cell is a page, or the large
//! rest of a unit, of which only the first page is touched. What a page shows is found out by loads and stores through the mapping.

use alloc::vec;
use alloc::vec::Vec;

use mm::frames::Policy;
use mm::space::{Access, Backing, Fault, Kind, Mapping, Memory, Pool, Protection, SpaceError};
use mm::virt::{PageId, PageRange};
use mm::{Order, PageSize};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::{CoreId, IrqOff};
use perf::prng::Prng;

use super::{BLOCK, UNIT, ask, check, load, new_object, new_space, range, release, share, store};
use crate::cores;
use crate::spaces::{self, Object, Owned, Physical, Tap};
use crate::tests::bed::{Blame, Deadline, Gate};
use crate::tests::{Bed, Result, Verdict, ensure, failed};

const MS: u64 = 1_000;
/// Operations of each core, at least.
const OPERATIONS: usize = 300;

/// Spaces that a core works on: two of its own, one of all.
const VIEWS: usize = 3;
/// Single pages on each side of the border between two units.
const BESIDE: usize = 16;
/// Cells around that border: the rest of either unit is one.
const FAR: usize = 2 * BESIDE + 2;
/// Pages around a block: those on both sides lie in tables that other cores use, too.
const MARGIN: usize = 8;
const NEAR: usize = BLOCK + 2 * MARGIN;
const CELLS: usize = FAR + NEAR;

/// Where all cores have their blocks, and from where on they have their units.
const NEAR_BASE: usize = 8 * UNIT + BLOCK;
const FAR_BASE: usize = 32 * UNIT;

/// Pages of a core's objects. The second is made of blocks.
const OBJECTS: [(usize, PageSize); 2] = [(600, PageSize::Small), (2 * BLOCK, PageSize::Huge)];

/// What a cell shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    /// Nothing for a hole.
    kind: Option<Kind>,
    protection: Protection,
    /// Content of a page of its own.
    own: Option<u64>,
    /// The object and its page.
    from: (usize, usize),
}

const HOLE: Cell = Cell { kind: None, protection: Protection::Read, own: None, from: (0, 0) };

impl Cell {
    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => true,
            Access::Write => self.protection == Protection::ReadWrite,
            Access::Execute => self.protection == Protection::ReadExecute,
        }
    }

    /// Whether there is a page, or will be when it is touched.
    fn is_there(&self) -> bool {
        match self.kind {
            None | Some(Kind::Guard | Kind::Reserved | Kind::Device) => false,
            Some(Kind::Pager) => self.own.is_some(),
            Some(Kind::Anonymous | Kind::Shared | Kind::Copy) => true,
        }
    }
}

/// See the header; in the end the tables agree with themselves, and have as many pages as the model.
///
/// Planted: `protect` of leaves invalidates nothing; `leaf` lets the CPU write what shall be copied first; `map`
/// without `unmake`.
pub(in crate::tests) fn agrees(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let count = 2 * all.len() + 1;
    let spaces: Vec<Owned> = (0..count).map(|_| new_space()).collect::<core::result::Result<_, _>>()?;
    let mapped: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    let (seed, deadline) = (bed.seed, Deadline::of(bed, MS));
    let (gate, blame, operations) = (Gate::new(), Blame::new(), AtomicUsize::new(0));
    bed.crew.run(&all, |held| {
        let core = held.core();
        let player = Player::new(core, &spaces, Prng::stream(seed, u32::from(core.raw())));
        let together = gate.pass(all.len());
        let mut player = match player {
            Ok(player) if together => player,
            Ok(_) => return blame.note(Err(failed(format_args!("the cores did not meet")))),
            Err(verdict) => return blame.note(Err(verdict)),
        };
        let mut result = Ok(());
        let turn = || {
            result = player.turn();
            result.is_ok() && (player.operations < OPERATIONS || !deadline.is_over())
        };
        // SAFETY: a function that was sent to an idle core, or the boot core's; nothing core-local is in use here.
        unsafe { cores::expose(held, turn) };
        blame.note(result.and_then(|()| player.look_at_all()));
        // ORDER: Relaxed, both; the end of the call publishes them.
        operations.fetch_add(player.operations, Ordering::Relaxed);
        for (view, number) in player.numbers.into_iter().enumerate() {
            // ORDER: Relaxed; as above.
            mapped[number].fetch_add(player.mapped(view), Ordering::Relaxed);
        }
        player.end();
    });
    let result = blame.verdict().and_then(|()| agree(&spaces, mapped));
    spaces.into_iter().for_each(Owned::destroy);
    crate::log!("spaces.model: {} operations", operations.into_inner());
    result
}

/// Each space's own check, and how many pages it has.
fn agree(spaces: &[Owned], mapped: Vec<AtomicUsize>) -> Result {
    for (number, (space, mapped)) in spaces.iter().zip(mapped).enumerate() {
        let (found, mapped) = (check(space)?.mapped, mapped.into_inner());
        ensure!(found == mapped, "space {number} has {found} pages, the model {mapped}");
    }
    Ok(())
}

/// One core, its spaces and its model.
struct Player<'s> {
    core: CoreId,
    spaces: [&'s Owned; VIEWS],
    /// Their numbers among all.
    numbers: [usize; VIEWS],
    cells: [Vec<Cell>; VIEWS],
    objects: [Object; 2],
    contents: [Vec<u64>; 2],
    prng: Prng,
    operations: usize,
}

impl<'s> Player<'s> {
    fn new(core: CoreId, spaces: &'s [Owned], prng: Prng) -> core::result::Result<Self, Verdict> {
        let numbers = [1 + 2 * core.index(), 2 + 2 * core.index(), 0];
        let [small, large] = OBJECTS;
        Ok(Self {
            core,
            spaces: numbers.map(|number| &spaces[number]),
            numbers,
            cells: core::array::from_fn(|_| vec![HOLE; CELLS]),
            objects: [new_object(small.0, small.1)?, new_object(large.0, large.1)?],
            contents: [vec![0; small.0], vec![0; large.0]],
            prng,
            operations: 0,
        })
    }

    /// The first page of a cell; for `CELLS` no place.
    fn page(&self, cell: usize) -> usize {
        let core = self.core.index();
        let far = FAR_BASE + 2 * core * UNIT;
        match cell {
            0 => far,
            _ if cell < FAR => far + UNIT - BESIDE + cell - 1,
            _ => NEAR_BASE + 2 * core * BLOCK - MARGIN + cell - FAR,
        }
    }

    fn pages(cell: usize) -> usize {
        if cell == 0 || cell == FAR - 1 { UNIT - BESIDE } else { 1 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.prng.below(bound as u64) as usize
    }

    /// Cells `from..to`: a few, those of a block, or many, in one of the two windows.
    fn some(&mut self) -> (usize, usize) {
        let (first, count) = if self.below(3) == 0 { (0, FAR) } else { (FAR, NEAR) };
        match self.below(8) {
            0 => (first, first + count),
            1 if first == FAR => (FAR + MARGIN, FAR + MARGIN + BLOCK),
            2 => {
                let from = self.below(count);
                (first + from, first + from + 1 + self.below(count - from))
            }
            _ => {
                let from = self.edge(count);
                (first + from, first + (from + 1 + self.below(12)).min(count))
            }
        }
    }

    /// A number below `count`, more often near its ends.
    fn edge(&mut self, count: usize) -> usize {
        match self.below(3) {
            0 => self.below(count),
            1 => self.below(count.min(3 * MARGIN)),
            _ => count - 1 - self.below(count.min(3 * MARGIN)),
        }
    }

    fn range(&self, from: usize, to: usize) -> PageRange {
        let start = self.page(from);
        range(start, self.page(to - 1) + Self::pages(to - 1) - start)
    }

    /// Random operations, with interrupts off.
    fn turn(&mut self) -> Result {
        IrqOff::with(|irq| {
            let view = self.below(VIEWS);
            self.spaces[view].activate(irq);
            for _ in 0..4 {
                self.operations += 1;
                match self.below(40) {
                    0..6 => self.map(irq, view)?,
                    6..9 => self.unmap(irq, view)?,
                    9..12 => self.protect(irq, view)?,
                    12..14 => self.share(irq, view)?,
                    14 => self.supply(irq, view)?,
                    15..17 => self.execute(irq, view)?,
                    17 if self.below(4) == 0 => self.sweep(irq, view)?,
                    18..28 => {
                        let cell = self.any();
                        self.read(irq, view, cell)?;
                    }
                    _ => {
                        let cell = self.any();
                        self.write(irq, view, cell)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn any(&mut self) -> usize {
        if self.below(3) == 0 { self.below(FAR) } else { FAR + self.edge(NEAR) }
    }

    /// Where something went wrong.
    fn at(&self, view: usize, cell: usize) -> (CoreId, &'static str, usize) {
        (self.core, ["its first space", "its second", "all cores' space"][view], self.page(cell))
    }

    fn map(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let ((from, to), what) = (self.some(), self.below(10));
        let (object, mut offset) = (usize::from(what == 4 || what == 6), self.below(60));
        if what == 4 && self.below(2) == 0 {
            // Where its blocks lie as the space's do.
            offset = (from + BLOCK - (FAR + MARGIN) % BLOCK) % BLOCK;
        }
        let protection =
            [Protection::ReadWrite, Protection::ReadWrite, Protection::Read, Protection::ReadExecute];
        let protection = protection[self.below(4)];
        let (backing, kind) = match what {
            0..=2 => (Backing::Anonymous, Kind::Anonymous),
            3 | 4 => (Backing::Shared(&self.objects[object], offset), Kind::Shared),
            5 | 6 => (Backing::Copy(&self.objects[object], offset), Kind::Copy),
            7 => (Backing::Pager(7), Kind::Pager),
            8 => (Backing::Guard, Kind::Guard),
            _ => (Backing::Anonymous, Kind::Anonymous),
        };
        let mut mapping = Mapping::new(backing, protection);
        if self.prng.below(2) == 0 {
            mapping = mapping.now();
        }
        let (place, space) = (self.range(from, to), self.spaces[view]);
        let done = spaces::with(irq, space, |cx| space.map(cx, place, &mapping));
        let beyond = matches!(kind, Kind::Shared | Kind::Copy) && offset + place.len() > OBJECTS[object].0;
        let occupied = self.cells[view][from..to].iter().any(|cell| cell.kind.is_some());
        let wanted = match (beyond, occupied) {
            (true, _) => Err(SpaceError::BeyondObject),
            (_, true) => Err(SpaceError::Occupied),
            _ => Ok(()),
        };
        ensure!(
            done == wanted,
            "{:?}: mapping {kind:?} to {place:?}: {done:?}, not {wanted:?}",
            self.at(view, from)
        );
        if done.is_ok() {
            let start = self.page(from);
            for cell in from..to {
                let from = (object, offset + self.page(cell) - start);
                self.cells[view][cell] = Cell { kind: Some(kind), protection, own: None, from };
            }
        }
        Ok(())
    }

    fn unmap(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let (from, to) = self.some();
        super::unmap(irq, self.spaces[view], self.range(from, to))?;
        self.cells[view][from..to].fill(HOLE);
        Ok(())
    }

    fn protect(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let (from, to) = self.some();
        let to_what = [Protection::ReadWrite, Protection::Read, Protection::ReadExecute][self.below(3)];
        super::protect(irq, self.spaces[view], self.range(from, to), to_what)?;
        for cell in &mut self.cells[view][from..to] {
            if !matches!(cell.kind, None | Some(Kind::Guard)) {
                cell.protection = to_what;
            }
        }
        Ok(())
    }

    fn share(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let ((from, to), other) = (self.some(), (view + 1 + self.below(VIEWS - 1)) % VIEWS);
        if self.cells[other][from..to].iter().any(|cell| cell.kind.is_some()) {
            return Ok(());
        }
        let done = share(irq, self.spaces[view], self.spaces[other], self.range(from, to));
        ensure!(done.is_ok(), "{:?}: sharing up to {to}: {done:?}", self.at(view, from));
        for cell in from..to {
            self.cells[other][cell] = self.cells[view][cell];
        }
        Ok(())
    }

    /// The pager's answer, wanted or not.
    fn supply(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let (cell, value, space) = (self.any(), self.prng.bits(), self.spaces[view]);
        let Ok(frame) = Tap::new(irq).take(Order::FRAME, Policy::Local) else { return Err(super::NO_MEMORY) };
        Physical.fill(frame, value);
        let page = PageId::new(self.page(cell));
        let done = spaces::with(irq, space, |cx| space.supply(cx, page, frame));
        let now = self.cells[view][cell];
        let wanted = now.kind == Some(Kind::Pager) && now.own.is_none();
        ensure!(
            done == if wanted { Ok(()) } else { Err(SpaceError::NotMapped) },
            "{:?}: supplying a page of {now:?}: {done:?}",
            self.at(view, cell)
        );
        if wanted {
            self.cells[view][cell].own = Some(value);
        } else {
            Tap::new(irq).give(frame, Order::FRAME);
        }
        Ok(())
    }

    /// Whether code in a page could run; the kernel cannot try.
    fn execute(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        let cell = self.any();
        let found = ask(irq, self.spaces[view], self.page(cell), Access::Execute);
        let now = self.cells[view][cell];
        let right = match now.kind {
            None | Some(Kind::Reserved | Kind::Device) => found == Fault::NotMapped,
            Some(Kind::Guard) => found == Fault::Guard,
            Some(_) if !now.allows(Access::Execute) => found == Fault::Forbidden,
            Some(_) if now.is_there() => found == Fault::Resolved,
            Some(_) => matches!(found, Fault::Pager { cookie: 7, .. }),
        };
        ensure!(right, "{:?}: executing {now:?}: {found:?}", self.at(view, cell));
        Ok(())
    }

    /// All pages of the block, so that it may become one large page.
    fn sweep(&mut self, irq: &mut IrqOff, view: usize) -> Result {
        (FAR + MARGIN..FAR + MARGIN + BLOCK).try_for_each(|cell| self.write(irq, view, cell))
    }

    fn read(&mut self, irq: &mut IrqOff, view: usize, cell: usize) -> Result {
        let found = load(irq, self.page(cell)).ok();
        let now = self.cells[view][cell];
        let wanted = now.is_there().then(|| match (now.kind, now.own) {
            (_, Some(own)) => own,
            (Some(Kind::Shared | Kind::Copy), None) => self.contents[now.from.0][now.from.1],
            _ => 0,
        });
        ensure!(found == wanted, "{:?}: {now:?} reads {found:x?}, not {wanted:x?}", self.at(view, cell));
        Ok(())
    }

    fn write(&mut self, irq: &mut IrqOff, view: usize, cell: usize) -> Result {
        let value = self.prng.bits();
        let done = store(irq, self.page(cell), value).is_ok();
        let now = self.cells[view][cell];
        let wanted = now.is_there() && now.allows(Access::Write);
        ensure!(done == wanted, "{:?}: a store to {now:?} succeeds: {done}", self.at(view, cell));
        if done && now.kind == Some(Kind::Shared) {
            self.contents[now.from.0][now.from.1] = value;
        } else if done {
            self.cells[view][cell].own = Some(value);
        }
        Ok(())
    }

    /// Every page of every space reads as the model says.
    fn look_at_all(&mut self) -> Result {
        for view in 0..VIEWS {
            for cell in 0..CELLS {
                IrqOff::with(|irq| {
                    self.spaces[view].activate(irq);
                    self.read(irq, view, cell)
                })?;
            }
        }
        Ok(())
    }

    /// Pages that are mapped in a view.
    fn mapped(&self, view: usize) -> usize {
        let cells = self.cells[view].iter().enumerate();
        cells.filter(|(_, cell)| cell.kind.is_some()).map(|(number, _)| Self::pages(number)).sum()
    }

    /// The core leaves all spaces; the objects live on in what shows them.
    fn end(self) {
        IrqOff::with(|irq| spaces::deactivate(irq));
        self.objects.into_iter().for_each(release);
    }
}
