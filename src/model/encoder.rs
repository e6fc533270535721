//! A BERT encoder of texts (Devlin et al. 2019; the weights are laid out as transformers' `BertModel` has them): every
//! token sees the whole of its text, in both directions. Mean pooling and scaling to length one as in Sentence-BERT
//! (Reimers & Gurevych 2019).

use std::collections::HashMap;

use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{Activation, EncodedText, EncoderFolder};

use crate::{error::ModelError, mlp::activate, norm::Norm, tensor_file};

/// Tokens computed together. Their feed-forward activations are the most that is held.
const TOKENS_TOGETHER: usize = 4096;

/// A linear layer of the encoder.
#[derive(Debug)]
struct Dense {
    /// `[out_features, in_features]`
    weight: Tensor,
    /// `[out_features]`
    bias: Tensor,
}

impl Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

#[derive(Debug)]
struct EncoderLayer {
    query: Dense,
    key: Dense,
    value: Dense,
    attention_output: Dense,
    attention_norm: Norm,
    intermediate: Dense,
    output: Dense,
    output_norm: Norm,
}

/// A loaded encoder, in f32.
#[derive(Debug)]
pub struct Encoder {
    folder: EncoderFolder,
    /// `[vocab, hidden]`
    words: Tensor,
    /// `[positions, hidden]`, with the vector of the first text type added, which is every text's.
    positions: Tensor,
    norm: Norm,
    layers: Vec<EncoderLayer>,
    heads: i64,
    activation: Activation,
    device: Device,
}

/// A text as the encoder sees it.
#[derive(Debug)]
pub struct EncodedStates {
    /// Last hidden states of the text's own tokens, each scaled to length one, `[tokens, hidden]`; without the tokens that
    /// the tokenizer puts around a text.
    pub tokens: Tensor,
    /// The mean over all tokens, scaled to length one, `[hidden]`.
    pub embedding: Tensor,
    /// Tokens of the text, those around it counted too.
    pub length: usize,
    /// Whether the text's end was left out.
    pub truncated: bool,
}

impl Encoder {
    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// Tensors that are missing or have other shapes than the config says, or too little memory.
    pub fn load(folder: EncoderFolder, device: Device) -> Result<Self, ModelError> {
        let _frozen = tch::no_grad_guard();
        let config = folder.config().clone();
        let tensors = tensor_file::load(&folder.tensors())?.into_iter().collect();
        let mut taken = Taken { tensors, device, epsilon: config.layer_norm_eps, problems: Vec::new() };
        let [vocab, hidden, wide, positions] =
            [config.vocab_size, config.hidden_size, config.intermediate_size, config.max_position_embeddings]
                .map(i64::from);
        let words = taken.tensor("embeddings.word_embeddings.weight", &[vocab, hidden]);
        let places = taken.tensor("embeddings.position_embeddings.weight", &[positions, hidden]);
        let types = taken.first_row("embeddings.token_type_embeddings.weight", hidden);
        let norm = taken.norm("embeddings.LayerNorm", hidden);
        let layers = (0..config.num_hidden_layers).map(|index| taken.layer(index, hidden, wide)).collect();
        taken.check()?;
        Ok(Self {
            words,
            positions: places.f_add(&types)?,
            norm,
            layers,
            heads: config.num_attention_heads.into(),
            activation: config.activation,
            device,
            folder,
        })
    }

    /// Numbers of an embedding.
    pub fn dimensions(&self) -> usize {
        self.folder.config().hidden_size as usize
    }

    /// Embeddings of texts, in their order, each of length one.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or too little memory.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelError> {
        let states = self.states(texts)?;
        states.iter().map(|state| Ok(Vec::try_from(&state.embedding.f_to_device(Device::Cpu)?)?)).collect()
    }

    /// Texts as the encoder sees them, in their order.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn states(&self, texts: &[&str]) -> Result<Vec<EncodedStates>, ModelError> {
        let _frozen = tch::no_grad_guard();
        let encoded = texts.iter().map(|text| self.folder.encode(text)).collect::<Result<Vec<_>, _>>()?;
        let mut states = Vec::with_capacity(texts.len());
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(fitting(rest));
            rest = later;
            let hidden = self.hidden(batch)?;
            let lengths: Vec<i64> = batch.iter().map(|text| text.ids.len() as i64).collect();
            for (text, hidden) in batch.iter().zip(hidden.f_split_with_sizes(&lengths, 0)?) {
                states.push(state(text, &hidden)?);
            }
        }
        Ok(states)
    }

    /// Last hidden states of texts laid one after the other, `[tokens, hidden]`.
    fn hidden(&self, texts: &[EncodedText]) -> Result<Tensor, ModelError> {
        let ids: Vec<i64> = texts.iter().flat_map(|text| &text.ids).map(|&id| i64::from(id)).collect();
        let places: Vec<i64> = texts.iter().flat_map(|text| 0..text.ids.len() as i64).collect();
        let lengths: Vec<i64> = texts.iter().map(|text| text.ids.len() as i64).collect();
        let place = |values: &[i64]| Ok::<_, ModelError>(Tensor::f_from_slice(values)?.f_to_device(self.device)?);
        let words = Tensor::f_embedding(&self.words, &place(&ids)?, -1, false, false)?; // [tokens, hidden]
        let mut x = words.f_add(&Tensor::f_embedding(&self.positions, &place(&places)?, -1, false, false)?)?;
        x = self.norm.forward(&x)?;
        for layer in &self.layers {
            let attended = layer.attention_output.forward(&self.attend(layer, &x, &lengths)?)?;
            x = layer.attention_norm.forward(&x.f_add(&attended)?)?;
            let wide = activate(self.activation, &layer.intermediate.forward(&x)?)?; // [tokens, intermediate]
            x = layer.output_norm.forward(&x.f_add(&layer.output.forward(&wide)?)?)?;
        }
        Ok(x)
    }

    /// Each text to itself: no text sees another, and none is padded. `x` and the result are `[tokens, hidden]`.
    fn attend(&self, layer: &EncoderLayer, x: &Tensor, lengths: &[i64]) -> Result<Tensor, ModelError> {
        let (tokens, hidden) = x.size2()?;
        let shape = [tokens, self.heads, hidden / self.heads];
        let by_text =
            |dense: &Dense| Ok::<_, ModelError>(dense.forward(x)?.f_view(shape)?.f_split_with_sizes(lengths, 0)?);
        let (q, k, v) = (by_text(&layer.query)?, by_text(&layer.key)?, by_text(&layer.value)?);
        let mut mixed = Vec::with_capacity(lengths.len());
        for ((q, k), v) in q.iter().zip(&k).zip(&v) {
            let first = |x: &Tensor| x.f_permute([1, 0, 2])?.f_unsqueeze(0); // [1, heads, length, head_dim]
            let (q, k, v) = (first(q)?, first(k)?, first(v)?);
            let out = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false)?;
            mixed.push(out.f_squeeze_dim(0)?.f_permute([1, 0, 2])?); // [length, heads, head_dim]
        }
        Ok(Tensor::f_cat(&mixed, 0)?.f_reshape([tokens, hidden])?)
    }
}

