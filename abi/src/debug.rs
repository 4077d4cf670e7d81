//! The debug interface: what can be dumped, which trace events can be switched on, and what a core counts.
//!
//! A core counts always, in memory of its own; [`Metrics`] is a copy of that. `perf::tally` knows what the buckets of a [`Latencies`]
//! mean, `perf::trace` what the records say that `trace_read` hands out.

/// What `debug_dump` tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Dump {
    /// A process, which `subject` names: its threads, capabilities and mappings.
    Process = 1,
    /// Memory: nodes, heap, slabs.
    Memory = 2,
    /// The scheduler: what every core runs and has queued.
    Scheduler = 3,
    /// What every core has counted, and its latencies.
    Metrics = 4,
}

impl Dump {
    /// The dump that a word stands for.
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Process),
            2 => Some(Self::Memory),
            3 => Some(Self::Scheduler),
            4 => Some(Self::Metrics),
            _ => None,
        }
    }
}

macro_rules! trace_events {
    ($( $(#[doc = $text:literal])* $bit:literal $name:ident $word:literal; )*) => {
        /// Kinds of trace events: a set of bits, as `trace_switch` takes and gives it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        #[repr(transparent)]
        pub struct TraceEvents(pub u64);

        impl TraceEvents {
            $( $(#[doc = $text])* pub const $name: Self = Self(1 << $bit); )*
            /// No kind.
            pub const NONE: Self = Self(0);
            /// Every kind.
            pub const ALL: Self = Self(0 $( | 1 << $bit )*);

            /// Every kind with its word on the kernel command line.
            pub const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$name) ),*];
        }
    };
}

trace_events! {
    /// Which thread a core runs.
    0 SWITCH "switch";
    /// Threads that could run again.
    1 WAKE "wake";
    /// System calls, at entry and at exit.
    2 SYSCALL "syscall";
    /// Page faults.
    3 FAULT "fault";
    /// Interrupts: from other cores, from the timer, from devices.
    4 INTERRUPT "interrupt";
    /// Threads that change cores.
    5 MIGRATE "migrate";
    /// Processes and threads that are made and that end.
    6 PROCESS "process";
    /// Values that programs and tests put in.
    7 MARK "mark";
}

impl TraceEvents {
    /// The set that words joined by `,` stand for; `all` is every kind. `None` for an unknown word, and for none at all.
    #[must_use]
    pub fn parse(words: &str) -> Option<Self> {
        words.split(',').try_fold(Self::NONE, |set, word| Some(set.with(Self::of_word(word)?)))
    }

    fn of_word(word: &str) -> Option<Self> {
        if word == "all" {
            return Some(Self::ALL);
        }
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|&(_, events)| events)
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some kind is in both sets.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every bit is that of a kind.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 & !Self::ALL.0 == 0
    }
}

