//! Names of the metrics that compare an answer with its reference as texts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::status::UnknownName;

/// What ROUGE counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RougeMeasure {
    /// Common n-grams; n is 1 to 5.
    N(u8),
    /// Longest common subsequence of words.
    L,
    /// Longest common subsequences line by line.
    Lsum,
}

/// Which words ROUGE counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RougeWords {
    /// Lower-cased runs of ASCII letters and digits, as rouge-score takes them; text in other scripts has none.
    Ascii,
    /// The same, those of more than three letters cut to their Porter stem.
    Stemmed,
    /// Lower-cased words by the rules of Unicode (UAX #29), in any script.
    Unicode,
}

/// A metric of one answer against its reference; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextMetric {
    /// F1 of ROUGE, 0 to 1.
    Rouge(RougeMeasure, RougeWords),
    /// BLEU of the sentence as sacrebleu gives it, 0 to 100.
    Bleu,
    /// chrF2 of the sentence as sacrebleu gives it, 0 to 100.
    Chrf,
    /// 1 where both texts are the same but for space around them, else 0.
    ExactMatch,
    /// F1 over words as SQuAD's script counts them, 0 to 1.
    WordF1,
    /// 1 minus the Levenshtein distance in characters over the longer length, 0 to 1.
    EditSimilarity,
    /// Where the reference is a JSON object or array: 1 where the answer is JSON too, else 0.
    JsonValid,
    /// Cosine of both texts' embeddings by the service's text encoder, -1 to 1.
    EmbeddingCosine,
    /// F1 of matching each token of one text with the nearest of the other by the encoder's last layer, -1 to 1: BERTScore's
    /// greedy matching with another model, without weighting by rarity and without rescaling.
    EmbeddingTokenF1,
}

const MEASURES: [RougeMeasure; 7] = [
    RougeMeasure::N(1),
    RougeMeasure::N(2),
    RougeMeasure::N(3),
    RougeMeasure::N(4),
    RougeMeasure::N(5),
    RougeMeasure::L,
    RougeMeasure::Lsum,
];

impl TextMetric {
    /// What is computed where nobody asks for a choice.
    pub const DEFAULT: [Self; 12] = [
        Self::Rouge(RougeMeasure::N(1), RougeWords::Ascii),
        Self::Rouge(RougeMeasure::N(2), RougeWords::Ascii),
        Self::Rouge(RougeMeasure::L, RougeWords::Ascii),
        Self::Rouge(RougeMeasure::Lsum, RougeWords::Ascii),
        Self::Rouge(RougeMeasure::L, RougeWords::Stemmed),
        Self::Rouge(RougeMeasure::L, RougeWords::Unicode),
        Self::Bleu,
        Self::Chrf,
        Self::ExactMatch,
        Self::WordF1,
        Self::EditSimilarity,
        Self::JsonValid,
    ];

    /// What a job's answers are scored by where nobody asks for a choice: [`Self::DEFAULT`], and what an encoder gives.
    pub fn of_a_job() -> Vec<Self> {
        Self::DEFAULT.into_iter().chain([Self::EmbeddingCosine, Self::EmbeddingTokenF1]).collect()
    }

    /// Whether it takes a text encoder, so that texts alone do not give it.
    pub fn needs_encoder(self) -> bool {
        matches!(self, Self::EmbeddingCosine | Self::EmbeddingTokenF1)
    }

    /// Every metric there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let rouge = [RougeWords::Ascii, RougeWords::Stemmed, RougeWords::Unicode]
            .into_iter()
            .flat_map(|words| MEASURES.into_iter().map(move |measure| Self::Rouge(measure, words)));
        let others = [
            Self::Bleu,
            Self::Chrf,
            Self::ExactMatch,
            Self::WordF1,
            Self::EditSimilarity,
            Self::JsonValid,
            Self::EmbeddingCosine,
            Self::EmbeddingTokenF1,
        ];
        rouge.chain(others)
    }
}

impl fmt::Display for TextMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measure, words) = match self {
            Self::Rouge(measure, words) => (measure, words),
            Self::Bleu => return f.write_str("bleu"),
            Self::Chrf => return f.write_str("chrf"),
            Self::ExactMatch => return f.write_str("exact_match"),
            Self::WordF1 => return f.write_str("word_f1"),
            Self::EditSimilarity => return f.write_str("edit_similarity"),
            Self::JsonValid => return f.write_str("json_valid"),
            Self::EmbeddingCosine => return f.write_str("embedding_cosine"),
            Self::EmbeddingTokenF1 => return f.write_str("embedding_token_f1"),
        };
        match measure {
            RougeMeasure::N(n) => write!(f, "rouge_{n}")?,
            RougeMeasure::L => f.write_str("rouge_l")?,
            RougeMeasure::Lsum => f.write_str("rouge_lsum")?,
        }
        f.write_str(match words {
            RougeWords::Ascii => "",
            RougeWords::Stemmed => "_stemmed",
            RougeWords::Unicode => "_unicode",
        })
    }
}

impl FromStr for TextMetric {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::all()
            .find(|metric| metric.to_string() == text)
            .ok_or_else(|| UnknownName { text: text.to_owned(), kind: "metric" })
    }
}

impl Serialize for TextMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TextMetric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Reads names, each once.
///
/// # Errors
/// A sentence that names the unknown or repeated one, or says that none was given, and what there is.
pub fn parse_metrics<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<TextMetric>, String> {
    let mut metrics = Vec::new();
    for name in names {
        let metric: TextMetric = name.parse().map_err(|_| format!("no metric is called `{name}`; {}", there_are()))?;
        if metrics.contains(&metric) {
            return Err(format!("`{name}` is named twice; name each metric once"));
        }
        metrics.push(metric);
    }
    if metrics.is_empty() { Err(format!("name at least one metric; {}", there_are())) } else { Ok(metrics) }
}

fn there_are() -> String {
    let names: Vec<String> = TextMetric::all().map(|metric| metric.to_string()).collect();
    format!("there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own_and_reads_back() {
        let names: Vec<String> = TextMetric::all().map(|metric| metric.to_string()).collect();
        assert_eq!(names.len(), 29);
        assert!(
            ["rouge_5_stemmed", "rouge_lsum_unicode", "rouge_1", "chrf"]
                .iter()
                .all(|name| names.contains(&(*name).to_owned()))
        );
        assert!(TextMetric::all().all(|metric| metric.to_string().parse() == Ok(metric)));
    }

    #[test]
    fn an_unknown_or_repeated_name_is_refused_by_name() {
        let refusal = |names: &[&str]| parse_metrics(names.iter().copied()).err().unwrap_or_default();
        assert!(refusal(&["rouge_6"]).starts_with("no metric is called `rouge_6`; there are rouge_1, rouge_2,"));
        assert_eq!(refusal(&["bleu", "chrf", "bleu"]), "`bleu` is named twice; name each metric once");
        assert!(refusal(&[]).starts_with("name at least one metric"));
        assert_eq!(parse_metrics(["bleu"]), Ok(vec![TextMetric::Bleu]));
    }
}
