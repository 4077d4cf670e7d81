//! The state of a chunk, packed into 16 bits: three bits of tag, thirteen of payload.
//!
//! | from | to | who |
//! |---|---|---|
//! | `Unsplit` (its bit taken from the whole index) | `Reserved` | the core that took the bit |
//! | `Pooled` | `Reserved` | any core, by compare-exchange |
//! | `Reserved` | `Pooled`, `Unsplit` | the reserving core |
//! | `Pooled` | `Pooled` of a higher level | any core that frees a block, by compare-exchange |
//! | `Unsplit` (its bits taken from the whole index) | `Huge` | the core that took the bits |
//! | `Huge` | `Unsplit`, `Held` | the core that frees the block |
//! | `Held` | `Huge`, `Unsplit` | the core whose magazine holds the chunk |
//! | `Huge` of one chunk | `Held`, then `Pooled` of level 0 | the owner of the block, who splits it, by compare-exchange |
//! | `Reserved` | `Huge` of one chunk | the reserving core, whose caller owns every frame and merges them |

use super::bits::Level;
use crate::id::Order;
use percpu::CoreId;

const PAYLOAD_BITS: u32 = 13;
const PAYLOAD: u16 = (1 << PAYLOAD_BITS) - 1;

/// What a chunk is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// No frame of it is managed.
    Absent,
    /// Not split into smaller blocks: wholly free (its bit in the whole index is set) or a later part of a huge block.
    Unsplit,
    /// The head of an allocated block of a chunk or more.
    Huge(Order),
    /// A free chunk in a core's magazine, or a block that is being split.
    Held,
    /// Split; only this core allocates from it.
    Reserved(CoreId),
    /// Split; whoever wins the compare-exchange may reserve it.
    Pooled(Level),
}

impl State {
    /// The packed form.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u16 {
        let (tag, payload) = match self {
            Self::Absent => (0, 0),
            Self::Unsplit => (1, 0),
            Self::Huge(order) => (2, order.raw() as u16),
            Self::Held => (3, 0),
            Self::Reserved(core) => (4, core.raw()),
            Self::Pooled(level) => (5, level.raw() as u16),
        };
        tag << PAYLOAD_BITS | payload
    }

    /// The state with this packed form; forms come from [`State::pack`], anything else reads as `Absent`.
    #[inline(always)]
    pub(crate) const fn unpack(raw: u16) -> Self {
        let payload = raw & PAYLOAD;
        match raw >> PAYLOAD_BITS {
            1 => Self::Unsplit,
            2 => match Order::new(payload as u8) {
                Some(order) => Self::Huge(order),
                None => Self::Absent,
            },
            3 => Self::Held,
            4 => match CoreId::from_index(payload as usize) {
                Some(core) => Self::Reserved(core),
                None => Self::Absent,
            },
            5 => Self::Pooled(Level::from_raw(payload as u8)),
            _ => Self::Absent,
        }
    }

    /// Whether the chunk's bitmap words mean anything.
    #[inline(always)]
    pub(crate) const fn is_split(self) -> bool {
        matches!(self, Self::Reserved(_) | Self::Pooled(_))
    }
}

const _: () = assert!(percpu::MAX_CORES <= 1 << PAYLOAD_BITS);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Level, State};
    use crate::id::Order;
    use percpu::{CoreId, MAX_CORES};

    #[test]
    fn every_state_survives_packing() {
        let cores = (0..MAX_CORES).filter_map(CoreId::from_index).map(State::Reserved);
        let orders = (0..=Order::MAX.raw()).filter_map(Order::new).map(State::Huge);
        let levels = (0..=Level::TOP.raw()).map(Level::from_raw).map(State::Pooled);
        let plain = [State::Absent, State::Unsplit, State::Held];
        for state in cores.chain(orders).chain(levels).chain(plain) {
            assert_eq!(State::unpack(state.pack()), state);
        }
    }
}
