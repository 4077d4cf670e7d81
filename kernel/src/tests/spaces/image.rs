//! Programs in address spaces: what a process would find, before it runs.

mod elf;

use alloc::vec::Vec;

use abi::cap::Handle;
use abi::image::ImageFlaw;
use abi::task::Startup as Block;
use mm::space::{Access, Fault, Kind, Memory, Protection, Shortage, SpaceError};
use mm::virt::{PAGE_BYTES, PageId};
use percpu::IrqOff;

use super::faucet::{Dripping, Faucet};
use super::{Owned, ask, check, load as load_word, new_space, store};
use crate::arch::tsc;
use crate::programs::load::{self, LoadError, Loaded, Randomness};
use crate::programs::startup::{Part, Startup};
use crate::programs::{self, BuildError, Program, Supply};
use crate::spaces::{Physical, Space};
use crate::tests::{Bed, Result, Verdict, ensure, failed};
use crate::{log, machine};

type Or<T> = core::result::Result<T, Verdict>;

/// Where the program of fixed address is linked.
const FIXED_BASE: usize = 0x40_0000;
/// Pages of the stack.
const STACK: usize = 64;
const ARGUMENTS: &[u8] = b"program\0one\0";
/// Bytes of the environment: more than a page, so that the block straddles some.
const ENVIRONMENT: usize = 2 * PAGE_BYTES + 5;
const HANDLES: [Handle; 3] = [Handle(7), Handle(1 << 32), Handle(9)];

const STARTUP: Startup<'_> = Startup {
    arguments: ARGUMENTS.len(),
    environment: ENVIRONMENT,
    handles: &HANDLES,
    process: Handle(21),
    thread: Handle(22),
    id: 23,
};

impl Supply for Faucet {
    type Pool<'a> = Dripping<'a>;

    fn pool<'a>(&'a self, irq: &'a IrqOff) -> Dripping<'a> {
        self.pool(irq)
    }
}

/// A byte of the environment.
fn environment(at: usize) -> u8 {
    (at % 253) as u8
}

/// Supplies the texts.
fn text(_: &mut IrqOff, part: Part, at: usize, to: &mut [u8]) -> bool {
    match part {
        Part::Arguments => to.copy_from_slice(&ARGUMENTS[at..at + to.len()]),
        Part::Environment => to.iter_mut().enumerate().for_each(|(i, byte)| *byte = environment(at + i)),
    }
    true
}

fn build(irq: &mut IrqOff, supply: &Faucet, file: &[u8]) -> core::result::Result<Program, BuildError> {
    Program::build(irq, supply, file.len(), &mut |_, offset, to| {
        to.copy_from_slice(&file[offset..offset + to.len()]);
        true
    })
}

#[inline(never)]
fn map(
    irq: &mut IrqOff,
    supply: &Faucet,
    space: &Space,
    program: &Program,
    randomness: Randomness,
) -> core::result::Result<Loaded, LoadError> {
    load::load(irq, supply, space, program, (STACK, randomness), &STARTUP, &mut text)
}

/// Loads a program at fixed and at drawn places, twice each, and looks at everything: protections, contents, copies, the startup block. The
/// processes outlive the program.
///
/// Planted: data is shown as it is instead of copied; a segment begins at the object's first page; a text begins anew on its second page.
pub(in crate::tests) fn load(_: &mut Bed) -> Result {
    for (kind, base) in [(elf::DYN, 0), (elf::EXEC, FIXED_BASE)] {
        for randomness in [Randomness::Fixed, Randomness::Drawn] {
            let spaces = [new_space()?, new_space()?];
            let file = elf::program(kind, base);
            let result = IrqOff::with(|irq| both(irq, &spaces, &file, randomness));
            let sound = check(&spaces[0]).and(check(&spaces[1])).map(|_| ());
            spaces.into_iter().for_each(Owned::destroy);
            result.and(sound)?;
        }
    }
    Ok(())
}

fn both(irq: &mut IrqOff, spaces: &[Owned; 2], file: &[u8], randomness: Randomness) -> Result {
    let program = build(irq, &Faucet::new(), file);
    let program = program.map_err(|error| failed(format_args!("a good image is refused: {error:?}")))?;
    let mut loaded = Vec::new();
    for space in spaces {
        let start = tsc::now();
        let done = map(irq, &Faucet::new(), space, &program, randomness);
        log!("image.load: mapped in {} ticks", tsc::now() - start);
        loaded.push(done.map_err(|error| failed(format_args!("a program cannot be loaded: {error:?}"))));
    }
    program.release(irq, &Faucet::new());
    let loaded: Vec<Loaded> = loaded.into_iter().collect::<Or<_>>()?;
    let same = loaded[0] == loaded[1];
    ensure!(same == (randomness == Randomness::Fixed), "{randomness:?}: {:?} and {:?}", loaded[0], loaded[1]);
    for (space, loaded) in spaces.iter().zip(&loaded) {
        regions(irq, space, loaded)?;
        block(space, loaded, randomness)?;
    }
    contents(irq, &spaces[0], &loaded[0])?;
    stack(irq, &spaces[0], &loaded[0])?;
    // Whatever the first process has written, the second finds what is in the file.
    contents(irq, &spaces[1], &loaded[1])
}

