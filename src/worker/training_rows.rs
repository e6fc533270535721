//! Looks at the rows that a job was trained on, once both models have answered: which are near to the held-out rows, and
//! which show errors themselves. Nothing here can fail the job.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use finetuned_dataset::{ReadError, Row, RowOutcome, asked, held_out_split, read_rows};
use finetuned_evaluation::{Categoriser, Features, KnownWords, Spelling, nearest, typical_words};
use finetuned_protocol::{
    embedding::EmbedRequest,
    engine::{TRAIN_DATA, VALID_DATA},
    evaluation::AnswersReport,
    evaluation_spec::EvaluationSpec,
    lint::ReadingSpec,
    mend::{MAX_TRAINING_ROWS, NEIGHBOURS, NearnessMethod, Neighbour, TrainingRows},
    spec::{PreparationSpec, TrainingSpec},
};
use tokio::task::spawn_blocking;

use crate::{
    attempt::Attempt,
    error::AttemptError,
    folder::AttemptFolder,
    similarity::{EncoderError, embed},
};

/// Characters of a text that are compared; an encoder reads no more.
const MOST_CHARACTERS: usize = 4000;

/// A training row with its text.
struct Learned {
    line: u64,
    prompt: String,
    answer: String,
    pointer: String,
}

/// Rows that are looked at, of so many.
struct Sample {
    rows: u64,
    learned: Vec<Learned>,
}

