//! The hunt for stale translations: cores change what pages show while others use them, and what is given back is poisoned.
//!
//! Pages come in *slots*, each with a state that says what accesses to it must come to, and how often it has changed. Who changes a slot
//! claims it first. An access between two equal looks at the state happened while nothing changed: it must be refused where the slot is
//! unmapped, stores where it is read-only, and must succeed everywhere else. What is read is never poison, never another page's stamp,
//! never one of the other space that was made after the two were separated.

use mm::PageSize;
use mm::space::{Access, Backing, Fault, Mapping, Pending, Protection};
use mm::virt::{PageId, PageRange};
use percpu::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use percpu::{CoreId, IrqOff, epoch};
use perf::prng::Prng;
use x86_64::VirtAddr;

use super::quarantine::{self, Quarantine, poison, with};
use super::{BLOCK, UNIT, load, new_object, new_space, range, release, store, whole};
use crate::arch::tlb;
use crate::fault::{self, Resolution};
use crate::spaces::{self, Object, Owned};
use crate::tests::bed::{Blame, Deadline, Gate};
use crate::tests::{Bed, Result, ensure, failed};
use crate::{cores, machine};

const MS: u64 = 1_500;
/// Accesses of a core between two moments with interrupts on, at most.
const BURST: u64 = 6;

/// Anonymous pages side by side, over the border of a block; each its own slot.
const NEAR: usize = 24;
/// Pages of an object, over the border of a unit.
const SHOWN: usize = 16;
/// Pages alone in their unit or block, so that tables come and go with them.
const LONELY: usize = 12;
/// Parts of a block that is one large page now and then.
const PARTS: usize = 8;
const SLOTS: usize = NEAR + SHOWN + LONELY + PARTS;
const SPACES: usize = 2;
/// Turns of each other core between two changes by the same one.
const LULL: usize = 2;
/// Slots that everybody looks at, at a time.
const HOT: usize = 2;

/// The slot where the large page begins.
const FIRST_PART: usize = SLOTS - PARTS;
const LARGE: usize = 42 * UNIT + 2 * BLOCK;

/// The pages of a slot.
fn slot_range(slot: usize) -> PageRange {
    const OBJECT_END: usize = NEAR + SHOWN;
    match slot {
        0..NEAR => range(40 * UNIT + BLOCK - NEAR / 2 + slot, 1),
        NEAR..OBJECT_END => range(41 * UNIT - SHOWN / 2 + slot - NEAR, 1),
        // Every third has a unit of its own, far enough for tables of all levels.
        OBJECT_END..FIRST_PART if slot.is_multiple_of(3) => range((600 + slot * 512) * UNIT + slot, 1),
        OBJECT_END..FIRST_PART => range(43 * UNIT + slot * BLOCK + slot, 1),
        _ => range(LARGE + (slot - FIRST_PART) * (BLOCK / PARTS), BLOCK / PARTS),
    }
}

/// Whether a slot shows the object.
fn shows_object(slot: usize) -> bool {
    (NEAR..NEAR + SHOWN).contains(&slot)
}

/// What accesses to a slot come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Phase {
    Gone = 0,
    Constant = 1,
    Writable = 2,
    /// Somebody changes it.
    Changing = 3,
}

/// A slot's phase in one space, and how often it has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State(u64);

impl State {
    const fn phase(self) -> Phase {
        match self.0 & 3 {
            0 => Phase::Gone,
            1 => Phase::Constant,
            2 => Phase::Writable,
            _ => Phase::Changing,
        }
    }

    const fn version(self) -> u64 {
        self.0 >> 2
    }

    const fn next(self, phase: Phase) -> Self {
        Self((self.version() + 1) << 2 | phase as u64)
    }

    const fn claimed(self) -> Self {
        Self(self.0 | Phase::Changing as u64)
    }
}

/// What a store leaves: space, page and version, so that it fits no page-table entry's bits: the lowest four are 0.
fn stamp(space: usize, page: usize, version: u64) -> u64 {
    (page as u64 ^ 0x5_a5a5) << 28 | (version & 0x7f_ffff) << 5 | (space as u64) << 4
}

fn page_of_stamp(found: u64) -> usize {
    (found >> 28 ^ 0x5_a5a5) as usize
}

