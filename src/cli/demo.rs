//! `finetuned demo`: the main job from rows to adapter, over HTTP like any client, told as it happens.

mod again;
mod child;
mod corpus;
pub mod report;
mod settings;

use std::{ops::ControlFlow, path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use clap::Args;
use finetuned_protocol::status::JobStatus;
use secrecy::SecretString;

use crate::{
    adapter,
    args::{ClientArgs, EngineArgs},
    client::{
        Client,
        types::{FileObject, Job},
        watch::Seen,
    },
    files, format,
    job_view::{JobView, explain},
    paths,
    process::Stopper,
    screen::Screen,
};
use child::Child;

/// The base model that comes with the runtime folder.
pub const MODEL: &str = "smollm2-135m-instruct";
/// Width of what is printed.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of a service that runs already; without it the demo starts one of its own and stops it at the end.
    #[arg(long, env = "FINETUNED_URL", value_name = "URL")]
    url: Option<String>,
    /// API key, where that service asks for one.
    #[arg(long, env = "FINETUNED_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<SecretString>,
    /// Your own rows: JSON lines or a JSON array of chat messages, prompt and completion, or Alpaca rows [default:
    /// questions and answers from the chatterbot corpus].
    #[arg(long, env = "FINETUNED_DATASET", value_name = "PATH")]
    dataset: Option<PathBuf>,
    /// Only writes the demo's rows to this file, to be looked at or trained on elsewhere.
    #[arg(long, env = "FINETUNED_DEMO_WRITE_ROWS", value_name = "PATH", conflicts_with = "dataset")]
    write_rows: Option<PathBuf>,
    /// Base model to train on.
    #[arg(long, env = "FINETUNED_MODEL", default_value = MODEL)]
    model: String,
    /// Folder for the rows, the adapter and the log of the demo's own service.
    #[arg(long, env = "FINETUNED_DEMO_OUTPUT", value_name = "DIR", default_value = "demo-output")]
    out: PathBuf,
    /// Data folder of the demo's own service [default: demo-data within the runtime folder].
    #[arg(long, env = "FINETUNED_DEMO_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder that scripts/runtime.py filled [default: as for serve].
    #[arg(long, env = "FINETUNED_RUNTIME_DIR", value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the demo; SIGINT and SIGTERM end it and the service it started.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    if let Some(target) = &args.write_rows {
        let count = corpus::convert(&corpus_dir(&args)?, target)?;
        println!("{count} rows in {}", target.display());
        return Ok(());
    }
    let mut stopper = Stopper::install()?;
    let screen = Screen::detect();
    std::fs::create_dir_all(&args.out).with_context(|| format!("while making {}", args.out.display()))?;
    let mut child = match &args.url {
        Some(_) => None,
        None => Some(start(&args, &screen).await?),
    };
    let own = child.as_ref().map(|child| child.url().to_owned());
    let ended = tokio::select! {
        ended = story(&args, &screen, own) => ended,
        signal = stopper.heard() => Err(anyhow::anyhow!("stopped by {signal}; run the demo again to start over")),
        status = exit_of(&mut child) => Err(anyhow::anyhow!("the service ended during the demo ({status})")),
    };
    let Some(child) = child else { return ended };
    let log = child.log().to_owned();
    let again = child.command_line();
    child.stop().await;
    match &ended {
        Ok(()) => screen
            .line(format!("\nThe demo's service has stopped. Start it again, before the lines above, with\n  {again}")),
        Err(_) => screen.lines(child::last_lines(&log, 15)),
    }
    ended
}

/// Resolves when the demo's own service ends by itself; never where there is none.
async fn exit_of(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => child.exit().await,
        None => std::future::pending().await,
    }
}

async fn start(args: &DemoArgs, screen: &Screen) -> anyhow::Result<Child> {
    screen.heading("The service");
    let runtime = paths::runtime_dir(args.runtime_dir.as_deref())?;
    let data = args.data_dir.clone().unwrap_or_else(|| runtime.join("demo-data"));
    let begun = Instant::now();
    let child = Child::start(&data, &runtime, &args.engine, &args.out.join("serve.log")).await?;
    screen.line(format!("  {}", child.command_line()));
    let taken = begun.elapsed().as_secs_f64();
    screen.line(format!("  ready at {} after {taken:.1} s; its log is {}", child.url(), child.log().display()));
    Ok(child)
}

