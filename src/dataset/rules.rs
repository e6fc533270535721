//! Every rule of the linter and of preparation, in one table. Ids are part of the API: added, never renamed.

use finetuned_protocol::{
    error::FieldError,
    lint::{Finding, ReadingSpec, Severity},
};

/// One rule: what a finding's `rule` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub id: &'static str,
    pub severity: Severity,
    /// What the rule asks for, in one sentence.
    pub sentence: &'static str,
}

impl Rule {
    /// A finding of this rule.
    pub fn at(&self, line: u64, pointer: impl Into<String>, reason: impl Into<String>) -> Finding {
        let (pointer, reason) = (pointer.into(), reason.into());
        Finding { line, pointer, rule: self.id.to_owned(), severity: self.severity, reason }
    }
}

/// The rule of an id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}

/// Errors that leave a row that can be read; a file may do without these rules too.
const SWITCHABLE_ERRORS: &[&str] = &["answer_empty", "field_repeated", "nul_character"];

/// Whether a rule can be switched off: without most errors there would be no row to train on.
pub fn can_be_disabled(rule: &Rule) -> bool {
    rule.severity == Severity::Warning || SWITCHABLE_ERRORS.contains(&rule.id)
}

/// Checks what can be known of a reading without the file; `param` is its name in the request.
///
/// # Errors
/// A rule that does not exist or cannot be switched off, or a column without a name.
pub fn check_reading(param: &str, reading: &ReadingSpec) -> Result<(), FieldError> {
    for id in &reading.disabled_rules {
        let reason = match rule(id) {
            None => "is no rule of the linter",
            Some(rule) if !can_be_disabled(rule) => "cannot be switched off: without it there is no row to train on",
            Some(_) => continue,
        };
        let param = format!("{param}.disabled_rules");
        return Err(FieldError::new(param.clone(), format!("`{param}`: `{id}` {reason}")));
    }
    if reading.columns.iter().any(|(field, column)| field.is_empty() || column.is_empty()) {
        let param = format!("{param}.columns");
        return Err(FieldError::new(param.clone(), format!("`{param}` has an empty name")));
    }
    Ok(())
}

macro_rules! rules {
    ($($name:ident $id:literal $severity:ident $sentence:literal;)+) => {
        $(#[doc = $sentence] pub(crate) const $name: Rule =
            Rule { id: $id, severity: Severity::$severity, sentence: $sentence };)+

        /// All rules: the file's, the row's, the message's, then those that need a model or a second file.
        pub const RULES: &[&Rule] = &[$(&$name),+];
    };
}

