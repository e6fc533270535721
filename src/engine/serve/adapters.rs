//! Adapters in memory, loaded when first asked for.

use std::{fs, rc::Rc};

use finetuned_model::{Adapter, CausalLm};
use finetuned_protocol::{
    serving::{AdapterPlace, CHECKPOINT_FILE, CHECKPOINT_TENSORS, ServedCheckpoint},
    spec::TemplateSpec,
};
use finetuned_weights::{TextTokenizer, read_tokenizer};

use crate::template;

/// Adapters that stay in memory; those that were not asked for longest go first.
const MOST: usize = 64;

/// What a request is answered with beside the base model.
#[derive(Clone)]
pub struct Tuned {
    key: String,
    pub adapter: Rc<Adapter>,
    pub speech: Speech,
}

/// How texts become tokens: with the tokenizer, template and special tokens that an adapter was trained with.
#[derive(Clone)]
pub struct Speech {
    pub tokenizer: TextTokenizer,
    /// In place of the base's own template: a client's, which is rendered within limits.
    pub template: Option<String>,
}

/// The one used last comes last.
#[derive(Default)]
pub struct Adapters(Vec<Tuned>);

impl Adapters {
    /// # Errors
    /// Files that cannot be read or do not fit the model.
    pub fn get(&mut self, model: &CausalLm, base: &Speech, place: &AdapterPlace) -> anyhow::Result<Tuned> {
        let tuned = match self.0.iter().position(|tuned| tuned.key == place.key) {
            Some(index) => self.0.remove(index),
            None => load(model, base, place)?,
        };
        self.0.push(tuned.clone());
        Ok(tuned)
    }

    /// Those that are too many and that nobody uses.
    pub fn surplus(&mut self) -> Vec<Rc<Adapter>> {
        let mut surplus = Vec::new();
        while self.0.len() > MOST {
            surplus.push(self.0.remove(0).adapter);
        }
        surplus
    }
}

fn load(model: &CausalLm, base: &Speech, place: &AdapterPlace) -> anyhow::Result<Tuned> {
    let folder = &place.folder;
    let (adapter, speech) = match fs::read(folder.join(CHECKPOINT_FILE)) {
        Ok(text) => {
            let ServedCheckpoint { spec, template } = serde_json::from_slice(&text)?;
            let adapter = Adapter::load_checkpoint(model, &spec, &folder.join(CHECKPOINT_TENSORS))?;
            let template = match template {
                TemplateSpec::Chat => None,
                TemplateSpec::Alpaca => Some(template::ALPACA.to_owned()),
                TemplateSpec::Jinja { source } => Some(source),
            };
            (adapter, Speech { tokenizer: base.tokenizer.clone(), template })
        }
        Err(_) => {
            let tokenizer = read_tokenizer(folder, model.facts().vocab_size)?;
            let own = tokenizer.chat_template().filter(|own| Some(*own) != base.tokenizer.chat_template());
            let template = own.map(str::to_owned);
            (Adapter::load(model, folder)?, Speech { tokenizer, template })
        }
    };
    Ok(Tuned { key: place.key.clone(), adapter: Rc::new(adapter), speech })
}
