//! Causal attention with grouped key-value heads (Ainslie et al. 2023), document by document.

use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::{CommonConfig, Window};

use crate::{cache::KeyValueCache, error::ModelError, slots::SlotPass, virtual_tokens::Prefix};

/// Queries that are computed together where each sees part of what is before it only.
pub(crate) const BLOCK: i64 = 512;

/// How the queries of one layer weigh the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Index of the layer, by which its cache is found.
    pub layer: usize,
    /// Which of the model's rotary embeddings turns queries and keys, if any does.
    pub rotary: Option<usize>,
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// Tokens that a query sees, its own included; all before it where there is none.
    pub window: Option<i64>,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub soft_cap: Option<f64>,
}

impl Rule {
    /// Everything before it, scaled by `1 / sqrt(head_dim)` (Vaswani et al. 2017), turned by the model's first rotary
    /// embedding.
    pub fn of(common: &CommonConfig, layer: usize) -> Self {
        Self { layer, rotary: Some(0), scale: f64::from(common.head_dim).powf(-0.5), window: None, soft_cap: None }
    }

    pub fn with_window(self, window: Window) -> Self {
        Self { window: window.map(i64::from), ..self }
    }
}

/// What the queries of a forward pass attend to.
pub(crate) enum Attend<'a> {
    /// Each document to itself.
    Documents { lengths: &'a [i64], prefix: Option<&'a Prefix<'a>> },
    /// The same, and keys and values are kept for the tokens to come.
    Prefill { lengths: &'a [i64], prefix: Option<&'a Prefix<'a>>, cache: &'a mut KeyValueCache },
    /// One new token a row, to all that the row's cache holds and to itself.
    Cached { cache: &'a mut KeyValueCache },
    /// New tokens of texts that are answered side by side, to all that their slots hold.
    Slots { pass: SlotPass<'a> },
}

impl Attend<'_> {
    /// Attention of one layer. `q` is `[tokens, heads, head_dim]`, `k` and `v` are `[tokens, kv_heads, head_dim]`; the
    /// result is `[tokens, heads * head_dim]`.
    pub fn attend(&mut self, rule: &Rule, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Documents { lengths, prefix: None } => by_document(rule, (q, k, v), lengths, BLOCK),
            Self::Documents { lengths, prefix: Some(prefix) } => {
                let (k, v) = prefix.put(rule, k, v)?;
                by_document(rule, (q, &k, &v), lengths, BLOCK)
            }
            Self::Prefill { lengths, prefix, cache } => {
                let (k, v) = match prefix {
                    Some(prefix) => prefix.put(rule, k, v)?,
                    None => (k.shallow_clone(), v.shallow_clone()),
                };
                cache.fill(rule.layer, &k, &v)?;
                by_document(rule, (q, &k, &v), lengths, BLOCK)
            }
            Self::Slots { pass } => pass.attend(rule, q, k, v),
            Self::Cached { cache } => {
                let (keys, values) = cache.append(rule.layer, k, v)?; // [batch, kv_heads, columns, head_dim]
                let mask = cache.mask()?; // [batch, 1, 1, columns]
                let (batch, heads, head_dim) = q.size3()?;
                let kv_heads = k.size3()?.1;
                // The query heads of a group share keys and values, so they stand where queries of a longer text would.
                let q = q.f_view([batch, kv_heads, heads / kv_heads, head_dim])?;
                // The newest token is in the last column of every row, so a window is the same columns for all.
                let columns = keys.size4()?.2;
                let seen = rule.window.map_or(columns, |window| window.min(columns));
                let last = |x: &Tensor, dim: i64| x.f_narrow(dim, columns - seen, seen);
                let mixed = weigh(rule, (&q, &last(&keys, 2)?, &last(&values, 2)?), &last(&mask, 3)?)?;
                Ok(mixed.f_reshape([batch, heads * head_dim])?)
            }
        }
    }
}

