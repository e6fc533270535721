//! One row to tokens and labels.

use finetuned_protocol::{
    lint::Finding,
    spec::{PreparationSpec, TemplateSpec},
};
use finetuned_weights::{ChatMessage, Conversation, TextTokenizer, WeightsError};

use super::{
    Encoded, HeldOut, IGNORED_LABEL, Rejected, alpaca,
    render::{RenderedChat, render_chat},
    turns::{messages, readable, tools_of, turns_of, up_to_last_answer},
    unwritten::unwritten,
};
use crate::{
    example::{Example, Role, Row, Turn},
    rules,
};

/// What was made of a row: one sequence, or the pieces of a document; without any, the findings say why.
pub(super) struct Outcome {
    pub encoded: Vec<HeldOut>,
    pub findings: Vec<Finding>,
}

/// Text of one weight.
struct Segment<'t> {
    text: &'t str,
    /// What the loss of its tokens is multiplied by, beside the row's own weight; 0 for none.
    weight: f32,
}

/// Tokens before they are cut.
#[derive(Default)]
struct Uncut {
    ids: Vec<u32>,
    labels: Vec<i64>,
    weights: Vec<f32>,
}

/// A row that a template renders.
#[derive(Clone, Copy)]
struct Answered<'e> {
    line: u64,
    example: &'e Example,
    weight: f32,
    held_out: bool,
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
        let Row { line, example, weight, .. } = row;
        let answered = Answered { line: *line, example, weight: *weight, held_out };
        let encoded = match example {
            Example::Tokens { input_ids, labels } => self.tokens(answered, (input_ids, labels), &mut findings)?,
            Example::Text(text) => return self.document(*line, text),
            Example::Preference { prompt, chosen, rejected } => {
                self.pair(answered, prompt, [chosen, rejected], &mut findings)?
            }
            _ => self.answered(answered, &mut findings)?,
        };
        if encoded.is_some() {
            self.check_special_tokens(row, &mut findings)?;
        }
        Ok(Outcome { encoded: encoded.into_iter().collect(), findings })
    }

    fn answered(&self, row: Answered<'_>, findings: &mut Vec<Finding>) -> Result<Option<HeldOut>, WeightsError> {
        match &self.spec.template {
            TemplateSpec::Alpaca => self.alpaca(row, findings),
            TemplateSpec::Chat | TemplateSpec::Jinja { .. } => self.chat(row, findings),
        }
    }

    /// Both answers behind the same prompt; none without the other.
    fn pair(
        &self,
        row: Answered<'_>,
        prompt: &[Turn],
        [chosen, rejected]: [&str; 2],
        findings: &mut Vec<Finding>,
    ) -> Result<Option<HeldOut>, WeightsError> {
        let chat = |answer: &str| {
            let turns = prompt.iter().cloned().chain([Turn::new(Role::Assistant, answer)]);
            Example::Chat { turns: turns.collect(), tools: Vec::new() }
        };
        let Some(mut kept) = self.answered(Answered { example: &chat(chosen), ..row }, findings)? else {
            return Ok(None);
        };
        // What is said of the template was said of the first answer.
        let mut of_second = Vec::new();
        let second = Answered { example: &chat(rejected), held_out: false, ..row };
        let Some(HeldOut { encoded, .. }) = self.answered(second, &mut of_second)? else {
            findings.append(&mut of_second);
            return Ok(None);
        };
        let Encoded { ids, labels, truncated, .. } = encoded;
        kept.encoded.truncated |= truncated;
        kept.encoded.rejected = Some(Rejected { ids, labels });
        Ok(Some(kept))
    }

    /// Pieces of at most `max_seq_len` tokens, each beginning with the last token of the one before.
    fn document(&self, line: u64, text: &str) -> Result<Outcome, WeightsError> {
        let mut findings = Vec::new();
        if self.tokenizer.eos().is_none() {
            let reason = "the model names no token that ends a text, so it will not learn where documents end";
            findings.push(rules::NO_END_MARKER.at(line, "", reason));
        }
        let ids = self.tokenizer.encode_document(text)?;
        if ids.len() < 2 {
            let reason = "the document has one token, which nothing predicts; the row is dropped";
            findings.push(rules::NO_SUPERVISED_TOKEN.at(line, "/text", reason));
            return Ok(Outcome { encoded: Vec::new(), findings });
        }
        let step = self.max_tokens.saturating_sub(1).max(1);
        let pieces = (0..ids.len() - 1).step_by(step).zip(0..).map(|(start, piece)| {
            let ids = &ids[start..ids.len().min(start + step + 1)];
            let labels = ids.iter().enumerate().map(|(at, id)| if at == 0 { IGNORED_LABEL } else { i64::from(*id) });
            without_question(Encoded {
                line,
                piece,
                ids: ids.to_vec(),
                labels: labels.collect(),
                weights: None,
                rejected: None,
                truncated: false,
            })
        });
        let encoded = pieces.collect();
        self.check_special_tokens_of(line, "/text".to_owned(), text, &mut findings)?;
        Ok(Outcome { encoded, findings })
    }

    /// The whole row as the template writes it; `None` for one that came as tokens, or that the template refuses. Of a
    /// pair, what is liked better.
    pub fn text(&self, row: &Row) -> Result<Option<String>, WeightsError> {
        let liked = match &row.example {
            Example::Text(text) => return Ok(Some(text.clone())),
            Example::Preference { prompt, chosen, .. } => {
                let turns = prompt.iter().cloned().chain([Turn::new(Role::Assistant, chosen)]);
                Some(Example::Chat { turns: turns.collect(), tools: Vec::new() })
            }
            _ => None,
        };
        let example = liked.as_ref().unwrap_or(&row.example);
        if matches!(self.spec.template, TemplateSpec::Alpaca) {
            let parts = alpaca::parts(example, row.line).ok();
            let eos = self.tokenizer.eos().unwrap_or_default();
            return Ok(
                parts.map(|parts| format!("{}{}{eos}", alpaca::prompt(parts.instruction, parts.input), parts.output))
            );
        }
        let Some(turns) = turns_of(example) else { return Ok(None) };
        match self.render(Conversation { messages: &messages(&turns), tools: tools_of(example) }, false) {
            Ok(text) => Ok(Some(text)),
            Err(WeightsError::Template { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn chat(&self, row: Answered<'_>, findings: &mut Vec<Finding>) -> Result<Option<HeldOut>, WeightsError> {
        let Some(turns) = turns_of(row.example) else { return Ok(None) };
        let turns = if self.spec.train_on_prompt { &turns } else { up_to_last_answer(&turns) };
        let tools = tools_of(row.example);
        let render = |messages: &[ChatMessage], prompt: bool| self.render(Conversation { messages, tools }, prompt);
        let chat = match render_chat(turns, &render) {
            Ok(chat) => chat,
            Err(WeightsError::Template { reason, .. }) => {
                let reason = format!("the template refuses the row: {reason}");
                findings.push(rules::TEMPLATE_FAILED.at(row.line, "", reason));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(finding) = unwritten(row.line, turns, tools, &chat.text, &|chat| self.render(chat, false))? {
            findings.push(finding);
            return Ok(None);
        }
        self.report_template(row.line, turns, &chat, findings);
        if chat.answers.is_empty() {
            return Ok(None);
        }
        let Some(encoded) = self.encode(row, &self.segments(turns, &chat), findings)? else { return Ok(None) };
        if !row.held_out {
            return Ok(Some(without_question(encoded)));
        }
        let mut questions = Vec::with_capacity(chat.answers.len());
        for answer in chat.answers.iter().rev() {
            questions.push(Question {
                prompt: chat.text[..answer.start].to_owned(),
                prompt_text: readable(&turns[..answer.turn]),
                reference: self.reference(&turns[answer.turn], &chat.text[answer.start..answer.end])?,
            });
        }
        self.with_question(encoded, questions.into_iter())
    }

    /// What the model should say; calls as the template writes them, without the end marker.
    fn reference(&self, turn: &Turn, written: &str) -> Result<String, WeightsError> {
        if turn.calls.is_empty() {
            return Ok(turn.content.clone());
        }
        let text = self.tokenizer.decode(&self.tokenizer.encode(written)?, true)?;
        Ok(text.trim().to_owned())
    }

    fn render(&self, chat: Conversation<'_>, add_generation_prompt: bool) -> Result<String, WeightsError> {
        match &self.spec.template {
            TemplateSpec::Jinja { source } => self.tokenizer.render_jinja(source, chat, add_generation_prompt),
            TemplateSpec::Chat | TemplateSpec::Alpaca => self.tokenizer.render_chat(chat, add_generation_prompt),
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

    fn segments<'t>(&self, turns: &[Turn], chat: &'t RenderedChat) -> Vec<Segment<'t>> {
        let prompt_weight = if self.spec.train_on_prompt { 1.0 } else { 0.0 };
        let mut segments = Vec::new();
        let mut done = 0;
        for answer in &chat.answers {
            segments.push(Segment { text: &chat.text[done..answer.start], weight: prompt_weight });
            segments.push(Segment { text: &chat.text[answer.start..answer.end], weight: turns[answer.turn].weight });
            done = answer.end;
        }
        if self.spec.train_on_prompt {
            segments.push(Segment { text: chat.text[done..].trim_end(), weight: prompt_weight });
        }
        segments
    }

    fn alpaca(&self, row: Answered<'_>, findings: &mut Vec<Finding>) -> Result<Option<HeldOut>, WeightsError> {
        let parts = match alpaca::parts(row.example, row.line) {
            Ok(parts) => parts,
            Err(finding) => {
                findings.push(finding);
                return Ok(None);
            }
        };
        let prompt = alpaca::prompt(parts.instruction, parts.input);
        let prompt_weight = if self.spec.train_on_prompt { 1.0 } else { 0.0 };
        let weight = parts.weight;
        let mut segments =
            vec![Segment { text: &prompt, weight: prompt_weight }, Segment { text: parts.output, weight }];
        match self.tokenizer.eos() {
            Some(eos) => segments.push(Segment { text: eos, weight }),
            None => {
                let reason = "the model names no token that ends a text, so it will not learn to stop";
                findings.push(rules::NO_END_MARKER.at(row.line, "", reason));
            }
        }
        let Some(encoded) = self.encode(row, &segments, findings)? else { return Ok(None) };
        if !row.held_out {
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
        Answered { line, weight, held_out, .. }: Answered<'_>,
        (ids, labels): (&[u32], &[i64]),
        findings: &mut Vec<Finding>,
    ) -> Result<Option<HeldOut>, WeightsError> {
        let size = self.tokenizer.vocab_size();
        if let Some(index) = ids.iter().position(|id| *id as usize >= size) {
            let reason =
                format!("token {} is not of this model, whose ids go up to {}", ids[index], size.saturating_sub(1));
            findings.push(rules::TOKEN_OUT_OF_RANGE.at(line, format!("/input_ids/{index}"), reason));
            return Ok(None);
        }
        let uncut = Uncut { ids: ids.to_vec(), labels: labels.to_vec(), weights: vec![weight; ids.len()] };
        let Some(encoded) = self.cut(line, uncut, findings) else { return Ok(None) };
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
        row: Answered<'_>,
        segments: &[Segment<'_>],
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Encoded>, WeightsError> {
        let mut uncut = Uncut::default();
        for segment in segments {
            let tokens = self.tokenizer.encode(segment.text)?;
            let has_loss = segment.weight > 0.0;
            uncut.labels.extend(tokens.iter().map(|id| if has_loss { i64::from(*id) } else { IGNORED_LABEL }));
            uncut.weights.extend(tokens.iter().map(|_| segment.weight * row.weight));
            uncut.ids.extend(tokens);
        }
        Ok(self.cut(row.line, uncut, findings))
    }

    /// Leaves out what follows the last token with loss, then what is beyond `max_seq_len`.
    fn cut(&self, line: u64, uncut: Uncut, findings: &mut Vec<Finding>) -> Option<Encoded> {
        let Uncut { mut ids, mut labels, mut weights } = uncut;
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
        if whole > kept {
            let cut = labels[kept..whole].iter().filter(|label| **label != IGNORED_LABEL).count();
            let most = self.max_tokens;
            let reason =
                format!("{cut} tokens that carry loss are cut off: the row has {whole}, and `max_seq_len` is {most}");
            findings.push(rules::ANSWER_TRUNCATED.at(line, "", reason));
        }
        ids.truncate(kept);
        labels.truncate(kept);
        weights.truncate(kept);
        let is_plain = labels.iter().zip(&weights).all(|(label, weight)| *label == IGNORED_LABEL || *weight == 1.0);
        let weights = (!is_plain).then_some(weights);
        Some(Encoded { line, piece: 0, ids, labels, weights, rejected: None, truncated: whole > kept })
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
            self.check_special_tokens_of(row.line, pointer, text, findings)?;
        }
        Ok(())
    }

    fn check_special_tokens_of(
        &self,
        line: u64,
        pointer: String,
        text: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), WeightsError> {
        // Every special token known to us is written with one of these; a look is cheaper than to encode all twice.
        if text.contains(['<', '[']) && self.tokenizer.encode(text)? != self.tokenizer.encode_ordinary(text)? {
            let reason = "the text holds the text of a special token of this model, which is read as that token";
            findings.push(rules::SPECIAL_TOKEN_IN_TEXT.at(line, pointer, reason));
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
        Example::Chat { turns, .. } => turns
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
        Example::Preference { prompt, chosen, rejected } => {
            let turns = prompt.iter().map(|turn| turn.content.as_str()).chain([chosen.as_str(), rejected]);
            turns.map(|text| (String::new(), text)).collect()
        }
        Example::Text(text) => vec![("/text".to_owned(), text)],
        Example::Tokens { .. } => Vec::new(),
    }
}
