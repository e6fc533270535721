//! Keys and values of texts that come and go: each has a slot, and all slots in use are computed together.

use std::collections::HashMap;

use finetuned_torch::{Device, Kind, Tensor};

use crate::{
    attention::{BLOCK, Rule, by_document, mask, weigh},
    cache::{CacheShape, KeyValueCache},
    error::ModelError,
};

/// Slots and columns are added by so many, so that few growths are copied.
const MORE_SLOTS: i64 = 4;
const MORE_COLUMNS: i64 = 128;

/// Keys and values of one text, of each layer `[tokens, kv_heads, head_dim]`.
pub(crate) type Held = Vec<(Tensor, Tensor)>;

/// The slots in use are the first ones, without gaps; in each the text begins at the first column.
pub(crate) struct SlotCache {
    shape: CacheShape,
    kind: Kind,
    device: Device,
    /// Keys and values of each layer, `[slots, columns, kv_heads, head_dim]`.
    layers: Held,
    slots: i64,
    columns: i64,
    /// Tokens that each slot in use holds.
    lengths: Vec<i64>,
}

impl SlotCache {
    pub fn new(shape: CacheShape, (kind, device): (Kind, Device)) -> Self {
        Self { shape, kind, device, layers: Vec::new(), slots: 0, columns: 0, lengths: Vec::new() }
    }

    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Bytes that the keys and values of one token take.
    pub fn token_bytes(&self) -> i64 {
        let CacheShape { layers, kv_heads, head_dim } = self.shape;
        2 * layers as i64 * kv_heads * head_dim * self.kind.elt_size_in_bytes() as i64
    }

    /// Takes the next slot, which is empty; no text grows beyond `columns`.
    pub fn open(&mut self, columns: i64) -> Result<usize, ModelError> {
        let slot = self.lengths.len();
        self.grow(slot as i64 + 1, columns)?;
        self.lengths.push(0);
        Ok(slot)
    }

    fn grow(&mut self, slots: i64, columns: i64) -> Result<(), ModelError> {
        if slots <= self.slots && columns <= self.columns {
            return Ok(());
        }
        let up = |wanted: i64, has: i64, step: i64| if wanted <= has { has } else { (wanted + step - 1) / step * step };
        let (new_slots, new_columns) = (up(slots, self.slots, MORE_SLOTS), up(columns, self.columns, MORE_COLUMNS));
        let size = [new_slots, new_columns, self.shape.kv_heads, self.shape.head_dim];
        let used = self.lengths.iter().copied().max().unwrap_or(0);
        let mut layers = Vec::with_capacity(self.shape.layers);
        for layer in 0..self.shape.layers {
            let fresh = |old: Option<&Tensor>| -> Result<Tensor, ModelError> {
                let tensor = Tensor::f_zeros(size, (self.kind, self.device))?;
                if let Some(old) = old {
                    let place = |x: &Tensor| x.f_narrow(0, 0, self.lengths.len() as i64)?.f_narrow(1, 0, used);
                    place(&tensor)?.f_copy_(&place(old)?)?;
                }
                Ok(tensor)
            };
            let old = self.layers.get(layer);
            layers.push((fresh(old.map(|(keys, _)| keys))?, fresh(old.map(|(_, values)| values))?));
        }
        (self.layers, self.slots, self.columns) = (layers, new_slots, new_columns);
        Ok(())
    }

    /// Lets go of a slot; the last one moves into its place.
    pub fn swap_remove(&mut self, slot: usize) -> Result<(), ModelError> {
        let last = self.lengths.len() - 1;
        if slot != last {
            let tokens = self.lengths[last];
            for (keys, values) in &self.layers {
                for tensor in [keys, values] {
                    row(tensor, slot, tokens)?.f_copy_(&row(tensor, last, tokens)?)?;
                }
            }
        }
        self.lengths.swap_remove(slot);
        Ok(())
    }

    /// Copies of the keys and values of a slot's first tokens.
    pub fn copy_out(&self, slot: usize, tokens: i64) -> Result<Held, ModelError> {
        let copy = |x: &Tensor| -> Result<Tensor, ModelError> {
            let held = row(x, slot, tokens)?;
            let mut own = held.f_empty_like()?;
            own.f_copy_(&held)?;
            Ok(own)
        };
        self.layers.iter().map(|(keys, values)| Ok((copy(keys)?, copy(values)?))).collect()
    }

