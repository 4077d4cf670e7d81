//! The local interrupt controller, x2APIC or xAPIC.
//!
//! The `x2apic` crate sets the unit up. What it leaves open is closed here: it unmasks the timer, leaves errors masked, and always
//! picks x2APIC where the CPU has it. End-of-interrupt and sending, which are hot, write the registers directly.

use mm::PhysRange;
use percpu::CoreSet;
use percpu::sync::atomic::{AtomicU64, Ordering, fence};
use x2apic::lapic::{LocalApicBuilder, TimerMode};
use x86_64::registers::model_specific::Msr;
use x86_64::{PhysAddr, VirtAddr};

use super::tables::vector;
use super::timer;
use crate::machine;

/// IA32_APIC_BASE (SDM volume 3, figure 12-5 and §12.12.1): address, global enable (bit 11), x2APIC mode (bit 10).
const APIC_BASE: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Registers by their xAPIC offset (SDM volume 3, table 12-1). The x2APIC MSR is `0x800 + offset / 16` (§12.12.1.2).
mod reg {
    pub(super) const ID: u32 = 0x20;
    pub(super) const EOI: u32 = 0xb0;
    pub(super) const LDR: u32 = 0xd0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const REQUESTS: u32 = 0x200;
    pub(super) const ERROR_STATUS: u32 = 0x280;
    pub(super) const ICR_LOW: u32 = 0x300;
    pub(super) const ICR_HIGH: u32 = 0x310;
    pub(super) const LVT_TIMER: u32 = 0x320;
    pub(super) const LVT_LINT0: u32 = 0x350;
    pub(super) const LVT_LINT1: u32 = 0x360;
    pub(super) const LVT_ERROR: u32 = 0x370;
    pub(super) const TIMER_INITIAL: u32 = 0x380;
    pub(super) const TIMER_CURRENT: u32 = 0x390;
    pub(super) const TIMER_DIVIDE: u32 = 0x3e0;
}

/// LVT mask bit (SDM volume 3, figure 12-8).
const LVT_MASKED: u32 = 1 << 16;
/// Timer mode of the LVT's timer entry (SDM volume 3, figure 12-8, bits 18:17): 0 counts down once, this compares with a deadline.
const LVT_TSC_DEADLINE: u32 = 0b10 << 17;
/// Divide configuration (SDM volume 3, figure 12-10): by 1, the finest.
const DIVIDE_BY_1: u32 = 0b1011;
/// Software enable in the spurious-interrupt register (SDM volume 3, figure 12-23).
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Interrupt command register fields (SDM volume 3, figure 12-12): NMI delivery, logical destination, pending, assert, shorthand.
const ICR_NMI: u64 = 0b100 << 8;
const ICR_LOGICAL: u64 = 1 << 11;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u64 = 1 << 14;
const ICR_ALL_BUT_SELF: u64 = 0b11 << 18;
/// The command that sends the inter-processor interrupt.
const IPI_COMMAND: u64 = vector::IPI as u64 | ICR_ASSERT;

/// Virtual address of the xAPIC registers; 0 in x2APIC mode. Written once by the boot core before another core runs.
static XAPIC: AtomicU64 = AtomicU64::new(0);

/// Which register interface is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Memory-mapped registers, 8-bit ids.
    Xapic,
    /// Model-specific registers, 32-bit ids.
    X2apic,
}

impl Mode {
    /// The word used in reports.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Mode::Xapic => "xapic",
            Mode::X2apic => "x2apic",
        }
    }
}

/// The mode that [`choose`] settled.
pub(crate) fn mode() -> Mode {
    // ORDER: Relaxed; written before any other core runs (`choose`).
    if XAPIC.load(Ordering::Relaxed) == 0 { Mode::X2apic } else { Mode::Xapic }
}

/// Physical address of the xAPIC registers.
pub(crate) fn xapic_address() -> PhysAddr {
    PhysAddr::new(read_msr(APIC_BASE) & BASE_ADDRESS)
}

/// Physical addresses that mean local interrupt controllers, in either mode: a store there is a message (SDM volume 3, §12.11.1).
pub(crate) fn reserved() -> PhysRange {
    const MESSAGES: u64 = 1 << 20;
    let own = xapic_address().as_u64() & !(MESSAGES - 1);
    PhysRange::inside(own, own + MESSAGES)
}

/// Settles the mode for all cores: xAPIC with the registers mapped at `registers`, or x2APIC for `None`.
pub(crate) fn choose(registers: Option<VirtAddr>) {
    // ORDER: Relaxed; the release of the application processors orders this before their first use.
    XAPIC.store(registers.map_or(0, VirtAddr::as_u64), Ordering::Relaxed);
}

