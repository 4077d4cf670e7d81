//! The extended registers: x87, SSE, AVX, AVX-512. The kernel uses none of them; threads that want them have an [`Area`] each.
//!
//! Switching is eager, for lazy switching lets a thread read another's registers speculatively (CVE-2018-3665). What [`switch`] does:
//!
//! | from | to | steps | why nothing leaks |
//! |---|---|---|---|
//! | area | area | save, restore | a restore loads every component that is switched on |
//! | area | none | save, clear, block | the registers are in their initial state, so a speculative read behind TS finds nothing |
//! | none | area | allow, restore | as above |
//! | none | none | nothing | they are in their initial state since the last clear, and blocked |
//!
//! * F1: while CR0.TS is set, the registers are in their initial state.
//! * F2: an area is saved to only by the core that restored it last, and its bytes change in no other way in between.
//! * F3: an area's memory goes back as it came.

pub(crate) mod probe;

use core::alloc::Layout;
use core::arch::asm;
use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use abi::boot::Fpu;
use percpu::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use percpu::{IrqOff, core_local};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::cpu;
use crate::slabs::HERE;

/// CPUID leaf 0xD: sub-leaf 0 has the components, EAX of sub-leaf 1 the variants of XSAVE, sub-leaf n size (EAX) and offset (EBX) of component
/// n (SDM volume 1, §13.2).
const LEAF: u32 = 0xd;
const XSAVEOPT: u32 = 1 << 0;
/// CPUID leaf 0x8000_0008, EBX: the last instruction's addresses are saved and restored always (RstrFpErrPtrs, AMD APM volume 3).
const AMD_LEAF: u32 = 0x8000_0008;
const POINTERS_RESTORED: u32 = 1 << 2;

/// The three parts of AVX-512, which are switched on together (SDM volume 1, §13.3).
const AVX512: XCr0Flags = XCr0Flags::OPMASK.union(XCr0Flags::ZMM_HI256).union(XCr0Flags::HI16_ZMM);
/// The components that are switched on where the CPU has them. Others take an agreement with the program (AMX, protection keys) or are the
/// kernel's business (shadow stacks).
const WANTED: XCr0Flags = XCr0Flags::X87.union(XCr0Flags::SSE).union(XCr0Flags::AVX).union(AVX512);
/// The first component that lies behind the header.
const FIRST_EXTENDED: u32 = 2;

/// Bytes of the legacy region and of the header behind it (SDM volume 1, §13.4), which the first restore finds clear: every component is in
/// its initial state.
const LEGACY: usize = 512;
const HEADER: usize = 64;
/// Alignment of an area (SDM volume 1, §13.4).
const ALIGN: usize = 64;
/// Where FCW and MXCSR are, and their initial values: every exception masked (SDM volume 1, table 10-2 and §13.6). A restore always takes
/// MXCSR from memory.
const FCW_AT: usize = 0;
const FCW: u16 = 0x37f;
const MXCSR_AT: usize = 24;
const MXCSR: u32 = 0x1f80;

/// Which instructions save and restore. Constant after [`choose`].
static METHOD: AtomicU8 = AtomicU8::new(FXSAVE);
const FXSAVE: u8 = 0;
const XSAVE: u8 = 1;
/// The one of choice: what is in its initial state or unchanged since its restore is not written again. XSAVEC leaves out only the former, in a
/// format without fixed offsets; XSAVES adds components that are the kernel's, of which there are none.
const OPTIMISED: u8 = 2;
/// Whether a restore leaves the addresses of the last x87 instruction as another thread left them, unless an exception is pending (AMD APM
/// volume 2, §11.4.4.3). Constant after [`choose`].
static POINTERS_STAY: AtomicBool = AtomicBool::new(false);
/// The components that are switched on; 0 without XSAVE. Constant after [`choose`].
static COMPONENTS: AtomicU64 = AtomicU64::new(0);
/// Bytes of an area. Constant after [`choose`].
static BYTES: AtomicUsize = AtomicUsize::new(LEGACY);

core_local! {
    /// CR0 of this core, with TS set: reading it is slow where a hypervisor watches it.
    static BLOCKING: Cell<u64> = Cell::new(0);
}

