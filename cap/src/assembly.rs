//! What assembly has to know to look a handle up as [`Table::lookup`](crate::Table::lookup) does, with the same steps in the same order.
//!
//! The root's entry lies at `handle >> LEAF_SHIFT & LEAF_MASK` in the table, the slot at `handle & SLOT_MASK` in the leaf that it names, its
//! words at `META`, `OBJECT` and `BADGE` in the slot. `META` is looked at before and after the others (C4); it fits if, combined with the handle
//! by exclusive or, it has zeros in [`zeros`].

use abi::cap::{ObjectKind, Rights};

use crate::slot::Slot;
use crate::word::{Meta, PLACE_SHIFT};
use crate::{LEAF_BITS, ROOT_BITS};

/// Bits of a word's address in an array.
const WORD_BITS: u32 = size_of::<u64>().trailing_zeros();

/// See the module.
pub const LEAF_SHIFT: u32 = PLACE_SHIFT + LEAF_BITS - WORD_BITS;
/// See the module.
pub const LEAF_MASK: u32 = ((1 << ROOT_BITS) - 1) << WORD_BITS;
/// See the module.
pub const SLOT_MASK: u32 = ((1 << LEAF_BITS) - 1) << PLACE_SHIFT;
/// See the module.
pub const META: usize = Slot::META;
/// See the module.
pub const OBJECT: usize = Slot::OBJECT;
/// See the module.
pub const BADGE: usize = Slot::BADGE;

/// See the module: as the operand of an instruction that extends the sign of 32 bits.
///
/// # Panics
/// If the bits do not fit, when it is evaluated: at compile time.
#[must_use]
pub const fn zeros(kind: ObjectKind, rights: Rights) -> i32 {
    let zeros = Meta::zeros(kind, rights) as i64;
    assert!(zeros == zeros as i32 as i64, "C2: all bits above the rights are compared");
    zeros as i32
}

const _: () = assert!(size_of::<Slot>() == 1 << PLACE_SHIFT, "a handle's low half is a distance in bytes");
