//! Keys and values of the tokens a batch of answers has so far.

use finetuned_torch::{Device, Kind, Tensor};

use finetuned_weights::CommonConfig;

use crate::error::ModelError;

/// Shape of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheShape {
    pub layers: usize,
    pub kv_heads: i64,
    pub head_dim: i64,
}

impl CacheShape {
    pub fn of(common: &CommonConfig) -> Self {
        let (kv_heads, head_dim) = (common.num_key_value_heads.into(), common.head_dim.into());
        Self { layers: common.num_hidden_layers as usize, kv_heads, head_dim }
    }
}

/// Rows are aligned on the right: prompts end in the same column, so that each new token of all rows goes into one
/// column. Columns before a row's prompt are masked.
pub(crate) struct KeyValueCache {
    /// Keys and values of each layer, `[batch, kv_heads, columns, head_dim]`.
    layers: Vec<(Tensor, Tensor)>,
    /// `[batch, 1, 1, columns]`: zero where a row has a token or will have one, minus infinity before its prompt.
    mask: Tensor,
    /// Token row in the packed prompts of each place, `[batch * prompt_columns]`; places before a prompt name any row.
    slots: Tensor,
    batch: i64,
    /// Columns filled, the one being computed included.
    filled: i64,
    prompt_columns: i64,
}

impl KeyValueCache {
    /// An empty cache for packed prompts of these lengths and `new_tokens` more a row.
    pub fn new(
        shape: CacheShape,
        lengths: &[i64],
        new_tokens: i64,
        (kind, device): (Kind, Device),
    ) -> Result<Self, ModelError> {
        let batch = lengths.len() as i64;
        let prompt_columns = lengths.iter().copied().max().unwrap_or(0);
        let columns = prompt_columns + new_tokens;
        let mut slots = Vec::with_capacity((batch * prompt_columns) as usize);
        let mut mask = vec![0.0_f32; (batch * columns) as usize];
        let mut start = 0;
        for (&length, row) in lengths.iter().zip(mask.chunks_exact_mut(columns.max(1) as usize)) {
            let before = prompt_columns - length;
            row[..before as usize].fill(f32::NEG_INFINITY);
            slots.extend((0..prompt_columns).map(|column| start + (column - before).max(0)));
            start += length;
        }
        let size = [batch, shape.kv_heads, columns, shape.head_dim];
        let empty = || Tensor::f_zeros(size, (kind, device));
        Ok(Self {
            layers: (0..shape.layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<_, ModelError>>()?,
            mask: Tensor::f_from_slice(&mask)?.f_view([batch, 1, 1, columns])?.f_to_device(device)?.f_to_kind(kind)?,
            slots: Tensor::f_from_slice(&slots)?.f_to_device(device)?,
            batch,
            filled: prompt_columns,
            prompt_columns,
        })
    }

    /// Keeps the keys and values of the packed prompts, `[tokens, kv_heads, head_dim]`.
    pub fn fill(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(), ModelError> {
        let (_, kv_heads, head_dim) = k.size3()?;
        let place = [self.batch, self.prompt_columns, kv_heads, head_dim];
        let (keys, values) = &mut self.layers[layer];
        for (kept, new) in [(keys, k), (values, v)] {
            let rows = new.f_index_select(0, &self.slots)?.f_view(place)?.f_transpose(1, 2)?;
            kept.f_narrow(2, 0, self.prompt_columns)?.f_copy_(&rows)?;
        }
        Ok(())
    }

    /// Keys and values of the first row's prompt, of each layer `[tokens, kv_heads, head_dim]`; for a cache of one row, whose
    /// prompt has no columns before it.
    pub fn of_first(&self) -> Result<Vec<(Tensor, Tensor)>, ModelError> {
        let part = |x: &Tensor| x.f_select(0, 0)?.f_narrow(1, 0, self.prompt_columns)?.f_transpose(0, 1);
        self.layers.iter().map(|(keys, values)| Ok((part(keys)?, part(values)?))).collect()
    }

    /// Makes room for one more token a row.
    pub fn next_column(&mut self) {
        self.filled += 1;
    }

    /// Adds the new token's keys and values, `[batch, kv_heads, head_dim]`; gives all so far.
    pub fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let (keys, values) = &mut self.layers[layer];
        for (kept, new) in [(&mut *keys, k), (&mut *values, v)] {
            kept.f_narrow(2, self.filled - 1, 1)?.f_copy_(&new.f_unsqueeze(2)?)?;
        }
        Ok((keys.f_narrow(2, 0, self.filled)?, values.f_narrow(2, 0, self.filled)?))
    }

    /// `[batch, 1, 1, filled columns]`
    pub fn mask(&self) -> Result<Tensor, ModelError> {
        Ok(self.mask.f_narrow(3, 0, self.filled)?)
    }

    /// Keeps these rows only, in this order.
    pub fn keep(&mut self, rows: &[i64]) -> Result<(), ModelError> {
        let index = Tensor::f_from_slice(rows)?.f_to_device(self.mask.device())?;
        for (keys, values) in &mut self.layers {
            *keys = keys.f_index_select(0, &index)?;
            *values = values.f_index_select(0, &index)?;
        }
        self.mask = self.mask.f_index_select(0, &index)?;
        self.batch = rows.len() as i64;
        Ok(())
    }
}
