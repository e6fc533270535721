//! README.md of an exported adapter or model: what it was made of and what came of it.

use finetuned_protocol::{
    engine::EngineJob,
    evaluation::Likelihood,
    spec::{DatasetFacts, TemplateSpec},
    tuning::{AdapterSpec, TuningSpec},
};

/// What a card tells.
pub struct Card<'a> {
    pub job: &'a EngineJob,
    pub facts: &'a DatasetFacts,
    pub trained_tokens: u64,
    pub train_loss: Option<f64>,
    pub base: Option<&'a Likelihood>,
    pub tuned: Option<&'a Likelihood>,
}

/// The card as Markdown with the front matter that model hubs read.
pub fn model_card(card: &Card) -> String {
    let Card { job, facts, .. } = card;
    let base = &job.base_model;
    let tuning = &job.spec.tuning;
    let (library, tag, what) = match tuning {
        TuningSpec::Full { .. } => ("transformers", "finetuned", "Model tuned from"),
        TuningSpec::Adapter(_) => ("peft", "adapter", "Adapter for"),
    };
    let tag = if tuning.lora().is_some() { "lora" } else { tag };
    [
        format!(
            "---\nbase_model: {base}\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- {tag}\n---\n"
        ),
        format!("# {what} {base}\n"),
        format!(
            "Trained by finetuned {} in job `{}` on {} rows; {} rows were held out.\n",
            env!("CARGO_PKG_VERSION"),
            job.job_id,
            facts.train_rows,
            facts.held_out_rows
        ),
        figures(card),
        settings(card),
        usage(base, tuning),
    ]
    .join("\n")
}

fn figures(card: &Card) -> String {
    let mut table =
        "## Held-out rows\n\n| model | loss | perplexity | token accuracy |\n|---|---|---|---|\n".to_owned();
    for (name, likelihood) in [("base", card.base), ("tuned", card.tuned)] {
        if let Some(Likelihood { loss, perplexity, token_accuracy, .. }) = likelihood {
            table += &format!("| {name} | {loss:.4} | {perplexity:.2} | {:.1} % |\n", 100.0 * token_accuracy);
        }
    }
    if let Some(loss) = card.train_loss {
        table += &format!("\nLoss of the last training step: {loss:.4}.\n");
    }
    table
}

fn settings(card: &Card) -> String {
    let spec = &card.job.spec;
    let template = match &spec.preparation.template {
        TemplateSpec::Chat => "the base model's chat template",
        TemplateSpec::Alpaca => "the Alpaca prompt",
        TemplateSpec::Jinja { .. } => "a template of its own",
    };
    let optimizer = &spec.optimizer;
    let mut rows = vec![("method", spec.tuning.describe().to_owned())];
    rows.extend(method_settings(&spec.tuning));
    rows.extend([
        ("steps, rows a step, epochs", format!("{}, {}, {}", spec.total_steps, spec.batch_size, spec.n_epochs)),
        ("learning rate, schedule", format!("{}, {}", optimizer.learning_rate, spec.schedule.shape.kind())),
        ("optimiser", optimizer.algorithm.describe()),
        ("weight decay", optimizer.weight_decay.to_string()),
        ("longest row in tokens", spec.preparation.max_seq_len.to_string()),
        ("tokens trained on", card.trained_tokens.to_string()),
        ("seed", spec.seed.to_string()),
        ("template", format!("{template} (`chat_template.jinja` where there is one)")),
    ]);
    let rows: String = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    format!("## Settings\n\n| | |\n|---|---|\n{rows}")
}

fn method_settings(tuning: &TuningSpec) -> Vec<(&'static str, String)> {
    match tuning {
        TuningSpec::Full { full } => match full.last_layers {
            Some(layers) => vec![("trained layers", format!("the last {layers}"))],
            None => vec![],
        },
        TuningSpec::Adapter(AdapterSpec::Lora(lora)) => {
            // The files hold what is trained as a plain adapter, whatever it started from.
            let out = lora.exported();
            let mut rows = vec![
                ("rank, alpha, dropout", format!("{}, {}, {}", out.r, out.alpha, out.dropout)),
                ("modules", out.target_modules.join(", ")),
                ("first weights", lora.init.to_string()),
            ];
            if !lora.modules_to_save.is_empty() {
                rows.push(("trained whole", lora.modules_to_save.join(", ")));
            }
            rows
        }
        TuningSpec::Adapter(AdapterSpec::Ia3(ia3)) => vec![("modules", ia3.target_modules.join(", "))],
        TuningSpec::Adapter(other) => vec![("virtual tokens", other.num_virtual_tokens().to_string())],
    }
}

fn usage(base: &str, tuning: &TuningSpec) -> String {
    if matches!(tuning, TuningSpec::Full { .. }) {
        return "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n\
                model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n```\n"
            .to_owned();
    }
    format!(
        "## Use\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
         model = AutoModelForCausalLM.from_pretrained(\"{base}\")\n\
         model = PeftModel.from_pretrained(model, \"path/to/this/folder\")\n```\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_card_tells_base_settings_and_losses() {
        let likelihood = |loss: f64| Likelihood {
            loss,
            perplexity: loss.exp(),
            token_accuracy: 0.5,
            supervised_tokens: 10,
            rows: 2,
            bits_per_byte: None,
            preference: None,
        };
        let job = testing::job();
        let facts = testing::facts();
        let (base, tuned) = (likelihood(4.5), likelihood(2.0));
        let card = Card {
            job: &job,
            facts: &facts,
            trained_tokens: 1234,
            train_loss: Some(1.75),
            base: Some(&base),
            tuned: Some(&tuned),
        };
        let text = model_card(&card);
        for part in [
            "base_model: tiny-llama",
            "library_name: peft",
            "| method | LoRA |",
            "| rank, alpha, dropout | 4, 8, 0.1 |",
            "| base | 4.5000 |",
            "| tuned | 2.0000 | 7.39 | 50.0 % |",
            "1.7500",
            "| seed | 7 |",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
