//! What `message.S` leaves to Rust.

use percpu::IrqOff;

use crate::spaces;
use crate::thread::Thread;

/// Makes the space of a thread, which is current already, the one that this core's user half shows.
///
/// # Safety
/// 1. `thread` is the current thread of the core that calls, which has interrupts off and no other witness in use.
pub(crate) unsafe extern "C" fn enter_space(thread: *const Thread) {
    // SAFETY: obligation 1.
    let irq = unsafe { IrqOff::assume() };
    // SAFETY: obligation 1: a current thread has not ended.
    spaces::enter(&irq, unsafe { &*thread }.space());
}
