//! What crosses a process boundary: ids, job spec, engine events and commands, metrics, error codes.
//!
//! Serde types and their invariants; no I/O. The server, the worker and the engine agree through this crate alone.

pub mod access;
pub mod comparison;
pub mod embedding;
pub mod engine;
pub mod error;
pub mod error_codes;
pub mod evaluation;
pub mod evaluation_run;
pub mod evaluation_spec;
pub mod export;
pub mod generation;
pub mod ids;
pub mod inspection;
pub mod judge;
pub mod lint;
pub mod mend;
pub mod metrics;
pub mod objective;
pub mod optimization;
pub mod optimization_request;
pub mod precision;
pub mod preparation;
pub mod ratings;
pub mod request;
pub mod resolve;
mod resolve_optimization;
pub mod resolve_tuning;
pub mod serving;
pub mod spec;
pub mod status;
pub mod templates;
pub mod text_metric;
pub mod tuning;
pub mod tuning_request;
pub mod webhooks;
