//! Images of every kind, good and bad: a plan says what wide arithmetic over the headers says, and nothing makes it panic.
//!
//! Planted: segments with a page in common; the end of a file range wraps; a page's bytes at its start wherever they belong; the zeroes before a
//! segment forgotten; more bytes in the file than in memory; page 0; an entry in data; any alignment; a movable image linked far away; a window
//! that forgets the image; a heap in the stack's window; an arena on top of a fixed image.
#![cfg(not(loom))]

use abi::image::ImageFlaw as Flaw;
use mm::image::{HEAD_BYTES, MAX_PAGES, MAX_SEGMENTS, MAX_STACK, Placing, Plan};
use mm::space::Protection;
use mm::virt::{PAGE_BYTES, USER_PAGES};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq, proptest};

const PAGE: u64 = PAGE_BYTES as u64;
const HEADERS_AT: usize = 64;
const HEADER_BYTES: usize = 56;

const LOAD: u32 = 1;
const INTERP: u32 = 3;
const TLS: u32 = 7;
const GNU_STACK: u32 = 0x6474_e551;
const GNU_RELRO: u32 = 0x6474_e552;
const X: u32 = 1;
const W: u32 = 2;
const R: u32 = 4;

const EXEC: u16 = 2;
const DYN: u16 = 3;

/// One program header.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    filled: u64,
    size: u64,
    align: u64,
}

/// A file by what its headers say.
#[derive(Clone, Debug)]
struct File {
    kind: u16,
    entry: u64,
    headers: Vec<Header>,
    bytes: usize,
}

impl File {
    fn write(&self) -> Vec<u8> {
        let mut file = vec![0; self.bytes.max(HEADERS_AT + self.headers.len() * HEADER_BYTES)];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &self.kind.to_le_bytes());
        put(18, &62_u16.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(24, &self.entry.to_le_bytes());
        put(32, &(HEADERS_AT as u64).to_le_bytes());
        put(52, &64_u16.to_le_bytes());
        put(54, &(HEADER_BYTES as u16).to_le_bytes());
        put(56, &(self.headers.len() as u16).to_le_bytes());
        for (index, header) in self.headers.iter().enumerate() {
            let at = HEADERS_AT + index * HEADER_BYTES;
            put(at, &header.kind.to_le_bytes());
            put(at + 4, &header.flags.to_le_bytes());
            let words =
                [header.offset, header.address, header.address, header.filled, header.size, header.align];
            words.iter().enumerate().for_each(|(i, word)| put(at + 8 + 8 * i, &word.to_le_bytes()));
        }
        file
    }

    fn loads(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter().filter(|header| header.kind == LOAD && (header.size, header.filled) != (0, 0))
    }
}

/// Three segments as a linker makes them.
fn good(kind: u16, base: u64) -> File {
    let load = |flags, offset, filled, size| Header {
        kind: LOAD,
        flags,
        offset,
        address: base + offset,
        filled,
        size,
        align: PAGE,
    };
    let headers = vec![
        load(R, 0, 0x500, 0x500),
        load(R | X, 0x1500, 0x1b00, 0x1b00),
        load(R | W, 0x4100, 0x1234, 0x5000),
        Header { kind: TLS, align: 16, ..load(R, 0x4200, 0x10, 0x40) },
        Header { kind: GNU_STACK, align: 0, ..load(R | W, 0, 0, 0) },
        Header { kind: GNU_RELRO, ..load(R, 0x4100, 0x100, 0x100) },
    ];
    File { kind, entry: base + 0x1600, headers, bytes: 0x6000 }
}

/// First page and the page after the last.
fn pages(header: &Header) -> (u128, u128) {
    let (start, end) = (u128::from(header.address), u128::from(header.address) + u128::from(header.size));
    let page = u128::from(PAGE);
    (start / page, end.div_ceil(page))
}

/// Whether one segment is allowed, by itself.
fn segment_is_good(header: &Header, bytes: usize) -> bool {
    let inside = header.filled <= header.size
        && u128::from(header.offset) + u128::from(header.filled) <= bytes as u128;
    let align = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].map(|pages| pages * PAGE);
    inside
        && align.contains(&header.align)
        && header.address % header.align == header.offset % header.align
        && pages(header).1 <= USER_PAGES as u128
        && header.flags & (W | X) != W | X
}

