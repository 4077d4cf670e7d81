//! Memory runs out at the first, second, … allocation of every operation.

use alloc::vec::Vec;

use mm::frames::Policy;
use mm::space::{
    Access, Backing, Fault, Format, Mapping, Memory, Pending, Pool, Protection, Region, SpaceError, Usage,
};
use mm::tlb::SpaceIds;
use mm::virt::{PageId, PageRange};
use mm::{Order, PageSize};
use percpu::IrqOff;

use super::faucet::Faucet;
use super::{BLOCK, UNIT, check, load, new_object, new_space, range, release, whole};
use crate::arch::border;
use crate::spaces::{Object, Owned, Physical, Space};
use crate::tests::{Bed, Result, ensure, failed};

/// Pages of the object.
const SHOWN: usize = 1100;
/// What a page of the furniture says.
const MARK: u64 = 0x0a11_0ca7_0000_0000;

/// One space under test, and another to share with.
struct Scene {
    space: Owned,
    other: Owned,
    object: Object,
    faucet: Faucet,
}

type Outcome = core::result::Result<(), SpaceError>;

/// Everything that can be seen of a space, and the frames that are out.
#[derive(PartialEq, Debug)]
struct Seen {
    regions: Vec<Region>,
    usage: Usage,
    frames: isize,
}

/// An operation; says whether it went well.
type Try = fn(&Scene, &mut IrqOff) -> Outcome;

/// What must be as before where an operation has failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// All of it.
    All,
    /// What is mapped. What was shared for a moment is counted, in small pages, until it is written.
    Regions,
}

struct Case {
    name: &'static str,
    attempt: Try,
    kept: Kept,
}

const fn case(name: &'static str, attempt: Try) -> Case {
    Case { name, attempt, kept: Kept::All }
}

const CASES: &[Case] = &[
    case("map across units", |scene, irq| scene.map(irq, range(4 * UNIT - 700, 1500), &Mapping::anonymous())),
    case("map far away", |scene, irq| scene.map(irq, range(1 << 33, 3), &Mapping::anonymous())),
    case("map bound to a node", |scene, irq| {
        scene.map(irq, range(9000, 3), &Mapping::anonymous().placed(Policy::LocalOnly))
    }),
    case("map an object now", |scene, irq| {
        let shown = Mapping::new(Backing::Shared(&scene.object, 0), Protection::ReadWrite);
        scene.map(irq, range(10_000, 1000), &shown.now())
    }),
    case("map over something", |scene, irq| {
        let shown = Mapping::new(Backing::Shared(&scene.object, 0), Protection::ReadWrite);
        match scene.map(irq, range(UNIT - 700, 1000), &shown.now()) {
            Err(SpaceError::Occupied) => Ok(()),
            Ok(()) => Err(SpaceError::Occupied),
            other => other,
        }
    }),
    case("unmap inside a large page", |scene, irq| scene.unmap(irq, range(600, 3))),
    case("unmap across blocks", |scene, irq| scene.unmap(irq, range(700, 900))),
    case("unmap inside a unit", |scene, irq| scene.unmap(irq, range(UNIT + 5, 1))),
    case("unmap across units", |scene, irq| scene.unmap(irq, range(2 * UNIT - 5, 700))),
    case("protect inside a large page", |scene, irq| scene.protect(irq, range(600, 1))),
    case("protect across units", |scene, irq| scene.protect(irq, range(2 * UNIT - 5, 700))),
    case("touch a reservation", |scene, irq| scene.touch(irq, 1200)),
    case("touch a new block", |scene, irq| scene.touch(irq, UNIT + 9)),
    case("touch an object", |scene, irq| scene.touch(irq, 4700)),
    case("copy an object's page", |scene, irq| scene.touch(irq, 6300)),
    case("supply", |scene, irq| scene.supply(irq, 7300)),
    case("create a space", |scene, irq| scene.create_space(irq)),
    case("create an object", |scene, irq| scene.create_object(irq)),
    Case { name: "share", attempt: |scene, irq| scene.share(irq), kept: Kept::Regions },
];

