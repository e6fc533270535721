//! The tensors that a config calls for, and which of them are linear layers that an adapter may change.

use super::common::CommonConfig;

/// A tensor's Hugging Face name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// A linear layer that an adapter may change: what peft's `all-linear` means, every one but the output head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearSpec {
    /// Such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    pub in_features: u32,
    pub out_features: u32,
    /// Whether the weight is stored as `[in_features, out_features]`, as transformers' Conv1D has it.
    pub transposed: bool,
}

impl LinearSpec {
    /// Last part of its path, such as `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// All tensors of a model, in the order of the forward pass.
#[derive(Debug, Default)]
pub struct Layout {
    pub tensors: Vec<TensorSpec>,
    pub linears: Vec<LinearSpec>,
}

impl Layout {
    /// A decoder as most families have it, below `prefix`: embeddings, layers, a norm without bias, the head. `layer`
    /// adds the tensors of the layer at a path.
    pub(super) fn decoder(common: &CommonConfig, prefix: &str, layer: impl Fn(&mut Self, &str)) -> Self {
        let mut layout = Self::default();
        layout.tensor(format!("{prefix}.embed_tokens.weight"), &[common.vocab_size, common.hidden_size]);
        for index in 0..common.num_hidden_layers {
            layer(&mut layout, &format!("{prefix}.layers.{index}"));
        }
        layout.norm(&format!("{prefix}.norm"), common.hidden_size);
        layout.head("lm_head", common);
        layout
    }

    /// The output head at a path, where it is not the embedding matrix.
    pub(super) fn head(&mut self, path: &str, common: &CommonConfig) {
        if !common.tie_word_embeddings {
            self.tensor(format!("{path}.weight"), &[common.vocab_size, common.hidden_size]);
        }
    }

    pub(super) fn tensor(&mut self, name: String, shape: &[u32]) {
        self.tensors.push(TensorSpec { name, shape: shape.iter().map(|&size| size as usize).collect() });
    }

    /// A norm without bias.
    pub(super) fn norm(&mut self, path: &str, size: u32) {
        self.tensor(format!("{path}.weight"), &[size]);
    }

    /// A norm with bias.
    pub(super) fn layer_norm(&mut self, path: &str, size: u32) {
        self.norm(path, size);
        self.tensor(format!("{path}.bias"), &[size]);
    }

    /// A linear layer, `[out_features, in_features]`.
    pub(super) fn linear(&mut self, path: String, [out_features, in_features]: [u32; 2], bias: bool) {
        self.tensor(format!("{path}.weight"), &[out_features, in_features]);
        self.bias(&path, out_features, bias);
        self.linears.push(LinearSpec { path, in_features, out_features, transposed: false });
    }

    /// A linear layer stored the other way round, always with a bias.
    pub(super) fn conv1d(&mut self, path: String, [in_features, out_features]: [u32; 2]) {
        self.tensor(format!("{path}.weight"), &[in_features, out_features]);
        self.bias(&path, out_features, true);
        self.linears.push(LinearSpec { path, in_features, out_features, transposed: true });
    }

    fn bias(&mut self, path: &str, out_features: u32, bias: bool) {
        if bias {
            self.tensor(format!("{path}.bias"), &[out_features]);
        }
    }

    /// `self_attn` of a layer with four projections.
    pub(super) fn attention(&mut self, layer: &str, common: &CommonConfig, bias: AttentionBias) {
        let (hidden, queries, keys) = (common.hidden_size, common.query_size(), common.key_value_size());
        self.linear(format!("{layer}.self_attn.q_proj"), [queries, hidden], bias != AttentionBias::None);
        self.linear(format!("{layer}.self_attn.k_proj"), [keys, hidden], bias != AttentionBias::None);
        self.linear(format!("{layer}.self_attn.v_proj"), [keys, hidden], bias != AttentionBias::None);
        self.linear(format!("{layer}.self_attn.o_proj"), [hidden, queries], bias == AttentionBias::All);
    }

    /// `mlp` of a layer with a gate.
    pub(super) fn gated_mlp(&mut self, layer: &str, common: &CommonConfig, bias: bool) {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        self.linear(format!("{layer}.mlp.gate_proj"), [inner, hidden], bias);
        self.linear(format!("{layer}.mlp.up_proj"), [inner, hidden], bias);
        self.linear(format!("{layer}.mlp.down_proj"), [hidden, inner], bias);
    }

    /// Norms of a layer, each as wide as the hidden states.
    pub(super) fn norms(&mut self, layer: &str, common: &CommonConfig, names: &[&str]) {
        for name in names {
            self.norm(&format!("{layer}.{name}"), common.hidden_size);
        }
    }
}

/// Which projections of an attention have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttentionBias {
    None,
    /// Those of queries, keys and values, not the one of the output.
    Inputs,
    All,
}

impl AttentionBias {
    /// By the field `attention_bias`.
    pub(super) fn all_if(flag: bool) -> Self {
        if flag { Self::All } else { Self::None }
    }
}
