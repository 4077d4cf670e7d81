//! A core and the spaces whose translations it may hold: switching between them and catching up with their changes.

use ::core::cell::Cell;
#[cfg(not(loom))]
use ::core::mem::offset_of;
use ::core::ptr;

use percpu::sync::atomic::{AtomicU64, Ordering, fence};
use percpu::{CoreCell, CoreId, CoreSet, const_fn, race_point, sync};

use super::shootdown::Change;
use super::{Cached, Counters, Mmu, SpaceId, SpaceTlb, Tag};

/// Spaces that a core keeps translations of at a time. A model needs only enough to run out of them.
pub const SLOTS: usize = if cfg!(loom) { 2 } else { 6 };

/// What a core shows of itself to initiators.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `word` | the core | initiators | SeqCst exchange to publish, Release to leave or rest; SeqCst loads | one of its own, with `leaving` |
/// | `leaving` | the core | initiators that free tables | Relaxed, published by `word`; Release at the end | the same |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Active {
    /// The active space's id and, in bit 0, whether the core only idles on it; 0 for none.
    word: AtomicU64,
    /// The space whose tables are loaded although `word` names the next one already, as there; 0 for none (X6).
    leaving: AtomicU64,
}

#[cfg(not(loom))]
impl Active {
    /// Where assembly finds the fields.
    pub const WORD: usize = offset_of!(Self, word);
    /// As `WORD`.
    pub const LEAVING: usize = offset_of!(Self, leaving);
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Active>() == percpu::CACHE_LINE);

const LAZY: u64 = 1;

const fn word_of(id: SpaceId) -> u64 {
    id.0 << 1
}

impl Active {
    const_fn! {
        /// No space.
        #[must_use]
        pub const fn new() -> Self {
            Self { word: AtomicU64::new(0), leaving: AtomicU64::new(0) }
        }
    }

    /// Shows that the core is about to use `id`. Whoever raises the space's generation and does not see this is seen by
    /// [`SpaceTlb::generation`] afterwards.
    #[inline(always)]
    fn publish(&self, id: SpaceId) {
        // ORDER: SeqCst exchange, before the load of the generation in the total order; partner: `concerns`, which the initiator calls after
        // it has raised the generation. Its Release half: whoever sees the core gone to `id` sees `leaving` and what was done before.
        self.word.swap(word_of(id), Ordering::SeqCst);
        sync::total_order();
    }

    /// Whether a core that shows this has to be asked about a change of `id`, whose generation the caller has raised.
    #[inline(always)]
    pub(super) fn concerns(&self, id: SpaceId, change: &Change<'_>) -> bool {
        // ORDER: SeqCst, after the raise in the total order; partner: `publish`. As an acquire load it pairs with the Release of `rest`,
        // `leave` and `publish`: what a core did with the space before that is over.
        let word = self.word.load(Ordering::SeqCst);
        if word == word_of(id) {
            return true;
        }
        if !change.batch.frees_tables() {
            return false;
        }
        // ORDER: Acquire pairs with Release in `left`: the tables are not walked any more.
        word == word_of(id) | LAZY || self.leaving.load(Ordering::Acquire) == word_of(id)
    }

    #[inline(always)]
    fn is_lazy(&self) -> bool {
        // ORDER: Relaxed: only the core itself writes it (X1).
        self.word.load(Ordering::Relaxed) & LAZY != 0
    }

    /// The space that is shown, in whatever way.
    #[inline(always)]
    fn shown(&self) -> SpaceId {
        // ORDER: Relaxed: only the core itself writes it (X1).
        SpaceId(self.word.load(Ordering::Relaxed) >> 1)
    }

    /// Whether the core idles on `id`, whose tables are loaded.
    #[inline(always)]
    fn idles_on(&self, id: SpaceId) -> bool {
        // ORDER: Relaxed: only the core itself writes it (X1).
        self.word.load(Ordering::Relaxed) == word_of(id) | LAZY
    }

    fn rest(&self, id: SpaceId) {
        // ORDER: Release pairs with the load in `concerns`: no access through the space's translations comes after it.
        self.word.store(word_of(id) | LAZY, Ordering::Release);
    }

    #[inline(always)]
    fn leave(&self) {
        // ORDER: Release pairs with the load in `concerns`: the kernel's own tables have been loaded.
        self.word.store(0, Ordering::Release);
    }

    /// Before [`Active::publish`]: the space whose tables stay loaded for a moment longer.
    #[inline(always)]
    fn leaving(&self, id: SpaceId) {
        // ORDER: Relaxed: the exchange in `publish` is after it.
        self.leaving.store(word_of(id), Ordering::Relaxed);
    }