/// Sets up the unit of the core this runs on: enabled, timer and pins masked, errors reported.
pub(crate) fn enable() {
    let base = read_msr(APIC_BASE);
    match mode() {
        Mode::X2apic => enable_by_crate(None),
        // The crate insists on x2APIC where CPUID has it; leaving that mode is only possible through "disabled" (§12.12.5).
        Mode::Xapic => {
            if base & BASE_X2APIC != 0 {
                write_msr(APIC_BASE, base & !(BASE_X2APIC | BASE_ENABLE));
            }
            write_msr(APIC_BASE, (base & !BASE_X2APIC) | BASE_ENABLE);
            if machine::features().x2apic {
                write(reg::SPURIOUS, SOFTWARE_ENABLE | u32::from(vector::SPURIOUS));
            } else {
                // ORDER: Relaxed; see `mode`.
                enable_by_crate(Some(XAPIC.load(Ordering::Relaxed)));
            }
        }
    }
    for lvt in [reg::LVT_TIMER, reg::LVT_LINT0, reg::LVT_LINT1] {
        write(lvt, LVT_MASKED);
    }
    // The crate sets the vector and leaves the mask, which is set after a reset.
    write(reg::LVT_ERROR, u32::from(vector::ERROR));
    write(reg::TIMER_INITIAL, 0);
}

fn enable_by_crate(xapic_base: Option<u64>) {
    let mut builder = LocalApicBuilder::new();
    builder
        .timer_vector(usize::from(vector::SPURIOUS))
        .error_vector(usize::from(vector::ERROR))
        .spurious_vector(usize::from(vector::SPURIOUS))
        .timer_mode(TimerMode::OneShot)
        .timer_initial(0);
    if let Some(base) = xapic_base {
        builder.set_xapic_base(base);
    }
    let mut unit = builder.build().expect("G4: every field that the builder asks for was given");
    // SAFETY: G4: this core's unit, set up once, with handlers for all three vectors in the IDT.
    unsafe { unit.enable() };
}

/// The APIC id of the core this runs on, from the unit itself: CPUID.1 is wrong above 255 (DESIGN §2).
pub(crate) fn id() -> u32 {
    match mode() {
        Mode::X2apic => read(reg::ID),
        Mode::Xapic => read(reg::ID) >> 24,
    }
}

/// Reads the errors that the unit has noticed and clears them (SDM volume 3, §12.5.3: a write latches, a read returns).
pub(crate) fn take_errors() -> u32 {
    write(reg::ERROR_STATUS, 0);
    read(reg::ERROR_STATUS)
}

/// Ends the interrupt in service.
#[inline]
pub(crate) fn end_of_interrupt() {
    write(reg::EOI, 0);
}

/// Sends the inter-processor interrupt to one core.
#[inline]
pub(crate) fn send(apic_id: u32) {
    send_icr(IPI_COMMAND, apic_id);
}

/// Interrupts the core that runs this with another vector; for tests of what comes from elsewhere.
pub(crate) fn send_to_self(vector: u8) {
    send_icr(u64::from(vector) | ICR_ASSERT, id());
}

/// Sends the inter-processor interrupt to every core but this one with a single command.
#[inline]
pub(crate) fn send_all_but_self() {
    send_icr(IPI_COMMAND | ICR_ALL_BUT_SELF, 0);
}

/// Sends a non-maskable interrupt to one core.
pub(crate) fn send_nmi(apic_id: u32) {
    send_icr(ICR_NMI | ICR_ASSERT, apic_id);
}

/// Sends the inter-processor interrupt to each core of the set.
///
/// In x2APIC mode cores of one cluster are reached by one command: the logical id is derived from the APIC id, cluster in bits 31:16
/// and a bit for each of its 16 members below (SDM volume 3, §12.12.10.2).
pub(crate) fn send_set(cores: &CoreSet) {
    let topology = machine::topology();
    // ORDER: Relaxed; see `mode`.
    match XAPIC.load(Ordering::Relaxed) {
        0 => topology
            .clusters(cores)
            .for_each(|cluster| command_x2apic(IPI_COMMAND | ICR_LOGICAL, cluster.destination())),
        base => cores
            .iter_first(topology.core_count())
            .for_each(|core| command_xapic(base, IPI_COMMAND, topology.core(core).apic.0)),
    }
}

#[inline]
fn send_icr(command: u64, destination: u32) {
    // ORDER: Relaxed; see `mode`.
    match XAPIC.load(Ordering::Relaxed) {
        0 => command_x2apic(command, destination),
        base => command_xapic(base, command, destination),
    }
}

#[inline(always)]
fn command_x2apic(command: u64, destination: u32) {
    // ORDER: SeqCst; WRMSR to x2APIC registers is not serialising (SDM volume 3, §12.12.3), so what the receiver will read must
    // be globally visible first. Partner: the receiver's load in its interrupt handler.
    fence(Ordering::SeqCst);
    write_msr(msr_of(reg::ICR_LOW), u64::from(destination) << 32 | command);
}

#[inline(always)]
fn command_xapic(base: u64, command: u64, destination: u32) {
    while read_mapped(base, reg::ICR_LOW) & ICR_PENDING != 0 {
        core::hint::spin_loop();
    }
    // The destination field is bits 31:24 of the high half (SDM volume 3, figure 12-12). The uncached stores stay in order.
    write_mapped(base, reg::ICR_HIGH, destination << 24);
    write_mapped(base, reg::ICR_LOW, command as u32);
}

