//! One answer from its first token to its last.

use finetuned_model::{Chooser, JsonText, NewText, TokenScores};
use finetuned_protocol::{
    generation::FinishReason,
    ids::TenantId,
    serving::{ServedToken, ServingEvent},
};
use finetuned_weights::{TextTokenizer, WeightsError};

use super::{adapters::Tuned, streamed::StreamedText};

/// An answer that waits, or is under way.
pub struct Answer {
    pub id: u64,
    pub tenant: TenantId,
    pub prompt: Vec<u32>,
    pub tuned: Option<Tuned>,
    pub chooser: Chooser,
    pub text: StreamedText,
    /// Longest answer in tokens.
    pub most_tokens: usize,
    /// The answer so far, where it must be a JSON object.
    pub json: Option<JsonText>,
    /// Whether its first event was told.
    pub begun: bool,
}

/// What a vocabulary's tokens are, for those who ask.
pub struct Vocabulary<'a> {
    pub tokenizer: &'a TextTokenizer,
    /// Bytes that each id adds to a text; none for special tokens.
    pub bytes: &'a [Option<Vec<u8>>],
    /// Any of these ends an answer.
    pub eos_ids: &'a [u32],
}

impl Answer {
    /// All of its text so far, to be read.
    pub fn to_read(&self) -> NewText {
        NewText {
            ids: [self.prompt.as_slice(), self.text.ids()].concat(),
            adapter: self.tuned.as_ref().map(|tuned| tuned.adapter.clone()),
            most_tokens: self.prompt.len() + self.most_tokens,
        }
    }

    /// Whether the highest logit decides and nothing is asked of it.
    pub fn is_plain(&self) -> bool {
        self.json.is_none() && self.chooser.is_plain()
    }

    /// Chooses the next token by its `logits`, `[vocab]`, which are changed.
    pub fn choose(&mut self, logits: &mut [f32], vocabulary: &Vocabulary<'_>) -> (u32, Option<TokenScores>) {
        let Some(json) = self.json else { return self.chooser.choose(logits, None) };
        let fits = |id: u32| {
            let bytes = vocabulary.bytes.get(id as usize).and_then(Option::as_ref);
            bytes.is_some_and(|bytes| !bytes.is_empty() && json.with(bytes).is_some())
        };
        self.chooser.choose(logits, Some(&fits))
    }

    /// Takes in a token that was chosen; gives what can be told of it, and why the answer ends where it does.
    ///
    /// # Errors
    /// Ids that the tokenizer refuses.
    pub fn take(
        &mut self,
        token: u32,
        scores: Option<TokenScores>,
        vocabulary: &Vocabulary<'_>,
    ) -> Result<(Option<ServingEvent>, Option<FinishReason>), WeightsError> {
        if vocabulary.eos_ids.contains(&token) && self.json.is_none() {
            return Ok((None, Some(FinishReason::Stop)));
        }
        let text = self.text.push(token)?;
        let tokens = scores.map(|scores| served(token, &scores, vocabulary)).transpose()?;
        let told = !text.is_empty() || tokens.is_some();
        let piece = told.then(|| ServingEvent::Piece { text, tokens: tokens.into_iter().collect() });
        if let Some(json) = self.json {
            let bytes = vocabulary.bytes.get(token as usize).and_then(Option::as_ref);
            self.json = bytes.and_then(|bytes| json.with(bytes));
        }
        let is_over = self.text.is_stopped() || self.json.is_some_and(|json| json.is_whole());
        let end = match is_over {
            true => Some(FinishReason::Stop),
            false => (self.text.ids().len() >= self.most_tokens).then_some(FinishReason::Length),
        };
        Ok((piece, end))
    }
}

fn served(id: u32, scores: &TokenScores, vocabulary: &Vocabulary<'_>) -> Result<ServedToken, WeightsError> {
    let one = |id: u32, logprob: f64, top: Vec<ServedToken>| -> Result<ServedToken, WeightsError> {
        let text = vocabulary.tokenizer.decode(&[id], false)?;
        let bytes = vocabulary.bytes.get(id as usize).and_then(Option::clone);
        Ok(ServedToken { bytes: bytes.unwrap_or_else(|| text.clone().into_bytes()), text, logprob, top })
    };
    let top = scores.top.iter().map(|&(id, logprob)| one(id, logprob, Vec::new())).collect::<Result<_, _>>()?;
    one(id, scores.log_probability, top)
}
