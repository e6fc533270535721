//! One case from its files to its results.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::Context;
use finetuned_model::{ADAPTER_CONFIG_FILE, ADAPTER_TENSORS_FILE, Adapter, GenerateOptions, generate, tensor_file};
use finetuned_torch::Tensor;
use serde_json::{Map, Value, json};

use super::{
    case::{Case, Rows, load_model},
    check::{Check, tolerance},
    name_of,
    train::{StepFigures, Trained, compare, train, worse},
};

/// The same model's config as most checkpoints on the Hub spell it, in some cases.
const HUB_CONFIG: &str = "config_hub_style.json";
/// Folder of the trained adapter, in the reference and in the results.
const TRAINED: &str = "adapter_after_8_steps";

/// What is written of a case, beside the trained adapter.
struct Results {
    /// Padded logits by name.
    logits: Vec<(String, Tensor)>,
    loss: f64,
    loss_with_adapter: f64,
    greedy: Vec<u32>,
    full_training: Vec<StepFigures>,
    adapter_training: Vec<StepFigures>,
}

/// Computes a case, writes its results into `out`, and compares them.
///
/// # Errors
/// A case that cannot be run, or a folder that cannot be written.
pub fn run(folder: &Path, out: &Path) -> anyhow::Result<Vec<Check>> {
    fs::create_dir_all(out).with_context(|| format!("while making {}", out.display()))?;
    let case = Case::open(folder)?;
    let rows = case.batch()?;
    let adapter = case.adapter()?;
    let mut checks = Vec::new();
    let mut logits = Vec::new();
    let mut compare_logits = |name: &str, adapter: Option<&Adapter>, check: &'static str, allowed: f64| {
        let found = case.logits(&rows, adapter)?;
        let largest = largest_difference(&found, &case.expected_logits(name, &rows)?)?;
        logits.push((name.to_owned(), rows.pad(&found)?));
        anyhow::Ok(Check::new(check, largest, allowed))
    };
    checks.push(compare_logits("logits", None, "logits", tolerance::LOGITS)?);
    checks.push(compare_logits("logits_with_adapter", Some(&adapter), "logits with adapter", tolerance::LOGITS)?);
    if folder.join(HUB_CONFIG).is_file() {
        checks.push(hub_spelling(&case, &rows, out)?);
    }
    let loss = case.loss(&rows, None)?.f_double_value(&[])?;
    checks.push(Check::new("loss", (loss - case.figures.loss).abs(), tolerance::LOSS));
    let loss_with_adapter = case.loss(&rows, Some(&adapter))?.f_double_value(&[])?;
    let difference = (loss_with_adapter - case.figures.loss_with_adapter).abs();
    checks.push(Check::new("loss with adapter", difference, tolerance::LOSS));
    let greedy = greedy(&case)?;
    checks.push(Check::new("greedy tokens that differ", differing(&greedy, &case.figures.greedy_16), tolerance::EQUAL));

    let trained = Trained::Adapter(&adapter);
    let adapter_training = train(&case, &trained)?;
    checks.extend(compare(&case, &trained, &adapter_training));
    let (name, allowed) = ("logits_after_lora_train", tolerance::LOGITS_AFTER_ADAPTER);
    checks.push(compare_logits(name, Some(&adapter), "adapter training: logits after", allowed)?);
    checks.extend(saved_adapter(&case, &rows, &adapter, out)?);

    // Last, for it changes the weights themselves.
    case.model.set_trainable(true);
    let full_training = train(&case, &Trained::Full)?;
    case.model.set_trainable(false);
    checks.extend(compare(&case, &Trained::Full, &full_training));
    let (name, allowed) = ("logits_after_full_train", tolerance::LOGITS_AFTER_FULL);
    checks.push(compare_logits(name, None, "full training: logits after", allowed)?);
    write(out, &Results { logits, loss, loss_with_adapter, greedy, full_training, adapter_training })?;
    Ok(checks)
}

fn write(out: &Path, results: &Results) -> anyhow::Result<()> {
    tensor_file::save(&out.join("result.safetensors"), &results.logits)?;
    let text = json!({
        "loss": results.loss,
        "loss_with_adapter": results.loss_with_adapter,
        "greedy_16": results.greedy,
        "full_train_loss_gradnorm": results.full_training,
        "lora_train_loss_gradnorm": results.adapter_training,
    });
    let path = out.join("result.json");
    fs::write(&path, serde_json::to_vec_pretty(&text)?).with_context(|| format!("while writing {}", path.display()))
}

