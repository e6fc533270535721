//! `finetuned models`: the base models that jobs may name.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use finetuned_protocol::spec::ModelFacts;
use finetuned_store::{BaseModel, NewBaseModel, Store, StoreError};
use finetuned_weights::ModelSource;
use serde::{Deserialize, Serialize};

use crate::{args::StoreArgs, demo::MODEL, format, host::Host, paths::BUNDLED_MODEL};

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Add a model: a Hugging Face folder with safetensors, or a GGUF file. It stays where it is.
    Add {
        /// Folder or file.
        path: PathBuf,
        /// Name that jobs use [default: the name of the folder or file].
        #[arg(long, env = "FINETUNED_MODEL_NAME")]
        name: Option<String>,
        /// Where it came from, for the record.
        #[arg(long, env = "FINETUNED_MODEL_SOURCE")]
        source: Option<String>,
        /// Licence it is under, for the record.
        #[arg(long, env = "FINETUNED_MODEL_LICENSE")]
        license: Option<String>,
    },
    /// List base models.
    List,
    /// Remove a base model that no unfinished job needs; its files stay.
    Remove {
        /// Its name, as the list shows it.
        name: String,
    },
}

pub async fn run(args: ModelsArgs) -> anyhow::Result<()> {
    // Read before the database is opened: most mistakes are in the path.
    let new = match &args.command {
        ModelsCommand::Add { path, name, source, license } => {
            let path = find(path)?;
            let name = name.clone().unwrap_or_else(|| default_name(&path));
            let (facts, sha256) = read(path.clone()).await?;
            Some(NewBaseModel { name, path, source: source.clone(), license: license.clone(), facts, sha256 })
        }
        _ => None,
    };
    let host = Host::open(&args.store).await?;
    let done = act(&host.store, args.command, new).await;
    host.close().await;
    done
}

async fn act(store: &Store, command: ModelsCommand, new: Option<NewBaseModel>) -> anyhow::Result<()> {
    match (command, new) {
        (ModelsCommand::Remove { name }, _) => {
            store.remove_base_model(&name).await?;
            println!("{name} is removed; its files stay");
        }
        (_, Some(new)) => {
            let model = store.register_base_model(&new).await?;
            println!("{}", format::table(&[row(&model)]).concat());
        }
        (_, None) => {
            let models = store.base_models().await?;
            let heading = ["NAME", "ARCHITECTURE", "PARAMETERS", "CONTEXT", "PATH"].map(str::to_owned).to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(heading).chain(models.iter().map(row)).collect();
            format::table(&rows).iter().for_each(|line| println!("{line}"));
        }
    }
    Ok(())
}

fn row(model: &BaseModel) -> Vec<String> {
    let millions = format!("{:.0} M", model.facts.parameters as f64 / 1e6);
    let context = model.facts.context_length.to_string();
    let path = model.path.display().to_string();
    vec![model.name.clone(), model.facts.architecture.clone(), millions, context, path]
}

/// The model's place, or what to do about a name that is none.
fn find(path: &Path) -> anyhow::Result<PathBuf> {
    if path.exists() {
        return path.canonicalize().with_context(|| format!("while looking for {}", path.display()));
    }
    let text = path.display().to_string();
    let parts: Vec<&str> = text.split('/').collect();
    let named = |part: &&str| !part.is_empty() && !part.starts_with('.');
    if parts.len() == 2 && parts.iter().all(named) {
        let name = parts[1];
        bail!(
            "there is no folder {text}. If it is a model on Hugging Face, download it first, then add the folder:\n  \
             hf download {text} --local-dir {name}\n  finetuned models add {name} --name {text} --source https://huggingface.co/{text}"
        );
    }
    bail!("there is nothing at {text}; give a Hugging Face folder with safetensors or a GGUF file")
}

fn default_name(path: &Path) -> String {
    let plain = if path.is_dir() { path.file_name() } else { path.file_stem() };
    plain.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Facts and hash of a model; reads all of it.
async fn read(path: PathBuf) -> anyhow::Result<(ModelFacts, String)> {
    let reading = move || {
        let source = ModelSource::open(&path)?;
        Ok((source.facts(), source.sha256()?))
    };
    tokio::task::spawn_blocking(reading).await.context("while reading the model")?
}

/// What is remembered of the bundled model, so that a start need not read 98 MB.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    bytes: u64,
    modified_nanoseconds: u128,
    facts: ModelFacts,
    sha256: String,
}

