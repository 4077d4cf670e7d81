//! The I/O interrupt controllers: at which pin an interrupt line ends, and what the pin's redirection entry says.
//!
//! A line below [`ISA_LINES`] is an ISA interrupt, wherever the firmware has led it; any other is the global system interrupt of its number.
//! A pin that an ISA interrupt was led to is reached by that line only. Entries: Intel 82093AA datasheet (290566-001), §3.2.4; units and
//! overrides: ACPI 6.5, §5.2.12. The destination is a physical xAPIC id, of 8 bits, the last of which means all: cores with ids from 255
//! on could be reached through interrupt remapping only, which is not done here.
//!
//! All pins are masked from [`discover`] on, and so are the legacy controllers, which would deliver the same lines a second time.

use percpu::{Held, Lock};
use spin::Once;
use x86_64::{PhysAddr, VirtAddr};

use super::io;
use super::paging::{self, Kind};
use crate::acpi::{Tables, Wire};
use crate::levels::CONTROLLER;
use crate::log;

/// Lines that have a place: what fits between the exceptions, the legacy controllers' vectors and the kernel's own.
pub(crate) const LINES: usize = (super::timer::VECTOR - FIRST_VECTOR) as usize;
/// The vector of line 0; line `n` has the `n`th from there, on every core.
pub(crate) const FIRST_VECTOR: u8 = 0x30;
/// The vector of the last line.
pub(crate) const LAST_VECTOR: u8 = FIRST_VECTOR + (LINES - 1) as u8;

/// Lines that are named by their ISA number.
const ISA_LINES: usize = 16;
/// Controllers that the kernel keeps track of.
const MAX_UNITS: usize = 16;

/// Offsets of the registers in a unit's page, of which one selects what the other shows (82093AA, §3.1).
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const UNIT_BYTES: u64 = 0x20;
/// What can be selected: the version, with the last pin's number in bits 23:16, and two words for each pin (§3.2).
const VERSION: u32 = 0x01;
const ENTRIES: u32 = 0x10;

/// Fields of an entry's low word: polarity, trigger mode, mask. Delivery mode "fixed" and destination mode "physical" are 0. The high word
/// has the destination in bits 31:24.
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL_TRIGGERED: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const DESTINATION_SHIFT: u32 = 24;
/// The destination that means all cores.
const BROADCAST: u32 = 0xff;

/// MPS INTI flags of an override (ACPI 6.5, table 5.26): polarity in bits 1:0, trigger mode in bits 3:2; 0 conforms to the bus.
const POLARITY: u16 = 0b11;
const POLARITY_LOW: u16 = 0b11;
const TRIGGER: u16 = 0b11 << 2;
const TRIGGER_LEVEL: u16 = 0b11 << 2;

/// How a line says that it wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// By a change, once; nobody remembers one that comes while the pin is masked (82093AA, §3.2.4, bit 16).
    Edge,
    /// For as long as it wants it.
    Level,
}

/// Where a line ends, and how it looks there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    unit: u8,
    index: u8,
    active_low: bool,
    trigger: Trigger,
}

impl Pin {
    /// How the line says that it wants something.
    pub(crate) const fn trigger(self) -> Trigger {
        self.trigger
    }

    const fn low_word(self, vector: u8) -> u32 {
        let polarity = if self.active_low { ACTIVE_LOW } else { 0 };
        let trigger = match self.trigger {
            Trigger::Edge => 0,
            Trigger::Level => LEVEL_TRIGGERED,
        };
        vector as u32 | polarity | trigger
    }
}

/// Whether a pin lets interrupts through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It does.
    Open,
    /// It does not.
    Masked,
}

/// A controller's registers, mapped.
struct Registers(VirtAddr);

impl Registers {
    fn window(&mut self, index: u32) -> *mut u32 {
        let select = (self.0 + SELECT).as_mut_ptr::<u32>();
        // SAFETY: G5: the page of the unit is mapped uncached, for good.
        unsafe { select.write_volatile(index) };
        (self.0 + WINDOW).as_mut_ptr()
    }

    fn read(&mut self, index: u32) -> u32 {
        // SAFETY: G5, as in `window`; reading has no effect.
        unsafe { self.window(index).read_volatile() }
    }

    fn write(&mut self, index: u32, value: u32) {
        // SAFETY: G5, as in `window`; the callers write values that the datasheet defines.
        unsafe { self.window(index).write_volatile(value) };
    }
}

/// One controller.
struct Unit {
    registers: Lock<CONTROLLER, Registers>,
    /// The global system interrupt of its first pin.
    first: u32,
    pins: u32,
}

struct Wiring {
    units: [Option<Unit>; MAX_UNITS],
    lines: [Option<Pin>; LINES],
}

static WIRING: Once<Wiring> = Once::new();

/// An entry, while its unit's lock is held.
pub(crate) struct Entry<'a> {
    registers: &'a mut Registers,
    pin: Pin,
}

