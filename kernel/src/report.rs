//! Records on the serial line, and what the kernel says of itself when it is up.

use percpu::topology::Topology;
use percpu::{IrqOff, Lock, MAX_NODES};
use perf::bench::Text;
use perf::record::{Core, Encoder, Hello, Machine, Node, PROTOCOL, Record};

use crate::arch::{apic, cpu, speculation};
use crate::{early, image, levels, log, machine, memory, start};

/// Encodes records and numbers them. Level 190: below the serial line only.
static ENCODER: Lock<190, Encoder> = Lock::new(Encoder::new());

/// Sends one record, unless the command line switched records off.
///
/// A record that does not fit a frame is lost, and the reader sees the gap in the sequence numbers.
pub(crate) fn send(record: &Record<'_>) {
    if !start::params().records {
        return;
    }
    IrqOff::with(|irq| {
        irq.locks(|held| {
            ENCODER.with(held, |encoder, _| {
                if let Ok(frame) = encoder.encode(record) {
                    levels::serial(|serial| serial.write(frame));
                }
            });
        });
    });
}

/// Says what machine this is: a few lines for people, the whole of it as records.
pub(crate) fn banner() {
    let topology = machine::topology();
    let (hertz, source) = machine::clock();
    let memory = memory::total_bytes();
    let params = start::params();
    log!("nearfield {}: {}", env!("CARGO_PKG_VERSION"), start::handover().command_line());
    log!(
        "{} cores on {} nodes, {} MiB, {}, clock {}.{:03} MHz ({})",
        topology.core_count(),
        topology.node_count(),
        memory >> 20,
        apic::mode().word(),
        hertz / 1_000_000,
        hertz / 1000 % 1000,
        source.word()
    );
    log!(
        "memory: the kernel has {} KiB, its laboratory {} KiB ({}), the allocator {} KiB",
        memory::kernel_bytes() >> 10,
        memory::laboratory_bytes() >> 10,
        if image::keeps_laboratory() { "kept" } else { "given back" },
        (memory::frames().stats().frames as u64 * early::PAGE) >> 10
    );
    send(&Record::Hello(Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION"),
        params: start::handover().command_line(),
        seed: params.seed,
    }));
    send_machine(topology);
    send_topology(topology);
}

fn send_machine(topology: &Topology) {
    let id = cpu::cpuid();
    let vendor = id.get_vendor_info();
    let brand = id.get_processor_brand_string();
    let mut features = Text::<256>::new();
    for (i, name) in machine::features().names().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        // The names are constants that fit; `cpu` would have to grow by ten more features before one was cut.
        let _ = core::fmt::Write::write_fmt(&mut features, format_args!("{separator}{name}"));
    }
    let hypervisor = id.get_hypervisor_info().map(|info| {
        let mut name = Text::<64>::new();
        let _ = core::fmt::Write::write_fmt(&mut name, format_args!("{:?}", info.identify()));
        name
    });
    let mut mitigations = Text::<128>::new();
    // Six measures of at most six letters, with a word of at most ten: they fit.
    let _ = core::fmt::Write::write_fmt(&mut mitigations, format_args!("{}", speculation::in_force()));
    let (tsc_hz, source) = machine::clock();
    send(&Record::Machine(Machine {
        cpu: brand.as_ref().map_or("", |b| b.as_str()).trim(),
        vendor: vendor.as_ref().map_or("", |v| v.as_str()),
        features: features.as_str(),
        hypervisor: hypervisor.as_ref().map_or("", |name| name.as_str()),
        mitigations: mitigations.as_str(),
        apic: apic::mode().word(),
        tsc_hz,
        tsc_source: source.word(),
        cores: topology.core_count() as u32,
        nodes: topology.node_count() as u32,
        memory: memory::total_bytes(),
        kernel_memory: memory::kernel_bytes(),
        boot_ticks: machine::boot_ticks().0,
    }));
}

fn send_topology(topology: &Topology) {
    for node in topology.nodes() {
        let mut distances = [0; MAX_NODES];
        let count = topology.node_count();
        for (slot, other) in distances.iter_mut().zip(topology.nodes()) {
            *slot = topology.distance(node, other);
        }
        send(&Record::Node(Node {
            id: u32::from(node.raw()),
            ranges: topology.memory().iter().filter(|range| range.node == node).count() as u32,
            memory: memory::node_bytes(node),
            distances: &distances[..count],
        }));
    }
    for core in topology.cores() {
        let info = topology.core(core);
        send(&Record::Core(Core {
            id: u32::from(core.raw()),
            apic_id: info.apic.0,
            node: u32::from(info.node.raw()),
            package: u32::from(info.package.raw()),
            llc: u32::from(info.llc.raw()),
            smt: u32::from(info.smt.raw()),
        }));
    }
}