/// See the header: the operation is refused, and the space is as it was: usage, regions, contents, and the number of frames that are out. A
/// block of 2 MiB that cannot be had is no failure: the pages then lie singly.
///
/// Planted: `prepare_ends` without `join`; `map` without `unmake`.
pub(in crate::tests) fn changes_nothing(_: &mut Bed) -> Result {
    let mut failures = 0;
    for case in CASES {
        let before = failures;
        for nth in 0.. {
            let scene = Scene::new()?;
            let result = IrqOff::with(|irq| one(&scene, irq, case, nth));
            scene.close()?;
            match result? {
                Next::Over => break,
                Next::Refused => failures += 1,
                Next::Unharmed => {}
            }
        }
        ensure!(failures > before || case.name == "touch a reservation", "{} needs no memory", case.name);
    }
    crate::log!("spaces.oom: {failures} allocations failed");
    Ok(())
}

/// How one attempt went.
enum Next {
    /// The operation needs no more allocations than have been tried.
    Over,
    /// It was refused.
    Refused,
    /// It did without.
    Unharmed,
}

fn one(
    scene: &Scene,
    irq: &mut IrqOff,
    case: &Case,
    nth: usize,
) -> core::result::Result<Next, crate::tests::Verdict> {
    let before = [scene.look(irq, &scene.space)?, scene.look(irq, &scene.other)?];
    scene.faucet.fail_at(Some(nth));
    let result = (case.attempt)(scene, irq);
    let reached = scene.faucet.has_failed();
    scene.faucet.fail_at(None);
    match result {
        Ok(()) => {}
        Err(SpaceError::Shortage(_)) if reached => {
            let after = [scene.look(irq, &scene.space)?, scene.look(irq, &scene.other)?];
            for (before, after) in before.iter().zip(&after) {
                let same = match case.kept {
                    Kept::All => before == after,
                    Kept::Regions => before.regions == after.regions,
                };
                ensure!(same, "{} at {nth}: {:?}, then {:?}", case.name, before.usage, after.usage);
            }
            scene.contents(irq)?;
        }
        Err(error) => return Err(failed(format_args!("{} at {nth}: {error:?}", case.name))),
    }
    Ok(match (reached, result.is_err()) {
        (false, _) => Next::Over,
        (true, true) => Next::Refused,
        (true, false) => Next::Unharmed,
    })
}

impl Scene {
    /// Regions of every kind, some touched, across borders of blocks and units.
    fn new() -> core::result::Result<Self, crate::tests::Verdict> {
        let (space, other) = (new_space()?, new_space()?);
        let object = new_object(SHOWN, PageSize::Small)?;
        let scene = Self { space, other, object, faucet: Faucet::new() };
        let furnished = IrqOff::with(|irq| scene.furnish(irq));
        furnished.map_err(|error| failed(format_args!("furnishing a space: {error:?}")))?;
        Ok(scene)
    }

    fn furnish(&self, irq: &mut IrqOff) -> Outcome {
        let shown = |backing| Mapping::new(backing, Protection::ReadWrite);
        // An object's directory stays once it is there, and so do the frames of records: they are made now.
        let populated = self.object.populate(&mut self.faucet.pool(irq), 0, SHOWN);
        populated.map_err(SpaceError::Shortage)?;
        let records = shown(Backing::Pager(2));
        self.faucet.with(irq, &self.other, |cx| self.other.map(cx, range(1, 1), &records))?;
        self.map(irq, range(UNIT, 2 * UNIT), &Mapping::anonymous())?;
        self.map(irq, range(512, 1600), &Mapping::anonymous())?;
        self.map(irq, range(4096, 1024), &shown(Backing::Shared(&self.object, 0)))?;
        self.map(irq, range(6144, 600), &shown(Backing::Copy(&self.object, 100)))?;
        self.map(irq, range(7168, 600), &shown(Backing::Pager(1)))?;
        self.space.activate(irq);
        for page in Self::marked() {
            self.touch(irq, page)?;
            let stored = super::store(irq, page, MARK | page as u64);
            stored.map_err(|_| SpaceError::NotMapped)?;
        }
        Ok(())
    }

