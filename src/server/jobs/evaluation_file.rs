//! Held-out rows with both answers as a file, JSON lines or CSV (RFC 4180).

use std::{collections::BTreeSet, convert::Infallible, str::FromStr};

use axum::{http::HeaderMap, response::Response};
use bytes::Bytes;
use finetuned_protocol::{
    evaluation::{AnswerPair, Scores},
    ids::JobId,
    text_metric::TextMetric,
};
use futures::stream;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::http::{download::Download, error::ApiError};

/// What a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Jsonl,
    Csv,
}

impl FromStr for FileKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "jsonl" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            _ => Err("it is `jsonl` or `csv`"),
        }
    }
}

/// The rows as a file.
///
/// # Errors
/// A range outside the file.
pub fn download(kind: FileKind, pairs: &[AnswerPair], job: JobId, headers: &HeaderMap) -> Result<Response, ApiError> {
    let text = match kind {
        FileKind::Jsonl => jsonl(pairs)?,
        FileKind::Csv => csv(pairs),
    };
    send(kind, text, &format!("{job}-evaluation"), headers)
}

/// A text as a file of this kind, `name` being its name without the ending.
///
/// # Errors
/// A range outside the file.
pub fn send(kind: FileKind, text: String, name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let (content_type, ending) = match kind {
        FileKind::Jsonl => ("application/jsonl", "jsonl"),
        FileKind::Csv => ("text/csv; charset=utf-8", "csv"),
    };
    let bytes = Bytes::from(text);
    let download = Download {
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(&bytes)),
        content_type,
        filename: format!("{name}.{ending}"),
    };
    let wanted = download.wanted(headers)?;
    let range = wanted.range(download.bytes).unwrap_or_default();
    let part = bytes.slice(range.start as usize..range.end as usize);
    download.respond(&wanted, stream::iter([Ok::<_, Infallible>(part)]))
}

/// One JSON object a line.
///
/// # Errors
/// What cannot be written, which is a fault of ours.
pub fn jsonl<T: Serialize>(values: &[T]) -> Result<String, ApiError> {
    let mut text = String::new();
    for value in values {
        text.push_str(&serde_json::to_string(value).map_err(ApiError::internal)?);
        text.push('\n');
    }
    Ok(text)
}

fn csv(pairs: &[AnswerPair]) -> String {
    let metrics: BTreeSet<TextMetric> =
        pairs.iter().flat_map(|pair| pair.base_scores.keys().chain(pair.tuned_scores.keys())).copied().collect();
    let fixed = [
        "line",
        "prompt",
        "reference",
        "base",
        "tuned",
        "base_ended",
        "tuned_ended",
        "base_categories",
        "tuned_categories",
    ];
    let sides = metrics.iter().flat_map(|metric| [format!("base_{metric}"), format!("tuned_{metric}")]);
    let mut text = record(fixed.map(str::to_owned).into_iter().chain(sides));
    for pair in pairs {
        let fixed = [
            pair.line.to_string(),
            pair.prompt.clone(),
            pair.reference.clone(),
            pair.base.clone(),
            pair.tuned.clone(),
            pair.base_ended.to_string(),
            pair.tuned_ended.to_string(),
            pair.base_categories.join(" "),
            pair.tuned_categories.join(" "),
        ];
        let figure = |scores: &Scores, metric| scores.get(metric).map_or(String::new(), ToString::to_string);
        let sides =
            metrics.iter().flat_map(|metric| [figure(&pair.base_scores, metric), figure(&pair.tuned_scores, metric)]);
        text.push_str(&record(fixed.into_iter().chain(sides)));
    }
    text
}

/// A line of a table.
pub fn record(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    };
    format!("{}\r\n", cells.map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = ["a", "b,c", "say \"no\"", "two\nlines"].map(str::to_owned);
        assert_eq!(record(cells.into_iter()), "a,\"b,c\",\"say \"\"no\"\"\",\"two\nlines\"\r\n");
    }
}
