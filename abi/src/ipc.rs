//! Messages: what travels in which register, and the word that describes it.
//!
//! | register | in | out |
//! |---|---|---|
//! | `rax` | number of the call | 0, or an [`Error`](crate::error::Error)'s number |
//! | `rdi` | handle | badge of the capability that the message came through |
//! | `rsi` | [`Tag`] | tag |
//! | `rdx r8 r9 r10 r12 r13 r14 r15` | words 0 to 7 | words 0 to 7 |
//! | `rbx` | with [`Tag::TIMED`]: when to give up, in ticks | kept |
//!
//! `rcx` and `r11` are the CPU's; `rbp` and `rsp` are kept. All eight words travel whatever the tag says. After an error `rdi`, `rsi` and the
//! words are of no meaning. A message's capabilities lie in its last words as handles, the first in word 7, the second in word 6: the
//! receiver finds its own handles there.

/// Registers of a message that hold words.
pub const WORDS: usize = 8;

/// Most capabilities of a message.
pub const CAPS: usize = 4;

/// What a message is.
///
/// | bits | |
/// |---|---|
/// | 0..4 | how many of its words mean something; told to the receiver, not looked at |
/// | 4..7 | how many capabilities it carries, at most [`CAPS`] |
/// | 7 | [`Tag::MOVE`] |
/// | 8 | [`Tag::NO_WAIT`] |
/// | 9 | [`Tag::TIMED`] |
/// | 10..13 | how many capabilities the caller takes with what it receives, at most [`CAPS`] in any case; more are lost. Told, too |
/// | 13 | [`Tag::LOST`] |
/// | 14 | [`Tag::SIGNAL`] |
/// | 15 | [`Tag::FAULT`] |
/// | 16..32 | 0 |
/// | 32..64 | label: the sender's, told to the receiver |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Tag(pub u64);

impl Tag {
    /// The capabilities move: the sender has them no longer. Without this the receiver gets capabilities derived from the sender's.
    pub const MOVE: u64 = 1 << 7;
    /// Fail with `WouldBlock` rather than wait for somebody else to send, or to receive. A call waits for its reply all the same.
    pub const NO_WAIT: u64 = 1 << 8;
    /// Wait until the time in `rbx`, and fail with `TimedOut` then. Without this the call waits for ever.
    pub const TIMED: u64 = 1 << 9;
    /// In what was received: capabilities have not been transferred, because the receiver takes fewer, has no room, or the sender may not
    /// hand them on.
    pub const LOST: u64 = 1 << 13;
    /// In what was received: it is no message but the bits of the bound notification, in the badge.
    pub const SIGNAL: u64 = 1 << 14;
    /// In what was received: it comes from the kernel, for a thread that faulted; see [`Fault`].
    pub const FAULT: u64 = 1 << 15;

    const WORDS_BITS: u64 = 0xf;
    const CAPS_SHIFT: u32 = 4;
    const ACCEPT_SHIFT: u32 = 10;
    const COUNT: u64 = 7;
    /// Where the label lies.
    pub const LABEL_SHIFT: u32 = 32;

    /// Bits with which a message is not passed on as it is: all but those that are told as they are.
    pub const SPECIAL: u64 = 0xffff_ffff & !Self::TOLD;
    /// Those among them that are about capabilities.
    pub const CAPS_PASSED: u64 = Self::COUNT << Self::CAPS_SHIFT | Self::MOVE;
    const TOLD: u64 = Self::LABEL | Self::WORDS_BITS | Self::COUNT << Self::ACCEPT_SHIFT;
    /// Bits that a caller may set.
    pub const KNOWN: u64 = Self::LABEL
        | Self::WORDS_BITS
        | Self::COUNT << Self::CAPS_SHIFT
        | Self::COUNT << Self::ACCEPT_SHIFT
        | Self::MOVE
        | Self::NO_WAIT
        | Self::TIMED;
    const LABEL: u64 = 0xffff_ffff << Self::LABEL_SHIFT;

    /// A message of some words, with a label.
    #[must_use]
    pub const fn new(label: u32, words: usize) -> Self {
        Self((label as u64) << Self::LABEL_SHIFT | words as u64 & Self::WORDS_BITS)
    }

    /// With so many capabilities, at most [`CAPS`].
    #[must_use]
    pub const fn with_caps(self, count: usize) -> Self {
        Self(self.0 & !(Self::COUNT << Self::CAPS_SHIFT) | (count as u64 & Self::COUNT) << Self::CAPS_SHIFT)
    }

    /// Taking so many capabilities with what is received.
    #[must_use]
    pub const fn accepting(self, count: usize) -> Self {
        Self(
            self.0 & !(Self::COUNT << Self::ACCEPT_SHIFT)
                | (count as u64 & Self::COUNT) << Self::ACCEPT_SHIFT,
        )
    }

    /// With one of the bits above.
    #[must_use]
    pub const fn with(self, bit: u64) -> Self {
        Self(self.0 | bit)
    }

    /// Whether one of the bits above is set.
    #[must_use]
    pub const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// The sender's label.
    #[must_use]
    pub const fn label(self) -> u32 {
        (self.0 >> Self::LABEL_SHIFT) as u32
    }

    /// Words that mean something, as the sender says: at most [`WORDS`].
    #[must_use]
    pub const fn words(self) -> usize {
        let told = (self.0 & Self::WORDS_BITS) as usize;
        if told > WORDS { WORDS } else { told }
    }