/// Settles how this machine saves registers, before any core enters.
pub(crate) fn choose(wanted: Fpu) {
    let id = cpu::cpuid();
    let amd =
        id.get_vendor_info().is_some_and(|vendor| matches!(vendor.as_str(), "AuthenticAMD" | "HygonGenuine"));
    let stays = amd && cpu::leaf(AMD_LEAF, 0).ebx & POINTERS_RESTORED == 0;
    // ORDER: Relaxed, here and below: no other core runs yet.
    POINTERS_STAY.store(stays, Ordering::Relaxed);
    let xsave = id.get_feature_info().is_some_and(|info| info.has_xsave());
    if !xsave || wanted == Fpu::Fxsave {
        return;
    }
    let components = components(cpu::leaf(LEAF, 0).eax);
    let end_of = |component| {
        let part = cpu::leaf(LEAF, component);
        (part.eax + part.ebx) as usize
    };
    let extended = (FIRST_EXTENDED..u64::BITS).filter(|component| components & (1 << component) != 0);
    let bytes = extended.map(end_of).fold(LEGACY + HEADER, usize::max);
    let method = if cpu::leaf(LEAF, 1).eax & XSAVEOPT != 0 { OPTIMISED } else { XSAVE };
    // ORDER: Relaxed; as above.
    COMPONENTS.store(components, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    BYTES.store(bytes, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    METHOD.store(method, Ordering::Relaxed);
}

/// What to switch on of the components that the CPU has.
fn components(present: u32) -> u64 {
    let mut some = XCr0Flags::from_bits_truncate(u64::from(present)) & WANTED;
    if !some.contains(XCr0Flags::AVX | AVX512) {
        some.remove(AVX512);
    }
    some.bits()
}

/// Makes the registers of the core this runs on usable, and blocks them in their initial state.
pub(crate) fn enter(irq: &IrqOff) {
    let mut cr4 = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    let components = switched_on();
    cr4.set(Cr4Flags::OSXSAVE, components != 0);
    // SAFETY: x86-64 includes SSE, and CPUID has XSAVE if there are components.
    unsafe { Cr4::update(|flags| flags.insert(cr4)) };
    let cr0 = (Cr0::read() - Cr0Flags::EMULATE_COPROCESSOR - Cr0Flags::TASK_SWITCHED)
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::NUMERIC_ERROR;
    // SAFETY: concerns x87 and SSE instructions alone, which the kernel does not use.
    unsafe { Cr0::write(cr0) };
    if components != 0 {
        // SAFETY: components that CPUID has, in a combination that `components` has made valid.
        unsafe { XCr0::write_raw(components) };
    }
    BLOCKING.owned(irq).set((cr0 | Cr0Flags::TASK_SWITCHED).bits());
    clear();
    block(irq);
}

/// The components that are switched on, as in XCR0; 0 where the CPU has no XSAVE, which means x87 and SSE.
pub(crate) fn switched_on() -> u64 {
    // ORDER: Relaxed; constant (`COMPONENTS`).
    COMPONENTS.load(Ordering::Relaxed)
}

/// Bytes of an [`Area`].
pub(crate) fn bytes() -> usize {
    // ORDER: Relaxed; constant (`BYTES`).
    BYTES.load(Ordering::Relaxed)
}

/// The bytes of a thread's extended registers while another's are loaded. In memory of the node of the core that made it; dropped on any.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Area(NonNull<u8>);

// SAFETY: the memory is the area's alone; who may save to it and restore from it is for the callers of these to prove (F2).
unsafe impl Send for Area {}
// SAFETY: as above; without `save` and `restore` nothing can be done with a shared one.
unsafe impl Sync for Area {}

impl Area {
    /// Registers in their initial state; `None` if there is no memory.
    pub(crate) fn new(irq: &IrqOff) -> Option<Self> {
        let area = Self(HERE.owned(irq).allocate(layout()).ok()?);
        // SAFETY: so many bytes, which were just taken.
        unsafe { area.0.write_bytes(0, bytes()) };
        // SAFETY: inside the legacy region.
        let fcw = unsafe { area.0.add(FCW_AT) }.cast::<u16>();
        // SAFETY: as above; aligned, for the area is.
        unsafe { fcw.write(FCW) };
        // SAFETY: inside the legacy region.
        let mxcsr = unsafe { area.0.add(MXCSR_AT) }.cast::<u32>();
        // SAFETY: as above; aligned, for the area is.
        unsafe { mxcsr.write(MXCSR) };
        Some(area)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: taken with this layout, given back once, and by F2 no core saves to an area that nobody owns any more.
        let freed = IrqOff::with(|irq| unsafe { HERE.owned(irq).free(self.0, layout()) });
        freed.expect("F3: an area goes back as it came");
    }
}

fn layout() -> Layout {
    Layout::from_size_align(bytes(), ALIGN).expect("F3: 64 is a power of two, and CPUID's sizes are small")
}

/// What a restore of the initial state reads: the legacy region and a header that says that no component has a value.
#[repr(C, align(64))]
struct Initial {
    fcw: u16,
    rest_of_x87: [u8; MXCSR_AT - size_of::<u16>()],
    mxcsr: u32,
    rest: [u8; LEGACY - MXCSR_AT - size_of::<u32>()],
    header: [u8; HEADER],
}

const _: () = assert!(size_of::<Initial>() == LEGACY + HEADER && align_of::<Initial>() == ALIGN);
const _: () = assert!(offset_of!(Initial, fcw) == FCW_AT && offset_of!(Initial, mxcsr) == MXCSR_AT);

static INITIAL: Initial =
    Initial { fcw: FCW, rest_of_x87: [0; _], mxcsr: MXCSR, rest: [0; _], header: [0; HEADER] };

/// Gives the registers from one thread to another: see the table above.
///
/// # Safety
/// 1. The registers are `from`'s, whose last restore was on this core; without `from` they are blocked.
/// 2. No other core uses `to`.
#[inline(always)]
pub(crate) unsafe fn switch(irq: &IrqOff, from: Option<&Area>, to: Option<&Area>) {
    match (from, to) {
        (Some(from), Some(to)) => {
            // SAFETY: obligation 1.
            unsafe { save(from) };
            // SAFETY: obligation 2.
            unsafe { restore(to) };
        }
        (Some(from), None) => {
            // SAFETY: obligation 1.
            unsafe { save(from) };
            clear();
            block(irq);
        }
        (None, Some(to)) => {
            allow();
            // SAFETY: obligation 2.
            unsafe { restore(to) };
        }
        (None, None) => {}
    }
}

/// Copies the registers to the area.
///
/// # Safety
/// 1. They are not blocked, and the area is where this core has restored them from last (F2).
#[inline(always)]
pub(crate) unsafe fn save(area: &Area) {
    let at = area.0.as_ptr();
    // ORDER: Relaxed; constant (`METHOD`).
    match METHOD.load(Ordering::Relaxed) {
        // SAFETY: XSAVEOPT is in CPUID; the area is large enough and aligned, and may be written (obligation 1).
        OPTIMISED => unsafe {
            asm!("xsaveopt64 [{}]", in(reg) at, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack, preserves_flags));
        },
        // SAFETY: as above, with XSAVE.
        XSAVE => unsafe {
            asm!("xsave64 [{}]", in(reg) at, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack, preserves_flags));
        },
        // SAFETY: as above, with FXSAVE, which x86-64 includes.
        _ => unsafe { asm!("fxsave64 [{}]", in(reg) at, options(nostack, preserves_flags)) },
    }
}