/// One slot in one space.
struct Slot {
    state: AtomicU64,
    /// The latest version of the other space's stamps that may be read here; 0 for none.
    inherited: AtomicU64,
}

/// What all cores work on.
struct Scene {
    spaces: [Owned; SPACES],
    object: Object,
    slots: [[Slot; SLOTS]; SPACES],
    blame: Blame,
    /// Slots that are about to change or have just changed: where a stale translation would be.
    hot: [AtomicUsize; HOT],
    /// Turns of all cores.
    turns: AtomicUsize,
    over: AtomicBool,
    accesses: AtomicUsize,
    changes: AtomicUsize,
}

/// See the header. The frames of both spaces go through `quarantine`. Cores also rest on a space with its tables loaded, leave it, and go
/// from one to the other.
///
/// Planted: the feature `early-ack`; `protect` of leaves invalidates nothing; `unmap` of leaves neither; `fault_present` copies without
/// invalidating.
pub(in crate::tests) fn finds_nothing(bed: &mut Bed) -> Result {
    let quarantine = Quarantine::open()?;
    let slot = || Slot { state: AtomicU64::new(0), inherited: AtomicU64::new(0) };
    let scene = Scene {
        spaces: [new_space()?, new_space()?],
        object: new_object(SHOWN, PageSize::Small)?,
        slots: core::array::from_fn(|_| core::array::from_fn(|_| slot())),
        blame: Blame::new(),
        hot: [const { AtomicUsize::new(0) }; HOT],
        turns: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        accesses: AtomicUsize::new(0),
        changes: AtomicUsize::new(0),
    };
    let (seed, deadline, gate) = (bed.seed, Deadline::of(bed, MS), Gate::new());
    let all = cores::all_online();
    bed.crew.run(&all, |held| {
        let core = held.core();
        let mut hunter = Hunter::new(&scene, core, Prng::stream(seed, u32::from(core.raw())));
        IrqOff::with(|irq| hunter.enter(irq));
        if !gate.pass(all.len()) {
            scene.complain(Err(failed(format_args!("the cores did not meet"))));
        }
        // SAFETY: a function that was sent to an idle core, or the boot core's; nothing core-local is in use here.
        unsafe { cores::expose(held, || hunter.turn(deadline)) };
        IrqOff::with(|irq| hunter.leave(irq));
    });
    let Scene { spaces, object, blame, accesses, changes, .. } = scene;
    spaces.into_iter().for_each(Owned::destroy);
    release(object);
    let kept = quarantine.close(&mut bed.crew);
    let (accesses, changes) = (accesses.into_inner(), changes.into_inner());
    crate::log!("spaces.stale_hunt: {accesses} accesses, {changes} changes");
    blame.verdict()?;
    kept?;
    ensure!(changes >= 4 * all.len(), "only {changes} changes, which shows nothing");
    Ok(())
}

impl Scene {
    /// Notes a complaint and ends the hunt: what a stale translation leads to is worse the longer it lasts.
    fn complain(&self, result: Result) {
        if result.is_err() {
            // ORDER: Relaxed: the others see it soon enough.
            self.over.store(true, Ordering::Relaxed);
            self.blame.note(result);
        }
    }

    fn is_over(&self) -> bool {
        // ORDER: Relaxed; as above.
        self.over.load(Ordering::Relaxed)
    }

    fn look(&self, space: usize, slot: usize) -> State {
        // ORDER: Acquire pairs with Release in `publish`: the change is over, its shootdown too.
        State(self.slots[space][slot].state.load(Ordering::Acquire))
    }