    #[inline(always)]
    fn left(&self) {
        // ORDER: Release pairs with Acquire in `concerns`: other tables have been loaded.
        self.leaving.store(0, Ordering::Release);
    }
}

impl Default for Active {
    fn default() -> Self {
        Self::new()
    }
}

/// A space that the core may hold translations of.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    id: Cell<SpaceId>,
    /// The last generation that the core has caught up with (X3).
    seen: Cell<u64>,
    space: Cell<*const SpaceTlb>,
    /// What [`Mmu::plain_load`] said.
    load: Cell<u64>,
}

/// A slot, by its distance from the first in bytes: so that assembly finds it in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
struct SlotAt(usize);

impl SlotAt {
    /// No slot: behind the last, where one stands that no space ever has.
    const NONE: Self = Self::new(SLOTS);

    const fn new(index: usize) -> Self {
        Self(index * size_of::<Slot>())
    }

    const fn index(self) -> usize {
        self.0 / size_of::<Slot>()
    }
}

/// A generation that no space reaches.
const NEVER: u64 = u64::MAX;

impl Slot {
    const fn free() -> Self {
        Self {
            id: Cell::new(SpaceId::NONE),
            seen: Cell::new(NEVER),
            space: Cell::new(ptr::null()),
            load: Cell::new(0),
        }
    }

    /// Notes the generation; says whether translations may be of an older one.
    #[inline(always)]
    fn catch_up(&self, space: &SpaceTlb) -> Cached {
        let now = space.generation();
        if self.seen.replace(now) == now { Cached::Valid } else { Cached::Stale }
    }
}

/// Which spaces a core may hold translations of; only the core itself uses it.
///
/// A slot is also the number by which the hardware keeps the spaces apart, where it can. Where it cannot, the slots still spare the spaces'
/// sets a change at every switch.
#[derive(Debug)]
#[repr(C)]
pub struct CoreTlb {
    slots: [Slot; SLOTS + 1],
    /// The slot of the loaded space; none for the kernel's own tables.
    current: Cell<SlotAt>,
    /// The slot that was current before this one, the likeliest to be next; none if going back to it takes more than a plain load.
    before: Cell<SlotAt>,
    /// The slot to be given up next.
    victim: Cell<usize>,
    /// Whether the core's requests are on their way.
    pub(super) asking: Cell<bool>,
    /// Cores to be interrupted for them; empty in between. It is large, so that a shootdown has no copy of its own to clear.
    pub(super) kicked: CoreCell<CoreSet>,
}

/// Where assembly finds what [`CoreTlb::go_back`] uses, which it may do in its place, with the same steps in the same order.
#[cfg(not(loom))]
impl CoreTlb {
    /// The slot that is loaded, as a distance from [`CoreTlb::SLOT`].
    pub const CURRENT: usize = offset_of!(Self, current);
    /// The slot to go back to, likewise.
    pub const BEFORE: usize = offset_of!(Self, before);
    /// The first slot.
    pub const SLOT: usize = offset_of!(Self, slots);
    /// In a slot: the space, by the address of its [`SpaceTlb`].
    pub const SLOT_SPACE: usize = offset_of!(Slot, space);
    /// In a slot: the generation that was seen last.
    pub const SLOT_SEEN: usize = offset_of!(Slot, seen);
    /// In a slot: what to load.
    pub const SLOT_LOAD: usize = offset_of!(Slot, load);
}

