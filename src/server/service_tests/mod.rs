//! The whole service on a real Postgres, through the real router; every answer is checked against the published
//! specification on its way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access_tests;
mod audit_tests;
mod auth_tests;
mod conformance;
mod continuing_tests;
mod contract_tests;
mod creating_jobs_tests;
mod datasets_tests;
mod envelope_tests;
mod files_tests;
mod idempotency_tests;
mod jobs_tests;
mod limits_tests;
mod models_tests;
mod organization_tests;
mod parts_tests;
mod permissions_tests;
mod preparing_tests;
mod quotas_tests;
mod ratings_tests;
mod results_tests;
pub(crate) mod service;
mod stream_tests;
mod training;
mod upload_tests;
mod versions_tests;