/// Registers the model that comes with the runtime folder, where it is there. A fault with it only stops this model.
pub async fn register_bundled(store: &Store, data_dir: &Path, runtime_dir: &Path) {
    let path = runtime_dir.join(BUNDLED_MODEL);
    if !path.is_file() {
        tracing::info!(path = %path.display(), "no bundled base model; `finetuned models add` adds one");
        return;
    }
    if let Err(error) = register(store, &data_dir.join("bundled-model.json"), path).await {
        tracing::warn!(error = format!("{error:#}"), "the bundled base model was not registered");
    }
}

async fn register(store: &Store, memory: &Path, path: PathBuf) -> anyhow::Result<()> {
    let Remembered { path, facts, sha256, .. } = recall(memory, path).await?;
    let new = NewBaseModel {
        name: MODEL.to_owned(),
        path,
        source: Some("https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct".to_owned()),
        license: Some("Apache-2.0".to_owned()),
        facts,
        sha256,
    };
    match store.register_base_model(&new).await {
        Err(StoreError::Conflict { message }) => {
            bail!("{message}; `finetuned models remove {MODEL}` makes room for the new one at the next start")
        }
        outcome => outcome.map(|_| ()).context("while registering it"),
    }
}

/// Facts and hash from the last start where the file is the same by size and time, else read anew.
async fn recall(memory: &Path, path: PathBuf) -> anyhow::Result<Remembered> {
    let data = path.metadata().with_context(|| format!("while reading {}", path.display()))?;
    let modified = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let (bytes, modified_nanoseconds) = (data.len(), modified.unwrap_or_default().as_nanos());
    let known = std::fs::read(memory).ok().and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
    if let Some(known) = known
        && (known.bytes, known.modified_nanoseconds) == (bytes, modified_nanoseconds)
        && known.path == path
    {
        return Ok(known);
    }
    let (facts, sha256) = read(path.clone()).await?;
    let fresh = Remembered { path, bytes, modified_nanoseconds, facts, sha256 };
    // Without this note the next start reads the file again, no more.
    if let Err(error) = std::fs::write(memory, serde_json::to_vec_pretty(&fresh)?) {
        tracing::warn!(path = %memory.display(), %error, "what was learnt of the bundled model was not kept");
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_hugging_face_name_is_told_how_to_come() {
        let error = find(Path::new("HuggingFaceTB/SmolLM2-360M-Instruct")).unwrap_err().to_string();
        assert!(error.contains("hf download HuggingFaceTB/SmolLM2-360M-Instruct --local-dir SmolLM2-360M-Instruct"));
        assert!(
            error.contains("finetuned models add SmolLM2-360M-Instruct --name HuggingFaceTB/SmolLM2-360M-Instruct")
        );
        let error = find(Path::new("./nowhere/model.gguf")).unwrap_err().to_string();
        assert!(!error.contains("hf download"), "{error}");
    }

    #[test]
    fn models_are_named_after_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let dotted = folder.path().join("Qwen3-0.6B");
        std::fs::create_dir(&dotted).unwrap();
        assert_eq!(default_name(&dotted), "Qwen3-0.6B");
        assert_eq!(default_name(Path::new("/models/tiny.gguf")), "tiny");
    }

    #[tokio::test]
    async fn what_is_known_of_a_file_holds_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, path) = (folder.path().join("memory.json"), folder.path().join("model.gguf"));
        std::fs::write(&path, "not a model").unwrap();
        let modified = path.metadata().unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let facts = ModelFacts {
            architecture: "llama".into(),
            parameters: 1,
            layers: 1,
            hidden_size: 1,
            vocab_size: 1,
            context_length: 1,
            linear_modules: Vec::new(),
            fixed_modules: Vec::new(),
            has_chat_template: false,
        };
        let known =
            Remembered { path: path.clone(), bytes: 11, modified_nanoseconds: modified, facts, sha256: "a".into() };
        std::fs::write(&memory, serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(recall(&memory, path.clone()).await.unwrap(), known);
        std::fs::write(&path, "another one!").unwrap();
        assert!(recall(&memory, path).await.is_err(), "it is read anew, and is no model");
    }
}
