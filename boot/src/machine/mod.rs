//! Everything that touches the machine, and the order in which it happens.

mod answers;
mod apic;
mod asm;
mod clock;
mod console;
mod cores;
mod cpu;
mod exceptions;
mod mtrr;
mod park;
mod physical;
mod rtc;

use abi::exit::Exit;
use answers::Answers;
use boot::acpi::{Madt, Root, pm_timer_port};
use boot::bundle::Bundle;
use boot::image::Plan;
use boot::map::{Kind, Map};
use boot::paging::Tables;
use boot::protocol::{self, HHDM};
use boot::requests::{FIRST, Feature, Requests};
use boot::start::StartInfo;
use boot::{PAGE, Refusal, to_u64, to_usize};
use clock::Clock;
use console::{Console, refuse, say};
use core::panic::PanicInfo;
use exceptions::Table;
use physical::{Heap, Physical, anywhere};

/// The reader of physical memory; a static, so that what is read lives as long as the loader.
static PHYSICAL: Physical = Physical;

/// Where `entry.S` calls Rust.
extern "C" fn loader_main(start_info: u32) -> ! {
    Console::start();
    let table = Table::new();
    // SAFETY: this function never returns, so its locals live as long as the loader.
    let table: &'static Table = unsafe { (&raw const table).as_ref_unchecked() };
    table.load();
    let Err(refusal) = boot(start_info, table);
    refuse(refusal)
}

/// Loads the kernel and leaves for it.
fn boot(start_info: u32, exceptions: &'static Table) -> Result<core::convert::Infallible, Refusal> {
    let info = StartInfo::read(&PHYSICAL, u64::from(start_info))?;
    let mut map = Map::new();
    map.from_firmware(info.regions())?;
    claim_occupied(&mut map, &info)?;

    let bundle = Bundle::parse(info.bundle)?;
    let plan = Plan::parse(bundle.kernel().data)?;
    let mut heap = Heap::new(&mut map);
    let (physical, image) = load(&mut heap, &plan, bundle.kernel().data)?;
    let (requests, tag) = Requests::scan(&image[..plan.filled()])?;
    let cmdline = if info.cmdline.is_empty() { bundle.cmdline().unwrap_or_default() } else { info.cmdline };
    let cmdline = heap.text(&[cmdline])?;

    let root = Root::read(&PHYSICAL, info.rsdp).or_else(|| Root::search(&PHYSICAL));
    let madt = root.and_then(|root| Madt::find(&PHYSICAL, &root));
    let clock_port = root.and_then(|root| pm_timer_port(&PHYSICAL, &root));
    silence(madt.as_ref());

    let mut answers = Answers {
        image,
        physical,
        plan: &plan,
        requests: &requests,
        tag,
        bundle: &bundle,
        bundle_base: info.initrd,
        heap,
    };
    answers.answer_tag();
    answers.answer_plain(cmdline, root.map(|root| root.rsdp))?;
    let entry = answers.entry_point()?;
    let stack_size = answers.stack_size()?;
    let (stack, _) = answers.heap.block(stack_size, PAGE, anywhere(), Kind::LoaderReclaimable)?;

    let mut tables = Tables::new(&mut answers.heap, cpu::paging_features())?;
    tables.map_image(&plan, physical)?;
    let map = tables.memory().map.clone();
    tables.map_direct(&map, tag.loaded())?;
    let cr3 = tables.root;

    cpu::set_pat();
    if requests.get(Feature::Mp).is_some() {
        let wants_x2apic = answers.read(Feature::Mp, FIRST).unwrap_or(0) & protocol::X2APIC != 0;
        let roster = cores::roll_call(&mut answers.heap, madt.as_ref(), wants_x2apic)?;
        answers.answer(Feature::Mp, roster.response)?;
        let clock = Clock::new(clock_port);
        cores::start(&mut answers.heap, &roster, clock, stack_size, cr3, exceptions)?;
    }
    answers.answer_memory_map()?;
    // SAFETY: `tables` maps the image and, in the direct map, all memory the loader took, which the stack is part of.
    unsafe { asm::entry_hand_over(entry, HHDM + stack + stack_size, 0, cr3) }
}

/// Keeps what is still read, and the loader itself, from being handed out.
fn claim_occupied(map: &mut Map, info: &StartInfo<'_>) -> Result<(), Refusal> {
    let initrd = (info.initrd, info.initrd + to_u64(info.bundle.len()));
    if asm::loader_extents().iter().any(|&(base, end)| base < initrd.1 && initrd.0 < end) {
        let what = "the machine has too little memory: the bundle overlaps the loader at this address";
        return Err(Refusal::with(Exit::NoMemory, what, initrd.0));
    }
    let all = asm::loader_extents().into_iter().chain(info.occupied).chain([initrd]);
    for (base, end) in all {
        map.claim(base, end, Kind::LoaderReclaimable)?;
    }
    Ok(())
}

/// Places the kernel: physical address and content of its image.
fn load(heap: &mut Heap<'_>, plan: &Plan, file: &[u8]) -> Result<(u64, &'static mut [u8]), Refusal> {
    let (block, bytes) = heap.block(plan.footprint(), plan.align, anywhere(), Kind::ExecutableAndModules)?;
    let slack = to_usize(plan.slack());
    let image = &mut bytes[slack..];
    let mut filled = 0;
    for segment in plan.segments() {
        let at = plan.offset(segment);
        let end = at + segment.file_size;
        image[filled..at].fill(0);
        image[at..end].copy_from_slice(&file[segment.file_offset..segment.file_offset + segment.file_size]);
        filled = end;
    }
    image[filled..].fill(0);
    Ok((block + plan.slack(), image))
}

/// Masks every interrupt source the protocol names.
fn silence(madt: Option<&Madt<'_>>) {
    apic::mask_pics();
    madt.into_iter().flat_map(Madt::io_apics).for_each(apic::mask_io_apic);
}

/// A broken invariant of the loader.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("error: {info}");
    console::end(Exit::LoaderException)
}
