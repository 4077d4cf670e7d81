//! What the host says of itself. What cannot be read is `None`: it may be as it should.

use crate::qemu::{Qemu, Version};
use crate::results::env;
use crate::workspace;
use std::fs;
use std::thread;
use std::time::Duration;

/// How long the host's load is watched.
const WATCH: Duration = Duration::from_millis(400);

/// The host, the tree and the programs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    /// Whether the tree differs from its commit; `None` outside a work tree.
    pub(super) dirty: Option<bool>,
    pub(super) debug_build: bool,
    pub(super) rustflags: Option<String>,
    pub(super) qemu: Option<Version>,
    /// Whether the host is a virtual machine.
    pub(super) nested: bool,
    /// Threads of the host.
    pub(super) threads: u32,
    /// How many of them were at work.
    pub(super) busy_threads: Option<f64>,
    /// Share of its time that a hypervisor took away.
    pub(super) stolen: Option<f64>,
    pub(super) smt: Option<bool>,
    pub(super) governor: Option<String>,
    pub(super) turbo: Option<bool>,
    pub(super) invariant_tsc: bool,
    pub(super) clock_source: Option<String>,
}

impl Facts {
    /// Asks; takes less than a second.
    pub(super) fn gather(qemu: Option<Qemu>) -> Self {
        let host = env::host();
        let flags = read("/proc/cpuinfo").and_then(|text| flags(&text)).unwrap_or_default();
        let has = |flag: &str| flags.split(' ').any(|word| word == flag);
        let load = load();
        Self {
            dirty: env::git(workspace::root()).dirty,
            debug_build: cfg!(debug_assertions),
            rustflags: std::env::var("RUSTFLAGS").ok().filter(|flags| !flags.trim().is_empty()),
            qemu: qemu.map(|qemu| qemu.version()),
            nested: has("hypervisor"),
            threads: host.threads,
            busy_threads: load.map(|(busy, _)| busy),
            stolen: load.map(|(_, stolen)| stolen),
            smt: read("/sys/devices/system/cpu/smt/active").map(|text| text == "1"),
            governor: host.governor,
            turbo: turbo(),
            // The time-stamp counter runs at one rate, and in deep sleep too.
            invariant_tsc: has("constant_tsc") && has("nonstop_tsc"),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn flags(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn turbo() -> Option<bool> {
    let intel = read("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|text| text == "0");
    intel.or_else(|| read("/sys/devices/system/cpu/cpufreq/boost").map(|text| text == "1"))
}

/// Threads at work and the share of time stolen, while watched.
fn load() -> Option<(f64, f64)> {
    let before = read("/proc/stat").and_then(|text| Times::parse(&text))?;
    thread::sleep(WATCH);
    let after = read("/proc/stat").and_then(|text| Times::parse(&text))?;
    let cpus = read("/proc/stat").map(|text| text.lines().filter(|line| is_cpu(line)).count())?;
    before.until(after, cpus)
}

fn is_cpu(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Times of all CPUs together, in the unit of `/proc/stat` (proc_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Times {
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest times are part of user and nice.
        let all = times.iter().take(8).sum();
        Some(Self { all, idle: times.get(3)? + times.get(4)?, stolen: *times.get(7)? })
    }

    fn until(self, after: Self, cpus: usize) -> Option<(f64, f64)> {
        let all = crate::report::float(after.all.checked_sub(self.all).filter(|&ticks| ticks > 0)?);
        let share = |before, after: u64| crate::report::float(after.saturating_sub(before)) / all;
        let cpus = f64::from(u32::try_from(cpus).ok()?);
        Some(((1.0 - share(self.idle, after.idle)) * cpus, share(self.stolen, after.stolen)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Times, flags, is_cpu};

    #[test]
    fn load_is_what_is_not_idle() {
        let before = Times::parse("cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1 2\n").unwrap();
        let after = Times::parse("cpu  60 0 10 130 10 0 0 10 0 0\n").unwrap();
        assert_eq!((before.all, before.idle, after.stolen), (120, 100, 10));
        let (busy, stolen) = before.until(after, 2).unwrap();
        assert!((busy - 1.2).abs() < 1e-9 && (stolen - 0.1).abs() < 1e-9, "{busy} {stolen}");
        assert_eq!(before.until(before, 2), None);
        assert_eq!(Times::parse("intr 5"), None);
        assert!(is_cpu("cpu0 1") && !is_cpu("cpu  1") && !is_cpu("ctxt 1"));
    }

    #[test]
    fn flags_of_the_first_cpu() {
        assert_eq!(flags("processor : 0\nflags\t\t: fpu tsc\n").as_deref(), Some("fpu tsc"));
    }

    #[test]
    fn this_host_answers() {
        let facts = Facts::gather(None);
        assert!(facts.threads > 0 && facts.debug_build);
    }
}
