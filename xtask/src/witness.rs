//! The plugin that watches a machine from outside (`witness/`), and the names of what it tells of.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::workspace;
use elf::ElfBytes;
use elf::abi::{STT_FUNC, STT_NOTYPE};
use elf::endian::LittleEndian;
use std::fs;
use std::path::{Path, PathBuf};

/// Why nothing can be watched.
pub const NO_PLUGINS: &str = "this QEMU takes no plugins, or is older than 9.1";

/// Builds the plugin; where it is.
///
/// # Errors
/// [`Class::BuildFailed`].
pub fn build() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--quiet", "--release", "-p", "witness"]);
    process::succeed(
        &mut command,
        Class::BuildFailed,
        "building the plugin",
        "fix what the compiler reports",
    )?;
    Ok(workspace::target().join("release").join("libwitness.so"))
}

/// The stubs of all vectors, one behind the other: `entry.S`.
const STUBS: &str = "trap_stubs";
const STUB_BYTES: u64 = 16;
const VECTORS: u64 = 256;

/// Names of the kernel's addresses.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// By ascending address.
    all: Vec<(u64, String)>,
    stubs: Option<u64>,
}

impl Symbols {
    /// Those of an ELF file.
    ///
    /// # Errors
    /// The file cannot be read, or has none.
    pub fn of(file: &Path) -> Result<Self> {
        let content = fs::read(file).map_err(|error| Error::io(&error, "read", file))?;
        let missing = || Error::new(Class::BuildFailed, format!("{} has no symbols", file.display()));
        read(&content).map(Self::new).ok_or_else(missing)
    }

    fn new(mut all: Vec<(u64, String)>) -> Self {
        all.sort();
        let stubs = all.iter().find(|(_, name)| name == STUBS).map(|&(address, _)| address);
        Self { all, stubs }
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn address(&self, name: &str) -> Result<u64> {
        let found = self.all.iter().find(|(_, own)| own == name);
        let missing = || Error::new(Class::BuildFailed, format!("the kernel has no symbol {name}"));
        found
            .map(|&(address, _)| address)
            .ok_or_else(|| missing().next("name it in xtask/src as the kernel does"))
    }

    /// What an address belongs to.
    #[must_use]
    pub fn name(&self, address: u64) -> String {
        let stub = self.stubs.and_then(|first| address.checked_sub(first)).map(|bytes| bytes / STUB_BYTES);
        if let Some(vector) = stub.filter(|&vector| vector < VECTORS) {
            return format!("vector {vector}");
        }
        let behind = self.all.partition_point(|&(start, _)| start <= address);
        match behind.checked_sub(1).and_then(|index| self.all.get(index)) {
            Some((_, name)) => format!("{:#}", rustc_demangle::demangle(name)),
            None => format!("{address:#x}"),
        }
    }
}

/// Functions, and labels of assembly.
fn read(content: &[u8]) -> Option<Vec<(u64, String)>> {
    let image = ElfBytes::<LittleEndian>::minimal_parse(content).ok()?;
    let (symbols, names) = image.symbol_table().ok()??;
    let code = symbols.iter().filter(|symbol| {
        [STT_FUNC, STT_NOTYPE].contains(&symbol.st_symtype()) && symbol.st_shndx != 0 && symbol.st_value != 0
    });
    let named = |symbol: elf::symbol::Symbol| {
        let name = names.get(symbol.st_name as usize).ok().filter(|name| !name.is_empty())?;
        Some((symbol.st_value, name.to_owned()))
    };
    Some(code.filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    #[test]
    fn addresses_have_the_name_before_them() {
        let all = [(0x3000, "last"), (0x1000, "trap_stubs"), (0x2000, "_RNvCs1234_7mycrate3foo")];
        let symbols = Symbols::new(all.map(|(address, name)| (address, name.to_owned())).to_vec());
        assert_eq!(symbols.name(0xfff), "0xfff");
        assert_eq!(
            (symbols.name(0x1000), symbols.name(0x10e8)),
            ("vector 0".to_owned(), "vector 14".to_owned())
        );
        assert_eq!(
            (symbols.name(0x2000), symbols.name(0x2fff)),
            ("mycrate::foo".to_owned(), "mycrate::foo".to_owned())
        );
        assert_eq!(symbols.address("last").unwrap(), 0x3000);
        assert!(symbols.address("first").is_err());
    }
}