/// The rules, over whole numbers that cannot overflow.
fn is_good(file: &File) -> bool {
    let loads: Vec<&Header> = file.loads().collect();
    let (Some(first), Some(last)) = (loads.first(), loads.last()) else { return false };
    let (first, last) = (pages(first).0, pages(last).1);
    let movable = file.kind == DYN;
    let tls: Vec<_> = file.headers.iter().filter(|header| header.kind == TLS).collect();
    let in_segment = |start: u64, bytes: u64| {
        loads.iter().any(|load| {
            let (first, end) = pages(load);
            let page = u128::from(PAGE);
            first * page <= u128::from(start) && u128::from(start) + u128::from(bytes) <= end * page
        })
    };
    let tls_is_good = |tls: &Header| {
        (tls.filled == 0 || in_segment(tls.address, tls.filled))
            && u128::from(tls.address) + u128::from(tls.filled) < 1 << 64
            && tls.align.max(1).is_power_of_two()
            && tls.align <= PAGE
            && tls.filled <= tls.size
            && tls.size <= MAX_PAGES as u64 * PAGE
    };
    let entry = u128::from(file.entry / PAGE);
    let code = loads.iter().find(|load| (pages(load).0..pages(load).1).contains(&entry));
    loads.len() <= MAX_SEGMENTS
        && (file.kind == EXEC || movable)
        && !file.headers.iter().any(|header| header.kind == INTERP)
        && !file.headers.iter().any(|header| header.kind == GNU_STACK && header.flags & X != 0)
        && loads.iter().all(|header| segment_is_good(header, file.write().len()))
        && loads.windows(2).all(|pair| pages(pair[0]).1 <= pages(pair[1]).0)
        && (movable || first != 0)
        && if movable { last } else { last - first } <= MAX_PAGES as u128
        && code.is_some_and(|code| code.flags & X != 0)
        && tls.len() <= 1
        && tls.iter().all(|tls| tls_is_good(tls))
}

/// I1 to I3, whatever the file is.
fn is_sound(plan: &Plan, bytes: usize) -> Result<(), TestCaseError> {
    let segments = plan.segments();
    prop_assert!(!segments.is_empty() && segments.len() <= MAX_SEGMENTS);
    let mut at = plan.first().number();
    for segment in segments {
        prop_assert!(segment.first().number() >= at && segment.pages() > 0, "I1");
        prop_assert!(segment.filled() <= segment.pages());
        at = segment.first().number() + segment.pages();
        // Of a large file the ends are enough.
        let filled = segment.filled();
        for index in (0..filled.min(64)).chain(filled.saturating_sub(64)..filled) {
            let piece = segment.piece(index).expect("a page that is filled");
            prop_assert!(piece.bytes > 0 && piece.at + piece.bytes <= PAGE_BYTES, "{piece:?}");
            prop_assert!(piece.offset.checked_add(piece.bytes).is_some_and(|end| end <= bytes), "I2");
        }
        prop_assert_eq!(segment.piece(filled), None);
    }
    prop_assert_eq!(at, plan.first().number() + plan.pages());
    prop_assert!(at <= USER_PAGES && plan.pages() <= MAX_PAGES, "I1");
    prop_assert!(plan.placing() == Placing::Movable || plan.first().number() > 0, "I1");
    let entry = plan.entry() / PAGE_BYTES;
    let code = segments
        .iter()
        .find(|segment| (segment.first().number()..).take(segment.pages()).any(|page| page == entry));
    prop_assert_eq!(code.map(|segment| segment.protection), Some(Protection::ReadExecute), "I3");
    Ok(())
}

/// A byte of the loaded image, by the headers: the file's, or zero, or nothing where no segment has it.
fn byte_of(file: &File, bytes: &[u8], address: u64) -> Option<u8> {
    let load = file.loads().find(|load| {
        let (first, end) = pages(load);
        (first..end).contains(&u128::from(address / PAGE))
    })?;
    let held = address.checked_sub(load.address).filter(|&at| at < load.filled);
    Some(held.map_or(0, |at| bytes[(load.offset + at) as usize]))
}

/// What the plan puts into a page.
fn page_of(plan: &Plan, bytes: &[u8], page: usize) -> Option<[u8; PAGE_BYTES]> {
    let holds = |first: usize, pages: usize| (first..first + pages).contains(&page);
    let segment = plan.segments().iter().find(|s| holds(s.first().number(), s.pages()))?;
    let mut content = [0; PAGE_BYTES];
    if let Some(piece) = segment.piece(page - segment.first().number()) {
        let from = &bytes[piece.offset..piece.offset + piece.bytes];
        content[piece.at..piece.at + piece.bytes].copy_from_slice(from);
    }
    Some(content)
}

/// Numbers at the edges that the rules are about, and others.
fn number() -> impl Strategy<Value = u64> {
    let edges = vec![0, PAGE, 0x4000, 1 << 21, 1 << 30, 1 << 31, 1 << 47, 1 << 63, u64::MAX];
    prop_oneof![
        4 => (proptest::sample::select(edges), -3_i64..4).prop_map(|(edge, by)| edge.wrapping_add_signed(by)),
        4 => (0_u64..16).prop_map(|pages| pages * PAGE),
        2 => 0_u64..0x8000,
        1 => any::<u64>(),
    ]
}

