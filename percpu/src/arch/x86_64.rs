//! x86-64: the copy of a core is reached through GS; interrupts are RFLAGS.IF.
//!
//! Neighbour: [`crate::local`], which states the invariants. Segment override and base: Intel SDM vol. 1 §3.4.4, vol. 3 §3.4.4.1.

use crate::id::{CoreId, MAX_CORES};
use crate::sync::atomic::{AtomicPtr, AtomicU16, AtomicUsize, Ordering};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

crate::core_local! {
    /// This core's copy minus the template: what GS holds, in a place an instruction can load.
    static DELTA: AtomicUsize = AtomicUsize::new(0);
    /// This core's id.
    static CORE: AtomicU16 = AtomicU16::new(0);
}

unsafe extern "C" {
    #[link_name = "__core_local_start"]
    static TEMPLATE_START: u8;
    #[link_name = "__core_local_end"]
    static TEMPLATE_END: u8;
}

/// The copy of each core, null until registered.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | one entry | whoever registers the core, once | any core, remote access only | Release / Acquire | eight entries a line, read-mostly |
static COPIES: [AtomicPtr<u8>; MAX_CORES] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CORES];

/// IA32_GS_BASE, Intel SDM vol. 4 §2.1.
const IA32_GS_BASE: u32 = 0xC000_0101;

/// RFLAGS.IF, Intel SDM vol. 1 §3.4.3.3.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// One core-local static in the template.
#[repr(transparent)]
pub(crate) struct Slot<T>(UnsafeCell<T>);

impl<T> Slot<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// This core's copy: one load of `DELTA`, and one addition that the access can often fold.
    #[inline(always)]
    pub(crate) fn own(&self) -> *const T {
        let delta: usize;
        // SAFETY: GS base is 0 or the distance to this core's copy (L1), so the operand is `DELTA` of the template or the copy. It is `nomem`:
        // once `activate` has run, of which no caller is a user of core-local data, the word does not change as long as kernel code stays on
        // its core, which is for ever; so one load does for a whole function.
        unsafe {
            asm!("mov {}, gs:[rip + {}]", out(reg) delta, sym DELTA, options(pure, nomem, nostack, preserves_flags));
        }
        // The copy is another object than the template; `register` has exposed it.
        ptr::with_exposed_provenance(self.0.get().expose_provenance().wrapping_add(delta))
    }

    /// The copy of another core.
    #[inline]
    pub(crate) fn of(&self, core: CoreId) -> Option<*const T> {
        let copy = copy(core)?;
        let offset = self.0.get().addr() - template().0.addr().get();
        Some(copy.as_ptr().wrapping_add(offset).cast())
    }
}

/// The id of the core that runs this: one instruction.
#[inline(always)]
pub(crate) fn current_core() -> CoreId {
    let raw: u32;
    // SAFETY: as in `Slot::own`; `CORE` holds two readable bytes.
    unsafe {
        asm!("movzx {:e}, word ptr gs:[rip + {}]", out(reg) raw, sym CORE, options(pure, nomem, nostack, preserves_flags));
    }
    CoreId::trusted(raw as u16)
}

/// Where the template starts, and its length.
pub(crate) fn template() -> (NonNull<u8>, usize) {
    let (start, end) = (&raw const TEMPLATE_START, &raw const TEMPLATE_END);
    let start = NonNull::new(start.cast_mut()).expect("L4: the linker script places .core_local");
    (start, end.addr() - start.addr().get())
}

/// The copy of a core, if it has one.
pub(crate) fn copy(core: CoreId) -> Option<NonNull<u8>> {
    // ORDER: Acquire pairs with Release in `register`: we see the copy's initial contents.
    NonNull::new(COPIES[core.index()].load(Ordering::Acquire))
}

/// # Safety
/// Those of [`crate::local::register`].
pub(crate) unsafe fn register(core: CoreId, base: NonNull<u8>) {
    let (start, _) = template();
    let delta = base.expose_provenance().get().wrapping_sub(start.addr().get());
    let locate = |link: usize| ptr::with_exposed_provenance::<()>(link.wrapping_add(delta));
    // SAFETY: the copy has the template's layout (obligation 1), so this is its `DELTA`.
    let own_delta = unsafe { &*locate((&raw const DELTA).addr()).cast::<AtomicUsize>() };
    // SAFETY: likewise its `CORE`.
    let own_core = unsafe { &*locate((&raw const CORE).addr()).cast::<AtomicU16>() };
    // ORDER: Relaxed: the Release below publishes both, and the core itself starts after that.
    own_delta.store(delta, Ordering::Relaxed);
    // ORDER: Relaxed, as above.
    own_core.store(core.raw(), Ordering::Relaxed);
    // ORDER: Release pairs with Acquire in `Slot::of` and `activate`: who sees the copy sees its contents.
    COPIES[core.index()].store(base.as_ptr(), Ordering::Release);
}

/// # Safety
/// Those of [`crate::local::activate`].
pub(crate) unsafe fn activate(core: CoreId) {
    // ORDER: Acquire pairs with Release in `register`.
    let copy = COPIES[core.index()].load(Ordering::Acquire);
    assert!(!copy.is_null(), "L5: a core is registered before it is activated");
    let delta = copy.addr().wrapping_sub(template().0.addr().get());
    let (low, high) = (delta as u32, (delta >> 32) as u32);
    // SAFETY: the new base makes every core-local address this core's copy; no reference into the old one is alive
    // (obligation 1). The block may touch memory, so no access moves across it.
    unsafe {
        asm!("wrmsr", in("ecx") IA32_GS_BASE, in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// Turns interrupts off and returns the previous flags.
#[inline(always)]
pub(crate) fn irq_save() -> u64 {
    let flags: u64;
    // SAFETY: reads RFLAGS through the stack and clears IF; leaving interrupts off is always allowed in the kernel.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    flags
}

/// Turns interrupts on again if they were on in `flags`.
#[inline(always)]
pub(crate) fn irq_restore(flags: u64) {
    if flags & INTERRUPT_FLAG != 0 {
        // SAFETY: interrupts were on when `irq_save` ran, so the context allows them.
        unsafe { asm!("sti", options(nostack)) };
    }
}
