//! What clients and the arbiter say to each other.

use abi::ipc::Tag;
use rt::ipc::Message;

/// What a client asks for: the label of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Request {
    /// A qubit; word 0: 1 to wait for one, 0 to be refused if none is free. Takes two capabilities with the answer: the lease, and where the
    /// qubit is measured.
    Allocate = 1,
    /// A measurement. Through the capability that came with the lease.
    Measure = 2,
    /// How much was done; see [`Figures`].
    Report = 3,
    /// The arbiter ends. Through a capability with the badge [`CONTROL`].
    Stop = 4,
}

impl Request {
    pub(crate) const fn decode(label: u32) -> Option<Self> {
        match label {
            1 => Some(Self::Allocate),
            2 => Some(Self::Measure),
            3 => Some(Self::Report),
            4 => Some(Self::Stop),
            _ => None,
        }
    }

    /// A call with one word.
    pub(crate) fn with(self, word: u64) -> Message {
        Message::new(self as u32, [word, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// How the arbiter answers: the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reply {
    /// Done. After `Allocate`: word 0 the qubit, word 1 the deadline in ticks, word 2 the fidelity in parts per million. After `Measure`: word 0
    /// the outcome.
    Done = 1,
    /// No qubit is free.
    Busy = 2,
    /// The lease is over: the qubit has lost its coherence, or has been released.
    Decohered = 3,
    /// The request makes no sense, or not through this capability.
    Refused = 4,
}

impl Reply {
    pub(crate) fn with(self, words: [u64; 3]) -> Message {
        let [a, b, c] = words;
        Message::new(self as u32, [a, b, c, 0, 0, 0, 0, 0])
    }

    /// Whether a message is this answer.
    pub(crate) fn is(self, message: &Message) -> bool {
        message.tag.label() == self as u32 && !message.tag.has(Tag::SIGNAL)
    }
}

/// Badge of a capability through which the arbiter can be stopped.
pub(crate) const CONTROL: u64 = u64::MAX;

/// Bit of badges that stand for a turn of a qubit.
const TURN: u64 = 1 << 62;

/// The badge of where a qubit is measured: the qubit, and which turn of it.
pub(crate) const fn badge(qubit: usize, turn: u64) -> u64 {
    TURN | (qubit as u64) << 40 | turn & 0xff_ffff_ffff
}

/// The qubit and the turn of a badge.
pub(crate) const fn turn_of(badge: u64) -> Option<(usize, u64)> {
    if badge >> 62 == 1 { Some(((badge & !TURN) as usize >> 40, badge & 0xff_ffff_ffff)) } else { None }
}

/// Words of the answer to `Report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Leases given out.
    pub(crate) given: u64,
    /// Leases that ended because the coherence did.
    pub(crate) expired: u64,
    /// Measurements refused because the lease was over.
    pub(crate) decohered: u64,
}
