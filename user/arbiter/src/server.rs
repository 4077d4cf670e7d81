//! The arbiter itself: one thread that receives requests, and, because the notification is bound to it, the ends of leases where requests come.

use abi::cap::Rights;
use abi::error::Error;
use abi::ipc::Tag;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Notification, Owned, Reply as Caller, Typed};
use rt::ipc::{self, Message};
use rt::say;
use rt::start::Start;
use rt::time::Deadline;

use crate::backend::{MOST, Qubit, Random};
use crate::protocol::{CONTROL, Figures, Reply, Request, badge, turn_of};

struct Arbiter {
    door: Endpoint,
    qubits: Vec<Qubit>,
    /// Callers that wait for a qubit, the first first.
    waiting: VecDeque<Owned<Caller>>,
    random: Random,
    figures: Figures,
    ended: Owned<Notification>,
}

/// What becomes of a caller.
enum Next {
    /// It is answered with this.
    Answer(Message),
    /// It waits.
    Waits,
    /// It is answered with this, and the arbiter ends.
    End(Message),
}

pub(crate) fn main(start: &Start) -> u64 {
    let Some(&door) = start.handles().first() else { return 91 };
    match Arbiter::new(start, Endpoint(door)).and_then(Arbiter::serve) {
        Ok(figures) => {
            say!("arbiter: {} leases of simulated qubits, {} expired", figures.given, figures.expired);
            0
        }
        Err(error) => {
            say!("arbiter: {}", error.words());
            92
        }
    }
}

impl Arbiter {
    fn new(start: &Start, door: Endpoint) -> Result<Self, Error> {
        let count = (start.number("qubits", 2) as usize).clamp(1, MOST);
        let coherence = Nanos::from_millis(start.number("coherence", 20));
        let mut random = Random(start.number("seed", 1));
        let ended = Notification::create()?;
        ended.bind(start.thread())?;
        let qubits = (0..count).map(|number| Qubit::simulate(number, *ended, coherence, &mut random));
        let qubits = qubits.collect::<Result<Vec<_>, _>>()?;
        say!("arbiter: {count} SIMULATED qubits, coherence from {coherence:?}; no quantum hardware is used");
        Ok(Self { door, qubits, waiting: VecDeque::new(), random, figures: Figures::default(), ended })
    }

    fn serve(mut self) -> Result<Figures, Error> {
        let mut message = self.door.receive(0)?;
        loop {
            if message.tag.has(Tag::SIGNAL) {
                self.serve_waiting()?;
                message = self.door.receive(0)?;
                continue;
            }
            message = match self.request(&message)? {
                Next::Answer(answer) => self.door.reply_receive(answer)?,
                Next::Waits => self.door.receive(0)?,
                Next::End(answer) => {
                    // Whoever was asked last is answered; that it may have gone is its own business.
                    let _ = ipc::reply(&answer);
                    self.count();
                    let _ = self.ended;
                    return Ok(self.figures);
                }
            };
        }
    }

    fn request(&mut self, message: &Message) -> Result<Next, Error> {
        let answer = match Request::decode(message.tag.label()) {
            Some(Request::Allocate) => match self.allocate()? {
                Some(given) => given,
                None if message.words[0] == 0 => Reply::Busy.with([0; 3]),
                None => {
                    self.waiting.push_back(ipc::save_reply()?);
                    return Ok(Next::Waits);
                }
            },
            Some(Request::Measure) => self.measure(message.badge),
            Some(Request::Report) => {
                self.count();
                let Figures { given, expired, decohered } = self.figures;
                Reply::Done.with([given, expired, decohered])
            }
            Some(Request::Stop) if message.badge == CONTROL => {
                return Ok(Next::End(Reply::Done.with([0; 3])));
            }
            Some(Request::Stop) | None => Reply::Refused.with([0; 3]),
        };
        Ok(Next::Answer(answer))
    }

    /// Gives out the first qubit that is free, if one is.
    fn allocate(&mut self) -> Result<Option<Message>, Error> {
        for (number, qubit) in self.qubits.iter().enumerate() {
            let until = Deadline::after(qubit.coherence);
            let turn = match qubit.lease.allocate(until, qubit.fidelity) {
                Ok(turn) => turn,
                Err(Error::WrongState) => continue,
                Err(error) => return Err(error),
            };
            self.figures.given += 1;
            // Only the owner gets a capability with this badge; the turn in it is what the qubit's lease is asked for.
            let number_of_turn = qubit.lease.info()?.turns;
            let rights = Rights::SEND.with(Rights::GRANT);
            let place = self.door.derive(rights, badge(number, number_of_turn))?;
            let answer = Reply::Done.with([number as u64, until.0, qubit.fidelity]);
            let handles = [turn.keep().handle(), place.keep().handle()];
            // They move: the arbiter keeps neither.
            return Ok(Some(answer.with_caps(&handles).with(Tag::MOVE)));
        }
        Ok(None)
    }

    /// Leases have ended: who waits gets what is free.
    fn serve_waiting(&mut self) -> Result<(), Error> {
        while let Some(caller) = self.waiting.pop_front() {
            let Some(given) = self.allocate()? else {
                self.waiting.push_front(caller);
                return Ok(());
            };
            if caller.answer(&given).is_err() {
                // It waits no longer. The capabilities are still here.
                given.caps().for_each(|handle| drop(Owned::new(rt::handle::Lease(handle))));
            }
        }
        Ok(())
    }

    /// A measurement through a badge: only in the turn that it stands for.
    fn measure(&mut self, badge: u64) -> Message {
        let Some((number, turn)) = turn_of(badge) else { return Reply::Refused.with([0; 3]) };
        let Some(qubit) = self.qubits.get(number) else { return Reply::Refused.with([0; 3]) };
        let goes_on = qubit.lease.info().is_ok_and(|info| info.held == 1 && info.turns == turn);
        if goes_on {
            return Reply::Done.with([qubit.measure(&mut self.random), 0, 0]);
        }
        self.figures.decohered += 1;
        Reply::Decohered.with([0; 3])
    }

    fn count(&mut self) {
        self.figures.expired =
            self.qubits.iter().filter_map(|qubit| qubit.lease.info().ok()).map(|info| info.expired).sum();
    }
}