    /// Claims a slot that nobody changes.
    fn claim(&self, space: usize, slot: usize) -> Option<State> {
        let now = self.look(space, slot);
        let place = &self.slots[space][slot].state;
        // ORDER: AcqRel: Acquire pairs with Release in `publish`, Release so that whoever sees the claim sees what was before. Relaxed on
        // failure: somebody else has it.
        let claimed = now.phase() != Phase::Changing
            && place.compare_exchange(now.0, now.claimed().0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        claimed.then_some(now)
    }

    fn publish(&self, space: usize, slot: usize, state: State) {
        // ORDER: Release pairs with Acquire in `look`.
        self.slots[space][slot].state.store(state.0, Ordering::Release);
    }

    fn inherit(&self, space: usize, slot: usize, version: u64) {
        // ORDER: Relaxed: the slot is claimed; `publish` orders it.
        self.slots[space][slot].inherited.store(version, Ordering::Relaxed);
    }

    fn inherited(&self, space: usize, slot: usize) -> u64 {
        // ORDER: Relaxed: between two equal looks it is what was published with the first.
        self.slots[space][slot].inherited.load(Ordering::Relaxed)
    }
}

/// Answers faults with frames of the quarantine's pool.
fn resolve(irq: &mut IrqOff, address: VirtAddr, access: fault::Access) -> Resolution {
    spaces::answer(irq, address, access, |irq, space, page, kind| {
        with(irq, space, |cx| space.fault(cx, page, kind))
    })
}

/// One core.
struct Hunter<'s> {
    scene: &'s Scene,
    core: CoreId,
    prng: Prng,
    /// The space that it has active.
    space: usize,
    /// Changes in so many turns, of 16.
    zeal: u64,
    /// What it changes next, after the others have had time to use it: space and slot.
    next: Option<(usize, usize)>,
    /// Its turns, and up to how many of the others it changes nothing: a host with fewer cores than the machine would else let none of
    /// them run between two changes, and each change makes them forget what the last one has left.
    turns: usize,
    wait: usize,
    accesses: usize,
    changes: usize,
}

impl<'s> Hunter<'s> {
    fn new(scene: &'s Scene, core: CoreId, prng: Prng) -> Self {
        // Few change much, and some nothing at all.
        let zeal = match core.index() % 4 {
            0 => 8,
            1 => 0,
            2 => 2,
            _ => 1,
        };
        Self {
            scene,
            core,
            prng,
            space: core.index() % SPACES,
            zeal,
            next: None,
            turns: 0,
            wait: 0,
            accesses: 0,
            changes: 0,
        }
    }

    fn enter(&self, irq: &mut IrqOff) {
        epoch::leave_idle(irq);
        fault::set_resolver(irq, Some(resolve));
        self.scene.spaces[self.space].activate(irq);
    }

