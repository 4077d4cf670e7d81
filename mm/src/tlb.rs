//! Temporary stand-in, replaced by the shootdown protocol.
use crate::virt::{PageRange, PageSize};
/// Batch
#[derive(Debug)]
pub struct Batch { n: usize }
impl Batch {
    /// new
    pub const fn new() -> Self { Self { n: 0 } }
    /// add
    pub fn add(&mut self, range: PageRange, _: PageSize) { self.n += range.len(); }
    /// freed
    pub fn tables_freed(&mut self) { self.n += 1; }
    /// covers
    pub fn covers(&self, _: crate::PageId) -> bool { self.n > 0 }
    /// empty
    pub fn is_empty(&self) -> bool { self.n == 0 }
}
/// id
#[derive(Debug, Clone, Copy)]
pub struct SpaceId(u64);
impl SpaceId {
    /// next
    pub fn next() -> Self {
        use percpu::sync::atomic::*;
        static N: AtomicU64 = AtomicU64::new(1);
        Self(N.fetch_add(1, Ordering::Relaxed))
    }
    /// raw
    pub fn raw(self) -> u64 { self.0 }
}
/// tlb
#[derive(Debug)]
pub struct SpaceTlb { id: SpaceId }
impl SpaceTlb {
    /// new
    pub fn new(id: SpaceId, _root: crate::FrameId) -> Self { Self { id } }
    /// id
    pub fn id(&self) -> SpaceId { self.id }
}
