//! How answers are judged: which metrics, which kinds of error, and from where on something is an error.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    judge::{JudgeRequest, JudgeSpec},
    request::{range, require},
    spec::AnswersSpec,
    status::named_enum,
    text_metric::{TextMetric, parse_metrics},
};

named_enum!(
    /// A kind of error that every evaluation looks for.
    ErrorCategory, "error category" {
        Empty = "empty",
        TooLong = "too_long",
        TooShort = "too_short",
        Repetitive = "repetitive",
        CopiesPrompt = "copies_prompt",
        Refusal = "refusal",
        WrongLanguage = "wrong_language",
        BrokenFormat = "broken_format",
        Misspelled = "misspelled",
        HallucinatedNumber = "hallucinated_number",
        HallucinatedName = "hallucinated_name",
    }
);

impl ErrorCategory {
    /// What makes an answer one of this category; numbers in words are the default thresholds.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Empty => "The answer has no letter and no digit.",
            Self::TooLong => {
                "The answer was cut off at the token limit, or has more than `too_long_ratio` times the reference's \
                 words and at least ten more."
            }
            Self::TooShort => {
                "The answer has fewer than `too_short_ratio` times the reference's words and at least five fewer."
            }
            Self::Repetitive => {
                "At least `repeated_share` of the answer's runs of four words occurred in it before, or it ends in one \
                 text three times or more; unless the reference does so too."
            }
            Self::CopiesPrompt => {
                "At least `copied_share` of the answer's words are one run of the prompt's, six words or more; unless \
                 the reference's are too."
            }
            Self::Refusal => "The answer begins by refusing the request, and the reference does not.",
            Self::WrongLanguage => {
                "The answer is in another script or language than the reference (than prompt and reference together, \
                 where that is too short to tell), the language told with at least `language_confidence`."
            }
            Self::BrokenFormat => {
                "The reference is a JSON object or array and the answer is no JSON; or a code fence is not closed; or a \
                 fence marked `json` holds none."
            }
            Self::Misspelled => {
                "At least `misspelled_words` words are in no US English dictionary, and neither in prompt, reference \
                 or training rows; code, addresses, numbers and names do not count. Only English answers are judged."
            }
            Self::HallucinatedNumber => {
                "At least `unsupported_numbers` numbers of the answer are in neither prompt nor reference; the numbers \
                 of a list's items do not count."
            }
            Self::HallucinatedName => {
                "At least `unsupported_names` names (capitalised words within a sentence) of the answer are in neither \
                 prompt nor reference."
            }
        }
    }
}

/// From where on something is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CategoryThresholds {
    /// Above 1.
    pub too_long_ratio: f64,
    /// Between 0 and 1.
    pub too_short_ratio: f64,
    /// Between 0 and 1.
    pub repeated_share: f64,
    /// Between 0 and 1.
    pub copied_share: f64,
    /// Between 0 and 1.
    pub language_confidence: f64,
    /// 1 or more.
    pub misspelled_words: u32,
    /// 1 or more.
    pub unsupported_numbers: u32,
    /// 1 or more.
    pub unsupported_names: u32,
}

impl Default for CategoryThresholds {
    fn default() -> Self {
        Self {
            too_long_ratio: 2.0,
            too_short_ratio: 0.5,
            repeated_share: 0.3,
            copied_share: 0.7,
            language_confidence: 0.8,
            misspelled_words: 1,
            unsupported_numbers: 1,
            unsupported_names: 1,
        }
    }
}

impl CategoryThresholds {
    fn check(&self) -> Result<(), FieldError> {
        let param = |name: &str| format!("evaluation.thresholds.{name}");
        require(self.too_long_ratio > 1.0 && self.too_long_ratio.is_finite(), &param("too_long_ratio"), "above 1")?;
        for (name, share) in [
            ("too_short_ratio", self.too_short_ratio),
            ("repeated_share", self.repeated_share),
            ("copied_share", self.copied_share),
            ("language_confidence", self.language_confidence),
        ] {
            require(share > 0.0 && share <= 1.0, &param(name), "above 0 and at most 1")?;
        }
        for (name, count) in [
            ("misspelled_words", self.misspelled_words),
            ("unsupported_numbers", self.unsupported_numbers),
            ("unsupported_names", self.unsupported_names),
        ] {
            range(Some(count), &param(name), 1, 1000)?;
        }
        Ok(())
    }
}

/// A kind of error of the user's own: answers that a regular expression matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatternCategory {
    /// 1 to 64 lower-case letters, digits or `_`.
    pub name: String,
    /// A regular expression in Rust's syntax, which has neither look-around nor back-references, and so always ends in
    /// time.
    pub pattern: String,
}

