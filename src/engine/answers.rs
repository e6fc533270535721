//! Answers of both models to held-out prompts.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    path::Path,
};

use finetuned_dataset::HeldOut;
use finetuned_evaluation::{AnswerRow, CorpusScores, GivenAnswer, answers_report, score};
use finetuned_model::{Adapter, CausalLm, GenerateOptions, generate};
use finetuned_protocol::{
    engine::{AnsweredRow, Answerer, EngineEvent, KNOWN_ANSWERS_FILE, Phase},
    evaluation::{AnswersReport, Scores},
    spec::{AnswersSpec, TrainingSpec},
    text_metric::TextMetric,
};
use finetuned_weights::TextTokenizer;

use crate::{checkpoint::SavedAnswer, disk::at, error::EngineError, setup::Setup, watch::Watch};

/// Prompts answered together.
const TOGETHER: usize = 8;

/// The held-out rows that are asked: the first by line, as many as the settings say, that have a prompt.
pub fn asked<'a>(held_out: &'a [HeldOut], spec: &AnswersSpec) -> Vec<&'a HeldOut> {
    let mut rows: Vec<&HeldOut> = held_out.iter().filter(|row| !row.prompt_ids.is_empty()).collect();
    rows.sort_by_key(|row| row.encoded.line);
    rows.truncate(spec.rows as usize);
    rows
}

/// Answers that an earlier attempt gave, or the job itself.
#[derive(Debug, Default)]
pub struct KnownAnswers(HashMap<(Answerer, u64), SavedAnswer>);

impl KnownAnswers {
    /// Those of a folder; none where it has no such file.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn of(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join(KNOWN_ANSWERS_FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            file => file.map_err(at("opening", &path))?,
        };
        let mut known = HashMap::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(at("reading", &path))?;
            let row: AnsweredRow =
                serde_json::from_str(&line).map_err(|source| EngineError::Json { path: path.clone(), source })?;
            known.insert((row.by, row.line), SavedAnswer { line: row.line, text: row.text, ended: row.ended });
        }
        Ok(Self(known))
    }

    /// Answers to all of `rows`; `None` where one of them is not known. Prompts that are answered together are asked
    /// together again, since what else is in a batch may change the last bits.
    pub fn to(&self, by: Answerer, rows: &[&HeldOut]) -> Option<Vec<SavedAnswer>> {
        rows.iter().map(|row| self.0.get(&(by, row.encoded.line)).cloned()).collect()
    }
}

/// A model that is asked.
pub struct Respondent<'a> {
    pub who: Answerer,
    pub model: &'a CausalLm,
    /// None for the base model; where the model itself is trained, that is what it was before its first step.
    pub adapter: Option<&'a Adapter>,
    pub tokenizer: &'a TextTokenizer,
    pub eos_ids: &'a [u32],
}

impl<'a> Respondent<'a> {
    /// Whom a run in training asks.
    pub fn of(setup: &'a Setup, who: Answerer) -> Self {
        let adapter = match who {
            Answerer::Base => None,
            Answerer::Tuned => setup.trainer.adapter(),
        };
        Self { who, model: &setup.model, adapter, tokenizer: &setup.tokenizer, eos_ids: &setup.eos_ids }
    }

    /// Greedy answers, told as they are given.
    ///
    /// # Errors
    /// The model's, or the reason to break off.
    pub fn ask(
        &self,
        rows: &[&HeldOut],
        max_new_tokens: u32,
        known: &KnownAnswers,
        watch: &mut Watch,
    ) -> Result<Vec<SavedAnswer>, EngineError> {
        let phase = match self.who {
            Answerer::Base => Phase::AnsweringBase,
            Answerer::Tuned => Phase::AnsweringTuned,
        };
        let total = rows.len() as u64;
        let options = GenerateOptions::greedy(max_new_tokens, self.eos_ids.to_vec());
        let mut answers: Vec<SavedAnswer> = Vec::with_capacity(rows.len());
        for rows in rows.chunks(TOGETHER) {
            if let Some(known) = known.to(self.who, rows) {
                answers.extend(known);
                continue;
            }
            let given = self.together(rows, &options, (phase, answers.len() as u64, total), watch)?;
            let told = rows.iter().zip(&given).map(|(row, answer)| AnsweredRow {
                by: self.who,
                line: answer.line,
                prompt: row.prompt_text.clone(),
                reference: row.reference.clone(),
                text: answer.text.clone(),
                ended: answer.ended,
            });
            watch.log.emit(EngineEvent::Answered { rows: told.collect() })?;
            answers.extend(given);
        }
        watch.tick(phase, total, total)?;
        Ok(answers)
    }

    /// The mean of each metric over greedy answers, of which nothing else is told.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn score(
        &self,
        rows: &[&HeldOut],
        (metrics, max_new_tokens): (&[TextMetric], u32),
        watch: &mut Watch,
    ) -> Result<Scores, EngineError> {
        let options = GenerateOptions::greedy(max_new_tokens, self.eos_ids.to_vec());
        let total = rows.len() as u64;
        let mut corpus = CorpusScores::default();
        for rows in rows.chunks(TOGETHER) {
            let given = self.together(rows, &options, (Phase::Evaluating, corpus.rows(), total), watch)?;
            for (row, answer) in rows.iter().zip(&given) {
                corpus.add(&score(metrics, &row.reference, &answer.text));
            }
        }
        Ok(corpus.figures().into_iter().map(|(metric, figure)| (metric, figure.mean)).collect())
    }

    fn together(
        &self,
        rows: &[&HeldOut],
        options: &GenerateOptions,
        (phase, done, total): (Phase, u64, u64),
        watch: &mut Watch,
    ) -> Result<Vec<SavedAnswer>, EngineError> {
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.prompt_ids.clone()).collect();
        let given = generate(self.model, self.adapter, &prompts, options, &mut |_| watch.flow(phase, done, total));
        let saved = rows.iter().zip(watch.settle(given)?).map(|(row, answer)| {
            let text = self.tokenizer.decode(&answer.ids, true)?.trim().to_owned();
            Ok(SavedAnswer { line: row.encoded.line, text, ended: answer.ended })
        });
        saved.collect()
    }
}

/// Both models' answers, scored; `None` where nothing was asked.
///
/// # Errors
/// Answers that belong to other rows.
pub fn compare(
    setup: &Setup,
    tuned: Vec<SavedAnswer>,
    spec: &TrainingSpec,
) -> Result<Option<AnswersReport>, EngineError> {
    if tuned.is_empty() {
        return Ok(None);
    }
    let rows = asked(&setup.prepared.held_out, &spec.answers);
    let base = setup.state.base_answers.as_deref().unwrap_or_default();
    let lines = |answers: &[SavedAnswer]| answers.iter().map(|answer| answer.line).collect::<Vec<_>>();
    if lines(base) != lines(&tuned) {
        return Err(EngineError::Internal("base and tuned answered different rows".to_owned()));
    }
    let given = |answer: &SavedAnswer| GivenAnswer { text: answer.text.clone(), ended: answer.ended };
    let pairs = rows.iter().zip(base.iter().zip(&tuned)).map(|(row, (base, tuned))| AnswerRow {
        line: row.encoded.line,
        prompt: row.prompt_text.clone(),
        reference: row.reference.clone(),
        base: given(base),
        tuned: given(tuned),
    });
    Ok(Some(answers_report(pairs.collect(), spec.answers.max_new_tokens, u64::from(spec.seed))?))
}
