//! Which error a bad argument has to be refused with, by its kind; and the calls for which it is another, by name.

use abi::error::Error;
use abi::syscall::{Description, Kind};

/// A handle that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    /// The handle that names nothing.
    None,
    /// The right place, another generation.
    Stale,
    /// A place that no table has.
    Forged,
    /// Of a capability that was deleted.
    Deleted,
    /// Of a capability that was taken back with the one that it was made of.
    Revoked,
    /// Another process's, which this one does not have.
    Foreign,
    /// For another kind of object.
    WrongType,
    /// For the right object, without a single right.
    NoRight,
}

pub(crate) const HANDLES: &[HandleKind] = &[
    HandleKind::None,
    HandleKind::Stale,
    HandleKind::Forged,
    HandleKind::Deleted,
    HandleKind::Revoked,
    HandleKind::Foreign,
    HandleKind::WrongType,
    HandleKind::NoRight,
];

impl HandleKind {
    /// The error for it.
    pub(crate) const fn error(self) -> Error {
        match self {
            Self::None | Self::Stale | Self::Forged | Self::Deleted | Self::Revoked | Self::Foreign => {
                Error::BadHandle
            }
            Self::WrongType => Error::WrongType,
            Self::NoRight => Error::MissingRight,
        }
    }
}

/// An address that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointerKind {
    Null,
    Kernel,
    DirectMap,
    NonCanonical,
    /// In the last bytes of the program's half, so that a structure leaves it.
    EndOfHalf,
    /// So that a structure's end is a small address again.
    Wrapping,
    /// So that a structure leaves what is mapped.
    Straddling,
    Unmapped,
    /// Good but for the alignment.
    Unaligned,
    /// Good to be read.
    ReadOnly,
}

pub(crate) const POINTERS: &[PointerKind] = &[
    PointerKind::Null,
    PointerKind::Kernel,
    PointerKind::DirectMap,
    PointerKind::NonCanonical,
    PointerKind::EndOfHalf,
    PointerKind::Wrapping,
    PointerKind::Straddling,
    PointerKind::Unmapped,
    PointerKind::Unaligned,
    PointerKind::ReadOnly,
];

/// Calls that do not come back, or whose coming back says nothing.
pub(crate) fn ends_caller(call: &str) -> bool {
    matches!(call, "thread_exit" | "process_exit" | "period_end" | "yield_now" | "null")
}

/// Calls that are not made again and again: each makes a process or a thread, or copies text to the log.
pub(crate) fn is_slow(call: &str) -> bool {
    matches!(call, "process_create" | "thread_create" | "debug_write")
}

/// The error that a call has to give for a bad handle; `None` where the kind makes no sense.
pub(crate) fn of_handle(row: &Description, index: usize, kind: HandleKind) -> Option<Error> {
    let any_kind = row.name.starts_with("cap_") && row.arguments[index].name != "process";
    match (row.name, kind) {
        // These are about capabilities for whatever kind of object.
        (_, HandleKind::WrongType) if any_kind => None,
        // Anybody may look at a capability, and give it up, and set a time for that.
        ("cap_delete" | "cap_info" | "cap_expire", HandleKind::NoRight) => None,
        // The handle that names nothing stands for "none from now on".
        ("process_handler", HandleKind::None) if row.arguments[index].name == "endpoint" => None,
        ("notification_bind", HandleKind::None) if row.arguments[index].name == "notification" => None,
        _ => Some(kind.error()),
    }
}

/// The error that a call has to give for a bad address; `None` for success.
pub(crate) fn of_pointer(call: &str, of: Kind, kind: PointerKind) -> Option<Error> {
    let outside = matches!(
        kind,
        PointerKind::Kernel
            | PointerKind::DirectMap
            | PointerKind::NonCanonical
            | PointerKind::EndOfHalf
            | PointerKind::Wrapping
    );
    let accepted = match (call, of, kind) {
        // The range is checked, and nothing is written when nothing was recorded.
        ("trace_read", ..) => !outside,
        // Structures are copied byte by byte.
        (_, Kind::In | Kind::Out | Kind::Bytes | Kind::Buffer, PointerKind::Unaligned) => true,
        (_, Kind::In | Kind::Bytes, PointerKind::ReadOnly) => true,
        // Only who waits reads the word; for the others the address is a name, which only has to be one.
        ("futex_wake" | "futex_requeue", Kind::Address, _) => is_name(kind),
        // A word that fits before the end of the mapping, or of the half.
        (_, Kind::Address, PointerKind::Straddling | PointerKind::ReadOnly) => true,
        _ => false,
    };
    match (call, kind) {
        _ if !accepted => Some(Error::BadAddress),
        // The word is not 0, which is expected.
        ("futex_wait", _) => Some(Error::Mismatch),
        _ => None,
    }
}

/// Whether a word of four bytes can have this address.
const fn is_name(kind: PointerKind) -> bool {
    matches!(
        kind,
        PointerKind::Null
            | PointerKind::EndOfHalf
            | PointerKind::Straddling
            | PointerKind::Unmapped
            | PointerKind::ReadOnly
    )
}
