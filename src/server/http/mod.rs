//! What every resource shares: errors, bodies, queries, paths, downloads, who calls.

pub mod access;
pub mod audit;
pub mod auth;
pub mod body;
pub mod context;
pub mod download;
pub mod error;
pub mod idempotency;
pub mod limits;
pub mod multipart;
pub mod paging;
pub mod path;
pub mod query;
pub mod rate;
mod store_errors;

pub use store_errors::found;