    fn leave(&self, irq: &mut IrqOff) {
        spaces::deactivate(irq);
        fault::set_resolver(irq, None);
        // ORDER: Relaxed, both; the end of the call publishes them.
        self.scene.accesses.fetch_add(self.accesses, Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        self.scene.changes.fetch_add(self.changes, Ordering::Relaxed);
    }

    fn below(&mut self, bound: usize) -> usize {
        self.prng.below(bound as u64) as usize
    }

    /// A few accesses, or a change; then the core leaves the kernel, as between two system calls.
    fn turn(&mut self, deadline: Deadline) -> bool {
        if deadline.is_over() || self.scene.is_over() {
            return false;
        }
        self.turns += 1;
        // ORDER: Relaxed: only the number matters.
        let others = self.scene.turns.fetch_add(1, Ordering::Relaxed) + 1 - self.turns;
        let changes = self.prng.below(16) < self.zeal && others >= self.wait;
        let result = IrqOff::with(|irq| {
            let result = if changes { self.change(irq, others) } else { self.use_some(irq) };
            epoch::leave_kernel(irq, machine::topology().core_count());
            result
        });
        self.scene.complain(result);
        true
    }

    fn use_some(&mut self, irq: &mut IrqOff) -> Result {
        match self.below(256) {
            0 => {
                self.space = 1 - self.space;
                self.scene.spaces[self.space].activate(irq);
            }
            1 => spaces::deactivate(irq),
            2 => tlb::rest(irq),
            _ => {
                // It also ends a rest.
                self.scene.spaces[self.space].activate(irq);
                for _ in 0..1 + self.prng.below(BURST) {
                    self.access(irq)?;
                }
            }
        }
        Ok(())
    }

    /// A slot to use: mostly one that somebody changes.
    fn slot(&mut self) -> usize {
        let any = self.below(SLOTS);
        let hot = &self.scene.hot[self.below(HOT)];
        // ORDER: Relaxed: a hint.
        if self.below(4) == 0 { any } else { hot.load(Ordering::Relaxed) }
    }

    /// One load or store, and what it must have come to.
    fn access(&mut self, irq: &mut IrqOff) -> Result {
        let (scene, space, slot) = (self.scene, self.space, self.slot());
        let pages = slot_range(slot);
        // More often the first pages of a large slot, so that the same ones are used again.
        let among = if self.below(2) == 0 { pages.len() } else { pages.len().min(2) };
        let page = pages.start().number() + self.below(among);
        let writes = self.below(2) == 0;
        self.accesses += 1;
        let before = scene.look(space, slot);
        let found = if writes {
            store(irq, page, stamp(space, page, before.version())).map(|()| None)
        } else {
            load(irq, page).map(Some)
        };
        let inherited = scene.inherited(space, slot);
        let stable = scene.look(space, slot) == before && before.phase() != Phase::Changing;
        if let Ok(Some(word)) = found {
            self.judge(page, slot, word, stable.then_some((before, inherited)))?;
        }
        let wanted = match before.phase() {
            Phase::Gone => false,
            Phase::Constant => !writes,
            Phase::Writable | Phase::Changing => true,
        };
        ensure!(
            !stable || found.is_ok() == wanted,
            "{} in space {space}, {before:?}, page {page:#x}: {} succeeds: {}",
            self.core,
            if writes { "a store" } else { "a load" },
            found.is_ok()
        );
        Ok(())
    }

    /// What was read: zero or a stamp of this page, and of this space if the other has no part in it.
    fn judge(&self, page: usize, slot: usize, word: u64, stable: Option<(State, u64)>) -> Result {
        let (core, space) = (self.core, self.space);
        ensure!(
            word != poison(),
            "{core} in space {space}: page {page:#x} shows a frame that was given back"
        );
        if word == 0 {
            return Ok(());
        }
        let (theirs, version) = ((word >> 4 & 1) as usize, word >> 5 & 0x7f_ffff);
        ensure!(
            page_of_stamp(word) == page && word & 0xf == 0,
            "{core} in space {space}: page {page:#x} shows {word:#x}, of page {:#x}",
            page_of_stamp(word)
        );
        if let Some((state, inherited)) = stable {
            let foreign = theirs != space && !shows_object(slot);
            ensure!(
                !foreign || version <= inherited,
                "{core} in space {space}: page {page:#x} shows version {version} of space {theirs}; they were one \
                 up to version {inherited}, {state:?}"
            );
            ensure!(
                theirs != space || shows_object(slot) || version <= state.version(),
                "{core} in space {space}: page {page:#x} shows version {version} in {state:?}"
            );
        }
        Ok(())
    }

    fn change(&mut self, irq: &mut IrqOff, others: usize) -> Result {
        // Now and then change follows upon change.
        self.wait =
            if self.below(4) == 0 { 0 } else { others + LULL * (machine::topology().core_count() - 1) };
        let Some((space, slot)) = self.next else {
            let slot = self.below(SLOTS);
            self.next = Some((self.below(SPACES), slot));
            // ORDER: Relaxed: a hint.
            self.scene.hot[self.core.index() / 2 % HOT].store(slot, Ordering::Relaxed);
            return Ok(());
        };
        if self.below(4) == 0 {
            self.next = None;
        }
        self.changes += 1;
        if slot >= FIRST_PART && self.below(6) == 0 {
            return self.change_block(irq, space);
        }
        let Some(old) = self.scene.claim(space, slot) else { return Ok(()) };
        let phase = match (old.phase(), self.below(4)) {
            (Phase::Gone, _) => self.map(irq, space, slot)?,
            (_, 0) => self.unmap(irq, space, slot)?,
            (_, 1) => {
                self.unmap(irq, space, slot)?;
                self.map(irq, space, slot)?
            }
            (Phase::Writable, 2) => self.protect(irq, space, slot, Protection::Read)?,
            (Phase::Constant, _) => self.protect(irq, space, slot, Protection::ReadWrite)?,
            _ => self.share(irq, (space, slot), old)?,
        };
        self.scene.publish(space, slot, old.next(phase));
        Ok(())
    }

    fn map(
        &self,
        irq: &mut IrqOff,
        space: usize,
        slot: usize,
    ) -> core::result::Result<Phase, crate::tests::Verdict> {
        let own = &self.scene.spaces[space];
        let mapping = if shows_object(slot) {
            let shown = Mapping::new(Backing::Shared(&self.scene.object, slot - NEAR), Protection::ReadWrite);
            if slot.is_multiple_of(2) { shown.now() } else { shown }
        } else {
            Mapping::anonymous()
        };
        self.scene.inherit(space, slot, 0);
        let done = with(irq, own, |cx| own.map(cx, slot_range(slot), &mapping));
        ensure!(done.is_ok(), "{}: mapping slot {slot}: {done:?}", self.core);
        Ok(Phase::Writable)
    }

    fn unmap(
        &self,
        irq: &mut IrqOff,
        space: usize,
        slot: usize,
    ) -> core::result::Result<Phase, crate::tests::Verdict> {
        let own = &self.scene.spaces[space];
        let done = whole(slot_range(slot), |rest| with(irq, own, |cx| own.unmap(cx, rest)));
        ensure!(done.is_ok(), "{}: unmapping slot {slot}: {done:?}", self.core);
        Ok(Phase::Gone)
    }

    fn protect(
        &self,
        irq: &mut IrqOff,
        space: usize,
        slot: usize,
        to: Protection,
    ) -> core::result::Result<Phase, crate::tests::Verdict> {
        let own = &self.scene.spaces[space];
        let done = whole(slot_range(slot), |rest| with(irq, own, |cx| own.protect(cx, rest, to)));
        ensure!(done.is_ok(), "{}: protecting slot {slot}: {done:?}", self.core);
        Ok(if to == Protection::Read { Phase::Constant } else { Phase::Writable })
    }

    /// Shares a claimed slot with the other space, until one of the two writes.
    fn share(
        &self,
        irq: &mut IrqOff,
        (space, slot): (usize, usize),
        old: State,
    ) -> core::result::Result<Phase, crate::tests::Verdict> {
        let other = 1 - space;
        let Some(theirs) = self.scene.claim(other, slot) else { return Ok(old.phase()) };
        if theirs.phase() != Phase::Gone {
            // As it was, with a version more.
            self.scene.publish(other, slot, theirs.next(theirs.phase()));
            return Ok(old.phase());
        }
        let (from, to) = (&self.scene.spaces[space], &self.scene.spaces[other]);
        let done = whole(slot_range(slot), |rest| {
            let mut pending = Pending::new();
            let step = with(irq, from, |cx| from.share(cx, to, &mut pending, rest));
            quarantine::settle(irq, to, &mut pending);
            step
        });
        ensure!(done.is_ok(), "{}: sharing slot {slot}: {done:?}", self.core);
        // Whoever looked at the slot before the claim may still have stored with its version, which is the latest.
        self.scene.inherit(other, slot, old.version());
        self.scene.publish(other, slot, theirs.next(old.phase()));
        Ok(old.phase())
    }

    /// Takes the whole block out, maps it anew and touches all of it: one large page.
    fn change_block(&mut self, irq: &mut IrqOff, space: usize) -> Result {
        let mut claimed = [None; PARTS];
        for (part, place) in claimed.iter_mut().enumerate() {
            *place = self.scene.claim(space, FIRST_PART + part);
        }
        let all = claimed.iter().all(Option::is_some);
        if all {
            let own = &self.scene.spaces[space];
            let block = range(LARGE, BLOCK);
            let done = whole(block, |rest| with(irq, own, |cx| own.unmap(cx, rest)))
                .and_then(|()| with(irq, own, |cx| own.map(cx, block, &Mapping::anonymous())));
            ensure!(done.is_ok(), "{}: a block anew: {done:?}", self.core);
            for page in LARGE..LARGE + BLOCK {
                let fault = with(irq, own, |cx| own.fault(cx, PageId::new(page), Access::Write));
                ensure!(fault == Fault::Resolved, "{}: page {page:#x}: {fault:?}", self.core);
            }
        }
        for (part, old) in claimed.into_iter().enumerate() {
            let Some(old) = old else { continue };
            if all {
                self.scene.inherit(space, FIRST_PART + part, 0);
            }
            let phase = if all { Phase::Writable } else { old.phase() };
            self.scene.publish(space, FIRST_PART + part, old.next(phase));
        }
        Ok(())
    }
}