    /// Puts the first tokens of `held` into an empty slot.
    pub fn copy_in(&mut self, slot: usize, held: &Held, tokens: i64) -> Result<(), ModelError> {
        for ((keys, values), (held_keys, held_values)) in self.layers.iter().zip(held) {
            row(keys, slot, tokens)?.f_copy_(&held_keys.f_narrow(0, 0, tokens)?)?;
            row(values, slot, tokens)?.f_copy_(&held_values.f_narrow(0, 0, tokens)?)?;
        }
        self.lengths[slot] = tokens;
        Ok(())
    }

    /// Puts the first tokens of one slot into an empty one.
    pub fn copy_within(&mut self, from: usize, to: usize, tokens: i64) -> Result<(), ModelError> {
        for (keys, values) in &self.layers {
            for tensor in [keys, values] {
                row(tensor, to, tokens)?.f_copy_(&row(tensor, from, tokens)?)?;
            }
        }
        self.lengths[to] = tokens;
        Ok(())
    }

    /// Puts the one text that `cache` holds into an empty slot.
    pub fn take_over(&mut self, slot: usize, cache: &KeyValueCache) -> Result<(), ModelError> {
        let held = cache.of_first()?;
        let tokens = held.first().map_or(0, |(keys, _)| keys.size().first().copied().unwrap_or(0));
        self.copy_in(slot, &held, tokens)
    }

    fn write(&mut self, layer: usize, places: &Tensor, k: &Tensor, v: &Tensor) -> Result<(), ModelError> {
        let flat = [self.slots * self.columns, self.shape.kv_heads, self.shape.head_dim];
        let (keys, values) = &self.layers[layer];
        let _ = keys.f_view(flat)?.f_index_copy_(0, places, k)?;
        let _ = values.f_view(flat)?.f_index_copy_(0, places, v)?;
        Ok(())
    }
}

/// The first tokens of a slot, `[tokens, kv_heads, head_dim]`; no copy.
fn row(tensor: &Tensor, slot: usize, tokens: i64) -> Result<Tensor, ModelError> {
    Ok(tensor.f_select(0, slot as i64)?.f_narrow(0, 0, tokens)?)
}

/// New tokens of some slots: first one token each of those that go on, which are the first slots, then the others' in turn.
pub(crate) struct SlotPass<'a> {
    cache: &'a mut SlotCache,
    /// Slots that go on by one token.
    going_on: i64,
    read: Vec<Reading>,
    /// `[tokens]`, i64: where each token's key and value go, counted over all slots' columns.
    places: Tensor,
    /// By the window of a layer: `[going on, 1, 1, columns]`.
    masks: HashMap<Option<i64>, Tensor>,
}

/// New tokens of one slot.
struct Reading {
    slot: usize,
    /// First of its tokens among those of the pass.
    row: i64,
    tokens: i64,
    /// Tokens that the slot held before.
    past: i64,
}

impl<'a> SlotPass<'a> {
    /// One token for each of the first `going_on` slots, then as many as `read` says of each slot in it.
    pub fn new(cache: &'a mut SlotCache, going_on: usize, read: &[(usize, i64)]) -> Result<Self, ModelError> {
        let mut places = Vec::new();
        let mut readings = Vec::with_capacity(read.len());
        for slot in 0..going_on {
            places.push(slot as i64 * cache.columns + cache.lengths[slot]);
            cache.lengths[slot] += 1;
        }
        for &(slot, tokens) in read {
            let past = cache.lengths[slot];
            readings.push(Reading { slot, row: places.len() as i64, tokens, past });
            let start = slot as i64 * cache.columns + past;
            places.extend(start..start + tokens);
            cache.lengths[slot] = past + tokens;
        }
        let places = Tensor::f_from_slice(&places)?.f_to_device(cache.device)?;
        Ok(Self { cache, going_on: going_on as i64, read: readings, places, masks: HashMap::new() })
    }

