//! Places typed tables in memory that the caller has given: the allocator's own data cannot come from an allocator.

use crate::error::FrameError;
use core::mem::MaybeUninit;

/// The part of a caller's memory that is not used yet.
#[derive(Debug)]
pub(crate) struct Carve<'m> {
    rest: &'m mut [u64],
}

impl<'m> Carve<'m> {
    pub(crate) fn new(memory: &'m mut [u64]) -> Self {
        Self { rest: memory }
    }

    /// Room for `count` values.
    pub(crate) fn room<T>(&mut self, count: usize) -> Result<&'m mut [MaybeUninit<T>], FrameError> {
        let rest = core::mem::take(&mut self.rest);
        let skip = rest.as_ptr().cast::<u8>().align_offset(align_of::<T>()).div_ceil(size_of::<u64>());
        let words = (count * size_of::<T>()).div_ceil(size_of::<u64>());
        let after = rest.get_mut(skip..).ok_or(FrameError::SmallMetadata)?;
        let (mine, rest) = after.split_at_mut_checked(words).ok_or(FrameError::SmallMetadata)?;
        self.rest = rest;
        // SAFETY: `mine` is exclusively borrowed for 'm, aligned for T by `skip` (exact, or T needs no more than a u64's alignment), and
        // at least `count` values long; uninitialised values may have any bytes.
        Ok(unsafe { core::slice::from_raw_parts_mut(mine.as_mut_ptr().cast(), count) })
    }

    /// A list of `count` values.
    pub(crate) fn list<T>(
        &mut self,
        count: usize,
        mut init: impl FnMut(usize) -> T,
    ) -> Result<&'m mut [T], FrameError> {
        let room = self.room(count)?;
        for (index, place) in room.iter_mut().enumerate() {
            place.write(init(index));
        }
        // SAFETY: the loop has written every element.
        Ok(unsafe { room.assume_init_mut() })
    }
}
