//! What is done about the CPU's weaknesses: the decision for CPUs that this machine does not have, and the measures themselves.

use abi::boot::{Isolate, Mitigate};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::topology::cpuid::Registers;

use super::{Bed, Result, ensure};
use crate::arch::speculation::State::{Missing, NotNeeded, Off, On};
use crate::arch::speculation::{self, Facts, Maker, Mitigations, State};
use crate::cores;

/// Times that each core runs each measure.
const TIMES: usize = 50;

/// Bits by the manuals (SDM volume 2 and 4, APM volume 3), written down once more.
const IBPB_STIBP: u32 = 0b11 << 26;
const MD_CLEAR: u32 = 1 << 10;
const RTM: u32 = 1 << 11;
const RDCL_NO: u64 = 1;
const IBRS_ALL: u64 = 1 << 1;
const MDS_NO: u64 = 1 << 5;
const TAA_NO: u64 = 1 << 8;
const RFDS_CLEAR: u64 = 1 << 28;

fn intel(ebx: u32, edx: u32, capabilities: u64) -> Facts {
    let leaf7 = Registers { ebx, edx, ..Registers::default() };
    Facts { maker: Maker::Intel, leaf7, capabilities, ..Facts::default() }
}

fn amd(amd8_ebx: u32, eax: u32, ecx: u32) -> Facts {
    Facts {
        maker: Maker::Amd,
        amd8_ebx,
        amd21: Registers { eax, ecx, ..Registers::default() },
        ..Facts::default()
    }
}

/// States in the order of `Mitigations::list`: kpti, verw, ibrs, ibpb, stibp, rsb.
type States = [State; 6];

fn states(mitigations: &Mitigations) -> States {
    mitigations.list().map(|(_, state)| state)
}

/// CPUs, and what they get from a kernel that can do everything.
fn cases() -> [(&'static str, Facts, States); 9] {
    let sapphire = RDCL_NO | IBRS_ALL | MDS_NO | TAA_NO;
    [
        ("emulator", Facts { maker: Maker::Emulator, ..Facts::default() }, [NotNeeded; 6]),
        ("before 2018", intel(0, 0, 0), [On, Missing, Missing, Missing, Missing, On]),
        ("Haswell with microcode", intel(RTM, IBPB_STIBP | MD_CLEAR, 0), [On, On, Missing, On, On, On]),
        (
            "Cascade Lake",
            intel(RTM, IBPB_STIBP | MD_CLEAR, RDCL_NO | IBRS_ALL | MDS_NO),
            [NotNeeded, On, On, On, NotNeeded, On],
        ),
        (
            "Sapphire Rapids",
            intel(RTM, IBPB_STIBP | MD_CLEAR, sapphire),
            [NotNeeded, NotNeeded, On, On, NotNeeded, On],
        ),
        ("Gracemont", intel(0, IBPB_STIBP, sapphire | RFDS_CLEAR), [NotNeeded, On, On, On, NotNeeded, On]),
        ("Zen", amd(1 << 12, 0, 0), [NotNeeded, NotNeeded, Missing, On, Missing, On]),
        ("Zen 4 with microcode", amd(1 << 12 | 1 << 15, 1 << 8 | 1 << 5, 0), [NotNeeded, On, On, On, On, On]),
        ("Zen 5", amd(1 << 12 | 1 << 15, 1 << 8 | 1 << 5, 0b110), [NotNeeded, NotNeeded, On, On, On, On]),
    ]
}

/// Each CPU gets what it needs; what it needs and cannot have is missing, not off; the command line switches off what is needed only.
///
/// Planted: TSX asynchronous abort is forgotten; `kpti=off` says that nothing is needed; what is missing is called off.
pub(super) fn decides(_: &mut Bed) -> Result {
    for (name, facts, expected) in cases() {
        let full = states(&speculation::decide(&facts, Mitigate::Auto, Isolate::Auto));
        ensure!(full == expected, "{name}: {full:?}, expected {expected:?}");
        let off = states(&speculation::decide(&facts, Mitigate::Off, Isolate::Auto));
        let without = expected.map(|state| if state == NotNeeded { NotNeeded } else { Off });
        ensure!(off == without, "{name}, switched off: {off:?}");
        let all = states(&speculation::decide(&facts, Mitigate::All, Isolate::Auto));
        let forced = |(index, state)| match index {
            0 | 1 | 5 if state == NotNeeded => On,
            _ => state,
        };
        ensure!(
            all.into_iter().eq(expected.into_iter().enumerate().map(forced)),
            "{name}, all of it: {all:?}, expected {expected:?}"
        );
        for (isolate, needed, spared) in [(Isolate::Off, Off, NotNeeded), (Isolate::On, On, On)] {
            let kpti = speculation::decide(&facts, Mitigate::Auto, isolate).kpti;
            let wanted = if expected[0] == On { needed } else { spared };
            ensure!(kpti == wanted, "{name} with kpti={}: {kpti:?}, expected {wanted:?}", isolate.word());
        }
    }
    Ok(())
}

/// What runs between processes and on the way out of the kernel leaves everything as it was, on every core.
pub(super) fn measures(bed: &mut Bed) -> Result {
    let ran = AtomicUsize::new(0);
    let all = cores::all_online();
    bed.crew.run(&all, |_| {
        for _ in 0..TIMES {
            speculation::process_switch();
            speculation::fill_return_stack();
            speculation::verw();
            // ORDER: Relaxed; the call's completion publishes it.
            ran.fetch_add(1, Ordering::Relaxed);
        }
    });
    let ran = ran.into_inner();
    ensure!(ran == all.len() * TIMES, "{ran} times instead of {TIMES} on each of {} cores", all.len());
    Ok(())
}
