//! The end of a run that went wrong: stop every core, say why, exit with a failure code.

use core::panic::PanicInfo;

use abi::exit::Exit;
use percpu::CoreId;
use percpu::sync::atomic::{AtomicU32, Ordering};

use crate::arch::{apic, io, tsc};
use crate::{cores, levels, log, machine, symbols};

/// Nobody is stopping.
const RUNNING: u32 = u32::MAX;

/// APIC id of the core that ends the run; [`RUNNING`] before. The first to write it wins.
static STOPPER: AtomicU32 = AtomicU32::new(RUNNING);

/// Cores that have stopped because they were told to.
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// How long the core that ends the run waits for the others to stop, in ticks of the counter: seconds. One that does not answer by then
/// is taken for dead.
const GRACE: u64 = 5_000_000_000;

/// Whether some core has begun to end the run: a non-maskable interrupt then means "halt".
pub(crate) fn stopping() -> bool {
    // ORDER: Acquire pairs with the AcqRel exchange in `stop_other_cores`: the interrupt it sends comes after the write.
    STOPPER.load(Ordering::Acquire) != RUNNING
}

/// Stops all other cores. A core that finds another one already at it halts here; one that fails while it reports its own failure ends
/// the run at once, with what has been reported so far.
pub(crate) fn stop_other_cores() {
    x86_64::instructions::interrupts::disable();
    if !cores::started() {
        return;
    }
    let me = apic::id();
    // ORDER: AcqRel pairs with the Acquire in `stopping`.
    match STOPPER.compare_exchange(RUNNING, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(stopper) if stopper == me => io::exit(Exit::Panic),
        Err(_) => io::halt(),
    }
    // Only those that have handlers: a core that is still the loader's would report the interrupt as its own failure.
    let here = cores::current();
    let others = cores::all_with_handlers();
    let others = others.iter().filter(|&core| core != here);
    let mut asked = 0;
    for core in others {
        apic::send_nmi(machine::apic_id(core));
        asked += 1;
    }
    let from = tsc::now();
    // ORDER: Acquire pairs with Release in `stop_here`.
    while STOPPED.load(Ordering::Acquire) < asked && tsc::now().wrapping_sub(from) < GRACE {
        core::hint::spin_loop();
    }
}

/// A core that was told to stop: says so and halts.
pub(crate) fn stop_here() -> ! {
    // ORDER: Release pairs with Acquire in `stop_other_cores`: what this core did with the serial line is over.
    STOPPED.fetch_add(1, Ordering::Release);
    io::halt()
}

/// Takes the serial line, whoever held it. Only after [`stop_other_cores`].
pub(crate) fn seize_log() {
    // SAFETY: the other cores have said that they stopped, did not answer for seconds, or have no handlers yet, in which case they are
    // on their way into the kernel and write nothing; both callers end in `io::exit`.
    unsafe { levels::seize_serial() };
}

/// The core this runs on, where it is known already.
pub(crate) fn this_core() -> Option<CoreId> {
    cores::started().then(cores::current)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop_other_cores();
    seize_log();
    let stack_marker = 0_u64;
    log!("panic on {:?}: {info}", this_core());
    symbols::print_backtrace(panic as *const () as u64, (&raw const stack_marker) as u64);
    io::exit(Exit::Panic)
}
