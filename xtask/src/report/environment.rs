//! What the runs were made with: the facts of each side, and where they differ.

use crate::report::groups::float;
use crate::report::html::{Align, escape, table};
use crate::report::page::{Page, Shown};
use crate::report::sections::dash;
use crate::results::reader::Run;
use crate::results::schema::Target;
use std::collections::BTreeSet;

use Align::{Left, Right};

/// A fact and what it is.
type Fact = (&'static str, String);

/// A fact that is a figure: it differs in every boot.
const MEASURED: &str = "Reset to all cores online";

/// A list of facts.
pub(super) fn list(facts: &[Fact]) -> String {
    let items: String = facts
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value)))
        .collect();
    format!("<dl>{items}</dl>\n")
}

/// The names of what differs, in one sentence for the overview.
pub(super) fn summary(page: &Page) -> String {
    let names: Vec<&str> = differences(page).iter().map(|&(name, _)| name).collect();
    if names.is_empty() {
        return "<p>The environments of the sides do not differ.</p>\n".to_owned();
    }
    format!(
        "<p>The <a href=\"#environment\">environments</a> differ in: {}.</p>\n",
        escape(&names.join(", "))
    )
}

/// What differs between sides, and what each has: `None` where a side lacks it.
fn differences(page: &Page) -> Vec<(&'static str, Vec<Option<String>>)> {
    let sides: Vec<Vec<Fact>> = page.sides.iter().map(facts_of_side).collect();
    let mut names: Vec<&'static str> = Vec::new();
    for &(name, _) in sides.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |facts: &Vec<Fact>, name| facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.clone());
    names
        .into_iter()
        .filter(|name| *name != MEASURED)
        .map(|name| (name, sides.iter().map(|facts| value(facts, name)).collect::<Vec<_>>()))
        .filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

/// The facts of a side: those of all its runs, where they differ among themselves.
fn facts_of_side(side: &Shown) -> Vec<Fact> {
    let all: Vec<Vec<Fact>> = side.runs.iter().map(facts).collect();
    let Some(last) = all.last() else { return Vec::new() };
    let merged = |&(name, _): &Fact| {
        let mut values: Vec<&str> = Vec::new();
        for (_, value) in all.iter().flatten().filter(|fact| fact.0 == name) {
            if !values.contains(&value.as_str()) {
                values.push(value);
            }
        }
        (name, values.join("; "))
    };
    last.iter().map(merged).collect()
}

/// The section.
pub(super) fn section(page: &Page) -> String {
    let mut text = String::from("<section id=\"environment\"><h2>Environment</h2>\n");
    if page.alone() {
        text.push_str(&side(page.newest()));
        text.push_str("</section>\n");
        return text;
    }
    text.push_str("<h3>Differences</h3>\n");
    text.push_str(&difference_table(page));
    for shown in &page.sides {
        text.push_str(&format!(
            "<details><summary>Everything about {}</summary>{}</details>\n",
            escape(&shown.label),
            side(shown)
        ));
    }
    text.push_str("</section>\n");
    text
}

fn difference_table(page: &Page) -> String {
    let found = differences(page);
    if found.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let mut head = vec![("fact", Left)];
    head.extend(page.sides.iter().map(|side| (side.label.as_str(), Left)));
    let line = |(name, values): &(&'static str, Vec<Option<String>>)| {
        let shared = if WORDS.contains(name) { shared(values) } else { BTreeSet::new() };
        let show = |value: &Option<String>| match value {
            Some(value) if !shared.is_empty() => {
                let own: Vec<&str> = value.split_whitespace().filter(|word| !shared.contains(word)).collect();
                if own.is_empty() {
                    "nothing of its own".to_owned()
                } else {
                    format!("… {}", own.join(" "))
                }
            }
            Some(value) => value.clone(),
            None => dash(),
        };
        std::iter::once((*name).to_owned()).chain(values.iter().map(show)).collect()
    };
    let lines: Vec<Vec<String>> = found.iter().map(line).collect();
    format!("<div class=\"wrap\">{}</div>\n", table("Differences of the environments", &head, &lines))
}

/// Facts that are lists of words, of which only those are shown that not all sides have.
const WORDS: [&str; 4] = ["Emulator command", "CPU features", "Command line", "Speculation"];

/// The words that all have.
fn shared(values: &[Option<String>]) -> BTreeSet<&str> {
    let words = |value: &'_ Option<String>| -> BTreeSet<String> {
        value.iter().flat_map(|value| value.split_whitespace()).map(ToOwned::to_owned).collect()
    };
    let sets: Vec<BTreeSet<String>> = values.iter().map(words).collect();
    let first = values.iter().flatten().next().map(String::as_str).unwrap_or_default();
    first.split_whitespace().filter(|&word| sets.iter().all(|set| set.contains(word))).collect()
}

/// Everything about a side: its newest run.
fn side(side: &Shown) -> String {
    let run = side.last();
    let shown: Vec<Fact> = facts_of_side(side)
        .into_iter()
        .filter(|(name, _)| !["Emulator command", "Topology"].contains(name))
        .collect();
    let mut text = list(&shown);
    if let Some(target) = &run.env.target {
        text.push_str(&topology(target));
    }
    if let Some(qemu) = &run.env.qemu {
        let command = escape(&qemu.command.join(" "));
        text.push_str(&format!("<h3>Command of the first boot</h3>\n<pre tabindex=\"0\">{command}</pre>\n"));
    }
    text
}

