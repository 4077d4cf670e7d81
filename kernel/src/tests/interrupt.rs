//! Interrupt lines: the words that say what comes next, the controllers' entries, and drivers in ring 3.

use abi::debug::{Counter, Metrics};
use percpu::{CoreId, CoreSet, Held, IrqOff};

use super::bed::Blame;
use super::user::passes;
use super::{Bed, Result, ensure, failed};
use crate::arch::ioapic::{self, FIRST_VECTOR, Gate, LINES, Target, Trigger};
use crate::arch::{apic, io, tsc};
use crate::interrupt::{self, Interrupt, Step, Word};
use crate::notification::Notification;
use crate::{cores, machine, metrics};

/// What two cores and a device can do to a line at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Acknowledge,
    Mask,
    Unmask,
}

const DEEDS: [Deed; 3] = [Deed::Acknowledge, Deed::Mask, Deed::Unmask];

/// Where somebody is who changes a line: what `Interrupt::perform` does, access by access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begin,
    ReadWord,
    WritePin(bool),
    Signal,
    Done,
}

/// Somebody who changes a line, or its handler.
#[derive(Clone, Copy, Debug)]
struct Actor {
    /// `None`: the interrupt's handler.
    deed: Option<Deed>,
    at: At,
    step: Step,
}

impl Actor {
    fn new(deed: Option<Deed>) -> Self {
        Self { deed, at: At::Begin, step: Step { pin: false, signal: false, spurious: false } }
    }
}

/// A line, its pin, its device, and who is at work on it.
#[derive(Clone, Copy, Debug)]
struct Model {
    trigger: Trigger,
    word: Word,
    gate: Gate,
    /// The line has been let go once: what is before that is nobody's.
    opened: bool,
    /// What the driver has not been told of since it happened.
    untold: bool,
    /// The device asserts a level.
    asserted: bool,
    /// Signals since the last acknowledgement.
    signals: u32,
    /// What the device may still do.
    events: u32,
    handler: Option<Actor>,
    /// An edge has been sent to the core and waits there.
    sent: bool,
    actors: [Actor; 2],
    /// Who has the controller's lock.
    locked: Option<usize>,
}

/// The handler's number beside those of the actors.
const HANDLER: usize = 2;

impl Model {
    fn new(trigger: Trigger, word: Word, deeds: [Option<Deed>; 2], events: u32) -> Self {
        let gate = if word.is_held() { Gate::Masked } else { Gate::Open };
        Self {
            trigger,
            word,
            gate,
            opened: word != Word::claimed(trigger),
            untold: false,
            asserted: false,
            signals: 0,
            events,
            handler: None,
            sent: false,
            actors: deeds.map(|deed| match deed {
                Some(_) => Actor::new(deed),
                None => Actor { at: At::Done, ..Actor::new(None) },
            }),
            locked: None,
        }
    }

    /// The device wants something. A controller forgets an edge of a masked pin.
    fn event(mut self) -> Self {
        self.events -= 1;
        self.untold |= self.opened;
        match self.trigger {
            Trigger::Edge => self.sent |= self.gate == Gate::Open,
            Trigger::Level => self.asserted = true,
        }
        self
    }

    fn can_interrupt(&self) -> bool {
        let wanted = match self.trigger {
            Trigger::Edge => self.sent,
            Trigger::Level => self.asserted && self.gate == Gate::Open,
        };
        wanted && self.handler.is_none()
    }

    fn interrupt(mut self) -> Self {
        self.sent = false;
        self.handler = Some(Actor::new(None));
        self
    }

    /// One access of somebody; `None` if it has to wait.
    fn advance(mut self, who: usize) -> Option<Self> {
        let mut actor = if who == HANDLER { self.handler? } else { self.actors[who] };
        match actor.at {
            At::Begin => {
                let (word, step) = match actor.deed {
                    None => self.word.came(),
                    Some(Deed::Acknowledge) => self.word.acknowledged(),
                    Some(Deed::Mask) => self.word.masked(),
                    Some(Deed::Unmask) => self.word.unmasked(),
                };
                self.word = word;
                actor.step = step;
                actor.at = if step.pin { At::ReadWord } else { At::Signal };
            }
            At::ReadWord if self.locked.is_some() => return None,
            At::ReadWord => {
                self.locked = Some(who);
                actor.at = At::WritePin(self.word.is_held());
            }
            At::WritePin(held) => {
                self.gate = if held { Gate::Masked } else { Gate::Open };
                self.opened |= self.gate == Gate::Open;
                self.locked = None;
                actor.at = At::Signal;
            }
            At::Signal => {
                if actor.step.signal {
                    self.signals += 1;
                    self.untold = false;
                    // The driver answers the device before it acknowledges.
                    self.asserted = false;
                }
                actor.at = At::Done;
            }
            At::Done => return None,
        }
        if who == HANDLER {
            self.handler = (actor.at != At::Done).then_some(actor);
        } else {
            self.actors[who] = actor;
        }
        Some(self)
    }

