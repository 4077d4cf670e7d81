//! Memory types: application processors get those of the core that boots (protocol, "MP Feature"; Intel SDM
//! volume 3, 12.11).

use super::cpu::{read_msr, write_msr};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr0, Cr0Flags};

const CAPABILITIES: u32 = 0xfe;
const VARIABLE: u32 = 0x200;
const DEFAULT_TYPE: u32 = 0x2ff;
/// The registers with fixed ranges.
const FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
const HAS_FIXED: u64 = 1 << 8;
const ENABLED: u64 = 1 << 11;
/// Most variable ranges that are copied; processors have 8 to 10.
const RANGES: usize = 16;

/// The memory type registers of a core.
#[derive(Clone, Copy)]
pub(super) struct Mtrrs {
    fixed: [u64; FIXED.len()],
    variable: [u64; 2 * RANGES],
    default: u64,
}

impl Mtrrs {
    /// What this core has; `None` without MTRRs.
    pub(super) fn read() -> Option<Self> {
        const HAS_MTRR: u32 = 1 << 12;
        if __cpuid(1).edx & HAS_MTRR == 0 {
            return None;
        }
        let mut state =
            Self { fixed: [0; FIXED.len()], variable: [0; 2 * RANGES], default: read_msr(DEFAULT_TYPE) };
        state.each(|msr, value| *value = read_msr(msr));
        Some(state)
    }

    /// Makes this core have them too. Does nothing when it has, as it does after most firmware.
    pub(super) fn apply(mut self) {
        let mut same = read_msr(DEFAULT_TYPE) == self.default;
        self.each(|msr, value| same &= read_msr(msr) == *value);
        if same {
            return;
        }
        // The sequence of SDM volume 3, 12.11.8, with interrupts off as they are in the loader.
        let cr0 = Cr0::read();
        // SAFETY: turning the caches off and on again changes no memory content: they are written back first.
        unsafe { Cr0::write(cr0 | Cr0Flags::CACHE_DISABLE) };
        write_back_caches();
        tlb::flush_all();
        write_msr(DEFAULT_TYPE, self.default & !ENABLED);
        self.each(|msr, value| write_msr(msr, *value));
        write_msr(DEFAULT_TYPE, self.default);
        write_back_caches();
        tlb::flush_all();
        // SAFETY: as above.
        unsafe { Cr0::write(cr0) };
    }

    /// Calls `with` for every register this processor has but the default type.
    fn each(&mut self, mut with: impl FnMut(u32, &mut u64)) {
        let capabilities = read_msr(CAPABILITIES);
        if capabilities & HAS_FIXED != 0 {
            FIXED.into_iter().zip(&mut self.fixed).for_each(|(msr, value)| with(msr, value));
        }
        let ranges = boot::to_usize(capabilities & 0xff).min(RANGES);
        (VARIABLE..).zip(&mut self.variable[..2 * ranges]).for_each(|(msr, value)| with(msr, value));
    }
}

fn write_back_caches() {
    // SAFETY: writes back and empties the caches, which no program can tell from its memory.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}
