//! The lease protocol of `src/store/tasks`, small enough that every order of events can be tried.
//!
//! One task, two workers, one database. A write is sent in one step and arrives in another, or never; between the two
//! anything may happen: the lease expires and is taken back, the other worker claims, a person cancels or pauses, the
//! database goes and comes back, a worker is stopped, continued or killed. stateright walks through all of it.
//!
//! [`Write::ALL`] is each kind of write that a worker makes. With [`Protocol::unfenced`] one of them is let through
//! whatever its epoch: the checker must find what goes wrong then, or the model would say nothing about fences.

mod database;
mod protocol;
#[cfg(test)]
mod tests;

pub use database::{Database, TaskState, Write};
pub use protocol::{Protocol, State, Step, Worker};
