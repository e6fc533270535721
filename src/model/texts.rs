//! Texts that are answered side by side: they come and go while others go on, each with an adapter of its own or none.

use std::rc::Rc;

use finetuned_torch::{Kind, Tensor, tch};

use crate::{
    adapter::Adapter,
    cache::KeyValueCache,
    causal_lm::{CausalLm, RowAdapters, behind_virtual},
    documents::Documents,
    error::ModelError,
    mixed::{AdapterStack, MixedRows},
    prefixes::Prefixes,
    slots::{SlotCache, SlotPass},
};

/// Memory that the keys and values of all texts may take, in bytes.
const SLOT_BYTES: i64 = 1 << 30;
/// Fewer tokens than this are read again rather than looked up.
const FEWEST_REUSED: usize = 16;

/// A text to be read.
#[derive(Debug, Clone)]
pub struct NewText {
    pub ids: Vec<u32>,
    pub adapter: Option<Rc<Adapter>>,
    /// Tokens that it may grow to.
    pub most_tokens: usize,
}

/// What one step of all texts gave.
#[derive(Debug)]
pub struct Step {
    /// `[texts, vocab]`, f32: scores of each text's next token, those that went on first, then the new ones.
    pub logits: Tensor,
    /// Of each new text, how many tokens were read before and not again.
    pub reused: Vec<usize>,
}

/// Texts under way, in the order in which they came but for [`Texts::remove`].
pub struct Texts<'a> {
    model: &'a CausalLm,
    cache: SlotCache,
    rows: Vec<Row>,
    stack: Option<AdapterStack>,
    prefixes: Prefixes,
}

struct Row {
    adapter: Option<Rc<Adapter>>,
    /// Tokens that the slot holds, but for virtual ones.
    ids: Vec<u32>,
    most_tokens: i64,
}

impl Row {
    fn of(text: NewText) -> Self {
        let most_tokens = text.most_tokens as i64 + virtual_tokens(text.adapter.as_ref());
        Self { adapter: text.adapter, ids: text.ids, most_tokens }
    }
}

fn virtual_tokens(adapter: Option<&Rc<Adapter>>) -> i64 {
    adapter.map_or(0, |adapter| adapter.virtual_tokens())
}

pub(crate) fn is_same(one: Option<&Rc<Adapter>>, other: Option<&Rc<Adapter>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Rc::ptr_eq(one, other),
        _ => false,
    }
}

