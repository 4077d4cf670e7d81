//! From the loader's jump to all cores idle.
//!
//! 1. [`boot_main`], on the loader's stack and page tables: copy the loader's answers, build the kernel's own page tables.
//! 2. [`boot_continue`], in the kernel's space on a stack in the image: firmware tables, topology, frame allocator, and for every core its
//!    core-local data and stacks on its own node.
//! 3. [`boot_core`], on the boot core's own stack: release the other cores, calibrate the clock meanwhile, wait for them, go to work.
//! 4. [`core_main`], every other core: its tables, its interrupt controller, online, idle.

use abi::boot::{Mode, Params};
use abi::debug::TraceEvents;
use abi::exit::Exit;
use mm::PhysRange;
use percpu::CoreId;
use percpu::sync::cell::UnsafeCell;
use spin::Once;
use x86_64::VirtAddr;

use crate::arch::apic;
use crate::arch::border;
use crate::arch::entry;
use crate::arch::io;
use crate::arch::ioapic;
use crate::arch::paging::{self, KernelTables, Kind};
use crate::arch::tables;
use crate::arch::{cpu, fpu, idle, speculation, timer, tsc, usercopy};
use crate::early::{self, Early};
use crate::image;
use crate::layout::{self, DIRECT};
use crate::levels;
use crate::loader::{self, Handover};
use crate::{
    acpi, bench, cores, dispatch, heap, log, machine, memory, programs, report, skew, stacks, symbols, tests,
    trace,
};

/// What the loader told us.
static HANDOVER: Once<Handover> = Once::new();

/// The loader's answers; available from [`boot_continue`] on.
pub(crate) fn handover() -> &'static Handover {
    HANDOVER.get().expect("the handover is filled before anything asks for it")
}

/// The decoded command line.
pub(crate) fn params() -> Params<'static> {
    Params::parse(handover().command_line()).unwrap_or_default()
}

/// The stack between the loader's and the boot core's own, in the image because nothing can be allocated on a node yet.
#[repr(C, align(4096))]
struct BootStack(UnsafeCell<[u8; BOOT_STACK]>);

// SAFETY: only the boot core ever runs on it, and nothing refers to it as a value.
unsafe impl Sync for BootStack {}

const BOOT_STACK: usize = 64 * 1024;
/// The lowest part of it is for exceptions that need a stack of their own.
const EARLY_IST: usize = 8 * 1024;
static BOOT_STACK_MEMORY: BootStack = BootStack(UnsafeCell::new([0; BOOT_STACK]));

/// Ends the run before the kernel is up.
fn give_up(exit: Exit, why: core::fmt::Arguments<'_>) -> ! {
    log!("boot: {why}");
    io::exit(exit)
}

/// First Rust code of the kernel; see the module's header.
pub(crate) extern "C" fn boot_main() -> ! {
    machine::note_entry(tsc::now());
    levels::serial(|serial| serial.init());
    let mut handover = loader::empty();
    if let Err(missing) = handover.fill() {
        give_up(Exit::BadLoader, format_args!("the boot loader did not provide: {missing:?}"));
    }
    let handover = HANDOVER.call_once(|| handover);
    machine::set_features(cpu::Features::read());
    cpu::protect(machine::features());
    usercopy::choose(machine::features());
    match loader::processors() {
        Ok((boot, list)) => machine::set_processors(boot, list, handover.direct_map),
        Err(missing) => {
            give_up(Exit::BadLoader, format_args!("the boot loader did not provide: {missing:?}"))
        }
    }
    let Some(tables) = build_tables(handover) else {
        give_up(Exit::NoMemory, format_args!("not enough memory for the kernel's page tables"));
    };
    let root = tables.root();
    entry::publish_root(root);
    paging::install(tables);
    let top = VirtAddr::from_ptr(&raw const BOOT_STACK_MEMORY) + BOOT_STACK as u64;
    // SAFETY: the tables map the image, where the stack is, and the direct map, which is all that `boot_continue` needs.
    unsafe { entry::switch(root, top, boot_continue, 0) }
}

