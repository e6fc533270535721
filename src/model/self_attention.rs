//! Attention with one projection each for queries, keys, values and the output.

use finetuned_torch::Tensor;
use finetuned_weights::CommonConfig;

use crate::{
    attention::{Attend, Rule},
    context::Run,
    error::ModelError,
    linear::Linear,
    norm::Norm,
    weights_in::WeightsIn,
};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub query: i64,
    pub key_value: i64,
    pub dim: i64,
}

impl Heads {
    pub fn of(common: &CommonConfig) -> Self {
        let (query, key_value) = (common.num_attention_heads.into(), common.num_key_value_heads.into());
        Self { query, key_value, dim: common.head_dim.into() }
    }

    /// `[tokens, heads * head_dim]` to `[tokens, heads, head_dim]`.
    pub fn split_query(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_view([-1, self.query, self.dim])?)
    }

    /// `[tokens, kv_heads * head_dim]` to `[tokens, kv_heads, head_dim]`.
    pub fn split_key_value(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_view([-1, self.key_value, self.dim])?)
    }
}

#[derive(Debug)]
pub(crate) struct SelfAttention {
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    /// Norms of each head's queries and of its keys, before they are rotated.
    pub head_norms: Option<[Norm; 2]>,
    pub heads: Heads,
    pub rule: Rule,
}

impl SelfAttention {
    /// Takes `q_proj`, `k_proj`, `v_proj` and `o_proj` below a path.
    pub fn load(
        weights: &mut WeightsIn<'_>,
        common: &CommonConfig,
        path: &str,
        rule: Rule,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            q: weights.linear(&format!("{path}.q_proj"))?,
            k: weights.linear(&format!("{path}.k_proj"))?,
            v: weights.linear(&format!("{path}.v_proj"))?,
            o: weights.linear(&format!("{path}.o_proj"))?,
            head_norms: None,
            heads: Heads::of(common),
            rule,
        })
    }

    /// `x` is `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let mut q = self.heads.split_query(&self.q.forward(x, run)?)?;
        let mut k = self.heads.split_key_value(&self.k.forward(x, run)?)?;
        let v = self.heads.split_key_value(&self.v.forward(x, run)?)?;
        if let Some([q_norm, k_norm]) = &self.head_norms {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        if let Some(rotary) = self.rule.rotary {
            (q, k) = (run.rotations[rotary].apply(&q)?, run.rotations[rotary].apply(&k)?);
        }
        let mixed = attend.attend(&self.rule, &q, &k, &v)?; // [tokens, heads * head_dim]
        self.o.forward(&mixed, run)
    }
}
