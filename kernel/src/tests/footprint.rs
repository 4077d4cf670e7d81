//! What the kernel itself costs.

use super::{Bed, Result, ensure};
use crate::loader::Use;
use crate::{early, machine, memory, start};

/// The share of memory that the kernel may occupy when idle: 0.5 %, and so much for each core (FEATURES, memory).
const SHARE_DIVISOR: u64 = 200;
const BYTES_PER_CORE: u64 = 256 << 10;

/// The kernel stays below its share, bundle and image included, and the books balance: what the memory map names is the kernel's, or the
/// frame allocator's.
///
/// Planted: `memory::init` forgets the kept ranges; `Early::take_within` counts nothing; counts four times as much.
pub(super) fn footprint(_: &mut Bed) -> Result {
    let kernel = memory::kernel_bytes();
    let total = memory::total_bytes();
    let cores = machine::topology().core_count() as u64;
    let allowed = total / SHARE_DIVISOR + cores * BYTES_PER_CORE;
    ensure!(kernel <= allowed, "the kernel occupies {kernel} bytes, allowed are {allowed}");
    let managed = memory::frames().stats().frames as u64 * early::PAGE;
    ensure!(
        kernel + managed == total,
        "kernel {kernel} + managed {managed} is not the total {total}: off by {}",
        total.abs_diff(kernel + managed)
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
    if let Some((file, length)) = handover.file {
        let last = file.as_u64() + length as u64 - 1;
        ensure!(kept(file.as_u64()) && kept(last), "the kernel's file at {file:?} is not counted");
    }
    Ok(())
}
