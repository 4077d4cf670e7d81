//! The kernel's image: its segments by the symbols of `link.ld`, and which of its frames stay the kernel's.
//!
//! Tests and benchmarks are the laboratory. Their code has pages of its own, the first of the image, and `link.ld` lets no other code but
//! `start::run` refer to it. A kernel that will run neither (`mode=idle`) does not map them, and their frames go to the frame allocator.

use abi::boot::Mode;
use mm::PhysRange;

use crate::arch::paging::Kind;
use crate::{layout, start};

unsafe extern "C" {
    static __lab_end: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

/// Where the laboratory's code ends and that of the kernel in operation begins.
fn lab_end() -> u64 {
    &raw const __lab_end as u64
}

/// Whether this kernel keeps its laboratory.
pub(crate) fn keeps_laboratory() -> bool {
    start::params().mode != Mode::Idle
}

/// The segments that are mapped: first address, end, protection.
pub(crate) fn segments() -> [(u64, u64, Kind); 3] {
    let start = if keeps_laboratory() { layout::IMAGE.base } else { lab_end() };
    let text = &raw const __text_end as u64;
    let (rodata, end) = (&raw const __rodata_end as u64, &raw const __image_end as u64);
    [(start, text, Kind::Code), (text, rodata, Kind::ReadOnly), (rodata, end, Kind::Data)]
}

/// The frames of addresses of the image.
pub(crate) fn frames(start: u64, end: u64) -> PhysRange {
    let physical = |address: u64| start::handover().image.as_u64() + (address - layout::IMAGE.base);
    PhysRange::inside(physical(start), physical(end))
}

/// The frames that nothing may write: those of code and constants that are mapped.
pub(crate) fn constant() -> PhysRange {
    let [(start, _, _), (_, end, _), _] = segments();
    frames(start, end)
}

/// The frames of the laboratory's code, whoever has them.
pub(crate) fn laboratory() -> PhysRange {
    frames(layout::IMAGE.base, lab_end())
}

/// The laboratory's frames where the frame allocator gets them; none where it is kept.
pub(crate) fn given_back() -> PhysRange {
    let lab = laboratory();
    if keeps_laboratory() { PhysRange::new(lab.start, lab.start) } else { lab }
}
