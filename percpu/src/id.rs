//! Core and node ids: dense, small, and never mixed up with counts or hardware ids.

use core::fmt;

/// Cores one machine may have.
pub const MAX_CORES: usize = 1024;

/// NUMA nodes one machine may have.
pub const MAX_NODES: usize = 64;

macro_rules! dense_id {
    ($(#[$doc:meta])* $name:ident, $tag:literal, $max:expr, $invariant:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u16);

        impl $name {
            /// The id with this number.
            ///
            /// # Panics
            /// When the number is out of range.
            #[must_use]
            #[inline]
            pub const fn new(raw: u16) -> Self {
                assert!((raw as usize) < $max, $invariant);
                Self(raw)
            }

            /// The id with this index, if it is in range.
            #[must_use]
            #[inline]
            pub const fn from_index(index: usize) -> Option<Self> {
                if index < $max { Some(Self(index as u16)) } else { None }
            }

            /// The id as an array index.
            #[must_use]
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// The id as it goes over the wire.
            #[must_use]
            #[inline]
            pub const fn raw(self) -> u16 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

dense_id! {
    /// A logical processor; ids are dense from zero. Written `C3`.
    CoreId, "C", MAX_CORES, "P1: a core id is below MAX_CORES"
}

dense_id! {
    /// A NUMA node; ids are dense from zero, whatever the firmware's proximity domains are. Written `N1`.
    NodeId, "N", MAX_NODES, "P2: a node id is below MAX_NODES"
}

#[cfg(target_os = "none")]
impl CoreId {
    /// The id that `arch` has stored in this core's own memory: known to be in range, so not checked again.
    pub(crate) const fn trusted(raw: u16) -> Self {
        Self(raw)
    }
}

const _: () = assert!(MAX_CORES <= 1 << 16 && MAX_NODES <= 1 << 16);
const _: () = assert!(size_of::<CoreId>() == 2 && size_of::<NodeId>() == 2);

#[cfg(test)]
mod tests {
    use super::{CoreId, MAX_CORES, NodeId};
    use std::format;

    #[test]
    fn debug_is_tagged() {
        assert_eq!(format!("{:?} {}", CoreId::new(3), NodeId::new(1)), "C3 N1");
    }

    #[test]
    fn range_is_checked() {
        assert_eq!(CoreId::from_index(MAX_CORES), None);
        assert_eq!(CoreId::from_index(MAX_CORES - 1).map(CoreId::index), Some(MAX_CORES - 1));
    }

    #[test]
    #[should_panic(expected = "P2")]
    fn out_of_range_panics() {
        let _ = NodeId::new(64);
    }
}
