//! Datasets that are made of other files, step by step.

mod apply;
mod handler;
mod manifest;
mod refusal;
mod sources;

pub use handler::{__path_prepare_files, prepare_files};
pub use manifest::{__path_get_file_manifest, get_file_manifest};
