//! What of a model training changes, resolved: every default spelled out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::named_enum;

/// What training changes: an adapter beside the frozen model, or weights of the model itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TuningSpec {
    Adapter(AdapterSpec),
    Full { full: FullSpec },
}

/// A kind of adapter and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterSpec {
    Lora(LoraSpec),
    Ia3(Ia3Spec),
    PromptTuning(PromptTuningSpec),
    PrefixTuning(PrefixTuningSpec),
}

/// Training of the model's own weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FullSpec {
    /// Only the last so many layers, at least 1; embeddings, head and final norm stay as they are. Null trains everything.
    pub last_layers: Option<u32>,
}

named_enum!(
    /// First weights of a low-rank adapter.
    LoraInit, "lora.init" {
        /// A is random, B zero: the adapter starts without effect (Hu et al. 2021).
        Default = "default",
        /// A and B are the principal singular vectors of the weight, which is trained in their place (PiSSA, Meng et al.
        /// 2024). Exported as a plain adapter of twice the rank, which is right on the unchanged base model.
        Pissa = "pissa",
    }
);

/// Low-rank adaptation (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoraSpec {
    pub r: u32,
    pub alpha: f64,
    /// Chance that an input of the adapter is dropped in training (0 to 1).
    pub dropout: f64,
    /// Names of the adapted linear modules, such as `q_proj`, or longer ends of their paths.
    pub target_modules: Vec<String>,
    /// Scale by `alpha / sqrt(r)` (Kalajdzievski 2023) in place of `alpha / r`.
    pub use_rslora: bool,
    /// Train each output's magnitude apart from its direction (DoRA, Liu et al. 2024).
    #[serde(default)]
    pub use_dora: bool,
    /// Other ranks for modules whose path is, or ends in, the key; the first in the order of the keys counts.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, u32>,
    /// Other alphas, likewise.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Indices of the adapted layers; null adapts all.
    #[serde(default)]
    pub layers_to_transform: Option<Vec<u32>>,
    /// Vocabulary matrices (`embed_tokens`, `lm_head`) that are trained whole and saved with the adapter.
    #[serde(default)]
    pub modules_to_save: Vec<String>,
    /// Tokens whose rows of the embedding (and of a head tied to it) are trained and saved with the adapter.
    #[serde(default)]
    pub trainable_token_indices: Vec<u32>,
    #[serde(default = "default_init")]
    pub init: LoraInit,
    /// Learning rate of the B matrices (and of DoRA's magnitudes) over that of the rest (LoRA+, Hayou et al. 2024).
    #[serde(default = "one")]
    pub loraplus_lr_ratio: f64,
}

fn one() -> f64 {
    1.0
}

fn default_init() -> LoraInit {
    LoraInit::Default
}

impl LoraSpec {
    /// LoRA as it was first published, without any of what came later.
    pub fn plain(r: u32, alpha: f64, target_modules: Vec<String>) -> Self {
        Self {
            r,
            alpha,
            dropout: 0.0,
            target_modules,
            use_rslora: false,
            use_dora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            layers_to_transform: None,
            modules_to_save: Vec::new(),
            trainable_token_indices: Vec::new(),
            init: LoraInit::Default,
            loraplus_lr_ratio: 1.0,
        }
    }

    /// Whether the linear module at `path`, such as `model.layers.0.self_attn.q_proj`, is adapted.
    pub fn adapts(&self, path: &str) -> bool {
        let wanted = |layers: &Vec<u32>| layer_of(path).is_some_and(|layer| layers.contains(&layer));
        self.target_modules.iter().any(|target| names_module(target, path))
            && self.layers_to_transform.as_ref().is_none_or(wanted)
    }

    /// Rank of the module at `path`.
    pub fn rank_of(&self, path: &str) -> u32 {
        matching(&self.rank_pattern, path).copied().unwrap_or(self.r)
    }

    /// Alpha of the module at `path`.
    pub fn alpha_of(&self, path: &str) -> f64 {
        matching(&self.alpha_pattern, path).copied().unwrap_or(self.alpha)
    }

