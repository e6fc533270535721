//! What training minimises: the loss of supervised answers and documents, or that of preferences between answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    lint::RowFormat,
    request::{Auto, AutoInteger, AutoNumber, CreateJobRequest, HyperparametersRequest, require},
};

/// What OpenAI recommends, and what the paper's experiments use most.
const DEFAULT_BETA: f64 = 0.1;

/// What training minimises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ObjectiveSpec {
    /// Mean cross-entropy of the tokens that carry loss: answers, documents, or labelled tokens.
    #[default]
    Supervised,
    /// Direct preference optimisation.
    Dpo(DpoSpec),
}

/// The loss of Rafailov et al. 2023 (equation 7), with the label smoothing of Mitchell 2023 ("A note on DPO with noisy
/// preferences"): `-(1 - e) log s(h) - e log s(-h)`, where `s` is the logistic function and `h` is `beta` times the
/// policy's log-ratio of the two answers less the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DpoSpec {
    /// How closely the tuned model is held to the reference; larger is closer.
    pub beta: f64,
    /// Share of the pairs that are taken to be the wrong way round (0 or more, below 0.5).
    pub label_smoothing: f64,
}

impl ObjectiveSpec {
    /// Factor of a method's learning rate. Preferences are learned on a model that can answer already, and a step of
    /// supervised tuning's size leads far from the reference.
    pub fn learning_rate_factor(self) -> f64 {
        match self {
            Self::Supervised => 1.0,
            Self::Dpo(_) => 0.1,
        }
    }
}

/// Hyperparameters of `method.dpo`, as OpenAI spells them, and `label_smoothing`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoHyperparametersRequest {
    /// `"auto"` (0.1) or above 0, at most 2.
    #[schema(value_type = Option<AutoNumber>)]
    pub beta: Option<Auto<f64>>,
    /// 0 or more, below 0.5; default 0. Not one of OpenAI's.
    pub label_smoothing: Option<f64>,
    /// `"auto"` or 1 to 256 pairs.
    #[schema(value_type = Option<AutoInteger>)]
    pub batch_size: Option<Auto<u32>>,
    /// `"auto"` or a factor above 0 for the default learning rate.
    #[schema(value_type = Option<AutoNumber>)]
    pub learning_rate_multiplier: Option<Auto<f64>>,
    /// `"auto"` or 1 to 50.
    #[schema(value_type = Option<AutoInteger>)]
    pub n_epochs: Option<Auto<u32>>,
}

impl DpoHyperparametersRequest {
    /// Those that every objective has.
    pub(crate) fn common(&self) -> HyperparametersRequest {
        let Self { beta: _, label_smoothing: _, batch_size, learning_rate_multiplier, n_epochs } = *self;
        HyperparametersRequest { batch_size, learning_rate_multiplier, n_epochs }
    }
}

/// `method.dpo`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoRequest {
    pub hyperparameters: Option<DpoHyperparametersRequest>,
}

impl CreateJobRequest {
    pub(crate) fn dpo(&self) -> DpoHyperparametersRequest {
        let dpo = self.method.as_ref().and_then(|method| method.dpo.as_ref());
        dpo.and_then(|dpo| dpo.hyperparameters.clone()).unwrap_or_default()
    }

    /// Whether a number was asked for as `beta`.
    pub fn asks_for_beta(&self) -> bool {
        self.dpo().beta.and_then(Auto::value).is_some()
    }

    /// What training is to minimise.
    pub fn objective(&self) -> ObjectiveSpec {
        if self.method.as_ref().is_none_or(|method| method.kind != "dpo") {
            return ObjectiveSpec::Supervised;
        }
        let DpoHyperparametersRequest { beta, label_smoothing, .. } = self.dpo();
        ObjectiveSpec::Dpo(DpoSpec {
            beta: beta.and_then(Auto::value).unwrap_or(DEFAULT_BETA),
            label_smoothing: label_smoothing.unwrap_or(0.0),
        })
    }

