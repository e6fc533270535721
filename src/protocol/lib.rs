//! What crosses a process boundary: ids, job spec, engine events and commands, metrics, error codes.
//!
//! Serde types and their invariants; no I/O. The server, the worker and the engine agree through this crate alone.

pub mod access;
pub mod engine;
pub mod error;
pub mod evaluation;
pub mod export;
pub mod generation;
pub mod ids;
pub mod inspection;
pub mod lint;
pub mod metrics;
pub mod objective;
pub mod request;
pub mod resolve;
pub mod resolve_tuning;
pub mod spec;
pub mod status;
pub mod templates;
pub mod tuning;
pub mod tuning_request;
pub mod webhooks;
