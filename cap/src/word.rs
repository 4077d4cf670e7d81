//! The words that change at once, as values: what a slot holds, and the head of a table's free list.

use crate::{LEAF_BITS, LEAF_SLOTS, ROOT_BITS, ROOT_ENTRIES};
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;

/// Lowest bit of a slot's number in a handle: the low half of a handle is the slot's distance from slot 0 in bytes, which saves lookups a
/// shift.
pub(crate) const PLACE_SHIFT: u32 = 5;

/// The number of a slot in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct SlotId(pub(crate) u16);

const _: () = assert!(LEAF_BITS + ROOT_BITS <= u16::BITS, "a slot's number fits");

impl SlotId {
    /// No slot: the end of the free list. Slot 0 is never used.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn new(number: usize) -> Self {
        Self(number as u16)
    }

    /// The slot that a handle names with those of its bits that can.
    #[inline(always)]
    pub(crate) const fn of(handle: Handle) -> Self {
        Self((handle.index() >> PLACE_SHIFT) as u16)
    }

    pub(crate) const fn handle(self, generation: u32) -> Handle {
        Handle::new((self.0 as u32) << PLACE_SHIFT, generation)
    }

    #[inline(always)]
    pub(crate) const fn leaf(self) -> usize {
        (self.0 as usize >> LEAF_BITS) % ROOT_ENTRIES
    }

    #[inline(always)]
    pub(crate) const fn in_leaf(self) -> usize {
        self.0 as usize % LEAF_SLOTS
    }
}

/// Bits of a kind's code, and how many of them are 0.
const KIND_BITS: u32 = 7;
const KIND_ZEROS: u32 = 3;
const KIND_SHIFT: u32 = PLACE_SHIFT;
/// The code of no kind.
const NO_KIND: u64 = ((1 << KIND_BITS) - 1) << KIND_SHIFT;

const RIGHTS_SHIFT: u32 = KIND_SHIFT + KIND_BITS;
const RIGHTS_BITS: u32 = 9;
const RIGHTS: u64 = ((1 << RIGHTS_BITS) - 1) << RIGHTS_SHIFT;
/// Beside the rights, so that lookups pass over it.
const NO_NODE: u64 = 1 << (RIGHTS_SHIFT + RIGHTS_BITS - 1);

const _: () = {
    // So that what a slot in one leaf says of its kind is right in any other, too: there is one empty leaf for all places.
    assert!(LEAF_BITS <= KIND_BITS);
    assert!((Rights::ALL.0 as u64) << RIGHTS_SHIFT <= RIGHTS ^ NO_NODE, "every right has a bit");
    assert!(
        (KIND_SHIFT + KIND_BITS + RIGHTS_BITS) - PLACE_SHIFT == u16::BITS,
        "all that a slot's number covers"
    );
};

/// Codes by number of the kind, and numbers by code; 0 where there is none. All codes have as many zeros, so none has zeros wherever
/// another has them, and looking at one's zeros tells it from all others and from [`NO_KIND`].
const CODES: ([u8; 36], [u8; 1 << KIND_BITS]) = {
    let (mut codes, mut numbers) = ([0; 36], [0; 1 << KIND_BITS]);
    let (mut code, mut number) = (0_u8, 1);
    while code < 1 << KIND_BITS {
        if code.count_ones() == KIND_BITS - KIND_ZEROS {
            codes[number] = code;
            numbers[code as usize] = number as u8;
            number += 1;
        }
        code += 1;
    }
    assert!(number == codes.len());
    (codes, numbers)
};

const _: () = assert!(ObjectKind::ALL.len() < CODES.0.len(), "every kind has a code");

const fn code(kind: ObjectKind) -> u64 {
    (CODES.0[kind as usize] as u64) << KIND_SHIFT
}

/// What a slot says of its capability. In memory it is combined with the slot's own handle of generation 0 by exclusive or, so that
/// combining it with the handle that a program gives leaves zeros in all that has to agree, and the slot's own bits take no room.
///
/// | bits | live | otherwise |
/// |---|---|---|
/// | 0..5 | 0 | 0 |
/// | 5..12 | code of the [`ObjectKind`] | all 1 (C2) |
/// | 12..20 | [`Rights`], 0 for each that it has | of no meaning |
/// | 20 | 0 if it has a node (C7) | of no meaning |
/// | 21..32 | 0 (C2) | 0; room for marks |
/// | 32..64 | generation | the last one that was live; 0 at first |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Meta(pub(crate) u64);

impl Meta {
    pub(crate) const fn live(slot: SlotId, generation: u32, kind: ObjectKind, rights: Rights) -> Self {
        let lacking = !((rights.and(Rights::ALL).0 as u64) << RIGHTS_SHIFT) & RIGHTS;
        Self(slot.handle(generation).0 ^ (code(kind) | lacking))
    }

