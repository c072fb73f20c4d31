//! The only `ArcSwap`: the routing table in force. Control publishes, workers read.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::table::Table;

/// The routing table in force.
#[derive(Clone)]
pub struct Live(Arc<ArcSwap<Table>>);

impl Live {
    /// Begins with a table.
    pub fn new(table: Table) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(table)))
    }

    /// Makes another table the one in force: every later look sees all of it. **A flip is this one line.**
    pub fn publish(&self, table: Table) {
        self.0.store(Arc::new(table));
    }

    /// Returns the table in force.
    pub fn current(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Returns a reader for one thread, cheaper than [`Self::current`].
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.0)))
    }
}

/// One thread's view of the table in force.
pub struct Reader(Cache<Arc<ArcSwap<Table>>, Arc<Table>>);

impl Reader {
    /// Returns the table in force.
    pub fn current(&mut self) -> Arc<Table> {
        Arc::clone(self.0.load())
    }
}
