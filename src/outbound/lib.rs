//! Calls that leave the house, to addresses that a client named: one filter of addresses, no redirects, deadlines; the
//! signature of webhooks; and judges.

mod address;
mod allowed;
mod chat;
mod client;
mod judges;
mod signature;
mod webhook;

pub use allowed::{Allowed, InvalidAllowance};
pub use chat::{ChatCall, ChatError, ChatReply, ChatTurn};
pub use client::{Outbound, OutboundError};
pub use judges::{InvalidJudges, JudgeEndpoint, Judges};
pub use signature::new_signing_secret;
pub use webhook::WebhookMessage;
