//! The service as its users meet it: real programs, a real Postgres, the real engine, the real OpenAI package.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod controls;
mod crash;
mod disk;
mod evaluation;
mod failures;
mod idempotency;
mod improving;
mod knobs;
mod lossless;
mod main_job;
mod methods;
mod objectives;
mod optimization;
mod outage;
mod sharing;
mod start;
mod tenants;
mod upgrade;
mod upload;
mod webhooks;
