//! How an APIC id divides into package, last-level cache and core.
//!
//! Pure functions of CPUID results, so that the host can test them with the registers of any machine. Sources: Intel SDM vol. 3
//! §10.9.1 and CPUID leaves 4, 0xB, 0x1F; AMD APM vol. 3 appendix E, leaves 0x8000_0008, 0x8000_001D, 0x8000_001E.

use super::ApicId;

/// What one CPUID leaf returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// How many low bits of an APIC id tell apart what is inside one core, one last-level cache, one package.
///
/// Cores of one machine normally agree; a core that does not can be told by comparing its layout with the first core's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdLayout {
    /// Threads of one core differ in these bits only.
    pub smt: u8,
    /// Threads that share the last-level cache differ in these bits only.
    pub llc: u8,
    /// Threads of one package differ in these bits only.
    pub package: u8,
}

/// The groups a thread belongs to, numbered as the hardware does: unique, neither dense nor small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareIds {
    /// The package.
    pub package: u32,
    /// The last-level cache.
    pub llc: u32,
    /// The core, that is, the set of sibling threads.
    pub smt: u32,
}

const EXTENDED: u32 = 0x8000_0000;
/// Sub-leaves are walked until one says "no more"; this bounds the walk on hardware that never does.
const MAX_SUBLEAVES: u32 = 16;

impl IdLayout {
    /// Each thread alone: what is known of a machine without any of the leaves.
    pub const ALONE: Self = Self { smt: 0, llc: 0, package: 0 };

    /// Reads the layout; `cpuid(leaf, sub-leaf)` executes the instruction, or replays a recording.
    pub fn discover(cpuid: impl Fn(u32, u32) -> Registers) -> Self {
        let highest = cpuid(0, 0).eax;
        let extended = cpuid(EXTENDED, 0).eax;
        let has = |leaf: u32| leaf <= if leaf < EXTENDED { highest } else { extended };

        let levels = [0x1f, 0xb].into_iter().filter(|&leaf| has(leaf)).find_map(|leaf| levels(leaf, &cpuid));
        let (smt, package) = levels
            .or_else(|| if has(EXTENDED + 8) { amd_widths(has(EXTENDED + 0x1e), &cpuid) } else { None })
            .or_else(|| if has(1) { legacy_widths(has(4), &cpuid) } else { None })
            .unwrap_or((0, 0));
        let llc =
            [EXTENDED + 0x1d, 4].into_iter().filter(|&leaf| has(leaf)).find_map(|leaf| cache(leaf, &cpuid));
        // Unknown: assume the package shares it. And a cache belongs to whole cores of one package.
        let llc = llc.unwrap_or(package).clamp(smt, package.max(smt));
        Self { smt, llc, package: package.max(smt) }
    }

    /// The groups of the thread with this APIC id.
    #[must_use]
    pub fn ids(self, apic: ApicId) -> HardwareIds {
        let above = |bits: u8| apic.0.checked_shr(bits.into()).unwrap_or(0);
        HardwareIds { package: above(self.package), llc: above(self.llc), smt: above(self.smt) }
    }
}

/// Bits needed to number `count` things.
fn width(count: u32) -> u8 {
    let bits = count.max(1).next_power_of_two().trailing_zeros();
    u8::try_from(bits).expect("T1: a u32 has fewer than 256 bits")
}

/// Leaves 0xB and 0x1F: one sub-leaf per level, each with the bits to shift away to reach the next level.
fn levels(leaf: u32, cpuid: &impl Fn(u32, u32) -> Registers) -> Option<(u8, u8)> {
    const SMT: u32 = 1;
    let mut smt = 0;
    let mut package = None;
    for sub in 0..MAX_SUBLEAVES {
        let level = cpuid(leaf, sub);
        let kind = level.ecx >> 8 & 0xff;
        if kind == 0 || level.ebx & 0xffff == 0 {
            break;
        }
        let shift = u8::try_from(level.eax & 0x1f).ok()?;
        if kind == SMT {
            smt = shift;
        }
        package = Some(shift);
    }
    package.map(|package| (smt, package))
}

/// AMD without leaf 0xB: the width of the in-package part, and the threads of a core.
fn amd_widths(has_core_leaf: bool, cpuid: &impl Fn(u32, u32) -> Registers) -> Option<(u8, u8)> {
    const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
    let sizes = cpuid(EXTENDED + 8, 0).ecx;
    let package = match u8::try_from(sizes >> 12 & 0xf).ok()? {
        0 => width((sizes & 0xff) + 1),
        bits => bits,
    };
    if package == 0 {
        return None;
    }
    let extended = has_core_leaf && cpuid(EXTENDED + 1, 0).ecx & TOPOLOGY_EXTENSIONS != 0;
    let smt = if extended { width((cpuid(EXTENDED + 0x1e, 0).ebx >> 8 & 0xff) + 1) } else { 0 };
    Some((smt, package))
}

/// Leaf 1 and leaf 4, as on processors before leaf 0xB.
fn legacy_widths(has_cache_leaf: bool, cpuid: &impl Fn(u32, u32) -> Registers) -> Option<(u8, u8)> {
    const HTT: u32 = 1 << 28;
    let features = cpuid(1, 0);
    if features.edx & HTT == 0 {
        return None;
    }
    let package = width(features.ebx >> 16 & 0xff);
    let cores = if has_cache_leaf { width((cpuid(4, 0).eax >> 26) + 1) } else { 0 };
    Some((package.saturating_sub(cores), package))
}

