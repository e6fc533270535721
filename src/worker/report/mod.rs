//! From an engine's lines to what clients read: events, metrics, progress, checkpoints, artifacts.

mod events;
mod reporter;
mod translator;
mod upload;

pub use reporter::{Harvest, LastWord, Reporter};