type Qkv<'a> = (&'a Tensor, &'a Tensor, &'a Tensor);

/// Each document is a causal attention of its own: none sees another, and no mask of the whole pack is made.
pub(crate) fn by_document(rule: &Rule, (q, k, v): Qkv<'_>, lengths: &[i64], block: i64) -> Result<Tensor, ModelError> {
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
        let (k, v) = (shared(k)?, shared(v)?);
        let sees_all = rule.window.is_none_or(|window| length <= window);
        let out = if sees_all && rule.soft_cap.is_none() {
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, true, Some(rule.scale), false)?
        } else {
            by_block(rule, (&q, &k, &v), block)?
        };
        mixed.push(out.f_permute([2, 0, 1, 3])?); // [length, kv_heads, group, head_dim]
    }
    Ok(Tensor::f_cat(&mixed, 0)?.f_view([tokens, heads * head_dim])?)
}

/// One document, a block of queries at a time against the keys that any of them sees, so that the cost of a window grows
/// with the length and not with its square. All are `[kv_heads, group, length, head_dim]`.
fn by_block(rule: &Rule, (q, k, v): Qkv<'_>, block: i64) -> Result<Tensor, ModelError> {
    let length = q.size4()?.2;
    let window = rule.window.unwrap_or(length);
    let mut parts = Vec::new();
    for start in (0..length).step_by(block as usize) {
        let end = (start + block).min(length);
        let first = (start - window + 1).max(0);
        let keys = |x: &Tensor| x.f_narrow(2, first, end - first);
        let mask = mask((start, end), first, window, (q.f_kind()?, q.device()))?;
        parts.push(weigh(rule, (&q.f_narrow(2, start, end - start)?, &keys(k)?, &keys(v)?), &mask)?);
    }
    Ok(Tensor::f_cat(&parts, 2)?)
}

/// `[end - start, end - first]`: zero where the query sees the key, minus infinity elsewhere.
pub(crate) fn mask(
    (start, end): (i64, i64),
    first: i64,
    window: i64,
    (kind, device): (Kind, Device),
) -> Result<Tensor, ModelError> {
    let seen = Tensor::f_ones([end - start, end - first], (Kind::Bool, device))?;
    // The query in row i stands at key i + offset.
    let offset = start - first;
    let seen = seen.f_tril(offset)?.f_triu(offset - window + 1)?;
    Ok(Tensor::f_zeros(seen.size(), (kind, device))?.f_masked_fill(&seen.f_logical_not()?, f64::NEG_INFINITY)?)
}

