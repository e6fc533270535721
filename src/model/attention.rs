//! Causal attention with grouped key-value heads (Ainslie et al. 2023), document by document.

use finetuned_torch::Tensor;

use crate::{cache::KeyValueCache, error::ModelError, virtual_tokens::Prefix};

/// What the queries of a forward pass attend to.
pub(crate) enum Attend<'a> {
    /// Each document to itself.
    Documents { lengths: &'a [i64], prefix: Option<&'a Prefix> },
    /// The same, and keys and values are kept for the tokens to come.
    Prefill { lengths: &'a [i64], prefix: Option<&'a Prefix>, cache: &'a mut KeyValueCache },
    /// One new token a row, to all that the row's cache holds and to itself.
    Cached { cache: &'a mut KeyValueCache },
}

impl Attend<'_> {
    /// Attention of one layer. `q` is `[tokens, heads, head_dim]`, `k` and `v` are `[tokens, kv_heads, head_dim]`; the
    /// result is `[tokens, heads * head_dim]`.
    pub fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Documents { lengths, prefix: None } => by_document(q, k, v, lengths),
            Self::Documents { lengths, prefix: Some(prefix) } => {
                let (k, v) = prefix.put(layer, k, v)?;
                by_document(q, &k, &v, lengths)
            }
            Self::Prefill { lengths, prefix, cache } => {
                let (k, v) = match prefix {
                    Some(prefix) => prefix.put(layer, k, v)?,
                    None => (k.shallow_clone(), v.shallow_clone()),
                };
                cache.fill(layer, &k, &v)?;
                by_document(q, &k, &v, lengths)
            }
            Self::Cached { cache } => {
                let (keys, values) = cache.append(layer, k, v)?; // [batch, kv_heads, columns, head_dim]
                let (batch, heads, head_dim) = q.size3()?;
                let kv_heads = k.size3()?.1;
                // The query heads of a group share keys and values, so they stand where queries of a longer text would.
                let q = q.f_view([batch, kv_heads, heads / kv_heads, head_dim])?;
                let mixed = Tensor::f_scaled_dot_product_attention(
                    &q,
                    &keys,
                    &values,
                    Some(cache.mask()?),
                    0.0,
                    false,
                    None,
                    false,
                )?;
                Ok(mixed.f_reshape([batch, heads * head_dim])?)
            }
        }
    }
}

/// No document sees another, and no mask is made: each is a causal attention of its own.
fn by_document(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[i64]) -> Result<Tensor, ModelError> {
    let (tokens, heads, head_dim) = q.size3()?;
    let kv_heads = k.size3()?.1;
    let group = heads / kv_heads;
    let grouped = q.f_view([tokens, kv_heads, group, head_dim])?.f_split_with_sizes(lengths, 0)?;
    let (keys, values) = (k.f_split_with_sizes(lengths, 0)?, v.f_split_with_sizes(lengths, 0)?);
    let mut mixed = Vec::with_capacity(lengths.len());
    for (((q, k), v), &length) in grouped.iter().zip(&keys).zip(&values).zip(lengths) {
        // The key-value heads stand in the batch's place, and the group shares them by a stride of zero: no copies.
        let q = q.f_permute([1, 2, 0, 3])?; // [kv_heads, group, length, head_dim]
        let shared =
            |x: &Tensor| x.f_permute([1, 0, 2])?.f_unsqueeze(1)?.f_expand([kv_heads, group, length, head_dim], false);
        let out = Tensor::f_scaled_dot_product_attention(
            &q,
            &shared(k)?,
            &shared(v)?,
            None::<&Tensor>,
            0.0,
            true,
            None,
            false,
        )?;
        mixed.push(out.f_permute([2, 0, 1, 3])?); // [length, kv_heads, group, head_dim]
    }
    Ok(Tensor::f_cat(&mixed, 0)?.f_view([tokens, heads * head_dim])?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_support::pseudo_random;
    use finetuned_torch::Kind;

    /// softmax(q k^T / sqrt(d)) v with a mask of the whole pack, in f64.
    fn reference(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[i64]) -> Tensor {
        let (tokens, heads, head_dim) = q.size3().unwrap();
        let group = heads / k.size3().unwrap().1;
        let spread = |x: &Tensor| x.to_kind(Kind::Double).repeat_interleave_self_int(group, 1, None).transpose(0, 1);
        let scores =
            q.to_kind(Kind::Double).transpose(0, 1).matmul(&spread(k).transpose(1, 2)) / (head_dim as f64).sqrt();
        let documents: Vec<i64> =
            lengths.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; usize::try_from(n).unwrap()]).collect();
        let documents = Tensor::from_slice(&documents);
        let allowed = documents.unsqueeze(1).eq_tensor(&documents.unsqueeze(0)).tril(0);
        let weights = scores.masked_fill(&allowed.logical_not(), f64::NEG_INFINITY).softmax(-1, Kind::Double);
        weights.matmul(&spread(v)).transpose(0, 1).reshape([tokens, heads * head_dim])
    }

    #[test]
    fn equals_the_masked_formula_with_its_gradients() {
        let lengths = [5_i64, 1, 9];
        let make = |heads, seed| pseudo_random(&[15, heads, 8], seed).set_requires_grad(true);
        let (q, k, v) = (make(6, 1), make(2, 2), make(2, 3));
        let weight = pseudo_random(&[15, 48], 4);
        let out = by_document(&q, &k, &v, &lengths).unwrap();
        (&out * &weight).sum(Kind::Float).backward();
        let gradients = [q.grad().copy(), k.grad().copy(), v.grad().copy()];
        for tensor in [&q, &k, &v] {
            let _ = tensor.grad().zero_();
        }
        let expected = reference(&q, &k, &v, &lengths);
        (&expected * weight.to_kind(Kind::Double)).sum(Kind::Double).backward();
        assert!((out - expected).abs().max().double_value(&[]) < 1e-6);
        for (found, tensor) in gradients.iter().zip([&q, &k, &v]) {
            assert!((found - tensor.grad()).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
