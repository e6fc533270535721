//! Datasets that are made of others, step by step: as a client asks for them, and the record of what was done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    ids::FileId,
    lint::ReadingSpec,
    request::{range, require},
    status::named_enum,
};

/// Steps of one preparation.
pub const MOST_STEPS: usize = 16;
/// Files of one set.
pub const MOST_FILES: usize = 32;
const MOST_RULES: usize = 32;
const HIGHEST_WEIGHT: f64 = 100.0;

/// One file of a set, and how much of it is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileShare {
    /// Id of an uploaded or prepared file.
    pub id: String,
    /// How often each row comes, above 0 and at most 100; default 1. Of 0.5, half of the rows come, chosen by a seeded
    /// hash; of 2, every row comes twice; of 2.5, twice, and half of them a third time. Rows that are held out come once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

impl FileShare {
    pub fn weight(&self) -> f64 {
        self.weight.unwrap_or(1.0)
    }
}

/// One step. Each is applied to the rows that the one before left, in the order in which they are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreparationStep {
    /// Of rows that say the same, whatever their spelling, the first stays.
    Deduplicate {
        /// Rows that are nearly like an earlier one leave, too, as the rule `near_duplicate` finds them; default false.
        #[serde(default)]
        near: bool,
    },
    /// Rows that break one of these rules of the linter leave. Of rules that need a model or several rows there is none
    /// here. A file whose status is `error` can be prepared where this names all rules that it is in error by.
    Drop {
        /// Ids of rules, 1 to 32.
        rules: Vec<String>,
    },
    /// Secrets and personal data, as the linter finds them, become `[secret]`, `[email_address]` and `[card_number]`,
    /// in every text of a row.
    Redact {
        /// Default: all kinds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kinds: Option<Vec<PrivateData>>,
    },
    /// Rows stay whose texts are neither too short nor too long.
    FilterLength(LengthFilter),
    /// Of each source, the first rows stay. A `shuffle` before it makes them any rows.
    CapPerSource(SourceCap),
    /// Rows are held out, for a file of their own. At most one step splits.
    Split(Split),
    /// The rows in an order of their own, by the seed.
    Shuffle {},
}

named_enum!(
    /// What is not for everyone's eyes, by the rule of the linter that finds it.
    PrivateData, "kind of private data" {
        /// A key, a token or a private key.
        Secret = "secret",
        EmailAddress = "email_address",
        /// A number that passes for a payment card's.
        CardNumber = "card_number",
    }
);

/// How long a row may be, all its texts together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "unit", rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthFilter {
    Characters {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// Without those that a template adds.
    Tokens {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
        /// A base model, or a tuned one for the one that it was made from: whose tokens are counted. In a job, the job's.
        model: String,
    },
}

impl LengthFilter {
    /// The least and the most.
    pub fn bounds(&self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Characters { min, max } | Self::Tokens { min, max, .. } => (*min, *max),
        }
    }
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceCap {
    /// Each file is one.
    File {
        /// 1 or more.
        rows: u64,
    },
    /// Rows with the same value are of one source; at most 100,000 values.
    Column {
        /// 1 or more.
        rows: u64,
        /// Name of a field of the rows.
        column: String,
    },
}

/// Which rows are held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// A share of the rows, chosen by a hash of the seed and of what a row says; equal rows go together.
    Hash {
        /// Share that is held out: above 0, at most 0.5.
        held_out: f64,
        /// Name of a field of the rows, a label: the same share is held out of the rows of each value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stratify_by: Option<String>,
    },
    /// The same, but rows with the same value of a field all go to one side.
    Group {
        /// Share of the rows that is held out, as nearly as whole groups allow: above 0, at most 0.5.
        held_out: f64,
        /// Name of a field of the rows.
        column: String,
    },
    /// Everything from a moment on.
    Time {
        /// Name of a field of the rows: a date, RFC 3339 text or Unix seconds.
        column: String,
        /// The moment, as a date (`2026-01-31`) or RFC 3339 text (`2026-01-31T12:00:00Z`).
        from: String,
    },
}

/// The step that counts tokens, and the model whose tokens they are.
pub fn token_model(steps: &[PreparationStep]) -> Option<(usize, &str)> {
    steps.iter().enumerate().find_map(|(index, step)| Some((index, step.token_model()?)))
}

impl PreparationStep {
    fn token_model(&self) -> Option<&str> {
        match self {
            Self::FilterLength(LengthFilter::Tokens { model, .. }) => Some(model),
            _ => None,
        }
    }