impl<'a> Texts<'a> {
    /// None yet; what is read is kept for later texts that begin alike, up to `prefix_bytes`.
    pub fn new(model: &'a CausalLm, prefix_bytes: i64) -> Self {
        let cache = SlotCache::new(model.cache_shape(), (model.kind(), model.device()));
        let prefixes = Prefixes::new(if model.keeps_prefixes() { prefix_bytes } else { 0 });
        Self { model, cache, rows: Vec::new(), stack: None, prefixes }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether one more text fits into the memory for them beside `others` that are new; the first one always does.
    pub fn has_room_for(&self, text: &NewText, others: &[NewText]) -> bool {
        let columns = |text: &NewText| text.most_tokens as i64 + virtual_tokens(text.adapter.as_ref());
        let new = others.iter().map(columns).chain([columns(text)]);
        let most = self.rows.iter().map(|row| row.most_tokens).chain(new).max().unwrap_or(0);
        let texts = (self.rows.len() + others.len()) as i64;
        texts == 0 || (texts + 1) * most * self.cache.token_bytes() <= SLOT_BYTES
    }

    /// Tokens of a text that need not be read, because a text that began alike is still known.
    pub fn known_tokens(&self, text: &NewText) -> usize {
        self.find(text).map_or(0, |(tokens, _)| tokens)
    }

    /// Whether a text has to be read anew as a whole once it grows by one token; see [`Self::remove`].
    pub fn outgrows(&self, row: usize) -> bool {
        self.model.outgrows_cache(self.cache.lengths()[row])
    }

    /// Reads the next token of each text, and new texts.
    ///
    /// # Errors
    /// A token outside the vocabulary, an empty text, or too little memory; then nothing that was read is of use, and
    /// [`Self::clear`] must follow.
    pub fn step(&mut self, next: &[u32], new: Vec<NewText>) -> Result<Step, ModelError> {
        let _detached = tch::no_grad_guard();
        let going_on = self.rows.len();
        if next.len() != going_on {
            return Err(ModelError::Batch(format!("{} tokens for {going_on} texts", next.len())));
        }
        self.check(next, &new)?;
        let mut reused = Vec::with_capacity(new.len());
        for text in new {
            reused.push(self.open(text, going_on)?);
        }
        for (row, &id) in self.rows.iter_mut().zip(next) {
            row.ids.push(id);
        }
        let uniform = self.rows.windows(2).all(|pair| is_same(pair[0].adapter.as_ref(), pair[1].adapter.as_ref()));
        if !uniform {
            self.renew_stack()?;
        }
        let hidden = self.read(going_on, &reused, uniform)?;
        let logits = match (uniform, &self.stack) {
            (false, Some(stack)) => {
                let places: Vec<i64> = self.rows.iter().map(|row| place(stack, row)).collect();
                let kind_and_device = (self.model.kind(), self.model.device());
                MixedRows::new(stack, &places, kind_and_device)?.logits(self.model, &hidden)?
            }
            _ => self.model.logits(&hidden, self.rows.first().and_then(|row| row.adapter.as_deref()))?,
        };
        Ok(Step { logits: logits.f_to_kind(Kind::Float)?, reused })
    }

    fn check(&self, next: &[u32], new: &[NewText]) -> Result<(), ModelError> {
        let vocabulary = self.model.facts().vocab_size;
        let all = next.iter().chain(new.iter().flat_map(|text| &text.ids));
        if let Some(id) = all.into_iter().find(|&&id| id >= vocabulary) {
            return Err(ModelError::Batch(format!("token {id} is outside the model's vocabulary of {vocabulary}")));
        }
        match new.iter().any(|text| text.ids.is_empty()) {
            true => Err(ModelError::Batch("a text has no tokens".to_owned())),
            false => Ok(()),
        }
    }

    /// Gives a text a slot with as much of it as is known; gives how many tokens those are.
    fn open(&mut self, text: NewText, going_on: usize) -> Result<usize, ModelError> {
        if self.rows.is_empty() {
            // What an earlier, longer text needed is let go of.
            self.cache = SlotCache::new(self.model.cache_shape(), (self.model.kind(), self.model.device()));
        }
        let found = self.find_among(&text, going_on);
        let row = Row::of(text);
        let slot = self.cache.open(row.most_tokens)?;
        self.rows.push(row);
        match found {
            None => Ok(0),
            Some((tokens, Known::Slot(from))) => {
                self.cache.copy_within(from, slot, tokens as i64)?;
                Ok(tokens)
            }
            Some((tokens, Known::Prefix(index))) => {
                self.cache.copy_in(slot, self.prefixes.held(index), tokens as i64)?;
                Ok(tokens)
            }
        }
    }

    fn find(&self, text: &NewText) -> Option<(usize, Known)> {
        self.find_among(text, self.rows.len())
    }

    /// The longest known beginning of a text, in one of the first `rows` slots or in what was kept. At least one token
    /// stays to be read, since somebody wants to know what follows.
    fn find_among(&self, text: &NewText, rows: usize) -> Option<(usize, Known)> {
        if !self.model.keeps_prefixes() || virtual_tokens(text.adapter.as_ref()) > 0 {
            return None;
        }
        let alike = |ids: &[u32]| common(ids, &text.ids).min(text.ids.len() - 1);
        let same = |row: &&Row| is_same(row.adapter.as_ref(), text.adapter.as_ref());
        let slots = self.rows[..rows].iter().enumerate().filter(|(_, row)| same(row));
        let slots = slots.map(|(slot, row)| (alike(&row.ids), Known::Slot(slot)));
        let kept = self.prefixes.of(text.adapter.as_ref()).map(|(index, ids)| (alike(ids), Known::Prefix(index)));
        let best = slots.chain(kept).max_by_key(|(tokens, _)| *tokens);
        best.filter(|(tokens, _)| *tokens >= FEWEST_REUSED)
    }

    /// Reads what is new of every text; gives the hidden states of each one's last token, `[texts, hidden]`.
    fn read(&mut self, going_on: usize, reused: &[usize], uniform: bool) -> Result<Tensor, ModelError> {
        let mut plan = Plan::default();
        for slot in 0..going_on {
            let row = &self.rows[slot];
            plan.add(slot, &row.ids[row.ids.len() - 1..], self.cache.lengths()[slot]);
        }
        let mut apart = Vec::new();
        let mut read = Vec::new();
        for (index, &reused) in reused.iter().enumerate() {
            let slot = going_on + index;
            let row = &self.rows[slot];
            if virtual_tokens(row.adapter.as_ref()) > 0 {
                apart.push(slot);
                continue;
            }
            plan.add(slot, &row.ids[reused..], reused as i64);
            read.push((slot, (row.ids.len() - reused) as i64));
        }
        let mut hidden: Vec<Option<Tensor>> = (0..self.rows.len()).map(|_| None).collect();
        for slot in apart {
            hidden[slot] = Some(self.read_apart(slot)?);
        }
        if !plan.slots.is_empty() {
            let all = self.pass(&plan, (going_on, &read), uniform)?;
            for (index, &slot) in plan.slots.iter().enumerate() {
                hidden[slot] = Some(all.f_narrow(0, index as i64, 1)?);
            }
        }
        Ok(Tensor::f_cat(&hidden.into_iter().flatten().collect::<Vec<_>>(), 0)?)
    }

    fn pass(
        &mut self,
        plan: &Plan,
        (going_on, read): (usize, &[(usize, i64)]),
        uniform: bool,
    ) -> Result<Tensor, ModelError> {
        let device = self.model.device();
        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let (ids, positions, last) = (on_device(&plan.ids)?, on_device(&plan.positions)?, on_device(&plan.last)?);
        let lengths = on_device(&plan.lengths)?;
        let mixed = match (uniform, &self.stack) {
            (false, Some(stack)) => {
                let places: Vec<i64> = plan.owners.iter().map(|&slot| place(stack, &self.rows[slot])).collect();
                Some(MixedRows::new(stack, &places, (self.model.kind(), device))?)
            }
            _ => None,
        };
        let adapter = match &mixed {
            Some(mixed) => RowAdapters::Mixed(mixed),
            None => RowAdapters::One(self.rows.first().and_then(|row| row.adapter.as_deref())),
        };
        let pass = SlotPass::new(&mut self.cache, going_on, read)?;
        self.model.advance([&ids, &positions, &lengths, &last], adapter, pass)
    }

    /// Reads a new text behind the virtual tokens of its adapter.
    fn read_apart(&mut self, slot: usize) -> Result<Tensor, ModelError> {
        let row = &self.rows[slot];
        let adapter = row.adapter.as_deref();
        let documents = Documents::pack(&[row.ids.as_slice()], self.model.device())?;
        let documents = behind_virtual(&documents, adapter)?.unwrap_or(documents);
        let kind_and_device = (self.model.kind(), self.model.device());
        let mut cache = KeyValueCache::new(self.model.cache_shape(), documents.lengths(), 0, kind_and_device)?;
        let hidden = self.model.prefill(&documents, adapter, &mut cache)?;
        self.cache.take_over(slot, &cache)?;
        Ok(hidden)
    }

    /// Stacks the adapters in use, where the stack lacks one or has mostly others.
    fn renew_stack(&mut self) -> Result<(), ModelError> {
        let mut used: Vec<Rc<Adapter>> = Vec::new();
        for adapter in self.rows.iter().filter_map(|row| row.adapter.as_ref()) {
            if !used.iter().any(|other| Rc::ptr_eq(other, adapter)) {
                used.push(Rc::clone(adapter));
            }
        }
        let fits = |stack: &AdapterStack| {
            stack.len() <= 2 * used.len() && used.iter().all(|adapter| stack.place(adapter).is_some())
        };
        if !self.stack.as_ref().is_some_and(fits) {
            self.stack = Some(AdapterStack::new(self.model, used)?);
        }
        Ok(())
    }

    /// Lets go of a text; the last one takes its place. What was read of it is kept for texts that begin alike.
    ///
    /// # Errors
    /// Too little memory.
    pub fn remove(&mut self, row: usize) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        let Row { adapter, ids, .. } = &self.rows[row];
        let bytes = ids.len() as i64 * self.cache.token_bytes();
        let is_plain = virtual_tokens(adapter.as_ref()) == 0;
        if is_plain && ids.len() >= FEWEST_REUSED && self.prefixes.wants(adapter.as_ref(), ids, bytes) {
            let held = self.cache.copy_out(row, ids.len() as i64)?;
            self.prefixes.keep(adapter.clone(), ids.clone(), held, bytes);
        }
        self.cache.swap_remove(row)?;
        self.rows.swap_remove(row);
        Ok(())
    }

