//! A process's capability table (`cap`), in the kernel's memory, with its objects counted.

use core::ptr::NonNull;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use cap::{
    Attached, Capability, Drained, Entry, Family, Gone, Leaf, LeafAt, Memory, Node, NodeAt, Purged, Sentence,
    Table, TableAt,
};
use mm::bank::Purse;
use percpu::epoch::{self, Retired};
use percpu::{Held, IrqOff};

use crate::bank::Objects;
use crate::object::{self, Found, Object, Ref};
use crate::process::Process;
use crate::{dispatch, expiry, slabs};

/// Most capabilities of one process.
const LIMIT: usize = 16_384;

/// Leaves and nodes from the slabs of the core that needs one; each leaf is an object for which the process pays.
#[derive(Debug)]
pub(crate) struct Leaves {
    purse: Option<NonNull<Purse>>,
}

impl Leaves {
    /// For what takes no leaf.
    pub(crate) const NONE: Self = Self { purse: None };

    fn purse(&self) -> Option<&Purse> {
        // SAFETY: the process's, which it has as long as its table.
        self.purse.map(|purse| unsafe { purse.as_ref() })
    }

    fn put(&self) {
        if let Some(purse) = self.purse() {
            purse.put(1, &mut Objects);
        }
    }
}

impl Memory for Leaves {
    fn take(&self) -> Option<NonNull<Leaf>> {
        if let Some(purse) = self.purse() {
            purse.take(1, &mut Objects).ok()?;
        }
        let leaf = IrqOff::with(|irq| slabs::take::<Leaf>(irq));
        if leaf.is_none() {
            self.put();
        }
        leaf
    }

    #[inline(always)]
    fn leaf(&self, at: LeafAt) -> &Leaf {
        // SAFETY: a table's leaf is one that `take` gave, or the constant empty one, and stays until the epoch after `give_back`.
        unsafe { &*at.pointer() }
    }

    fn give_back(&self, leaf: LeafAt) {
        let Some(link) = NonNull::new(leaf.pointer().cast::<Retired>()) else { return };
        self.put();
        IrqOff::with(|irq| {
            // SAFETY: its table has given it back. Those who look handles up in it are the process's own threads, which have ended; or it is
            // one that never came into the table.
            unsafe { retire_leaf(irq, link) };
        });
    }

    fn take_node(&self) -> Option<NonNull<Node>> {
        IrqOff::with(|irq| slabs::take::<Node>(irq))
    }

    #[inline(always)]
    fn node(&self, at: NodeAt) -> &Node {
        // SAFETY: a tour's node is one that `take_node` gave and `give_node` has not taken back; its words are atomic.
        unsafe { &*at.pointer() }
    }

    fn give_node(&self, node: NodeAt) {
        let node = NonNull::new(node.pointer()).expect("C9: a node has an address");
        IrqOff::with(|irq| slabs::give(irq, node));
    }

    #[inline(always)]
    fn table(&self, at: TableAt<Self>) -> &Table<Self> {
        // SAFETY: a table that has not been drained (C8) has not been freed, and lies still.
        unsafe { &*at.pointer() }
    }

    #[inline(always)]
    fn family(&self, object: u64) -> Family<'_> {
        // SAFETY: an object's memory is its own until the core leaves the kernel (N1), and its header is first (N2).
        unsafe { object::address(object).as_ref() }.family()
    }

    fn disarm(&self, timer: NonNull<()>) {
        expiry::disarm(timer);
    }
}

/// # Safety
/// 1. The memory is a leaf that its table has given back.
unsafe fn retire_leaf(irq: &IrqOff, link: NonNull<Retired>) {
    // SAFETY: obligation 1: it is the kernel's own again; a lookup that is still at it sees slots change, and refuses.
    unsafe { link.write(Retired::new()) };
    // SAFETY: unlinked by the table, valid until reclaimed, retired once; cores that run kernel code are awake.
    unsafe { epoch::retire(irq, link, give_leaf) };
    dispatch::note_retired(irq);
}

/// # Safety
/// 1. `link` lies at the start of a leaf that nobody looks at any more.
unsafe fn give_leaf(link: NonNull<Retired>, held: &mut Held<'_, 0>) {
    slabs::give(held, link.cast::<Leaf>());
}

/// Whose table a capability comes into.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// One that runs, or has.
    Runs,
    /// One that is just being made.
    New,
    /// One that may run or not.
    Other(&'a Process),
}

