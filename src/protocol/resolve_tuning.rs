//! The method of a job, from a request and the model, or from the adapter it goes on from.

use crate::{
    error::FieldError,
    export,
    request::CreateJobRequest,
    spec::ModelFacts,
    tuning::{
        AdapterSpec, FullSpec, Ia3Spec, LoraInit, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec, TuningSpec,
    },
    tuning_request::{FullRequest, Ia3Request, LoraRequest, PrefixTuningRequest, PromptTuningRequest, TargetModules},
};

const DEFAULT_R: u32 = 16;
const DEFAULT_VIRTUAL_TOKENS: u32 = 20;
/// Modules that (IA)³ scales by default, as far as a model has them: keys and values, or what makes them with the queries.
const IA3_ATTENTION: [&str; 5] = ["k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn"];
/// Modules that lead out of the feed-forward part.
const IA3_FEEDFORWARD: [&str; 3] = ["down_proj", "dense_4h_to_h", "w2"];

/// The method's settings, checked against the model. `from` is the adapter that the job goes on from, where it does.
///
/// # Errors
/// What this model does not have, or a form of export that this method does not.
pub fn resolve_tuning(
    request: &CreateJobRequest,
    model: &ModelFacts,
    from: Option<&AdapterSpec>,
) -> Result<TuningSpec, FieldError> {
    let tuning = resolve_method(request, model, from)?;
    export::check(request.export.as_deref().unwrap_or_default(), &tuning, model)?;
    Ok(tuning)
}

fn resolve_method(
    request: &CreateJobRequest,
    model: &ModelFacts,
    from: Option<&AdapterSpec>,
) -> Result<TuningSpec, FieldError> {
    if let Some(spec) = from {
        return Ok(TuningSpec::Adapter(spec.exported()));
    }
    let CreateJobRequest { lora, full, ia3, prompt_tuning, prefix_tuning, .. } = request;
    let adapter = match (full, ia3, prompt_tuning, prefix_tuning) {
        (Some(full), ..) => return resolve_full(full, model),
        (_, _, Some(_), _) if model.scales_embeddings() => return Err(scaled("prompt_tuning", model)),
        (_, Some(ia3), ..) => AdapterSpec::Ia3(resolve_ia3(ia3, model)?),
        (_, _, Some(PromptTuningRequest { num_virtual_tokens, init }), _) => {
            AdapterSpec::PromptTuning(PromptTuningSpec {
                num_virtual_tokens: virtual_tokens("prompt_tuning.num_virtual_tokens", *num_virtual_tokens, model)?,
                init: init.unwrap_or(PromptInit::SampleVocab),
            })
        }
        (_, _, _, Some(PrefixTuningRequest { num_virtual_tokens })) => AdapterSpec::PrefixTuning(PrefixTuningSpec {
            num_virtual_tokens: virtual_tokens("prefix_tuning.num_virtual_tokens", *num_virtual_tokens, model)?,
        }),
        _ => AdapterSpec::Lora(resolve_lora(lora.as_ref().unwrap_or(&LoraRequest::default()), model)?),
    };
    Ok(TuningSpec::Adapter(adapter))
}

fn resolve_full(request: &FullRequest, model: &ModelFacts) -> Result<TuningSpec, FieldError> {
    let FullRequest { last_layers } = *request;
    if model.is_part_of_a_larger_model() {
        let message = "`full` is not supported for the language model of a larger one, whose other weights would be \
                       missing from the export; `lora` is";
        return Err(FieldError::new("full", message.to_owned()));
    }
    if let Some(layers) = last_layers.filter(|&layers| layers > model.layers) {
        let most = model.layers;
        let message = format!("`full.last_layers` must be at most {most}, the layers of this model; it is {layers}");
        return Err(FieldError::new("full.last_layers", message));
    }
    Ok(TuningSpec::Full { full: FullSpec { last_layers } })
}

/// peft's rows of the embedding are of other sizes there in one version of transformers than in another.
fn scaled(field: &'static str, model: &ModelFacts) -> FieldError {
    let architecture = &model.architecture;
    FieldError::new(field, format!("`{field}` is not supported for `{architecture}`, which scales its embeddings"))
}

fn virtual_tokens(field: &'static str, asked: Option<u32>, model: &ModelFacts) -> Result<u32, FieldError> {
    let (count, most) = (asked.unwrap_or(DEFAULT_VIRTUAL_TOKENS), model.context_length);
    if count < most {
        return Ok(count);
    }
    Err(FieldError::new(field, format!("`{field}` must be below {most}, the context length of this model")))
}

/// The names of the model's linear modules, in its order.
fn known_modules(model: &ModelFacts) -> Vec<&str> {
    let mut known: Vec<&str> = Vec::new();
    for module in &model.linear_modules {
        if !known.contains(&module.name.as_str()) {
            known.push(&module.name);
        }
    }
    known
}

/// Those of the names that the model has, in the model's order and once each, so that two spellings of one choice give
/// the same bytes.
fn of_the_model(field: &'static str, names: &[String], model: &ModelFacts) -> Result<Vec<String>, FieldError> {
    let known = known_modules(model);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let message = format!("`{unknown}` is not a linear module of this model; it has {}", known.join(", "));
        return Err(FieldError::new(field, message));
    }
    let asked = |name: &&str| names.iter().any(|asked| asked == name);
    Ok(known.into_iter().filter(asked).map(str::to_owned).collect())
}