/// The pages from one on that are alike: what, how it may be used, how many.
fn region(irq: &mut IrqOff, space: &Space, from: usize) -> Option<(usize, Kind, Protection, usize)> {
    let region = crate::spaces::with(irq, space, |cx| space.region(cx, PageId::new(from)))?;
    Some((region.range.start().number(), region.kind, region.protection, region.range.len()))
}

fn regions(irq: &mut IrqOff, space: &Space, loaded: &Loaded) -> Result {
    let image = loaded.layout.image.start().number();
    let stack = loaded.layout.stack.start().number();
    ensure!(loaded.layout.image.len() == elf::PAGES, "the image has {:?}", loaded.layout.image);
    ensure!(loaded.entry == image * PAGE_BYTES + 4, "the entry is {:#x} of {image:#x}", loaded.entry);
    let (data, filled) = (image + elf::DATA / PAGE_BYTES, 2);
    let wanted = [
        (image, Kind::Shared, Protection::ReadExecute, 2),
        (image + elf::CONSTANTS / PAGE_BYTES, Kind::Shared, Protection::Read, 1),
        (data, Kind::Copy, Protection::ReadWrite, filled),
        (data + filled, Kind::Anonymous, Protection::ReadWrite, elf::DATA_PAGES - filled),
        (stack - 1, Kind::Guard, Protection::Read, 1),
        (stack, Kind::Anonymous, Protection::ReadWrite, STACK),
        (stack + STACK, Kind::Guard, Protection::Read, 1),
    ];
    let mut at = 0;
    for wanted in wanted {
        let found = region(irq, space, at);
        ensure!(found == Some(wanted), "from page {at:#x} on {found:x?}, not {wanted:x?}");
        at = wanted.0 + wanted.3;
    }
    ensure!(region(irq, space, at).is_none(), "something is behind page {at:#x}");
    Ok(())
}

/// The bytes of a page that is there.
fn bytes(space: &Space, page: usize) -> Or<&[u8; PAGE_BYTES]> {
    let frame = space.frame_of(PageId::new(page));
    let frame = frame.ok_or_else(|| failed(format_args!("page {page:#x} is not there")))?;
    // SAFETY: a frame of the space, which the direct map shows; while this reference lasts the test writes to no page.
    Ok(unsafe { Physical.at(frame).cast().as_ref() })
}

/// Every page of the image: as in the file, and used as it may be.
fn contents(irq: &mut IrqOff, space: &Owned, loaded: &Loaded) -> Result {
    let first = loaded.layout.image.start().number();
    for index in (0..elf::PAGES).filter(|&index| index != 3) {
        let page = first + index;
        let writable = index >= elf::DATA / PAGE_BYTES;
        let before = space.frame_of(PageId::new(page));
        ensure!(before.is_some() == (index < elf::FILLED_PAGES + 1), "page {index} is there: {before:?}");
        let written = ask(irq, space, page, Access::Write);
        let wanted = if writable { Fault::Resolved } else { Fault::Forbidden };
        ensure!(written == wanted, "page {index} can be written: {written:?}");
        ensure!(*bytes(space, page)? == *elf::expected(index), "page {index} holds something else");
        let after = space.frame_of(PageId::new(page));
        ensure!((before != after) == writable, "page {index} was {before:?} and is {after:?} when written");
        let executed = ask(irq, space, page, Access::Execute);
        let code = index < elf::CONSTANTS / PAGE_BYTES;
        let wanted = if code { Fault::Resolved } else { Fault::Forbidden };
        ensure!(executed == wanted, "page {index} can be executed: {executed:?}");
    }
    // What the CPU makes of it.
    space.activate(irq);
    let (code, data) = (first, first + elf::DATA / PAGE_BYTES);
    let denied = store(irq, code, 1).is_err();
    let read = load_word(irq, code).ok();
    let marked = store(irq, data, 0xda7a).is_ok();
    crate::spaces::deactivate(irq);
    let wanted = elf::expected(0)[..8].try_into().ok().map(u64::from_le_bytes);
    ensure!(denied && marked, "code could be written, or data could not");
    ensure!(read == wanted, "code reads as {read:x?}");
    Ok(())
}

