//! A prediction against its reference by any choice of metrics.

use std::collections::BTreeMap;

use finetuned_protocol::{
    evaluation::Scores,
    text_metric::{RougeWords, TextMetric},
};

use crate::{
    bleu::BleuCounts,
    chrf::ChrfCounts,
    edit::edit_similarity,
    json::{is_json, wants_json},
    rouge::Rouge,
    squad::word_f1,
};

/// What a row adds to the figures of its corpus.
#[derive(Debug, Clone, Default)]
pub struct RowScores {
    pub scores: Scores,
    bleu: BleuCounts,
    chrf: ChrfCounts,
}

/// Figures of one row by each metric.
pub fn score(metrics: &[TextMetric], reference: &str, prediction: &str) -> RowScores {
    // The words of a row serve all measures that ask for the same kind.
    let mut words: BTreeMap<RougeWords, Rouge> = BTreeMap::new();
    let mut row = RowScores::default();
    for metric in metrics {
        let figure = match *metric {
            TextMetric::Rouge(measure, kind) => {
                let rouge = words.entry(kind).or_insert_with(|| Rouge::new(kind, reference, prediction));
                Some(rouge.score(measure).f1)
            }
            TextMetric::Bleu => {
                row.bleu = BleuCounts::new(reference, prediction);
                Some(row.bleu.sentence())
            }
            TextMetric::Chrf => {
                row.chrf = ChrfCounts::new(reference, prediction);
                Some(row.chrf.score())
            }
            TextMetric::ExactMatch => Some(f64::from(u8::from(reference.trim() == prediction.trim()))),
            TextMetric::WordF1 => Some(word_f1(reference, prediction)),
            TextMetric::EditSimilarity => Some(edit_similarity(reference, prediction)),
            TextMetric::JsonValid => json_valid(reference, prediction),
            // An encoder is not here; who has one adds what it says.
            TextMetric::EmbeddingCosine | TextMetric::EmbeddingTokenF1 => None,
        };
        row.scores.extend(figure.map(|figure| (*metric, figure)));
    }
    row
}

/// Whether the prediction is JSON where the reference asks for it.
fn json_valid(reference: &str, prediction: &str) -> Option<f64> {
    wants_json(reference).then(|| f64::from(u8::from(is_json(prediction))))
}

/// Means of rows, and the figures that only a whole corpus has.
#[derive(Debug, Clone, Default)]
pub struct CorpusScores {
    sums: BTreeMap<TextMetric, (f64, u64)>,
    bleu: BleuCounts,
    chrf: ChrfCounts,
    rows: u64,
}

/// A metric over all rows.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct CorpusFigure {
    /// Mean over the rows that the metric says something of.
    pub mean: f64,
    pub rows: u64,
    /// The figure of all rows taken as one text, which is not the mean of theirs: BLEU and chrF alone have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corpus: Option<f64>,
}

impl CorpusScores {
    /// Adds a row. The order of rows matters to the last bit only.
    pub fn add(&mut self, row: &RowScores) {
        for (metric, value) in &row.scores {
            let sum = self.sums.entry(*metric).or_default();
            *sum = (sum.0 + value, sum.1 + 1);
        }
        self.bleu.add(&row.bleu);
        self.chrf.add(&row.chrf);
        self.rows += 1;
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What was found, by metric.
    pub fn figures(&self) -> BTreeMap<TextMetric, CorpusFigure> {
        let figure = |(metric, (sum, rows)): (&TextMetric, &(f64, u64))| {
            let corpus = match metric {
                TextMetric::Bleu => Some(self.bleu.corpus()),
                TextMetric::Chrf => Some(self.chrf.score()),
                _ => None,
            };
            (*metric, CorpusFigure { mean: sum / *rows as f64, rows: *rows, corpus })
        };
        self.sums.iter().map(figure).collect()
    }
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
