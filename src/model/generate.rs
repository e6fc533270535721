//! Answers to prompts, many at a time, with a cache of keys and values.

use std::{collections::VecDeque, ops::ControlFlow};

use finetuned_torch::{Tensor, tch};

pub use crate::sampling::Sampling;
use crate::{
    adapter::Adapter,
    cache::KeyValueCache,
    causal_lm::{CausalLm, behind_virtual},
    documents::Documents,
    error::ModelError,
};

/// Memory that the caches of one batch may take, in bytes; more prompts than fit are answered batch by batch.
const CACHE_BYTES: i64 = 512 << 20;

/// How to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Longest answer, in tokens.
    pub max_new_tokens: u32,
    /// Any of these ends an answer.
    pub eos_ids: Vec<u32>,
    pub sampling: Sampling,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// Whether it ended by itself rather than at the length limit.
    pub ended: bool,
}

/// How far [`generate`] is, told after each token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateProgress {
    /// Prompts whose answer is complete.
    pub answered: usize,
    pub prompts: usize,
}

/// Answers each prompt, in their order.
///
/// # Errors
/// An empty prompt, a token outside the vocabulary, settings out of range, too little memory, or
/// [`ModelError::Stopped`] when `each_token` asks to stop.
pub fn generate(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    each_token: &mut dyn FnMut(GenerateProgress) -> ControlFlow<()>,
) -> Result<Vec<Answer>, ModelError> {
    options.sampling.check()?;
    let _detached = tch::no_grad_guard();
    let mut answers = vec![Answer { ids: Vec::new(), ended: false }; prompts.len()];
    if options.max_new_tokens == 0 {
        return Ok(answers);
    }
    let mut answered = 0;
    let mut waiting = batches(model, prompts, options.max_new_tokens);
    while let Some(rows) = waiting.pop_front() {
        let mut batch = Batch::prefill((model, adapter), (prompts, &answers), rows, options)?;
        loop {
            answered += batch.choose(&mut answers)?;
            if each_token(GenerateProgress { answered, prompts: prompts.len() }).is_break() {
                return Err(ModelError::Stopped);
            }
            if batch.rows.is_empty() {
                break;
            }
            batch.decode()?;
        }
        if !batch.outgrown.is_empty() {
            waiting.push_front(batch.outgrown);
        }
    }
    Ok(answers)
}

/// Prompts of like length together, the longest first, as many as their caches allow.
fn batches(model: &CausalLm, prompts: &[Vec<u32>], new_tokens: u32) -> VecDeque<Vec<usize>> {
    let shape = model.cache_shape();
    let token_bytes =
        2 * shape.layers as i64 * shape.kv_heads * shape.head_dim * model.kind().elt_size_in_bytes() as i64;
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(prompts[row].len()));
    let mut batches = VecDeque::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let row_bytes = token_bytes * (prompts[longest].len() as i64 + i64::from(new_tokens));
        let size = (CACHE_BYTES / row_bytes.max(1)).max(1) as usize;
        let (batch, others) = rest.split_at(size.min(rest.len()));
        batches.push_back(batch.to_vec());
        rest = others;
    }
    batches
}

/// Answers under way.
struct Batch<'a> {
    model: &'a CausalLm,
    adapter: Option<&'a Adapter>,
    options: &'a GenerateOptions,
    cache: KeyValueCache,
    rows: Vec<Row>,
    /// Prompts whose texts grew beyond what their cache holds for; they are read anew, with what was answered so far.
    outgrown: Vec<usize>,
    /// Hidden states of the newest tokens, `[rows, hidden]`.
    hidden: Tensor,
}

#[derive(Clone, Copy)]
struct Row {
    /// Index of its prompt.
    prompt: usize,
    /// Position of the token to come.
    position: i64,
    /// The newest token.
    token: i64,
}