fn resolve_ia3(request: &Ia3Request, model: &ModelFacts) -> Result<Ia3Spec, FieldError> {
    let Ia3Request { target_modules, feedforward_modules } = request;
    let usual = |names: &[&str]| -> Vec<String> {
        known_modules(model).into_iter().filter(|name| names.contains(name)).map(str::to_owned).collect()
    };
    let target_modules = match target_modules {
        Some(names) => of_the_model("ia3.target_modules", names, model)?,
        None => usual(&[&IA3_ATTENTION[..], &IA3_FEEDFORWARD].concat()),
    };
    if target_modules.is_empty() {
        let message =
            format!("`ia3.target_modules` must name modules of this model: {}", known_modules(model).join(", "));
        return Err(FieldError::new("ia3.target_modules", message));
    }
    let feedforward_modules = match feedforward_modules {
        Some(names) => of_the_model("ia3.feedforward_modules", names, model)?,
        None => usual(&IA3_FEEDFORWARD).into_iter().filter(|name| target_modules.contains(name)).collect(),
    };
    if let Some(name) = feedforward_modules.iter().find(|name| !target_modules.contains(name)) {
        let message = format!("`{name}` is not one of the target modules");
        return Err(FieldError::new("ia3.feedforward_modules", message));
    }
    Ok(Ia3Spec { target_modules, feedforward_modules })
}

fn resolve_lora(request: &LoraRequest, model: &ModelFacts) -> Result<LoraSpec, FieldError> {
    let LoraRequest {
        r,
        alpha,
        dropout,
        target_modules,
        use_rslora,
        use_dora,
        rank_pattern,
        alpha_pattern,
        layers_to_transform,
        modules_to_save,
        trainable_token_indices,
        init,
        loraplus_lr_ratio,
    } = request.clone();
    let r = r.unwrap_or(DEFAULT_R);
    let target_modules = match target_modules {
        None | Some(TargetModules::Keyword(_)) => known_modules(model).into_iter().map(str::to_owned).collect(),
        Some(TargetModules::Names(names)) => of_the_model("lora.target_modules", &names, model)?,
    };
    let spec = LoraSpec {
        r,
        alpha: alpha.unwrap_or(2.0 * f64::from(r)),
        dropout: dropout.unwrap_or(0.0),
        target_modules,
        use_rslora: use_rslora.unwrap_or(false),
        use_dora: use_dora.unwrap_or(false),
        rank_pattern: rank_pattern.unwrap_or_default(),
        alpha_pattern: alpha_pattern.unwrap_or_default(),
        layers_to_transform: layers_to_transform.map(sorted),
        modules_to_save: sorted(modules_to_save.unwrap_or_default()),
        trainable_token_indices: sorted(trainable_token_indices.unwrap_or_default()),
        init: init.unwrap_or(LoraInit::Default),
        loraplus_lr_ratio: loraplus_lr_ratio.unwrap_or(1.0),
    };
    check_lora(&spec, model)?;
    Ok(spec)
}

/// In order and once each, so that two spellings of one choice give the same bytes.
fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items.dedup();
    items
}

fn check_lora(spec: &LoraSpec, model: &ModelFacts) -> Result<(), FieldError> {
    let refuse = |field: &'static str, message: String| Err(FieldError::new(field, message));
    let stray = |key: &&String| !spec.target_modules.iter().any(|name| key.rsplit('.').next() == Some(name));
    if let Some(key) = spec.rank_pattern.keys().find(stray) {
        return refuse("lora.rank_pattern", format!("`{key}` names none of the target modules"));
    }
    if let Some(key) = spec.alpha_pattern.keys().find(stray) {
        return refuse("lora.alpha_pattern", format!("`{key}` names none of the target modules"));
    }
    let layers = model.layers;
    if let Some(layer) = spec.layers_to_transform.iter().flatten().find(|&&layer| layer >= layers) {
        return refuse(
            "lora.layers_to_transform",
            format!("there is no layer {layer}; this model has {layers}, from 0"),
        );
    }
    let [embedding, head] = model.vocabulary_modules();
    if let Some(name) = spec.modules_to_save.iter().find(|name| ![embedding, head].contains(&name.as_str())) {
        return refuse(
            "lora.modules_to_save",
            format!("`{name}` cannot be trained whole; `{embedding}` and `{head}` can"),
        );
    }
    if !spec.trainable_token_indices.is_empty() && model.scales_embeddings() {
        return Err(scaled("lora.trainable_token_indices", model));
    }
    let vocabulary = model.vocab_size;
    if let Some(id) = spec.trainable_token_indices.iter().find(|&&id| id >= vocabulary) {
        return refuse(
            "lora.trainable_token_indices",
            format!("there is no token {id}; the vocabulary has {vocabulary}"),
        );
    }
    if !spec.trainable_token_indices.is_empty() && spec.modules_to_save.iter().any(|name| name == embedding) {
        return refuse("lora.trainable_token_indices", format!("must be absent where `{embedding}` is trained whole"));
    }
    check_pissa(spec, model)
}

/// A matrix has no more singular vectors than its shorter side.
fn check_pissa(spec: &LoraSpec, model: &ModelFacts) -> Result<(), FieldError> {
    if spec.init != LoraInit::Pissa {
        return Ok(());
    }
    for module in model.linear_modules.iter().filter(|module| spec.target_modules.contains(&module.name)) {
        let most = module.in_features.min(module.out_features);
        let others = spec.rank_pattern.iter().filter(|(key, _)| key.rsplit('.').next() == Some(&module.name));
        if others.map(|(_, rank)| *rank).chain([spec.rank_of(&module.name)]).any(|rank| rank > most) {
            let message = format!("`{}` has a rank of {most}; `pissa` can start from no more", module.name);
            return Err(FieldError::new("lora.r", message));
        }
    }
    Ok(())
}
