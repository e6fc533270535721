//! The tensors that a config calls for.

use super::{Architecture, ModelConfig};

/// A tensor's Hugging Face name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    fn new(name: String, shape: &[u32]) -> Self {
        Self { name, shape: shape.iter().map(|&size| size as usize).collect() }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// A linear layer of a decoder layer: `(module path, out_features, in_features, has_bias)`.
pub(crate) type Linear = (&'static str, u32, u32, bool);

impl ModelConfig {
    /// Linear layers of one decoder layer, in the order of the forward pass.
    pub(crate) fn linears(&self) -> Vec<Linear> {
        match self.architecture {
            Architecture::Llama => {
                let (hidden, inner) = (self.hidden_size, self.intermediate_size);
                let queries = self.num_attention_heads.saturating_mul(self.head_dim);
                let keys = self.num_key_value_heads.saturating_mul(self.head_dim);
                vec![
                    ("self_attn.q_proj", queries, hidden, self.attention_bias),
                    ("self_attn.k_proj", keys, hidden, self.attention_bias),
                    ("self_attn.v_proj", keys, hidden, self.attention_bias),
                    ("self_attn.o_proj", hidden, queries, self.attention_bias),
                    ("mlp.gate_proj", inner, hidden, self.mlp_bias),
                    ("mlp.up_proj", inner, hidden, self.mlp_bias),
                    ("mlp.down_proj", hidden, inner, self.mlp_bias),
                ]
            }
        }
    }

    /// Every tensor of the model, with its shape. Tied embeddings are listed once.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (hidden, vocab) = (self.hidden_size, self.vocab_size);
        let mut all = vec![TensorSpec::new("model.embed_tokens.weight".to_owned(), &[vocab, hidden])];
        for layer in 0..self.num_hidden_layers {
            self.layer_tensors(&format!("model.layers.{layer}"), &mut all);
        }
        all.push(TensorSpec::new("model.norm.weight".to_owned(), &[hidden]));
        if !self.tie_word_embeddings {
            all.push(TensorSpec::new("lm_head.weight".to_owned(), &[vocab, hidden]));
        }
        all
    }

    fn layer_tensors(&self, layer: &str, all: &mut Vec<TensorSpec>) {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.push(TensorSpec::new(format!("{layer}.{norm}.weight"), &[self.hidden_size]));
        }
        for (module, out_features, in_features, bias) in self.linears() {
            all.push(TensorSpec::new(format!("{layer}.{module}.weight"), &[out_features, in_features]));
            if bias {
                all.push(TensorSpec::new(format!("{layer}.{module}.bias"), &[out_features]));
            }
        }
    }
}