    /// Factor of the adapter's output in the module at `path`.
    pub fn scaling_of(&self, path: &str) -> f64 {
        let r = f64::from(self.rank_of(path));
        self.alpha_of(path) / if self.use_rslora { r.sqrt() } else { r }
    }

    /// What the exported adapter is. One that started from the weights' singular vectors, `W = W' + s B0 A0`, is told as
    /// the difference from the weights, `s [B, -B0] [A; A0]`: twice the rank, the same scaling, plain first weights.
    #[must_use]
    pub fn exported(&self) -> Self {
        if self.init == LoraInit::Default {
            return self.clone();
        }
        let alpha_factor = if self.use_rslora { std::f64::consts::SQRT_2 } else { 2.0 };
        // Without a pattern of its own a module's alpha stays the same share of its rank, for all ranks double.
        Self {
            r: 2 * self.r,
            alpha: alpha_factor * self.alpha,
            rank_pattern: self.rank_pattern.iter().map(|(key, rank)| (key.clone(), 2 * rank)).collect(),
            alpha_pattern: self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), alpha_factor * alpha)).collect(),
            init: LoraInit::Default,
            ..self.clone()
        }
    }
}

/// Index of the layer that a module's path leads through, `2` in `model.layers.2.mlp.up_proj`.
pub fn layer_of(path: &str) -> Option<u32> {
    path.split('.').find_map(|part| part.parse().ok())
}

/// Whether a pattern's key or a target module names the module at `path`: the path itself, or what it ends in after a dot.
pub fn names_module(key: &str, path: &str) -> bool {
    path.strip_suffix(key).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether a pattern's key is the end of a module's path, such as `q_proj` or `layers.0.mlp.up_proj`, and no expression.
pub fn is_plain_key(key: &str) -> bool {
    key.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

fn matching<'a, T>(pattern: &'a BTreeMap<String, T>, path: &str) -> Option<&'a T> {
    pattern.iter().find(|(key, _)| names_module(key, path)).map(|(_, value)| value)
}

/// (IA)³ (Liu et al. 2022): one factor for each output of a module, or for each input of a feed-forward module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ia3Spec {
    pub target_modules: Vec<String>,
    /// Those of the target modules whose inputs are scaled in place of their outputs.
    pub feedforward_modules: Vec<String>,
}

named_enum!(
    /// First rows of a trained prompt.
    PromptInit, "prompt_tuning.init" {
        /// Embeddings of tokens drawn from the vocabulary (Lester et al. 2021, who found them better than noise).
        SampleVocab = "sample_vocab",
        /// Normal with variance 1, as peft's `RANDOM`.
        Random = "random",
    }
);

/// Prompt tuning (Lester et al. 2021): trained embeddings before each document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptTuningSpec {
    pub num_virtual_tokens: u32,
    pub init: PromptInit,
}

/// Prefix tuning (Li & Liang 2021) without a projection: trained keys and values before each document, in each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrefixTuningSpec {
    pub num_virtual_tokens: u32,
}

impl TuningSpec {
    /// The settings of LoRA, where that is what it is.
    pub fn lora(&self) -> Option<&LoraSpec> {
        match self {
            Self::Adapter(AdapterSpec::Lora(lora)) => Some(lora),
            _ => None,
        }
    }

    /// What it is, for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Full { full: FullSpec { last_layers: None } } => "full fine-tuning",
            Self::Full { .. } => "fine-tuning of the last layers",
            Self::Adapter(AdapterSpec::Lora(lora)) if lora.use_dora => "DoRA",
            Self::Adapter(AdapterSpec::Lora(_)) => "LoRA",
            Self::Adapter(AdapterSpec::Ia3(_)) => "(IA)³",
            Self::Adapter(AdapterSpec::PromptTuning(_)) => "prompt tuning",
            Self::Adapter(AdapterSpec::PrefixTuning(_)) => "prefix tuning",
        }
    }
}

