//! All answers: taken in, admitted, one token further each step.

use std::mem::take;

use anyhow::Context;
use finetuned_model::{Chooser, JsonText, NewText, Texts};
use finetuned_protocol::{
    generation::FinishReason,
    serving::{AnswerCommand, Refusal, RefusalKind, ServeCommand, ServingEvent, ServingLine},
};
use finetuned_torch::{Device, Tensor};

use super::{
    adapters::{Adapters, Speech, Tuned},
    answer::{Answer, Vocabulary},
    prompt,
    queue::Queue,
    streamed::StreamedText,
};
use crate::loaded::Loaded;

/// Tokens of new prompts read in one step, beside the answers under way; one prompt always is.
const PROMPT_TOKENS: usize = 512;
/// With so many tokens in common, a prompt waits a step for one that is read just now.
const WORTH_WAITING: usize = 16;

/// Everything that is answered.
pub struct Server<'a> {
    loaded: &'a Loaded,
    speech: Speech,
    eos_ids: Vec<u32>,
    token_bytes: Vec<Option<Vec<u8>>>,
    adapters: Adapters,
    queue: Queue,
    texts: Texts<'a>,
    /// Those under way, each in the place of its text, with its newest token.
    under_way: Vec<(Answer, u32)>,
    told: Vec<ServingLine>,
    max_batch: usize,
}

