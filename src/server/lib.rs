//! HTTP: OpenAI's fine-tuning wire format and what this service adds to it. One file a resource; `router` is the table
//! of contents.

mod description;
mod files;
mod health;
mod http;
mod jobs;
mod models;
mod options;
mod organization;
mod permissions;
mod preparing;
mod ratings;
mod router;
mod scratch;
mod serve;
#[cfg(test)]
mod service_tests;
mod serving;
mod state;
mod telemetry;
mod tokenizers;
mod uploads;
mod webhooks;

pub use options::{Anonymous, ServerOptions};
pub use router::openapi;
pub use serve::{ServerError, serve};

/// The document of [`openapi`] as YAML; `openapi.yaml` of the repository is this text.
///
/// # Errors
/// What the serialiser cannot write.
pub fn openapi_yaml() -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    Ok(openapi().to_yaml()?)
}