impl Holder<'_> {
    /// Whether it may have a capability (V5).
    #[inline(always)]
    fn may_have(self, entry: &Entry) -> bool {
        entry.kind != ObjectKind::Process || self.may_have_process(entry)
    }

    #[cold]
    #[inline(never)]
    fn may_have_process(self, entry: &Entry) -> bool {
        let holder_runs = match self {
            Self::Runs => true,
            Self::New => false,
            Self::Other(process) => process.has_begun(),
        };
        // SAFETY: the capability was live a moment ago, and is of this kind.
        let process = unsafe { Found::<Process>::from_word(entry.object) };
        holder_runs || process.has_begun() || !process.lives()
    }
}

/// A table of capabilities.
pub(crate) type Slots = Table<Leaves>;

/// The capabilities of a process. The table's root is large, so it lies apart.
#[derive(Debug)]
pub(crate) struct Capabilities {
    table: NonNull<Table<Leaves>>,
}

impl Capabilities {
    /// An empty table. Its first leaf is taken when the purse is there, which stays as long as the table; without one nobody pays.
    pub(crate) fn new(irq: &IrqOff, purse: Option<NonNull<Purse>>) -> Option<Self> {
        let table = slabs::take::<Table<Leaves>>(irq)?;
        // SAFETY: memory for one table, which is ours.
        unsafe { table.write(Table::new(Leaves { purse }, LIMIT)) };
        Some(Self { table })
    }

    /// Where the table lies.
    pub(crate) const fn slots(&self) -> *const Slots {
        self.table.as_ptr()
    }

    #[inline(always)]
    fn table(&self) -> &Table<Leaves> {
        // SAFETY: there from `new` to `free`.
        unsafe { self.table.as_ref() }
    }

    /// The object of a capability that has these rights; usable until the core leaves the kernel.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::WrongType`], [`Error::MissingRight`].
    #[inline(always)]
    pub(crate) fn find<T: Object>(&self, handle: Handle, rights: Rights) -> Result<Found<T>, Error> {
        let found = self.table().lookup(handle, T::KIND, rights)?;
        // SAFETY: the capability was live a moment ago, and is of this kind.
        Ok(unsafe { Found::from_word(found.object) })
    }

    /// As [`find`](Self::find), with a counted reference.
    ///
    /// # Errors
    /// Those of `find`.
    pub(crate) fn get<T: Object>(&self, handle: Handle, rights: Rights) -> Result<Ref<T>, Error> {
        self.find::<T>(handle, rights)?.try_ref().ok_or(Error::BadHandle)
    }