/// The likeliest tokens, with a cache; beside other rows, which must not matter.
fn greedy(case: &Case) -> anyhow::Result<Vec<u32>> {
    let expected = &case.figures.greedy_16;
    let options = GenerateOptions::greedy(expected.len() as u32, vec![]);
    let prompt = &case.figures.greedy_prompt;
    let prompts = [prompt[..prompt.len().div_ceil(2)].to_vec(), prompt.clone()];
    let answers = generate(&case.model, None, &prompts, &options, &mut |_| ControlFlow::Continue(()))?;
    Ok(answers.into_iter().next_back().map(|answer| answer.ids).unwrap_or_default())
}

fn differing(found: &[u32], expected: &[u32]) -> f64 {
    let same = found.iter().zip(expected).filter(|(found, expected)| found == expected).count();
    (found.len().max(expected.len()) - same) as f64
}

/// The trained adapter written, compared key for key with peft's, and read back.
fn saved_adapter(case: &Case, rows: &Rows, adapter: &Adapter, out: &Path) -> anyhow::Result<[Check; 4]> {
    let folder = out.join(TRAINED);
    fs::create_dir_all(&folder).with_context(|| format!("while making {}", folder.display()))?;
    adapter.save(&case.model, &folder, &name_of(&case.folder))?;
    let found = tensor_file::load(&folder.join(ADAPTER_TENSORS_FILE))?;
    let expected = tensor_file::load(&case.folder.join(TRAINED).join(ADAPTER_TENSORS_FILE))?;
    let key = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.size());
    let (ours, theirs): (Vec<_>, Vec<_>) = (found.iter().map(key).collect(), expected.iter().map(key).collect());
    let unmatched = ours.iter().filter(|key| !theirs.contains(key)).count()
        + theirs.iter().filter(|key| !ours.contains(key)).count();
    let mut largest = 0.0;
    for ((_, found), (_, expected)) in found.iter().zip(&expected) {
        let fits = found.size() == expected.size();
        largest = worse(largest, if fits { largest_difference(found, expected)? } else { f64::NAN });
    }
    let differing = differing_fields(&read_config(&folder)?, &read_config(&case.folder.join(TRAINED))?);
    let reloaded = Adapter::load(&case.model, &folder)?;
    let difference = largest_difference(&case.logits(rows, Some(&reloaded))?, &case.logits(rows, Some(adapter))?)?;
    Ok([
        Check::new("adapter training: keys that differ", unmatched as f64, tolerance::EQUAL),
        Check::new("adapter training: tensors", largest, tolerance::ADAPTER_TENSORS),
        Check::new("adapter config: fields that differ", differing as f64, tolerance::EQUAL),
        Check::new("adapter read back: logits", difference, tolerance::EQUAL),
    ])
}

fn read_config(folder: &Path) -> anyhow::Result<Map<String, Value>> {
    let path = folder.join(ADAPTER_CONFIG_FILE);
    let text = fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("while reading {}", path.display()))
}

/// How many fields of our `adapter_config.json` peft's has otherwise. The base's name is ours to choose, and the order of
/// target modules says nothing.
fn differing_fields(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> usize {
    let sorted = |value: &Value| match value {
        Value::Array(items) => {
            let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
            texts.sort();
            texts.join(",")
        }
        other => other.to_string(),
    };
    let differs = |(name, value): &(&String, &Value)| {
        *name != "base_model_name_or_path" && theirs.get(*name).map(sorted) != Some(sorted(value))
    };
    ours.iter().filter(differs).count()
}

/// The model by the other spelling of its config.
fn hub_spelling(case: &Case, rows: &Rows, out: &Path) -> anyhow::Result<Check> {
    let folder = out.join("hub-style");
    let model = hub_model(case, &folder);
    let removed = fs::remove_dir_all(&folder).with_context(|| format!("while removing {}", folder.display()));
    let model = model?;
    removed?;
    let hidden = tch::no_grad(|| model.hidden(rows.documents(), None, &finetuned_model::ForwardContext::default()))?;
    let largest = largest_difference(&model.logits(&hidden, None)?, &case.logits(rows, None)?)?;
    Ok(Check::new("logits by the hub's spelling", largest, tolerance::EQUAL))
}

/// Loads the files of the base with the other config, from a folder made for it.
fn hub_model(case: &Case, folder: &Path) -> anyhow::Result<finetuned_model::CausalLm> {
    let doing = || format!("while making {}", folder.display());
    fs::create_dir_all(folder).with_context(doing)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(case.folder.join("base"))? {
        files.push(entry?.path());
    }
    for file in files.iter().filter(|file| name_of(file) != "config.json") {
        fs::copy(file, folder.join(name_of(file))).with_context(doing)?;
    }
    fs::copy(case.folder.join(HUB_CONFIG), folder.join("config.json")).with_context(doing)?;
    load_model(folder)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> anyhow::Result<f64> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}