    /// Capabilities, as the sender says; of what was received at most [`CAPS`].
    #[must_use]
    pub const fn caps(self) -> usize {
        (self.0 >> Self::CAPS_SHIFT & Self::COUNT) as usize
    }

    /// Capabilities that the receiver takes.
    #[must_use]
    pub const fn accepts(self) -> usize {
        (self.0 >> Self::ACCEPT_SHIFT & Self::COUNT) as usize
    }

    /// Whether a caller may pass it: no unknown bit, no more than [`CAPS`] capabilities.
    #[must_use]
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        self.0 & !Self::KNOWN == 0 && self.caps() <= CAPS
    }

    /// What the receiver is told of it: what is told as it is, with so many capabilities.
    #[must_use]
    #[inline(always)]
    pub const fn delivered(self, caps: usize) -> Self {
        Self(self.0 & Self::TOLD).with_caps(caps)
    }
}

/// What a fault message says, word by word. Its label is the exception's vector, 14 for a page fault. The handler maps what is missing, or
/// changes what it likes, and replies: with label [`Fault::RETRY`] the instruction is tried again, with any other the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// The address that was accessed; the instruction's own for exceptions that have none.
    Address = 0,
    /// The instruction's address.
    Instruction = 1,
    /// The error code that the CPU pushed (SDM volume 3, §7.13 and figure 5-12 for page faults).
    Code = 2,
    /// Number of the thread, as `thread_info` tells it.
    Thread = 3,
    /// The stack pointer.
    Stack = 4,
}

impl Fault {
    /// Words of a fault message.
    pub const COUNT: usize = 5;
    /// Label of a reply after which the instruction is tried again.
    pub const RETRY: u32 = 0;
    /// For `process_handler`: page faults that the kernel cannot resolve.
    pub const PAGES: u64 = 1 << 0;
    /// For `process_handler`: all other exceptions of the program.
    pub const EXCEPTIONS: u64 = 1 << 1;
}

/// One of the calls that pass messages. They are no rows of [`crate::for_each_syscall!`], for their registers are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MessageCall {
    /// Sends a message to an endpoint and waits until somebody has received it. Needs `SEND`.
    Send = FIRST,
    /// Waits for a message at an endpoint. Needs `RECEIVE`. Whoever called waits for the reply of this thread.
    Receive = FIRST + 1,
    /// Answers the caller whose message this thread received last (handle 0), or the one of a reply capability, which is used up.
    Reply = FIRST + 2,
    /// Sends a message to an endpoint and waits for the reply to it. Needs `SEND`.
    Call = FIRST + 3,
    /// Answers the caller whose message this thread received last, and waits for the next message at an endpoint. Needs `RECEIVE`.
    ReplyReceive = FIRST + 4,
}

/// Number of the first of the calls that pass messages: behind all others.
pub const FIRST: u64 = crate::syscall::COUNT as u64;

/// The calls that pass messages, as the manual shows them: name, and what it does.
pub const MESSAGE_CALLS: &[(MessageCall, &str, &str)] = &[
    (
        MessageCall::Send,
        "ipc_send",
        "Sends a message to an endpoint and waits until somebody has received it. Needs `SEND`.",
    ),
    (
        MessageCall::Receive,
        "ipc_receive",
        "Waits for a message at an endpoint. Needs `RECEIVE`. A caller waits for this thread's reply; one that has not been answered or saved before is told `PeerGone`.",
    ),
    (
        MessageCall::Reply,
        "ipc_reply",
        "Answers the caller whose message was received last (handle 0), or that of a reply capability, which is used up. Does not wait.",
    ),
    (MessageCall::Call, "ipc_call", "Sends a message to an endpoint and waits for the reply. Needs `SEND`."),
    (
        MessageCall::ReplyReceive,
        "ipc_reply_receive",
        "Answers the caller whose message was received last, if there is one, and waits for the next message at an endpoint. Needs `RECEIVE`.",
    ),
];

const _: () = assert!(size_of::<Tag>() == 8 && Tag::KNOWN & Tag::LOST == 0);

#[cfg(test)]
mod tests {
    use super::{CAPS, MESSAGE_CALLS, Tag};

    #[test]
    fn parts_of_a_tag_do_not_touch_each_other() {
        let tag = Tag::new(0xdead_beef, 8).with_caps(3).accepting(4).with(Tag::MOVE).with(Tag::TIMED);
        assert_eq!((tag.label(), tag.words(), tag.caps(), tag.accepts()), (0xdead_beef, 8, 3, 4));
        assert!(tag.has(Tag::MOVE) && tag.has(Tag::TIMED) && !tag.has(Tag::NO_WAIT) && tag.is_valid());
        assert_eq!(tag.delivered(2), Tag::new(0xdead_beef, 8).with_caps(2).accepting(4));
        assert_eq!(Tag::new(7, 8).0 & Tag::SPECIAL, 0);
    }

    #[test]
    fn tags_with_too_much_are_refused() {
        assert!(!Tag::new(0, 0).with_caps(CAPS + 1).is_valid());
        assert!(!Tag::new(0, 0).with(Tag::SIGNAL).is_valid());
        assert!(!Tag(1 << 20).is_valid());
    }

    #[test]
    fn the_calls_follow_the_others() {
        for (index, row) in MESSAGE_CALLS.iter().enumerate() {
            assert_eq!(row.0 as u64, super::FIRST + index as u64);
        }
    }
}
