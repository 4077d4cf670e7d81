//! The benchmark table: what is measured, in which unit, where, and in which lanes.
//!
//! A table is a `const` slice of [`Bench`] rows. The row is generic over a context type that each environment brings
//! (kernel, user program, host process); everything else, and the runner, is shared.
//!
//! A row's `cases` enumerates its parameters and placements on the machine at hand, its `run` measures one case with
//! a [`Meter`]. A case is named by its [`CaseKey`], `frame.alloc/order=0,mem=local,cores=1`.

mod check;
mod key;

pub use check::{Flaw, check};
pub use key::{CaseKey, KeyText, Params, ParsedKey, Text, Value};

use abi::boot::Lane;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::runner::{Meter, Trouble};
use crate::words::words;

words! {
    /// The unit of a recorded integer. Time is kept in thousandths so that batched windows lose nothing.
    Unit {
        /// Thousandths of a tick of the clock.
        MilliTicks "milliticks";
        /// Thousandths of an instruction (the instruction lane, where one tick is one instruction).
        MilliInstructions "milliinstructions";
        /// Picoseconds.
        Picoseconds "ps";
        /// Bytes.
        Bytes "bytes";
        /// Millionths: a share, 1,000,000 being all.
        Millionths "millionths";
        /// A plain count.
        Count "count";
    }

    /// What a row measures; with the lane it gives the [`Unit`].
    Quantity {
        /// Time per operation.
        Time "time";
        /// Memory.
        Bytes "bytes";
        /// A share of a whole.
        Share "share";
        /// A number of things.
        Count "count";
    }

    /// Which way is better.
    Direction {
        /// Less is better.
        Smaller "smaller";
        /// More is better.
        Greater "greater";
        /// Neither: the figure describes the machine or the method.
        Neutral "neutral";
    }

    /// What one operation spans. One-way and round-trip figures are never mixed.
    Scope {
        /// From the initiator to the target.
        OneWay "one-way";
        /// From the initiator to the target and back.
        RoundTrip "rt";
        /// A whole operation on one core.
        Operation "op";
    }

    /// Where the cores of a case lie relative to each other.
    Class {
        /// One core, its own memory.
        SelfCore "self";
        /// Two hardware threads of one physical core.
        Smt "smt";
        /// Two physical cores that share a last-level cache.
        Llc "llc";
        /// Two cores of one node that share no cache.
        Node "node";
        /// Cores or memory of two nodes.
        Remote "remote";
        /// Every pair: the case emits a matrix.
        Matrix "matrix";
        /// Several cores at once: one point of a scaling curve.
        Scaling "scaling";
    }
}

impl Unit {
    /// How many recorded units make one of what people read.
    #[must_use]
    pub const fn scale(self) -> u64 {
        match self {
            Self::MilliTicks | Self::MilliInstructions | Self::Picoseconds => 1_000,
            Self::Millionths => 10_000,
            Self::Bytes | Self::Count => 1,
        }
    }

    /// The unit people read, [`scale`](Self::scale) recorded units each.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::MilliTicks => "ticks",
            Self::MilliInstructions => "instructions",
            Self::Picoseconds => "ns",
            Self::Bytes => "bytes",
            Self::Millionths => "%",
            Self::Count => "",
        }
    }
}

impl Quantity {
    /// The unit of this quantity in a lane.
    #[must_use]
    pub const fn unit(self, lane: Lane) -> Unit {
        match (self, lane) {
            (Self::Time, Lane::Native) => Unit::Picoseconds,
            (Self::Time, Lane::Icount) => Unit::MilliInstructions,
            (Self::Time, Lane::Hw | Lane::Kvm | Lane::Tcg) => Unit::MilliTicks,
            (Self::Bytes, _) => Unit::Bytes,
            (Self::Share, _) => Unit::Millionths,
            (Self::Count, _) => Unit::Count,
        }
    }
}

/// A set of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(u8);

