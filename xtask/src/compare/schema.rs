//! The files of the laboratory as types, which are the source of their schemas in `results/schema/`: what `compare` found, the committed
//! figures of the instruction lane, and the noise of a machine.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of these formats. A reader refuses other versions.
pub const VERSION: u32 = 1;

/// What came of one figure of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse: significantly, by more than is of practical interest, and by more than the clock resolves.
    Regressed,
    /// Not there, failed or refused on one side: never passes.
    Missing,
    /// Undecided, and the boots of a side differ by more than what is looked for.
    Noisy,
    /// Undecided, for want of boots.
    Inconclusive,
    /// Better, by the same rules as worse.
    Improved,
    /// The whole 95 % interval lies within what is of no practical interest, or the clock does not resolve the difference.
    Unchanged,
}

/// What is compared of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The median of a boot.
    P50,
    /// The 99th percentile of a boot of at least 10,000 samples.
    P99,
    /// A metric of a boot whose name ends in `.per.second`.
    Throughput,
}

/// What `cargo xtask compare --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CompareFile {
    /// Version of the format.
    pub schema: u32,
    /// Lane of both sides.
    pub lane: String,
    /// Machine of both sides.
    pub machine: String,
    /// Effort of both sides.
    pub profile: String,
    /// What is compared with.
    pub base: SideFile,
    /// What is judged.
    pub new: SideFile,
    /// Rate of false discoveries that is accepted over all tests; absent where figures are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Calibration that raised the smallest differences, a path; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<String>,
    /// Number of entries by verdict.
    pub counts: BTreeMap<Verdict, u32>,
    /// Everything compared, the worst first.
    pub cases: Vec<Finding>,
    /// Cases that only the new side has, in this version.
    pub added: Vec<String>,
    /// What to know beside the figures.
    pub remarks: Vec<String>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SideFile {
    /// Names of its runs, or the file of committed figures.
    pub runs: Vec<String>,
    /// Commits measured; empty where unknown.
    pub commits: Vec<String>,
    /// Boots.
    pub boots: u32,
}

/// What was found about one figure of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Key of the case.
    pub id: String,
    /// Which figure.
    pub measure: Measure,
    /// What came of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Unit of the medians, as recorded; absent where the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Median over the boots of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// Median over the boots of the new side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<u64>,
    /// The statistics; absent where there are none to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestFile>,
}

/// The statistics of one figure. Ratios are new to base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// Boots of the base.
    pub base_boots: u32,
    /// Boots of the new side.
    pub new_boots: u32,
    /// Hodges and Lehmann's estimate, of the logarithms.
    pub ratio: f64,
    /// Lower end of its 95 % bootstrap interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Cliff's delta, from -1 (new is always smaller) to 1.
    pub delta: f64,
    /// Two-sided, Mann and Whitney.
    pub p: f64,
    /// Adjusted for the number of tests, Benjamini and Hochberg.
    pub q: f64,
    /// Ratio from which a change is of interest, here and on this machine; as much in the other direction is its reciprocal.
    pub threshold: f64,
}

/// `results/baselines/icount/<machine>.<profile>.json`: exact figures that the gate compares with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineFile {
    /// Version of the format.
    pub schema: u32,
    /// Lane: only one where every boot gives the same figures.
    pub lane: String,
    /// Machine.
    pub machine: String,
    /// Effort.
    pub profile: String,
    /// Words of the filter joined by `,`: a run that is compared needs them all.
    pub filter: String,
    /// Number of samples asked for, where it overrides the profile; a run that is compared needs the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Run the figures are from.
    pub run: String,
    /// Commit measured; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Compiler.
    pub rustc: String,
    /// Emulator; absent in lanes without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// Figures by key of the case.
    pub cases: BTreeMap<String, BaselineCase>,
}

/// The exact figures of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineCase {
    /// Version of the benchmark body.
    pub version: u32,
    /// Unit of the figure.
    pub unit: String,
    /// Median.
    pub p50: u64,
}

/// `results/noise/<lane>/<machine>.<profile>[.<samples>].json`: how much boots of one build differ on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoiseFile {
    /// Version of the format.
    pub schema: u32,
    /// Lane.
    pub lane: String,
    /// Machine.
    pub machine: String,
    /// Effort.
    pub profile: String,
    /// CPU of the host: on another the file says nothing.
    pub host: String,
    /// Names of the runs; each case was measured with one build.
    pub runs: Vec<String>,
    /// Commits measured, where trees had git.
    pub commits: Vec<String>,
    /// Noise by key of the case and figure.
    pub cases: BTreeMap<String, BTreeMap<Measure, Noise>>,
}

/// The noise of one figure of one case, in logarithms: 0.02 is 2 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Boots it is known from.
    pub boots: u32,
    /// Standard deviation between boots, from the median distance to the median.
    pub sigma: f64,
    /// Distance between the medians of the first half of the boots and of the second.
    pub drift: f64,
}
