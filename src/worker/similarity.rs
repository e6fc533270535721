//! How alike answers are to their references: asked of `finetuned-engine embed`, since a text encoder is libtorch's affair.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
    time::Duration,
};

use finetuned_evaluation::RowSimilarity;
use finetuned_protocol::{
    embedding::{EmbedAnswer, EmbedRequest},
    evaluation::AnswersReport,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    WorkerOptions,
    engine::{Engine, EngineExit},
    environment,
    tail::last_lines,
};

/// Hundreds of answers take seconds.
const DEADLINE: Duration = Duration::from_secs(600);
const REQUESTS: &str = "embed-requests.jsonl";
const ANSWERS: &str = "embed-answers.jsonl";
const LOG: &str = "embed.log";

/// Why texts were not embedded.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    #[error("this worker has no text encoder")]
    None,
    /// The process could not be run, or its files not be written or read.
    #[error("the text encoder cannot be run: {0}")]
    Io(#[from] io::Error),
    #[error("the text encoder ended with {0}")]
    Ended(EngineExit),
    #[error("the text encoder did not end within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the text encoder left requests out")]
    LeftOut,
}

/// How alike both answers of each row are to its reference.
///
/// # Errors
/// The encoder cannot be used; the report says why.
pub async fn similarities(
    options: &WorkerOptions,
    folder: &Path,
    report: &AnswersReport,
) -> Result<Vec<RowSimilarity>, EncoderError> {
    let pair = |reference: &str, prediction: &str| EmbedRequest {
        reference: Some(reference.to_owned()),
        prediction: Some(prediction.to_owned()),
        ..EmbedRequest::default()
    };
    let requests: Vec<EmbedRequest> = report
        .answers
        .iter()
        .flat_map(|row| [pair(&row.reference, &row.base), pair(&row.reference, &row.tuned)])
        .collect();
    let answers = embed(options, folder, &requests).await?;
    let of = |answer: &EmbedAnswer| answer.similarity.ok_or(EncoderError::LeftOut);
    answers
        .chunks_exact(2)
        .map(|two| match two {
            [base, tuned] => Ok(RowSimilarity { base: of(base)?, tuned: of(tuned)? }),
            _ => Err(EncoderError::LeftOut),
        })
        .collect()
}

/// Answers of `finetuned-engine embed`, one a request. The engine computes on the CPU, so that nobody waits for a card.
///
/// # Errors
/// No encoder, or one that does not do its work in time.
pub async fn embed(
    options: &WorkerOptions,
    folder: &Path,
    requests: &[EmbedRequest],
) -> Result<Vec<EmbedAnswer>, EncoderError> {
    let encoder = options.encoder.as_deref().ok_or(EncoderError::None)?;
    write_lines(&folder.join(REQUESTS), requests)?;
    let arguments: Vec<OsString> = vec![
        "embed".into(),
        "--model".into(),
        encoder.into(),
        "--requests".into(),
        folder.join(REQUESTS).into(),
        "--out".into(),
        folder.join(ANSWERS).into(),
        "--device".into(),
        "cpu".into(),
        "--threads".into(),
        options.threads.to_string().into(),
    ];
    let log = folder.join(LOG);
    let allowed = environment::allowed(env::vars_os());
    let mut engine = Engine::start_once(&options.engine_program, arguments, (folder, &log), allowed).await?;
    match timeout(DEADLINE, engine.wait()).await {
        Ok(Ok(EngineExit::Status(0))) => {}
        Ok(Ok(exit)) => {
            let said = last_lines(&log, 3, 4096).join(" ");
            tracing::error!(%exit, %said, "the text encoder failed");
            return Err(EncoderError::Ended(exit));
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(EncoderError::Late),
    }
    let answers: Vec<EmbedAnswer> = read_lines(&folder.join(ANSWERS))?;
    if answers.len() == requests.len() { Ok(answers) } else { Err(EncoderError::LeftOut) }
}

fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in values {
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    BufReader::new(File::open(path)?).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
