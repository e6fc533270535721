//! What is wrong with a job, as its client reads it.

use finetuned_dataset::{PrepareError, SourceFile};
use finetuned_protocol::{
    error::{ErrorCode, FieldError, JobError},
    lint::Finding,
    spec::TemplateSpec,
};
use finetuned_weights::WeightsError;

use crate::{error::AttemptError, words};

/// Rows that are named in an error; its message says how many there are.
const MOST_DETAILS: usize = 100;

/// A setting that this model or dataset cannot meet.
pub fn settings(error: FieldError) -> AttemptError {
    AttemptError::Failed(JobError::new(ErrorCode::InvalidSettings, error.message).param(error.param))
}

/// A base model that cannot be used. Its path is the operator's affair, not the client's.
pub fn model(name: &str, error: &WeightsError) -> AttemptError {
    tracing::error!(model = name, %error, "a base model cannot be used");
    let message = match error.names_a_path() {
        false => format!("The base model {name} cannot be used: {error}"),
        true => format!("The files of the base model {name} cannot be used"),
    };
    let hint = "`finetuned models add` checks a model and says what is wrong with it.";
    AttemptError::Failed(JobError::new(ErrorCode::InvalidModel, message).param("model").hint(hint))
}

/// Rows that could not be made ready.
pub fn rows(error: PrepareError, template: &TemplateSpec) -> AttemptError {
    match error {
        PrepareError::Rows { file, findings, total, .. } => {
            let (code, param) = blame(file);
            let count = words::counted(total, "finding");
            let message = format!("The {file} cannot be trained on: {count} must be mended");
            let hint = "Each is listed with its line and reason; mend them and upload the file again.";
            AttemptError::Failed(with_rows(JobError::new(code, message).param(param).hint(hint), &findings))
        }
        PrepareError::NothingToTrain { rows, dropped, findings } => {
            let message = format!(
                "No training row is left: of {}, {} without an answer within `max_seq_len`",
                words::counted(rows.train, "row"),
                words::counted(dropped, "row"),
            );
            let error = JobError::new(ErrorCode::InvalidTrainingFile, message).param("training_file");
            AttemptError::Failed(with_rows(error.hint("Raise `max_seq_len`, or add rows."), &findings))
        }
        PrepareError::Tokenizer { file, cause } => tokenizer(file, &cause, template),
        PrepareError::Read(error) => AttemptError::Io { doing: "reading a dataset", source: error.cause },
        // Only the attempt's own end asks for it, and that speaks for itself.
        PrepareError::Cancelled => AttemptError::LeaseLost,
    }
}

fn tokenizer(file: SourceFile, cause: &WeightsError, template: &TemplateSpec) -> AttemptError {
    let of_user = matches!(template, TemplateSpec::Jinja { .. }) && matches!(cause, WeightsError::Template { .. });
    let error = if of_user {
        JobError::new(ErrorCode::InvalidSettings, format!("The template cannot be used: {cause}")).param("template")
    } else {
        let message = format!("The base model's tokenizer cannot read the {file}: {cause}");
        JobError::new(ErrorCode::InvalidModel, message).param("model")
    };
    AttemptError::Failed(error)
}

fn blame(file: SourceFile) -> (ErrorCode, &'static str) {
    match file {
        SourceFile::Training => (ErrorCode::InvalidTrainingFile, "training_file"),
        SourceFile::Validation => (ErrorCode::InvalidValidationFile, "validation_file"),
    }
}

fn with_rows(error: JobError, findings: &[Finding]) -> JobError {
    let details = findings.iter().take(MOST_DETAILS).filter_map(|finding| serde_json::to_value(finding).ok());
    JobError { details: details.collect(), ..error }
}

#[cfg(test)]
mod tests {
    use finetuned_protocol::lint::Severity;

    use super::*;

    fn finding(line: u64) -> Finding {
        Finding {
            line,
            pointer: "/messages/1".into(),
            rule: "answer_empty".into(),
            severity: Severity::Error,
            reason: "the answer is empty".into(),
        }
    }

    fn failed(error: AttemptError) -> JobError {
        let AttemptError::Failed(error) = error else { unreachable!("{error:?}") };
        error
    }

    #[test]
    fn bad_rows_are_all_counted_and_some_named() {
        let findings: Vec<Finding> = (1..=150).map(finding).collect();
        let error = PrepareError::Rows {
            file: SourceFile::Validation,
            findings,
            total: 1150,
            rows: finetuned_dataset::RowCounts::default(),
        };
        let error = failed(rows(error, &TemplateSpec::Chat));
        assert_eq!((error.code, error.details.len()), (ErrorCode::InvalidValidationFile, 100));
        assert_eq!(error.param.as_deref(), Some("validation_file"));
        assert!(error.message.contains("1,150 findings"), "{}", error.message);
        assert_eq!(error.details[4]["line"], 5);
    }

    #[test]
    fn a_template_is_blamed_on_whoever_wrote_it() {
        let error = || PrepareError::Tokenizer {
            file: SourceFile::Training,
            cause: WeightsError::Template { doing: "rendering a chat", reason: "unknown filter".into() },
        };
        assert_eq!(failed(rows(error(), &TemplateSpec::Chat)).code, ErrorCode::InvalidModel);
        let of_user = failed(rows(error(), &TemplateSpec::Jinja { source: "{{ x | y }}".into() }));
        assert_eq!((of_user.code, of_user.param.as_deref()), (ErrorCode::InvalidSettings, Some("template")));
    }

    #[test]
    fn paths_of_the_host_stay_in_the_log() {
        let error = WeightsError::NotAModel { path: "/secret/model".into(), reason: "no config.json".into() };
        assert!(!failed(model("m", &error)).message.contains("secret"));
    }
}
