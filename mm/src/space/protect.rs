//! Changing what may be done with pages.

use super::entry::{Bits, Entry, Level, size, span};
use super::memory::{Memory, Pool};
use super::walk::{Act, Leaves, Stop, Visit};
use super::{Cx, Kind, Progress, Protection, Space, SpaceError};
use crate::virt::{PageId, PageRange, PageSize};
use percpu::sync::atomic::Ordering;

struct Protect {
    bits: Bits,
}

/// Whether cores may go on using what they cache of `old` until they notice by themselves: only if everything that `old` allows, `new` does.
#[inline(always)]
fn narrows(old: Entry, new: Entry) -> bool {
    old.is_present() && (old.is_writable() && !new.is_writable() || old.may_execute() && !new.may_execute())
}

/// Whether protection means something: guards and the like stay what they are.
#[inline(always)]
fn applies(old: Entry) -> bool {
    old.is_present()
        || matches!(old.lazy_kind(), Some(Kind::Anonymous | Kind::Shared | Kind::Copy | Kind::Pager))
}

impl<M: Memory> Space<M> {
    /// Changes the protection of what is mapped in a range; holes, guards and reserved ranges stay. One step: what is left begins at
    /// [`Progress::More`].
    ///
    /// # Errors
    /// [`SpaceError::Shortage`], when a region has to be cut and there is no frame for a table.
    #[inline(always)]
    pub fn protect<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        protection: Protection,
    ) -> Result<Progress<PageId>, SpaceError> {
        let bits = self.format.bits(protection);
        if range.len() == 1 && self.protect_one(cx, range.start(), bits) {
            return Ok(Progress::Done(()));
        }
        self.protect_many(cx, range, bits)
    }

    #[inline(never)]
    fn protect_many<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        bits: Bits,
    ) -> Result<Progress<PageId>, SpaceError> {
        self.prepare(cx, range)?;
        let result = self.walk(cx, range, &mut Protect { bits });
        self.checked(cx, range, result)
    }
}

impl<M: Memory, P: Pool> Visit<M, P> for Protect {
    const CREATES: bool = false;
    // Some 16 instructions.
    const COST: usize = 4;

    fn block(&mut self, cx: &mut Cx<'_, P>, page: PageId, level: Level, old: Entry) -> Result<Act, Stop> {
        if !applies(old) {
            return Ok(Act::Keep);
        }
        let new = old.protect(self.bits);
        if narrows(old, new) {
            cx.pending.invalidate(page, span(level), size(level));
        }
        Ok(Act::Set(new))
    }

    #[inline(always)]
    fn leaves(&mut self, cx: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        let bits = self.bits;
        let mut changed = 0;
        for place in leaves.entries() {
            // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
            let old = Entry::from_raw(place.load(Ordering::Relaxed));
            let new = if old.is_plain() {
                old.protect_plain(bits)
            } else if applies(old) {
                old.protect(bits)
            } else {
                continue;
            };
            // ORDER: Relaxed: as above; nothing is published by it.
            place.store(new.raw(), Ordering::Relaxed);
            changed |= old.raw() ^ new.raw();
        }
        if bits.narrow(changed) {
            cx.pending.invalidate(leaves.page, leaves.len(), PageSize::Small);
        }
        Ok(())
    }
}