fn stack(irq: &mut IrqOff, space: &Space, loaded: &Loaded) -> Result {
    let (start, end) = (loaded.layout.stack.start().number(), loaded.layout.stack.end().number());
    let found = [start - 1, start, end - 1, end].map(|page| ask(irq, space, page, Access::Write));
    let wanted = [Fault::Guard, Fault::Resolved, Fault::Resolved, Fault::Guard];
    ensure!(found == wanted, "around the stack: {found:?}");
    ensure!(bytes(space, start)?.iter().all(|&byte| byte == 0), "the stack's lowest page is not empty");
    Ok(())
}

/// A word of the space.
fn word(space: &Space, address: usize) -> Or<u64> {
    let page = bytes(space, address / PAGE_BYTES)?;
    let at = address % PAGE_BYTES;
    page[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| failed(format_args!("not eight bytes")))
}

/// Compares a text with what it must be, byte by byte.
fn same(space: &Space, start: usize, len: usize, wanted: impl Fn(usize) -> u8) -> Or<bool> {
    for at in 0..len {
        if bytes(space, (start + at) / PAGE_BYTES)?[(start + at) % PAGE_BYTES] != wanted(at) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn block(space: &Space, loaded: &Loaded, randomness: Randomness) -> Result {
    let at = loaded.startup;
    let (bottom, top) =
        (loaded.layout.stack.start().address() as u64, loaded.layout.stack.end().address() as u64);
    let handles = (at + size_of::<Block>()) as u64;
    let arguments = handles + 8 * HANDLES.len() as u64;
    let environ = arguments + ARGUMENTS.len() as u64;
    let random = [word(space, at + 128)?, word(space, at + 136)?];
    let topology = machine::topology();
    let wanted = [
        Block::VERSION,
        machine::clock().0,
        topology.core_count() as u64,
        topology.node_count() as u64,
        arguments,
        ARGUMENTS.len() as u64,
        environ,
        ENVIRONMENT as u64,
        handles,
        HANDLES.len() as u64,
        STARTUP.process.0,
        STARTUP.thread.0,
        loaded.layout.slide() as u64,
        bottom,
        top,
        loaded.layout.heap.address() as u64,
        random[0],
        random[1],
        STARTUP.id,
    ];
    ensure!(at.is_multiple_of(16), "the stack pointer is {at:#x}");
    ensure!((random == [0; 2]) == (randomness == Randomness::Fixed), "{randomness:?}: {random:x?}");
    for (index, &wanted) in wanted.iter().enumerate() {
        let found = word(space, at + 8 * index)?;
        ensure!(found == wanted, "word {index} of the block is {found:#x}, not {wanted:#x}");
    }
    for (index, handle) in HANDLES.iter().enumerate() {
        let found = word(space, handles as usize + 8 * index)?;
        ensure!(found == handle.0, "handle {index} is {found:#x}");
    }
    let told = same(space, arguments as usize, ARGUMENTS.len(), |at| ARGUMENTS[at])?
        && same(space, environ as usize, ENVIRONMENT, environment)?;
    ensure!(told, "the texts are not what was given");
    let end = environ as usize + ENVIRONMENT;
    ensure!(same(space, end, top as usize - end, |_| 0)?, "something is behind the texts");
    Ok(())
}

/// Every program of the bundle can be found by its name, and loads.
pub(in crate::tests) fn bundled(_: &mut Bed) -> Result {
    if programs::count() == 0 {
        return Err(Verdict::Skipped("the loader has brought no programs"));
    }
    for number in 0..programs::count() {
        let name = programs::name(number).unwrap_or_default();
        ensure!(programs::find(name) == Some(number), "{name} is found at {:?}", programs::find(name));
        let program = programs::get(number).ok_or_else(|| failed(format_args!("{name} is not there")))?;
        let space = new_space()?;
        let loaded = IrqOff::with(|irq| map(irq, &Faucet::new(), &space, program, Randomness::Drawn));
        let sound = check(&space).map(|_| ());
        let there = loaded
            .as_ref()
            .map(|loaded| IrqOff::with(|irq| ask(irq, &space, loaded.entry / PAGE_BYTES, Access::Execute)));
        space.destroy();
        sound?;
        ensure!(there == Ok(Fault::Resolved), "{name}, {:?}: the entry is {there:?}", program.plan());
    }
    Ok(())
}

/// Damages to the program, and what is said of each.
type Damage = (fn(&mut Vec<u8>), BuildError);

const fn flaw(damage: fn(&mut Vec<u8>), flaw: ImageFlaw) -> Damage {
    (damage, BuildError::Flaw(flaw))
}

fn word_at(file: &mut [u8], header: usize, field: usize, word: u64) {
    elf::put(file, elf::header(header) + field, &word.to_le_bytes());
}

const DAMAGES: &[Damage] = &[
    flaw(|file| file.truncate(0), ImageFlaw::NotElf),
    flaw(|file| file[1] = b'X', ImageFlaw::NotElf),
    flaw(|file| elf::put(file, elf::TYPE, &[1, 0]), ImageFlaw::NotProgram),
    flaw(|file| elf::put(file, elf::header(3), &[3, 0, 0, 0]), ImageFlaw::Interpreter),
    flaw(|file| elf::put(file, elf::COUNT, &[0, 0]), ImageFlaw::Headers),
    flaw(|file| file.truncate(2 * PAGE_BYTES), ImageFlaw::Beyond),
    flaw(|file| word_at(file, 1, elf::OFFSET, u64::MAX), ImageFlaw::Beyond),
    flaw(|file| word_at(file, 1, elf::ALIGN, 24), ImageFlaw::Misaligned),
    flaw(|file| word_at(file, 1, elf::ADDRESS, 0), ImageFlaw::Overlap),
    flaw(|file| word_at(file, 2, elf::SIZE, 1 << 46), ImageFlaw::TooLarge),
    flaw(|file| word_at(file, 2, elf::SIZE, 1 << 47), ImageFlaw::Range),
    flaw(|file| file[elf::header(0) + elf::FLAGS] = 7, ImageFlaw::WriteExecute),
    flaw(|file| elf::put(file, elf::ENTRY, &[0, 0, 1]), ImageFlaw::Entry),
];

/// Damaged images are refused for what is wrong with them, and images that cannot be read; nothing is left behind.
pub(in crate::tests) fn malformed(_: &mut Bed) -> Result {
    for (index, (damage, wanted)) in DAMAGES.iter().enumerate() {
        let mut file = elf::program(elf::DYN, 0);
        damage(&mut file);
        let found = IrqOff::with(|irq| {
            build(irq, &Faucet::new(), &file).map(|program| program.release(irq, &Faucet::new())).err()
        });
        ensure!(found == Some(*wanted), "damage {index}: {found:?}, not {wanted:?}");
    }
    let file = elf::program(elf::DYN, 0);
    // The head, then each page.
    for unreadable in 0..=elf::FILLED_PAGES {
        let mut reads = 0;
        let result = IrqOff::with(|irq| {
            let built = Program::build(irq, &Faucet::new(), file.len(), &mut |_, offset, to| {
                to.copy_from_slice(&file[offset..offset + to.len()]);
                reads += 1;
                reads <= unreadable
            });
            built.map(|program| program.release(irq, &Faucet::new())).err()
        });
        ensure!(result == Some(BuildError::Unreadable), "read {unreadable} fails: {result:?}");
    }
    Ok(())
}

/// Memory runs out at the first, second, … allocation of building and loading: it is refused, and nothing is left behind once the space is
/// destroyed.
pub(in crate::tests) fn out_of_memory(_: &mut Bed) -> Result {
    let file = elf::program(elf::DYN, 0);
    let faucet = Faucet::new();
    for nth in 0.. {
        let space = new_space()?;
        faucet.fail_at(Some(nth));
        let result = IrqOff::with(|irq| starve(irq, &faucet, &space, &file));
        space.destroy();
        match result? {
            Some(_) => ensure!(faucet.has_failed(), "allocation {nth} is refused without need"),
            None if faucet.has_failed() => {
                return Err(failed(format_args!("allocation {nth} failed and nobody said so")));
            }
            None => {
                log!("image.out_of_memory: {nth} allocations failed");
                ensure!(nth > elf::FILLED_PAGES, "only {nth} allocations were seen");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One attempt: the shortage that it met, if any.
fn starve(irq: &mut IrqOff, faucet: &Faucet, space: &Space, file: &[u8]) -> Or<Option<Shortage>> {
    let program = match build(irq, faucet, file) {
        Ok(program) => program,
        Err(BuildError::Shortage(shortage)) => return Ok(Some(shortage)),
        Err(error) => return Err(failed(format_args!("building: {error:?}"))),
    };
    let loaded = map(irq, faucet, space, &program, Randomness::Fixed);
    program.release(irq, faucet);
    match loaded {
        Ok(_) => Ok(None),
        Err(LoadError::Space(SpaceError::Shortage(shortage))) => Ok(Some(shortage)),
        Err(error) => Err(failed(format_args!("loading: {error:?}"))),
    }
}
