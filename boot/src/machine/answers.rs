//! Answering the kernel's requests (protocol, "Feature List").

use super::physical::{Heap, anywhere};
use super::rtc;
use abi::exit::Exit;
use boot::bundle::{Bundle, Member};
use boot::image::Plan;
use boot::map::{CAPACITY, Kind};
use boot::protocol::{self, File, HHDM, Honoured, MemoryMapEntry, Pair, Value};
use boot::requests::{FIRST, Feature, RESPONSE, REVISION, Requests, Tag};
use boot::{PAGE, Refusal, to_u64, to_usize};

/// The kernel in memory, what it asks for, and where the answers are kept.
pub(super) struct Answers<'a, 'm> {
    /// The loaded image.
    pub(super) image: &'static mut [u8],
    /// Physical address of the image.
    pub(super) physical: u64,
    /// How it was placed.
    pub(super) plan: &'a Plan,
    /// What it asks for.
    pub(super) requests: &'a Requests,
    /// The base revision it is loaded with.
    pub(super) tag: Tag,
    /// The files.
    pub(super) bundle: &'a Bundle<'static>,
    /// Physical address of the bundle.
    pub(super) bundle_base: u64,
    /// Memory for the answers.
    pub(super) heap: Heap<'m>,
}

impl Answers<'_, '_> {
    /// Marks the base revision tag as the protocol says.
    pub(super) fn answer_tag(&mut self) {
        self.write(self.tag.offset + 8, self.tag.loaded());
        if self.tag.is_supported() {
            self.write(self.tag.offset + 16, 0);
        }
    }