    /// Goes through every order in which things can happen, and looks at each end.
    fn explore(self, states: &mut u64) -> Result {
        *states += 1;
        let mut over = true;
        for who in 0..=HANDLER {
            if let Some(next) = self.advance(who) {
                over = false;
                next.explore(states)?;
            }
        }
        if self.can_interrupt() {
            over = false;
            self.interrupt().explore(states)?;
        }
        if self.events > 0 {
            over = false;
            self.event().explore(states)?;
        }
        if over { self.check_end() } else { Ok(()) }
    }

    /// Everybody is through: whatever the line is in, letting it go tells of everything, and leaves it open.
    fn check_end(self) -> Result {
        let held = self.word.is_held();
        ensure!(held == (self.gate == Gate::Masked), "the pin is not as the word says: {self:?}");
        let mut model = self;
        for deed in [Deed::Unmask, Deed::Acknowledge] {
            model.actors[0] = Actor::new(Some(deed));
            model = model.run_out();
        }
        ensure!(!model.untold, "something is lost: {self:?} ends as {model:?}");
        model.actors[0] = Actor::new(Some(Deed::Acknowledge));
        model = model.run_out();
        ensure!(model.gate == Gate::Open, "the line stays held back: {self:?} ends as {model:?}");
        Ok(())
    }

    /// Lets the first actor and the handler go on until there is nothing to do.
    fn run_out(mut self) -> Self {
        while let Some(next) = self
            .advance(0)
            .or_else(|| self.advance(HANDLER))
            .or_else(|| self.can_interrupt().then(|| self.interrupt()))
        {
            self = next;
        }
        self
    }
}

/// In every order in which one core can acknowledge, mask or unmask a line while its device wants something twice, and two cores while
/// it wants something once: nothing is lost, and the line is open in the end.
///
/// Planted: an edge of a line that is held back is not noted; what is noted is forgotten when the line is let go; the pin stays masked then;
/// masking a line masks the pin of an edge; the notification is signalled before the pin is set.
pub(super) fn words(_: &mut Bed) -> Result {
    let mut states = 0;
    for trigger in [Trigger::Edge, Trigger::Level] {
        let claimed = Word::claimed(trigger);
        let open = claimed.acknowledged().0;
        let (signalled, _) = open.came();
        let (noted, _) = signalled.came();
        let (masked, _) = open.masked();
        for word in [claimed, open, signalled, noted, masked] {
            for first in DEEDS.map(Some) {
                Model::new(trigger, word, [first, None], 2).explore(&mut states)?;
                for second in DEEDS.map(Some) {
                    Model::new(trigger, word, [first, second], 1).explore(&mut states)?;
                }
            }
        }
    }
    ensure!(states > 10_000, "only {states} states were seen");
    Ok(())
}

/// No line that nobody has claimed reaches a core; the legacy controllers are silent.
///
/// A claimed one leads where it should, and is masked still; there is one owner at a time. Planted: a line that is moved stays where it was.
pub(super) fn entries(_: &mut Bed) -> Result {
    ensure!(
        io::legacy_masks() == [u8::MAX; 2],
        "the legacy controllers have {:x?} masked",
        io::legacy_masks()
    );
    let mut known = 0;
    for line in 0..LINES {
        let seen = IrqOff::with(|irq| irq.locks(|held| interrupt::inspect(held, line)));
        ensure!(seen.is_some() == ioapic::pin(line).is_some(), "line {line}: {seen:?}");
        ensure!(seen.is_none_or(|(gate, ..)| gate == Gate::Masked), "line {line} is open: {seen:?}");
        known += usize::from(seen.is_some());
    }
    // The least that a PC has is ISA's lines but for the cascade.
    ensure!(known >= 15, "only {known} lines have a pin");
    for line in (0..LINES).filter(|&line| ioapic::pin(line).is_some()) {
        IrqOff::with(|irq| one_entry(irq, line))?;
    }
    Ok(())
}