impl<'a> Batch<'a> {
    fn prefill(
        (model, adapter): (&'a CausalLm, Option<&'a Adapter>),
        (prompts, answers): (&[Vec<u32>], &[Answer]),
        rows: Vec<usize>,
        options: &'a GenerateOptions,
    ) -> Result<Self, ModelError> {
        let texts: Vec<Vec<u32>> =
            rows.iter().map(|&row| [prompts[row].as_slice(), &answers[row].ids].concat()).collect();
        let documents = Documents::pack(&texts, model.device())?;
        let documents = behind_virtual(&documents, adapter)?.unwrap_or(documents);
        let answered = rows.iter().map(|&row| answers[row].ids.len() as i64).min().unwrap_or(0);
        let new_tokens = i64::from(options.max_new_tokens) - answered - 1; // the last one is never read
        let kind_and_device = (model.kind(), model.device());
        let mut cache = KeyValueCache::new(model.cache_shape(), documents.lengths(), new_tokens, kind_and_device)?;
        let hidden = model.prefill(&documents, adapter, &mut cache)?;
        let rows = rows.into_iter().zip(documents.lengths());
        let rows = rows.map(|(prompt, &position)| Row { prompt, position, token: 0 }).collect();
        Ok(Self { model, adapter, options, cache, rows, outgrown: Vec::new(), hidden })
    }

    /// Chooses each row's next token; rows that are complete leave. Gives how many did.
    fn choose(&mut self, answers: &mut [Answer]) -> Result<usize, ModelError> {
        let logits = self.model.logits(&self.hidden, self.adapter)?;
        let places: Vec<(u64, u64)> = self.rows.iter().map(|row| (row.prompt as u64, row.position as u64)).collect();
        let chosen = self.options.sampling.choose(&logits, &places)?;
        let outgrown_before = self.outgrown.len();
        let mut staying = Vec::with_capacity(self.rows.len());
        for (index, (row, token)) in self.rows.iter_mut().zip(chosen).enumerate() {
            let answer = &mut answers[row.prompt];
            answer.ended = self.options.eos_ids.iter().any(|&id| i64::from(id) == token);
            if answer.ended {
                continue;
            }
            answer.ids.push(token as u32);
            // A model with a table of positions cannot read beyond it.
            let readable = self.model.longest_text().is_none_or(|limit| row.position < limit);
            if answer.ids.len() >= self.options.max_new_tokens as usize || !readable {
                continue;
            }
            if self.model.outgrows_cache(row.position) {
                self.outgrown.push(row.prompt);
                continue;
            }
            row.token = token;
            staying.push(index as i64);
        }
        let left = self.rows.len() - staying.len();
        if left > 0 {
            self.rows = staying.iter().map(|&index| self.rows[index as usize]).collect();
            if !staying.is_empty() {
                self.cache.keep(&staying)?;
            }
        }
        Ok(left - (self.outgrown.len() - outgrown_before))
    }

    /// Reads the newest token of each row.
    fn decode(&mut self) -> Result<(), ModelError> {
        let device = self.model.device();
        let ids: Vec<i64> = self.rows.iter().map(|row| row.token).collect();
        let positions: Vec<i64> = self.rows.iter().map(|row| row.position).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(device)?;
        let positions = Tensor::f_from_slice(&positions)?.f_to_device(device)?;
        self.hidden = self.model.decode((&ids, &positions), self.adapter, &mut self.cache)?;
        for row in &mut self.rows {
            row.position += 1;
        }
        Ok(())
    }
}

/// Greedy answers of `tokens` tokens with the logits that each was chosen from, `[tokens, vocab]`.
#[cfg(test)]
pub(crate) fn trace_logits(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    prompts: &[Vec<u32>],
    tokens: u32,
) -> Result<Vec<(Vec<u32>, Tensor)>, ModelError> {
    let _detached = tch::no_grad_guard();
    let options = GenerateOptions { max_new_tokens: tokens, eos_ids: vec![], sampling: Sampling::Greedy };
    let mut answers = vec![Answer { ids: Vec::new(), ended: false }; prompts.len()];
    let rows = (0..prompts.len()).collect();
    let mut batch = Batch::prefill((model, adapter), (prompts, &answers), rows, &options)?;
    let mut steps = Vec::new();
    loop {
        steps.push(model.logits(&batch.hidden, adapter)?);
        batch.choose(&mut answers)?;
        if batch.rows.is_empty() {
            break;
        }
        batch.decode()?;
    }
    let all = Tensor::f_stack(&steps, 1)?; // [prompts, tokens, vocab]
    answers.into_iter().enumerate().map(|(row, answer)| Ok((answer.ids, all.f_select(0, row as i64)?))).collect()
}
