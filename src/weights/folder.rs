//! A Hugging Face folder: `config.json` and safetensors, in one file or several.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::{
    config::ModelConfig,
    error::WeightsError,
    tensor::{HostDtype, HostTensor, check_shapes, map_file},
};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";
pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Where one tensor lies.
struct Place {
    file: usize,
    dtype: HostDtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// An opened folder.
pub(crate) struct HfFolder {
    path: PathBuf,
    config: ModelConfig,
    generation_eos: Vec<u32>,
    /// Names of the weight files, in the order of `maps`.
    files: Vec<String>,
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, Place>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl HfFolder {
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let present = list(path)?;
        if !present.contains(CONFIG) {
            return Err(WeightsError::MissingFiles { folder: path.to_owned(), files: vec![CONFIG.to_owned()] });
        }
        let config = ModelConfig::from_json(&read_text(path, CONFIG)?)?;
        let (files, weight_map) = weight_files(path, &present)?;
        let maps = files.iter().map(|name| map_file(&path.join(name))).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        for (file, (name, map)) in files.iter().zip(&maps).enumerate() {
            places(&path.join(name), (file, map), &config, &mut tensors)?;
        }
        if let Some(weight_map) = weight_map {
            check_index(path, (&weight_map, &config), &files, &tensors)?;
        }
        let shapes = tensors.iter().map(|(name, place)| (name.as_str(), place.shape.as_slice()));
        check_shapes(&config.tensors(), shapes).map_err(|reason| WeightsError::malformed(path, reason))?;
        let generation_eos = generation_eos(path, &present)?;
        Ok(Self { path: path.to_owned(), config, generation_eos, files, maps, tensors })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn weight_files(&self) -> &[String] {
        &self.files
    }

    pub(crate) fn generation_eos(&self) -> &[u32] {
        &self.generation_eos
    }

    pub(crate) fn tensor_names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<HostTensor<'_>, WeightsError> {
        let place = self.tensors.get(name).ok_or_else(|| WeightsError::NoSuchTensor { name: name.to_owned() })?;
        let bytes = self.maps.get(place.file).and_then(|map| map.get(place.start..place.end)).unwrap_or_default();
        Ok(HostTensor { dtype: place.dtype, shape: place.shape.clone(), bytes: Cow::Borrowed(bytes) })
    }
}

fn list(path: &Path) -> Result<BTreeSet<String>, WeightsError> {
    let doing = "listing the model folder";
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(WeightsError::io(doing, path))? {
        let entry = entry.map_err(WeightsError::io(doing, path))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn read_text(folder: &Path, name: &str) -> Result<String, WeightsError> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(WeightsError::io("reading the model's config", &path))
}

type WeightMap = BTreeMap<String, String>;

/// Names of the files that hold the weights, and the index where there is one.
fn weight_files(folder: &Path, present: &BTreeSet<String>) -> Result<(Vec<String>, Option<WeightMap>), WeightsError> {
    let shards: Vec<_> = present.iter().filter(|name| is_shard(name)).cloned().collect();
    if !present.contains(INDEX) {
        return match (present.contains(SINGLE), shards.is_empty()) {
            (true, true) => Ok((vec![SINGLE.to_owned()], None)),
            (true, false) => Err(ambiguous(folder, &shards)),
            (false, false) => missing(folder, vec![INDEX.to_owned()]),
            (false, true) => Err(no_weights(folder, present)),
        };
    }
    if present.contains(SINGLE) {
        return Err(ambiguous(folder, &[INDEX.to_owned()]));
    }
    let index: Index = serde_json::from_str(&read_text(folder, INDEX)?)
        .map_err(|error| WeightsError::malformed(&folder.join(INDEX), error.to_string()))?;
    let named: BTreeSet<_> = index.weight_map.values().cloned().collect();
    if let Some(bad) = named.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.') || name.is_empty())
    {
        return Err(WeightsError::malformed(&folder.join(INDEX), format!("`{bad}` is no plain file name")));
    }
    let absent: Vec<_> = named.difference(present).cloned().collect();
    if !absent.is_empty() {
        return missing(folder, absent);
    }
    let extra: Vec<_> = shards.into_iter().filter(|name| !named.contains(name)).collect();
    if !extra.is_empty() {
        let reason = format!("{INDEX} does not name {}; remove what belongs to another model", extra.join(", "));
        return Err(WeightsError::NotAModel { path: folder.to_owned(), reason });
    }
    Ok((named.into_iter().collect(), Some(index.weight_map)))
}

fn missing<T>(folder: &Path, files: Vec<String>) -> Result<T, WeightsError> {
    Err(WeightsError::MissingFiles { folder: folder.to_owned(), files })
}

/// `model-00001-of-00003.safetensors`.
fn is_shard(name: &str) -> bool {
    name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors")
}

fn ambiguous(folder: &Path, others: &[String]) -> WeightsError {
    let reason = format!("it holds both {SINGLE} and {}; keep the files of one model", others.join(", "));
    WeightsError::NotAModel { path: folder.to_owned(), reason }
}

fn no_weights(folder: &Path, present: &BTreeSet<String>) -> WeightsError {
    let pickle = |name: &&String| name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth");
    let reason = match present.iter().find(pickle) {
        Some(name) => {
            format!("its weights are a pickle (`{name}`), which is never read; save them as safetensors")
        }
        None => format!("it holds neither {SINGLE} nor {INDEX}"),
    };
    WeightsError::NotAModel { path: folder.to_owned(), reason }
}

/// Adds the tensors of one file that the model has a use for.
fn places(
    path: &Path,
    (file, map): (usize, &Mmap),
    config: &ModelConfig,
    all: &mut BTreeMap<String, Place>,
) -> Result<(), WeightsError> {
    let (header, metadata) = SafeTensors::read_metadata(map)
        .map_err(|error| WeightsError::malformed(path, format!("its header cannot be read: {error}")))?;
    // Eight bytes of length come before the header.
    let data = header + 8;
    for (stored, info) in metadata.tensors() {
        let Some(name) = config.tensor_name(&stored) else { continue };
        let dtype = match info.dtype {
            Dtype::F32 => HostDtype::F32,
            Dtype::F16 => HostDtype::F16,
            Dtype::BF16 => HostDtype::Bf16,
            other => {
                let what = format!("type of tensor `{name}`");
                return Err(WeightsError::unsupported(what, format!("{other:?}"), "F32, F16, BF16"));
            }
        };
        let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
        let place = Place { file, dtype, shape: info.shape.clone(), start, end };
        if all.insert(name.to_string(), place).is_some() {
            return Err(WeightsError::malformed(path, format!("tensor `{name}` is in two files")));
        }
    }
    Ok(())
}

/// Every tensor is in the file that the index says.
fn check_index(
    folder: &Path,
    (weight_map, config): (&WeightMap, &ModelConfig),
    files: &[String],
    tensors: &BTreeMap<String, Place>,
) -> Result<(), WeightsError> {
    let wrong: Vec<_> = weight_map
        .iter()
        .filter_map(|(stored, file)| Some((config.tensor_name(stored)?, file)))
        .filter(|(name, file)| tensors.get(name.as_ref()).is_none_or(|place| files.get(place.file) != Some(*file)))
        .map(|(name, file)| format!("{name} (of {file})"))
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            let reason = format!("these tensors are not where it says: {}", wrong.join(", "));
            Err(WeightsError::malformed(&folder.join(INDEX), reason))
        }
    }
}

fn generation_eos(folder: &Path, present: &BTreeSet<String>) -> Result<Vec<u32>, WeightsError> {
    if !present.contains(GENERATION_CONFIG) {
        return Ok(Vec::new());
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    #[derive(Deserialize)]
    struct Generation {
        eos_token_id: Option<Ids>,
    }
    let text = read_text(folder, GENERATION_CONFIG)?;
    let read: Generation = serde_json::from_str(&text)
        .map_err(io::Error::from)
        .map_err(WeightsError::io("reading", &folder.join(GENERATION_CONFIG)))?;
    Ok(match read.eos_token_id {
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) => ids,
        None => Vec::new(),
    })
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod folder_tests;