impl CoreTlb {
    /// A core with the kernel's own tables loaded.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: [const { Slot::free() }; SLOTS + 1],
            current: Cell::new(SlotAt::NONE),
            before: Cell::new(SlotAt::NONE),
            victim: Cell::new(0),
            asking: Cell::new(false),
            kicked: CoreCell::new(CoreSet::EMPTY),
        }
    }

    #[inline(always)]
    fn current(&self) -> Option<&Slot> {
        let index = self.current.get().index();
        self.slots.get(index).filter(|_| index < SLOTS)
    }

    #[inline(always)]
    fn find(&self, id: SpaceId) -> Option<usize> {
        self.slots.iter().take(SLOTS).position(|slot| slot.id.get() == id)
    }

    /// Makes the space active that was so before the current one, if `space` is that one and has not changed since: what two spaces that
    /// call each other do. Says whether it did. For [`Core::activate`], whose steps these are, without what they need not.
    ///
    /// # Safety
    /// Those of [`Core::activate`].
    #[inline(always)]
    pub unsafe fn go_back<M: Mmu>(&self, active: &Active, mmu: &M, space: &SpaceTlb) -> bool {
        let (at, current) = (self.before.get(), self.current.get());
        let Some(slot) = self.slots.get(at.index()) else { return false };
        if slot.id.get() != space.id || at == current {
            return false;
        }
        active.leaving(active.shown());
        race_point!("tlb.leaving");
        active.publish(space.id);
        race_point!("tlb.published");
        let (seen, now) = (slot.seen.get(), space.generation());
        race_point!("tlb.compared");
        if seen != now {
            // The caller begins anew: what is shown already is what it will show.
            return false;
        }
        // SAFETY: obligations 1 and 2: while it is loaded it has not been forgotten.
        unsafe { mmu.load_plainly(slot.load.get()) };
        self.before.set(current);
        self.current.set(at);
        active.left();
        true
    }

    /// Ends a rest on `space`, if the core rests and that has not changed since: what a core does that is woken for a thread of the process that
    /// ran there last. Says whether it did. For [`Core::activate`], as [`CoreTlb::go_back`].
    #[inline(always)]
    pub fn come_back(&self, active: &Active, space: &SpaceTlb) -> bool {
        if !active.idles_on(space.id) {
            return false;
        }
        let Some(slot) = self.current() else { return false };
        active.publish(space.id);
        race_point!("tlb.resumed");
        if slot.seen.get() == space.generation() {
            return true;
        }
        // The caller begins anew, from a rest.
        active.rest(space.id);
        false
    }

    /// The slot to use for another space: the current one stays.
    fn next_victim(&self) -> usize {
        let free = self.find(SpaceId::NONE);
        free.unwrap_or_else(|| {
            let turn = self.victim.get();
            let turn = if turn == self.current.get().index() { (turn + 1) % SLOTS } else { turn };
            self.victim.set((turn + 1) % SLOTS);
            turn
        })
    }
}

impl Default for CoreTlb {
    fn default() -> Self {
        Self::new()
    }
}

/// All that a core needs to change which space it uses; made by the core itself.
#[derive(Debug)]
pub struct Core<'a, M> {
    /// Which core it is.
    pub id: CoreId,
    /// Its spaces.
    pub tlb: &'a CoreTlb,
    /// What it shows of itself.
    pub active: &'a Active,
    /// What it has done.
    pub counters: &'a Counters,
    /// Its address translation.
    pub mmu: &'a M,
}