    pub(crate) fn check_objective(&self) -> Result<(), FieldError> {
        let Some(method) = &self.method else { return Ok(()) };
        let kind = method.kind.as_str();
        require(
            ["supervised", "dpo"].contains(&kind),
            "method.type",
            &format!("`supervised` or `dpo`; `{kind}` is not built yet"),
        )?;
        let absent = |is_absent: bool, name: &str| {
            require(is_absent, &format!("method.{name}"), &format!("absent where `method.type` is `{kind}`"))
        };
        absent(kind == "supervised" || method.supervised.is_none(), "supervised")?;
        absent(kind == "dpo" || method.dpo.is_none(), "dpo")?;
        absent(method.reinforcement.is_none(), "reinforcement")?;
        let DpoHyperparametersRequest { beta, label_smoothing, .. } = self.dpo();
        require(
            beta.and_then(Auto::value).is_none_or(|beta| beta > 0.0 && beta <= 2.0),
            "method.dpo.hyperparameters.beta",
            "above 0 and at most 2",
        )?;
        require(
            label_smoothing.is_none_or(|share| (0.0..0.5).contains(&share)),
            "method.dpo.hyperparameters.label_smoothing",
            "0 or more and below 0.5",
        )
    }

    /// Checks what can be known once it is known what the rows of a file are. `file` is `training_file` or
    /// `validation_file`.
    ///
    /// # Errors
    /// The field that does not go with such rows.
    pub fn check_rows(&self, file: &str, format: RowFormat) -> Result<(), FieldError> {
        let refuse = |param: &str, message: String| Err(FieldError::new(param, message));
        let are = format!("the rows of `{file}` are {}", describe(format));
        let is_pairs = format == RowFormat::Preference;
        match self.objective() {
            ObjectiveSpec::Supervised if is_pairs => {
                return refuse("method.type", format!("`method.type` must be `dpo`: {are}"));
            }
            ObjectiveSpec::Dpo(_) if !is_pairs => {
                return refuse(
                    "method.type",
                    format!(
                        "`method.type` is `dpo`, which learns from pairs of answers (`input` with `preferred_output` and \
                         `non_preferred_output`, or `chosen` and `rejected`), but {are}"
                    ),
                );
            }
            _ => {}
        }
        let is_plain = matches!(format, RowFormat::Text | RowFormat::Tokens);
        if is_plain && self.template.is_some() {
            return refuse("template", format!("`template` must be absent: {are}, which no template renders"));
        }
        if (is_plain || is_pairs) && self.train_on_prompt == Some(true) {
            return refuse("train_on_prompt", format!("`train_on_prompt` must be absent or false: {are}"));
        }
        let is_held_out = file == "validation_file" || self.validation_file.is_none();
        let asks = self.answers.as_ref().and_then(|answers| answers.rows).is_some_and(|rows| rows > 0);
        if is_plain && is_held_out && asks {
            return refuse("answers.rows", format!("`answers.rows` must be absent or 0: {are}, which ask nothing"));
        }
        Ok(())
    }
}

