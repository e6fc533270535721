//! An opened model.

use std::{fs, io::Read, path::Path};

use finetuned_protocol::spec::ModelFacts;

use crate::{
    config::ModelConfig,
    digest,
    error::WeightsError,
    export::{self, TextFile},
    facts,
    folder::{CONFIG, GENERATION_CONFIG, HfFolder, INDEX},
    gguf::{self, GgufFile},
    tensor::HostTensor,
    tokenizer::{self, TextTokenizer},
};

/// An opened model: a Hugging Face folder or a GGUF file, memory mapped, no tensors copied.
pub struct ModelSource {
    files: Files,
}

enum Files {
    Folder(Box<HfFolder>),
    Gguf(Box<GgufFile>),
}

impl ModelSource {
    /// Opens a folder or a GGUF file, whichever `path` holds.
    ///
    /// # Errors
    /// What is wrong with the files, and the remedy.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let doing = "opening the model";
        let kind = fs::metadata(path).map_err(WeightsError::io(doing, path))?;
        if kind.is_dir() {
            return Ok(Self { files: Files::Folder(Box::new(HfFolder::open(path)?)) });
        }
        let mut magic = Vec::with_capacity(gguf::MAGIC.len());
        let file = fs::File::open(path).map_err(WeightsError::io(doing, path))?;
        file.take(gguf::MAGIC.len() as u64).read_to_end(&mut magic).map_err(WeightsError::io(doing, path))?;
        if magic != gguf::MAGIC {
            let reason = "give a GGUF file, or the folder that holds config.json and the safetensors".to_owned();
            return Err(WeightsError::NotAModel { path: path.to_owned(), reason });
        }
        Ok(Self { files: Files::Gguf(Box::new(GgufFile::open(path)?)) })
    }

    /// What its mathematics depends on.
    pub fn config(&self) -> &ModelConfig {
        match &self.files {
            Files::Folder(folder) => folder.config(),
            Files::Gguf(file) => file.config(),
        }
    }

    /// What the service tells of it.
    pub fn facts(&self) -> ModelFacts {
        let has_chat_template = match &self.files {
            Files::Folder(folder) => tokenizer::has_chat_template(folder.path()),
            Files::Gguf(file) => file.has_chat_template(),
        };
        facts::of(self.config(), has_chat_template)
    }

    /// Hugging Face's names (`model.layers.0.self_attn.q_proj.weight`), of a GGUF file too; sorted.
    pub fn tensor_names(&self) -> Vec<String> {
        match &self.files {
            Files::Folder(folder) => folder.tensor_names(),
            Files::Gguf(file) => file.tensor_names(),
        }
    }

    /// One tensor, by its Hugging Face name. Those of a folder are borrowed from the mapped file. Quantised GGUF tensors
    /// are dequantised in f32 and rounded to bf16 at each call.
    ///
    /// # Errors
    /// No such tensor.
    pub fn tensor(&self, name: &str) -> Result<HostTensor<'_>, WeightsError> {
        match &self.files {
            Files::Folder(folder) => folder.tensor(name),
            Files::Gguf(file) => file.tensor(name),
        }
    }

    /// The model's own tokenizer; read at each call.
    ///
    /// # Errors
    /// A model without one, or one that cannot be read.
    pub fn tokenizer(&self) -> Result<TextTokenizer, WeightsError> {
        match &self.files {
            Files::Folder(folder) => tokenizer::read_folder(folder.path(), folder.config().common.vocab_size),
            Files::Gguf(file) => file.tokenizer(),
        }
    }

    /// Ids that end an answer: `generation_config.json`'s list, else the config's, else GGUF's.
    pub fn generation_eos_ids(&self) -> Vec<u32> {
        match &self.files {
            Files::Folder(folder) if !folder.generation_eos().is_empty() => folder.generation_eos().to_vec(),
            _ => self.config().common.eos_token_ids.clone(),
        }
    }

    /// `config.json` and `generation_config.json` for weights of this model that were trained and saved in f32.
    ///
    /// # Errors
    /// Files of the base that cannot be read.
    pub fn export_configs(&self) -> Result<Vec<TextFile>, WeightsError> {
        match &self.files {
            Files::Folder(folder) => export::of_folder(folder),
            Files::Gguf(_) => export::of_config(self.config(), &self.generation_eos_ids()),
        }
    }

    /// Hash of the content: of the GGUF file, or of a folder's weights, config and tokenizer files by name. Reads all of
    /// them.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn sha256(&self) -> Result<String, WeightsError> {
        match &self.files {
            Files::Gguf(file) => digest::file(file.path()),
            Files::Folder(folder) => {
                let mut names: Vec<&str> = folder.weight_files().iter().map(String::as_str).collect();
                names.extend([CONFIG, GENERATION_CONFIG, INDEX]);
                names.extend(tokenizer::FILES);
                digest::folder(folder.path(), &names)
            }
        }
    }
}