/// The logical x2APIC id, for checking the derivation that [`send_set`] relies on.
pub(crate) fn logical_id() -> u32 {
    read(reg::LDR)
}

/// Whether the inter-processor interrupt waits to be taken by the core this runs on.
pub(crate) fn is_requested() -> bool {
    has_request(vector::IPI)
}

/// Whether an interrupt of this vector waits to be taken by the core this runs on: its bit in the request register, which has a word of
/// its own for every 32 vectors (SDM volume 3, §12.8.4).
pub(super) fn has_request(vector: u8) -> bool {
    let (word, bit) = (u32::from(vector) / 32, u32::from(vector) % 32);
    read(reg::REQUESTS + word * 0x10) & (1 << bit) != 0
}

/// How the timer of the unit is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerUse {
    /// It counts down, and interrupts nobody.
    Measured,
    /// It counts down, and interrupts at 0.
    Counting(u8),
    /// It interrupts when the time-stamp counter has reached IA32_TSC_DEADLINE.
    Deadline(u8),
}

/// Programs the timer of the core this runs on; it stands still.
pub(super) fn set_timer(usage: TimerUse) {
    write(reg::TIMER_DIVIDE, DIVIDE_BY_1);
    write(reg::LVT_TIMER, lvt(usage));
    write(reg::TIMER_INITIAL, 0);
}

const fn lvt(usage: TimerUse) -> u32 {
    match usage {
        TimerUse::Measured => LVT_MASKED,
        TimerUse::Counting(vector) => vector as u32,
        TimerUse::Deadline(vector) => LVT_TSC_DEADLINE | vector as u32,
    }
}

/// Lets the timer count down from here; 0 stops it (SDM volume 3, §12.5.4).
#[inline(always)]
pub(super) fn count_down(from: u32) {
    write(reg::TIMER_INITIAL, from);
}

/// Where the timer stands.
#[inline]
pub(super) fn count() -> u32 {
    read(reg::TIMER_CURRENT)
}

/// How the unit of one core stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The mode that the base register says; `None` if the unit is off.
    pub(crate) mode: Option<Mode>,
    /// Whether the spurious-interrupt register enables it.
    pub(crate) enabled: bool,
    /// Whether both pins are masked.
    pub(crate) masked: bool,
    /// Whether the timer interrupts on its own vector, if it does.
    pub(crate) timer: bool,
    /// Whether errors arrive on the vector that has a handler for them.
    pub(crate) reports_errors: bool,
}

impl Setup {
    /// Reads the registers of the core this runs on.
    pub(crate) fn read() -> Self {
        let base = read_msr(APIC_BASE);
        let pins = [reg::LVT_LINT0, reg::LVT_LINT1];
        let timer = read(reg::LVT_TIMER);
        let error = read(reg::LVT_ERROR);
        let mode = if base & BASE_X2APIC != 0 { Mode::X2apic } else { Mode::Xapic };
        Self {
            mode: (base & BASE_ENABLE != 0).then_some(mode),
            enabled: read(reg::SPURIOUS) & SOFTWARE_ENABLE != 0,
            masked: pins.iter().all(|&lvt| read(lvt) & LVT_MASKED != 0),
            timer: timer & LVT_MASKED != 0 || timer & 0xff == u32::from(timer::VECTOR),
            reports_errors: error & (LVT_MASKED | 0xff) == u32::from(vector::ERROR),
        }
    }
}

const fn msr_of(offset: u32) -> u32 {
    0x800 + (offset >> 4)
}

#[inline]
fn read(offset: u32) -> u32 {
    // ORDER: Relaxed; see `mode`.
    match XAPIC.load(Ordering::Relaxed) {
        0 => read_msr(msr_of(offset)) as u32,
        base => read_mapped(base, offset),
    }
}

#[inline(always)]
fn read_mapped(base: u64, offset: u32) -> u32 {
    let register = (base + u64::from(offset)) as *const u32;
    // SAFETY: G5: the page of the registers is mapped uncached at `base`, which is `XAPIC`, for the life of the kernel.
    unsafe { register.read_volatile() }
}

#[inline(always)]
fn write_mapped(base: u64, offset: u32, value: u32) {
    let register = (base + u64::from(offset)) as *mut u32;
    // SAFETY: G5, as in `read_mapped`; the callers write values that the manual defines.
    unsafe { register.write_volatile(value) };
}

#[inline]
fn write(offset: u32, value: u32) {
    // ORDER: Relaxed; see `mode`.
    match XAPIC.load(Ordering::Relaxed) {
        0 => write_msr(msr_of(offset), u64::from(value)),
        base => write_mapped(base, offset, value),
    }
}

fn read_msr(index: u32) -> u64 {
    // SAFETY: only architectural registers that the CPU's features promise are read in this file.
    unsafe { Msr::new(index).read() }
}

#[inline]
fn write_msr(index: u32, value: u64) {
    // SAFETY: only architectural registers that the CPU's features promise are written in this file, with defined values.
    unsafe { Msr::new(index).write(value) };
}
