//! What a job leaves beside its adapter: the tuned model as other programs read it.

use crate::{
    error::FieldError,
    spec::ModelFacts,
    status::named_enum,
    tuning::{AdapterSpec, TuningSpec},
};

/// Begins the names of a merged model's own files; its tokenizer is the adapter's.
pub const MERGED_PREFIX: &str = "merged.";

/// Architectures that GGUF files can be written of.
const GGUF_ARCHITECTURES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

named_enum!(
    /// A further form of what a job trained.
    ExportFormat, "export format" {
        /// The model with the adapter put in, as transformers and vLLM read it.
        Merged = "merged",
        /// The same as one file for llama.cpp, matrices in half precision.
        GgufF16 = "gguf_f16",
        /// The same in eight bits.
        GgufQ8_0 = "gguf_q8_0",
        /// The adapter as llama.cpp reads it beside the base model.
        GgufLora = "gguf_lora",
    }
);

impl ExportFormat {
    /// Name of its one file; none for a merged model, which has several.
    pub fn file_name(self) -> Option<&'static str> {
        match self {
            Self::Merged => None,
            Self::GgufF16 => Some("model-f16.gguf"),
            Self::GgufQ8_0 => Some("model-q8_0.gguf"),
            Self::GgufLora => Some("adapter.gguf"),
        }
    }
}

/// Whether a file of a job belongs to the adapter itself, and not to a further form of it.
pub fn is_of_the_adapter(name: &str) -> bool {
    !name.starts_with(MERGED_PREFIX) && !ExportFormat::ALL.iter().any(|format| format.file_name() == Some(name))
}

/// The formats that are asked for, in a fixed order and once each.
pub fn in_order(asked: &[ExportFormat]) -> Vec<ExportFormat> {
    ExportFormat::ALL.iter().copied().filter(|format| asked.contains(format)).collect()
}

/// # Errors
/// A format that this method or this model does not have, and why.
pub fn check(asked: &[ExportFormat], tuning: &TuningSpec, model: &ModelFacts) -> Result<(), FieldError> {
    for format in asked {
        if let Some(reason) = refusal(*format, tuning, model) {
            return Err(FieldError::new("export", format!("`export` cannot have `{format}`: {reason}")));
        }
    }
    Ok(())
}

fn refusal(format: ExportFormat, tuning: &TuningSpec, model: &ModelFacts) -> Option<String> {
    let architecture = model.architecture.as_str();
    if format != ExportFormat::Merged && !GGUF_ARCHITECTURES.contains(&architecture) {
        let known = GGUF_ARCHITECTURES.join(", ");
        return Some(format!("GGUF files are written of {known}, and this model is `{architecture}`"));
    }
    if model.is_part_of_a_larger_model() {
        return Some("the other weights of the larger model would be missing".to_owned());
    }
    let adapter = match (format, tuning) {
        (ExportFormat::Merged, TuningSpec::Full { .. }) => {
            return Some("`full` makes a whole model already".to_owned());
        }
        (ExportFormat::GgufLora, TuningSpec::Full { .. }) => return Some("`full` makes no adapter".to_owned()),
        (_, TuningSpec::Full { .. }) => return None,
        (_, TuningSpec::Adapter(adapter)) => adapter,
    };
    let lora = match adapter {
        AdapterSpec::PromptTuning(_) | AdapterSpec::PrefixTuning(_) => {
            return Some("prompt and prefix tuning change no weights".to_owned());
        }
        AdapterSpec::Ia3(_) if format == ExportFormat::GgufLora => return Some("llama.cpp has no `ia3`".to_owned()),
        AdapterSpec::Lora(lora) if format == ExportFormat::GgufLora => lora,
        AdapterSpec::Lora(_) | AdapterSpec::Ia3(_) => return None,
    };
    let not_told = [
        ("use_dora", lora.use_dora),
        ("modules_to_save", !lora.modules_to_save.is_empty()),
        ("trainable_token_indices", !lora.trainable_token_indices.is_empty()),
        ("alpha", lora.alpha <= 0.0),
    ];
    let (field, _) = not_told.iter().find(|(_, has)| *has)?;
    Some(format!("llama.cpp's adapters know no `lora.{field}` like this one's; `gguf_f16` has the whole model"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tuning::{FullSpec, LoraSpec, PrefixTuningSpec};

    fn model(architecture: &str) -> ModelFacts {
        ModelFacts {
            architecture: architecture.to_owned(),
            parameters: 1,
            layers: 1,
            hidden_size: 1,
            vocab_size: 1,
            context_length: 8,
            linear_modules: vec![],
            fixed_modules: vec![],
            has_chat_template: false,
        }
    }

    fn lora() -> LoraSpec {
        LoraSpec::plain(4, 8.0, vec!["q_proj".to_owned()])
    }

    #[test]
    fn formats_come_in_one_order_and_once() {
        let asked = [ExportFormat::GgufLora, ExportFormat::Merged, ExportFormat::GgufLora];
        assert_eq!(in_order(&asked), [ExportFormat::Merged, ExportFormat::GgufLora]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let adapter = |spec| TuningSpec::Adapter(spec);
        let full = TuningSpec::Full { full: FullSpec { last_layers: None } };
        let prefix = adapter(AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 2 }));
        let plain = adapter(AdapterSpec::Lora(lora()));
        let dora = adapter(AdapterSpec::Lora(LoraSpec { use_dora: true, ..lora() }));
        for (format, tuning, architecture, reason) in [
            (ExportFormat::Merged, &full, "llama", "whole model already"),
            (ExportFormat::GgufLora, &full, "llama", "no adapter"),
            (ExportFormat::Merged, &prefix, "llama", "change no weights"),
            (ExportFormat::GgufLora, &dora, "llama", "`lora.use_dora`"),
            (ExportFormat::GgufF16, &plain, "gemma2", "`gemma2`"),
            (ExportFormat::Merged, &plain, "gemma3", "larger model"),
        ] {
            let error = check(&[format], tuning, &model(architecture)).unwrap_err();
            assert_eq!(error.param, "export");
            assert!(error.message.contains(reason), "{}", error.message);
        }
        assert!(check(&[ExportFormat::GgufF16], &full, &model("qwen2")).is_ok());
        assert!(check(&[ExportFormat::Merged], &dora, &model("gpt2")).is_ok());
    }

    #[test]
    fn files_of_the_adapter_are_told_from_the_others() {
        assert!(is_of_the_adapter("adapter_model.safetensors") && is_of_the_adapter("model.safetensors"));
        assert!(!is_of_the_adapter("merged.config.json") && !is_of_the_adapter("model-f16.gguf"));
    }
}
