//! What a caller may ask for: a zone, and which nodes in which order.

use crate::id::Zone;
use percpu::{NodeId, NodeSet};

/// Which nodes may serve a request, and in which order. *Home* is the node of the asking core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Home first, then the others by distance from home.
    Local,
    /// Home and no other.
    LocalOnly,
    /// This node first, then the others by distance from it.
    Prefer(NodeId),
    /// Only these nodes, by distance from home.
    Bind(NodeSet),
    /// These nodes in turn, one per request; if the one whose turn it is has nothing, the others of the set by distance from it.
    Interleave(NodeSet),
}

/// A zone and a policy. The default is what almost everybody wants: normal memory, near.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where in physical memory.
    pub zone: Zone,
    /// On which nodes.
    pub policy: Policy,
}

impl Request {
    /// Normal memory, home node first.
    pub const LOCAL: Self = Self { zone: Zone::Normal, policy: Policy::Local };

    /// Normal memory under a policy.
    #[must_use]
    pub const fn policy(policy: Policy) -> Self {
        Self { zone: Zone::Normal, policy }
    }

    /// Home first, then by distance, in a zone.
    #[must_use]
    pub const fn zone(zone: Zone) -> Self {
        Self { zone, policy: Policy::Local }
    }

    /// Whether the fast path, which looks at the home node's reserved chunks only, may serve it.
    #[inline(always)]
    pub(crate) fn is_local(&self) -> bool {
        self.zone == Zone::Normal && matches!(self.policy, Policy::Local | Policy::LocalOnly)
    }
}

impl Default for Request {
    fn default() -> Self {
        Self::LOCAL
    }
}
