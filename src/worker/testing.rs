//! An engine for tests: a script that keeps the contract as far as a test needs it.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What every script begins with. `emit` writes a line, `wait_for` waits for a command; keepalives are not kept.
const PRELUDE: &str = r#"#!/usr/bin/env python3
import hashlib, json, os, queue, sys, threading, time

folder = sys.argv[2]
log = open(os.path.join(folder, "events.jsonl"), "a")
lines = 0
heard = queue.Queue()


def emit(kind, **event):
    global lines
    lines += 1
    log.write(json.dumps({"line": lines, "time": time.time(), "type": kind, **event}) + "\n")
    log.flush()


def listen():
    for line in sys.stdin:
        command = json.loads(line)["type"]
        if command != "keepalive":
            with open(os.path.join(folder, "heard"), "a") as file:
                file.write(command + "\n")
            heard.put(command)
    os._exit(12)


def wait_for(command):
    while heard.get() != command:
        pass


def progress(done, total=100, phase="training"):
    emit("progress", phase=phase, done=done, total=total)


def started(total_steps=3, resumed=0):
    emit("started", engine_version="0", device="cpu", threads=1, instruction_set="avx2", parameters=10,
         trainable_parameters=1, train_rows=4, held_out_rows=1, total_steps=total_steps, resumed_from_step=resumed)


def step(number, loss=1.5):
    emit("step", step=number, epoch=0.5, train_loss=loss, train_mean_token_accuracy=0.5, learning_rate=1e-4,
         gradient_norm=1.0, tokens=100, supervised_tokens=40, seconds=0.5, peak_memory_bytes=1000)


def files_of(place, **contents):
    os.makedirs(place, exist_ok=True)
    entries = []
    for name, text in contents.items():
        data = text.encode()
        with open(os.path.join(place, name), "wb") as file:
            file.write(data)
        entries.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return entries


def checkpoint(number, text="weights"):
    place = os.path.join(folder, "checkpoints", f"step-{number}")
    entries = files_of(place, state=text)
    with open(os.path.join(place, "manifest.json"), "w") as file:
        json.dump({"step": number, "files": entries}, file)
    emit("checkpoint", step=number, bytes=len(text), train_loss=1.5, train_mean_token_accuracy=0.5, evaluation=None)


LIKELIHOOD = {"loss": 1.0, "perplexity": 2.7, "token_accuracy": 0.5, "supervised_tokens": 9, "rows": 1}


SAME = {"base": 0.0, "tuned": 0.0, "difference": 0.0, "low": 0.0, "high": 0.0, "confidence": 0.95, "resamples": 1,
        "seed": 0, "verdict": "no_difference_shown"}
ANSWERS = {"rows": 1, "max_new_tokens": 4, "rouge_l": SAME, "base_ended_share": 0.0, "tuned_ended_share": 1.0,
           "answers": [{"line": 2, "prompt": "Who?", "reference": "the owl", "base": "it was the", "tuned": "the owl",
                        "base_ended": False, "tuned_ended": True, "base_rouge_l": 0.0, "tuned_rouge_l": 0.0}]}


def evaluated(number):
    emit("evaluated", step=number, likelihood=LIKELIHOOD)


def exported(text="adapter"):
    entries = files_of(os.path.join(folder, "adapter"), adapter=text)
    emit("exported", files=entries, parity={"largest_reload_difference": 0.0, "tolerance": 1e-5,
         "largest_difference_from_base": 1.0, "tokens": 3})


def finished():
    emit("finished", trained_tokens=300, evaluation={"held_out_source": "split", "held_out_rows": 1,
         "base": LIKELIHOOD, "tuned": LIKELIHOOD, "history": [], "answers": ANSWERS})


threading.Thread(target=listen, daemon=True).start()
"#;

/// Writes a script into `folder` that runs `body` as its `train`.
pub fn fake_engine(folder: &Path, body: &str) -> PathBuf {
    let program = folder.join("fake-engine");
    fs::write(&program, format!("{PRELUDE}\n{body}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Whether a process of this id runs; a zombie does not.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
