//! A panic ends the process: its message to the log, its code 101.

use core::panic::PanicInfo;

use crate::start;

/// The exit code of a process that panicked, the one that Rust programs have elsewhere too.
const PANICKED: u64 = 101;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    start::say(format_args!("{info}"));
    start::exit(PANICKED)
}
