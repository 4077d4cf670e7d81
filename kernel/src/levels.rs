//! The kernel's locks and their levels, lowest first. A core takes them in rising order only (K1 in `percpu::lock`).
//!
//! | level | lock | guards |
//! |---|---|---|
//! | 10 | [`TABLES`] | the kernel's page tables and the free part of the device region |
//! | 20 | [`EARLY`] | memory before there is a frame allocator |
//! | 50 | in `process` | the list of a process's threads, and how its life goes on |
//! | 55 | in `handler` | where a process's faults go |
//! | 60 | in `wait` | one bucket of waiters |
//! | 70 | in `upcall` | the news for one watcher |
//! | 70 | in `lease` | the turn of one lease |
//! | 90 | in `syscalls` | what is on its way to a thread's home or back |
//! | 90 | in `trace` | records on their way from the core that has them to the one that asked |
//! | 100, 150 | in `tests` | what tests contend for; the first complaint of a test |
//! | 120 | in `arch::ioapic`, of level [`CONTROLLER`] | the registers of an I/O interrupt controller |
//! | 150 | [`HEAP`] | the heap; under it only the core's own frame cache and the log are used |
//! | 190 | `report::ENCODER` | the encoder of records |
//! | 200 | serial | the serial line: a leaf, so that everything can log |

use mm::heap::Heap;
use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::{IrqOff, Lock};

use crate::arch::io::Serial;
use crate::arch::paging::DeviceMap;
use crate::early::Early;
use crate::heap::Arenas;

/// The kernel's page tables, once entered.
pub(crate) static TABLES: Lock<10, Option<DeviceMap>> = Lock::new(None);

/// What is left of the memory map until the frame allocator takes over.
pub(crate) static EARLY: Lock<20, Option<Early>> = Lock::new(None);

/// Level of the locks of I/O interrupt controllers.
pub(crate) const CONTROLLER: u8 = 120;

/// The kernel's heap.
pub(crate) static HEAP: Lock<150, Heap<Arenas>> = Lock::new(Heap::new(Arenas));

static SERIAL: Lock<200, Serial> = Lock::new(Serial::absent());

/// Set when a dying core has taken the serial line by force.
static SEIZED: AtomicBool = AtomicBool::new(false);

/// Uses the serial line.
///
/// This starts a lock chain of its own, since the log must be usable under any lock: level 200 is above them all.
pub(crate) fn serial<R>(f: impl FnOnce(&mut Serial) -> R) -> R {
    // ORDER: Relaxed; only the core that set the flag goes on running (`seize_serial`).
    if SEIZED.load(Ordering::Relaxed) {
        // SAFETY: `seize_serial`'s caller has stopped every other core, and this core never returns to what it was doing.
        return unsafe { SERIAL.force(f) };
    }
    IrqOff::with(|irq| irq.locks(|held| SERIAL.with(held, |serial, _| f(serial))))
}

/// From now on the serial line belongs to this core, whoever held its lock.
///
/// # Safety
/// 1. Every other core has stopped for good.
/// 2. The caller never returns to the code it interrupted.
pub(crate) unsafe fn seize_serial() {
    // ORDER: Relaxed; see `serial`.
    SEIZED.store(true, Ordering::Relaxed);
}