/// Leaf 4, and AMD's 0x8000_001D with the same layout: how many ids share the outermost data or unified cache.
fn cache(leaf: u32, cpuid: &impl Fn(u32, u32) -> Registers) -> Option<u8> {
    const INSTRUCTION: u32 = 2;
    let mut outermost = None;
    for sub in 0..MAX_SUBLEAVES {
        let cache = cpuid(leaf, sub);
        let (kind, level) = (cache.eax & 0x1f, cache.eax >> 5 & 0x7);
        if kind == 0 {
            break;
        }
        let farther = outermost.is_none_or(|(known, _)| level >= known);
        if kind != INSTRUCTION && farther {
            outermost = Some((level, width((cache.eax >> 14 & 0xfff) + 1)));
        }
    }
    outermost.map(|(_, shift)| shift)
}

#[cfg(test)]
mod tests {
    use super::{EXTENDED, HardwareIds, IdLayout, Registers};
    use crate::topology::ApicId;
    use proptest::{prelude::any, prop_assert, proptest};

    fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Registers {
        Registers { eax, ebx, ecx, edx }
    }

    #[test]
    fn leaf_1f_with_dies_comes_before_leaf_b() {
        let layout = IdLayout::discover(|leaf, sub| match (leaf, sub) {
            (0, _) => regs(0x1f, 0, 0, 0),
            (0x1f, 0) => regs(1, 2, 1 << 8, 0),
            (0x1f, 1) => regs(5, 32, 2 << 8 | 1, 0),
            (0x1f, 2) => regs(6, 64, 5 << 8 | 2, 0),
            (0xb, _) => panic!("leaf 0xB is not needed"),
            // Level 3, unified, shared by 32 ids.
            (4, 0) => regs(3 << 5 | 3 | 31 << 14, 0, 0, 0),
            _ => Registers::default(),
        });
        assert_eq!(layout, IdLayout { smt: 1, llc: 5, package: 6 });
        assert_eq!(layout.ids(ApicId(0b100_1011)), HardwareIds { package: 1, llc: 2, smt: 37 });
    }

    #[test]
    fn leaf_b_with_private_last_level() {
        let layout = IdLayout::discover(|leaf, sub| match (leaf, sub) {
            (0, _) => regs(0xb, 0, 0, 0),
            (0xb, 0) => regs(0, 1, 1 << 8, 0),
            (0xb, 1) => regs(3, 8, 2 << 8 | 1, 0),
            (4, 0) => regs(1 << 5 | 1, 0, 0, 0),
            (4, 1) => regs(1 << 5 | 2 | 7 << 14, 0, 0, 0),
            _ => Registers::default(),
        });
        assert_eq!(layout, IdLayout { smt: 0, llc: 0, package: 3 });
    }

    #[test]
    fn amd_core_complexes_divide_the_package() {
        let layout = IdLayout::discover(|leaf, sub| match (leaf, sub) {
            (EXTENDED, _) => regs(EXTENDED + 0x1e, 0, 0, 0),
            (0x8000_0001, _) => regs(0, 0, 1 << 22, 0),
            (0x8000_0008, _) => regs(0, 0, 6 << 12 | 63, 0),
            (0x8000_001e, _) => regs(0, 1 << 8, 0, 0),
            // Sixteen ids share a level-3 slice.
            (0x8000_001d, 0) => regs(1 << 5 | 1 | 1 << 14, 0, 0, 0),
            (0x8000_001d, 1) => regs(3 << 5 | 3 | 15 << 14, 0, 0, 0),
            _ => Registers::default(),
        });
        assert_eq!(layout, IdLayout { smt: 1, llc: 4, package: 6 });
    }

    #[test]
    fn legacy_leaves() {
        let layout = IdLayout::discover(|leaf, sub| match (leaf, sub) {
            (0, _) => regs(4, 0, 0, 0),
            (1, _) => regs(0, 8 << 16, 0, 1 << 28),
            (4, 0) => regs(3 << 26 | 1 << 5 | 1, 0, 0, 0),
            (4, 1) => regs(3 << 26 | 2 << 5 | 3 | 7 << 14, 0, 0, 0),
            _ => Registers::default(),
        });
        assert_eq!(layout, IdLayout { smt: 1, llc: 3, package: 3 });
    }

    #[test]
    fn no_leaves_at_all() {
        assert_eq!(IdLayout::discover(|_, _| Registers::default()), IdLayout::ALONE);
    }

    proptest! {
        #[test]
        fn any_registers_give_nested_groups(seed in any::<[u32; 8]>()) {
            let layout = IdLayout::discover(|leaf, sub| {
                let pick = |n: u32| seed[(leaf.wrapping_add(sub * 5).wrapping_add(n) % 8) as usize];
                regs(pick(0), pick(1), pick(2), pick(3))
            });
            prop_assert!(layout.smt <= layout.llc && layout.llc <= layout.package);
            let _ = layout.ids(ApicId(seed[0]));
        }
    }
}