/// Loads the registers from the area.
///
/// # Safety
/// 1. They are not blocked, and no core saves to the area meanwhile.
#[inline(always)]
pub(crate) unsafe fn restore(area: &Area) {
    // SAFETY: an area holds what a save of this kind, or `Area::new`, has left in it (F2).
    unsafe { load(area.0.as_ptr()) };
}

/// Puts the registers into their initial state. They are not blocked.
#[inline]
pub(crate) fn clear() {
    // SAFETY: the image is aligned and, with its clear header, whole.
    unsafe { load((&raw const INITIAL).cast()) };
}

/// # Safety
/// 1. `at` is aligned to 64, and holds an image of the kind that [`METHOD`] says.
#[inline(always)]
unsafe fn load(at: *const u8) {
    // ORDER: Relaxed; constant (`POINTERS_STAY`).
    if POINTERS_STAY.load(Ordering::Relaxed) {
        forget_pointers();
    }
    // ORDER: Relaxed; constant (`METHOD`).
    if METHOD.load(Ordering::Relaxed) == FXSAVE {
        // SAFETY: obligation 1; the kernel's own code uses none of the registers.
        unsafe { asm!("fxrstor64 [{}]", in(reg) at, options(readonly, nostack, preserves_flags)) };
    } else {
        // SAFETY: as above, with XSAVE in CPUID.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) at, in("eax") u32::MAX, in("edx") u32::MAX, options(readonly, nostack, preserves_flags));
        }
    }
}

/// Makes an x87 instruction of the kernel's the last one: nothing of the thread before can be read then.
#[cold]
fn forget_pointers() {
    // SAFETY: pending exceptions and the stack are cleared first, so the load cannot fault; the registers are about to be loaded anyway.
    unsafe { asm!("fnclex", "emms", "fild qword ptr [rip + {}]", sym INITIAL, options(readonly, nostack)) };
}

/// Makes any use of the registers an exception (device not available, vector 7).
///
/// They have to be in their initial state, or they could be read speculatively (F1).
#[inline(always)]
fn block(irq: &IrqOff) {
    let cr0 = BLOCKING.owned(irq).get();
    // SAFETY: CR0 as it is since `enter`, but for TS, which concerns x87 and SSE instructions alone.
    unsafe { asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags)) };
}

/// Ends [`block`].
#[inline(always)]
fn allow() {
    // SAFETY: CLTS clears CR0.TS, which concerns x87 and SSE instructions alone.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
}
