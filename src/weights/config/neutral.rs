//! Fields of a `config.json` that have no bearing on what a model computes.

use serde_json::Value;

/// Records, settings of other programs and defaults of generation.
const RECORDS: &[&str] = &[
    "attn_implementation",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_ctx",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Settings of one family or another, each with the number that leaves the mathematics as it is without them.
const NUMBERS: &[(&str, f64)] = &[
    ("attention_dropout", 0.0),
    ("attention_multiplier", 1.0),
    ("embd_pdrop", 0.0),
    ("embedding_multiplier", 1.0),
    ("full_attn_mod", 1.0),
    ("hidden_dropout", 0.0),
    ("interpolate_factor", 1.0),
    ("logit_scale", 1.0),
    ("logits_scaling", 1.0),
    ("n_routed_experts", 0.0),
    ("num_experts", 0.0),
    ("num_local_experts", 0.0),
    ("partial_rotary_factor", 1.0),
    ("resid_pdrop", 0.0),
    ("residual_multiplier", 1.0),
    ("router_jitter_noise", 0.0),
    ("scale_emb", 1.0),
];

/// Whether a field that nobody reads changes nothing: a record, or a setting that is off.
pub(super) fn has_no_bearing(name: &str, value: &Value) -> bool {
    let off = match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Number(number) => {
            NUMBERS.iter().any(|(field, neutral)| *field == name && number.as_f64() == Some(*neutral))
        }
        Value::String(_) => false,
    };
    // What starts with `_` is private to the program that wrote it, and no id of a token enters the mathematics.
    off || RECORDS.contains(&name) || name.starts_with('_') || name.ends_with("_token_id")
}
