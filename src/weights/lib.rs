//! Model files without libtorch: weights from safetensors and GGUF, the config that both spell differently, tokenizers and
//! chat templates, peft's `adapter_config.json`, and the planner of memory and time.
//!
//! Everything here reads files that others made. Sizes, counts and offsets in them are claims, checked against the bytes
//! that are there before they are believed; a field that changes the mathematics and is not implemented is refused by name.

pub mod adapter_config;
pub mod config;
mod digest;
mod encoder;
mod error;
mod export;
mod facts;
mod folder;
mod gguf;
mod jinja;
pub mod planner;
mod source;
mod tensor;
mod tokenizer;

pub use config::{Activation, CommonConfig, Family, LinearSpec, ModelConfig, RopeConfig, RopeScaling, Window, family};
pub use encoder::{EncodedText, EncoderConfig, EncoderFolder};
pub use error::WeightsError;
pub use export::{MODEL_TENSORS_FILE, TextFile};
pub use gguf::export::{GgufLora, GgufModel, GgufPrecision, check_gguf_export, write_gguf_lora, write_gguf_model};
pub use jinja::{ChatCall, ChatMessage, Conversation, check_user_template};
pub use source::ModelSource;
pub use tensor::{HostDtype, HostTensor};
pub use tokenizer::{TextTokenizer, read_tokenizer};
