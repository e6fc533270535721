//! What all architectures have in common: tokens become vectors, layers change them, a norm ends them, and a head scores
//! the vocabulary.

use std::fmt::Debug;

use finetuned_torch::Tensor;
use finetuned_weights::{CommonConfig, RopeConfig};

use crate::{
    attention::Attend, cache::CacheShape, context::Run, documents::Documents, error::ModelError, head::Head,
    norm::Norm, rotary::Rotary, weights_in::WeightsIn,
};

/// One layer of an architecture.
pub(crate) trait Layer: Debug {
    /// `x` and the result are `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError>;
}

#[derive(Debug)]
pub(crate) struct Decoder {
    /// `[vocab, hidden]`
    pub embedding: Tensor,
    /// Factor on the embeddings, a scalar of the weights' kind.
    pub embedding_scale: Option<Tensor>,
    /// Vectors added by position, `[positions, hidden]`; no text can be longer.
    pub positions: Option<Tensor>,
    pub layers: Vec<Box<dyn Layer>>,
    pub norm: Norm,
    pub head: Head,
    /// Rotary embeddings that layers choose from.
    pub rotaries: Vec<Rotary>,
    pub cache_shape: CacheShape,
}

impl Decoder {
    /// Takes the weights as most architectures name them, below `prefix`: `embed_tokens`, `layers`, a `norm` and
    /// `lm_head`. `layer` takes those of the layer with an index at a path, and `norm` makes the last norm.
    pub fn load<L: Layer + 'static>(
        weights: &mut WeightsIn<'_>,
        common: &CommonConfig,
        (prefix, ropes): (&str, &[&RopeConfig]),
        norm: impl Fn(&mut WeightsIn<'_>, &str) -> Result<Norm, ModelError>,
        layer: impl Fn(&mut WeightsIn<'_>, usize, &str) -> Result<L, ModelError>,
    ) -> Result<Self, ModelError> {
        let embedding = weights.tensor(&format!("{prefix}.embed_tokens.weight"))?;
        let layers = (0..common.num_hidden_layers as usize)
            .map(|index| Ok(Box::new(layer(weights, index, &format!("{prefix}.layers.{index}"))?) as Box<dyn Layer>))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            norm: norm(weights, &format!("{prefix}.norm"))?,
            head: weights.head("lm_head", common, &embedding)?,
            embedding,
            embedding_scale: None,
            positions: None,
            layers,
            rotaries: ropes.iter().map(|rope| Rotary::new(rope, weights.device())).collect::<Result<_, _>>()?,
            cache_shape: CacheShape::of(common),
        })
    }

    /// Hidden states before the final norm, `[tokens, hidden]`, of `ids`, `[tokens]`.
    pub fn forward(&self, ids: &Tensor, run: &Run, mut attend: Attend<'_>) -> Result<Tensor, ModelError> {
        let mut x = run.embed(&self.embedding, ids)?; // [tokens, hidden]
        if let Some(scale) = &self.embedding_scale {
            x = x.f_mul(scale)?;
        }
        if let Some(noise) = &run.noise {
            x = x.f_add(&noise.f_to_kind(x.f_kind()?)?)?;
        }
        if let Some(table) = &self.positions {
            x = x.f_add(&Tensor::f_embedding(table, run.positions, -1, false, false)?)?;
        }
        for layer in &self.layers {
            x = layer.forward(&x, run, &mut attend)?;
        }
        Ok(x)
    }

    /// The final norm; a row's result depends on that row alone, so rows nobody asks for can be left out before it.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.norm.forward(x)
    }

    /// Tokens of the longest text that can be computed, where there is a limit.
    pub fn longest_text(&self) -> Option<i64> {
        self.positions.as_ref().and_then(|table| table.size().first().copied())
    }

    /// Refuses documents that this model cannot compute.
    pub fn check(&self, documents: &Documents) -> Result<(), ModelError> {
        let longest = documents.lengths.iter().copied().max().unwrap_or(0);
        match self.longest_text() {
            Some(limit) if longest > limit => {
                let reason = format!("a text of {longest} tokens is longer than the {limit} positions of this model");
                Err(ModelError::Batch(reason))
            }
            _ => Ok(()),
        }
    }
}
