//! Calls that leave the house, to addresses that a client named: one filter of addresses, no redirects, deadlines; and
//! the signature of webhooks.

mod address;
mod allowed;
mod client;
mod signature;
mod webhook;

pub use allowed::{Allowed, InvalidAllowance};
pub use client::{Outbound, OutboundError};
pub use signature::new_signing_secret;
pub use webhook::WebhookMessage;
