//! The engine as a child process: its start, its commands, its lines, its end.

mod child;
mod exit;
mod lines;
mod parent;
mod supervisor;

pub use child::Engine;
pub use exit::EngineExit;
pub use lines::EngineLines;
pub use supervisor::{EngineEnd, Supervisor, Told};
