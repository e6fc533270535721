//! The worker: claims a task, runs the engine as a child, reports, publishes.
//!
//! ```text
//! run ─ slot (one a kind of task) ─ attempt ─ validate
//!     │                              │      ├ train ─ layout, engine_run ─ engine::Supervisor + report::Reporter
//!     │                              │      └ evaluate ─ the same, with the published adapter
//!     ├ scan for expired leases      └ lease::LeaseKeeper, in every phase
//!     └ facts
//! ```
//!
//! The engine's `events.jsonl` is the truth about an attempt. The supervisor reads it and never waits for the database;
//! the reporter writes what was read and may wait for as long as the lease is ours. The lease keeper is a task of its own,
//! so that neither delays a heartbeat. Once the lease is lost the engine is killed and nothing is written any more.

mod assess;
mod attempt;
mod continued;
mod crash;
mod deliver;
mod disk;
mod engine;
mod engine_run;
mod environment;
mod error;
mod evaluate;
mod facts;
mod folder;
mod host;
mod judge;
mod layout;
mod lease;
mod options;
mod pace;
mod report;
mod results;
mod run;
#[cfg(test)]
mod run_tests;
mod serving;
mod settle;
mod similarity;
mod slot;
mod tail;
#[cfg(test)]
mod testing;
mod train;
mod training_rows;
mod validate;
mod watchdog;
mod words;

pub use deliver::deliver;
pub use error::WorkerError;
pub use judge::JudgeOptions;
pub use options::{WorkerOptions, WorkerTimings};
pub use run::run;
pub use serving::{DeviceSharing, ServingOptions};
