//! The kernel command line: `key=value` words separated by spaces.
//!
//! | key | values | meaning |
//! |---|---|---|
//! | `mode` | `idle` `test` `bench` | what to do once every core is up; `idle` waits for interrupts |
//! | `filter` | words joined by `,` | run only what has one of the words in its name; see [`Params::selects`] |
//! | `after` | number | benchmark: skip the first so many selected cases (resuming after a failed one) |
//! | `profile` | `quick` `ci` `full` | default number of samples of a benchmark case |
//! | `samples` | number | number of samples of a benchmark case, overriding the profile |
//! | `lane` | `hw` `kvm` `tcg` `icount` | the lane the host says it runs; rows that are invalid in it are left out |
//! | `seed` | number | seed of every pseudo-random sequence |
//! | `soak` | number | test: seconds for each test that can hunt for longer than it usually does; 0 for as long as usual |
//! | `apic` | `auto` `xapic` | use x2APIC where present, or never |
//! | `fpu` | `auto` `fxsave` | save extended registers with XSAVE where present, or never: x87 and SSE only then |
//! | `idle` | `auto` `mwait` `hlt` | how a core with nothing to do sleeps; see [`Idle`] |
//! | `mitigations` | `auto` `off` `all` | switch on what the CPU's weaknesses need, nothing, or what it does without as well |
//! | `kpti` | `auto` `on` `off` | page tables of their own for user mode: where the CPU needs them, always, never |
//! | `plant` | name | switch on one planted bug, so that the test that should find it can be seen to fail |
//! | `records` | `on` `off` | send binary records beside the text log; off for a person at the terminal |
//! | `trace` | words joined by `,` | record these kinds of trace events and send them at the end of the run; see [`TraceEvents`] |
//!
//! An unknown word is an error: a misspelt option must not silently run something else.

use crate::debug::TraceEvents;

/// What the kernel does once it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Wait for interrupts.
    Idle,
    /// Run the in-kernel tests, then exit with the verdict.
    Test,
    /// Run the benchmark rows, then exit.
    Bench,
}

/// How long a benchmark run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Minutes at most: a first look.
    Quick,
    /// What continuous integration can afford.
    Ci,
    /// Enough samples for far percentiles.
    Full,
}

/// The lane a figure belongs to. Figures of different lanes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Bare metal.
    Hw,
    /// Hardware virtualisation.
    Kvm,
    /// Emulation: wall-clock shape only.
    Tcg,
    /// Emulation with the time-stamp counter counting guest instructions.
    Icount,
    /// Portable crates on the host CPU.
    Native,
}

/// Which interrupt controller mode to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// x2APIC where the CPU has it.
    Auto,
    /// xAPIC even where x2APIC is present.
    Xapic,
}

/// Which extended registers there are, and what saves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fpu {
    /// XSAVE where the CPU has it, with all components that need no agreement.
    Auto,
    /// FXSAVE even where XSAVE is present: x87 and SSE.
    Fxsave,
}

/// How a core with nothing to do sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// MWAIT on bare metal that has it; HLT under a hypervisor, where MWAIT may be emulated as an instruction that does nothing.
    Auto,
    /// MWAIT where the CPU has it, a hypervisor or not.
    Mwait,
    /// HLT.
    Hlt,
}

/// What is done about the CPU's weaknesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mitigate {
    /// Whatever the CPU needs.
    Auto,
    /// Nothing: to measure what they cost.
    Off,
    /// What the CPU does without as well: to test it.
    All,
}

/// Whether user mode gets page tables of its own, with next to nothing of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolate {
    /// Where the CPU reports that it needs them.
    Auto,
    /// On every CPU.
    On,
    /// On none.
    Off,
}

macro_rules! words {
    ($($ty:ident { $($word:literal $variant:ident),* $(,)? })*) => { $(
        impl $ty {
            /// Every value, in table order.
            pub const ALL: &'static [$ty] = &[$($ty::$variant),*];

            /// The word of the command line, of file names and of records.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $($ty::$variant => $word),* }
            }

            /// The value a word stands for.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($ty::$variant),)* _ => None }
            }
        }
    )* };
}

words! {
    Mode { "idle" Idle, "test" Test, "bench" Bench }
    Profile { "quick" Quick, "ci" Ci, "full" Full }
    Lane { "hw" Hw, "kvm" Kvm, "tcg" Tcg, "icount" Icount, "native" Native }
    ApicMode { "auto" Auto, "xapic" Xapic }
    Fpu { "auto" Auto, "fxsave" Fxsave }
    Idle { "auto" Auto, "mwait" Mwait, "hlt" Hlt }
    Mitigate { "auto" Auto, "off" Off, "all" All }
    Isolate { "auto" Auto, "on" On, "off" Off }
}

/// A word of the command line that has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(pub &'a str);