    fn check(&self, at: &str) -> Result<(), FieldError> {
        let share = |held_out: f64| {
            require(held_out > 0.0 && held_out <= 0.5, &format!("{at}.held_out"), "above 0 and at most 0.5")
        };
        let rows = |rows: u64| require(rows > 0, &format!("{at}.rows"), "1 or more");
        match self {
            Self::Deduplicate { .. } | Self::Shuffle {} | Self::Split(Split::Time { .. }) => Ok(()),
            Self::Drop { rules } => {
                let at = format!("{at}.rules");
                require((1..=MOST_RULES).contains(&rules.len()), &at, &format!("a list of 1 to {MOST_RULES} rules"))
            }
            Self::Redact { kinds } => require(
                kinds.as_ref().is_none_or(|kinds| !kinds.is_empty()),
                &format!("{at}.kinds"),
                "absent, for all kinds, or a list of at least one",
            ),
            Self::FilterLength(filter) => {
                let (min, max) = filter.bounds();
                require(min.is_some() || max.is_some(), &format!("{at}.max"), "given, or `min`, or both")?;
                let is_range = min.unwrap_or(0) <= max.unwrap_or(u64::MAX);
                require(is_range, &format!("{at}.max"), "no less than `min`")
            }
            Self::CapPerSource(SourceCap::File { rows: most } | SourceCap::Column { rows: most, .. }) => rows(*most),
            Self::Split(Split::Hash { held_out, .. } | Split::Group { held_out, .. }) => share(*held_out),
        }
    }
}

/// Steps of a job's own preparation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreparationRequest {
    /// At most 16.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub steps: Vec<PreparationStep>,
    /// 0 to 2147483647, default 0: whatever steps choose at random follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

/// The body of `POST /v1/files/prepare`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareFilesRequest {
    /// 1 to 32 files of one row format; their rows follow each other.
    #[schema(min_items = 1, max_items = 32)]
    pub files: Vec<FileShare>,
    /// At most 16; none only joins the files, or writes one as JSON lines.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub steps: Vec<PreparationStep>,
    /// 0 to 2147483647, default 0: whatever steps choose at random follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

impl PrepareFilesRequest {
    /// Checks what can be known without files and models.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), FieldError> {
        check_files("files", &self.files)?;
        check_steps("", &self.steps, self.seed)
    }
}

/// Checks a set of files; `param` is its name in the request.
///
/// # Errors
/// Too few or too many, one that is named twice, or a weight out of its range.
pub fn check_files(param: &str, files: &[FileShare]) -> Result<(), FieldError> {
    require((1..=MOST_FILES).contains(&files.len()), param, &format!("a list of 1 to {MOST_FILES} files"))?;
    for (index, file) in files.iter().enumerate() {
        let is_weight = file.weight() > 0.0 && file.weight() <= HIGHEST_WEIGHT;
        require(is_weight, &format!("{param}[{index}].weight"), "above 0 and at most 100")?;
        let is_new = files[..index].iter().all(|other| other.id != file.id);
        require(is_new, &format!("{param}[{index}].id"), "named once; give it a `weight` of 2 to take its rows twice")?;
    }
    Ok(())
}

/// Checks steps and their seed; `within` is where they lie in the request, with a dot at its end.
///
/// # Errors
/// Too many steps, or the first field that is out of its range.
pub fn check_steps(within: &str, steps: &[PreparationStep], seed: Option<u32>) -> Result<(), FieldError> {
    require(steps.len() <= MOST_STEPS, &format!("{within}steps"), &format!("a list of at most {MOST_STEPS} steps"))?;
    range(seed, &format!("{within}seed"), 0, 2_147_483_647)?;
    let (mut splits, mut model) = (0, None);
    for (index, step) in steps.iter().enumerate() {
        let at = format!("{within}steps[{index}]");
        step.check(&at)?;
        splits += u32::from(matches!(step, PreparationStep::Split(_)));
        require(splits <= 1, &at, "no second `split`; rows are held out once")?;
        let counted = step.token_model();
        let agree = counted.is_none() || model.is_none() || counted == model;
        require(agree, &format!("{at}.model"), "the same in all steps that count tokens")?;
        model = model.or(counted);
    }
    Ok(())
}

/// Where a prepared dataset comes from and what became of every row. The same sources, steps and seed give the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// In the order in which they were read.
    pub sources: Vec<SourceRecord>,
    pub seed: u32,
    pub steps: Vec<StepRecord>,
    /// How the files that were made are read.
    pub reading: ReadingSpec,
    pub training: PreparedRecord,
    /// What a split held out.
    pub held_out: Option<PreparedRecord>,
}