/// A change to a good file's headers.
#[derive(Clone, Copy, Debug)]
enum Change {
    Set(usize, usize, u64),
    Flags(usize, u32),
    Kind(usize, u32),
    Repeat(usize),
    Swap(usize, usize),
    Entry(u64),
    Type(u16),
    Cut(usize),
    Shift(usize, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let kinds = vec![0, LOAD, 2, INTERP, 4, 6, TLS, GNU_STACK, GNU_RELRO];
    prop_oneof![
        6 => (0_usize..6, 0_usize..5, number()).prop_map(|(at, field, to)| Change::Set(at, field, to)),
        1 => (0_usize..6, 0_u32..8).prop_map(|(at, flags)| Change::Flags(at, flags)),
        1 => (0_usize..6, proptest::sample::select(kinds)).prop_map(|(at, kind)| Change::Kind(at, kind)),
        1 => (0_usize..6).prop_map(Change::Repeat),
        1 => (0_usize..6, 0_usize..6).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => number().prop_map(Change::Entry),
        1 => (0_u16..6).prop_map(Change::Type),
        1 => (0_usize..0x7000).prop_map(Change::Cut),
        2 => (0_usize..6, 0_u64..0x3000).prop_map(|(at, by)| Change::Shift(at, by)),
    ]
}

fn changed(mut file: File, changes: &[Change]) -> File {
    for &change in changes {
        let len = file.headers.len();
        match change {
            Change::Set(at, field, to) => {
                let header = &mut file.headers[at % len];
                let fields = [
                    &mut header.offset,
                    &mut header.address,
                    &mut header.filled,
                    &mut header.size,
                    &mut header.align,
                ];
                fields.into_iter().nth(field).into_iter().for_each(|field| *field = to);
            }
            Change::Flags(at, flags) => file.headers[at % len].flags = flags,
            Change::Kind(at, kind) => file.headers[at % len].kind = kind,
            Change::Repeat(at) => file.headers.push(file.headers[at % len]),
            Change::Swap(a, b) => file.headers.swap(a % len, b % len),
            Change::Entry(to) => file.entry = to,
            Change::Type(to) => file.kind = to,
            Change::Cut(to) => file.bytes = to,
            Change::Shift(at, by) => {
                for header in file.headers.iter_mut().skip(at) {
                    header.address = header.address.wrapping_add(by * PAGE);
                }
            }
        }
    }
    file
}

fn file() -> impl Strategy<Value = File> {
    let base = prop_oneof![Just(0), Just(0x40_0000), Just(0xffff << 30), Just((1 << 47) - 0x1_0000)];
    let kind = prop_oneof![Just(EXEC), Just(DYN)];
    (kind, base, vec(change(), 0..5)).prop_map(|(kind, base, changes)| changed(good(kind, base), &changes))
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(1500))]

    #[test]
    fn plans_agree_with_wide_arithmetic(file in file(), fill in any::<u8>()) {
        let mut bytes = file.write();
        let headers = HEADERS_AT + file.headers.len() * HEADER_BYTES;
        for (at, byte) in bytes.iter_mut().enumerate().skip(headers) {
            *byte = (at as u8).wrapping_mul(31) ^ fill | 1;
        }
        let plan = Plan::read(&bytes);
        prop_assert_eq!(plan.is_ok(), is_good(&file), "{:?}", plan);
        let Ok(plan) = plan else { return Ok(()) };
        is_sound(&plan, bytes.len())?;
        // Every page with something from the file, and those beside.
        for segment in plan.segments() {
            let first = segment.first().number();
            for page in first.saturating_sub(1)..first + segment.filled().min(16) + 2 {
                let wanted: Option<Vec<u8>> =
                    (0..PAGE).map(|at| byte_of(&file, &bytes, page as u64 * PAGE + at)).collect();
                prop_assert_eq!(page_of(&plan, &bytes, page).map(Vec::from), wanted, "page {:#x}", page);
            }
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(plan) = Plan::read(&bytes) {
            is_sound(&plan, bytes.len())?;
        }
    }

    #[test]
    fn damaged_headers_are_judged(
        kind in prop_oneof![Just(EXEC), Just(DYN)],
        damages in vec((0_usize..HEADERS_AT + 6 * HEADER_BYTES, any::<u8>()), 1..12),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0_usize..0x6000],
    ) {
        let mut bytes = good(kind, 0x40_0000).write();
        damages.iter().for_each(|&(at, to)| bytes[at] = to);
        bytes.truncate(cut);
        if let Ok(plan) = Plan::read(&bytes) {
            is_sound(&plan, bytes.len())?;
        }
        // The length is only a claim until bytes are copied: the largest does no harm either.
        if let Ok(plan) = Plan::of(&bytes[..bytes.len().min(HEAD_BYTES)], usize::MAX) {
            is_sound(&plan, usize::MAX)?;
        }
    }

    #[test]
    fn places_do_not_meet(file in file(), stack in 1..=MAX_STACK, draws in vec(any::<u64>(), 5)) {
        let Ok(plan) = Plan::read(&file.write()) else { return Ok(()) };
        let mut draws = draws.into_iter();
        let layout = plan.place(stack, |bound| {
            assert!(bound > 0, "an empty choice");
            // The edges of every choice are tried more often than the middle.
            match draws.next() {
                Some(draw) if draw % 4 == 0 => bound - 1,
                Some(draw) if draw % 4 > 1 => (draw / 4) as usize % bound,
                _ => 0,
            }
        });
        let layout = layout.unwrap();
        let guarded = layout.stack.start().number() - 1..layout.stack.end().number() + 1;
        let (image, heap) = (layout.image, layout.heap.number());
        prop_assert_eq!((image.len(), layout.stack.len()), (plan.pages(), stack));
        prop_assert_eq!(layout.moved(plan.first()), image.start());
        prop_assert!(layout.slide() % (plan.align() * PAGE_BYTES) == 0);
        prop_assert!(plan.placing() == Placing::Movable || layout.slide() == 0);
        prop_assert!(image.start().number() > 0 && guarded.start > 0, "page 0");
        prop_assert!(image.end().number() <= guarded.start || guarded.end <= image.start().number());
        // The heap is above the stack; what lies above it is an image that could not be moved.
        prop_assert!(heap >= guarded.end);
        prop_assert!(image.end().number() <= heap || image.start().number() > heap && layout.slide() == 0);
        prop_assert!(heap < USER_PAGES / 2 + (4 << 18));
    }
}

