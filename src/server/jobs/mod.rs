//! `/v1/fine_tuning/jobs`

pub mod adapter;
mod artifacts;
mod checkpoints;
mod continued;
mod control;
mod create;
mod evaluation;
mod evaluation_file;
mod evaluation_rows;
mod events;
mod failure;
pub mod hub;
mod logs;
mod metrics;
mod priority;
mod read;
mod retry;
mod stream;
mod tar;
mod wire;

pub use adapter::{__path_get_adapter, __path_get_merged, get_adapter, get_merged};
pub use artifacts::{__path_get_artifact, __path_list_artifacts, get_artifact, list_artifacts};
pub use checkpoints::{__path_list_checkpoints, list_checkpoints};
pub use control::{__path_cancel_job, __path_pause_job, __path_resume_job, cancel_job, pause_job, resume_job};
pub use create::{__path_create_job, create_job};
pub use evaluation::{__path_get_evaluation, get_evaluation};
pub use evaluation_rows::{__path_list_evaluation_rows, list_evaluation_rows};
pub use events::{__path_list_events, list_events};
pub use logs::{__path_get_logs, get_logs};
pub use metrics::{__path_get_metrics, get_metrics};
pub use priority::{__path_update_job, update_job};
pub use read::{__path_get_job, __path_list_jobs, get_job, list_jobs};
pub use retry::{__path_retry_job, retry_job};
