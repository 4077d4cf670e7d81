//! The native lane: portable rows in this process, on pinned threads, beside their peers.
//!
//! [`rows`] is the table; [`work`], `slabs` and `capabilities` say what a window does, [`peers`] and [`heaps`] who does it; [`contest`] measures two of them in turn. A row's
//! case without a `peer` parameter is ours alone. A case with one holds the peer's samples, and as metrics our median of the
//! windows in between (`nearfield.p50`) and what part of the peer's that is (`nearfield.ratio`).

mod capabilities;
pub mod clock;
pub mod contest;
pub mod heaps;
pub mod peers;
pub mod rows;
mod slabs;
pub mod work;

pub use clock::HostClock;

use abi::boot::Params;
use perf::bench::Context;
use perf::hist::DEFAULT_COUNTS;
use perf::record::{Core, Hello, Machine, Node, PROTOCOL, Record};
use perf::runner::{self, Settings};

/// What the rows get.
#[derive(Debug)]
pub struct Native {
    clock: HostClock,
    cpus: Vec<usize>,
    seed: u64,
}

impl Native {
    /// The CPUs that this process may use.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { clock: HostClock::new(), cpus: allowed_cpus(), seed }
    }

    /// How many CPUs there are for pinned threads.
    #[must_use]
    pub fn cores(&self) -> u16 {
        u16::try_from(self.cpus.len()).unwrap_or(u16::MAX).max(1)
    }

    /// The operating system's numbers of those CPUs.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Seed of the random sequences.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }
}

impl Context for Native {
    type Clock = HostClock;

    fn clock(&self) -> HostClock {
        self.clock
    }
}

fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) else { return vec![0] };
    (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Pins the calling thread to a CPU. Where that is refused the row still runs, only less steadily.
pub fn pin(cpu: usize) -> bool {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).is_ok() && nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).is_ok()
}

/// Runs the selected rows, in this process, and hands every record to `emit`, `Hello` to `Done` as a kernel sends them.
pub fn run(params: &Params<'_>, command_line: &str, emit: &mut dyn FnMut(&Record<'_>)) {
    let mut native = Native::new(params.seed);
    describe(&native, params, command_line, emit);
    let settings = Settings::new(params, HostClock::TIMEBASE);
    let mut counts = vec![0; DEFAULT_COUNTS];
    let mut sink = |record: &Record<'_>| emit(record);
    // The calling thread measures nothing itself but the clock; it must not wander either.
    native.cpus.first().map(|&cpu| pin(cpu));
    let done = runner::run(rows::TABLE, &mut native, &settings, &mut counts, &mut sink);
    emit(&Record::Done(done));
}

/// Calls `visit` with the key of every case that the parameters select.
pub fn list(params: &Params<'_>, visit: &mut dyn FnMut(&str)) {
    let settings = Settings::new(params, HostClock::TIMEBASE);
    let native = Native::new(params.seed);
    runner::select(rows::TABLE, &native, &settings, &mut |selected| visit(selected.key));
}

fn describe(native: &Native, params: &Params<'_>, command_line: &str, emit: &mut dyn FnMut(&Record<'_>)) {
    let version = env!("CARGO_PKG_VERSION");
    emit(&Record::Hello(Hello { protocol: PROTOCOL, version, params: command_line, seed: params.seed }));
    let cores = u32::from(native.cores());
    emit(&Record::Machine(Machine {
        cpu: "",
        vendor: "",
        features: "",
        hypervisor: "",
        mitigations: "",
        apic: "",
        tsc_hz: HostClock::TIMEBASE.frequency().hertz(),
        tsc_source: "monotonic",
        cores,
        nodes: 1,
        memory: 0,
        kernel_memory: 0,
        boot_ticks: 0,
    }));
    emit(&Record::Node(Node { id: 0, ranges: 0, memory: 0, distances: &[10] }));
    for (id, &cpu) in (0u32..).zip(native.cpus()) {
        let apic_id = u32::try_from(cpu).unwrap_or(u32::MAX);
        emit(&Record::Core(Core { id, apic_id, node: 0, package: 0, llc: 0, smt: id }));
    }
}
