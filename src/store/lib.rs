//! All SQL and all blobs: tenants and keys, files, models, jobs, tasks and their leases, events, metrics, checkpoints.
//!
//! Everything else in this workspace reaches Postgres and stored bytes through [`Store`]. Times are the database's own;
//! each call has a deadline, after which it is [`StoreError::Unavailable`].

mod attempt_logs;
mod audit;
#[cfg(test)]
mod away_tests;
mod backup;
mod blobs;
mod checkpoints;
mod convert;
pub mod embedded;
mod error;
mod evaluations;
mod events;
mod files;
mod gc;
mod idempotency;
mod jobs;
mod judge_replies;
mod keys;
mod listen;
mod metrics;
mod migrate;
mod models;
mod permissions;
mod pool;
mod prepared;
mod projects;
mod quotas;
mod ratings;
mod retention;
mod serving;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod training_rows;
mod uploads;
mod usage;
mod webhooks;
mod workers;

pub use attempt_logs::AttemptLog;
pub use audit::AuditEntry;
pub use backup::Copied;
pub use blobs::{BlobId, BlobStream, BlobWriter, StoredBlob};
pub use checkpoints::{Artifact, Checkpoint, StoredFile};
pub use error::StoreError;
pub use evaluations::EvaluationRun;
pub use events::{Event, EventHead, NewEvent};
pub use files::{File, FileOrder, FilePage, NewFile};
pub use gc::{GcOptions, GcReport};
pub use idempotency::{Created, Idempotency, fingerprint};
pub use jobs::{Control, Job, JobData, JobPage, JobProgress, MetadataFilter, NewJob, Page, Place};
pub use judge_replies::JudgeReply;
pub use keys::{ApiKey, Caller, KeyGrant, NewKey};
pub use listen::{Wake, Wakeups};
pub use metrics::{MeasuredSpeed, MetricPoint, MetricQuery, NewMetric, Series};
pub use models::{BaseModel, Model, NewBaseModel, TunedModel};
pub use permissions::{Permission, PermissionPage};
pub use pool::{Store, StoreOptions, Timings};
pub use prepared::{NewPrepared, Prepared};
pub use projects::Project;
pub use quotas::{Quota, Quotas, TenantUse};
pub use ratings::{
    Given, HeldItem, NewRating, NewRatingItem, NewRatingTask, NextItem, Preferred, RatedItem, Rating, RatingItem,
    RatingTask, SourcedAnswer,
};
pub use retention::{Removed, Retention};
pub use serving::{ServedModel, ServedWeights, ServingEndpoint};
pub use tasks::{
    Heartbeat, Lease, LeaseKey, LeasedFile, NewCheckpoint, Release, Released, Report, Suspension, Trained, Validated,
};
pub use uploads::{NewUpload, Upload, UploadPart};
pub use usage::{Usage, UsageGroups, UsageSpan};
pub use webhooks::{
    AttemptOutcome, DueDelivery, LoggedAttempt, NewWebhookEndpoint, WebhookAttempt, WebhookDelivery, WebhookEndpoint,
    WebhookEndpointPatch, WebhookEvent, WebhookTarget,
};
pub use workers::{DiskRoom, Worker, WorkerFacts};