fn facts(run: &Run) -> Vec<Fact> {
    let env = &run.env;
    let mut facts = vec![
        ("Commit", env.git.commit.clone().unwrap_or_else(|| "none".to_owned())),
        (
            "Work tree",
            env.git.dirty.map_or("unknown", |dirty| if dirty { "changed" } else { "clean" }).to_owned(),
        ),
        ("Compiler", env.rustc.clone()),
        ("Host CPU", format!("{} ({} threads)", env.host.cpu, env.host.threads)),
        ("Host kernel", env.host.kernel.clone()),
        ("Host governor", env.host.governor.clone().unwrap_or_else(|| "not readable".to_owned())),
        ("Machine", run.run.machine.clone()),
        ("Profile", run.run.profile.clone()),
        (
            "Samples",
            run.run.samples.map_or_else(|| "the profile's".to_owned(), |samples| samples.to_string()),
        ),
        ("Filter", if run.run.filter.is_empty() { "everything".to_owned() } else { run.run.filter.clone() }),
    ];
    if let Some(qemu) = &env.qemu {
        facts.push(("Emulator", qemu.version.clone()));
        facts.push(("Emulator command", qemu.command.join(" ")));
    }
    if let Some(target) = &env.target {
        facts.extend(target_facts(target));
    }
    facts
}

fn target_facts(target: &Target) -> Vec<Fact> {
    let clock = &target.clock;
    let mut facts = vec![
        ("Measured CPU", format!("{} ({})", target.cpu, target.vendor)),
        ("Hypervisor", target.hypervisor.clone().unwrap_or_else(|| "none".to_owned())),
        ("Interrupts", target.apic.clone().unwrap_or_else(|| "not applicable".to_owned())),
        ("Clock", format!("{} MHz from {}", clock.hz / 1_000_000, clock.source)),
        ("Memory", format!("{} MiB", target.memory_bytes >> 20)),
        ("Topology", layout(target)),
        ("Kernel version", target.version.clone()),
        ("Command line", target.command_line.clone()),
        ("Seed", target.seed.to_string()),
        ("CPU features", target.features.join(" ")),
    ];
    if !target.mitigations.is_empty() {
        facts.push(("Speculation", target.mitigations.join(" ")));
    }
    if target.boot_ticks > 0 && clock.hz > 0 {
        let seconds = float(target.boot_ticks) / float(clock.hz);
        facts.push((MEASURED, format!("{seconds:.3} s of target time")));
    }
    if target.kernel_memory_bytes > 0 {
        facts.push(("Kernel memory", format!("{} KiB", target.kernel_memory_bytes >> 10)));
    }
    facts
}

/// Cores by node, in one line.
fn layout(target: &Target) -> String {
    let node =
        |node: &crate::results::schema::Node| format!("N{}: C{}", node.id, spans(&cores_of(target, node.id)));
    target.nodes.iter().map(node).collect::<Vec<_>>().join("; ")
}

fn cores_of(target: &Target, node: u32) -> Vec<u32> {
    target.cores.iter().filter(|core| core.node == node).map(|core| core.id).collect()
}

fn topology(target: &Target) -> String {
    let ids: Vec<String> = target.nodes.iter().map(|node| format!("to {}", node.id)).collect();
    let mut head = vec![("node", Left), ("cores", Left), ("memory (MiB)", Right)];
    head.extend(ids.iter().map(|id| (id.as_str(), Right)));
    let lines: Vec<Vec<String>> = target
        .nodes
        .iter()
        .map(|node| {
            let cores = cores_of(target, node.id);
            let memory = (node.memory_bytes >> 20).to_string();
            let distances = node.distances.iter().map(ToString::to_string);
            [node.id.to_string(), spans(&cores), memory].into_iter().chain(distances).collect()
        })
        .collect();
    let cores: Vec<Vec<String>> = target
        .cores
        .iter()
        .map(|core| {
            [core.id, core.apic_id, core.node, core.package, core.llc, core.smt]
                .map(|id| id.to_string())
                .to_vec()
        })
        .collect();
    let core_head = [
        ("core", Left),
        ("APIC id", Right),
        ("node", Right),
        ("package", Right),
        ("LLC group", Right),
        ("SMT group", Right),
    ];
    format!(
        "{}<details><summary>Cores</summary>{}</details>\n",
        table("Nodes and distances", &head, &lines),
        table("Cores", &core_head, &cores)
    )
}

/// `0-3, 8` for 0, 1, 2, 3, 8.
fn spans(ids: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &id in ids {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => parts.push((id, id)),
        }
    }
    let part = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    if parts.is_empty() { "none".to_owned() } else { parts.iter().map(part).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{differences, section, spans};
    use crate::compare::testing::run;
    use crate::report::page::{Page, Shown};

    #[test]
    fn core_lists_are_short() {
        assert_eq!(spans(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10-11");
        assert_eq!(spans(&[]), "none");
    }

    #[test]
    fn only_what_differs_is_a_difference() {
        let side = |label: &str, compiler: &str, word: &str| {
            let mut run = run(label, "tcg", 1, Vec::new());
            run.env.rustc = compiler.to_owned();
            run.env.qemu.as_mut().unwrap().command.push(word.to_owned());
            Shown { label: label.to_owned(), runs: vec![run] }
        };
        let page =
            Page::of(vec![side("A", "rustc 1", "x"), side("B", "rustc 2", "y")], String::new()).unwrap();
        let names: Vec<&str> = differences(&page).iter().map(|&(name, _)| name).collect();
        assert_eq!(names, ["Compiler", "Emulator command"]);
        let text = section(&page);
        assert!(text.contains("<td>… x</td><td>… y</td>"), "words that all have are left out: {text}");
    }
}
