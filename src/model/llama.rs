//! Llama (Touvron et al. 2023) and the models that share its mathematics: SmolLM2, TinyLlama, Llama 3.
//!
//! Reference: `modeling_llama.py` of Hugging Face's transformers.

use finetuned_torch::{Device, Tensor};
use finetuned_weights::ModelConfig;

use crate::{
    attention::Attend, cache::CacheShape, causal_lm::ModulePath, context::Run, error::ModelError, linear::Linear,
    norm::RmsNorm, rotary::Rotary, weights_in::WeightsIn,
};

#[derive(Debug)]
pub(crate) struct Llama {
    /// `[vocab, hidden]`
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `[vocab, hidden]`; the embedding itself where they are tied.
    head: Tensor,
    tied: bool,
    pub rotary: Rotary,
    pub cache_shape: CacheShape,
}

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
}

#[derive(Debug)]
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    /// Hidden states before the final norm, `[tokens, hidden]`, of `ids`, `[tokens]`.
    pub fn forward(&self, ids: &Tensor, run: &Run, mut attend: Attend<'_>) -> Result<Tensor, ModelError> {
        let mut x = run.embed(&self.embedding, ids)?; // [tokens, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, run, (index, &mut attend))?;
        }
        Ok(x)
    }

    /// The final norm; a row's result depends on that row alone, so rows nobody asks for can be left out before it.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.norm.forward(x)
    }

    pub fn head(&self) -> &Tensor {
        &self.head
    }

    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }
}

impl Layer {
    /// `x` is `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: (usize, &mut Attend<'_>)) -> Result<Tensor, ModelError> {
        let x = x.f_add(&self.attention.forward(&self.input_norm.forward(x)?, run, attend)?)?;
        Ok(x.f_add(&self.mlp.forward(&self.post_attention_norm.forward(&x)?, run)?)?)
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, run: &Run, (layer, attend): (usize, &mut Attend<'_>)) -> Result<Tensor, ModelError> {
        let q = self.q.forward(x, run)?.f_view([-1, self.heads, self.head_dim])?; // [tokens, heads, head_dim]
        let k = self.k.forward(x, run)?.f_view([-1, self.kv_heads, self.head_dim])?;
        let v = self.v.forward(x, run)?.f_view([-1, self.kv_heads, self.head_dim])?;
        let (q, k) = (run.rotation.apply(&q)?, run.rotation.apply(&k)?);
        let mixed = attend.attend(layer, &q, &k, &v)?; // [tokens, heads * head_dim]
        self.o.forward(&mixed, run)
    }
}

impl Mlp {
    /// SwiGLU (Shazeer 2020).
    fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        let gate = self.gate.forward(x, run)?.f_silu()?; // [tokens, intermediate]
        self.down.forward(&gate.f_mul(&self.up.forward(x, run)?)?, run)
    }
}

// ---- loading ----

impl Llama {
    /// Takes the weights by their names in Hugging Face's checkpoints; `modules` receives the linear ones in order.
    pub fn load(
        config: &ModelConfig,
        weights: &mut WeightsIn<'_>,
        modules: &mut Vec<ModulePath>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let (vocab, hidden) = (i64::from(config.vocab_size), i64::from(config.hidden_size));
        let embedding = weights.take("model.embed_tokens.weight", &[vocab, hidden])?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Loader { config, weights, modules, path: format!("model.layers.{index}") }.layer())
            .collect::<Result<_, _>>()?;
        let weight = weights.take("model.norm.weight", &[hidden])?;
        let tied = config.tie_word_embeddings;
        let head = if tied {
            weights.ignore("lm_head.weight");
            embedding.shallow_clone()
        } else {
            weights.take("lm_head.weight", &[vocab, hidden])?
        };
        let head_dim = i64::from(config.head_dim);
        Ok(Self {
            embedding,
            layers,
            norm: RmsNorm { weight, epsilon: config.rms_norm_eps },
            head,
            tied,
            rotary: Rotary::new(&config.rope, head_dim, device)?,
            cache_shape: CacheShape {
                layers: config.num_hidden_layers as usize,
                kv_heads: i64::from(config.num_key_value_heads),
                head_dim,
            },
        })
    }

    /// Every weight under its name in Hugging Face's checkpoints; tied ones once.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut found = vec![("model.embed_tokens.weight".to_owned(), self.embedding.shallow_clone())];
        for (index, layer) in self.layers.iter().enumerate() {
            layer.parameters(&format!("model.layers.{index}"), &mut found);
        }
        found.push(("model.norm.weight".to_owned(), self.norm.weight.shallow_clone()));
        if !self.tied {
            found.push(("lm_head.weight".to_owned(), self.head.shallow_clone()));
        }
        found
    }
}