impl Lanes {
    /// No lane.
    pub const NONE: Self = Self(0);
    /// Every lane that runs the kernel.
    pub const GUEST: Self = Self::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Tcg).with(Lane::Icount);
    /// The guest lanes in which time passes: all but the instruction lane.
    pub const TIMED: Self = Self::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Tcg);
    /// Every lane.
    pub const ALL: Self = Self::GUEST.with(Lane::Native);

    /// The set with one more lane.
    #[must_use]
    pub const fn with(self, lane: Lane) -> Self {
        Self(self.0 | Self::bit(lane))
    }

    /// Whether the set holds a lane.
    #[must_use]
    pub const fn has(self, lane: Lane) -> bool {
        self.0 & Self::bit(lane) != 0
    }

    const fn bit(lane: Lane) -> u8 {
        match lane {
            Lane::Hw => 1 << 0,
            Lane::Kvm => 1 << 1,
            Lane::Tcg => 1 << 2,
            Lane::Icount => 1 << 3,
            Lane::Native => 1 << 4,
        }
    }
}

/// A place of execution: core and node by the numbers that the kernel reports in its `Core` and `Node` records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Core number.
    pub core: u32,
    /// Node number.
    pub node: u32,
}

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// How the cores lie relative to each other.
    pub class: Class,
    /// Number of cores at work.
    pub cores: u32,
    /// The core that measures; `None` when all pairs do.
    pub source: Option<Site>,
    /// The core (or the node of the memory) that is measured against.
    pub target: Option<Site>,
}

impl Placement {
    /// One core alone.
    #[must_use]
    pub const fn alone(site: Site) -> Self {
        Self { class: Class::SelfCore, cores: 1, source: Some(site), target: None }
    }

    /// Two places.
    #[must_use]
    pub const fn pair(class: Class, source: Site, target: Site) -> Self {
        Self { class, cores: 2, source: Some(source), target: Some(target) }
    }

    /// Every pair of so many cores.
    #[must_use]
    pub const fn matrix(cores: u32) -> Self {
        Self { class: Class::Matrix, cores, source: None, target: None }
    }

    /// So many cores at once.
    #[must_use]
    pub const fn scaling(cores: u32) -> Self {
        Self { class: Class::Scaling, cores, source: None, target: None }
    }
}

/// One measurement of a row: its parameters and where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Parameters, in the order of the key. They tell the cases of a row apart.
    pub params: Params,
    /// Where it runs.
    pub placement: Placement,
    /// Operations per timed window, if not the row's.
    pub batch: Option<u32>,
}

impl Case {
    /// A case without parameters, with the row's batch size.
    #[must_use]
    pub const fn new(placement: Placement) -> Self {
        Self { params: Params::new(), placement, batch: None }
    }

    /// The case with one more parameter.
    #[must_use]
    pub const fn with(mut self, name: &'static str, value: Value) -> Self {
        self.params = self.params.with(name, value);
        self
    }

    /// The case with its own number of operations per timed window.
    #[must_use]
    pub const fn batch(mut self, operations: u32) -> Self {
        self.batch = Some(operations);
        self
    }
}

/// What a row gets from its environment. `&mut Self` is handed to `run`.
pub trait Context {
    /// The clock that measures.
    type Clock: Clock;

    /// The clock, usable on every core that a row starts.
    fn clock(&self) -> Self::Clock;
}

/// The body of a row: measures one case with the meter it is given.
pub type Run<C> = fn(&mut C, &Case, &mut Meter<'_, <C as Context>::Clock>) -> Result<(), Trouble>;

/// A row of the benchmark table.
pub struct Bench<C: Context> {
    /// Name: lower-case words joined by dots, `frame.alloc`.
    pub id: &'static str,
    /// Raised whenever the meaning of the figures changes; figures of different versions are not comparable.
    pub version: u32,
    /// One line for people: what one operation is.
    pub doc: &'static str,
    /// What is measured.
    pub quantity: Quantity,
    /// Which way is better.
    pub direction: Direction,
    /// What one operation spans.
    pub scope: Scope,
    /// Lanes in which the figures mean something.
    pub lanes: Lanes,
    /// Placement classes of its cases, for listings.
    pub classes: &'static [Class],
    /// Operations per timed window; see [`Meter`].
    pub batch: u32,
    /// Hands out the cases that make sense on this machine, always in the same order.
    pub cases: fn(&C, &mut dyn FnMut(Case)),
    /// Measures one case.
    pub run: Run<C>,
}