impl<'a> Server<'a> {
    /// # Errors
    /// A model whose tokenizer cannot be read.
    pub fn new(loaded: &'a Loaded, max_batch: usize, prefix_bytes: i64) -> anyhow::Result<Self> {
        let tokenizer = loaded.source.tokenizer()?;
        let token_bytes = tokenizer.token_bytes()?;
        Ok(Self {
            loaded,
            speech: Speech { tokenizer, template: None },
            eos_ids: loaded.source.generation_eos_ids(),
            token_bytes,
            adapters: Adapters::default(),
            queue: Queue::default(),
            texts: Texts::new(&loaded.model, prefix_bytes),
            under_way: Vec::new(),
            told: Vec::new(),
            max_batch: max_batch.max(1),
        })
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// What happened since this was last asked.
    pub fn told(&mut self) -> Vec<ServingLine> {
        take(&mut self.told)
    }

    pub fn obey(&mut self, command: ServeCommand) {
        match command {
            ServeCommand::Keepalive => {}
            ServeCommand::Cancel { id } => self.cancel(id),
            ServeCommand::Answer(command) => {
                let id = command.id;
                match self.prepare(*command) {
                    Ok(answer) => self.queue.push(answer),
                    Err(refusal) => self.tell(id, ServingEvent::Refused(refusal)),
                }
            }
        }
    }

    fn tell(&mut self, id: u64, event: ServingEvent) {
        self.told.push(ServingLine { id, event });
    }

    fn prepare(&mut self, command: AnswerCommand) -> Result<Answer, Refusal> {
        let AnswerCommand { id, tenant, adapter, prompt, settings } = command;
        if !self.queue.has_room(tenant) {
            return Err(Refusal::new(
                RefusalKind::Overloaded,
                "too many requests wait for their answers; try again soon",
            ));
        }
        let tuned = adapter.map(|place| self.adapters.get(&self.loaded.model, &self.speech, &place)).transpose();
        let tuned: Option<Tuned> = tuned.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "an adapter cannot be loaded");
            Refusal::new(RefusalKind::Internal, "the adapter cannot be loaded")
        })?;
        let speech = tuned.as_ref().map_or(&self.speech, |tuned| &tuned.speech);
        let facts = self.loaded.model.facts();
        let options = prompt::choice_options(&settings, facts.vocab_size)?;
        let ids = prompt::ids_of(&prompt, speech, facts.vocab_size)?;
        let virtual_tokens = tuned.as_ref().map_or(0, |tuned| tuned.adapter.virtual_tokens()) as u32;
        let most_tokens = prompt::longest_answer(&settings, ids.len(), (facts.context_length, virtual_tokens))?;
        let chooser =
            Chooser::new(options, &ids).map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string()))?;
        Ok(Answer {
            id,
            tenant,
            text: StreamedText::new(speech.tokenizer.clone(), settings.stop),
            prompt: ids,
            tuned,
            chooser,
            most_tokens,
            json: settings.json_object.then(JsonText::default),
            begun: false,
        })
    }

    fn cancel(&mut self, id: u64) {
        self.queue.cancel(id);
        if let Some(row) = self.under_way.iter().position(|(answer, _)| answer.id == id) {
            self.let_go(row);
        }
    }

    /// Takes an answer from those under way.
    fn let_go(&mut self, row: usize) -> Option<Answer> {
        if let Err(error) = self.texts.remove(row) {
            self.fail(&anyhow::Error::new(error));
            return None;
        }
        Some(self.under_way.swap_remove(row).0)
    }

    /// One more token for everything under way, and the first one of what is new.
    pub fn advance(&mut self) {
        if self.is_idle() {
            return;
        }
        if let Err(error) = self.step() {
            self.fail(&error);
        }
    }

    /// Nothing that is held is of use any more.
    fn fail(&mut self, error: &anyhow::Error) {
        tracing::error!(error = format!("{error:#}"), "a step failed; the answers under way are given up");
        let message = match error.chain().any(is_out_of_memory) {
            true => "the device has too little memory for this",
            false => "the engine failed while answering",
        };
        for (answer, _) in take(&mut self.under_way) {
            self.tell(answer.id, ServingEvent::Refused(Refusal::new(RefusalKind::Internal, message)));
        }
        self.texts.clear();
    }

    fn step(&mut self) -> anyhow::Result<()> {
        for row in (0..self.under_way.len()).rev() {
            if self.texts.outgrows(row)
                && let Some(answer) = self.let_go(row)
            {
                self.queue.push_front(answer);
            }
        }
        let (admitted, new) = self.admit();
        let next: Vec<u32> = self.under_way.iter().map(|(_, token)| *token).collect();
        let lengths: Vec<usize> = new.iter().map(|text| text.ids.len()).collect();
        // They stand in place before anything can go wrong, so that they are told of it.
        self.under_way.extend(admitted.into_iter().map(|answer| (answer, 0)));
        let step = self.texts.step(&next, new).context("while computing a step")?;
        for (index, (&reused, length)) in step.reused.iter().zip(lengths).enumerate() {
            let answer = &mut self.under_way[next.len() + index].0;
            let (id, tenant) = (answer.id, answer.tenant);
            let prompt_tokens = answer.prompt.len() as u64;
            self.queue.charge(tenant, (length - reused) as u64);
            if !std::mem::replace(&mut answer.begun, true) {
                self.tell(id, ServingEvent::Begun { prompt_tokens, cached_tokens: reused as u64 });
            }
        }
        self.choose(&step.logits)
    }

    /// Whose turn it is, as far as there is room.
    fn admit(&mut self) -> (Vec<Answer>, Vec<NewText>) {
        let (mut admitted, mut new, mut tokens) = (Vec::new(), Vec::<NewText>::new(), 0);
        while self.under_way.len() + admitted.len() < self.max_batch {
            let Some(text) = self.queue.peek().map(Answer::to_read) else { break };
            let known = self.texts.known_tokens(&text);
            let unread = text.ids.len() - known;
            let is_first = admitted.is_empty();
            if !is_first && tokens + unread > PROMPT_TOKENS || !self.texts.has_room_for(&text, &new) {
                break;
            }
            if new.iter().any(|other| in_common(other, &text) >= known + WORTH_WAITING) {
                break;
            }
            tokens += unread;
            new.push(text);
            admitted.extend(self.queue.pop());
        }
        (admitted, new)
    }

    /// The next token of everything under way by `logits`, `[texts, vocab]`; what ends leaves.
    fn choose(&mut self, logits: &Tensor) -> anyhow::Result<()> {
        let vocabulary =
            Vocabulary { tokenizer: &self.speech.tokenizer, bytes: &self.token_bytes, eos_ids: &self.eos_ids };
        let mut chosen = Vec::with_capacity(self.under_way.len());
        if self.under_way.iter().all(|(answer, _)| answer.is_plain()) {
            for ((answer, _), id) in self.under_way.iter_mut().zip(Vec::<i64>::try_from(&logits.f_argmax(-1, false)?)?)
            {
                answer.chooser.note(id as u32);
                chosen.push((id as u32, None));
            }
        } else {
            let width = logits.size2()?.1 as usize;
            let mut flat = Vec::<f32>::try_from(&logits.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?)?;
            for ((answer, _), logits) in self.under_way.iter_mut().zip(flat.chunks_exact_mut(width)) {
                chosen.push(answer.choose(logits, &vocabulary));
            }
        }
        let mut ended = Vec::new();
        for (row, ((answer, newest), (token, scores))) in self.under_way.iter_mut().zip(chosen).enumerate() {
            *newest = token;
            self.queue.charge(answer.tenant, 1);
            let (piece, end) = answer.take(token, scores, &vocabulary)?;
            self.told.extend(piece.map(|event| ServingLine { id: answer.id, event }));
            ended.extend(end.map(|end| (row, end)));
        }
        // From the last one on, so that the places of those before stay.
        for (row, end) in ended.into_iter().rev() {
            self.finish(row, end)?;
        }
        self.drop_surplus();
        Ok(())
    }

    fn finish(&mut self, row: usize, finish_reason: FinishReason) -> anyhow::Result<()> {
        let Some(mut answer) = self.let_go(row) else { return Ok(()) };
        let rest = answer.text.finish()?;
        if !rest.is_empty() {
            self.tell(answer.id, ServingEvent::Piece { text: rest, tokens: Vec::new() });
        }
        let completion_tokens = answer.text.ids().len() as u64;
        self.tell(answer.id, ServingEvent::Ended { finish_reason, completion_tokens });
        Ok(())
    }

    fn drop_surplus(&mut self) {
        for adapter in self.adapters.surplus() {
            self.texts.forget(&adapter);
        }
    }
}

/// Tokens that two texts of one adapter begin with alike.
fn in_common(one: &NewText, other: &NewText) -> usize {
    let same = match (&one.adapter, &other.adapter) {
        (None, None) => true,
        (Some(one), Some(other)) => std::rc::Rc::ptr_eq(one, other),
        _ => false,
    };
    if !same {
        return 0;
    }
    one.ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count()
}

fn is_out_of_memory(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<finetuned_model::ModelError>().is_some_and(finetuned_model::ModelError::is_out_of_memory)
}