/// Builds the kernel's page tables: the direct map and the image.
fn build_tables(handover: &Handover) -> Option<KernelTables> {
    let offset = handover.direct_map;
    let mut early = Early::new(&handover.ranges, offset.as_u64());
    let mut page = || early.take(early::PAGE);
    let mut tables = KernelTables::new(offset, &mut page)?;
    // What the image's own mapping forbids to write, the direct map shows read-only too.
    let constant = image::constant();
    for &(range, _) in handover.ranges.all() {
        for (part, kind) in [
            (PhysRange::new(range.start, range.end.min(constant.start)), Kind::Data),
            (PhysRange::new(range.start.max(constant.start), range.end.min(constant.end)), Kind::ReadOnly),
            (PhysRange::new(range.start.max(constant.end), range.end), Kind::Data),
        ] {
            if !part.is_empty() {
                tables.map(VirtAddr::new(DIRECT.base + part.start.address()), part, kind, &mut page)?;
            }
        }
    }
    for (start, end, kind) in image::segments() {
        tables.map(VirtAddr::new(start), image::frames(start, end), kind, &mut page)?;
    }
    for region in [&layout::STACKS, &layout::DEVICES, &layout::INFO] {
        tables.reserve(region, &mut page)?;
    }
    early.relocate(DIRECT.base);
    percpu::IrqOff::with(|irq| irq.locks(|held| levels::EARLY.with(held, |slot, _| *slot = Some(early))));
    Some(tables)
}

/// In the kernel's own address space.
extern "C" fn boot_continue(_: u64) -> ! {
    let ist_top = VirtAddr::from_ptr(&raw const BOOT_STACK_MEMORY) + EARLY_IST as u64;
    // SAFETY: once, here; the lowest part of the boot stack is set aside for it (`EARLY_IST`).
    unsafe { tables::load_early(ist_top) };
    let handover = handover();
    if let Some((address, length)) = handover.file {
        let start = layout::direct(address).as_ptr::<u8>();
        // SAFETY: the loader keeps the file in memory of the type "executable and modules", which nothing reuses.
        symbols::install(unsafe { core::slice::from_raw_parts(start, length) });
    }
    if let Err(bad) = Params::parse(handover.command_line()) {
        give_up(
            Exit::BadCommandLine,
            format_args!("the kernel command line has the unknown word {:?}", bad.0),
        );
    }
    if params().plant == "early-fault" {
        plant::page_fault();
    }
    fpu::choose(params().fpu);
    idle::choose(params().idle);
    speculation::choose(params().mitigations, params().kpti);
    choose_interrupt_controller();
    let Some(firmware) = acpi::Tables::open(handover.rsdp) else {
        give_up(Exit::BadLoader, format_args!("the ACPI tables are damaged"));
    };
    machine::discover(&firmware);
    if cores::prepare().is_none() {
        give_up(Exit::NoMemory, format_args!("not enough memory for the cores' stacks and data"));
    }
    let top = stacks::top(machine::boot_core(), 0);
    if border::prepare().is_none() {
        give_up(Exit::NoMemory, format_args!("not enough memory for the tables that programs run under"));
    }
    // SAFETY: the same root; the stack was mapped by `cores::prepare` and nothing uses it yet.
    unsafe { entry::switch(paging::current_root(), top, boot_core, 0) }
}

fn choose_interrupt_controller() {
    let wanted = params().apic == abi::boot::ApicMode::Auto && machine::features().x2apic;
    if wanted {
        apic::choose(None);
        return;
    }
    if machine::highest_apic_id() > 0xff {
        give_up(Exit::Unsupported, format_args!("APIC ids above 255 need x2APIC"));
    }
    let registers = paging::map_physical(apic::xapic_address(), early::PAGE, Kind::Device);
    let Some(registers) = registers else {
        give_up(Exit::NoMemory, format_args!("no memory to map the interrupt controller"));
    };
    apic::choose(Some(registers));
}