impl Layer {
    fn parameters(&self, path: &str, found: &mut Vec<(String, Tensor)>) {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let linears = [
            ("self_attn.q_proj", &attention.q),
            ("self_attn.k_proj", &attention.k),
            ("self_attn.v_proj", &attention.v),
            ("self_attn.o_proj", &attention.o),
            ("mlp.gate_proj", &mlp.gate),
            ("mlp.up_proj", &mlp.up),
            ("mlp.down_proj", &mlp.down),
        ];
        for (name, linear) in linears {
            found.push((format!("{path}.{name}.weight"), linear.weight.shallow_clone()));
            found.extend(linear.bias.as_ref().map(|bias| (format!("{path}.{name}.bias"), bias.shallow_clone())));
        }
        found.push((format!("{path}.input_layernorm.weight"), self.input_norm.weight.shallow_clone()));
        let weight = self.post_attention_norm.weight.shallow_clone();
        found.push((format!("{path}.post_attention_layernorm.weight"), weight));
    }
}

/// Loads one layer.
struct Loader<'a, 'w> {
    config: &'a ModelConfig,
    weights: &'a mut WeightsIn<'w>,
    modules: &'a mut Vec<ModulePath>,
    path: String,
}

impl Loader<'_, '_> {
    fn layer(mut self) -> Result<Layer, ModelError> {
        let hidden = i64::from(self.config.hidden_size);
        let intermediate = i64::from(self.config.intermediate_size);
        let (heads, kv_heads) =
            (i64::from(self.config.num_attention_heads), i64::from(self.config.num_key_value_heads));
        let head_dim = i64::from(self.config.head_dim);
        let (attention_bias, mlp_bias) = (self.config.attention_bias, self.config.mlp_bias);
        Ok(Layer {
            input_norm: self.norm("input_layernorm")?,
            attention: Attention {
                q: self.linear("self_attn.q_proj", [heads * head_dim, hidden], attention_bias)?,
                k: self.linear("self_attn.k_proj", [kv_heads * head_dim, hidden], attention_bias)?,
                v: self.linear("self_attn.v_proj", [kv_heads * head_dim, hidden], attention_bias)?,
                o: self.linear("self_attn.o_proj", [hidden, heads * head_dim], attention_bias)?,
                heads,
                kv_heads,
                head_dim,
            },
            post_attention_norm: self.norm("post_attention_layernorm")?,
            mlp: Mlp {
                gate: self.linear("mlp.gate_proj", [intermediate, hidden], mlp_bias)?,
                up: self.linear("mlp.up_proj", [intermediate, hidden], mlp_bias)?,
                down: self.linear("mlp.down_proj", [hidden, intermediate], mlp_bias)?,
            },
        })
    }

    fn norm(&mut self, name: &str) -> Result<RmsNorm, ModelError> {
        let name = format!("{}.{name}.weight", self.path);
        let weight = self.weights.take(&name, &[i64::from(self.config.hidden_size)])?;
        Ok(RmsNorm { weight, epsilon: self.config.rms_norm_eps })
    }

    fn linear(&mut self, name: &str, shape: [i64; 2], has_bias: bool) -> Result<Linear, ModelError> {
        let path = format!("{}.{name}", self.path);
        let weight = self.weights.take(&format!("{path}.weight"), &shape)?;
        let bias = self.weights.take_if(has_bias, &format!("{path}.bias"), &shape[..1])?;
        let index = self.modules.len();
        self.modules.push(ModulePath { path, in_features: shape[1], out_features: shape[0] });
        Ok(Linear { index, weight, bias })
    }
}
