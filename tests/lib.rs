//! End to end on the built programs: the harness that starts them, talks to them and ends them.
//!
//! `FINETUNED_BIN_DIR` names the folder of `finetuned` and `finetuned-engine`; `make test` builds and hands them over. A
//! program older than its sources is refused, since a test of yesterday's program proves nothing.

pub mod client;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod python;
pub mod rows;
pub mod service;

pub use client::Client;
pub use service::{Process, Service, ServiceOptions};