    /// Lets go of everything that an adapter has to do with; no text under way may use it.
    pub fn forget(&mut self, adapter: &Rc<Adapter>) {
        self.prefixes.forget(adapter);
        if self.stack.as_ref().is_some_and(|stack| stack.place(adapter).is_some()) {
            self.stack = None;
        }
    }

    /// Lets go of all texts.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.cache = SlotCache::new(self.model.cache_shape(), (self.model.kind(), self.model.device()));
    }
}

/// Where a beginning is known from.
enum Known {
    Slot(usize),
    Prefix(usize),
}

/// Tokens that two texts begin with alike.
fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Place of a row's adapter in the stack; below zero for none.
fn place(stack: &AdapterStack, row: &Row) -> i64 {
    row.adapter.as_ref().and_then(|adapter| stack.place(adapter)).map_or(-1, |place| place as i64)
}

/// The tokens of one pass.
#[derive(Default)]
struct Plan {
    ids: Vec<i64>,
    positions: Vec<i64>,
    /// Tokens of each token's text after the pass.
    lengths: Vec<i64>,
    /// Slot of each token.
    owners: Vec<usize>,
    /// The row of each slot's last token.
    last: Vec<i64>,
    slots: Vec<usize>,
}

impl Plan {
    /// `ids` of a slot that holds `past` tokens.
    fn add(&mut self, slot: usize, ids: &[u32], past: i64) {
        let count = ids.len() as i64;
        self.ids.extend(ids.iter().map(|&id| i64::from(id)));
        self.positions.extend(past..past + count);
        self.lengths.extend(std::iter::repeat_n(past + count, ids.len()));
        self.owners.extend(std::iter::repeat_n(slot, ids.len()));
        self.last.push(self.ids.len() as i64 - 1);
        self.slots.push(slot);
    }
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
