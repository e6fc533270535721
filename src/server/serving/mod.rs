//! Requests to models, under OpenAI's names: this node checks and words them, a worker answers.

mod answers;
mod chat;
mod completions;
mod settings;
mod sse;
mod workers;

pub use chat::{__path_create_chat_completion, create_chat_completion};
pub use completions::{__path_create_completion, create_completion};
pub use workers::WorkerClient;
