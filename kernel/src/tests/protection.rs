//! What the kernel must not be able to do to itself (G1, G6).

use x86_64::VirtAddr;

use super::bed::Blame;
use super::{Bed, Result, ensure};
use crate::arch::cpu::{Features, Protection};
use crate::arch::paging::Kind;
use crate::arch::walk::{self, Mapping};
use crate::layout::{DIRECT, IMAGE, STACKS};
use crate::{cores, image as kernel, machine, memory, stacks, start};

const PAGE: u64 = 4096;
/// The last address of the lower half (SDM volume 1, §3.3.7.1: bits 63 to 47 are equal).
const LOWER_LAST: u64 = (1 << 47) - 1;

/// Write protection and whatever of NX, SMEP, SMAP and UMIP the CPU has is on, on every core.
///
/// Planted: `core_main` does not call `cpu::protect`; `protect` leaves SMAP out.
pub(super) fn switches(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let (expected, found) = (Protection::expected(&Features::read()), Protection::in_force());
        let check = || -> Result {
            ensure!(found == expected, "{}: {found:?}, the CPU offers {expected:?}", held.core());
            Ok(())
        };
        blame.note(check());
    });
    blame.verdict()
}

/// The first page for which a rule does not hold.
fn first_against(first: u64, last: u64, rule: impl Fn(&Mapping) -> bool) -> Option<Mapping> {
    let mut found = None;
    walk::each_page(VirtAddr::new(first), VirtAddr::new(last), &mut |page| {
        if found.is_none() && !rule(page) {
            found = Some(*page);
        }
    });
    found
}

/// The image has the protections of its segments, every page of them; in the whole address space nothing is writable and executable, and
/// the lower half is empty. What the image's mapping forbids to write, the direct map does not allow either.
///
/// Planted: read-only data mapped as `Kind::Data`; `Kind::Data` without no-execute; a direct map of `Kind::Data` throughout.
pub(super) fn image(_: &mut Bed) -> Result {
    let nx = machine::features().nx;
    let ([(first, end, _), ..], lab) = (kernel::segments(), memory::laboratory_bytes());
    ensure!(
        first == IMAGE.base && end - first > lab,
        "the laboratory is not part of the code that is checked"
    );
    for (start, end, kind) in kernel::segments() {
        let (writable, executable) = (kind == Kind::Data, kind == Kind::Code || !nx);
        let mut covered = 0;
        let wrong =
            first_against(start, end - 1, |page| page.writable == writable && page.executable == executable);
        ensure!(wrong.is_none(), "{kind:?} at {start:#x}: {wrong:x?}");
        walk::each_page(VirtAddr::new(start), VirtAddr::new(end - 1), &mut |page| covered += page.size);
        ensure!(covered == end - start, "{kind:?} at {start:#x}: {covered} of {} bytes", end - start);
    }
    for (start, end, kind) in kernel::segments().into_iter().filter(|&(_, _, kind)| kind != Kind::Data) {
        let offset = DIRECT.base + start::handover().image.as_u64();
        let alias = |address: u64| offset + (address - IMAGE.base);
        let wrong =
            first_against(alias(start), alias(end) - 1, |page| !(page.writable || nx && page.executable));
        ensure!(wrong.is_none(), "the direct map's view of {kind:?}: {wrong:x?}");
    }
    let lower = first_against(0, LOWER_LAST, |_| false);
    ensure!(lower.is_none(), "mapped in the lower half: {lower:x?}");
    if nx {
        let both = first_against(DIRECT.base, u64::MAX, |page| !(page.writable && page.executable));
        ensure!(both.is_none(), "writable and executable: {both:x?}");
    }
    Ok(())
}

/// Below every stack nothing is mapped, so that an overflow faults; every stack is mapped whole, and nothing else is in their region.
///
/// Planted: `cores::prepare` maps a page below a stack; maps one above the last.
pub(super) fn guard_pages(_: &mut Bed) -> Result {
    let nx = machine::features().nx;
    let mut stack_bytes = 0;
    for core in machine::topology().cores() {
        for stack in 0..stacks::STACKS_PER_CORE {
            let (base, bytes) = (stacks::base(core, stack).as_u64(), stacks::bytes(stack));
            let below = walk::lookup(VirtAddr::new(base - PAGE));
            ensure!(below.is_none(), "below stack {stack} of {core}: {below:x?}");
            let wrong =
                first_against(base, base + bytes - 1, |page| page.writable && !(nx && page.executable));
            ensure!(wrong.is_none(), "stack {stack} of {core}: {wrong:x?}");
            stack_bytes += bytes;
        }
    }
    let mut mapped = 0;
    let (first, last) = (VirtAddr::new(STACKS.base), VirtAddr::new(STACKS.base + (STACKS.size - 1)));
    walk::each_page(first, last, &mut |page| mapped += page.size);
    ensure!(mapped == stack_bytes, "{mapped} bytes are mapped among the stacks, which have {stack_bytes}");
    Ok(())
}
