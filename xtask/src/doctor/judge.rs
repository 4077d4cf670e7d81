//! What the facts mean for figures of a lane.

use super::facts::Facts;
use crate::qemu::X2APIC_SINCE;
use abi::boot::Lane;
use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Figures are wrong, or nobody can say what they are of.
    Lies,
    /// Figures spread more than they have to, or say less.
    Doubt,
}

/// One thing that makes figures lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// A stable word.
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    /// What was found.
    pub(super) what: String,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

/// Everything the facts say against figures of `lane`, taken with so many cores.
pub(super) fn judge(facts: &Facts, lane: Lane, cores: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    tree(facts, lane, &mut findings);
    emulator(facts, lane, &mut findings);
    // Counted instructions are the same on a host that is busy, slow or changes its frequency.
    if lane != Lane::Icount {
        host(facts, lane, cores, &mut findings);
        clock(facts, lane, &mut findings);
    }
    findings.sort_by_key(|finding| finding.severity != Severity::Lies);
    findings
}

fn tree(facts: &Facts, lane: Lane, findings: &mut Vec<Finding>) {
    match facts.dirty {
        Some(true) => findings.push(Finding {
            name: "dirty-tree",
            severity: Severity::Lies,
            what: "the work tree differs from its commit: nobody can build what is measured again".to_owned(),
            remedy: "commit or stash, then measure",
        }),
        None => findings.push(Finding {
            name: "no-commit",
            severity: Severity::Lies,
            what: "this is no git work tree: a run cannot say what it measured".to_owned(),
            remedy: "measure in a clone of the repository",
        }),
        Some(false) => {}
    }
    // The guest is built for release whatever xtask is.
    if facts.debug_build && lane == Lane::Native {
        findings.push(Finding {
            name: "debug-build",
            severity: Severity::Lies,
            what: "xtask itself is a debug build: the lane native would measure unoptimised code".to_owned(),
            remedy: "run `cargo xtask`, which builds for release, and not the program in target/debug",
        });
    }
    if let Some(flags) = facts.rustflags.as_ref().filter(|_| lane == Lane::Native) {
        findings.push(Finding {
            name: "rustflags",
            severity: Severity::Doubt,
            what: format!(
                "RUSTFLAGS is set to `{flags}`: native rows are built with it, committed ones were not"
            ),
            remedy: "unset RUSTFLAGS",
        });
    }
}

fn emulator(facts: &Facts, lane: Lane, findings: &mut Vec<Finding>) {
    if matches!(lane, Lane::Native | Lane::Hw) {
        return;
    }
    match facts.qemu {
        None => findings.push(Finding {
            name: "no-qemu",
            severity: Severity::Lies,
            what: format!("there is no QEMU, and the lane {} needs one", lane.word()),
            remedy: "run `cargo xtask setup`",
        }),
        Some(version) if version < X2APIC_SINCE => findings.push(Finding {
            name: "old-qemu",
            severity: Severity::Doubt,
            what: format!("QEMU {version} emulates no x2APIC: interrupts between cores take another path than on hardware"),
            remedy: "run `cargo xtask setup --newest`",
        }),
        Some(_) => {}
    }
    if lane == Lane::Kvm && facts.nested {
        findings.push(Finding {
            name: "nested",
            severity: Severity::Lies,
            what:
                "this host is a virtual machine itself: every exit of the guest goes through two hypervisors"
                    .to_owned(),
            remedy: "measure on bare metal, or in the lane icount",
        });
    }
    if lane == Lane::Tcg {
        findings.push(Finding {
            name: "wrong-lane",
            severity: Severity::Doubt,
            what: "emulated time is the emulator's: shapes mean something, absolute figures and tails do not"
                .to_owned(),
            remedy: "compare with --lane icount, which counts instructions exactly",
        });
    }
}

fn host(facts: &Facts, lane: Lane, cores: u32, findings: &mut Vec<Finding>) {
    let threads = facts.threads;
    if matches!(lane, Lane::Kvm) && cores > threads {
        findings.push(Finding {
            name: "oversubscribed",
            severity: Severity::Lies,
            what: format!("{cores} guest cores on {threads} of the host: cores that wait for each other wait for its scheduler"),
            remedy: "ask for fewer cores with --smp, or measure with --lane icount",
        });
    }
    // A tenth of a thread is what a host without work shows.
    if let Some(busy) = facts.busy_threads.filter(|&busy| busy > 0.1 * f64::from(threads)) {
        findings.push(Finding {
            name: "busy-host",
            severity: if busy > 0.5 * f64::from(threads) { Severity::Lies } else { Severity::Doubt },
            what: format!("{busy:.1} of {threads} threads are at work with something else"),
            remedy: "stop what runs there, then measure",
        });
    }
    if let Some(steal) = facts.stolen.filter(|&share| share > 0.01) {
        findings.push(Finding {
            name: "stolen-time",
            severity: Severity::Lies,
            what: format!("the hypervisor of this host took {:.0} % of its time away", steal * 100.0),
            remedy: "measure on a machine of your own",
        });
    }
    if facts.smt == Some(true) {
        findings.push(Finding {
            name: "smt",
            severity: Severity::Doubt,
            what: "two threads share a core: what runs on the other one slows this one down".to_owned(),
            remedy: "echo off > /sys/devices/system/cpu/smt/control, as root",
        });
    }
    if let Some(governor) = facts.governor.as_deref().filter(|&name| name != "performance") {
        findings.push(Finding {
            name: "governor",
            severity: Severity::Doubt,
            what: format!("the frequency governor is `{governor}`: the clock rate follows the load"),
            remedy: "cpupower frequency-set --governor performance, as root",
        });
    }
    if facts.turbo == Some(true) {
        findings.push(Finding {
            name: "turbo",
            severity: Severity::Doubt,
            what: "turbo is on: the clock rate follows temperature and what other cores do".to_owned(),
            remedy: "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo, or echo 0 > /sys/devices/system/cpu/cpufreq/boost, as root",
        });
    }
}