    /// A member of a request, by its offset.
    pub(super) fn read(&self, feature: Feature, member: usize) -> Option<u64> {
        let at = self.requests.get(feature)? + member;
        self.image.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Stores a response, if there is such a request, and points the request to it.
    pub(super) fn answer<T: Copy + 'static>(&mut self, feature: Feature, response: T) -> Result<(), Refusal> {
        if let Some(request) = self.requests.get(feature) {
            let address = self.heap.store(&[response])?;
            self.write(request + RESPONSE, address);
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, value: u64) {
        if let Some(slot) = self.image.get_mut(offset..offset + 8) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Everything that needs no other core and no page table.
    pub(super) fn answer_plain(&mut self, cmdline: u64, rsdp: Option<u64>) -> Result<(), Refusal> {
        let name = self.heap.text(&[b"Nearfield boot"])?;
        let version = self.heap.text(&[env!("CARGO_PKG_VERSION").as_bytes()])?;
        self.answer(Feature::LoaderInfo, Pair { revision: 0, first: name, second: version })?;
        self.answer(Feature::Cmdline, Value { revision: 0, value: cmdline })?;
        self.answer(Feature::StackSize, Honoured { revision: 0 })?;
        self.answer(Feature::Hhdm, Value { revision: 0, value: HHDM })?;
        let (first, second) = (self.physical, self.plan.base());
        self.answer(Feature::ExecutableAddress, Pair { revision: 0, first, second })?;
        if let Some(rsdp) = rsdp {
            // Physical in base revision 3, in the direct map before.
            let value = if self.tag.loaded() >= 3 { rsdp } else { HHDM + rsdp };
            self.answer(Feature::Rsdp, Value { revision: 0, value })?;
        }
        if self.requests.get(Feature::DateAtBoot).is_some()
            && let Some(value) = rtc::unix_time()
        {
            self.answer(Feature::DateAtBoot, Value { revision: 0, value })?;
        }
        self.answer_paging_mode()?;
        self.answer_file(cmdline)?;
        self.answer_modules()
    }

    /// Bytes of a stack: what is asked for, but not less than the protocol's minimum.
    pub(super) fn stack_size(&self) -> Result<u64, Refusal> {
        let asked = self.read(Feature::StackSize, FIRST).unwrap_or(0).max(protocol::MIN_STACK);
        boot::align_up(asked, PAGE).ok_or(Refusal::with(
            Exit::NoMemory,
            "the kernel asks for this large a stack",
            asked,
        ))
    }

    /// Where the kernel starts.
    pub(super) fn entry_point(&mut self) -> Result<u64, Refusal> {
        let Some(entry) = self.read(Feature::EntryPoint, FIRST) else { return Ok(self.plan.entry) };
        if !self.plan.is_code(entry) {
            return Err(Refusal::with(
                Exit::BadProtocol,
                "the kernel asks for an entry point outside its code",
                entry,
            ));
        }
        self.answer(Feature::EntryPoint, Honoured { revision: 0 })?;
        Ok(entry)
    }

    /// Four levels, unless the kernel cannot live with that.
    fn answer_paging_mode(&mut self) -> Result<(), Refusal> {
        const FOUR_LEVELS: u64 = 0;
        const MIN_MODE: usize = FIRST + 16;
        let has_min = self.read(Feature::PagingMode, REVISION).is_some_and(|revision| revision >= 1);
        let min = self.read(Feature::PagingMode, MIN_MODE).filter(|_| has_min).unwrap_or(FOUR_LEVELS);
        if min > FOUR_LEVELS {
            return Err(Refusal::with(
                Exit::BadProtocol,
                "the kernel needs more than 4-level page tables: mode",
                min,
            ));
        }
        self.answer(Feature::PagingMode, Value { revision: 0, value: FOUR_LEVELS })
    }

    fn answer_file(&mut self, cmdline: u64) -> Result<(), Refusal> {
        if self.requests.get(Feature::ExecutableFile).is_none() {
            return Ok(());
        }
        let file = self.file(self.bundle.kernel(), cmdline)?;
        let value = self.heap.store(&[file])?;
        self.answer(Feature::ExecutableFile, Value { revision: 0, value })
    }

    /// The modules: those the kernel names itself first, then the rest of the bundle.
    fn answer_modules(&mut self) -> Result<(), Refusal> {
        /// Internal modules are honoured, compressed ones are not.
        const RESPONSE_REVISION: u64 = 1;
        if self.requests.get(Feature::Modules).is_none() {
            return Ok(());
        }
        let mut files = [0u64; boot::bundle::MEMBERS];
        let mut taken = [false; boot::bundle::MEMBERS];
        let mut count = 0;
        let internal = self.read(Feature::Modules, REVISION).filter(|&revision| revision >= 1);
        let internal = internal.and(self.read(Feature::Modules, FIRST)).unwrap_or(0);
        for index in 0..internal {
            let Some((member, string)) = self.internal_module(index)? else { continue };
            let full = Refusal::new(Exit::BadProtocol, "the kernel names too many modules");
            *files.get_mut(count).ok_or(full)? = self.module(&self.bundle.modules()[member], string)?;
            taken[member] = true;
            count += 1;
        }
        let rest = self.bundle.modules().iter().zip(taken).filter(|&(_, taken)| !taken);
        for (member, _) in rest {
            let string = self.heap.text(&[])?;
            let full = Refusal::new(Exit::BadBundle, "the bundle has too many modules");
            *files.get_mut(count).ok_or(full)? = self.module(member, string)?;
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        let second = self.heap.store(&files[..count])?;
        let first = to_u64(count);
        self.answer(Feature::Modules, Pair { revision: RESPONSE_REVISION, first, second })
    }

    fn module(&mut self, member: &Member<'static>, string: u64) -> Result<u64, Refusal> {
        let file = self.file(member, string)?;
        self.heap.store(&[file])
    }

    /// The index in the bundle of an internal module, and its string; `None` when it is not there and need not be.
    fn internal_module(&mut self, index: u64) -> Result<Option<(usize, u64)>, Refusal> {
        const LIST: usize = FIRST + 8;
        let bad = Refusal::new(Exit::BadProtocol, "the kernel names an internal module outside its image");
        let list = self.read(Feature::Modules, LIST).ok_or(bad)?;
        let slot = index.checked_mul(8).and_then(|offset| list.checked_add(offset)).ok_or(bad)?;
        let module = self.image_u64(slot).ok_or(bad)?;
        let field = |number: u64| module.checked_add(number * 8).and_then(|at| self.image_u64(at)).ok_or(bad);
        let (path, string, flags) = (field(0)?, field(1)?, field(2)?);
        if flags & protocol::MODULE_COMPRESSED != 0 {
            return Err(Refusal::new(Exit::BadProtocol, "the kernel asks for a compressed module"));
        }
        let path = image_text(self.image, self.plan.base(), path).ok_or(bad)?;
        let Some(member) = self.bundle.module(path) else {
            let missing = Refusal::new(Exit::BadBundle, "a module the kernel requires is not in the bundle");
            return if flags & protocol::MODULE_REQUIRED == 0 { Ok(None) } else { Err(missing) };
        };
        let string = match string {
            0 => &[],
            address => image_text(self.image, self.plan.base(), address).ok_or(bad)?,
        };
        Ok(Some((member, self.heap.text(&[string])?)))
    }

    /// A word of the image, by its virtual address.
    fn image_u64(&self, address: u64) -> Option<u64> {
        let at = to_usize(address.checked_sub(self.plan.base())?);
        self.image.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Describes a file that has its pages to itself: in place if it is placed so in the bundle, else a copy.
    fn file(&mut self, member: &Member<'static>, string: u64) -> Result<File, Refusal> {
        let len = to_u64(member.data.len());
        let in_place = self.bundle_base + to_u64(member.offset);
        let base = if self.bundle.in_place(self.bundle_base, member) {
            self.heap.map.set(in_place, in_place + len.next_multiple_of(PAGE), Kind::ExecutableAndModules)?;
            in_place
        } else {
            let (base, copy) = self.heap.block(len.max(1), PAGE, anywhere(), Kind::ExecutableAndModules)?;
            copy[..member.data.len()].copy_from_slice(member.data);
            base
        };
        let path = self.heap.text(&[b"/", member.name()])?;
        Ok(File { revision: 0, address: HHDM + base, size: len, path, string, origin: [0; 9] })
    }

    /// The memory map, last of all: it must describe the memory it is itself stored in.
    pub(super) fn answer_memory_map(&mut self) -> Result<(), Refusal> {
        if self.requests.get(Feature::MemoryMap).is_none() {
            return Ok(());
        }
        let entry_size = to_u64(size_of::<MemoryMapEntry>());
        let room = [0u64; CAPACITY];
        let pointers = self.heap.store(&room)?;
        let entries = self.heap.store(&[MemoryMapEntry { base: 0, length: 0, kind: 0 }; CAPACITY])?;
        let count = to_u64(self.heap.map.regions().len());
        self.answer(Feature::MemoryMap, Pair { revision: 0, first: count, second: pointers })?;
        // From here on nothing takes memory any more.
        for (index, region) in (0..).zip(self.heap.map.regions()) {
            let entry = MemoryMapEntry {
                base: region.base,
                length: region.end - region.base,
                kind: region.kind.number(),
            };
            let at = entries + index * entry_size;
            Heap::replace(pointers + index * 8, at);
            Heap::replace(at, entry);
        }
        Ok(())
    }
}

/// A text that ends with a zero, by its virtual address in the image at `base`.
fn image_text(image: &[u8], base: u64, address: u64) -> Option<&[u8]> {
    let at = to_usize(address.checked_sub(base)?);
    let text = image.get(at..)?;
    text.iter().position(|&byte| byte == 0).map(|len| &text[..len])
}
