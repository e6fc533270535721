//! Answers to prompts, many at a time, with a cache of keys and values.

use std::{collections::VecDeque, ops::ControlFlow};

use finetuned_torch::{Device, Kind, Tensor, tch};

use crate::{
    adapter::Adapter,
    cache::KeyValueCache,
    causal_lm::{CausalLm, behind_virtual},
    documents::Documents,
    error::ModelError,
    log_probabilities::TokenScores,
    random::Key,
    sampling::{NO_PENALTY, Sampling, check_penalty, penalise},
    stop::StopStrings,
};

/// Memory that the caches of one batch may take, in bytes; more prompts than fit are answered batch by batch.
const CACHE_BYTES: i64 = 512 << 20;

/// Most tokens told beside each one that was chosen, as OpenAI has it.
const MOST_TOP_TOKENS: u32 = 20;

/// How to answer.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Longest answer, in tokens.
    pub max_new_tokens: u32,
    /// Any of these ends an answer.
    pub eos_ids: Vec<u32>,
    /// Any of these texts ends an answer, too.
    pub stop: Option<StopStrings>,
    /// Divides the logits of tokens that stand in the prompt or the answer already, those below zero multiplied; above
    /// zero, one changes nothing.
    pub repetition_penalty: f64,
    pub sampling: Sampling,
    /// Whether to tell how likely each token was, and beside how many of the likeliest.
    pub log_probabilities: Option<u32>,
}

impl GenerateOptions {
    /// The likeliest token each time, and nothing else.
    pub fn greedy(max_new_tokens: u32, eos_ids: Vec<u32>) -> Self {
        Self {
            max_new_tokens,
            eos_ids,
            stop: None,
            repetition_penalty: NO_PENALTY,
            sampling: Sampling::Greedy,
            log_probabilities: None,
        }
    }

    /// # Errors
    /// A setting out of range, by name.
    pub fn check(&self) -> Result<(), ModelError> {
        check_penalty(self.repetition_penalty)?;
        match self.log_probabilities {
            Some(top) if top > MOST_TOP_TOKENS => {
                let reason = format!("must be at most {MOST_TOP_TOKENS}; it is {top}");
                Err(ModelError::Setting { field: "top_logprobs", reason })
            }
            _ => self.sampling.check(),
        }
    }

    /// Whether a token is the highest logit and nothing more is asked, so that logits need not leave the device.
    fn is_plain(&self) -> bool {
        self.sampling == Sampling::Greedy && self.repetition_penalty == NO_PENALTY && self.log_probabilities.is_none()
    }
}

/// What to answer, and how.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    pub ids: &'a [u32],
    pub options: &'a GenerateOptions,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Its tokens, without the one that ended it; a stop string is among them, see [`StopStrings::cut`].
    pub ids: Vec<u32>,
    /// Whether it ended by itself, by an end id or a stop string, rather than at the length limit.
    pub ended: bool,
    /// How likely each of `ids` was, where that was asked for.
    pub scores: Vec<TokenScores>,
}

/// How far [`generate`] is, told after each token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateProgress {
    /// Prompts whose answer is complete.
    pub answered: usize,
    pub prompts: usize,
}

/// Answers each prompt, in their order, all by the same options.
///
/// # Errors
/// As [`generate_each`].
pub fn generate(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    each_token: &mut dyn FnMut(GenerateProgress) -> ControlFlow<()>,
) -> Result<Vec<Answer>, ModelError> {
    let prompts: Vec<Prompt> = prompts.iter().map(|ids| Prompt { ids, options }).collect();
    generate_each(model, adapter, &prompts, each_token)
}

/// Answers each prompt, in their order, each by its own options.
///
/// # Errors
/// An empty prompt, a token outside the vocabulary, settings out of range, too little memory, or
/// [`ModelError::Stopped`] when `each_token` asks to stop.
pub fn generate_each(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    prompts: &[Prompt],
    each_token: &mut dyn FnMut(GenerateProgress) -> ControlFlow<()>,
) -> Result<Vec<Answer>, ModelError> {
    for prompt in prompts {
        prompt.options.check()?;
    }
    let _detached = tch::no_grad_guard();
    let mut answers = vec![Answer::default(); prompts.len()];
    let asked: Vec<usize> = (0..prompts.len()).filter(|&row| prompts[row].options.max_new_tokens > 0).collect();
    let mut answered = prompts.len() - asked.len();
    let mut waiting = batches(model, prompts, asked);
    while let Some(rows) = waiting.pop_front() {
        let mut batch = Batch::prefill((model, adapter), (prompts, &answers), rows)?;
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
fn batches(model: &CausalLm, prompts: &[Prompt], mut order: Vec<usize>) -> VecDeque<Vec<usize>> {
    let shape = model.cache_shape();
    let token_bytes =
        2 * shape.layers as i64 * shape.kv_heads * shape.head_dim * model.kind().elt_size_in_bytes() as i64;
    let tokens = |row: usize| prompts[row].ids.len() as i64 + i64::from(prompts[row].options.max_new_tokens);
    order.sort_by_key(|&row| std::cmp::Reverse((prompts[row].ids.len(), tokens(row))));
    let mut batches = VecDeque::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let mut longest = 0;
        let mut fits = |(place, &row): (usize, &usize)| {
            longest = longest.max(tokens(row));
            place == 0 || (place as i64 + 1) * longest * token_bytes <= CACHE_BYTES
        };
        let size = rest.iter().enumerate().take_while(|&place| fits(place)).count();
        let (batch, others) = rest.split_at(size);
        batches.push_back(batch.to_vec());
        rest = others;
    }
    batches
}

/// Answers under way.
struct Batch<'a> {
    model: &'a CausalLm,
    adapter: Option<&'a Adapter>,
    prompts: &'a [Prompt<'a>],
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
    /// Where its draws come from.
    key: Key,
}

