//! Servers, in this process or in another.

use abi::cap::{Handle, ObjectKind};
use abi::error::Error;
use abi::ipc::{CAPS, Tag, WORDS};
use alloc::vec::Vec;
use perf::clock::Clock;
use rt::handle::{Endpoint, Region, Result, Typed};
use rt::ipc::Message;
use rt::start::Start;
use rt::time::Tsc;
use rt::{memory, sys};

use super::{BATCH, arch, bulk};

/// What a server does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Service {
    /// Sends it back.
    Echo,
    /// The same, and it uses a vector register before.
    EchoFpu,
    /// The same, keeping so many capabilities of each message until a whole window of them has come.
    Collect(usize),
    /// Answers when it came, in word 0.
    NoteCall,
    /// Answers when the answer was sent, in word 0.
    NoteReply,
    /// Sends it back by a message of its own: what is sent to the first endpoint, to the second.
    Pong,
    /// Answers the sum of what lies in the region, up to the word that word 0 says.
    Sum,
}

/// All of them, as arguments of the partner's.
const SERVICES: [(&str, Service); 10] = [
    ("echo", Service::Echo),
    ("echo-fpu", Service::EchoFpu),
    ("collect-1", Service::Collect(1)),
    ("collect-2", Service::Collect(2)),
    ("collect-3", Service::Collect(3)),
    ("collect-4", Service::Collect(4)),
    ("note-call", Service::NoteCall),
    ("note-reply", Service::NoteReply),
    ("pong", Service::Pong),
    ("sum", Service::Sum),
];

/// What a server works with.
#[derive(Clone, Copy)]
pub(in super::super) struct Given {
    /// Where it receives, and where it sends to.
    pub(super) endpoints: [Endpoint; 2],
    pub(super) region: Option<Region>,
}

impl Given {
    /// What a server in another process is to be given.
    pub(super) fn handles(&self) -> Vec<Handle> {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.handle());
        endpoints.chain(self.region.map(Typed::handle)).collect()
    }

    /// What was given to this process; the first region is the partner's own.
    pub(in super::super) fn of(start: Start) -> Option<Self> {
        let mut endpoints = start.given(ObjectKind::Endpoint).map(Endpoint);
        Some(Self { endpoints: [endpoints.next()?, endpoints.next()?], region: start.regions().nth(1) })
    }
}

impl Service {
    /// As an argument of the partner's.
    pub(super) fn word(self) -> &'static str {
        SERVICES.iter().find(|(_, service)| *service == self).map_or("", |(word, _)| word)
    }

    /// The service of a word.
    pub(in super::super) fn of(word: &str) -> Option<Self> {
        SERVICES.iter().find(|(name, _)| *name == word).map(|(_, service)| *service)
    }

    /// Serves until the endpoint is closed.
    pub(in super::super) fn run(self, given: &Given) -> Result<()> {
        let [endpoint, back] = given.endpoints;
        if self == Self::Pong {
            loop {
                back.send(&endpoint.receive(0)?)?;
            }
        }
        let mut message = first(endpoint, if let Self::Collect(caps) = self { caps } else { 0 })?;
        match self {
            Self::Echo | Self::Pong => loop {
                message = endpoint.reply_receive(message)?;
            },
            Self::EchoFpu => loop {
                arch::use_vector_unit();
                message = endpoint.reply_receive(message)?;
            },
            Self::Collect(caps) => collect(endpoint, message, caps),
            Self::NoteCall => loop {
                message = endpoint.reply_receive(message)?;
                message.words[0] = Tsc.stop().count();
            },
            Self::NoteReply => loop {
                message = endpoint.reply_receive(message)?;
                message.words[0] = Tsc.start().count();
            },
            Self::Sum => {
                let words = memory::shared(given.region.ok_or(Error::BadHandle)?, bulk::PAGES)?;
                loop {
                    message = endpoint.reply_receive(message)?;
                    message.words[0] = bulk::sum(words, message.words[0]);
                }
            }
        }
    }
}

/// Receives the first message; gives the answer that shows what has come: each word inverted, the badge as label.
fn first(endpoint: Endpoint, caps: usize) -> Result<Message> {
    let mut message = endpoint.receive(caps)?;
    if message.tag.caps() != caps {
        return Err(Error::BadHandle);
    }
    message.caps().try_for_each(forget)?;
    message.tag = Tag::new(message.badge as u32, message.tag.words()).accepting(caps);
    message.words = message.words.map(|word| !word);
    Ok(message)
}

/// Answers a window of messages, noting their capabilities, and deletes these when one more message has come.
fn collect(endpoint: Endpoint, mut message: Message, caps: usize) -> Result<()> {
    let mut tails = [[0; CAPS]; BATCH as usize];
    let accepting = Tag::new(0, WORDS - CAPS).accepting(caps);
    loop {
        for tail in &mut tails {
            message = endpoint.reply_receive(message)?;
            message.tag = accepting;
            let [.., fourth, third, second, first] = message.words;
            *tail = [first, second, third, fourth];
        }
        message = endpoint.reply_receive(message)?;
        message.tag = accepting;
        tails
            .iter()
            .flat_map(|tail| tail.iter().take(caps))
            .try_for_each(|&handle| forget(Handle(handle)))?;
    }
}

/// Deletes a capability that came with a message.
fn forget(handle: Handle) -> Result<()> {
    // SAFETY: no address is passed, and no memory is mapped through it.
    unsafe { sys::cap_delete(handle) }.map(drop)
}
