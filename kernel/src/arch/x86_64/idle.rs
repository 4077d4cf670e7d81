//! How a core sleeps: MWAIT on its inbox, which a push alone ends, or HLT, which takes an interrupt.
//!
//! Both start with interrupts off and the inbox armed, and turn interrupts on with STI, which holds them back for one more instruction (SDM
//! volume 2, STI): that one is HLT or MWAIT, so whatever is pending ends it at once. MWAIT's other way, interrupts off and treated as break
//! events all the same (ECX bit 0), would need another window of STI and CLI for the handler to run.
//!
//! * I1: a push after the arming is not slept through. It writes the line that is monitored; one between arming and MONITOR is
//!   seen by looking again after MONITOR; one between that and MWAIT has triggered the monitor, and MWAIT falls through.

use core::arch::asm;

use abi::boot::Idle;
use percpu::mailbox::{Inbox, Rest};
use percpu::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::interrupts;

use super::cpu;
use crate::machine;

/// Whether cores sleep in MWAIT. Written by [`choose`] before the other cores run, and by tests.
static WATCH: AtomicBool = AtomicBool::new(false);

/// The hint in EAX: C1, in which the timer of every CPU goes on (SDM volume 3, §12.5.4: in deeper states only with ARAT).
const C1: u32 = 0;

/// Intel CPUs of family 6 on which a store may fail to end MWAIT, or needs the line flushed before MONITOR: Dunnington, Nehalem-EX,
/// Westmere-EX, Goldmont, Lunar Lake (Intel's specification updates: AAI65, BA80, APL30, LNL030).
const UNRELIABLE: [u8; 5] = [0x1d, 0x2e, 0x2f, 0x5c, 0xbd];

/// Settles how cores sleep, before the other cores run; and for tests, whose change reaches a core when it next goes to sleep.
///
/// Under a hypervisor MWAIT is used only if asked for: QEMU's TCG shows MONITOR in CPUID, but its MWAIT of a machine with several cores is a
/// PAUSE, and a core that sleeps by it keeps the emulator busy.
pub(crate) fn choose(wanted: Idle) {
    let features = machine::features();
    let watch = match wanted {
        Idle::Auto => features.monitor && !features.hypervisor && !is_unreliable(),
        Idle::Mwait => features.monitor,
        Idle::Hlt => false,
    };
    // ORDER: Relaxed; either way of sleeping is sound at any time.
    WATCH.store(watch, Ordering::Relaxed);
}

fn is_unreliable() -> bool {
    let id = cpu::cpuid();
    let intel = id.get_vendor_info().is_some_and(|vendor| vendor.as_str() == "GenuineIntel");
    intel
        && id
            .get_feature_info()
            .is_some_and(|info| info.family_id() == 6 && UNRELIABLE.contains(&info.model_id()))
}

/// What to arm an inbox with before [`rest`].
#[inline]
pub(crate) fn kind() -> Rest {
    // ORDER: Relaxed; see `choose`.
    if WATCH.load(Ordering::Relaxed) { Rest::Watching } else { Rest::Halted }
}

/// Sleeps until a message comes or an interrupt has been taken. The inbox is this core's, and was armed as `how` with interrupts off.
///
/// # Safety
/// 1. No [`percpu::IrqOff`] of this core is in use, and interrupts may be taken here.
pub(crate) unsafe fn rest(inbox: &Inbox, how: Rest) {
    if how == Rest::Halted {
        interrupts::enable_and_hlt();
    } else {
        // SAFETY: MONITOR is in CPUID, or `kind` would not have said so; it reads an address that is mapped.
        unsafe {
            asm!("monitor", in("rax") inbox.monitor_address(), in("ecx") 0, in("edx") 0, options(nostack, preserves_flags));
        };
        if !inbox.has_message() {
            // SAFETY: MWAIT comes with MONITOR. Handlers of interrupts may run (obligation 1).
            unsafe { asm!("sti", "mwait", in("eax") C1, in("ecx") 0, options(nostack)) };
        }
    }
    interrupts::disable();
}
