//! How a run under an emulator ends: the byte written to QEMU's `isa-debug-exit` device.
//!
//! The device is configured at I/O port [`PORT`]; a written byte `v` ends QEMU with the process exit status
//! `(v << 1) | 1` (QEMU, `hw/misc/debugexit.c`), so no guest value can be mistaken for QEMU's own 0 or for its
//! failure status 1.

/// I/O port of the `isa-debug-exit` device, as passed in `-device isa-debug-exit,iobase=0xf4,iosize=0x04`.
pub const PORT: u16 = 0xf4;

macro_rules! exits {
    ($($(#[$doc:meta])* $code:literal $name:ident $text:literal;)*) => {
        /// Why a run ended. The discriminant is the byte written to [`PORT`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Exit { $($(#[$doc])* $name = $code),* }

        impl Exit {
            /// Every exit reason, in table order.
            pub const ALL: &'static [Exit] = &[$(Exit::$name),*];

            /// The reason as a short phrase for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Exit::$name => $text),* }
            }

            /// The reason a QEMU exit status stands for; `None` when the guest did not choose to end the run.
            #[must_use]
            pub const fn from_status(status: i32) -> Option<Self> {
                match status { $(s if s == Exit::$name.status() => Some(Exit::$name),)* _ => None }
            }
        }
    };
}

exits! {
    /// Everything that was asked for was done.
    0x10 Success "success";
    /// At least one in-kernel test failed; the records say which.
    0x11 TestsFailed "an in-kernel test failed";
    /// The kernel panicked: a broken invariant, named on the serial port.
    0x12 Panic "the kernel panicked";
    /// A CPU exception in the kernel that nothing handles.
    0x13 Exception "an unhandled CPU exception in the kernel";
    /// The kernel command line has a word the kernel does not know.
    0x14 BadCommandLine "the kernel command line was not understood";
    /// The boot loader did not answer a request the kernel cannot do without.
    0x15 BadLoader "the boot loader did not provide what the kernel needs";
    /// The machine lacks something the kernel cannot do without.
    0x16 Unsupported "the machine lacks a feature the kernel needs";
    /// The filter matched no test or benchmark.
    0x17 NothingMatched "the filter matched nothing";
    /// Loader: no initrd bundle was given, or it is not a ustar archive.
    0x20 BadBundle "the loader was given no bundle or a malformed one";
    /// Loader: the kernel in the bundle is not an ELF image it can load.
    0x21 BadElf "the loader found a kernel it cannot load";
    /// Loader: not enough usable memory below the limits it needs.
    0x22 NoMemory "the loader ran out of memory";
    /// Loader: the start information of the virtual machine is missing or malformed.
    0x23 BadStartInfo "the virtual machine passed no usable start information";
    /// Loader: an application processor did not come up.
    0x24 CoreMissing "a core did not start";
    /// Loader: the kernel asks for a protocol feature that the loader does not implement.
    0x25 BadProtocol "the kernel asks for an unsupported boot protocol";
    /// Loader: a CPU exception in the loader itself.
    0x26 LoaderException "an unhandled CPU exception in the loader";
}

impl Exit {
    /// The exit status QEMU ends with after this byte was written to [`PORT`].
    #[must_use]
    pub const fn status(self) -> i32 {
        ((self as i32) << 1) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn status_and_reason_are_inverse() {
        for &exit in Exit::ALL {
            assert_eq!(Exit::from_status(exit.status()), Some(exit));
        }
        for not_ours in [-1, 0, 1, 2, 124] {
            assert_eq!(Exit::from_status(not_ours), None);
        }
    }
}