#[test]
fn good_images_are_taken() {
    for (kind, base) in [(DYN, 0), (EXEC, 0x40_0000), (EXEC, (1 << 47) - 0xa000)] {
        let file = good(kind, base);
        assert!(is_good(&file));
        let plan = Plan::read(&file.write()).unwrap();
        let tls = plan.tls().unwrap();
        assert_eq!((tls.address, tls.filled, tls.bytes, tls.align), (base as usize + 0x4200, 0x10, 0x40, 16));
        assert_eq!((plan.segments().len(), plan.filled(), plan.pages()), (3, 1 + 2 + 2, 10));
        assert_eq!(plan.place(0, |_| 0), None);
        assert_eq!(plan.place(MAX_STACK + 1, |_| 0), None);
    }
}

#[test]
fn each_flaw_has_its_reason() {
    let flaw = |change: fn(&mut File)| {
        let mut file = good(EXEC, 0x40_0000);
        change(&mut file);
        Plan::read(&file.write()).unwrap_err()
    };
    assert_eq!(Plan::read(&[]).unwrap_err(), Flaw::NotElf);
    assert_eq!(flaw(|file| file.kind = 1), Flaw::NotProgram);
    assert_eq!(flaw(|file| file.headers[3].kind = INTERP), Flaw::Interpreter);
    assert_eq!(flaw(|file| file.headers.clear()), Flaw::Headers);
    assert_eq!(flaw(|file| file.headers.extend([file.headers[4]; 40])), Flaw::Headers);
    assert_eq!(flaw(|file| file.bytes = 0x5000), Flaw::Beyond);
    assert_eq!(flaw(|file| file.headers[0].filled += 1), Flaw::Beyond);
    assert_eq!(flaw(|file| file.headers[0].offset = u64::MAX), Flaw::Beyond);
    assert_eq!(flaw(|file| file.headers[1].address += 8), Flaw::Misaligned);
    assert_eq!(flaw(|file| file.headers[1].align = 16), Flaw::Misaligned);
    assert_eq!(flaw(|file| file.headers.swap(0, 1)), Flaw::Overlap);
    assert_eq!(flaw(|file| file.headers[0].size = PAGE + 0x501), Flaw::Overlap, "a page in common");
    assert_eq!(flaw(|file| file.headers[0].address = 0), Flaw::Range, "page 0");
    assert_eq!(flaw(|file| file.headers[2].size = 1 << 47), Flaw::Range);
    assert_eq!(flaw(|file| file.headers[2].size = 1 << 31), Flaw::TooLarge);
    assert_eq!(flaw(|file| file.headers[1].flags |= W), Flaw::WriteExecute);
    assert_eq!(flaw(|file| file.headers[4].flags |= X), Flaw::WriteExecute);
    assert_eq!(flaw(|file| file.entry = 0x40_0000), Flaw::Entry);
    assert_eq!(flaw(|file| file.headers[3].align = 24), Flaw::Tls);
    assert_eq!(flaw(|file| file.headers[3].address = 0), Flaw::Tls);
}