impl<M: Mmu> Core<'_, M> {
    /// Makes a space the active one: its user half can be used until the next switch.
    ///
    /// # Safety
    /// 1. The space stays where it is until every core of its set has forgotten it (X5).
    /// 2. Its root maps the kernel as the kernel's own tables do, for as long.
    /// 3. The calling core is [`Core::id`], and stays in here until it is through.
    #[inline(always)]
    pub unsafe fn activate(&self, space: &SpaceTlb) {
        // SAFETY: the caller's obligations.
        let went = unsafe { self.tlb.go_back(self.active, self.mmu, space) };
        if !went && !self.tlb.come_back(self.active, space) {
            // SAFETY: the caller's obligations.
            unsafe { self.activate_slowly(space) };
        }
    }

    /// [`Core::activate`] of a space that is not the one before.
    ///
    /// # Safety
    /// Those of [`Core::activate`].
    #[inline(never)]
    unsafe fn activate_slowly(&self, space: &SpaceTlb) {
        let id = space.id;
        let left = self.tlb.current().map_or(SpaceId::NONE, |slot| slot.id.get());
        if left == id {
            return self.resume();
        }
        let index = self.tlb.find(id).unwrap_or_else(|| self.take_slot(space));
        let Some(slot) = self.tlb.slots.get(index) else { return };
        self.active.leaving(left);
        race_point!("tlb.leaving");
        self.active.publish(id);
        race_point!("tlb.published");
        let fresh = slot.seen.get() == NEVER;
        let cached = slot.catch_up(space);
        race_point!("tlb.compared");
        // SAFETY: obligations 1 and 2: while it is loaded it has not been forgotten.
        unsafe { self.mmu.load(space.root, Tag::of_slot(index), cached) };
        let left = self.tlb.current.replace(SlotAt::new(index));
        let plain = slot.load.get() != 0;
        self.tlb.before.set(if plain { left } else { SlotAt::NONE });
        self.active.left();
        if cached == Cached::Stale && !fresh {
            self.counters.flushes.add(1);
        }
    }

    /// Gives a slot to a space that has none, and puts the core into its set.
    #[cold]
    #[inline(never)]
    fn take_slot(&self, space: &SpaceTlb) -> usize {
        let index = self.tlb.next_victim();
        if let Some(slot) = self.tlb.slots.get(index) {
            self.give_up(slot);
            slot.id.set(space.id);
            slot.space.set(ptr::from_ref(space));
            slot.load.set(self.mmu.plain_load(space.root, Tag::of_slot(index)));
            space.enter(self.id);
            // ORDER: SeqCst; partner: the walk of the set in `shootdown`, after the generation was raised: it finds the core, or the load
            // of the generation that follows here finds the raise.
            fence(Ordering::SeqCst);
        }
        index
    }

    /// Takes the core out of the set of a slot's space and frees the slot. The space is not loaded.
    fn give_up(&self, slot: &Slot) {
        // Whoever has the slot next finds nothing seen, and flushes (X2).
        slot.seen.set(NEVER);
        slot.id.set(SpaceId::NONE);
        let space = slot.space.replace(ptr::null());
        // SAFETY: X5: this core is still in the space's set; taking it out is the last that it does with the space.
        if let Some(space) = unsafe { space.as_ref() } {
            space.cores.remove(self.id);
        }
    }

    /// The core goes idle: until it resumes, it uses no translation of the user half, and changes need not disturb it.
    #[inline]
    pub fn rest(&self) {
        if let Some(slot) = self.tlb.current() {
            self.active.rest(slot.id.get());
        }
    }

    /// Ends a rest: catches up with what has changed meanwhile. [`Core::activate`] does it for the space that is loaded.
    #[inline]
    pub fn resume(&self) {
        // A core that does not rest is asked about every change, so there is nothing to catch up with.
        if self.active.is_lazy()
            && let Some(slot) = self.tlb.current()
        {
            self.active.publish(slot.id.get());
            race_point!("tlb.resumed");
            // SAFETY: X5: the core is in the space's set as long as the slot is its.
            let space = unsafe { &*slot.space.get() };
            if slot.catch_up(space) == Cached::Stale {
                self.mmu.flush();
                self.counters.flushes.add(1);
            }
        }
    }

    /// Loads the kernel's own tables; translations of the space stay for its next activation, where the hardware can keep them.
    #[inline]
    pub fn deactivate(&self) {
        self.mmu.load_kernel();
        self.tlb.current.set(SlotAt::NONE);
        self.active.leave();
    }

    /// Drops all that this core has of a space that nobody activates any more. When every core of its set has done so, the space and its
    /// tables can go.
    pub fn forget(&self, space: &SpaceTlb) {
        if self.is_current(space.id) {
            self.deactivate();
        }
        if let Some(slot) = self.tlb.slots.iter().find(|slot| slot.id.get() == space.id) {
            self.give_up(slot);
        }
    }

    /// Whether the space's tables are loaded on this core.
    #[must_use]
    pub fn is_current(&self, id: SpaceId) -> bool {
        self.tlb.current().is_some_and(|slot| slot.id.get() == id)
    }

    /// Drops what a change has taken back, if the space is loaded here; if not, the next activation compares generations.
    #[inline(always)]
    pub(super) fn apply(&self, change: &Change<'_>) {
        let Some(slot) = self.tlb.current() else { return };
        let (seen, generation) = (slot.seen.get(), change.generation);
        // Seen already: by a flush that came later than the change, or by a switch.
        if slot.id.get() != change.space.id || seen >= generation {
            return;
        }
        // The list is enough only if nothing else is missing. Someone else's change may be, whose request comes later.
        if seen + 1 == generation && !change.batch.is_whole() {
            match change.batch.single() {
                Some(page) => self.mmu.invalidate(page),
                None => change.batch.each_page(|page| self.mmu.invalidate(page)),
            }
            self.counters.pages.add(change.batch.pages());
            slot.seen.set(generation);
        } else {
            slot.catch_up(change.space);
            self.mmu.flush();
            self.counters.flushes.add(1);
        }
    }

    /// Answers another core's request.
    #[inline(always)]
    pub(super) fn answer(&self, change: &Change<'_>) {
        if change.batch.frees_tables() && self.active.is_lazy() && self.is_current(change.space.id) {
            // It needs nothing of the space, so that nobody has to ask again.
            self.deactivate();
        } else {
            self.apply(change);
        }
        self.counters.served.add(1);
    }
}
