//! The words that change at once, as values: what a slot holds, and the head of a table's free list.

use crate::{LEAF_BITS, ROOT_BITS};
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;

/// Bits of a slot's number, the lowest of a handle.
const INDEX_BITS: u32 = LEAF_BITS + ROOT_BITS;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

const RIGHTS_BITS: u32 = 10;
const RIGHTS_MASK: u64 = (1 << RIGHTS_BITS) - 1;
const KIND_MASK: u64 = 0x3f << RIGHTS_BITS;
const GENERATION_SHIFT: u32 = 32;

const _: () = {
    assert!(Rights::ALL.0 as u64 <= RIGHTS_MASK, "every right has a bit");
    let mut i = 0;
    while i < ObjectKind::ALL.len() {
        assert!((ObjectKind::ALL[i] as u64) << RIGHTS_BITS <= KIND_MASK, "every kind has a number");
        i += 1;
    }
};

/// The word `meta` of a slot.
///
/// | bits | live | otherwise |
/// |---|---|---|
/// | 0..10 | [`Rights`] | 0 |
/// | 10..16 | [`ObjectKind`] | 0 |
/// | 16..32 | 0 (C2) | 0; free for marks |
/// | 32..64 | generation | the last one that was live; 0 at first |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Meta(pub(crate) u64);

impl Meta {
    pub(crate) const fn live(generation: u32, kind: ObjectKind, rights: Rights) -> Self {
        let rights = rights.and(Rights::ALL).0 as u64;
        Self((generation as u64) << GENERATION_SHIFT | (kind as u64) << RIGHTS_BITS | rights)
    }

    /// The word after the capability has gone.
    pub(crate) const fn dead(self) -> Self {
        Self((self.generation() as u64) << GENERATION_SHIFT)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    pub(crate) const fn rights(self) -> Rights {
        Rights((self.0 & RIGHTS_MASK) as u16)
    }

    /// The kind of a live slot.
    pub(crate) const fn kind(self) -> Option<ObjectKind> {
        ObjectKind::decode(((self.0 & KIND_MASK) >> RIGHTS_BITS) as u8)
    }

    /// Whether a live slot has a capability of `kind` with `rights` under `handle`, which names the slot: one comparison. Bits of the
    /// handle's index above those that name a slot meet zeros (C2), so they must be zeros too.
    #[inline(always)]
    pub(crate) const fn matches(self, handle: Handle, kind: ObjectKind, rights: Rights) -> bool {
        let wanted = (kind as u64) << RIGHTS_BITS | rights.0 as u64;
        let looked_at = !(INDEX_MASK | RIGHTS_MASK | KIND_MASK) | KIND_MASK | rights.0 as u64;
        rights.0 as u64 & !RIGHTS_MASK == 0 && self.0 & looked_at == (handle.0 & !INDEX_MASK) | wanted
    }

    /// Whether a live slot has any capability under `handle`, which names the slot.
    #[inline(always)]
    pub(crate) const fn answers(self, handle: Handle) -> bool {
        self.0 & KIND_MASK != 0 && (self.0 ^ handle.0) & !(INDEX_MASK | RIGHTS_MASK | KIND_MASK) == 0
    }

    /// Why it does not match.
    pub(crate) const fn objection(self, handle: Handle, kind: ObjectKind, rights: Rights) -> Error {
        match self.kind() {
            Some(own) if self.answers(handle) => {
                if own as u8 != kind as u8 {
                    Error::WrongType
                } else if !self.rights().has(rights) {
                    Error::MissingRight
                } else {
                    // It was not there yet when it was first looked at, or is another one now.
                    Error::BadHandle
                }
            }
            _ => Error::BadHandle,
        }
    }
}

/// The head of a table's free list, and what has to change with it.
///
/// | bits | |
/// |---|---|
/// | 0..16 | first free slot; 0 for none |
/// | 16..32 | slots that are live or claimed |
/// | 32..63 | counts changes, so that a head that was taken and put back differs (ABA) |
/// | 63 | closed: nothing is claimed any more |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Head(pub(crate) u64);

const FIRST_MASK: u64 = 0xffff;
const ONE_LIVE: u64 = 1 << 16;
const ONE_CHANGE: u64 = 1 << 32;

impl Head {
    pub(crate) const EMPTY: Self = Self(0);
    pub(crate) const CLOSED: u64 = 1 << 63;

    pub(crate) const fn first(self) -> u16 {
        (self.0 & FIRST_MASK) as u16
    }

    pub(crate) const fn live(self) -> u16 {
        (self.0 >> 16) as u16
    }

    const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// One more claimed, the first of the list if there is one; `next` follows it there.
    pub(crate) const fn claim(self, limit: u16, next: u16) -> Option<Self> {
        if self.is_closed() || self.live() >= limit {
            return None;
        }
        let next = if self.first() == 0 { 0 } else { next };
        Some(Self((self.0 & !FIRST_MASK | next as u64) + ONE_LIVE).changed())
    }

    /// One less; its slot becomes the first of the list.
    pub(crate) const fn put(self, slot: u16) -> Self {
        Self((self.0 & !FIRST_MASK | slot as u64) - ONE_LIVE).changed()
    }

    /// One less, whose slot is not to be used again.
    pub(crate) const fn retire(self) -> Self {
        Self(self.0 - ONE_LIVE).changed()
    }

    const fn changed(self) -> Self {
        Self(self.0 & Self::CLOSED | self.0.wrapping_add(ONE_CHANGE) & !Self::CLOSED)
    }
}
