//! Messages: eight words in registers, a label, up to four capabilities.
//!
//! A server receives with [`Endpoint::receive`] and goes on with [`Endpoint::reply_receive`]; a client uses [`Endpoint::call`]. Each has a form
//! with a deadline. What cannot be done at once fails with `WouldBlock` in the forms that begin with `try_`.

use abi::cap::Handle;
use abi::error::Error;
use abi::ipc::{CAPS, MessageCall, Tag, WORDS};

use crate::arch;
use crate::handle::{Endpoint, Owned, Reply, Result, Typed};
use crate::sys;
use crate::time::Deadline;

/// A message, as it was received or is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Of what was received: the badge of the capability that it came through. Ignored when it is sent.
    pub badge: u64,
    /// Label, counts, and how it is to be passed.
    pub tag: Tag,
    /// The words.
    pub words: [u64; WORDS],
}

impl Message {
    /// Nothing: a label and no words; also what a receiver that takes no capabilities passes in.
    pub const EMPTY: Self = Self::new(0, [0; WORDS]);

    /// A label and eight words.
    #[must_use]
    pub const fn new(label: u32, words: [u64; WORDS]) -> Self {
        Self { badge: 0, tag: Tag::new(label, WORDS), words }
    }

    /// With capabilities, in the last words.
    #[must_use]
    pub fn with_caps(mut self, handles: &[Handle]) -> Self {
        let count = handles.len().min(CAPS);
        self.tag = self.tag.with_caps(count);
        self.words.iter_mut().rev().zip(handles).take(count).for_each(|(word, handle)| *word = handle.0);
        self
    }

    /// Ready to take so many capabilities with what comes in its place.
    #[must_use]
    pub const fn accepting(mut self, count: usize) -> Self {
        self.tag = self.tag.accepting(count);
        self
    }

    /// With a bit of [`Tag`].
    #[must_use]
    pub const fn with(mut self, bit: u64) -> Self {
        self.tag = self.tag.with(bit);
        self
    }

    /// The capabilities that came with it.
    pub fn caps(&self) -> impl Iterator<Item = Handle> + '_ {
        self.words.iter().rev().take(self.tag.caps()).map(|&word| Handle(word))
    }
}

/// Makes a message call; the message is replaced by what comes.
///
/// # Errors
/// See `abi::ipc::MESSAGE_CALLS`.
#[inline(always)]
pub fn enter(which: MessageCall, handle: Handle, message: &mut Message) -> Result<()> {
    let mut word = handle.0;
    // SAFETY: the kernel writes registers only; a capability that comes changes no memory.
    let status = unsafe { arch::message(which as u64, &mut word, &mut message.tag.0, &mut message.words) };
    message.badge = word;
    outcome(status)
}

/// As [`enter`], giving up at a time.
///
/// # Errors
/// As [`enter`], and `TimedOut`.
pub fn enter_until(
    which: MessageCall,
    handle: Handle,
    message: &mut Message,
    deadline: Deadline,
) -> Result<()> {
    let mut word = handle.0;
    message.tag.0 |= Tag::TIMED;
    // SAFETY: as in `enter`.
    let status = unsafe {
        arch::timed_message(which as u64, deadline.0, &mut word, &mut message.tag.0, &mut message.words)
    };
    message.badge = word;
    outcome(status)
}

#[inline(always)]
fn outcome(status: u64) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Error::decode(status).unwrap_or(Error::Unsupported)) }
}

impl Endpoint {
    /// Makes an endpoint.
    ///
    /// # Errors
    /// See `endpoint_create`.
    pub fn create() -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::endpoint_create() }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// Sends a message, and waits until somebody has received it.
    ///
    /// # Errors
    /// See [`enter`].
    #[inline(always)]
    pub fn send(self, message: &Message) -> Result<()> {
        enter(MessageCall::Send, self.handle(), &mut { *message })
    }

    /// Sends a message if somebody waits for it.
    ///
    /// # Errors
    /// `WouldBlock` if nobody does; see [`enter`].
    pub fn try_send(self, message: &Message) -> Result<()> {
        enter(MessageCall::Send, self.handle(), &mut message.with(Tag::NO_WAIT))
    }

    /// Sends a message and waits for the reply.
    ///
    /// # Errors
    /// See [`enter`].
    #[inline(always)]
    pub fn call(self, message: Message) -> Result<Message> {
        let mut message = message;
        enter(MessageCall::Call, self.handle(), &mut message)?;
        Ok(message)
    }

    /// As [`call`](Self::call), giving up at a time.
    ///
    /// # Errors
    /// See [`enter_until`].
    pub fn call_until(self, message: Message, deadline: Deadline) -> Result<Message> {
        let mut message = message;
        enter_until(MessageCall::Call, self.handle(), &mut message, deadline)?;
        Ok(message)
    }

    /// Waits for a message, taking so many capabilities with it.
    ///
    /// # Errors
    /// See [`enter`].
    #[inline(always)]
    pub fn receive(self, caps: usize) -> Result<Message> {
        let mut message = Message::EMPTY.accepting(caps);
        enter(MessageCall::Receive, self.handle(), &mut message)?;
        Ok(message)
    }

    /// Takes a message that somebody wants to send.
    ///
    /// # Errors
    /// `WouldBlock` if nobody does; see [`enter`].
    pub fn try_receive(self, caps: usize) -> Result<Message> {
        let mut message = Message::EMPTY.accepting(caps).with(Tag::NO_WAIT);
        enter(MessageCall::Receive, self.handle(), &mut message)?;
        Ok(message)
    }

    /// As [`receive`](Self::receive), giving up at a time.
    ///
    /// # Errors
    /// See [`enter_until`].
    pub fn receive_until(self, caps: usize, deadline: Deadline) -> Result<Message> {
        let mut message = Message::EMPTY.accepting(caps);
        enter_until(MessageCall::Receive, self.handle(), &mut message, deadline)?;
        Ok(message)
    }

    /// Answers the caller whose message came last, and waits for the next. What the answer's tag accepts holds for the next message.
    ///
    /// # Errors
    /// See [`enter`].
    #[inline(always)]
    pub fn reply_receive(self, answer: Message) -> Result<Message> {
        let mut message = answer;
        enter(MessageCall::ReplyReceive, self.handle(), &mut message)?;
        Ok(message)
    }
}

/// Answers the caller whose message this thread received last.
///
/// # Errors
/// `WrongState` if there is none.
pub fn reply(answer: &Message) -> Result<()> {
    enter(MessageCall::Reply, Handle::NONE, &mut { *answer })
}

/// Makes the caller whose message this thread received last a capability, so that it can be answered later, or by somebody else.
///
/// # Errors
/// See `reply_save`.
pub fn save_reply() -> Result<Owned<Reply>> {
    // SAFETY: no address is passed.
    let handle = unsafe { sys::reply_save() }?;
    Ok(Owned::new(Reply(Handle(handle))))
}

impl Owned<Reply> {
    /// Answers the caller; the capability is used up.
    ///
    /// # Errors
    /// `PeerGone` if the caller waits no longer.
    pub fn answer(self, answer: &Message) -> Result<()> {
        enter(MessageCall::Reply, self.keep().handle(), &mut { *answer })
    }
}
