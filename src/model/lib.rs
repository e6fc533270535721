//! Language models on libtorch: architectures, loading weights into tensors, adapters, the loss on supervised
//! tokens, optimisers, and generation with a cache of keys and values.
//!
//! Documents are packed: the tokens of all of them lie in one `[tokens]` vector without padding, positions start anew
//! with each document, and attention runs document by document, so that no document sees another and no `tokens x
//! tokens` mask exists. Every random choice is a function of what it is for (a seed and a place), never of the order of
//! computing.

mod adapter;
mod adapter_files;
mod adapter_source;
mod attention;
mod cache;
mod causal_lm;
mod chooser;
mod context;
mod decoder;
mod document_scores;
mod documents;
mod dropout;
mod encoder;
mod error;
mod gemma2;
mod gemma3;
mod generate;
mod gpt2;
mod gpt_neox;
mod head;
mod ia3;
mod json_text;
mod linear;
mod llama;
mod log_probabilities;
mod lora;
mod loss;
mod merge;
mod mistral;
mod mixed;
mod mixtral;
mod mlp;
mod neftune;
mod norm;
mod olmo2;
mod optimizer;
mod phi3;
mod prefixes;
mod qwen2;
mod qwen3;
pub mod random;
mod rotary;
mod sampling;
mod self_attention;
mod similarity;
mod slots;
mod smollm3;
mod stop;
pub mod tensor_file;
mod texts;
mod trainable;
mod virtual_tokens;
mod vocabulary;
mod weight;
mod weights_in;

#[cfg(test)]
mod family_methods_tests;
#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod generate_tests;
#[cfg(test)]
mod methods_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod neftune_tests;
#[cfg(test)]
mod peft_parity_tests;
#[cfg(test)]
mod precision_tests;
#[cfg(test)]
mod smollm2_tests;
#[cfg(test)]
mod test_support;

pub use adapter::Adapter;
pub use adapter_files::{ADAPTER_CONFIG_FILE, ADAPTER_TENSORS_FILE};
pub use causal_lm::{CausalLm, ModulePath};
pub use chooser::{ChoiceOptions, Chooser};
pub use context::{DropoutKeys, ForwardContext};
pub use document_scores::{DocumentScores, score_documents};
pub use documents::Documents;
pub use encoder::{EncodedStates, Encoder};
pub use error::ModelError;
pub use generate::{Answer, GenerateOptions, GenerateProgress, Prompt, generate, generate_each};
pub use json_text::JsonText;
pub use log_probabilities::TokenScores;
pub use loss::{IGNORED_LABEL, LossParts, Targets, supervised_loss, weighted_loss};
pub use merge::MergedWeights;
pub use optimizer::{Optimizer, clip_gradients, gradient_norm};
pub use sampling::Sampling;
pub use similarity::similarity;
pub use stop::StopStrings;
pub use texts::{NewText, Step, Texts};
pub use trainable::Trainable;
pub use weight::Precision;
