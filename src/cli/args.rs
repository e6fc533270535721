//! The command line: every option has an environment variable, and its help comes from its doc comment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use finetuned_outbound::Allowed;
use finetuned_protocol::engine::DeviceRequest;
use secrecy::SecretString;

use crate::{
    adapter::AdapterArgs,
    backup::BackupArgs,
    chat::ChatArgs,
    demo::DemoArgs,
    files::FilesArgs,
    gc::{GcArgs, PolicyArgs},
    generated::{ErrorCodesArgs, OpenapiArgs},
    jobs::JobsArgs,
    keys::KeysArgs,
    lint::LintArgs,
    models::ModelsArgs,
    rate::RateArgs,
    score::ScoreArgs,
    tenants::TenantsArgs,
};

/// A fine-tuning service that you run yourself: POST a dataset and a job, poll its progress, download a LoRA adapter.
#[derive(Debug, Parser)]
#[command(name = "finetuned", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: HTTP, one worker, and a Postgres of its own unless a database is named.
    Serve(ServeArgs),
    /// Run one worker against the Postgres and the files of a service that runs already.
    Worker(WorkerArgs),
    /// Create, list and revoke API keys.
    Keys(KeysArgs),
    /// List tenants with what they use, limit them, and divide them into projects.
    Tenants(TenantsArgs),
    /// Add, list and remove base models.
    Models(ModelsArgs),
    /// Do the whole job once on example rows or your own, over HTTP, and show what happens.
    Demo(DemoArgs),
    /// Upload and list files of a running service.
    Files(FilesArgs),
    /// Create, list, watch and cancel jobs of a running service.
    Jobs(JobsArgs),
    /// Download the adapter of a finished job.
    Adapter(AdapterArgs),
    /// Talk to a model of a running service.
    Chat(ChatArgs),
    /// Rate answers of a running service's rating task, one after the other.
    Rate(RateArgs),
    /// Score predictions against references in a file of JSON lines, without any server.
    Score(ScoreArgs),
    /// Say what an upload of a dataset would find, without a service.
    Lint(LintArgs),
    /// Remove bytes that nothing refers to any more.
    Gc(GcArgs),
    /// Copy all rows and bytes of one moment into a folder, while the service runs.
    Backup(BackupArgs),
    /// Fill an empty service from a backup.
    Restore(BackupArgs),
    /// Print the OpenAPI document of the HTTP interface.
    Openapi(OpenapiArgs),
    /// Print the table of the codes that a job's error may have.
    ErrorCodes(ErrorCodesArgs),
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// How log lines are written to standard error.
    #[arg(long, global = true, env = "FINETUNED_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: LogFormat,
    /// What is logged, in the syntax of tracing's filters: `info`, `debug`, `warn,finetuned_worker=debug`.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", default_value = "info,sqlx=warn")]
    pub log_filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// Where the service keeps what it knows; shared by every command that opens it without HTTP.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Folder of the service's files and of its own Postgres [default: ~/.local/share/finetuned].
    #[arg(long, global = true, env = "FINETUNED_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Folder that scripts/runtime.py filled [default: the nearest .runtime above the program, then above the current
    /// folder].
    #[arg(long, global = true, env = "FINETUNED_RUNTIME_DIR", value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Postgres to use instead of one of our own, as postgres://user:password@host/database.
    #[arg(long, global = true, env = "FINETUNED_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,
    /// Multiply the times after which silence is taken for death (heartbeat 5 s, expiry 20 s, watchdog 60 s) by this,
    /// from 0.05 to 10. All processes of a service must be given the same.
    #[arg(long, global = true, env = "FINETUNED_TIME_SCALE", value_name = "FACTOR", default_value = "1", value_parser = time_scale)]
    pub time_scale: f64,
}

fn time_scale(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| (0.05..=10.0).contains(factor));
    factor.ok_or_else(|| "must be a number from 0.05 to 10".to_owned())
}

/// How training is run.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// The training program [default: finetuned-engine beside this program].
    #[arg(long, env = "FINETUNED_ENGINE", value_name = "PROGRAM")]
    pub engine: Option<PathBuf>,
    /// Threads that training uses on the CPU [default: one a core].
    #[arg(long, env = "FINETUNED_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Where training runs: auto takes the first CUDA device that can be used, and the CPU otherwise.
    #[arg(long, env = "FINETUNED_DEVICE", value_name = "auto|cpu|cuda", default_value = "auto")]
    pub device: DeviceRequest,
}

/// How requests to models are answered.
#[derive(Debug, Clone, Args)]
pub struct ServingArgs {
    /// Address on which API nodes reach this worker with requests to models; port 0 takes any free one.
    #[arg(long, env = "FINETUNED_SERVING_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub serving_listen: SocketAddr,
    /// Whether models answer while this worker trains: share computes both, training-first refuses requests meanwhile,
    /// off never answers.
    #[arg(long, env = "FINETUNED_SERVING", value_enum, default_value = "share")]
    pub serving: ServingChoice,
}

/// Whether and when a worker answers requests to models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServingChoice {
    Share,
    TrainingFirst,
    Off,
}

/// Calls that leave the house.
#[derive(Debug, Clone, Args)]
pub struct OutboundArgs {
    /// What webhooks and judges may be beyond the public internet: addresses, networks or host names, with commas between.
    #[arg(long, env = "FINETUNED_ALLOW_OUTBOUND", value_name = "LIST", value_delimiter = ',')]
    pub allow_outbound: Vec<Allowed>,
    /// Base URL of the OpenAI-compatible API that judges answers where a job asks for a judge and names none.
    #[arg(long, env = "FINETUNED_JUDGE_URL", value_name = "URL")]
    pub judge_url: Option<String>,
    /// Its model, where a job names none.
    #[arg(long, env = "FINETUNED_JUDGE_MODEL", value_name = "NAME", requires = "judge_url")]
    pub judge_model: Option<String>,
    /// Its key.
    #[arg(long, env = "FINETUNED_JUDGE_API_KEY", value_name = "KEY", hide_env_values = true, requires = "judge_url")]
    pub judge_api_key: Option<SecretString>,
    /// File of further judges that jobs may name, as a JSON array of objects with `url`, `model` and `api_key`.
    #[arg(long, env = "FINETUNED_JUDGES", value_name = "FILE")]
    pub judges: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to answer on. Only loopback is allowed while no API key exists; port 0 takes any free one.
    #[arg(long, env = "FINETUNED_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8787")]
    pub listen: SocketAddr,
    /// Serve HTTP alone and leave the work to `finetuned worker`.
    #[arg(long, env = "FINETUNED_NO_WORKER", value_parser = FalseyValueParser::new())]
    pub no_worker: bool,
    #[command(flatten)]
    pub outbound: OutboundArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub retention: PolicyArgs,
}

#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub outbound: OutboundArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
}

/// How a running service is reached.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Address of the service.
    #[arg(long, global = true, env = "FINETUNED_URL", value_name = "URL", default_value = "http://127.0.0.1:8787")]
    pub url: String,
    /// API key, where the service asks for one.
    #[arg(long, global = true, env = "FINETUNED_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<SecretString>,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