    /// As [`crate::attention::Attend::attend`].
    pub fn attend(&mut self, rule: &Rule, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        self.cache.write(rule.layer, &self.places, k, v)?;
        let mut mixed = Vec::with_capacity(1 + self.read.len());
        if self.going_on > 0 {
            mixed.push(self.go_on(rule, &q.f_narrow(0, 0, self.going_on)?)?);
        }
        for reading in &self.read {
            let own = |x: &Tensor| x.f_narrow(0, reading.row, reading.tokens);
            mixed.push(match reading.past {
                // Exactly as in training.
                0 => by_document(rule, (&own(q)?, &own(k)?, &own(v)?), &[reading.tokens], BLOCK)?,
                _ => self.read_on(rule, &own(q)?, reading)?,
            });
        }
        Ok(if mixed.len() == 1 { mixed.swap_remove(0) } else { Tensor::f_cat(&mixed, 0)? })
    }

    /// The newest token of each slot to all that the slot holds.
    fn go_on(&mut self, rule: &Rule, q: &Tensor) -> Result<Tensor, ModelError> {
        let (slots, heads, head_dim) = q.size3()?;
        let lengths = &self.cache.lengths[..slots as usize];
        let columns = lengths.iter().copied().max().unwrap_or(0);
        if !self.masks.contains_key(&rule.window) {
            let mask = seen(lengths, columns, rule.window, (self.cache.kind, self.cache.device))?;
            self.masks.insert(rule.window, mask);
        }
        let (keys, values) = &self.cache.layers[rule.layer];
        // [slots, kv_heads, columns, head_dim]
        let part = |x: &Tensor| x.f_narrow(0, 0, slots)?.f_narrow(1, 0, columns)?.f_transpose(1, 2);
        let kv_heads = self.cache.shape.kv_heads;
        // The query heads of a group share keys and values, so they stand where queries of a longer text would.
        let q = q.f_reshape([slots, kv_heads, heads / kv_heads, head_dim])?;
        let mixed = weigh(rule, (&q, &part(keys)?, &part(values)?), &self.masks[&rule.window])?;
        Ok(mixed.f_reshape([slots, heads * head_dim])?)
    }

    /// New tokens of one slot to what it held before and to themselves, a block of queries at a time.
    fn read_on(&self, rule: &Rule, q: &Tensor, reading: &Reading) -> Result<Tensor, ModelError> {
        let (tokens, heads, head_dim) = q.size3()?;
        let (kv_heads, past) = (self.cache.shape.kv_heads, reading.past);
        let group = heads / kv_heads;
        let (keys, values) = &self.cache.layers[rule.layer];
        let q = q.f_reshape([tokens, kv_heads, group, head_dim])?.f_permute([1, 2, 0, 3])?; // [kv_heads, group, tokens, d]
        let window = rule.window.unwrap_or(past + tokens);
        let mut parts = Vec::new();
        for start in (0..tokens).step_by(BLOCK as usize) {
            let (from, to) = (past + start, (past + start + BLOCK).min(past + tokens));
            let first = (from - window + 1).max(0);
            let part = |x: &Tensor| -> Result<Tensor, ModelError> {
                let seen = row(x, reading.slot, to)?.f_narrow(0, first, to - first)?.f_permute([1, 0, 2])?;
                Ok(seen.f_unsqueeze(1)?.f_expand([kv_heads, group, to - first, head_dim], false)?)
            };
            let mask = mask((from, to), first, window, (self.cache.kind, self.cache.device))?;
            let queries = q.f_narrow(2, start, to - from)?;
            parts.push(weigh(rule, (&queries, &part(keys)?, &part(values)?), &mask)?);
        }
        Ok(Tensor::f_cat(&parts, 2)?.f_permute([2, 0, 1, 3])?.f_reshape([tokens, heads * head_dim])?)
    }
}

/// `[slots, 1, 1, columns]`: zero where the newest token of a slot sees a column, minus infinity elsewhere.
fn seen(
    lengths: &[i64],
    columns: i64,
    window: Option<i64>,
    (kind, device): (Kind, Device),
) -> Result<Tensor, ModelError> {
    let mut mask = vec![f32::NEG_INFINITY; lengths.len() * columns as usize];
    for (&length, row) in lengths.iter().zip(mask.chunks_exact_mut(columns.max(1) as usize)) {
        let first = window.map_or(0, |window| (length - window).max(0));
        row[first as usize..length as usize].fill(0.0);
    }
    let mask = Tensor::f_from_slice(&mask)?.f_view([lengths.len() as i64, 1, 1, columns])?;
    Ok(mask.f_to_device(device)?.f_to_kind(kind)?)
}
