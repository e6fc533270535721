//! `finetuned-engine embed`: embeddings of texts, and how alike pairs of texts are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use finetuned_model::{EncodedStates, Encoder, similarity};
use finetuned_protocol::embedding::{EmbedAnswer, EmbedRequest};
use finetuned_torch::Device;
use finetuned_weights::EncoderFolder;

use crate::loaded::{DeviceName, torch_device};

/// Requests computed together.
const TOGETHER: usize = 64;

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Text encoder of the BERT family: a folder as sentence-transformers writes it.
    #[arg(long)]
    model: PathBuf,
    /// File of JSON lines, each with `text`, or with `reference` and `prediction`; perhaps with an `id`.
    #[arg(long)]
    requests: PathBuf,
    /// File of JSON lines to write: the answer to each request, in their order.
    #[arg(long)]
    out: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceName,
    /// Threads for computing on the CPU.
    #[arg(long, default_value_t = crate::loaded::default_threads())]
    threads: usize,
}

/// What a request asks for.
enum Asked {
    Text(String),
    Pair { reference: String, prediction: String },
}

/// Writes the answer to every request.
///
/// # Errors
/// A model that cannot be loaded, a line that is no request (named by its number), or the disk's.
pub fn embed(args: &EmbedArgs) -> anyhow::Result<()> {
    let requests = read(&args.requests).with_context(|| format!("while reading {}", args.requests.display()))?;
    let device = torch_device(args.device, args.threads)?;
    let encoder = Encoder::load(EncoderFolder::open(&args.model)?, device)?;
    save(&args.out, &encoder, &requests).with_context(|| format!("while writing {}", args.out.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<(Option<String>, Asked)>> {
    let mut requests = Vec::new();
    for (line, number) in BufReader::new(File::open(path)?).lines().zip(1..) {
        let line = line?;
        if !line.trim().is_empty() {
            requests.push(asked(&line).with_context(|| format!("line {number}"))?);
        }
    }
    Ok(requests)
}

fn asked(line: &str) -> anyhow::Result<(Option<String>, Asked)> {
    let EmbedRequest { id, text, reference, prediction } = serde_json::from_str(line)?;
    match (text, reference, prediction) {
        (Some(text), None, None) => Ok((id, Asked::Text(text))),
        (None, Some(reference), Some(prediction)) => Ok((id, Asked::Pair { reference, prediction })),
        _ => bail!("give either `text`, or `reference` and `prediction`"),
    }
}

fn save(path: &Path, encoder: &Encoder, requests: &[(Option<String>, Asked)]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for batch in requests.chunks(TOGETHER) {
        let texts: Vec<&str> = batch
            .iter()
            .flat_map(|(_, asked)| match asked {
                Asked::Text(text) => vec![text.as_str()],
                Asked::Pair { reference, prediction } => vec![reference.as_str(), prediction.as_str()],
            })
            .collect();
        let states = encoder.states(&texts)?;
        let mut states = states.iter();
        for (id, asked) in batch {
            let answer = match (asked, states.next()) {
                (Asked::Text(_), Some(state)) => of_text(state)?,
                (Asked::Pair { .. }, Some(reference)) => {
                    let prediction = states.next().context("a pair has one text only")?;
                    of_pair(reference, prediction)?
                }
                (_, None) => bail!("a request was left without its texts"),
            };
            write_line(&mut out, &EmbedAnswer { id: id.clone(), ..answer })?;
        }
    }
    Ok(out.flush()?)
}

fn of_text(state: &EncodedStates) -> anyhow::Result<EmbedAnswer> {
    let embedding = Vec::try_from(&state.embedding.f_to_device(Device::Cpu)?)?;
    let (tokens, truncated) = (state.length as u64, state.truncated);
    Ok(EmbedAnswer { embedding: Some(embedding), tokens, truncated, ..EmbedAnswer::default() })
}

fn of_pair(reference: &EncodedStates, prediction: &EncodedStates) -> anyhow::Result<EmbedAnswer> {
    Ok(EmbedAnswer {
        similarity: Some(similarity(reference, prediction)?),
        tokens: (reference.length + prediction.length) as u64,
        truncated: reference.truncated || prediction.truncated,
        ..EmbedAnswer::default()
    })
}

fn write_line(out: &mut impl Write, answer: &EmbedAnswer) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn minilm() -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.runtime/models/all-minilm-l6-v2")).to_owned()
    }

    fn run(lines: &str) -> anyhow::Result<Vec<EmbedAnswer>> {
        let folder = tempfile::tempdir()?;
        let (requests, out) = (folder.path().join("requests"), folder.path().join("out"));
        std::fs::write(&requests, lines)?;
        embed(&EmbedArgs { model: minilm(), requests, out: out.clone(), device: DeviceName::Cpu, threads: 1 })?;
        Ok(std::fs::read_to_string(out)?.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn texts_and_pairs_are_answered_in_their_order() {
        let answers = run(concat!(
            "{\"id\": \"a\", \"text\": \"A cat sits on the mat.\"}\n\n",
            "{\"reference\": \"A cat sits on the mat.\", \"prediction\": \"A feline rests on a rug.\"}\n",
            "{\"id\": \"c\", \"text\": \"A feline rests on a rug.\"}\n",
        ))
        .unwrap();
        let [first, pair, last] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((first.id.as_deref(), pair.id.as_deref(), last.id.as_deref()), (Some("a"), None, Some("c")));
        let (a, b) = (first.embedding.as_ref().unwrap(), last.embedding.as_ref().unwrap());
        let cosine: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let similarity = pair.similarity.unwrap();
        assert!((similarity.cosine - cosine).abs() < 1e-5 && pair.embedding.is_none(), "{similarity:?} {cosine}");
        assert_eq!((a.len(), pair.tokens), (384, first.tokens + last.tokens));
    }

    #[test]
    fn a_line_that_is_no_request_is_named() {
        let refusal = |line: &str| format!("{:#}", run(&format!("{{\"text\": \"a\"}}\n{line}\n")).unwrap_err());
        assert!(refusal("{\"reference\": \"a\"}").contains("line 2: give either `text`"));
        assert!(refusal("{\"txt\": \"a\"}").contains("`txt`"));
    }
}
