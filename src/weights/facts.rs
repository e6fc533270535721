//! What the service tells of a model without loading its weights.

use finetuned_protocol::spec::{LinearModule, ModelFacts};

use crate::config::{LinearSpec, ModelConfig};

pub(crate) fn of(config: &ModelConfig, has_chat_template: bool) -> ModelFacts {
    let common = &config.common;
    // Layers are alike, so that the first share of the linear layers is the first layer's.
    let linears = config.linears();
    let in_one_layer = linears.len() / common.num_hidden_layers.max(1) as usize;
    let module = |linear: &LinearSpec| LinearModule {
        name: linear.name().to_owned(),
        in_features: linear.in_features,
        out_features: linear.out_features,
    };
    ModelFacts {
        fixed_modules: config.fixed_linears().iter().map(module).collect(),
        architecture: config.model_type().to_owned(),
        parameters: config.tensors().iter().map(|tensor| tensor.elements()).sum(),
        layers: common.num_hidden_layers,
        hidden_size: common.hidden_size,
        vocab_size: common.vocab_size,
        context_length: common.max_position_embeddings,
        linear_modules: linears.iter().take(in_one_layer).map(module).collect(),
        has_chat_template,
    }
}
