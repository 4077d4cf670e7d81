//! The text log on the serial line. Binary records go out between its lines (`report`).

use core::fmt::{self, Write};

use crate::arch::io::Serial;

struct Text<'a>(&'a mut Serial);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Writes one line.
pub(crate) fn line(message: fmt::Arguments<'_>) {
    crate::levels::serial(|serial| {
        // `Text` cannot fail, so an error could only come from the message's own formatting: the rest of the line is still worth having.
        let _ = Text(serial).write_fmt(message);
        serial.write(b"\n");
    });
}

/// Writes one line to the log, formatted as by `println!`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::line(format_args!($($arg)*)) };
}