impl<'a> Batch<'a> {
    fn prefill(
        (model, adapter): (&'a CausalLm, Option<&'a Adapter>),
        (prompts, answers): (&'a [Prompt<'a>], &[Answer]),
        rows: Vec<usize>,
    ) -> Result<Self, ModelError> {
        let texts: Vec<Vec<u32>> = rows.iter().map(|&row| [prompts[row].ids, &answers[row].ids].concat()).collect();
        let documents = Documents::pack(&texts, model.device())?;
        let documents = behind_virtual(&documents, adapter)?.unwrap_or(documents);
        let to_come = |&row: &usize| i64::from(prompts[row].options.max_new_tokens) - answers[row].ids.len() as i64;
        let new_tokens = rows.iter().map(to_come).max().unwrap_or(1) - 1; // the last one is never read
        let kind_and_device = (model.kind(), model.device());
        let mut cache = KeyValueCache::new(model.cache_shape(), documents.lengths(), new_tokens, kind_and_device)?;
        let hidden = model.prefill(&documents, adapter, &mut cache)?;
        let rows = rows.into_iter().zip(documents.lengths());
        let rows = rows
            .map(|(prompt, &position)| Row {
                prompt,
                position,
                token: 0,
                key: prompts[prompt].options.sampling.key(prompts[prompt].ids),
            })
            .collect();
        Ok(Self { model, adapter, prompts, cache, rows, outgrown: Vec::new(), hidden })
    }

    /// Chooses each row's next token; rows that are complete leave. Gives how many did.
    fn choose(&mut self, answers: &mut [Answer]) -> Result<usize, ModelError> {
        let logits = self.model.logits(&self.hidden, self.adapter)?;
        let chosen = self.chosen(&logits, answers)?;
        let outgrown_before = self.outgrown.len();
        let mut staying = Vec::with_capacity(self.rows.len());
        for (index, (row, token)) in self.rows.iter_mut().zip(chosen).enumerate() {
            let (answer, options) = (&mut answers[row.prompt], self.prompts[row.prompt].options);
            if options.eos_ids.contains(&token) {
                answer.ended = true;
                answer.scores.truncate(answer.ids.len());
                continue;
            }
            answer.ids.push(token);
            if let Some(stop) = &options.stop {
                answer.ended = stop.cut(&answer.ids)?.1;
            }
            // A model with a table of positions cannot read beyond it.
            let readable = self.model.longest_text().is_none_or(|limit| row.position < limit);
            if answer.ended || answer.ids.len() >= options.max_new_tokens as usize || !readable {
                continue;
            }
            if self.model.outgrows_cache(row.position) {
                self.outgrown.push(row.prompt);
                continue;
            }
            row.token = i64::from(token);
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

    /// Each row's next token by `logits`, `[rows, vocab]`; notes how likely it was where that is asked for.
    fn chosen(&self, logits: &Tensor, answers: &mut [Answer]) -> Result<Vec<u32>, ModelError> {
        if self.rows.iter().all(|row| self.prompts[row.prompt].options.is_plain()) {
            let chosen = Vec::<i64>::try_from(&logits.f_argmax(-1, false)?)?;
            return Ok(chosen.into_iter().map(|id| id as u32).collect());
        }
        let vocabulary = logits.size2()?.1 as usize;
        let flat = logits.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        let mut flat = Vec::<f32>::try_from(&flat)?;
        let rows = self.rows.iter().zip(flat.chunks_exact_mut(vocabulary));
        Ok(rows
            .map(|(row, logits)| choose_one(&self.prompts[row.prompt], row, logits, &mut answers[row.prompt]))
            .collect())
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

/// The next token of one row by its `logits`, `[vocab]`, which are changed.
fn choose_one(prompt: &Prompt, row: &Row, logits: &mut [f32], answer: &mut Answer) -> u32 {
    let options = prompt.options;
    let own = options.log_probabilities.map(|top| (top, logits.to_vec()));
    if options.repetition_penalty != NO_PENALTY {
        penalise(logits, prompt.ids.iter().chain(&answer.ids).copied(), options.repetition_penalty);
    }
    let token = options.sampling.choose(logits, row.key.uniform(answer.ids.len() as u64));
    if let Some((top, own)) = own {
        answer.scores.push(TokenScores::of(&own, token, top));
    }
    token
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
    let options = GenerateOptions::greedy(tokens, vec![]);
    let prompts: Vec<Prompt> = prompts.iter().map(|ids| Prompt { ids, options: &options }).collect();
    let mut answers = vec![Answer::default(); prompts.len()];
    let mut batch = Batch::prefill((model, adapter), (&prompts, &answers), (0..prompts.len()).collect())?;
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