rules! {
    FILE_EMPTY "file_empty" Error "A file has at least one row.";
    NOT_UTF8 "not_utf8" Error "Text is UTF-8.";
    TRUNCATED "truncated" Error "The file is whole: its last row, and the array that holds the rows, are closed.";
    TRAILING_TEXT "trailing_text" Error "Nothing but white space follows the array that holds the rows.";
    CONTAINER_UNKNOWN "container_unknown" Error
        "A file is JSON lines, a JSON array, CSV, Parquet or plain text, perhaps packed with gzip or zstd.";
    COMPRESSION_INVALID "compression_invalid" Error
        "A packed file is whole, unpacks to at most 250 times its size, and needs at most 64 MB to do so.";
    CSV_CELLS "csv_cells" Error "A row has as many cells as the first line names columns.";
    PARQUET_INVALID "parquet_invalid" Error "A Parquet file can be read, and none of its row groups has more than 1 GB.";
    ROW_TOO_LONG "row_too_long" Error "A row has at most 16 MB and 524,288 JSON values.";
    JSON_INVALID "json_invalid" Error "Each row is valid JSON (RFC 8259).";
    NOT_AN_OBJECT "not_an_object" Error "Each row is a JSON object.";
    FIELD_REPEATED "field_repeated" Error "No object names a field twice.";
    FORMAT_UNKNOWN "format_unknown" Error "A row has the fields of one of the formats.";
    FORMAT_MIXED "format_mixed" Error "All rows of a file have the format of the first.";
    FIELD_MISSING "field_missing" Error "A required field is there.";
    FIELD_TYPE "field_type" Error "A field has the type that its format asks for.";
    FIELD_UNKNOWN "field_unknown" Warning "A field that training does not use is left out.";
    NOT_SUPPORTED "not_supported" Error "A row uses nothing that training would have to ignore, such as images.";
    TOOL_INVALID "tool_invalid" Error
        "A tool is a function with a name of its own; its parameters, where given, are an object.";
    TOOL_CALL_INVALID "tool_call_invalid" Error
        "A call has an id and a function with a name and arguments, which are a JSON object written as a string.";
    TOOL_ANSWER_UNMATCHED "tool_answer_unmatched" Error
        "The message of a tool answers a call of the assistant's message before it.";
    TOOL_UNKNOWN "tool_unknown" Warning "Where a row lists tools, its calls are of those.";
    TOOL_CALL_UNANSWERED "tool_call_unanswered" Warning "A call is answered before the chat goes on.";
    MESSAGES_EMPTY "messages_empty" Error "A chat has at least one message.";
    ROLE_UNKNOWN "role_unknown" Error "A role is system, developer, user, assistant, tool or function.";
    ROLE_ORDER "role_order" Warning "The system message comes first, and users and assistants take turns.";
    WEIGHT_INVALID "weight_invalid" Error "A weight is a number from 0 to 100, and that of a row is above 0.";
    ANSWER_MISSING "answer_missing" Error "A row has an answer to learn from.";
    ANSWER_EMPTY "answer_empty" Error "An answer that carries loss is more than white space.";
    ANSWER_NOT_LAST "answer_not_last" Warning "The last message is an answer; what follows it teaches nothing.";
    PROMPT_EMPTY "prompt_empty" Warning "A prompt is more than white space.";
    NO_SUPERVISED_MESSAGE "no_supervised_message" Error "At least one answer has a weight other than 0.";
    ANSWERS_EQUAL "answers_equal" Error "The two answers of a pair differ.";
    TEXT_EMPTY "text_empty" Error "A document is more than white space.";
    TOKEN_INVALID "token_invalid" Error "A token id is a whole number from 0 to 4,294,967,295.";
    LABELS_LENGTH "labels_length" Error "There are as many labels as tokens.";
    LABELS_MISMATCH "labels_mismatch" Error "A label is -100 or the token at its own place.";
    NUL_CHARACTER "nul_character" Error "Text has no NUL character.";
    CONTROL_CHARACTER "control_character" Warning "Text has no control characters but tab and line breaks.";
    DUPLICATE_ROW "duplicate_row" Warning "No row equals an earlier one.";
    NEAR_DUPLICATE "near_duplicate" Warning
        "No row has four fifths of its runs of three words in common with an earlier one (estimated by MinHash).";
    DUPLICATES_UNCHECKED "duplicates_unchecked" Warning "There was room on the disk to compare all rows with each other.";
    ANSWER_SHORT "answer_short" Warning "An answer has more than one character.";
    ANSWER_REPETITIVE "answer_repetitive" Warning "An answer does not say the same words again and again.";
    ANSWER_REPEATS_PROMPT "answer_repeats_prompt" Warning "An answer does not begin with the whole of its prompt.";
    SECRET "secret" Warning "Text holds nothing that looks like a key, a token or a password of a service.";
    EMAIL_ADDRESS "email_address" Warning "Text holds no e-mail address.";
    CARD_NUMBER "card_number" Warning "Text holds no number of a payment card (13 to 19 digits that pass Luhn's check).";
    LANGUAGES_MIXED "languages_mixed" Warning "At least 95 of 100 answers are in one language.";
    TEMPLATE_FAILED "template_failed" Error "The template renders the row.";
    TEMPLATE_MISMATCH "template_mismatch" Error "The template has room for everything that the row says.";
    TEMPLATE_UNSTABLE "template_unstable" Warning
        "The template renders a message alike whatever follows it; other answers carry no loss.";
    SPECIAL_TOKEN_IN_TEXT "special_token_in_text" Warning "Text does not hold the text of the model's special tokens.";
    NO_END_MARKER "no_end_marker" Warning
        "The template ends an answer with a marker, so that the model learns to stop.";
    TOKEN_OUT_OF_RANGE "token_out_of_range" Error "A token id is one of the model's vocabulary.";
    NO_SUPERVISED_TOKEN "no_supervised_token" Warning
        "A token that carries loss is left after cutting to max_seq_len; other rows are dropped.";
    HELD_OUT_EMPTY "held_out_empty" Warning "Rows can be held out, so that the result can be judged.";
    ANSWER_TRUNCATED "answer_truncated" Warning "The whole answer fits into max_seq_len behind its prompt.";
    HELD_OUT_LEAK "held_out_leak" Warning "No row of the validation file equals one of the training file.";
    HELD_OUT_NEAR "held_out_near" Warning
        "No held-out row is nearly like a training row (by the measure of near_duplicate).";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_spelled_alike() {
        let ids: HashSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        for rule in RULES {
            assert!(rule.id.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()), "{}", rule.id);
            assert!(rule.sentence.ends_with('.'), "{}", rule.id);
            assert_eq!(super::rule(rule.id), Some(*rule));
        }
        assert_eq!(super::rule("nonsense"), None);
    }
}