/// Values weighed by the softmax of the scores, with a mask to add to them; the softmax in f32.
pub(crate) fn weigh(rule: &Rule, (q, k, v): Qkv<'_>, mask: &Tensor) -> Result<Tensor, ModelError> {
    let Some(cap) = rule.soft_cap else {
        let scale = Some(rule.scale);
        return Ok(Tensor::f_scaled_dot_product_attention(q, k, v, Some(mask), 0.0, false, scale, false)?);
    };
    let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?.f_mul_scalar(rule.scale)?;
    let capped = scores.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?;
    let weights = capped.f_add(mask)?.f_softmax(-1, Kind::Float)?.f_to_kind(v.f_kind()?)?;
    Ok(weights.f_matmul(v)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cache::CacheShape, test_support::pseudo_random};

    const LENGTHS: [i64; 3] = [5, 1, 9];

    /// softmax(cap(q k^T scale)) v with a mask of the whole pack, in f64.
    fn reference(rule: &Rule, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (tokens, heads, head_dim) = q.size3().unwrap();
        let group = heads / k.size3().unwrap().1;
        let spread = |x: &Tensor| x.to_kind(Kind::Double).repeat_interleave_self_int(group, 1, None).transpose(0, 1);
        let mut scores = q.to_kind(Kind::Double).transpose(0, 1).matmul(&spread(k).transpose(1, 2)) * rule.scale;
        if let Some(cap) = rule.soft_cap {
            scores = (scores / cap).tanh() * cap;
        }
        let documents: Vec<i64> =
            LENGTHS.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; usize::try_from(n).unwrap()]).collect();
        let documents = Tensor::from_slice(&documents);
        let mut allowed = documents.unsqueeze(1).eq_tensor(&documents.unsqueeze(0)).tril(0);
        if let Some(window) = rule.window {
            allowed = allowed.triu(1 - window);
        }
        let weights = scores.masked_fill(&allowed.logical_not(), f64::NEG_INFINITY).softmax(-1, Kind::Double);
        weights.matmul(&spread(v)).transpose(0, 1).reshape([tokens, heads * head_dim])
    }

    fn rules() -> Vec<Rule> {
        let plain = Rule { layer: 0, rotary: None, scale: 8.0_f64.powf(-0.5), window: None, soft_cap: None };
        let window = Rule { window: Some(3), ..plain };
        vec![
            plain,
            window,
            Rule { window: Some(1), ..plain },
            Rule { soft_cap: Some(0.7), scale: 0.5, ..plain },
            Rule { soft_cap: Some(0.7), ..window },
        ]
    }

    #[test]
    fn equals_the_masked_formula_with_its_gradients() {
        for (rule, block) in rules().into_iter().flat_map(|rule| [(rule, 2), (rule, 4), (rule, BLOCK)]) {
            let make = |heads, seed| pseudo_random(&[15, heads, 8], seed).set_requires_grad(true);
            let (q, k, v) = (make(6, 1), make(2, 2), make(2, 3));
            let weight = pseudo_random(&[15, 48], 4);
            let out = by_document(&rule, (&q, &k, &v), &LENGTHS, block).unwrap();
            (&out * &weight).sum(Kind::Float).backward();
            let gradients = [q.grad().copy(), k.grad().copy(), v.grad().copy()];
            for tensor in [&q, &k, &v] {
                let _ = tensor.grad().zero_();
            }
            let expected = reference(&rule, &q, &k, &v);
            (&expected * weight.to_kind(Kind::Double)).sum(Kind::Double).backward();
            assert!((out - expected).abs().max().double_value(&[]) < 1e-6, "{rule:?}");
            for (found, tensor) in gradients.iter().zip([&q, &k, &v]) {
                assert!((found - tensor.grad()).abs().max().double_value(&[]) < 1e-5, "{rule:?}");
            }
        }
    }

    #[test]
    fn a_cached_token_sees_what_the_last_one_of_a_text_sees() {
        for rule in rules() {
            let (q, k, v) =
                (pseudo_random(&[15, 6, 8], 1), pseudo_random(&[15, 2, 8], 2), pseudo_random(&[15, 2, 8], 3));
            let whole = by_document(&rule, (&q, &k, &v), &LENGTHS, BLOCK).unwrap();
            // The prompts are the documents without their last tokens; the middle one is left out, it has no other.
            let rows = |rows: &[i64], x: &Tensor| x.index_select(0, &Tensor::from_slice(rows));
            let prompt: Vec<i64> = (0..4).chain(6..14).collect();
            let shape = CacheShape { layers: 1, kv_heads: 2, head_dim: 8 };
            let mut cache = KeyValueCache::new(shape, &[4, 8], 1, (Kind::Float, Device::Cpu)).unwrap();
            let mut attend = Attend::Prefill { lengths: &[4, 8], prefix: None, cache: &mut cache };
            let _ = attend.attend(&rule, &rows(&prompt, &q), &rows(&prompt, &k), &rows(&prompt, &v)).unwrap();
            cache.next_column();
            let last = [4, 14];
            let mut attend = Attend::Cached { cache: &mut cache };
            let found = attend.attend(&rule, &rows(&last, &q), &rows(&last, &k), &rows(&last, &v)).unwrap();
            let difference = (found - rows(&last, &whole)).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{rule:?}: {difference}");
        }
    }
}
