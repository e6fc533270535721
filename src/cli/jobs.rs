//! `finetuned jobs`: create, list, watch and cancel, over HTTP.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use finetuned_protocol::{ids::JobId, status::JobStatus};
use serde_json::{Map, Value};

use crate::{
    args::ClientArgs,
    client::{
        Client,
        types::{Job, Page},
    },
    demo::report,
    format,
    job_view::JobView,
    screen::Screen,
};

#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// Create a job; prints its id.
    Create(CreateArgs),
    /// List jobs, newest first.
    List,
    /// Follow a job to its end; fails where the job fails.
    Watch {
        /// Id of the job.
        id: JobId,
    },
    /// Cancel a job; its checkpoints stay.
    Cancel {
        /// Id of the job.
        id: JobId,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Base model, as `finetuned models list` names it.
    #[arg(long, env = "FINETUNED_MODEL", default_value = crate::demo::MODEL)]
    model: String,
    /// Id of the training file.
    #[arg(long, env = "FINETUNED_TRAINING_FILE", value_name = "FILE_ID")]
    training_file: String,
    /// Id of the file to measure on; without it a share of the training file is held out.
    #[arg(long, env = "FINETUNED_VALIDATION_FILE", value_name = "FILE_ID")]
    validation_file: Option<String>,
    /// Word to know the tuned model by; becomes part of its name.
    #[arg(long, env = "FINETUNED_SUFFIX")]
    suffix: Option<String>,
    /// JSON file with any further fields of the request, such as `{"lora": {"r": 8}, "n_epochs": 2}`.
    #[arg(long, env = "FINETUNED_SETTINGS", value_name = "JSON_FILE")]
    settings: Option<PathBuf>,
}

pub async fn run(args: JobsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    match args.command {
        JobsCommand::Create(create) => println!("{}", client.create_job(&body(create)?).await?.id),
        JobsCommand::List => list(&client.jobs(100).await?),
        JobsCommand::Watch { id } => watch(&client, id).await?,
        JobsCommand::Cancel { id } => {
            let job = client.cancel_job(id).await?;
            println!("{} {}", job.id, job.status);
        }
    }
    Ok(())
}

/// The request, the options above over the fields of the settings file.
fn body(args: CreateArgs) -> anyhow::Result<Value> {
    let CreateArgs { model, training_file, validation_file, suffix, settings } = args;
    let mut body = match settings {
        None => Map::new(),
        Some(path) => {
            let text = std::fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is not one JSON object", path.display()))?
        }
    };
    let given = [
        ("model", Some(model)),
        ("training_file", Some(training_file)),
        ("validation_file", validation_file),
        ("suffix", suffix),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            body.insert(name.to_owned(), Value::String(value));
        }
    }
    Ok(Value::Object(body))
}

fn list(page: &Page<Job>) {
    let row = |job: &Job| {
        let model = job.fine_tuned_model.as_ref().unwrap_or(&job.model);
        vec![job.id.to_string(), if job.paused { "paused".to_owned() } else { job.status.to_string() }, model.clone()]
    };
    format::table(&page.data.iter().map(row).collect::<Vec<_>>()).iter().for_each(|line| println!("{line}"));
    if page.has_more {
        println!("(and older ones)");
    }
}

async fn watch(client: &Client, id: JobId) -> anyhow::Result<()> {
    let screen = Screen::detect();
    let mut view = JobView::new(&screen);
    let job = client.watch(id, |seen| view.show(seen)).await?;
    drop(view);
    if let Some(evaluation) = &job.evaluation {
        screen.lines(report::figures(evaluation));
    }
    match job.status {
        JobStatus::Succeeded => Ok(()),
        // The view told why.
        status => bail!("{id} {status}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn options_stand_over_the_settings_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        std::fs::write(&path, r#"{"suffix": "old", "lora": {"r": 8}}"#).unwrap();
        let args = |settings: PathBuf| CreateArgs {
            model: "m".to_owned(),
            training_file: "file-1".to_owned(),
            validation_file: None,
            suffix: Some("new".to_owned()),
            settings: Some(settings),
        };
        let expected = json!({"suffix": "new", "lora": {"r": 8}, "model": "m", "training_file": "file-1"});
        assert_eq!(body(args(path.clone())).unwrap(), expected);
        std::fs::write(&path, "[]").unwrap();
        assert!(body(args(path)).unwrap_err().to_string().contains("one JSON object"));
    }
}
