//! What programs' own page tables show of the kernel, and that nothing stale is used under them.

use mm::FrameId;
use mm::space::{Access, Fault, Mapping};
use mm::tlb::Cached;
use mm::virt::{PageId, PageRange};
use percpu::IrqOff;
use perf::prng::Prng;
use x86_64::{PhysAddr, VirtAddr};

use super::{Bed, Result, Verdict, ensure};
use crate::arch::border::{self, Way};
use crate::arch::paging::Kind;
use crate::arch::walk;
use crate::{early, machine, spaces};

/// The upper half (SDM volume 1, §3.3.7.1).
const UPPER: (VirtAddr, VirtAddr) = (VirtAddr::new(0xffff_8000_0000_0000), VirtAddr::new(u64::MAX));
const LOWER: (VirtAddr, VirtAddr) = (VirtAddr::zero(), VirtAddr::new((1 << 47) - 1));

/// A page somewhere in the user half.
const PAGE: PageId = PageId::new(0x12_3456);

/// The root under which programs run shows what `border` says and nothing else, none of it to them; it shows their half as the first root
/// does, through which nothing can be executed; and both stay in step when the half becomes empty and is used again.
pub(super) fn tables(_: &mut Bed) -> Result {
    if !border::isolated() {
        return Err(Verdict::Skipped("programs run under the kernel's own tables here"));
    }
    let Some(space) = spaces::Owned::new() else {
        return Err(super::failed(format_args!("no memory for a space")));
    };
    let first = PhysAddr::new(space.root().address());
    let second = first + early::PAGE;
    let result = upper(second).and_then(|()| {
        lower(&space, first, second)?;
        lower(&space, first, second)
    });
    space.destroy();
    result
}

/// The upper half of a second root.
fn upper(second: PhysAddr) -> Result {
    let mut shown = 0;
    let mut wrong = None;
    walk::each_page_of(second, UPPER, &mut |page| {
        let at = page.start;
        let named = border::shown().find(|&(start, bytes, _)| (start..start + bytes).contains(&at));
        let agrees = named.is_some_and(|(_, _, kind)| {
            page.writable == (kind == Kind::Data)
                && page.executable <= (kind == Kind::Code || !machine::features().nx)
        });
        if page.size != early::PAGE || page.user || !agrees || walk::lookup(at).is_none() {
            wrong = Some(*page);
        }
        shown += page.size;
    });
    ensure!(wrong.is_none(), "programs' tables show {wrong:x?}");
    let named: u64 = border::shown().map(|(_, bytes, _)| bytes).sum();
    ensure!(shown == named, "programs' tables show {shown} bytes of the kernel, {named} are needed");
    Ok(())
}

/// Maps a page, compares the lower halves, and unmaps it.
fn lower(space: &spaces::Owned, first: PhysAddr, second: PhysAddr) -> Result {
    let page = PageRange::new(PAGE, 1).expect("one page");
    IrqOff::with(|irq| {
        let mapped = spaces::with(irq, space, |cx| space.map(cx, page, &Mapping::anonymous()));
        mapped.map_err(|error| super::failed(format_args!("a page cannot be mapped: {error}")))?;
        let fault = spaces::with(irq, space, |cx| space.fault(cx, PAGE, Access::Write));
        ensure!(fault == Fault::Resolved, "a page cannot be touched: {fault:?}");
        Ok(())
    })?;
    let found = |root| {
        let mut pages = (0_usize, None);
        walk::each_page_of(root, LOWER, &mut |page| pages = (pages.0 + 1, Some(*page)));
        pages
    };
    let (kernels, programs) = (found(first), found(second));
    let checked = space.check();
    let unmapped = IrqOff::with(|irq| spaces::all(irq, space, page, |cx, range| space.unmap(cx, range)));
    let left = [found(first).0, found(second).0];
    ensure!(checked.is_ok(), "{checked:?}");
    ensure!(unmapped.is_ok() && left == [0, 0], "{unmapped:?}, and {left:?} pages are left");
    let ((1, Some(kernels)), (1, Some(programs))) = (kernels, programs) else {
        return Err(super::failed(format_args!("{kernels:x?} and {programs:x?} instead of one page each")));
    };
    ensure!(
        kernels.physical == programs.physical && programs.user,
        "{kernels:x?} and {programs:x?} show different things"
    );
    ensure!(!(kernels.executable && machine::features().nx), "the kernel could execute {kernels:x?}");
    Ok(())
}

/// What is dropped under a space's first identifier is dropped under its second before ring 3 uses it, however the core comes back to it.
/// Against a model that knows for each identifier whether something stale is cached.
pub(super) fn identifiers(bed: &mut Bed) -> Result {
    const TAGS: u64 = 3;
    const KEEP: u64 = 1 << 63;
    let mut random = Prng::new(bed.seed);
    let mut way = Way::default();
    let mut stale = [true; TAGS as usize];
    let mut loaded = None;
    for step in 0..20_000 {
        match (random.below(3), loaded) {
            (0, _) => {
                let tag = random.below(TAGS);
                let cached =
                    if random.below(4) == 0 || loaded.is_none() { Cached::Stale } else { Cached::Valid };
                let cached = if step < 8 { Cached::Stale } else { cached };
                stale[tag as usize] |= cached == Cached::Stale;
                way = way.aimed(FrameId::new(7), 9 + tag, cached);
                loaded = Some(tag);
            }
            // Something is taken back.
            (1, Some(tag)) => {
                way = way.dropped();
                stale[tag as usize] = true;
            }
            // Ring 3.
            (_, Some(tag)) => {
                ensure!(way.user_cr3 & 0xfff == 9 + tag, "step {step}: {way:x?} for tag {tag}");
                stale[tag as usize] &= way.user_cr3 & KEEP != 0;
                ensure!(!stale[tag as usize], "step {step}: {way:x?} uses stale translations of tag {tag}");
                way.user_cr3 |= KEEP;
            }
            (_, None) => {}
        }
    }
    Ok(())
}