fn describe(format: RowFormat) -> &'static str {
    match format {
        RowFormat::Chat => "chats",
        RowFormat::PromptCompletion => "prompts with completions",
        RowFormat::Alpaca => "instructions with outputs",
        RowFormat::Tokens => "token ids",
        RowFormat::Text => "documents (`text`)",
        RowFormat::Preference => "pairs of answers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn request(extra: Value) -> Result<CreateJobRequest, Box<dyn std::error::Error>> {
        let mut body = json!({"model": "m", "training_file": "file-1"});
        if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
            body.extend(extra.clone());
        }
        Ok(serde_json::from_value(body)?)
    }

    fn dpo(hyperparameters: Value) -> Value {
        json!({"method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}})
    }

    #[test]
    fn the_objective_is_read_from_the_method() -> Outcome {
        assert_eq!(request(json!({}))?.objective(), ObjectiveSpec::Supervised);
        let default = request(json!({"method": {"type": "dpo"}}))?;
        default.check()?;
        assert_eq!(default.objective(), ObjectiveSpec::Dpo(DpoSpec { beta: 0.1, label_smoothing: 0.0 }));
        let chosen = request(dpo(json!({"beta": 0.5, "label_smoothing": 0.1, "batch_size": 4, "n_epochs": 2})))?;
        chosen.check()?;
        let spec = ObjectiveSpec::Dpo(DpoSpec { beta: 0.5, label_smoothing: 0.1 });
        assert_eq!(chosen.objective(), spec);
        assert_eq!((chosen.chosen_batch_size()?, chosen.chosen_n_epochs()?), (Some(4), Some(2)));
        let text = serde_json::to_value(spec)?;
        assert_eq!(text, json!({"type": "dpo", "beta": 0.5, "label_smoothing": 0.1}));
        assert_eq!(serde_json::from_value::<ObjectiveSpec>(text)?, spec);
        assert_eq!(serde_json::to_value(ObjectiveSpec::Supervised)?, json!({"type": "supervised"}));
        Ok(())
    }

    #[test]
    fn what_is_out_of_range_or_at_odds_is_named() -> Outcome {
        for (extra, param) in [
            (dpo(json!({"beta": 0})), "method.dpo.hyperparameters.beta"),
            (dpo(json!({"beta": 2.5})), "method.dpo.hyperparameters.beta"),
            (dpo(json!({"label_smoothing": 0.5})), "method.dpo.hyperparameters.label_smoothing"),
            (dpo(json!({"batch_size": 0})), "batch_size"),
            (json!({"method": {"type": "dpo", "supervised": {}}}), "method.supervised"),
            (json!({"method": {"type": "supervised", "dpo": {}}}), "method.dpo"),
            (json!({"method": {"type": "reinforcement"}}), "method.type"),
            (json!({"method": {"type": "dpo", "reinforcement": {}}}), "method.reinforcement"),
        ] {
            assert_eq!(
                request(extra.clone())?.check().err().map(|error| error.param).as_deref(),
                Some(param),
                "{extra}"
            );
        }
        Ok(())
    }

    #[test]
    fn rows_and_settings_that_cannot_go_together_are_named() -> Outcome {
        use RowFormat::{Alpaca, Chat, Preference, PromptCompletion, Text, Tokens};
        let all = [Chat, PromptCompletion, Alpaca, Tokens, Text, Preference];
        let cases: [(Value, &str, &[RowFormat]); 6] = [
            (json!({}), "method.type", &[Preference]),
            (dpo(json!({})), "method.type", &[Chat, PromptCompletion, Alpaca, Tokens, Text]),
            (json!({"template": "chat"}), "template", &[Tokens, Text]),
            (json!({"train_on_prompt": true}), "train_on_prompt", &[Tokens, Text]),
            (json!({"answers": {"rows": 3}}), "answers.rows", &[Tokens, Text]),
            (json!({"answers": {"rows": 0}, "train_on_prompt": false}), "none", &[]),
        ];
        for (extra, param, refused) in cases {
            for format in all {
                let found = request(extra.clone())?.check_rows("training_file", format).err().map(|error| error.param);
                // Pairs are refused by every supervised job, whatever else it asks for.
                let by_method = format == Preference && extra.get("method").is_none();
                let expected = if by_method { Some("method.type") } else { refused.contains(&format).then_some(param) };
                assert_eq!(found.as_deref(), expected, "{extra} {format}");
            }
        }
        let mut whole = dpo(json!({}));
        whole["train_on_prompt"] = json!(true);
        let error = request(whole)?.check_rows("training_file", Preference).err();
        assert_eq!(error.map(|error| error.param).as_deref(), Some("train_on_prompt"));
        let asking = request(json!({"answers": {"rows": 3}, "validation_file": "file-2"}))?;
        assert!(
            asking.check_rows("training_file", Text).is_ok() && asking.check_rows("validation_file", Text).is_err()
        );
        Ok(())
    }
}
