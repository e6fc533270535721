//! The configs beside a model that was trained whole, in Hugging Face's layout, whatever the base came as.

use std::fs;

use serde_json::{Map, Value, json};

use crate::{
    config::{CommonConfig, Family, ModelConfig, RopeConfig, RopeScaling, family::Llama},
    error::WeightsError,
    folder::{CONFIG, GENERATION_CONFIG, HfFolder, SINGLE},
};

/// Name of the file that holds an exported model's weights.
pub const MODEL_TENSORS_FILE: &str = SINGLE;

/// Fields of a base's config that would be wrong beside weights in f32 that are elsewhere now: where it came from, its
/// code, and how its weights were stored.
const DROPPED: &[&str] = &["_name_or_path", "auto_map", "quantization_config", "torch_dtype"];

/// A file's name and its text.
pub type TextFile = (&'static str, String);

/// `config.json`, and `generation_config.json` where the folder has one.
pub(crate) fn of_folder(folder: &HfFolder) -> Result<Vec<TextFile>, WeightsError> {
    let read = |name: &'static str| -> Result<Map<String, Value>, WeightsError> {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).map_err(WeightsError::io("reading", &path))?;
        serde_json::from_str(&text).map_err(|error| WeightsError::malformed(&path, error.to_string()))
    };
    let mut config = read(CONFIG)?;
    config.retain(|field, _| !DROPPED.contains(&field.as_str()));
    config.insert("dtype".to_owned(), json!("float32"));
    let mut files = vec![(CONFIG, Value::Object(config))];
    if folder.path().join(GENERATION_CONFIG).exists() {
        files.push((GENERATION_CONFIG, Value::Object(read(GENERATION_CONFIG)?)));
    }
    files.into_iter().map(|(name, value)| Ok((name, text(&value)?))).collect()
}

/// Both files of a model that came without them, in a GGUF file.
///
/// # Errors
/// What no GGUF file that can be read holds: another family than Llama, or LongRoPE.
pub(crate) fn of_config(config: &ModelConfig, eos_ids: &[u32]) -> Result<Vec<TextFile>, WeightsError> {
    let common = &config.common;
    let mut map = match &config.family {
        Family::Llama(family) => llama(common, family)?,
        other => return Err(WeightsError::unsupported("exporting the architecture", other.name(), "llama")),
    };
    let tokens = [("bos_token_id", json!(common.bos_token_id)), ("pad_token_id", json!(common.pad_token_id))];
    let tokens = tokens.into_iter().chain([("eos_token_id", json!(eos_ids))]).filter(|(_, id)| !id.is_null());
    let tokens: Map<String, Value> = tokens.map(|(name, id)| (name.to_owned(), id)).collect();
    map.extend(tokens.clone());
    Ok(vec![(CONFIG, text(&Value::Object(map))?), (GENERATION_CONFIG, text(&Value::Object(tokens))?)])
}

fn text(value: &Value) -> Result<String, WeightsError> {
    serde_json::to_string_pretty(value).map_err(|error| WeightsError::config("(all)", error.to_string()))
}

fn llama(common: &CommonConfig, family: &Llama) -> Result<Map<String, Value>, WeightsError> {
    let fields = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": family.attention_bias,
        "dtype": "float32",
        "head_dim": common.head_dim,
        "hidden_act": "silu",
        "hidden_size": common.hidden_size,
        "intermediate_size": common.intermediate_size,
        "max_position_embeddings": common.max_position_embeddings,
        "mlp_bias": family.mlp_bias,
        "num_attention_heads": common.num_attention_heads,
        "num_hidden_layers": common.num_hidden_layers,
        "num_key_value_heads": common.num_key_value_heads,
        "rms_norm_eps": common.norm_epsilon,
        "rope_scaling": rope_scaling(&family.rope)?,
        "rope_theta": family.rope.theta,
        "tie_word_embeddings": common.tie_word_embeddings,
        "vocab_size": common.vocab_size,
    });
    match fields {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// In the older spelling, which old and new programs read.
fn rope_scaling(rope: &RopeConfig) -> Result<Value, WeightsError> {
    Ok(match &rope.scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "original_max_position_embeddings": original_max_position_embeddings,
            "attention_factor": attention_factor,
            "truncate": truncate,
        }),
        RopeScaling::LongRope { .. } => {
            return Err(WeightsError::unsupported("exporting the rotary scaling", "longrope", "linear, llama3, yarn"));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::{ModelSource, folder::HfFolder};

    fn parity() -> impl Iterator<Item = std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity");
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("base"))
    }

    #[test]
    fn a_written_config_is_read_as_what_it_was() {
        let mut families = Vec::new();
        for base in parity() {
            let config = ModelSource::open(&base).unwrap().config().clone();
            let mut written = vec![of_folder(&HfFolder::open(&base).unwrap()).unwrap()];
            families.push(config.family.name());
            match (of_config(&config, &config.common.eos_token_ids), &config.family) {
                (Ok(files), Family::Llama(_)) => written.push(files),
                (Err(error), family) => assert!(error.to_string().contains(family.name()), "{error}"),
                (Ok(_), family) => panic!("{family:?}"),
            }
            for files in written {
                assert_eq!(files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [CONFIG, GENERATION_CONFIG]);
                let read = ModelConfig::from_json(&files[0].1).unwrap();
                assert_eq!(read, config, "{}", base.display());
            }
        }
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), 12, "{families:?}");
    }

    #[test]
    fn where_the_base_came_from_and_how_it_was_stored_stays_behind() {
        let base = parity().find(|base| base.ends_with("llama/base")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::copy(base.join(SINGLE), folder.path().join(SINGLE)).unwrap();
        let mut config: Map<String, Value> =
            serde_json::from_str(&fs::read_to_string(base.join(CONFIG)).unwrap()).unwrap();
        config.insert("torch_dtype".into(), json!("bfloat16"));
        config.insert("_name_or_path".into(), json!("/home/somebody/model"));
        fs::write(folder.path().join(CONFIG), Value::Object(config).to_string()).unwrap();
        let files = of_folder(&HfFolder::open(folder.path()).unwrap()).unwrap();
        let written: Value = serde_json::from_str(&files[0].1).unwrap();
        assert_eq!(written["dtype"], "float32");
        assert!(written.get("torch_dtype").is_none() && written.get("_name_or_path").is_none());
        assert_eq!(files.len(), 1);
    }
}