/// What the demo does with the service, its own at `own` or the user's.
async fn story(args: &DemoArgs, screen: &Screen, own: Option<String>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let is_own = own.is_some();
    let url = own.or_else(|| args.url.clone()).unwrap_or_default();
    let client = Client::new(&ClientArgs { url, api_key: args.api_key.clone() })?;
    if !is_own && !client.is_ready().await {
        bail!("no service is ready at {}; start one with `finetuned serve`, or leave --url out", client.base_url());
    }
    check_model(&client, &args.model).await?;

    screen.heading("Upload and lint");
    let rows = rows(args, screen)?;
    let file = files::upload(&client, screen, &rows).await?;

    screen.heading("Queue and training");
    let body = settings::body(&args.model, &file);
    screen.lines(settings::remark(&file));
    let job = train(&client, screen, &body).await?;
    let evaluation =
        job.evaluation.as_ref().context("the job succeeded without an `evaluation`; report this as a fault")?;

    screen.heading(&format!("Base against tuned on {}", format::count(evaluation.held_out_rows, "held-out row")));
    screen.lines(report::figures(evaluation));
    screen.lines(report::samples(evaluation, 3, WIDTH));

    screen.heading("The adapter");
    let folder = args.out.join("adapter");
    adapter::download(&client, screen, job.id, &folder).await?;
    screen.lines(again::peft_lines(&args.model, args.runtime_dir.as_deref(), &folder));

    screen.heading("Do it again with curl");
    screen.lines(again::curl_lines(&client.base_url(), client.has_key(), &rows, &body));
    screen.line(format!("\nAll of this took {}.", format::duration(begun.elapsed())));
    Ok(())
}

async fn check_model(client: &Client, model: &str) -> anyhow::Result<()> {
    let known: Vec<String> = client.models().await?.data.into_iter().map(|model| model.id).collect();
    if known.iter().any(|id| id == model) {
        return Ok(());
    }
    let listed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    bail!(
        "the service has no base model `{model}` (it has {listed}); `python3 scripts/runtime.py` fetches the demo's, \
         `finetuned models add PATH` adds one of yours"
    )
}

/// The rows to train on: the user's file, or the corpus converted.
fn rows(args: &DemoArgs, screen: &Screen) -> anyhow::Result<PathBuf> {
    if let Some(dataset) = &args.dataset {
        if !dataset.is_file() {
            bail!("there is no file {}; --dataset names a JSON or JSON lines file", dataset.display());
        }
        return Ok(dataset.clone());
    }
    let target = args.out.join("rows.jsonl");
    let count = corpus::convert(&corpus_dir(args)?, &target)?;
    screen
        .line(format!("  {count} questions and answers of the chatterbot corpus as Alpaca rows: {}", target.display()));
    Ok(target)
}

/// Where the runtime script put the corpus.
fn corpus_dir(args: &DemoArgs) -> anyhow::Result<PathBuf> {
    Ok(paths::runtime_dir(args.runtime_dir.as_deref())?.join("corpus"))
}

/// Creates the job and follows it to its end.
async fn train(client: &Client, screen: &Screen, body: &serde_json::Value) -> anyhow::Result<Job> {
    let begun = Instant::now();
    screen.line(format!("  POST /v1/fine_tuning/jobs {body}"));
    let created = client.create_job(body).await?;
    let mut view = JobView::new(screen);
    let follow = |seen: Seen<'_>| {
        // A suspended job waits for someone to mend the fault; the demo does not.
        let suspended = matches!(&seen, Seen::Job(job) if job.suspension.is_some());
        let flow = view.show(seen);
        if suspended { ControlFlow::Break(()) } else { flow }
    };
    let job = client.watch(created.id, follow).await?;
    drop(view);
    match job.status {
        JobStatus::Succeeded => {
            let tokens = job.trained_tokens.map(|tokens| format!(", {tokens} tokens trained on")).unwrap_or_default();
            screen.line(format!("  the job took {}{tokens}", format::duration(begun.elapsed())));
            Ok(job)
        }
        JobStatus::Failed => {
            let why = job.error.as_ref().map(explain).unwrap_or_else(|| "no cause was given".to_owned());
            bail!("the job failed: {why}")
        }
        status => match &job.suspension {
            Some(error) => bail!("the job waits: {}", explain(error)),
            None => bail!("the job ended as {status}; run the demo again to start over"),
        },
    }
}