    /// The same with a node.
    pub(crate) const fn with_node(self, slot: SlotId) -> Self {
        Self(self.0 & !NO_NODE | slot.handle(0).0 & NO_NODE)
    }

    /// What a slot says of a copy under another handle, with a node, of a capability that has one under the handle `from`.
    pub(crate) const fn copied(self, from: Handle, to: Handle) -> Self {
        Self(self.0 ^ from.0 ^ to.0)
    }

    /// Whether the capability has a node, if one is live under this handle, which names the slot.
    pub(crate) const fn has_node(self, handle: Handle) -> bool {
        (self.0 ^ handle.0) & NO_NODE == 0
    }

    /// Whether both are of one capability, with a node or without.
    pub(crate) const fn is_same(self, other: Self) -> bool {
        (self.0 ^ other.0) & !NO_NODE == 0
    }

    /// A slot without a capability.
    pub(crate) const fn dead(slot: SlotId, generation: u32) -> Self {
        Self(slot.handle(generation).0 ^ NO_KIND)
    }

    /// The handle that a [dead](Self::dead) slot has next. C3: its last generation was not the largest.
    #[inline(always)]
    pub(crate) const fn next_handle(self) -> Handle {
        Handle((self.0 ^ NO_KIND) + (1 << u32::BITS))
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    /// The rights of a slot that answers to the handle.
    #[inline(always)]
    pub(crate) const fn rights(self, handle: Handle) -> Rights {
        Rights(((!(self.0 ^ handle.0) & RIGHTS) >> RIGHTS_SHIFT) as u16).and(Rights::ALL)
    }

    /// The kind, if a capability is live under this handle, which names the slot.
    pub(crate) const fn kind(self, handle: Handle) -> Option<ObjectKind> {
        let differing = self.0 ^ handle.0;
        if differing & !(NO_KIND | RIGHTS) != 0 {
            return None;
        }
        ObjectKind::decode(CODES.1[(differing >> KIND_SHIFT) as usize % CODES.1.len()])
    }

    /// The bits that have to be zeros when a handle and the word of its slot are combined.
    #[inline(always)]
    pub(crate) const fn zeros(kind: ObjectKind, rights: Rights) -> u64 {
        !(NO_KIND | RIGHTS) | (code(kind) ^ NO_KIND) | ((rights.0 as u64) << RIGHTS_SHIFT)
    }

    /// Whether a capability of `kind` with `rights` is live under this handle, which names the slot: two operations if both are constants.
    #[inline(always)]
    pub(crate) const fn matches(self, handle: Handle, kind: ObjectKind, rights: Rights) -> bool {
        let zeros = Self::zeros(kind, rights);
        // Nothing has a right that does not exist.
        Rights::ALL.has(rights) && (self.0 ^ handle.0) & zeros == 0
    }

    /// Why it does not match.
    pub(crate) const fn objection(self, handle: Handle, kind: ObjectKind, rights: Rights) -> Error {
        match self.kind(handle) {
            Some(own) if own as u8 != kind as u8 => Error::WrongType,
            Some(_) if !self.rights(handle).has(rights) => Error::MissingRight,
            // If it matches, it was not there yet when it was first looked at.
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

const FIRST: u64 = 0xffff;
const ONE_LIVE: u64 = 1 << 16;
const ONE_CHANGE: u64 = 1 << 32;

impl Head {
    pub(crate) const EMPTY: Self = Self(0);
    pub(crate) const CLOSED: u64 = 1 << 63;

    pub(crate) const fn first(self) -> SlotId {
        SlotId((self.0 & FIRST) as u16)
    }

    pub(crate) const fn live(self) -> u16 {
        (self.0 >> 16) as u16
    }

    const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// One more claimed, the first of the list if there is one; `next` follows it there, or is none.
    pub(crate) const fn claim(self, limit: u16, next: SlotId) -> Option<Self> {
        if self.is_closed() || self.live() >= limit {
            return None;
        }
        // As `changed`, of one that is not closed.
        Some(Self(((self.0 & !FIRST | next.0 as u64) + (ONE_LIVE + ONE_CHANGE)) & !Self::CLOSED))
    }

    /// One less; its slot becomes the first of the list.
    pub(crate) const fn put(self, slot: SlotId) -> Self {
        Self((self.0 & !FIRST | slot.0 as u64) - ONE_LIVE).changed()
    }

    /// One less, whose slot is not to be used again.
    pub(crate) const fn retire(self) -> Self {
        Self(self.0 - ONE_LIVE).changed()
    }

    const fn changed(self) -> Self {
        Self(self.0 & Self::CLOSED | self.0.wrapping_add(ONE_CHANGE) & !Self::CLOSED)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CODES, Head, Meta, ONE_CHANGE, SlotId};
    use abi::cap::{ObjectKind, Rights};
    use abi::error::Error;

    const SLOTS: [SlotId; 6] =
        [SlotId(1), SlotId(0x7f), SlotId(0x80), SlotId(0x5555), SlotId(0xaaaa), SlotId(u16::MAX)];

    #[test]
    fn a_slot_and_its_handle_name_each_other() {
        for number in 0..=u16::MAX {
            let id = SlotId(number);
            assert_eq!(SlotId::of(id.handle(7)), id);
            assert_eq!(id.leaf() * 128 + id.in_leaf(), usize::from(number));
        }
    }

    #[test]
    fn no_code_covers_another() {
        let codes = &CODES.0[1..];
        for (i, &code) in codes.iter().enumerate() {
            assert_eq!(usize::from(CODES.1[usize::from(code)]), i + 1);
            // Zeros of one that are zeros of the other too.
            let covered = codes.iter().filter(|&&other| !code & !other & 0x7f == !code & 0x7f);
            assert_eq!(covered.count(), 1);
        }
    }

    fn kinds_and_rights() -> impl Iterator<Item = (ObjectKind, Rights)> {
        let sets = || (0..=Rights::ALL.0).map(Rights);
        ObjectKind::ALL.iter().flat_map(move |&kind| sets().map(move |rights| (kind, rights)))
    }

    /// Every kind and set of rights against every other.
    #[test]
    fn only_what_fits_matches() {
        for slot in SLOTS {
            let handle = slot.handle(3);
            for (kind, rights) in kinds_and_rights() {
                let meta = Meta::live(slot, 3, kind, rights);
                assert_eq!(
                    (meta.generation(), meta.kind(handle), meta.rights(handle)),
                    (3, Some(kind), rights)
                );
                let fits = |asked, wanted| asked == kind && rights.has(wanted);
                assert!(kinds_and_rights().all(|(k, r)| meta.matches(handle, k, r) == fits(k, r)));
                let tied = meta.with_node(slot);
                assert_eq!(
                    tied.copied(handle, SlotId(5).handle(8)),
                    Meta::live(SlotId(5), 8, kind, rights).with_node(SlotId(5))
                );
                assert!(tied.has_node(handle) && !meta.has_node(handle) && tied.is_same(meta));
                assert_eq!(
                    (tied.with_node(slot), tied.kind(handle), tied.rights(handle)),
                    (tied, Some(kind), rights)
                );
                assert!(kinds_and_rights().all(|(k, r)| tied.matches(handle, k, r) == fits(k, r)));
            }
        }
    }

    #[test]
    fn objections_name_the_first_flaw() {
        let slot = SlotId(9);
        let meta = Meta::live(slot, 3, ObjectKind::Region, Rights::MAP);
        let says = |generation, kind, rights| meta.objection(slot.handle(generation), kind, rights);
        assert_eq!(says(4, ObjectKind::Core, Rights::WRITE), Error::BadHandle);
        assert_eq!(says(3, ObjectKind::Core, Rights::WRITE), Error::WrongType);
        assert_eq!(says(3, ObjectKind::Region, Rights::WRITE), Error::MissingRight);
        assert_eq!(says(3, ObjectKind::Region, Rights::MAP), Error::BadHandle);
    }

    #[test]
    fn the_dead_match_nothing() {
        for slot in SLOTS {
            for generation in [0, 1, u32::MAX] {
                let (meta, handle) = (Meta::dead(slot, generation), slot.handle(generation));
                assert_eq!((meta.generation(), meta.kind(handle)), (generation, None));
                assert!(generation == u32::MAX || meta.next_handle() == slot.handle(generation + 1));
                assert!(!ObjectKind::ALL.iter().any(|&kind| meta.matches(handle, kind, Rights::NONE)));
            }
        }
    }

    #[test]
    fn heads_count_and_change() {
        let one = Head::EMPTY.claim(2, SlotId::NONE).unwrap();
        assert_eq!((one.first(), one.live()), (SlotId::NONE, 1));
        let two = one.claim(2, SlotId(u16::MAX)).unwrap();
        assert_eq!((two.first(), two.live()), (SlotId(u16::MAX), 2));
        assert_eq!(two.claim(2, SlotId::NONE), None);
        let put = two.put(SlotId(5));
        assert_eq!((put.first(), put.live()), (SlotId(5), 1));
        assert_eq!((put.retire().first(), put.retire().live()), (SlotId(5), 0));
        assert_ne!(put.claim(2, SlotId::NONE).unwrap().put(SlotId(5)), put);
        let closed = Head(put.0 | Head::CLOSED);
        assert_eq!(closed.claim(2, SlotId::NONE), None);
        assert_eq!(closed.retire().0 & Head::CLOSED, Head::CLOSED);
    }

    #[test]
    fn the_count_of_changes_wraps_below_the_mark() {
        let last = Head((Head::CLOSED - ONE_CHANGE) | 3 << 16 | 4);
        assert_eq!(last.retire().0, 2 << 16 | 4);
        assert_eq!(Head(last.0 | Head::CLOSED).retire().0, Head::CLOSED | 2 << 16 | 4);
    }
}
