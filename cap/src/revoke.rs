//! Revoking: dooming what was derived of a capability, and taking it out a bounded step at a time.
//!
//! Dooming takes one step, however much is doomed, so nothing escapes by moving, and whatever is derived of something doomed is doomed too.
//! What is doomed can still be used until it is taken out. Anybody may do that: whoever revokes, a timer, and every derivation in the family
//! (`HELP` in `pass`).

use crate::change::Gone;
use crate::memory::{Memory, NodeAt};
use crate::table::Table;
use crate::tree::{Node, Pop};
use abi::cap::Handle;
use abi::error::Error;
use core::ptr::{self, NonNull};

/// Whether there is anything to take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is doomed is to be taken out"]
pub enum Sentence {
    /// Nothing was ever derived of it.
    Nothing,
    /// Perhaps.
    Doomed,
}

/// How far [`purge`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "until it is done, doomed capabilities can be used"]
pub enum Purged {
    /// There is more to do.
    More,
    /// Nothing is doomed.
    Done,
}

/// A node that a timer is attached to, for as long as it has not been disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Attached(*mut Node);

impl<M: Memory> Table<M> {
    /// Dooms what was derived of a capability until now. It is gone when [`purge`] says that nothing is doomed.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn doom(&self, handle: Handle) -> Result<Sentence, Error> {
        let (entry, meta) = self.entry_meta(handle)?;
        if !meta.has_node(handle) {
            return Ok(Sentence::Nothing);
        }
        let slot = self.slot(handle);
        self.memory.family(entry.object).with(&self.memory, |tours| {
            if !slot.still(meta) {
                return Err(Error::BadHandle);
            }
            tours.doom_children(slot.node());
            Ok(Sentence::Doomed)
        })
    }

    /// Attaches a timer to a capability instead of the one before, which is disarmed ([`Memory::disarm`]), as this one is when the capability
    /// goes. `None` attaches none.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::NoMemory`].
    pub fn attach(&self, handle: Handle, timer: Option<NonNull<()>>) -> Result<Attached, Error> {
        let (entry, meta) = self.entry_meta(handle)?;
        let mut spare = ptr::null_mut();
        if !meta.has_node(handle) {
            if timer.is_none() {
                return Ok(Attached(ptr::null_mut()));
            }
            spare = self.memory.take_node().ok_or(Error::NoMemory)?.as_ptr();
        }
        let attached = self.memory.family(entry.object).with(&self.memory, |tours| {
            let node = self.parent(&tours, (handle, meta), &mut spare)?;
            tours.attach(node, timer.map_or(ptr::null_mut(), NonNull::as_ptr));
            Some(Attached(node))
        });
        if !spare.is_null() {
            self.memory.give_node(NodeAt::new(spare));
        }
        attached.ok_or(Error::BadHandle)
    }
}

/// A timer has run out: takes out the capability that it is attached to, and dooms what was derived of that. `armed` says, with the family's
/// lock held, whether it is still attached; if not, nothing happens. From now on it is attached to nothing. The caller has a reference to
/// the object.
pub fn expire<M: Memory>(
    memory: &M,
    object: u64,
    attached: Attached,
    armed: impl FnOnce() -> bool,
    sink: impl FnOnce(Gone),
) -> Option<Purged> {
    let (first, purged) = memory.family(object).with(memory, |tours| {
        if !armed() {
            return None;
        }
        tours.detach(attached.0);
        tours.doom_whole(attached.0);
        // Itself: it comes first.
        let first = tours.pop();
        Some((first, if tours.any_doomed() { Purged::More } else { Purged::Done }))
    })?;
    if let Pop::Taken(taken) = first {
        sink(taken.settle());
    }
    Some(purged)
}

/// Takes out what is doomed of the capabilities for an object, up to `steps` of them; `sink` gets their references. The object was in
/// a live capability a moment ago.
pub fn purge<M: Memory>(memory: &M, object: u64, steps: usize, mut sink: impl FnMut(Gone)) -> Purged {
    let family = memory.family(object);
    for _ in 0..steps {
        match family.with(memory, |tours| tours.pop()) {
            Pop::Empty => return Purged::Done,
            Pop::Lost => {}
            Pop::Taken(taken) => sink(taken.settle()),
        }
    }
    if family.with(memory, |tours| tours.any_doomed()) { Purged::More } else { Purged::Done }
}