impl AdapterSpec {
    /// Rows that the adapter puts before each document.
    pub fn num_virtual_tokens(&self) -> u32 {
        match self {
            Self::Lora(_) | Self::Ia3(_) => 0,
            Self::PromptTuning(prompt) => prompt.num_virtual_tokens,
            Self::PrefixTuning(prefix) => prefix.num_virtual_tokens,
        }
    }

    /// What the exported adapter is; see [`LoraSpec::exported`].
    #[must_use]
    pub fn exported(&self) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.exported()),
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn lora() -> LoraSpec {
        LoraSpec::plain(4, 8.0, vec!["q_proj".to_owned(), "down_proj".to_owned()])
    }

    #[test]
    fn a_pattern_names_modules_by_the_end_of_their_path() {
        let rank_pattern = [("down_proj", 2), ("layers.1.self_attn.q_proj", 16), ("q_proj", 8)];
        let spec = LoraSpec {
            rank_pattern: rank_pattern.map(|(key, rank)| (key.to_owned(), rank)).into(),
            alpha_pattern: [("q_proj".to_owned(), 4.0)].into(),
            ..lora()
        };
        let of = |path: &str| (spec.rank_of(path), spec.scaling_of(path));
        assert_eq!(of("model.layers.0.self_attn.q_proj"), (8, 0.5));
        assert_eq!(of("model.layers.1.self_attn.q_proj"), (16, 0.25));
        assert_eq!(of("model.layers.1.mlp.down_proj"), (2, 4.0));
        assert_eq!(of("model.layers.1.mlp.xdown_proj"), (4, 2.0));
    }

    #[test]
    fn layers_are_chosen_by_index() {
        let spec = LoraSpec { layers_to_transform: Some(vec![1, 11]), ..lora() };
        let adapts = |path: &str| spec.adapts(path);
        assert!(adapts("model.layers.11.self_attn.q_proj") && adapts("model.layers.1.mlp.down_proj"));
        assert!(!adapts("model.layers.0.self_attn.q_proj") && !adapts("model.layers.1.self_attn.k_proj"));
        assert!(!adapts("q_proj") && lora().adapts("q_proj"));
    }

    #[test]
    fn an_exported_pissa_keeps_its_scaling_at_twice_the_rank() {
        for use_rslora in [false, true] {
            let alpha_pattern = [("q_proj".to_owned(), 3.0)].into();
            let rank_pattern = [("q_proj".to_owned(), 6)].into();
            let spec = LoraSpec { init: LoraInit::Pissa, use_rslora, alpha_pattern, rank_pattern, ..lora() };
            let out = spec.exported();
            assert_eq!((out.r, out.init), (8, LoraInit::Default));
            for path in ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"] {
                assert_eq!(out.rank_of(path), 2 * spec.rank_of(path));
                assert!((out.scaling_of(path) - spec.scaling_of(path)).abs() < 1e-12);
            }
        }
        assert_eq!(lora().exported(), lora());
    }

    #[test]
    fn each_kind_is_one_field_of_the_settings() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Settings {
            seed: u32,
            #[serde(flatten)]
            tuning: TuningSpec,
        }
        let kinds = [
            (TuningSpec::Full { full: FullSpec { last_layers: Some(2) } }, json!({"full": {"last_layers": 2}})),
            (
                TuningSpec::Adapter(AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 5 })),
                json!({"prefix_tuning": {"num_virtual_tokens": 5}}),
            ),
        ];
        for (tuning, mut text) in kinds {
            let settings = Settings { seed: 1, tuning };
            text["seed"] = json!(1);
            assert_eq!(serde_json::to_value(&settings).unwrap(), text);
            assert_eq!(serde_json::from_value::<Settings>(text).unwrap(), settings);
        }
        // As it was written before there was anything else than plain LoRA.
        let old = json!({"seed": 1, "lora": {"r": 4, "alpha": 8.0, "dropout": 0.0,
            "target_modules": ["q_proj", "down_proj"], "use_rslora": false}});
        assert_eq!(serde_json::from_value::<Settings>(old).unwrap().tuning.lora(), Some(&lora()));
    }
}
