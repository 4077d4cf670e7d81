//! What the kernel itself costs.

use super::{Bed, Result, ensure};
use crate::loader::Use;
use crate::{early, image, layout, log, machine, memory, start};

/// The share of memory that the kernel may occupy when idle: 0.5 %, and so much for each core (FEATURES, memory).
const SHARE_DIVISOR: u64 = 200;
const BYTES_PER_CORE: u64 = 256 << 10;

/// The kernel in operation stays below its share, bundle and image included, and the books balance: what the memory map names is the
/// kernel's, its laboratory's, or the frame allocator's. The laboratory is here because a test runs; `mode=idle` gives it back.
///
/// Planted: `memory::init` forgets the kept ranges; `Early::take_within` counts nothing; counts four times as much.
pub(super) fn footprint(_: &mut Bed) -> Result {
    let kernel = memory::kernel_bytes();
    let total = memory::total_bytes();
    let cores = machine::topology().core_count() as u64;
    let allowed = total / SHARE_DIVISOR + cores * BYTES_PER_CORE;
    let laboratory = memory::laboratory_bytes();
    log!("memory: the kernel occupies {kernel} bytes of {allowed}, its laboratory {laboratory} more");
    ensure!(kernel <= allowed, "the kernel occupies {kernel} bytes, allowed are {allowed}");
    let managed = memory::frames().stats().frames as u64 * early::PAGE;
    ensure!(
        kernel + laboratory + managed == total,
        "kernel {kernel} + laboratory {laboratory} + managed {managed} is not the total {total}: off by {}",
        total.abs_diff(kernel + laboratory + managed)
    );
    counted()
}

/// The image and the bundle's kernel file lie in ranges that are counted as kept.
fn counted() -> Result {
    let handover = start::handover();
    let kept = |address: u64| {
        let frame = mm::FrameId::containing(address);
        handover.ranges.of(Use::Kept).any(|range| range.contains(frame))
    };
    let image = handover.image.as_u64();
    ensure!(kept(image), "the image at {image:#x} is not counted");
    let own = footprint as *const () as u64;
    ensure!(
        layout::IMAGE.base + memory::laboratory_bytes() > own,
        "a test at {own:#x} is outside the laboratory"
    );
    ensure!(image::given_back().is_empty(), "the laboratory is in use and was given back");
    if let Some((file, length)) = handover.file {
        let last = file.as_u64() + length as u64 - 1;
        ensure!(kept(file.as_u64()) && kept(last), "the kernel's file at {file:?} is not counted");
    }
    Ok(())
}