/// The decoded kernel command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a> {
    /// What to do.
    pub mode: Mode,
    /// Words joined by `,`; empty selects everything.
    pub filter: &'a str,
    /// Number of selected cases to skip.
    pub after: u32,
    /// Effort of a benchmark run.
    pub profile: Profile,
    /// Samples for each case, if given.
    pub samples: Option<u32>,
    /// The lane the host declared.
    pub lane: Lane,
    /// Seed of every pseudo-random sequence.
    pub seed: u64,
    /// Seconds for each test that can go on for long; 0 for their usual time.
    pub soak: u32,
    /// Interrupt controller mode.
    pub apic: ApicMode,
    /// Extended registers.
    pub fpu: Fpu,
    /// How cores sleep.
    pub idle: Idle,
    /// What is done about the CPU's weaknesses.
    pub mitigations: Mitigate,
    /// Page tables of their own for user mode.
    pub kpti: Isolate,
    /// Name of the planted bug to switch on; empty for none.
    pub plant: &'a str,
    /// Whether binary records are sent.
    pub records: bool,
    /// Trace events that are switched on from the start.
    pub trace: TraceEvents,
}

impl Default for Params<'_> {
    fn default() -> Self {
        Self {
            mode: Mode::Idle,
            filter: "",
            after: 0,
            profile: Profile::Quick,
            samples: None,
            lane: Lane::Hw,
            seed: 1,
            soak: 0,
            apic: ApicMode::Auto,
            fpu: Fpu::Auto,
            idle: Idle::Auto,
            mitigations: Mitigate::Auto,
            kpti: Isolate::Auto,
            plant: "",
            records: true,
            trace: TraceEvents::NONE,
        }
    }
}

impl<'a> Params<'a> {
    /// Decodes a command line.
    ///
    /// # Errors
    /// [`BadWord`] with the first word that is not `key=value` with a known key and a valid value.
    pub fn parse(line: &'a str) -> Result<Self, BadWord<'a>> {
        let mut params = Self::default();
        for word in line.split_ascii_whitespace() {
            params.set(word).ok_or(BadWord(word))?;
        }
        Ok(params)
    }

    fn set(&mut self, word: &'a str) -> Option<()> {
        let (key, value) = word.split_once('=')?;
        match key {
            "mode" => self.mode = Mode::parse(value)?,
            "filter" => self.filter = value,
            "after" => self.after = value.parse().ok()?,
            "profile" => self.profile = Profile::parse(value)?,
            "samples" => self.samples = Some(value.parse().ok()?),
            "lane" => self.lane = Lane::parse(value)?,
            "seed" => self.seed = value.parse().ok()?,
            "soak" => self.soak = value.parse().ok()?,
            "apic" => self.apic = ApicMode::parse(value)?,
            "fpu" => self.fpu = Fpu::parse(value)?,
            "idle" => self.idle = Idle::parse(value)?,
            "mitigations" => self.mitigations = Mitigate::parse(value)?,
            "kpti" => self.kpti = Isolate::parse(value)?,
            "plant" => self.plant = value,
            "trace" => self.trace = TraceEvents::parse(value)?,
            "records" => {
                self.records = match value {
                    "on" => true,
                    "off" => false,
                    _ => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether a test, benchmark or case of this name is selected by `filter`.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        selects(self.filter, name)
    }
}

/// Whether `name` contains one of the words of `filter`, which are joined by `,`. An empty filter selects everything.
#[must_use]
pub fn selects(filter: &str, name: &str) -> bool {
    filter.is_empty() || filter.split(',').any(|word| !word.is_empty() && name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::{ApicMode, BadWord, Fpu, Idle, Isolate, Lane, Mitigate, Mode, Params, TraceEvents, selects};

    #[test]
    fn reads_every_key() {
        let line = "mode=bench filter=frame,ipi after=3 profile=ci samples=9 lane=icount seed=7 soak=600 apic=xapic \
                    fpu=fxsave idle=mwait mitigations=off kpti=on plant=x records=off trace=switch,mark";
        let params = Params::parse(line).unwrap();
        assert_eq!((params.mode, params.lane, params.apic), (Mode::Bench, Lane::Icount, ApicMode::Xapic));
        assert_eq!((params.after, params.samples, params.seed), (3, Some(9), 7));
        assert_eq!((params.fpu, params.idle), (Fpu::Fxsave, Idle::Mwait));
        assert_eq!((params.mitigations, params.kpti), (Mitigate::Off, Isolate::On));
        assert_eq!((params.plant, params.records, params.soak), ("x", false, 600));
        assert_eq!(params.trace, TraceEvents::SWITCH.with(TraceEvents::MARK));
    }

    #[test]
    fn all_mitigations_are_a_word() {
        assert_eq!(Params::parse("mitigations=all").unwrap().mitigations, Mitigate::All);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in [
            "mode=fast",
            "soak=long",
            "turbo=1",
            "samples=-1",
            "mode",
            "records=maybe",
            "trace=",
            "seed=0x10",
            "kpti=no",
            "idle=poll",
        ] {
            assert_eq!(Params::parse(bad), Err(BadWord(bad)), "{bad}");
        }
    }

    #[test]
    fn filter_is_any_of_its_words() {
        assert!(selects("", "frame.alloc"));
        assert!(selects("ipi,alloc", "frame.alloc"));
        assert!(!selects("ipi,", "frame.alloc"));
    }
}
