//! What the service tells of a model without loading its weights.

use finetuned_protocol::spec::{LinearModule, ModelFacts};

use crate::config::ModelConfig;

pub(crate) fn of(config: &ModelConfig, has_chat_template: bool) -> ModelFacts {
    let module = |(path, out_features, in_features, _): (&str, u32, u32, bool)| LinearModule {
        name: path.rsplit('.').next().unwrap_or(path).to_owned(),
        in_features,
        out_features,
    };
    ModelFacts {
        architecture: config.architecture.as_str().to_owned(),
        parameters: config.tensors().iter().map(|tensor| tensor.elements()).sum(),
        layers: config.num_hidden_layers,
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        context_length: config.max_position_embeddings,
        linear_modules: config.linears().into_iter().map(module).collect(),
        has_chat_template,
    }
}