impl Entry<'_> {
    fn index(&self) -> u32 {
        ENTRIES + 2 * u32::from(self.pin.index)
    }

    /// Says whether it lets interrupts through, and as which vector.
    pub(crate) fn set_gate(&mut self, vector: u8, gate: Gate) {
        let mask = if gate == Gate::Masked { MASKED } else { 0 };
        self.registers.write(self.index(), self.pin.low_word(vector) | mask);
    }

    /// Says which core it leads to.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.registers.write(self.index() + 1, target.0 << DESTINATION_SHIFT);
    }

    /// Whether it lets interrupts through, and where, as the unit says.
    pub(crate) fn read(&mut self) -> (Gate, Target) {
        let index = self.index();
        let masked = self.registers.read(index) & MASKED != 0;
        let target = Target(self.registers.read(index + 1) >> DESTINATION_SHIFT);
        (if masked { Gate::Masked } else { Gate::Open }, target)
    }
}

/// A core that an entry can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(u32);

impl Target {
    /// The core with an APIC id; `None` for one that an entry cannot name.
    pub(crate) const fn new(apic_id: u32) -> Option<Self> {
        if apic_id < BROADCAST { Some(Self(apic_id)) } else { None }
    }
}

/// The pin of a line; `None` if it has none.
pub(crate) fn pin(line: usize) -> Option<Pin> {
    WIRING.get()?.lines.get(line).copied().flatten()
}

/// Works on the entry of a pin.
pub(crate) fn with<const H: u8, R>(
    held: &mut Held<'_, H>,
    pin: Pin,
    f: impl FnOnce(&mut Entry<'_>) -> R,
) -> R {
    let unit = WIRING.get().and_then(|wiring| wiring.units[usize::from(pin.unit)].as_ref());
    let unit = unit.expect("I2: a pin is one of a unit's that was found");
    unit.registers.with(held, |registers, _| f(&mut Entry { registers, pin }))
}

/// Finds the controllers and where lines end, and masks everything. Once, by the boot core.
pub(crate) fn discover(held: &mut Held<'_, 0>, firmware: &Tables) {
    io::mask_legacy_controllers();
    WIRING.call_once(|| {
        let mut wiring = Wiring { units: [const { None }; MAX_UNITS], lines: [None; LINES] };
        firmware.wires(&mut |wire| {
            if let Wire::Controller { address, first } = wire
                && wiring.add_unit(address, first).is_none()
            {
                log!("interrupts: the controller at {address:?} is not used");
            }
        });
        wiring.lead_lines(firmware);
        wiring.units.iter().flatten().for_each(|unit| mask_all(held, unit));
        wiring
    });
}

fn mask_all(held: &mut Held<'_, 0>, unit: &Unit) {
    unit.registers.with(held, |registers, _| {
        (0..unit.pins).for_each(|pin| registers.write(ENTRIES + 2 * pin, MASKED));
    });
}

impl Wiring {
    fn add_unit(&mut self, address: PhysAddr, first: u32) -> Option<()> {
        let slot = self.units.iter_mut().find(|unit| unit.is_none())?;
        let mut registers = Registers(paging::map_physical(address, UNIT_BYTES, Kind::Device)?);
        let pins = (registers.read(VERSION) >> 16 & 0xff) + 1;
        *slot = Some(Unit { registers: Lock::new(registers), first, pins });
        Some(())
    }

    /// The unit and pin of a global system interrupt.
    fn find(&self, interrupt: u32) -> Option<(u8, u8)> {
        self.units.iter().zip(0..).find_map(|(unit, number)| {
            let unit = unit.as_ref()?;
            let index = interrupt.checked_sub(unit.first).filter(|&index| index < unit.pins)?;
            Some((number, index as u8))
        })
    }

    /// Leads every line to its pin: first as the buses have it, then as the firmware says. A pin belongs to the line that was led to it last.
    fn lead_lines(&mut self, firmware: &Tables) {
        for line in 0..LINES {
            let isa = line < ISA_LINES;
            let trigger = if isa { Trigger::Edge } else { Trigger::Level };
            self.lines[line] = self.find(line as u32).map(|(unit, index)| {
                // ISA: a rising edge; PCI: shared and active low (ACPI 6.5, §5.2.12.5).
                Pin { unit, index, active_low: !isa, trigger }
            });
        }
        firmware.wires(&mut |wire| match wire {
            Wire::Override { isa, interrupt, flags } => self.redirect(isa, interrupt, flags),
            Wire::NotMaskable { interrupt } => self.free_pin(interrupt),
            Wire::Controller { .. } => {}
        });
    }

    fn redirect(&mut self, isa: u8, interrupt: u32, flags: u16) {
        let level = flags & TRIGGER == TRIGGER_LEVEL;
        self.free_pin(interrupt);
        let pin = self.find(interrupt).map(|(unit, index)| Pin {
            unit,
            index,
            active_low: flags & POLARITY == POLARITY_LOW,
            trigger: if level { Trigger::Level } else { Trigger::Edge },
        });
        if let Some(slot) = self.lines.get_mut(usize::from(isa)) {
            *slot = pin;
        }
    }

    /// Takes a pin from the line that it was led to.
    fn free_pin(&mut self, interrupt: u32) {
        let Some(at) = self.find(interrupt) else { return };
        for slot in &mut self.lines {
            if slot.is_some_and(|pin| (pin.unit, pin.index) == at) {
                *slot = None;
            }
        }
    }
}
