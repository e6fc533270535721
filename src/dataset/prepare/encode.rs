//! One row to tokens and labels.

use finetuned_protocol::{
    lint::Finding,
    spec::{PreparationSpec, TemplateSpec},
};
use finetuned_weights::{ChatMessage, TextTokenizer, WeightsError};

use super::{
    Encoded, HeldOut, IGNORED_LABEL, alpaca,
    render::{RenderedChat, render_chat},
    turns::{readable, turns_of, up_to_last_answer},
};
use crate::{
    example::{Example, Row, Turn},
    rules,
};

/// What was made of a row; without `encoded`, the findings say why.
pub(super) struct Outcome {
    pub encoded: Option<HeldOut>,
    pub findings: Vec<Finding>,
}

/// Text of one mask.
struct Segment<'t> {
    text: &'t str,
    has_loss: bool,
}

/// An answer that the model can be asked for.
struct Question {
    prompt: String,
    prompt_text: String,
    reference: String,
}

/// Turns rows into tokens by one template and tokenizer.
pub(super) struct Encoder<'s> {
    spec: &'s PreparationSpec,
    tokenizer: &'s TextTokenizer,
    max_tokens: usize,
}

impl<'s> Encoder<'s> {
    pub fn new(spec: &'s PreparationSpec, tokenizer: &'s TextTokenizer) -> Self {
        Self { spec, tokenizer, max_tokens: usize::try_from(spec.max_seq_len).unwrap_or(usize::MAX) }
    }

    /// Encodes a row; a held-out one gets its prompt too (others have empty texts there).
    pub fn row(&self, row: &Row, held_out: bool) -> Result<Outcome, WeightsError> {
        let mut findings = Vec::new();
        let encoded = match (&row.example, &self.spec.template) {
            (Example::Tokens { input_ids, labels }, _) => {
                self.tokens(row.line, input_ids, labels, held_out, &mut findings)?
            }
            (_, TemplateSpec::Alpaca) => self.alpaca(row, held_out, &mut findings)?,
            _ => self.chat(row, held_out, &mut findings)?,
        };
        if encoded.is_some() {
            self.check_special_tokens(row, &mut findings)?;
        }
        Ok(Outcome { encoded, findings })
    }

    fn chat(&self, row: &Row, held_out: bool, findings: &mut Vec<Finding>) -> Result<Option<HeldOut>, WeightsError> {
        let Some(turns) = turns_of(&row.example) else { return Ok(None) };
        let turns = if self.spec.train_on_prompt { &turns } else { up_to_last_answer(&turns) };
        let chat = match render_chat(turns, &|messages, prompt| self.render(messages, prompt)) {
            Ok(chat) => chat,
            Err(WeightsError::Template { reason, .. }) => {
                let reason = format!("the template refuses the row: {reason}");
                findings.push(rules::TEMPLATE_FAILED.at(row.line, "", reason));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.report_template(row.line, turns, &chat, findings);
        if chat.answers.is_empty() {
            return Ok(None);
        }
        let segments = self.segments(&chat);
        let Some(encoded) = self.encode(row.line, &segments, findings)? else { return Ok(None) };
        if !held_out {
            return Ok(Some(without_question(encoded)));
        }
        let questions = chat.answers.iter().rev().map(|answer| Question {
            prompt: chat.text[..answer.start].to_owned(),
            prompt_text: readable(&turns[..answer.turn]),
            reference: turns[answer.turn].content.clone(),
        });
        self.with_question(encoded, questions)
    }

    fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, WeightsError> {
        match &self.spec.template {
            TemplateSpec::Jinja { source } => self.tokenizer.render_jinja(source, messages, add_generation_prompt),
            TemplateSpec::Chat | TemplateSpec::Alpaca => self.tokenizer.render_chat(messages, add_generation_prompt),
        }
    }

    fn report_template(&self, line: u64, turns: &[Turn], chat: &RenderedChat, findings: &mut Vec<Finding>) {
        if let Some(first) = chat.unstable.first() {
            let of = turns.iter().filter(|turn| turn.is_supervised()).count();
            let reason = format!(
                "the template renders {} of {of} answers differently when other messages follow or when it asks for \
                 them; they carry no loss",
                chat.unstable.len()
            );
            findings.push(rules::TEMPLATE_UNSTABLE.at(line, format!("/messages/{first}"), reason));
        }
        if chat.lacks_end_marker {
            let reason = "the template writes no marker after an answer, so the model will not learn to stop";
            findings.push(rules::NO_END_MARKER.at(line, "", reason));
        }
    }

    fn segments<'t>(&self, chat: &'t RenderedChat) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut done = 0;
        for answer in &chat.answers {
            segments.push(Segment { text: &chat.text[done..answer.start], has_loss: false });
            segments.push(Segment { text: &chat.text[answer.start..answer.end], has_loss: true });
            done = answer.end;
        }
        if self.spec.train_on_prompt {
            segments.push(Segment { text: chat.text[done..].trim_end(), has_loss: false });
        }
        segments
    }

    fn alpaca(&self, row: &Row, held_out: bool, findings: &mut Vec<Finding>) -> Result<Option<HeldOut>, WeightsError> {
        let parts = match alpaca::parts(&row.example, row.line) {
            Ok(parts) => parts,
            Err(finding) => {
                findings.push(finding);
                return Ok(None);
            }
        };
        let prompt = alpaca::prompt(parts.instruction, parts.input);
        let mut segments =
            vec![Segment { text: &prompt, has_loss: false }, Segment { text: parts.output, has_loss: true }];
        match self.tokenizer.eos() {
            Some(eos) => segments.push(Segment { text: eos, has_loss: true }),
            None => {
                let reason = "the model names no token that ends a text, so it will not learn to stop";
                findings.push(rules::NO_END_MARKER.at(row.line, "", reason));
            }
        }
        let Some(encoded) = self.encode(row.line, &segments, findings)? else { return Ok(None) };
        if !held_out {
            return Ok(Some(without_question(encoded)));
        }
        let separator = if parts.input.is_empty() { "" } else { "\n" };
        let question = Question {
            prompt_text: format!("{}{separator}{}", parts.instruction, parts.input),
            reference: parts.output.to_owned(),
            prompt,
        };
        self.with_question(encoded, std::iter::once(question))
    }

