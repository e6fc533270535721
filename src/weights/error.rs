//! What can be wrong with the files of a model.

use std::path::{Path, PathBuf};

/// Why a model, a tokenizer, a template or an adapter config cannot be used. The text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused to read or write.
    #[error("while {doing} `{}`: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The path leads to no model that can be read.
    #[error("`{}` is not a model: {reason}", path.display())]
    NotAModel { path: PathBuf, reason: String },
    /// Files that an index or the layout names are not there.
    #[error("model folder `{}` lacks {}", folder.display(), files.join(", "))]
    MissingFiles { folder: PathBuf, files: Vec<String> },
    /// A file breaks its own format: it was cut off, or made wrongly, or made to do harm.
    #[error("`{}` is malformed: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// A part of the file is well formed and not implemented here.
    #[error("{what} `{name}` is not supported; supported: {supported}")]
    Unsupported { what: String, name: String, supported: String },
    /// A config field is absent or has a value that makes no sense.
    #[error("field `{field}` of the model's config {reason}")]
    Config { field: String, reason: String },
    /// The model has no tensor of that name.
    #[error("the model has no tensor `{name}`")]
    NoSuchTensor { name: String },
    /// The model brings no tokenizer.
    #[error("the model has no tokenizer: {reason}")]
    NoTokenizer { reason: String },
    /// The tokenizer's files, or a text given to it, cannot be used.
    #[error("while {doing}: {reason}")]
    Tokenizer { doing: &'static str, reason: String },
    /// A chat template cannot be compiled or rendered, or asked for too much.
    #[error("while {doing}: {reason}")]
    Template { doing: &'static str, reason: String },
    /// An adapter config asks for something that is not implemented, or makes no sense.
    #[error("field `{field}` of adapter_config.json {reason}")]
    AdapterConfig { field: String, reason: String },
}

impl WeightsError {
    /// Whether the text names a place on this host, which is the operator's affair and not a client's.
    pub fn names_a_path(&self) -> bool {
        match self {
            Self::Io { .. } | Self::NotAModel { .. } | Self::MissingFiles { .. } | Self::Malformed { .. } => true,
            Self::Unsupported { .. }
            | Self::Config { .. }
            | Self::NoSuchTensor { .. }
            | Self::NoTokenizer { .. }
            | Self::Tokenizer { .. }
            | Self::Template { .. }
            | Self::AdapterConfig { .. } => false,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, name: impl Into<String>, supported: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), name: name.into(), supported: supported.into() }
    }
}