/// Looks at the training rows and keeps what was found with the job.
///
/// # Errors
/// The lease is lost, or the worker ends.
pub async fn look_at(
    attempt: &Attempt,
    folder: &AttemptFolder,
    spec: &TrainingSpec,
    report: &AnswersReport,
) -> Result<(), AttemptError> {
    if report.answers.is_empty() {
        return Ok(());
    }
    let looking = async { Ok(look(attempt, folder, spec, report).await) };
    match attempt.unless_interrupted(looking).await? {
        Ok(rows) => {
            let key = attempt.lease.key;
            attempt.persist("keeping what training rows show", || attempt.store.record_training_rows(&key, &rows)).await
        }
        Err(error) => {
            tracing::error!(%error, "the training rows could not be looked at; there will be no list of rows to mend");
            Ok(())
        }
    }
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn look(
    attempt: &Attempt,
    folder: &AttemptFolder,
    spec: &TrainingSpec,
    report: &AnswersReport,
) -> Result<TrainingRows, Trouble> {
    let (data, preparation) = (folder.join(TRAIN_DATA), spec.preparation.clone());
    let all_are_trained_on = folder.join(VALID_DATA).exists();
    let sample = spawn_blocking(move || sample(&data, &preparation, all_are_trained_on)).await??;
    let texts: Vec<String> = sample
        .learned
        .iter()
        .map(|row| text(&row.prompt, &row.answer))
        .chain(report.answers.iter().map(|pair| text(&pair.prompt, &pair.reference)))
        .collect();
    let (method, features, trouble) = features(attempt, folder.path(), texts).await;
    let (evaluation, dictionary) = (spec.evaluation.clone(), attempt.options.dictionary.clone());
    let held_out_lines: Vec<u64> = report.answers.iter().map(|pair| pair.line).collect();
    let mut found = spawn_blocking(move || {
        let neighbours = neighbours(&sample.learned, &held_out_lines, &features);
        judged(sample, neighbours, &evaluation, dictionary)
    })
    .await??;
    found.method = method;
    found.not_judged.extend(trouble);
    Ok(found)
}

fn text(prompt: &str, answer: &str) -> String {
    format!("{prompt}\n{answer}").chars().take(MOST_CHARACTERS).collect()
}

/// Rows that the job was trained on; of more than can be looked at, those with the least digest, which is a choice by
/// content alone.
fn sample(data: &Path, spec: &PreparationSpec, all_are_trained_on: bool) -> Result<Sample, ReadError> {
    let reading = &spec.rows.training;
    let mut digests = Vec::new();
    each_row(data, reading, &mut |row| digests.push(row.digest))?;
    let held_out = match all_are_trained_on {
        true => vec![false; digests.len()],
        false => held_out_split(&digests, spec.eval_fraction, spec.split_seed),
    };
    let mut trained: Vec<(&[u8; 32], usize)> = digests.iter().zip(0..).filter(|(_, index)| !held_out[*index]).collect();
    trained.sort_unstable();
    let chosen: HashSet<usize> = trained.iter().take(MAX_TRAINING_ROWS).map(|(_, index)| *index).collect();
    let (mut index, mut learned) = (0, Vec::new());
    each_row(data, reading, &mut |row| {
        if chosen.contains(&index)
            && let Some(last) = asked(&row.example).into_iter().next()
        {
            let prompt = last.prompt_text();
            learned.push(Learned { line: row.line, prompt, answer: last.answer, pointer: last.pointer });
        }
        index += 1;
    })?;
    Ok(Sample { rows: trained.len() as u64, learned })
}

/// Every row that can be trained on.
fn each_row(data: &Path, reading: &ReadingSpec, each: &mut dyn FnMut(Row)) -> Result<(), ReadError> {
    read_rows(data, reading, &mut |outcome, _| {
        if let RowOutcome::Good(row) = outcome {
            each(row);
        }
        ControlFlow::Continue(())
    })
}

/// What texts are compared by; and why not by embeddings, where an encoder that is there could not be used.
async fn features(
    attempt: &Attempt,
    folder: &Path,
    texts: Vec<String>,
) -> (NearnessMethod, Vec<Features>, Option<String>) {
    let request = |text: &String| EmbedRequest { text: Some(text.clone()), ..EmbedRequest::default() };
    let requests: Vec<EmbedRequest> = texts.iter().map(request).collect();
    let embedded = embed(&attempt.options, folder, &requests).await.and_then(|answers| {
        let vectors = answers.into_iter().map(|answer| answer.embedding.map(Features::Embedding));
        vectors.collect::<Option<Vec<_>>>().ok_or(EncoderError::LeftOut)
    });
    let by_words = || texts.iter().map(|text| Features::words(text)).collect();
    match embedded {
        Ok(features) => (NearnessMethod::Embedding, features, None),
        Err(EncoderError::None) => (NearnessMethod::WordOverlap, by_words(), None),
        Err(error) => (NearnessMethod::WordOverlap, by_words(), Some(format!("embedding: {error}"))),
    }
}

/// The nearest training rows of each held-out row; `features` are of the former, then of the latter.
fn neighbours(learned: &[Learned], held_out: &[u64], features: &[Features]) -> BTreeMap<u64, Vec<Neighbour>> {
    let (candidates, of_held_out) = features.split_at(learned.len().min(features.len()));
    let of_row = |(line, features): (&u64, &Features)| {
        let near = nearest(features, candidates, NEIGHBOURS).into_iter();
        let near = near.map(|(place, similarity)| Neighbour { line: learned[place].line, similarity });
        (*line, near.collect())
    };
    held_out.iter().zip(of_held_out).map(of_row).collect()
}

/// What the answers of training rows show, and what is kept of them.
fn judged(
    Sample { rows, learned }: Sample,
    neighbours: BTreeMap<u64, Vec<Neighbour>>,
    spec: &EvaluationSpec,
    dictionary: Option<PathBuf>,
) -> Result<TrainingRows, Trouble> {
    let spelling = dictionary.as_deref().map(Spelling::open).transpose().unwrap_or_else(|error| {
        tracing::warn!(%error, "the spelling of training rows is not judged");
        None
    });
    let not_judged = match &spelling {
        Some(_) => Vec::new(),
        None => vec!["misspelled: this worker has no dictionary".to_owned()],
    };
    let categoriser = Categoriser::new(spec, spelling.as_ref().map(|spelling| (spelling, KnownWords::default())))?;
    let typical = typical_words(learned.iter().map(|row| row.answer.as_str()));
    let shown = learned.iter().map(|row| (row.line, categoriser.of_training(&row.prompt, &row.answer, typical)));
    let categories: BTreeMap<u64, Vec<String>> = shown.filter(|(_, names)| !names.is_empty()).collect();
    let near: HashSet<u64> = neighbours.values().flatten().map(|near| near.line).collect();
    let is_named = |line: u64| categories.contains_key(&line) || near.contains(&line);
    let pointers = learned.iter().filter(|row| is_named(row.line)).map(|row| (row.line, row.pointer.clone())).collect();
    Ok(TrainingRows {
        method: NearnessMethod::WordOverlap,
        rows,
        rows_looked_at: learned.len() as u64,
        pointers,
        neighbours,
        categories,
        not_judged,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::spec::{RowsSpec, TemplateSpec};

    use super::*;

    fn spec(eval_fraction: f64) -> PreparationSpec {
        PreparationSpec {
            template: TemplateSpec::Chat,
            max_seq_len: 64,
            train_on_prompt: false,
            eval_fraction,
            split_seed: 0,
            rows: RowsSpec::default(),
        }
    }

    fn file(rows: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let row = |i| format!("{{\"prompt\": \"question {i}\", \"completion\": \"answer {i}\"}}\n");
        std::fs::write(file.path(), (0..rows).map(row).collect::<String>()).unwrap();
        file
    }

    #[test]
    fn held_out_rows_are_no_training_rows_and_the_choice_is_bounded() {
        let few = sample(file(20).path(), &spec(0.2), false).unwrap();
        assert_eq!((few.rows, few.learned.len()), (16, 16));
        assert_eq!(few.learned[0].pointer, "/completion");
        let validated = sample(file(20).path(), &spec(0.0), true).unwrap();
        assert_eq!(validated.rows, 20);
        let many = sample(file(MAX_TRAINING_ROWS + 500).path(), &spec(0.0), true).unwrap();
        assert_eq!((many.rows as usize, many.learned.len()), (MAX_TRAINING_ROWS + 500, MAX_TRAINING_ROWS));
        assert!(many.learned.is_sorted_by_key(|row| row.line));
    }

    #[test]
    fn what_is_named_has_its_place_and_common_rows_are_not_kept() {
        let learned = |line, answer: &str| Learned {
            line,
            prompt: "Why?".into(),
            answer: answer.into(),
            pointer: format!("/messages/{line}/content"),
        };
        let rows =
            vec![learned(1, "since it is so"), learned(2, ""), learned(3, "since it was so"), learned(4, "so it is")];
        let features: Vec<Features> = rows.iter().map(|row| Features::words(&row.answer)).collect();
        let features = [features, vec![Features::words("since it was so")]].concat();
        let neighbours = neighbours(&rows, &[9], &features);
        assert_eq!((neighbours[&9][0].line, neighbours[&9][0].similarity), (3, 1.0));
        let kept = BTreeMap::from([(9, neighbours[&9][..1].to_vec())]);
        let sample = Sample { rows: 4, learned: rows };
        let found = judged(sample, kept, &EvaluationSpec::default(), None).unwrap();
        assert_eq!(found.categories, BTreeMap::from([(2, vec!["empty".to_owned()])]));
        assert_eq!(found.pointers.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!((found.rows_looked_at, found.not_judged.len()), (4, 1));
    }
}
