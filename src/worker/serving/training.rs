//! Whether this worker trains.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Shared between the slots that train and whoever answers requests.
#[derive(Debug, Clone, Default)]
pub struct Training(Arc<AtomicUsize>);

/// For as long as it lives, the worker trains.
#[derive(Debug)]
pub struct Trains(Arc<AtomicUsize>);

impl Training {
    pub fn begin(&self) -> Trains {
        self.0.fetch_add(1, Ordering::AcqRel);
        Trains(Arc::clone(&self.0))
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

impl Drop for Trains {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