/// Most categories of the user's own.
const MAX_PATTERNS: usize = 32;
const MAX_PATTERN_BYTES: usize = 2000;

/// How the answers of a job are judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationRequest {
    /// Names of metrics; by default a choice of fourteen.
    pub metrics: Option<Vec<String>>,
    pub thresholds: Option<CategoryThresholds>,
    pub patterns: Option<Vec<PatternCategory>>,
    /// Has a judge look at the answers. Rows leave the house for it, so nobody is asked unless this is here.
    pub judge: Option<JudgeRequest>,
    /// Has the model answer some held-out prompts at each evaluation of the training, too; by default it does not.
    pub during_training: Option<DuringTrainingRequest>,
}

/// Answers during training, scored by those of `metrics` that need no encoder: series named `valid_` and the metric, which
/// `early_stopping.metric` may name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DuringTrainingRequest {
    /// The first held-out prompts by line: 1 to 64; default 8.
    pub rows: Option<u32>,
    /// 1 to 512; default 64.
    pub max_new_tokens: Option<u32>,
}

impl EvaluationRequest {
    /// The settings with every default spelled out. That each pattern compiles is for whoever compiles it to say.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn resolve(&self) -> Result<EvaluationSpec, FieldError> {
        self.resolve_beside(&EvaluationSpec::default())
    }

    /// The settings, with those of `other` where nothing is said; but no judge, unless one is asked for here.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_beside(&self, other: &EvaluationSpec) -> Result<EvaluationSpec, FieldError> {
        let metrics = match &self.metrics {
            None => other.metrics.clone(),
            Some(names) => parse_metrics(names.iter().map(String::as_str))
                .map_err(|why| FieldError::new("evaluation.metrics", format!("`evaluation.metrics`: {why}")))?,
        };
        let thresholds = self.thresholds.clone().unwrap_or_else(|| other.thresholds.clone());
        thresholds.check()?;
        let patterns = self.patterns.clone().unwrap_or_else(|| other.patterns.clone());
        check_patterns(&patterns)?;
        let taken = patterns.iter().map(|pattern| pattern.name.as_str()).collect();
        let judge = self.judge.as_ref().map(|judge| judge.resolve(&taken)).transpose()?;
        let during_training = self.during_training.as_ref().map(DuringTrainingRequest::resolve).transpose()?;
        Ok(EvaluationSpec { metrics, thresholds, patterns, judge, during_training })
    }
}

/// # Errors
/// A name that cannot be one.
pub(crate) fn check_category_name(name: &str, param: &str) -> Result<(), FieldError> {
    let allowed = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    require(
        allowed && (1..=64).contains(&name.len()),
        param,
        &format!("categories whose names have 1 to 64 lower-case letters, digits or `_`; one is `{name}`"),
    )
}

fn check_patterns(patterns: &[PatternCategory]) -> Result<(), FieldError> {
    let param = "evaluation.patterns";
    require(patterns.len() <= MAX_PATTERNS, param, "at most 32 categories")?;
    let mut names = BTreeSet::new();
    for PatternCategory { name, pattern } in patterns {
        check_category_name(name, param)?;
        require(
            name.parse::<ErrorCategory>().is_err() && names.insert(name),
            param,
            &format!("categories with names of their own; `{name}` is taken"),
        )?;
        require(
            pattern.len() <= MAX_PATTERN_BYTES,
            param,
            &format!("categories with patterns of at most {MAX_PATTERN_BYTES} bytes; that of `{name}` is longer"),
        )?;
    }
    Ok(())
}

/// The settings without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationSpec {
    #[schema(value_type = Vec<String>)]
    pub metrics: Vec<TextMetric>,
    pub thresholds: CategoryThresholds,
    pub patterns: Vec<PatternCategory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeSpec>,
    /// What is asked at each evaluation of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during_training: Option<AnswersSpec>,
}

impl EvaluationSpec {
    /// Metrics that texts alone give.
    pub fn text_metrics(&self) -> Vec<TextMetric> {
        self.metrics.iter().copied().filter(|metric| !metric.needs_encoder()).collect()
    }
}

impl DuringTrainingRequest {
    fn resolve(&self) -> Result<AnswersSpec, FieldError> {
        range(self.rows, "evaluation.during_training.rows", 1, 64)?;
        range(self.max_new_tokens, "evaluation.during_training.max_new_tokens", 1, 512)?;
        Ok(AnswersSpec { rows: self.rows.unwrap_or(8), max_new_tokens: self.max_new_tokens.unwrap_or(64) })
    }
}

impl Default for EvaluationSpec {
    fn default() -> Self {
        Self {
            metrics: TextMetric::of_a_job(),
            thresholds: CategoryThresholds::default(),
            patterns: Vec::new(),
            judge: None,
            during_training: None,
        }
    }
}
