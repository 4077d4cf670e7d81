//! How a core waits to be released without burning the time of others.
//!
//! The protocol wants a poll of `goto_address`. A spinning core costs nothing on real processors, but under
//! emulation and on shared hosts a few hundred of them leave the core that boots almost no time. So a parked core
//! halts, its own APIC timer wakes it for the next look, and the more cores there are the rarer it looks.
//! All of this happens on the loader's page tables, where the APIC is mapped, and leaves the APIC as INIT left it.

use super::apic::{LocalApic, Register};
use x86_64::instructions::interrupts;

/// Timer ticks between two looks, for each core of the machine. Virtual machines count nanoseconds.
const TICKS_PER_CORE: u32 = 50_000;
const VECTOR: u32 = 0x20;
/// With the software-enable bit.
const SPURIOUS_ENABLED: u32 = 0x12f;
/// As after INIT: software-disabled.
const SPURIOUS_RESET: u32 = 0xff;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;
const DIVIDE_RESET: u32 = 0;

/// Halts until `released` returns an address, looking at intervals.
pub(super) fn wait(apic: LocalApic, cores: usize, released: impl Fn() -> Option<u64>) -> u64 {
    apic.write(Register::Spurious, SPURIOUS_ENABLED);
    apic.write(Register::TimerDivide, DIVIDE_BY_1);
    apic.write(Register::TimerVector, VECTOR | PERIODIC);
    apic.write(Register::TimerCount, u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(TICKS_PER_CORE));
    let entry = loop {
        if let Some(entry) = released() {
            break entry;
        }
        interrupts::enable_and_hlt();
        interrupts::disable();
        apic.write(Register::EndOfInterrupt, 0);
    };
    apic.write(Register::TimerVector, MASKED);
    apic.write(Register::TimerCount, 0);
    // A tick may have come in since the last look; it must not reach the kernel.
    interrupts::enable();
    x86_64::instructions::nop();
    interrupts::disable();
    apic.write(Register::EndOfInterrupt, 0);
    apic.write(Register::TimerDivide, DIVIDE_RESET);
    apic.write(Register::Spurious, SPURIOUS_RESET);
    entry
}
