//! What `message.S` leaves to Rust.

use percpu::IrqOff;

use crate::arch::user::HEAD;
use crate::thread::{Thread, ThreadRef};
use crate::{dispatch, spaces};

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

/// Goes on with a thread that was called, with the message in its frame, unless what has come up meanwhile comes first.
///
/// # Safety
/// 1. The caller of the message, which waits by now, is current on the core that calls, which has interrupts off and no witness in use.
pub(crate) unsafe extern "C" fn go_on_with_callee(callee: ThreadRef) -> ! {
    // SAFETY: obligation 1.
    let mut irq = unsafe { IrqOff::assume() };
    HEAD.owned(&irq).clear_current();
    dispatch::hand_over(&mut irq, callee)
}
