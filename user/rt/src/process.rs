//! Making processes.

use core::marker::PhantomData;

use abi::cap::Handle;
use abi::task::{Grant, ProcessSpec};

use crate::handle::{Owned, Process, Result, Typed, address};
use crate::sys;

/// What a new process runs.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// An ELF image in this process's memory.
    Bytes(&'a [u8]),
    /// The number of a program that the loader has brought, see [`Start::program`](crate::start::Start::program).
    Loaded(u64),
}

/// A process to be made.
#[derive(Clone, Copy, Debug)]
pub struct Builder<'a> {
    spec: ProcessSpec,
    /// What the addresses in `spec` borrow.
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Builder<'a> {
    /// A process that runs this image and is given nothing.
    #[must_use]
    pub fn new(image: Image<'a>) -> Self {
        let mut spec = ProcessSpec::default();
        (spec.image, spec.image_bytes) = match image {
            Image::Bytes(bytes) => (bytes.as_ptr() as u64, bytes.len() as u64),
            Image::Loaded(number) => (0, number),
        };
        Self { spec, borrowed: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(mut self, name: &'a str) -> Self {
        (self.spec.name, self.spec.name_bytes) = (name.as_ptr() as u64, name.len() as u64);
        self
    }

    /// Its arguments: strings that each end with a zero byte.
    #[must_use]
    pub fn arguments(mut self, strings: &'a str) -> Self {
        (self.spec.arguments, self.spec.arguments_bytes) = (strings.as_ptr() as u64, strings.len() as u64);
        self
    }

    /// Its environment: strings that each end with a zero byte.
    #[must_use]
    pub fn environment(mut self, strings: &'a str) -> Self {
        (self.spec.environment, self.spec.environment_bytes) =
            (strings.as_ptr() as u64, strings.len() as u64);
        self
    }

    /// The capabilities that it is given.
    #[must_use]
    pub fn grants(mut self, grants: &'a [Grant]) -> Self {
        (self.spec.grants, self.spec.grants_count) = (grants.as_ptr() as u64, grants.len() as u64);
        self
    }

    /// [`ProcessSpec::FIXED`], [`ProcessSpec::NO_FPU`].
    #[must_use]
    pub fn flags(mut self, flags: u64) -> Self {
        self.spec.flags = flags;
        self
    }

    /// Makes it, as a child of `parent`; it waits to be started.
    ///
    /// # Errors
    /// See `process_create`.
    pub fn create(&self, parent: Process) -> Result<Owned<Process>> {
        // SAFETY: the addresses in the structure are of memory that is borrowed for as long as `self` lives, and only read.
        let handle = unsafe { sys::process_create(parent.handle(), address(&self.spec)) }?;
        Ok(Owned::new(Process(Handle(handle))))
    }

    /// Makes it and starts it.
    ///
    /// # Errors
    /// See `process_create` and `process_start`.
    pub fn spawn(&self, parent: Process) -> Result<Owned<Process>> {
        let process = self.create(parent)?;
        process.start()?;
        Ok(process)
    }
}