macro_rules! counters {
    ($( $(#[doc = $text:literal])* $number:literal $variant:ident $word:literal; )*) => {
        /// What a core counts, by its place in [`Metrics::counters`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $( $(#[doc = $text])* $variant = $number ),* }

        impl Counter {
            /// Every counter, by its place.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word of dumps.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

counters! {
    /// System calls that were entered.
    0 Syscalls "syscalls";
    /// Threads that were given the core.
    1 Switches "switches";
    /// Threads of the core itself that were woken by it, or by their time.
    2 WakesLocal "wakes-local";
    /// Threads of other cores that were woken.
    3 WakesRemote "wakes-remote";
    /// Threads that another core took from this one.
    4 StealsGiven "steals-given";
    /// Threads that this core took from others.
    5 StealsTaken "steals-taken";
    /// Threads that came to this core for whatever reason.
    6 Migrations "migrations";
    /// Attempts to even out the load.
    7 Balances "balances";
    /// Interrupts from other cores that were taken.
    8 Ipis "ipis";
    /// Timer interrupts.
    9 TimerInterrupts "timer-interrupts";
    /// Page faults on user memory.
    10 PageFaults "page-faults";
    /// Threads that were switched away although they could have gone on.
    11 Preemptions "preemptions";
    /// Time without a thread to run, in ticks of the time-stamp counter.
    12 IdleTicks "idle-ticks";
    /// Times that the core went to sleep.
    13 IdleSleeps "idle-sleeps";
    /// Messages that were passed on the shortest way; they are not among the system calls.
    14 FastMessages "fast-messages";
    /// Interrupts from devices.
    15 DeviceInterrupts "device-interrupts";
    /// Interrupts from devices that nobody had asked for.
    16 SpuriousInterrupts "spurious-interrupts";
}

/// Counters that [`Metrics`] has room for.
pub const COUNTERS: usize = 24;

const _: () = {
    assert!(Counter::ALL.len() <= COUNTERS, "a counter without a place");
    let mut i = 0;
    while i < Counter::ALL.len() {
        assert!(Counter::ALL[i] as usize == i, "places are dense and ascending");
        i += 1;
    }
};

/// Buckets of a [`Latencies`]: `perf::tally` knows which value belongs to which.
pub const BUCKETS: usize = 128;

/// A histogram of latencies in ticks of the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Latencies {
    /// How many values fell into each bucket.
    pub buckets: [u64; BUCKETS],
}

impl Latencies {
    /// No values.
    pub const EMPTY: Self = Self { buckets: [0; BUCKETS] };
}

impl Default for Latencies {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What `metrics` tells of a core. Every number was right at some moment of the call; the core went on counting between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Metrics {
    /// [`Metrics::VERSION`].
    pub version: u64,
    /// Number of the core.
    pub core: u64,
    /// When it was read, in ticks of the time-stamp counter.
    pub now: u64,
    /// One system call in so many is timed, on average; one wake in sixteen, and the switches that go through the loop of a core.
    pub syscalls_per_sample: u64,
    /// What has been counted since the start, by [`Counter`].
    pub counters: [u64; COUNTERS],
    /// From the entry of a system call to its end; those that give the core up are left out.
    pub syscalls: Latencies,
    /// From the decision to switch to the return to ring 3; a yield, which decides and switches in one, is left out.
    pub switches: Latencies,
    /// From the moment that a thread could run to the moment that it runs.
    pub wakes: Latencies,
}

impl Metrics {
    /// Raised whenever a field changes its meaning or place.
    pub const VERSION: u64 = 2;

    /// What a counter stands at.
    #[must_use]
    pub const fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}

const _: () = {
    assert!(size_of::<Latencies>() == BUCKETS * 8 && align_of::<Latencies>() == 8);
    assert!(size_of::<Metrics>() == 4 * 8 + COUNTERS * 8 + 3 * size_of::<Latencies>());
    assert!(core::mem::offset_of!(Metrics, syscalls) == 224);
};

#[cfg(test)]
mod tests {
    use super::{Dump, TraceEvents};

    #[test]
    fn words_make_sets() {
        assert_eq!(TraceEvents::parse("all"), Some(TraceEvents::ALL));
        let both = TraceEvents::SWITCH.with(TraceEvents::WAKE);
        assert_eq!(TraceEvents::parse("switch,wake"), Some(both));
        assert_eq!(TraceEvents::parse("switch,walk"), None);
        assert_eq!(TraceEvents::parse(""), None);
        assert!(both.meets(TraceEvents::WAKE) && !both.meets(TraceEvents::FAULT));
    }

    #[test]
    fn kinds_have_bits_of_their_own_and_no_other_bit_is_known() {
        let sum: u32 = TraceEvents::WORDS.iter().map(|(_, events)| events.0.count_ones()).sum();
        assert_eq!(sum, TraceEvents::ALL.0.count_ones());
        assert_eq!(sum as usize, TraceEvents::WORDS.len());
        assert!(TraceEvents::ALL.is_known() && !TraceEvents(1 << 63).is_known());
    }

    #[test]
    fn dumps_decode_to_what_they_were() {
        for dump in [Dump::Process, Dump::Memory, Dump::Scheduler, Dump::Metrics] {
            assert_eq!(Dump::decode(dump as u64), Some(dump));
        }
        assert_eq!((Dump::decode(0), Dump::decode(5)), (None, None));
    }
}