    fn tokens(
        &self,
        line: u64,
        ids: &[u32],
        labels: &[i64],
        held_out: bool,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<HeldOut>, WeightsError> {
        let size = self.tokenizer.vocab_size();
        if let Some(index) = ids.iter().position(|id| *id as usize >= size) {
            let reason =
                format!("token {} is not of this model, whose ids go up to {}", ids[index], size.saturating_sub(1));
            findings.push(rules::TOKEN_OUT_OF_RANGE.at(line, format!("/input_ids/{index}"), reason));
            return Ok(None);
        }
        let Some(encoded) = self.cut(line, ids.to_vec(), labels.to_vec(), findings) else { return Ok(None) };
        if !held_out {
            return Ok(Some(without_question(encoded)));
        }
        let first = encoded.labels.iter().position(|label| *label != IGNORED_LABEL).unwrap_or(0);
        let prompt_text = self.tokenizer.decode(&encoded.ids[..first], true)?;
        let reference = self.tokenizer.decode(&encoded.ids[first..], true)?;
        Ok(Some(HeldOut { encoded, prompt_ids: Vec::new(), prompt_text, reference }))
    }

    fn encode(
        &self,
        line: u64,
        segments: &[Segment<'_>],
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Encoded>, WeightsError> {
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for segment in segments {
            let tokens = self.tokenizer.encode(segment.text)?;
            let has_loss = segment.has_loss || self.spec.train_on_prompt;
            labels.extend(tokens.iter().map(|id| if has_loss { i64::from(*id) } else { IGNORED_LABEL }));
            ids.extend(tokens);
        }
        Ok(self.cut(line, ids, labels, findings))
    }

    /// Leaves out what follows the last token with loss, then what is beyond `max_seq_len`.
    fn cut(&self, line: u64, mut ids: Vec<u32>, mut labels: Vec<i64>, findings: &mut Vec<Finding>) -> Option<Encoded> {
        if let Some(first) = labels.first_mut() {
            *first = IGNORED_LABEL;
        }
        let whole = labels.iter().rposition(|label| *label != IGNORED_LABEL).map_or(0, |last| last + 1);
        let kept = whole.min(self.max_tokens);
        let Some(first) = labels[..kept].iter().position(|label| *label != IGNORED_LABEL) else {
            let before = labels.iter().position(|label| *label != IGNORED_LABEL).unwrap_or(labels.len());
            let most = self.max_tokens;
            let reason = format!(
                "no token that carries loss is left: {before} tokens come before the first, and `max_seq_len` is \
                 {most}; the row is dropped"
            );
            findings.push(rules::NO_SUPERVISED_TOKEN.at(line, "", reason));
            return None;
        };
        debug_assert!(first > 0, "nothing predicts the first token");
        ids.truncate(kept);
        labels.truncate(kept);
        Some(Encoded { line, ids, labels, truncated: whole > kept })
    }

    /// The first question whose prompt leaves room for an answer. There is one where a token of an answer was kept.
    fn with_question(
        &self,
        encoded: Encoded,
        questions: impl Iterator<Item = Question>,
    ) -> Result<Option<HeldOut>, WeightsError> {
        for question in questions {
            let prompt_ids = self.tokenizer.encode(&question.prompt)?;
            if prompt_ids.len() < self.max_tokens {
                let Question { prompt_text, reference, .. } = question;
                return Ok(Some(HeldOut { encoded, prompt_ids, prompt_text, reference }));
            }
        }
        Ok(Some(without_question(encoded)))
    }

    /// Text that reads as a special token is one to the tokenizer, as it is to other trainers; a person should know.
    fn check_special_tokens(&self, row: &Row, findings: &mut Vec<Finding>) -> Result<(), WeightsError> {
        for (pointer, text) in texts(&row.example) {
            // Every special token known to us is written with one of these; a look is cheaper than to encode all twice.
            if text.contains(['<', '[']) && self.tokenizer.encode(text)? != self.tokenizer.encode_ordinary(text)? {
                let reason = "the text holds the text of a special token of this model, which is read as that token";
                findings.push(rules::SPECIAL_TOKEN_IN_TEXT.at(row.line, pointer, reason));
            }
        }
        Ok(())
    }
}

fn without_question(encoded: Encoded) -> HeldOut {
    HeldOut { encoded, prompt_ids: Vec::new(), prompt_text: String::new(), reference: String::new() }
}

/// Every text of a row, with its JSON pointer.
fn texts(example: &Example) -> Vec<(String, &str)> {
    match example {
        Example::Chat(turns) => turns
            .iter()
            .enumerate()
            .map(|(index, turn)| (format!("/messages/{index}/content"), turn.content.as_str()))
            .collect(),
        Example::PromptCompletion { prompt, completion } => {
            vec![("/prompt".to_owned(), prompt), ("/completion".to_owned(), completion)]
        }
        Example::Alpaca { instruction, input, output } => {
            vec![("/instruction".to_owned(), instruction), ("/input".to_owned(), input), ("/output".to_owned(), output)]
        }
        Example::Tokens { .. } => Vec::new(),
    }
}