fn one_entry(irq: &mut IrqOff, line: usize) -> Result {
    let claimed = Interrupt::claim(irq, line as u64);
    ensure!(claimed.is_ok(), "line {line} cannot be claimed: {:?}", claimed.err());
    let Ok(object) = claimed else { return Ok(()) };
    let again = Interrupt::claim(irq, line as u64).map(|_| ());
    ensure!(again == Err(abi::error::Error::Occupied), "line {line} is claimed twice: {again:?}");
    let own = irq.core();
    let leads = |irq: &mut IrqOff, core: CoreId| {
        let seen = irq.locks(|held| interrupt::inspect(held, line));
        let expected = Target::new(machine::apic_id(core)).map(|target| (Gate::Masked, target, core));
        ensure!(seen == expected, "line {line} is {seen:?} instead of {expected:?}");
        Ok(())
    };
    leads(irq, own)?;
    for core in cores::all_online().iter().filter(|&core| Target::new(machine::apic_id(core)).is_some()) {
        let moved = object.move_to(irq, core.index() as u64);
        ensure!(moved.is_ok(), "line {line} cannot be moved to {core}: {moved:?}");
        leads(irq, core)?;
    }
    Ok(())
}

/// A line that is not in use otherwise: that of the second serial port.
const LINE: usize = 3;
/// What it is bound to signal.
const BITS: u64 = 0b1010;

/// An interrupt that strikes the kernel where it lets that happen is delivered as well, and one that nobody has asked for is counted and ends
/// there.
///
/// Planted: `cores::expose` does not look at what was noted.
pub(super) fn windows(bed: &mut Bed) -> Result {
    let claimed =
        IrqOff::with(|irq| Some((Interrupt::claim(irq, LINE as u64).ok()?, Notification::new(irq).ok()?)));
    let Some((line, bell)) = claimed else {
        return Err(failed(format_args!("line {LINE} cannot be claimed")));
    };
    let opened = IrqOff::with(|irq| {
        line.bind(irq, bell.clone(), BITS)?;
        line.acknowledge(irq)
    });
    ensure!(opened.is_ok(), "line {LINE} cannot be opened: {opened:?}");
    let blame = Blame::new();
    for core in cores::all_online().iter() {
        bed.crew.run(&CoreSet::one(core), |held| blame.note(strike(held, LINE, || bell.poll() == BITS)));
        let again = IrqOff::with(|irq| line.acknowledge(irq));
        ensure!(again.is_ok(), "line {LINE} cannot be acknowledged: {again:?}");
        bed.crew.run(&CoreSet::one(core), |held| {
            let before = spurious(core);
            blame.note(strike(held, LINE + 1, || spurious(core) == before + 1));
        });
    }
    drop(line);
    ensure!(bell.poll() == 0, "a line has signalled more than it was asked for");
    blame.verdict()
}

fn spurious(core: CoreId) -> u64 {
    let mut seen = Metrics::default();
    metrics::read(core, &mut seen);
    seen.counters[Counter::SpuriousInterrupts as usize]
}

/// Has a line's interrupt strike this core, and waits until it has done what it should.
fn strike(held: &mut Held<'_, 0>, line: usize, done: impl Fn() -> bool) -> Result {
    apic::send_to_self(FIRST_VECTOR + line as u8);
    let deadline = tsc::now() + machine::clock().0;
    let mut over = false;
    // SAFETY: a function that was sent to this core; nothing core-local is in use here.
    unsafe {
        cores::expose(held, || {
            over = done();
            !over && tsc::now() < deadline
        });
    }
    ensure!(over, "an interrupt of line {line} in the kernel does nothing on {}", held.core());
    Ok(())
}

/// Ports: only what was claimed can be accessed, and the kernel's cannot be claimed.
///
/// Planted: the last bytes of an access are not looked at; the kernel's ports can be claimed; a range can be widened.
pub(super) fn ports(_: &mut Bed) -> Result {
    passes("devices", format_args!("only=ports. "))
}

/// Device registers: no memory, nothing of the kernel's, and both ways to a device show the same.
///
/// Planted: memory can be claimed; so can the local interrupt controller's page.
pub(super) fn registers(_: &mut Bed) -> Result {
    passes("devices", format_args!("only=registers. "))
}

/// Interrupts of devices: delivered, acknowledged, masked, moved, given up.
///
/// Planted: a line that is moved stays where it was; what came before an acknowledgement is forgotten; a line is not freed.
pub(super) fn drivers(_: &mut Bed) -> Result {
    passes("devices", format_args!("only=lines. "))
}