    /// Everything about a capability.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub(crate) fn entry(&self, handle: Handle) -> Result<Entry, Error> {
        self.table().entry(handle)
    }

    /// As [`find`](Self::find), and the capability's badge.
    ///
    /// # Errors
    /// Those of `find`.
    #[inline(always)]
    pub(crate) fn find_badged<T: Object>(
        &self,
        handle: Handle,
        rights: Rights,
    ) -> Result<(Found<T>, u64), Error> {
        let (found, badge) = self.table().lookup_badged(handle, T::KIND, rights)?;
        // SAFETY: as in `find`.
        Ok((unsafe { Found::from_word(found.object) }, badge))
    }

    /// Hands a capability that has `GRANT` on to another table, with its rights and its badge; with `moves`, it moves there.
    ///
    /// # Errors
    /// Those of [`derive`](Self::derive).
    #[inline(always)]
    pub(crate) fn pass(
        &self,
        irq: &IrqOff,
        handle: Handle,
        into: &Self,
        moves: bool,
    ) -> Result<Handle, Error> {
        if moves {
            return self.move_to(handle, into, Holder::Runs);
        }
        // SAFETY: as in `derive`.
        let acquire = |made: &Capability| unsafe { object::try_gain(made.object, made.kind, made.rights) };
        // SAFETY: the reference that was acquired for nothing.
        let give_up = |gone| unsafe { object::drop_word(irq, gone) };
        let take_node = || slabs::take::<Node>(irq);
        match self.table().pass(handle, into.table(), take_node, acquire, give_up) {
            Some(handle) => Ok(handle),
            None => self.pass_after_all(irq, handle, into),
        }
    }

    #[cold]
    #[inline(never)]
    fn pass_after_all(&self, irq: &IrqOff, handle: Handle, into: &Self) -> Result<Handle, Error> {
        let entry = self.entry(handle)?;
        self.derive(irq, handle, (entry.rights, entry.badge), into, Holder::Runs)
    }

    /// Puts a capability for an object in, which takes over the reference.
    ///
    /// # Errors
    /// [`Error::NoSlot`], [`Error::NoMemory`]; the reference is given up.
    pub(crate) fn insert<T: Object>(&self, object: Ref<T>, rights: Rights) -> Result<Handle, Error> {
        let word = object.into_word();
        // SAFETY: the reference that was just given up as a word keeps it.
        unsafe { object::gained(word, T::KIND, rights) };
        let inserted = self.table().insert(Capability { kind: T::KIND, rights, object: word, badge: 0 });
        if inserted.is_err() {
            // SAFETY: the word of a moment ago, whose count the table has not taken.
            IrqOff::with(|irq| unsafe {
                object::drop_word(irq, Gone { kind: T::KIND, rights, object: word });
            });
        }
        inserted
    }

    /// Makes another capability of one that has `GRANT`, here or in the table of another holder, with no more rights.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::MissingRight`], [`Error::NoSlot`], [`Error::NoMemory`]; [`Error::WrongState`] if the holder may not have it.
    pub(crate) fn derive(
        &self,
        irq: &IrqOff,
        from: Handle,
        what: (Rights, u64),
        into: &Self,
        holder: Holder<'_>,
    ) -> Result<Handle, Error> {
        // SAFETY: an object's memory is its own until the core leaves the kernel (N1), and its header is first (N2).
        let acquire = |made: &Capability| unsafe { object::try_gain(made.object, made.kind, made.rights) };
        // SAFETY: the reference that a doomed capability held.
        let sink = |gone| unsafe { object::drop_word(irq, gone) };
        let may = |entry: &Entry| holder.may_have(entry);
        let derived = self.table().derive_if(from, into.table(), what, may, (acquire, sink));
        derived.map_err(|refusal| {
            refusal.settle(|gone| {
                // SAFETY: the reference that was acquired for nothing.
                unsafe { object::drop_word(irq, gone) };
            })
        })
    }

    /// Moves a capability that has `GRANT` to another table, with what was derived of it.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::MissingRight`], [`Error::NoSlot`], [`Error::NoMemory`], and [`Error::WrongState`] if the holder may not have it:
    /// then it stays.
    pub(crate) fn move_to(&self, from: Handle, into: &Self, holder: Holder<'_>) -> Result<Handle, Error> {
        self.table().move_if(from, into.table(), |entry| holder.may_have(entry))
    }

    /// Dooms what was derived of a capability: it is gone when [`purge`](Self::purge) says that nothing is doomed.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub(crate) fn doom(&self, handle: Handle) -> Result<Sentence, Error> {
        self.table().doom(handle)
    }

    /// Takes out up to `steps` doomed capabilities for the object of a capability, and says how many; doomed by whomever.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub(crate) fn purge(&self, irq: &IrqOff, handle: Handle, steps: usize) -> Result<(Purged, usize), Error> {
        let object = self.entry(handle)?.object;
        let mut count = 0;
        let purged = cap::purge(self.table().memory(), object, steps, |gone| {
            count += 1;
            // SAFETY: the reference that the capability held is now ours.
            unsafe { object::drop_word(irq, gone) };
        });
        Ok((purged, count))
    }

    /// Attaches a timer to a capability (`expiry`), or none.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::NoMemory`].
    pub(crate) fn attach(&self, handle: Handle, timer: Option<NonNull<()>>) -> Result<Attached, Error> {
        self.table().attach(handle, timer)
    }

    /// Deletes a capability.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub(crate) fn delete(&self, irq: &IrqOff, handle: Handle) -> Result<(), Error> {
        let gone = self.table().delete(handle)?;
        // SAFETY: the reference that the capability held is now ours.
        unsafe { object::drop_word(irq, gone) };
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table().count()
    }

    /// Closes the table and deletes up to `steps` capabilities.
    pub(crate) fn drain(&self, irq: &IrqOff, steps: usize) -> Drained {
        self.table().drain(steps, |gone| {
            // SAFETY: the reference that the capability held is now ours.
            unsafe { object::drop_word(irq, gone) };
        })
    }

    /// Gives the drained, or never used, table's memory back, once no core looks at it any more.
    pub(crate) fn free(&self, irq: &IrqOff) {
        // The process's own threads alone look at its table, and they have ended; others derive into it only before it starts.
        slabs::give(irq, self.table);
    }
}