    /// Pages with something in them.
    fn marked() -> impl Iterator<Item = usize> {
        (512..1024).chain(1100..1110).chain([4097, 6150])
    }

    /// They still have it.
    fn contents(&self, irq: &mut IrqOff) -> Result {
        for page in Self::marked().step_by(7) {
            let found = load(irq, page);
            ensure!(found == Ok(MARK | page as u64), "page {page:#x} then reads {found:x?}");
        }
        Ok(())
    }

    fn look(&self, irq: &mut IrqOff, space: &Space) -> core::result::Result<Seen, crate::tests::Verdict> {
        let usage = check(space)?;
        let mut regions = Vec::new();
        let mut at = PageId::new(0);
        while let Some(region) = self.faucet.with(irq, space, |cx| space.region(cx, at)) {
            at = region.range.end();
            regions.push(region);
        }
        Ok(Seen { regions, usage, frames: self.faucet.out() })
    }

    fn map(&self, irq: &mut IrqOff, range: PageRange, mapping: &Mapping<'_, Physical>) -> Outcome {
        self.faucet.with(irq, &self.space, |cx| self.space.map(cx, range, mapping))
    }

    fn unmap(&self, irq: &mut IrqOff, range: PageRange) -> Outcome {
        whole(range, |rest| self.faucet.with(irq, &self.space, |cx| self.space.unmap(cx, rest)))
    }

    fn protect(&self, irq: &mut IrqOff, range: PageRange) -> Outcome {
        whole(range, |rest| {
            self.faucet.with(irq, &self.space, |cx| self.space.protect(cx, rest, Protection::Read))
        })
    }

    fn touch(&self, irq: &mut IrqOff, page: usize) -> Outcome {
        let fault =
            self.faucet.with(irq, &self.space, |cx| self.space.fault(cx, PageId::new(page), Access::Write));
        match fault {
            Fault::Resolved => Ok(()),
            Fault::Shortage(shortage) => Err(SpaceError::Shortage(shortage)),
            _ => Err(SpaceError::NotMapped),
        }
    }

    fn supply(&self, irq: &mut IrqOff, page: usize) -> Outcome {
        let frame = self.faucet.pool(irq).take(Order::FRAME, Policy::Local)?;
        Physical.zero(frame, Order::FRAME);
        let done = self.faucet.with(irq, &self.space, |cx| self.space.supply(cx, PageId::new(page), frame));
        if done.is_err() {
            // It is still ours.
            self.faucet.pool(irq).give(frame, Order::FRAME);
        }
        done
    }

    /// A space that is given up again at once.
    fn create_space(&self, irq: &mut IrqOff) -> Outcome {
        static IDS: SpaceIds = SpaceIds::new();
        let format = Format::new(true, false);
        let made = Space::new(Physical, &mut self.faucet.pool(irq), IDS.take(), format, border::upper())?;
        made.close(&mut self.faucet.pool(irq)).map_err(|_| SpaceError::Occupied)
    }

    fn create_object(&self, irq: &mut IrqOff) -> Outcome {
        let mut pool = self.faucet.pool(irq);
        let made = Object::new(Physical, &mut pool, 4 * BLOCK, PageSize::Small)?;
        let populated = made.populate(&mut pool, 0, 3);
        made.release(&mut pool);
        Ok(populated?)
    }

    /// Shares with the other space; what that has got of a failed attempt is unmapped there.
    fn share(&self, irq: &mut IrqOff) -> Outcome {
        let all = range(512, 8000);
        let result = whole(all, |rest| {
            let mut theirs = Pending::new();
            let step =
                self.faucet.with(irq, &self.space, |cx| self.space.share(cx, &self.other, &mut theirs, rest));
            self.faucet.settle(irq, &self.other, &mut theirs);
            step
        });
        if result.is_err() {
            whole(all, |rest| self.faucet.with(irq, &self.other, |cx| self.other.unmap(cx, rest)))?;
        }
        result
    }

    fn close(self) -> Result {
        self.space.destroy();
        self.other.destroy();
        release(self.object);
        Ok(())
    }
}
