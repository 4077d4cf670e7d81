//! Everything that knows it runs on x86-64: entry, tables, traps, interrupt controller, clock, page tables, ports.

pub(crate) mod apic;
pub(crate) mod border;
pub(crate) mod cpu;
pub(crate) mod entry;
pub(crate) mod fpu;
pub(crate) mod idle;
pub(crate) mod io;
pub(crate) mod ioapic;
pub(crate) mod ipi;
pub(crate) mod page_fault;
pub(crate) mod paging;
pub(crate) mod random;
pub(crate) mod speculation;
pub(crate) mod string;
pub(crate) mod tables;
pub(crate) mod timer;
pub(crate) mod tlb;
pub(crate) mod trap;
pub(crate) mod tsc;
pub(crate) mod user;
pub(crate) mod usercopy;
pub(crate) mod walk;
