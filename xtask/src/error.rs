//! What can go wrong, as one table: the exit code of each class, the text `--help` shows for it, and what to
//! do about it.
//!
//! A class says what the caller can do about it, an [`Error`] adds what happened and which action comes next.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

macro_rules! classes {
    ($($(#[$doc:meta])* $code:literal $name:ident $text:literal next $next:literal;)*) => {
        /// The class of a failure. The discriminant is the exit code of `cargo xtask`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Class { $($(#[$doc])* $name = $code),* }

        impl Class {
            /// Every class, in table order.
            pub const ALL: &'static [Class] = &[$(Class::$name),*];

            /// The exit code.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Class::$name => $code),* }
            }

            /// One line for the table of `--help`.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Class::$name => $text),* }
            }

            /// The action that comes next unless an error knows a better one.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $(Class::$name => $next),* }
            }
        }
    };
}

classes! {
    /// The same code that the argument parser uses.
    2 Usage "unknown flag, subcommand or value"
        next "run `cargo xtask --help`, or the subcommand with `--help`";
    /// A filter that selects nothing.
    3 NothingMatched "the filter matches no test or benchmark"
        next "leave the filter out to see every name";
    /// A machine that cannot exist or that QEMU cannot build.
    4 BadTopology "the machine asked for is impossible"
        next "ask for another machine with --smp, --nodes and --mem, or correct the topology file";
    /// A program or target is missing and was not installed.
    5 Missing "a needed program is missing and was not installed"
        next "run `cargo xtask setup`";
    /// A run directory that is not one.
    6 BadRun "the run directory cannot be read"
        next "name a folder that `cargo xtask bench` has written";
    /// Damaged or missing records on the serial port.
    7 CorruptFrame "a record from the guest arrived damaged or not at all"
        next "run it again; if it happens again, read serial.log of the run";
    /// No space left.
    8 DiskFull "the disk is full"
        next "free some space, or choose another place, and start again";
    /// Panic or unhandled exception in the guest.
    9 GuestPanic "the guest panicked"
        next "read the end of the log; `cargo xtask run --gdb` stops the same kernel for a debugger";
    /// The guest took longer than it was given.
    10 Timeout "the guest did not finish in time"
        next "run it again on a less busy host, or ask for a smaller machine";
    /// At least one test failed.
    11 TestsFailed "a test failed"
        next "run `cargo xtask test NAME` to see one of them alone";
    /// A build failed.
    12 BuildFailed "a build failed"
        next "fix what the compiler reports";
    /// A check of `cargo xtask check` failed.
    13 CheckFailed "a check of the source tree failed"
        next "fix what is listed, then run `cargo xtask check` again";
    /// QEMU did not start or ended by itself.
    14 QemuFailed "QEMU did not start or ended by itself"
        next "read QEMU's message, and run `cargo xtask setup --check`";
    /// The guest ended with another of its own exit codes.
    15 GuestRefused "the loader or the kernel refused to go on and said why"
        next "read the last lines of the log, which name the reason";
    /// A file or pipe failed.
    16 Io "a file could not be read or written"
        next "check that the path exists and may be read and written";
    /// Figures that cannot be trusted or compared.
    17 Unusable "the measurements are refused (unstable clock, different lanes, no usable row)"
        next "measure again on a host with nothing else to do, with equal flags";
    /// A comparison that does not pass.
    18 Regressed "a comparison found a regression, or a case that is missing or failed"
        next "mend what is listed, and measure again";
    /// Ctrl-C, `SIGTERM` or `SIGHUP`.
    130 Interrupted "interrupted; what was complete is kept"
        next "start the same command again";
}

/// A failure: its class, what happened, and the action that comes next.
#[derive(Debug)]
pub struct Error {
    class: Class,
    what: String,
    next: Option<String>,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `class`; `what` is a sentence without a full stop.
    #[must_use]
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), next: None }
    }

    /// Adds the action that comes next, as an imperative sentence.
    #[must_use]
    pub fn next(mut self, action: impl Into<String>) -> Self {
        self.next = Some(action.into());
        self
    }

    /// Names the file or object the failure is about.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }

    /// A failed file operation: `doing` is a phrase such as "write".
    #[must_use]
    pub fn io(error: &io::Error, doing: &str, path: &Path) -> Self {
        let what = format!("cannot {doing} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(Class::DiskFull, what),
            _ => Self::new(Class::Io, what),
        }
    }

    /// The class of the failure.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The process exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.class.code())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\n  next: {}", self.what, self.next.as_deref().unwrap_or(self.class.next()))
    }
}

impl std::error::Error for Error {}

/// The exit-code table of `--help`.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("Exit codes:\n    0  success\n");
    for class in Class::ALL {
        text.push_str(&format!("  {:>3}  {}\n", class.code(), class.describe()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Class, Error, table};
    use std::io;
    use std::path::Path;

    #[test]
    fn codes_are_distinct_and_in_the_table() {
        let mut codes: Vec<u8> = Class::ALL.iter().map(|class| class.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Class::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&1));
        assert!(Class::ALL.iter().all(|class| table().contains(class.describe())));
    }

    #[test]
    fn every_error_says_what_comes_next() {
        for &class in Class::ALL {
            assert!(!class.next().trim().is_empty(), "{class:?}");
            let plain = Error::new(class, "what").to_string();
            assert_eq!(plain, format!("what\n  next: {}", class.next()));
            assert_eq!(Error::new(class, "what").next("better").to_string(), "what\n  next: better");
        }
    }

    #[test]
    fn a_full_disk_is_its_own_class() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::io(&full, "write", Path::new("x")).class(), Class::DiskFull);
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(Error::io(&other, "read", Path::new("x")).class(), Class::Io);
    }
}
