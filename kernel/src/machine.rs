//! Facts about the machine, found once during bring-up and constant afterwards.

use limine::mp::Cpu;
use percpu::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use percpu::topology::{ApicId, IdLayout, Sources, TableState, Topology};
use percpu::{CoreId, Frozen, MAX_CORES};
use spin::Once;
use x86_64::{PhysAddr, VirtAddr};

use crate::acpi::{self, PowerOff};
use crate::arch::cpu::Features;
use crate::arch::{cpu, tsc};
use crate::{layout, log};

static FEATURES: Once<Features> = Once::new();
static TOPOLOGY: Frozen<Topology> = Frozen::new(Topology::BLANK);
static CLOCK: Once<(u64, tsc::Source)> = Once::new();
static POWER_OFF: Once<PowerOff> = Once::new();

/// Ticks of the counter at the kernel's first instruction and when the last core came online. 0 before.
static ENTERED: AtomicU64 = AtomicU64::new(0);
static ONLINE: AtomicU64 = AtomicU64::new(0);

/// The processors in the loader's order: APIC id, and physical address of the loader's structure.
///
/// Written by the boot core before any other core runs; constant afterwards.
struct Processors {
    boot: AtomicU32,
    count: AtomicUsize,
    apic_ids: [AtomicU32; MAX_CORES],
    infos: [AtomicU64; MAX_CORES],
}

static PROCESSORS: Processors = Processors {
    boot: AtomicU32::new(0),
    count: AtomicUsize::new(0),
    apic_ids: [const { AtomicU32::new(0) }; MAX_CORES],
    infos: [const { AtomicU64::new(0) }; MAX_CORES],
};

/// The features of the boot core's CPU.
#[inline]
pub(crate) fn features() -> &'static Features {
    FEATURES.get().expect("features are read first of all")
}

/// Settles the features.
pub(crate) fn set_features(features: Features) {
    FEATURES.call_once(|| features);
}

/// Copies the loader's list, whose pointers are valid in the loader's address space only.
pub(crate) fn set_processors(boot: u32, list: &[&Cpu], direct_map: VirtAddr) {
    let count = list.len().min(MAX_CORES);
    for (i, cpu) in list.iter().take(count).enumerate() {
        let info = VirtAddr::from_ptr(*cpu) - direct_map;
        // ORDER: Relaxed, all three; nobody else runs yet (`Processors`).
        PROCESSORS.apic_ids[i].store(cpu.lapic_id, Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        PROCESSORS.infos[i].store(info, Ordering::Relaxed);
    }
    // ORDER: Relaxed; as above.
    PROCESSORS.boot.store(boot, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    PROCESSORS.count.store(count, Ordering::Relaxed);
}

fn processors() -> impl Iterator<Item = (u32, u64)> + Clone {
    // ORDER: Relaxed, all three; constant since before another core ran (`Processors`).
    (0..PROCESSORS.count.load(Ordering::Relaxed))
        // ORDER: Relaxed; as above.
        .map(|i| {
            (PROCESSORS.apic_ids[i].load(Ordering::Relaxed), PROCESSORS.infos[i].load(Ordering::Relaxed))
        })
}

/// The highest APIC id of any processor.
pub(crate) fn highest_apic_id() -> u32 {
    processors().map(|(id, _)| id).max().unwrap_or(0)
}

/// Reads the topology from the firmware's tables and CPUID. What a table lacks or gets wrong is logged.
pub(crate) fn discover(firmware: &acpi::Tables) {
    let sources = Sources { srat: firmware.srat(), slit: firmware.slit(), hmat: firmware.hmat() };
    let layout = IdLayout::discover(cpu::leaf);
    let topology =
        TOPOLOGY.fill(|t| t.fill(&sources, processors().map(|(id, _)| ApicId(id)), |id| layout.ids(id)));
    let notes = topology.notes();
    for (name, state) in [("SRAT", notes.srat), ("SLIT", notes.slit), ("HMAT", notes.hmat)] {
        if let TableState::Rejected(error) = state {
            log!("machine: {name} is not used: {error:?}");
        }
    }
    if notes.dropped_cores + notes.dropped_nodes + notes.dropped_ranges + notes.cores_without_node > 0 {
        log!("machine: incomplete topology: {notes:?}");
    }
    let enabled = firmware.enabled_processors().unwrap_or(0);
    if enabled > topology.core_count() {
        log!(
            "machine: the firmware lists {enabled} processors, the loader started {}",
            topology.core_count()
        );
    }
}

/// The topology.
#[inline]
pub(crate) fn topology() -> &'static Topology {
    TOPOLOGY.get()
}

/// The APIC id of a core.
#[inline]
pub(crate) fn apic_id(core: CoreId) -> u32 {
    topology().core(core).apic.0
}

/// The core that the loader started the kernel on.
pub(crate) fn boot_core() -> CoreId {
    // ORDER: Relaxed; constant since before another core ran (`Processors`).
    let id = PROCESSORS.boot.load(Ordering::Relaxed);
    topology().core_by_apic(ApicId(id)).expect("the boot core is one of the loader's processors")
}

/// Settles the counter's frequency in hertz.
pub(crate) fn set_clock(hertz: u64, source: tsc::Source) {
    CLOCK.call_once(|| (hertz, source));
}

/// The counter's frequency in hertz, and where it comes from.
pub(crate) fn clock() -> (u64, tsc::Source) {
    *CLOCK.get().expect("the clock is calibrated before anything is timed")
}

/// Remembers when the kernel was entered.
pub(crate) fn note_entry(ticks: u64) {
    // ORDER: Relaxed; read for a report only, later on the same core.
    ENTERED.store(ticks, Ordering::Relaxed);
}

/// Remembers when the last core came online.
pub(crate) fn note_online(ticks: u64) {
    // ORDER: Relaxed; as in `note_entry`.
    ONLINE.store(ticks, Ordering::Relaxed);
}

/// Ticks from reset, where the counter starts at 0, until every core was online; and how many of them were the kernel's.
pub(crate) fn boot_ticks() -> (u64, u64) {
    // ORDER: Relaxed, both; as in `note_entry`.
    let online = ONLINE.load(Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    (online, online - ENTERED.load(Ordering::Relaxed))
}

/// Remembers how to switch the machine off.
pub(crate) fn set_power_off(power_off: Option<PowerOff>) {
    if let Some(power_off) = power_off {
        POWER_OFF.call_once(|| power_off);
    }
}

/// How to switch the machine off, if the firmware says.
pub(crate) fn power_off() -> Option<PowerOff> {
    POWER_OFF.get().copied()
}

/// The loader's structure of a core, through the kernel's direct map. Only before the loader's memory is reclaimed.
pub(crate) fn loader_info(core: CoreId) -> &'static Cpu {
    let id = apic_id(core);
    let (_, info) =
        processors().find(|&(own, _)| own == id).expect("the topology's cores are the loader's processors");
    let at = layout::direct(PhysAddr::new(info)).as_ptr::<Cpu>();
    // SAFETY: the loader keeps the structure until its memory is reclaimed, which is after the last caller.
    unsafe { &*at }
}