/// On the boot core's own stack.
extern "C" fn boot_core(_: u64) -> ! {
    cores::enter(machine::boot_core());
    cores::release_others();
    let firmware = acpi::Tables::open(handover().rsdp).expect("G8: the tables were opened before");
    firmware.find_references();
    let clock = tsc::calibrate(acpi::references());
    let Some((hertz, source)) = clock else {
        give_up(
            Exit::Unsupported,
            format_args!("the time-stamp counter's frequency is unknown: no HPET, no PM timer"),
        );
    };
    machine::set_clock(hertz, source);
    if !percpu::IrqOff::with(|irq| timer::calibrate(irq, params().lane)) {
        give_up(Exit::Unsupported, format_args!("the timer of the interrupt controller stands still"));
    }
    if let Err(missing) = cores::wait_for_all() {
        give_up(Exit::Unsupported, format_args!("{missing:?} did not come online"));
    }
    machine::note_online(tsc::now());
    machine::set_power_off(firmware.power_off());
    percpu::IrqOff::with(|irq| irq.locks(|held| ioapic::discover(held, &firmware)));
    if let Err(error) = memory::init() {
        give_up(Exit::NoMemory, format_args!("the frame allocator could not be set up: {error}"));
    }
    if !heap::start() {
        give_up(Exit::NoMemory, format_args!("not enough memory for the heap"));
    }
    programs::install();
    report::banner();
    let Some(mut crew) = cores::Crew::new() else {
        give_up(Exit::NoMemory, format_args!("not enough memory to call every core at once"));
    };
    if !cores::equip(&mut crew) {
        give_up(Exit::NoMemory, format_args!("not enough memory for the cores' shootdown requests"));
    }
    crew.run(&cores::all_online(), |held| dispatch::enter(held));
    percpu::race::seed(params().seed);
    skew::check(&mut crew);
    if params().trace != TraceEvents::NONE && trace::switch(params().trace).is_none() {
        give_up(Exit::NoMemory, format_args!("not enough memory for the trace rings"));
    }
    run(crew)
}

/// An application processor; see the module's header. `index` is the top word of its stack.
pub(crate) extern "C" fn core_main(index: u64) -> ! {
    cpu::protect(machine::features());
    let core = CoreId::from_index(index as usize)
        .expect("the stack's top word was written by `cores::release_others`");
    cores::enter(core);
    cores::online(core);
    cores::idle()
}

/// Does what the command line asks for. In a section of its own: the only code that may call into the laboratory (`link.ld`).
#[inline(never)]
#[unsafe(link_section = ".text.gate")]
fn run(crew: cores::Crew) -> ! {
    let params = params();
    match params.plant {
        "panic" => panic!("planted: a panic was asked for"),
        "page-fault" => plant::page_fault(),
        "write-text" => plant::write_to_text(),
        "stack-overflow" => plant::stack_overflow(),
        "read-laboratory" => plant::read_laboratory(),
        "hang" => io::halt(),
        "" | tests::PLANT_LEAK => {}
        unknown => {
            give_up(Exit::BadCommandLine, format_args!("no bug of the name {unknown:?} can be planted"))
        }
    }
    let exit = match params.mode {
        Mode::Idle => cores::idle(),
        Mode::Test => tests::run(&params, crew),
        Mode::Bench => bench::run(&params, crew),
    };
    finish(exit)
}

/// Ends a run that did what was asked: with the emulator's exit device, or by switching the machine off.
fn finish(exit: Exit) -> ! {
    io::try_exit(exit);
    if let Some(power_off) = machine::power_off() {
        power_off.perform();
    }
    io::halt()
}

/// Whether an address is inside a stack that is mapped (G6).
pub(crate) fn is_stack(address: u64) -> bool {
    let boot = VirtAddr::from_ptr(&raw const BOOT_STACK_MEMORY).as_u64();
    (boot..boot + BOOT_STACK as u64).contains(&address) || stacks::contains(address, cores::prepared())
}

/// Faults on purpose, to see that they are reported: `plant=` on the command line.
mod plant {
    use crate::layout;

    /// Reads an address that nothing maps.
    pub(super) fn page_fault() {
        let nowhere = (layout::DEVICES.base + layout::DEVICES.size - 4096) as *const u64;
        // SAFETY: none: this is the fault that was asked for.
        unsafe { nowhere.read_volatile() };
    }

    /// Writes to the kernel's code, which G1 forbids.
    pub(super) fn write_to_text() {
        let text = layout::IMAGE.base as *mut u8;
        // SAFETY: none: this is the fault that was asked for.
        unsafe { text.write_volatile(0) };
    }

    /// Reads the first byte of the laboratory: a fault where the kernel runs without it.
    pub(super) fn read_laboratory() {
        let code = layout::IMAGE.base as *const u8;
        // SAFETY: code, which nobody writes, or the fault that was asked for.
        unsafe { code.read_volatile() };
    }

    /// Runs into the guard page below the stack.
    #[inline(never)]
    pub(super) fn stack_overflow() {
        let frame = [0_u8; 512];
        core::hint::black_box(&frame);
        core::hint::black_box(stack_overflow as fn())();
        core::hint::black_box(&frame);
    }
}
