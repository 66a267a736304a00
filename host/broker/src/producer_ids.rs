//! Producer ids: never the same one twice, across restarts.
//!
//! Owns the mark below which ids are used up. Ids are made durable in blocks: a restart skips what is left of one.

use protocol::ProducerId;
use storage::{Commit, Store, sync::Mutex};

use crate::{
    CatalogError,
    catalog::{ProducerIdsRow, put_producer_ids},
};

/// How many ids one commit makes durable. Ids are plenty; a commit per connecting producer would not be.
const BLOCK: u64 = 256;

/// Gives out producer ids.
#[derive(Debug)]
pub(crate) struct ProducerIds {
    state: Mutex<Block>,
}

#[derive(Debug)]
struct Block {
    next: u64,
    /// Ids below this are durable as used up.
    end: u64,
}

impl ProducerIds {
    /// Begins behind everything that may have been given out.
    pub(crate) fn new(row: Option<ProducerIdsRow>) -> ProducerIds {
        let end = row.map_or(0, |row| row.next.0);
        ProducerIds { state: Mutex::new(Block { next: end, end }) }
    }

    /// An id nobody had before. Waits for a commit at the end of a block.
    pub(crate) fn take(&self, store: &Store) -> Result<ProducerId, CatalogError> {
        let mut block = self.state.lock();
        if block.next == block.end {
            let end = block.end + BLOCK;
            let change = put_producer_ids(ProducerIdsRow { next: ProducerId(end) });
            store.commit(Commit { state: vec![change], ..Commit::default() })?;
            block.end = end;
        }
        let id = ProducerId(block.next);
        block.next += 1;
        Ok(id)
    }
}
