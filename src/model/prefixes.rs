//! Beginnings of texts that were read before, with their keys and values.

use std::rc::Rc;

use crate::{adapter::Adapter, slots::Held, texts::is_same};

/// Kept up to a number of bytes; those that were not asked for longest go first.
pub(crate) struct Prefixes {
    most_bytes: i64,
    /// The one used last comes last.
    entries: Vec<Entry>,
}

struct Entry {
    adapter: Option<Rc<Adapter>>,
    ids: Vec<u32>,
    held: Held,
    bytes: i64,
}

impl Prefixes {
    pub fn new(most_bytes: i64) -> Self {
        Self { most_bytes, entries: Vec::new() }
    }

    /// Beginnings that were read with an adapter, with their places.
    pub fn of<'a>(&'a self, adapter: Option<&'a Rc<Adapter>>) -> impl Iterator<Item = (usize, &'a [u32])> {
        let own = self.entries.iter().enumerate().filter(move |(_, entry)| is_same(entry.adapter.as_ref(), adapter));
        own.map(|(index, entry)| (index, entry.ids.as_slice()))
    }

    pub fn held(&self, index: usize) -> &Held {
        &self.entries[index].held
    }

    /// Whether a text would be kept: it has room and is no beginning of one that is here.
    pub fn wants(&self, adapter: Option<&Rc<Adapter>>, ids: &[u32], bytes: i64) -> bool {
        bytes <= self.most_bytes && !self.of(adapter).any(|(_, known)| known.starts_with(ids))
    }

    /// Keeps a text in place of its own beginnings.
    pub fn keep(&mut self, adapter: Option<Rc<Adapter>>, ids: Vec<u32>, held: Held, bytes: i64) {
        self.entries
            .retain(|entry| !(is_same(entry.adapter.as_ref(), adapter.as_ref()) && ids.starts_with(&entry.ids)));
        self.entries.push(Entry { adapter, ids, held, bytes });
        let mut all: i64 = self.entries.iter().map(|entry| entry.bytes).sum();
        while all > self.most_bytes && !self.entries.is_empty() {
            all -= self.entries.remove(0).bytes;
        }
    }

    pub fn forget(&mut self, adapter: &Rc<Adapter>) {
        self.entries.retain(|entry| !is_same(entry.adapter.as_ref(), Some(adapter)));
    }
}
