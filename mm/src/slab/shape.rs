//! How objects of one size lie in a slab: a header, a table of links where objects keep their state, the objects.

use super::header::{self, Link, MOST};
use super::magazine;
use crate::id::{FRAME_BYTES, Order};

/// Where an object that was freed on another core carries the link that takes it home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Links {
    /// In its own first bytes: nobody has a use for what is in a free object.
    Inside,
    /// In a table of the slab: a free object keeps its constructed state.
    Beside,
}

/// Objects at least in a slab, while that is possible.
const FEW: usize = 8;
/// The part of a slab that may be header and rest, as a divisor, while a larger slab wastes less.
const WASTE: usize = 8;
/// Largest order of a slab: 128 KiB.
const MAX_ORDER: usize = 5;
/// Bytes of the largest object.
pub const MAX_BYTES: usize = 1 << 15;
/// Bits after the point of [`Shape::reciprocal`].
const POINT: u32 = 32;

// An offset below 2^17 times an error below 2^15 stays below 2^32, so that the division by multiplication is exact.
const _: () = assert!((FRAME_BYTES << MAX_ORDER) * MAX_BYTES <= 1 << POINT);

/// The layout of the slabs of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// From one object to the next.
    pub(crate) size: usize,
    /// Offset of the first object.
    pub(crate) first: usize,
    /// Objects of a slab.
    pub(crate) capacity: usize,
    /// Frames of a slab.
    pub(crate) order: Order,
    /// Where links are.
    pub(crate) links: Links,
    /// 2^32 / `size`, rounded up.
    reciprocal: usize,
}

impl Shape {
    /// The shape for objects of this size and alignment.
    ///
    /// # Panics
    /// When the object has no bytes, or is larger or more aligned than a slab can serve.
    #[must_use]
    pub(crate) const fn new(bytes: usize, align: usize, links: Links) -> Self {
        assert!(bytes > 0 && bytes <= MAX_BYTES, "S0: an object has 1 byte to 32 KiB");
        assert!(align.is_power_of_two() && align <= FRAME_BYTES, "S0: a slab is aligned to a frame at least");
        let inside = matches!(links, Links::Inside);
        let align = if inside && align < align_of::<Link>() { align_of::<Link>() } else { align };
        let least = if inside && bytes < size_of::<Link>() { size_of::<Link>() } else { bytes };
        let size = least.next_multiple_of(align);
        let mut order = 0;
        loop {
            let capacity = capacity(order, size, align, links);
            let wasted = (FRAME_BYTES << order) - capacity * (size + link_bytes(links));
            let fine = capacity >= FEW && wasted * WASTE <= FRAME_BYTES << order;
            if fine || order == MAX_ORDER {
                assert!(capacity > 0, "S0: an object fits into the largest slab");
                let first = first(capacity, align, links);
                let Some(order) = Order::for_bytes(FRAME_BYTES << order) else {
                    panic!("S0: a slab is a block")
                };
                return Self { size, first, capacity, order, links, reciprocal: (1 << POINT) / size + 1 };
            }
            order += 1;
        }
    }

    /// Bytes of a slab.
    pub(crate) const fn bytes(&self) -> usize {
        FRAME_BYTES << self.order.get()
    }

    /// Turns an address inside a slab into the slab's.
    pub(crate) const fn mask(&self) -> usize {
        !(self.bytes() - 1)
    }

    /// The offset of an object.
    #[inline(always)]
    pub(crate) const fn offset(&self, index: usize) -> usize {
        self.first + index * self.size
    }

    /// The number of the object at an offset; none starts elsewhere.
    #[inline(always)]
    pub(crate) const fn index(&self, offset: usize) -> Option<usize> {
        let from_first = offset.wrapping_sub(self.first);
        let index = from_first.wrapping_mul(self.reciprocal) >> POINT;
        if index < self.capacity && index * self.size == from_first { Some(index) } else { None }
    }

    /// The offset of an object's link.
    #[inline(always)]
    pub(crate) const fn link(&self, index: usize) -> usize {
        match self.links {
            Links::Inside => self.offset(index),
            Links::Beside => header::BYTES + index * size_of::<Link>(),
        }
    }

    /// The number of the object with the link at an offset.
    #[inline(always)]
    pub(crate) const fn linked(&self, offset: usize) -> Option<usize> {
        match self.links {
            Links::Inside => self.index(offset),
            Links::Beside => Some(offset.wrapping_sub(header::BYTES) / size_of::<Link>()),
        }
    }

    /// Objects that one core keeps at hand: so many that a refill is rare, so few that large objects do not pile up.
    pub(crate) const fn limit(&self) -> usize {
        const BYTES: usize = 1 << 16;
        let fit = BYTES / self.size;
        if fit > magazine::MOST {
            magazine::MOST
        } else if fit < magazine::LEAST {
            magazine::LEAST
        } else {
            fit
        }
    }
}

/// What an object takes in the table of links.
const fn link_bytes(links: Links) -> usize {
    match links {
        Links::Inside => 0,
        Links::Beside => size_of::<Link>(),
    }
}

const fn first(capacity: usize, align: usize, links: Links) -> usize {
    (header::BYTES + capacity * link_bytes(links)).next_multiple_of(align)
}

const fn capacity(order: usize, size: usize, align: usize, links: Links) -> usize {
    let bytes = FRAME_BYTES << order;
    let mut capacity = (bytes - header::BYTES) / (size + link_bytes(links));
    if capacity > MOST {
        capacity = MOST;
    }
    while capacity > 0 && first(capacity, align, links) + capacity * size > bytes {
        capacity -= 1;
    }
    capacity
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Links, MAX_BYTES, Shape};
    use crate::id::FRAME_BYTES;

    #[test]
    fn objects_lie_inside_and_are_found() {
        let step = if cfg!(miri) { 977 } else { 7 };
        for bytes in (1..=MAX_BYTES).step_by(step).chain([8, 16, 64, 4096, MAX_BYTES]) {
            for (align, links) in
                [(1, Links::Inside), (8, Links::Beside), (64, Links::Inside), (4096, Links::Beside)]
            {
                let shape = Shape::new(bytes, align, links);
                assert!(shape.offset(shape.capacity) <= shape.bytes(), "{shape:?}");
                assert!(
                    shape.size >= bytes
                        && shape.first.is_multiple_of(align)
                        && shape.size.is_multiple_of(align)
                );
                for index in 0..shape.capacity {
                    let offset = shape.offset(index);
                    assert_eq!(shape.index(offset), Some(index), "{shape:?}");
                    assert_eq!(shape.linked(shape.link(index)), Some(index), "{shape:?}");
                    assert_eq!(shape.index(offset + 1), None, "{shape:?}");
                    assert_eq!(shape.index(offset + shape.size - 1), None, "{shape:?}");
                }
                assert_eq!(shape.index(0), None);
                assert_eq!(shape.index(shape.offset(shape.capacity)), None, "{shape:?}");
            }
        }
    }

    #[test]
    fn little_is_wasted() {
        for bytes in [16, 32, 64, 128, 256, 512, 1024, 2048] {
            let shape = Shape::new(bytes, 16, Links::Inside);
            let used = shape.capacity * shape.size;
            assert!(used * 8 >= shape.bytes() * 7, "{shape:?}");
            assert!(shape.bytes() <= 8 * FRAME_BYTES, "{shape:?}");
        }
    }
}
