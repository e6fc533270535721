//! What can be known to be wrong with steps without any row.

use finetuned_protocol::{
    error::FieldError,
    preparation::{PreparationStep, Split},
};

use super::moment;
use crate::rules::{self, Rule, rule};

/// Rules that a row is judged by alone, without a model.
const ROW_RULES: &[&Rule] = &[
    &rules::NOT_UTF8,
    &rules::TRUNCATED,
    &rules::CSV_CELLS,
    &rules::ROW_TOO_LONG,
    &rules::JSON_INVALID,
    &rules::NOT_AN_OBJECT,
    &rules::FIELD_REPEATED,
    &rules::FORMAT_UNKNOWN,
    &rules::FORMAT_MIXED,
    &rules::FIELD_MISSING,
    &rules::FIELD_TYPE,
    &rules::FIELD_UNKNOWN,
    &rules::NOT_SUPPORTED,
    &rules::MESSAGES_EMPTY,
    &rules::ROLE_UNKNOWN,
    &rules::ROLE_ORDER,
    &rules::WEIGHT_INVALID,
    &rules::ANSWER_MISSING,
    &rules::ANSWER_EMPTY,
    &rules::ANSWER_NOT_LAST,
    &rules::PROMPT_EMPTY,
    &rules::NO_SUPERVISED_MESSAGE,
    &rules::ANSWERS_EQUAL,
    &rules::TEXT_EMPTY,
    &rules::TOKEN_INVALID,
    &rules::LABELS_LENGTH,
    &rules::LABELS_MISMATCH,
    &rules::NUL_CHARACTER,
    &rules::CONTROL_CHARACTER,
    &rules::ANSWER_SHORT,
    &rules::ANSWER_REPETITIVE,
    &rules::ANSWER_REPEATS_PROMPT,
    &rules::SECRET,
    &rules::EMAIL_ADDRESS,
    &rules::CARD_NUMBER,
];

/// The rule of an id, where rows can be dropped by it.
pub(super) fn row_rule(id: &str) -> Option<&'static Rule> {
    ROW_RULES.iter().copied().find(|rule| rule.id == id)
}

/// Rules that some step drops rows by.
pub fn dropped_rules(steps: &[PreparationStep]) -> Vec<&str> {
    let rules = steps.iter().filter_map(|step| match step {
        PreparationStep::Drop { rules } => Some(rules),
        _ => None,
    });
    rules.flatten().map(String::as_str).collect()
}

/// Checks rules and moments, which [`finetuned_protocol::preparation::check_steps`] does not know; `within` as there.
///
/// # Errors
/// A rule that does not exist or that no row alone breaks, or a text that is no moment.
pub fn check_steps(within: &str, steps: &[PreparationStep]) -> Result<(), FieldError> {
    for (index, step) in steps.iter().enumerate() {
        let refused = |field: &str, message: String| {
            let param = format!("{within}steps[{index}].{field}");
            FieldError::new(param.clone(), format!("`{param}`: {message}"))
        };
        match step {
            PreparationStep::Drop { rules } => {
                for id in rules {
                    why_not(id).map_or(Ok(()), |why| Err(refused("rules", format!("`{id}` {why}"))))?;
                }
            }
            PreparationStep::Split(Split::Time { from, .. }) if moment::parse(from).is_none() => {
                return Err(refused("from", format!("`{from}` is neither a date (2026-01-31) nor RFC 3339 text")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn why_not(id: &str) -> Option<&'static str> {
    if row_rule(id).is_some() {
        return None;
    }
    Some(match id {
        "duplicate_row" | "near_duplicate" => "is what the step `deduplicate` is for",
        id if rule(id).is_none() => "is no rule of the linter",
        _ => "is not judged by a row alone and without a model, so no row can be dropped by it",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_and_moments_are_checked_by_name() {
        for (step, words) in [
            (json!({"type": "drop", "rules": ["secret", "nonsense"]}), "`nonsense` is no rule"),
            (json!({"type": "drop", "rules": ["near_duplicate"]}), "`deduplicate`"),
            (json!({"type": "drop", "rules": ["no_supervised_token"]}), "without a model"),
            (json!({"type": "split", "by": "time", "column": "t", "from": "tomorrow"}), "`tomorrow` is neither"),
        ] {
            let steps: Vec<PreparationStep> = serde_json::from_value(json!([step])).unwrap_or_default();
            let refused = check_steps("preparation.", &steps).map_err(|error| (error.param, error.message));
            let Err((param, message)) = refused else { panic!("{step} passed") };
            assert!(param.starts_with("preparation.steps[0]."), "{param}");
            assert!(message.contains(words), "{message}");
        }
    }
}