/// How many of the first texts are computed together: at least one.
fn fitting(texts: &[EncodedText]) -> usize {
    let mut tokens = 0;
    let fits = |text: &&EncodedText| {
        tokens += text.ids.len();
        tokens <= TOKENS_TOGETHER
    };
    texts.iter().take_while(fits).count().max(1)
}

/// `hidden` is `[tokens, hidden]`, of one text.
fn state(text: &EncodedText, hidden: &Tensor) -> Result<EncodedStates, ModelError> {
    let own: Vec<i64> = (0..).zip(&text.is_content).filter(|(_, own)| **own).map(|(index, _)| index).collect();
    let own = Tensor::f_from_slice(&own)?.f_to_device(hidden.device())?;
    let mean = hidden.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
    Ok(EncodedStates {
        tokens: of_length_one(&hidden.f_index_select(0, &own)?)?,
        embedding: of_length_one(&mean)?,
        length: text.ids.len(),
        truncated: text.truncated,
    })
}

/// Over the last dimension; a vector of zeros stays one, as with `torch.nn.functional.normalize`.
fn of_length_one(x: &Tensor) -> Result<Tensor, ModelError> {
    let length = x.f_linalg_norm(2.0, [-1_i64].as_slice(), true, Kind::Float)?.f_clamp_min(1e-12)?;
    Ok(x.f_div(&length)?)
}

/// The tensors of a file as they are taken out of it; what is wrong is collected, so that all of it is told.
struct Taken {
    tensors: HashMap<String, Tensor>,
    device: Device,
    epsilon: f64,
    problems: Vec<String>,
}

impl Taken {
    fn tensor(&mut self, name: &str, shape: &[i64]) -> Tensor {
        let found = match self.tensors.remove(name) {
            None => Err(format!("`{name}` is missing")),
            Some(tensor) if tensor.size() != shape => {
                Err(format!("`{name}` is {:?} and should be {shape:?}", tensor.size()))
            }
            Some(tensor) => tensor
                .f_to_kind(Kind::Float)
                .and_then(|tensor| tensor.f_to_device(self.device))
                .map_err(|error| format!("`{name}`: {error}")),
        };
        found.unwrap_or_else(|problem| {
            self.problems.push(problem);
            Tensor::new()
        })
    }

    fn first_row(&mut self, name: &str, hidden: i64) -> Tensor {
        let rows = self.tensors.get(name).and_then(|tensor| tensor.size2().ok()).map_or(1, |(rows, _)| rows);
        let table = self.tensor(name, &[rows, hidden]);
        table.f_select(0, 0).unwrap_or_else(|_| Tensor::new())
    }

    fn dense(&mut self, path: &str, (to, from): (i64, i64)) -> Dense {
        let weight = self.tensor(&format!("{path}.weight"), &[to, from]);
        Dense { weight, bias: self.tensor(&format!("{path}.bias"), &[to]) }
    }

    fn norm(&mut self, path: &str, hidden: i64) -> Norm {
        let weight = self.tensor(&format!("{path}.weight"), &[hidden]);
        Norm::Layer { weight, bias: self.tensor(&format!("{path}.bias"), &[hidden]), epsilon: self.epsilon }
    }

    fn layer(&mut self, index: u32, hidden: i64, wide: i64) -> EncoderLayer {
        let path = |name: &str| format!("encoder.layer.{index}.{name}");
        EncoderLayer {
            query: self.dense(&path("attention.self.query"), (hidden, hidden)),
            key: self.dense(&path("attention.self.key"), (hidden, hidden)),
            value: self.dense(&path("attention.self.value"), (hidden, hidden)),
            attention_output: self.dense(&path("attention.output.dense"), (hidden, hidden)),
            attention_norm: self.norm(&path("attention.output.LayerNorm"), hidden),
            intermediate: self.dense(&path("intermediate.dense"), (wide, hidden)),
            output: self.dense(&path("output.dense"), (hidden, wide)),
            output_norm: self.norm(&path("output.LayerNorm"), hidden),
        }
    }

    /// Refuses a file that lacks something. What else it holds, such as a head for training, embeds no text.
    fn check(self) -> Result<(), ModelError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ModelError::Tensors { problems: self.problems }) }
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