/// A file that rows were taken from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceRecord {
    #[schema(value_type = String)]
    pub file_id: FileId,
    /// Of its bytes, in hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
    pub weight: f64,
    /// All that it has.
    pub rows_in: u64,
    /// Rows that could not be read and left by a rule that a step drops rows by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_by_rule: BTreeMap<String, u64>,
    /// Rows of the training file that come from it, after all steps and its weight.
    pub training_rows: u64,
    pub held_out_rows: u64,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepRecord {
    pub step: PreparationStep,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Of those that came out, how many are held out.
    pub held_out_rows: u64,
    /// Rows that left, by the rule that they left by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_by_rule: BTreeMap<String, u64>,
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreparedRecord {
    #[schema(value_type = String)]
    pub file_id: FileId,
    pub sha256: String,
    pub bytes: u64,
    pub rows: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn refused(body: Value) -> String {
        match serde_json::from_value::<PrepareFilesRequest>(body) {
            Ok(request) => request.check().unwrap_err().param,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn steps_are_read_strictly_and_checked() {
        let files = json!([{"id": "file-1"}]);
        let step = |step: Value| json!({"files": files, "steps": [step]});
        let steps = json!([
            {"type": "deduplicate", "near": true}, {"type": "drop", "rules": ["secret"]}, {"type": "redact"},
            {"type": "redact", "kinds": ["secret", "card_number"]},
            {"type": "filter_length", "unit": "characters", "max": 9},
            {"type": "filter_length", "unit": "tokens", "min": 1, "max": 9, "model": "m"},
            {"type": "cap_per_source", "by": "file", "rows": 3},
            {"type": "cap_per_source", "by": "column", "rows": 3, "column": "site"},
            {"type": "split", "by": "hash", "held_out": 0.1, "stratify_by": "label"}, {"type": "shuffle"},
        ]);
        let good = json!({"files": files, "steps": steps, "seed": 3});
        let request: PrepareFilesRequest = serde_json::from_value(good.clone()).unwrap();
        request.check().unwrap();
        assert_eq!(serde_json::to_value(request).unwrap(), good, "what is read is written alike");
        for (body, words) in [
            (json!({"files": []}), "files"),
            (json!({"files": [{"id": "a"}, {"id": "a"}]}), "files[1].id"),
            (json!({"files": [{"id": "a", "weight": 0}]}), "files[0].weight"),
            (json!({"files": [{"id": "a", "weight": 101}]}), "files[0].weight"),
            (json!({"files": files, "steps": vec![json!({"type": "shuffle"}); 17]}), "steps"),
            (json!({"files": files, "steps": [{"type": "sort"}]}), "unknown variant `sort`"),
            (json!({"files": files, "steps": [{"type": "shuffle", "by": "size"}]}), "unknown field `by`"),
            (json!({"files": files, "steps": [{"type": "deduplicate", "nearly": true}]}), "unknown field `nearly`"),
            (json!({"files": files, "seed": 2_147_483_648_u32}), "seed"),
            (step(json!({"type": "drop", "rules": []})), "steps[0].rules"),
            (step(json!({"type": "redact", "kinds": ["names"]})), "unknown variant `names`"),
            (step(json!({"type": "filter_length", "unit": "characters"})), "steps[0].max"),
            (step(json!({"type": "filter_length", "unit": "tokens", "max": 3})), "missing field `model`"),
            (step(json!({"type": "filter_length", "unit": "words", "max": 3})), "unknown variant `words`"),
            (step(json!({"type": "filter_length", "unit": "characters", "min": 3, "max": 2})), "steps[0].max"),
            (step(json!({"type": "cap_per_source", "by": "file", "rows": 0})), "steps[0].rows"),
            (step(json!({"type": "cap_per_source", "by": "file", "rows": 1, "column": "x"})), "unknown field `column`"),
            (step(json!({"type": "split", "by": "hash", "held_out": 0.6})), "steps[0].held_out"),
            (step(json!({"type": "split", "by": "group", "held_out": 0.1})), "missing field `column`"),
            (
                step(json!({"type": "split", "by": "time", "column": "t", "from": "x", "stratify_by": "y"})),
                "unknown field",
            ),
            (
                json!({"files": files, "steps": vec![json!({"type": "split", "by": "hash", "held_out": 0.1}); 2]}),
                "steps[1]",
            ),
        ] {
            let said = refused(body);
            assert!(said.contains(words), "{said}");
        }
    }
}
