//! What can go wrong, as one table: the exit code of each class and the text `--help` shows for it.
//!
//! A class says what the caller can do about it, an [`Error`] adds what happened and which action comes next.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

macro_rules! classes {
    ($($(#[$doc:meta])* $code:literal $name:ident $text:literal;)*) => {
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
        }
    };
}

classes! {
    /// The same code that the argument parser uses.
    2 Usage "unknown flag, subcommand or value";
    /// A filter that selects nothing.
    3 NothingMatched "the filter matches no test or benchmark";
    /// A machine that cannot exist or that QEMU cannot build.
    4 BadTopology "the machine asked for is impossible";
    /// A program or target is missing and was not installed.
    5 Missing "a needed program is missing and was not installed";
    /// A run directory that is not one.
    6 BadRun "the run directory cannot be read";
    /// Damaged or missing records on the serial port.
    7 CorruptFrame "a record from the guest arrived damaged or not at all";
    /// No space left.
    8 DiskFull "the disk is full";
    /// Panic or unhandled exception in the guest.
    9 GuestPanic "the guest panicked";
    /// The guest took longer than it was given.
    10 Timeout "the guest did not finish in time";
    /// At least one test failed.
    11 TestsFailed "a test failed";
    /// A build failed.
    12 BuildFailed "a build failed";
    /// A check of `cargo xtask check` failed.
    13 CheckFailed "a check of the source tree failed";
    /// QEMU did not start or ended by itself.
    14 QemuFailed "QEMU did not start or ended by itself";
    /// The guest ended with another of its own exit codes.
    15 GuestRefused "the loader or the kernel refused to go on and said why";
    /// A file or pipe failed.
    16 Io "a file could not be read or written";
    /// Figures that cannot be trusted or compared.
    17 Unusable "the measurements are refused (unstable clock, different lanes, no usable row)";
    /// Ctrl-C, `SIGTERM` or `SIGHUP`.
    130 Interrupted "interrupted; what was complete is kept";
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
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(Class::DiskFull, what)
                .next("free some space, or choose another place, and start again"),
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
        write!(out, "{}", self.what)?;
        match &self.next {
            Some(next) => write!(out, "\n  next: {next}"),
            None => Ok(()),
        }
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
    fn a_full_disk_is_its_own_class() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::io(&full, "write", Path::new("x")).class(), Class::DiskFull);
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(Error::io(&other, "read", Path::new("x")).class(), Class::Io);
    }
}
