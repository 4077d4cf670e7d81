//! The end of a run that went wrong: stop every core, say why, exit with a failure code.

use core::panic::PanicInfo;

use abi::exit::Exit;
use percpu::CoreId;
use percpu::sync::atomic::{AtomicU32, Ordering};

use crate::arch::{apic, io};
use crate::{cores, levels, log, symbols};

/// Nobody is stopping.
const RUNNING: u32 = u32::MAX;

/// APIC id of the core that ends the run; [`RUNNING`] before. The first to write it wins.
static STOPPER: AtomicU32 = AtomicU32::new(RUNNING);

/// How long the stopped cores get to leave the serial line alone, in spins.
const GRACE_SPINS: u32 = 100_000;

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
    apic::send_nmi_all_but_self();
    for _ in 0..GRACE_SPINS {
        core::hint::spin_loop();
    }
}

/// Takes the serial line, whoever held it. Only after [`stop_other_cores`].
pub(crate) fn seize_log() {
    // SAFETY: the other cores have halted in their NMI handler, or have not been started; both callers end in `io::exit`.
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
