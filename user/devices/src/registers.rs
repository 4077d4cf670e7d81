//! Device registers are mapped from capabilities only, and never show memory or what the kernel uses.

use abi::cap::Rights;
use abi::error::Error;
use abi::task::Protection;
use rt::handle::{Owned, Ports, Region, Result, Typed};
use rt::{memory, sys};

use crate::{Lab, Outcome, ensure, refused};

/// What every PC has there: memory, an I/O interrupt controller, local ones, the high-precision timer.
const MEMORY: [u64; 4] = [0, 0x1000, 0x10_0000, 0x100_0000];
const IO_CONTROLLER: u64 = 0xfec0_0000;
const LOCAL_CONTROLLER: u64 = 0xfee0_0000;
const TIMER: u64 = 0xfed0_0000;
/// Nothing, on a machine without a graphics adapter; surely no memory.
const NOTHING: u64 = 0xa_0000;
const PAGE: u64 = 4096;

/// Ranges of registers: what is refused.
pub(crate) fn claims(lab: &Lab) -> Outcome {
    let all = lab.devices;
    for address in MEMORY {
        refused(all.claim(address, 1), Error::Occupied, "memory is claimed")?;
    }
    for address in [IO_CONTROLLER, LOCAL_CONTROLLER, LOCAL_CONTROLLER + 0xf_f000, TIMER] {
        refused(all.claim(address, 1), Error::Occupied, "what the kernel uses is claimed")?;
    }
    refused(all.claim(IO_CONTROLLER - PAGE, 2), Error::Occupied, "the last page is not looked at")?;
    refused(all.claim(TIMER, 1 << 8), Error::Occupied, "the first page is not looked at")?;
    refused(all.claim(NOTHING, 0), Error::BadArgument, "no pages are claimed")?;
    refused(all.claim(NOTHING + 8, 1), Error::BadArgument, "a part of a page is claimed")?;
    for address in [1 << 52, 1 << 63, u64::MAX - PAGE + 1] {
        refused(all.claim(address, 1), Error::BadArgument, "an address is claimed that there is not")?;
    }
    refused(all.claim(NOTHING, u64::MAX), Error::BadArgument, "more pages are claimed than there are")?;
    let bare = all.derive(Rights::ALL.and(Rights(!Rights::CREATE.0)), 0)?;
    refused(bare.claim(NOTHING, 1), Error::MissingRight, "registers are claimed without the right")?;
    mappings(lab, &all.claim(NOTHING, 2)?)
}

/// What is refused of a region of two pages.
fn mappings(lab: &Lab, region: &Owned<Region>) -> Outcome {
    let own = lab.start.process().handle();
    let map = |region: Region, first: u64, pages: u64, protection: Protection| {
        // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
        unsafe { sys::region_map(own, region.handle(), 0, first, pages, protection as u64) }
    };
    let (read, write) = (Protection::Read, Protection::ReadWrite);
    refused(map(**region, 0, 3, read), Error::BadArgument, "more pages are mapped than there are")?;
    refused(map(**region, 2, 1, read), Error::BadArgument, "a page behind is mapped")?;
    refused(map(**region, u64::MAX, 1, read), Error::BadArgument, "the sum of two numbers is cut off")?;
    let execute = map(**region, 0, 1, Protection::ReadExecute);
    refused(execute, Error::BadArgument, "registers are executed")?;
    let reader = region.derive(Rights::MAP, 0)?;
    refused(map(*reader, 0, 1, write), Error::MissingRight, "registers are written without the right")?;
    map(*reader, 1, 1, read)?;
    Ok(())
}

/// Selects a word of the configuration space of bus 0, and shows it (PCI 3.0, §3.2.2.3.2).
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

struct Configuration(Owned<Ports>);

impl Configuration {
    fn select(&self, function: u32, offset: u32) -> Result<()> {
        const ENABLE: u32 = 1 << 31;
        // SAFETY: selects what is accessed next.
        unsafe { self.0.write(ADDRESS, 4, ENABLE | function << 8 | offset) }
    }

    fn read(&self, function: u32, offset: u32) -> Result<u32> {
        self.select(function, offset)?;
        self.0.read(DATA, 4)
    }

    fn write(&self, function: u32, offset: u32, value: u32) -> Result<()> {
        self.select(function, offset)?;
        // SAFETY: the callers write words that no function acts on.
        unsafe { self.0.write(DATA, 4, value) }
    }
}

/// Registers are shown: the same configuration space, through ports and through memory, reading and writing.
pub(crate) fn device(lab: &Lab) -> Outcome {
    /// PCIEXBAR of the host bridge (Intel 3 Series datasheet, 316966, §5.1.16): bit 0 enables, bits 35:28 are the address.
    const WINDOW: u32 = 0x60;
    const ENABLED: u32 = 1;
    /// The device and function of the bridge to ISA, and where a function says to which line its interrupt goes, a note to drivers.
    const ISA_BRIDGE: u32 = 0x1f << 3;
    const LINE: u32 = 0x3c;

    let configuration = Configuration(lab.ports.claim(ADDRESS, 8)?);
    let window = configuration.read(0, WINDOW)?;
    ensure(window & ENABLED != 0, "the firmware has switched the window on")?;
    let address = u64::from(window & 0xf000_0000) | u64::from(configuration.read(0, WINDOW + 4)? & 0xf) << 32;
    // A function has a page.
    let functions = 256_u64;
    let region = lab.devices.claim(address, functions)?;
    let start = memory::registers(*region, functions as usize)?;
    let word = |function: u32, offset: u32| {
        // SAFETY: inside what was just mapped: 256 functions with a page each.
        let at = unsafe { start.as_ptr().add(function as usize * 4096 + offset as usize) };
        at.cast::<u32>()
    };
    for function in [0, ISA_BRIDGE] {
        // SAFETY: mapped, and configuration words may be read at any time.
        let shown = unsafe { word(function, 0).read_volatile() };
        ensure(shown != u32::MAX && shown == configuration.read(function, 0)?, "both ways show the same")?;
    }
    let before = configuration.read(ISA_BRIDGE, LINE)?;
    let changed = before ^ 0x5a;
    // SAFETY: as above; a note that nobody acts on.
    unsafe { word(ISA_BRIDGE, LINE).write_volatile(changed) };
    let found = configuration.read(ISA_BRIDGE, LINE)?;
    configuration.write(ISA_BRIDGE, LINE, before)?;
    ensure(found == changed, "what is written to registers is there")
}
