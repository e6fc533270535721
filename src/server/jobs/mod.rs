//! `/v1/fine_tuning/jobs`

pub mod adapter;
mod artifacts;
mod checkpoints;
mod continued;
mod control;
mod create;
mod estimate;
mod events;
mod metrics;
mod read;
mod start;
mod tar;
mod wire;

pub use adapter::{__path_get_adapter, __path_get_merged, get_adapter, get_merged};
pub use artifacts::{__path_get_artifact, __path_list_artifacts, get_artifact, list_artifacts};
pub use checkpoints::{__path_list_checkpoints, list_checkpoints};
pub use control::{__path_cancel_job, __path_pause_job, __path_resume_job, cancel_job, pause_job, resume_job};
pub use create::{__path_create_job, create_job};
pub use estimate::{__path_estimate_job, estimate_job};
pub use events::{__path_list_events, list_events};
pub use metrics::{__path_get_metrics, get_metrics};
pub use read::{__path_get_job, __path_list_jobs, get_job, list_jobs};
pub use start::{__path_start_job, start_job};