fn clock(facts: &Facts, lane: Lane, findings: &mut Vec<Finding>) {
    if lane == Lane::Tcg {
        return;
    }
    if !facts.invariant_tsc {
        findings.push(Finding {
            name: "tsc",
            severity: Severity::Lies,
            what: "the time-stamp counter is not invariant: it changes its rate or stops with the core".to_owned(),
            remedy: "measure on another machine, or in the lane icount; in a virtual machine pass the host's CPU through",
        });
    }
    if let Some(source) = facts.clock_source.as_deref().filter(|&name| name != "tsc" && name != "kvm-clock") {
        findings.push(Finding {
            name: "clock-source",
            severity: Severity::Doubt,
            what: format!("the host itself does not trust its time-stamp counter and uses `{source}`"),
            remedy: "look for `tsc: Marking TSC unstable` in the kernel's log",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Severity, judge};
    use crate::doctor::facts::Facts;
    use crate::qemu::Version;
    use abi::boot::Lane;

    /// A host on which nothing lies in any lane.
    fn healthy() -> Facts {
        Facts {
            dirty: Some(false),
            debug_build: false,
            rustflags: None,
            qemu: Some(Version { major: 10, minor: 0 }),
            nested: false,
            threads: 8,
            busy_threads: Some(0.1),
            stolen: Some(0.0),
            smt: Some(false),
            governor: Some("performance".to_owned()),
            turbo: Some(false),
            invariant_tsc: true,
            clock_source: Some("tsc".to_owned()),
        }
    }

    fn names(facts: &Facts, lane: Lane, cores: u32) -> Vec<&'static str> {
        judge(facts, lane, cores).iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn a_healthy_host_lies_in_no_lane() {
        for lane in [Lane::Kvm, Lane::Icount, Lane::Native, Lane::Hw] {
            assert_eq!(names(&healthy(), lane, 8), [""; 0], "{}", lane.word());
        }
        assert_eq!(names(&healthy(), Lane::Tcg, 8), ["wrong-lane"]);
    }

    #[test]
    fn each_thing_is_found_where_it_matters() {
        /// What is wrong, the finding it gives in a lane, and whether counted instructions care.
        type Case = (fn(&mut Facts), &'static str, Lane, bool);
        let cases: [Case; 14] = [
            (|facts| facts.dirty = Some(true), "dirty-tree", Lane::Kvm, true),
            (|facts| facts.dirty = None, "no-commit", Lane::Kvm, true),
            (|facts| facts.debug_build = true, "debug-build", Lane::Native, false),
            (|facts| facts.rustflags = Some("-O".to_owned()), "rustflags", Lane::Native, false),
            (|facts| facts.qemu = None, "no-qemu", Lane::Kvm, true),
            (|facts| facts.qemu = Some(Version { major: 7, minor: 2 }), "old-qemu", Lane::Icount, true),
            (|facts| facts.nested = true, "nested", Lane::Kvm, false),
            (|facts| facts.threads = 2, "oversubscribed", Lane::Kvm, false),
            (|facts| facts.busy_threads = Some(7.0), "busy-host", Lane::Native, false),
            (|facts| facts.stolen = Some(0.2), "stolen-time", Lane::Native, false),
            (|facts| facts.smt = Some(true), "smt", Lane::Native, false),
            (|facts| facts.governor = Some("powersave".to_owned()), "governor", Lane::Native, false),
            (|facts| facts.invariant_tsc = false, "tsc", Lane::Native, false),
            (|facts| facts.clock_source = Some("hpet".to_owned()), "clock-source", Lane::Native, false),
        ];
        for (change, name, lane, icount) in cases {
            let mut facts = healthy();
            change(&mut facts);
            let found = judge(&facts, lane, 8);
            assert_eq!(found.iter().map(|finding| finding.name).collect::<Vec<_>>(), [name]);
            assert!(!found[0].remedy.is_empty() && !found[0].what.is_empty());
            let counted = names(&facts, Lane::Icount, 8).contains(&name);
            assert_eq!(counted, icount, "{name}: counted instructions do not care");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_finding_and_lies_come_first() {
        let unknown = Facts {
            busy_threads: None,
            stolen: None,
            smt: None,
            governor: None,
            turbo: None,
            clock_source: None,
            ..healthy()
        };
        assert_eq!(names(&unknown, Lane::Native, 8), [""; 0]);
        let facts = Facts { turbo: Some(true), stolen: Some(0.5), ..healthy() };
        let found = judge(&facts, Lane::Native, 8);
        assert_eq!(
            found.iter().map(|finding| finding.severity).collect::<Vec<_>>(),
            [Severity::Lies, Severity::Doubt]
        );
    }
}
