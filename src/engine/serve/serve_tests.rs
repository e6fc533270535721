//! Requests of several tenants and adapters, answered side by side by one server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use finetuned_model::{Adapter, CausalLm};
use finetuned_protocol::{
    ids::TenantId,
    serving::{AdapterPlace, AnswerCommand, RefusalKind, ServeCommand, ServingEvent, ServingPrompt, ServingSettings},
    tuning::{AdapterSpec, LoraSpec},
};
use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::ModelSource;

use super::server::Server;
use crate::loaded::Loaded;

fn loaded() -> Loaded {
    finetuned_torch::set_threads(1).unwrap();
    let source =
        ModelSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat")).unwrap();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let model = CausalLm::load(&source, Device::Cpu, Kind::Float, go_on).unwrap();
    Loaded { source, model, adapter: None }
}

fn settings() -> ServingSettings {
    ServingSettings {
        max_tokens: Some(6),
        temperature: 0.0,
        top_p: 1.0,
        seed: 1,
        stop: Vec::new(),
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: BTreeMap::new(),
        top_logprobs: None,
        json_object: false,
    }
}

fn command(id: u64, tenant: TenantId, settings: ServingSettings) -> AnswerCommand {
    let prompt = ServingPrompt::Text(format!("Tell me of number {id}, at some length: "));
    AnswerCommand { id, tenant, adapter: None, prompt, settings }
}

/// The text of each answer, and the order in which they began and ended.
#[derive(Default)]
struct Heard {
    texts: BTreeMap<u64, String>,
    begun: Vec<u64>,
    ended: Vec<u64>,
    refused: BTreeMap<u64, RefusalKind>,
}

fn run(server: &mut Server<'_>, heard: &mut Heard) {
    loop {
        for line in server.told() {
            match line.event {
                ServingEvent::Begun { .. } => heard.begun.push(line.id),
                ServingEvent::Piece { text, .. } => heard.texts.entry(line.id).or_default().push_str(&text),
                ServingEvent::Ended { .. } => heard.ended.push(line.id),
                ServingEvent::Refused(refusal) => drop(heard.refused.insert(line.id, refusal.kind)),
            }
        }
        if server.is_idle() {
            return;
        }
        server.advance();
    }
}

fn ask(server: &mut Server<'_>, command: AnswerCommand) {
    server.obey(ServeCommand::Answer(Box::new(command)));
}

/// An adapter with an effect, exported to a folder.
fn exported(loaded: &Loaded, folder: &Path, seed: u64) {
    let spec = AdapterSpec::Lora(LoraSpec::plain(2, 8.0, vec!["q_proj".into(), "down_proj".into()]));
    let adapter = Adapter::new(&loaded.model, &spec, seed).unwrap();
    for (_, mut tensor) in adapter.named_parameters().into_iter().filter(|(name, _)| name.contains("lora_B")) {
        let noise = Tensor::ones(tensor.size(), (Kind::Float, Device::Cpu)) * (0.3 * seed as f64);
        tch::no_grad(|| tensor.copy_(&noise));
    }
    adapter.save(&loaded.model, folder, "tiny").unwrap();
    loaded.source.tokenizer().unwrap().save(folder).unwrap();
}

#[test]
fn adapters_answer_in_one_batch_as_each_does_alone() {
    let loaded = loaded();
    let folders: Vec<_> = (1..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut commands = vec![command(1, TenantId::generate(), settings())];
    for (folder, seed) in folders.iter().zip(1..) {
        exported(&loaded, folder.path(), seed);
        let place = AdapterPlace { key: seed.to_string(), folder: folder.path().to_owned() };
        let drawn = ServingSettings { temperature: 0.9, top_logprobs: Some(1), ..settings() };
        commands.push(AnswerCommand { adapter: Some(place), ..command(1 + seed, TenantId::generate(), drawn) });
    }
    let (mut together, mut server) = (Heard::default(), Server::new(&loaded, 8, 1 << 20).unwrap());
    commands.iter().for_each(|command| ask(&mut server, command.clone()));
    run(&mut server, &mut together);
    assert_eq!(together.texts.len(), 4);
    for command in commands {
        let (mut alone, mut server, id) = (Heard::default(), Server::new(&loaded, 8, 0).unwrap(), command.id);
        ask(&mut server, command);
        run(&mut server, &mut alone);
        assert_eq!(alone.texts[&id], together.texts[&id], "answer {id}");
    }
}

#[test]
fn a_tenant_with_many_requests_does_not_keep_another_waiting() {
    let loaded = loaded();
    let (many, few) = (TenantId::generate(), TenantId::generate());
    let mut server = Server::new(&loaded, 1, 0).unwrap();
    (1..=6).for_each(|id| ask(&mut server, command(id, many, settings())));
    server.advance();
    ask(&mut server, command(100, few, settings()));
    // Nobody waits for this one any more, nor for the one under way.
    server.obey(ServeCommand::Cancel { id: 2 });
    server.obey(ServeCommand::Cancel { id: 1 });
    let mut heard = Heard::default();
    run(&mut server, &mut heard);
    assert_eq!(heard.begun, [1, 100, 3, 4, 5, 6]);
    assert_eq!(heard.ended, [100, 3, 4, 5, 6]);
}

#[test]
fn what_cannot_be_met_is_refused_and_json_begins_as_an_object() {
    let loaded = loaded();
    let tenant = TenantId::generate();
    let mut server = Server::new(&loaded, 4, 0).unwrap();
    let refused = [
        ServingSettings { max_tokens: Some(100_000), ..settings() },
        ServingSettings { temperature: 2.5, ..settings() },
        ServingSettings { stop: vec![String::new()], ..settings() },
        ServingSettings { presence_penalty: 3.0, ..settings() },
    ];
    (1..).zip(refused).for_each(|(id, settings)| ask(&mut server, command(id, tenant, settings)));
    ask(&mut server, command(9, tenant, ServingSettings { json_object: true, temperature: 1.0, ..settings() }));
    let mut heard = Heard::default();
    run(&mut server, &mut heard);
    assert_eq!(heard.refused.len(), 4);
    assert_eq!((heard.refused[&1], heard.refused[&2]), (RefusalKind::ContextLength, RefusalKind::Invalid));
    assert!(heard.texts[&9].trim_start().starts_with('{'), "{:?}", heard.texts[&9]);
}
