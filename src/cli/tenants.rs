//! `finetuned tenants`: who there is, what they use and what they may use.

use clap::{Args, Subcommand};
use finetuned_store::{Quotas, Store, TenantUse};

use crate::{args::StoreArgs, format, host::Host};

#[derive(Debug, Args)]
pub struct TenantsArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: TenantsCommand,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// List tenants with what they use and may use.
    List,
    /// Set the limits of a tenant; what is not given is no limit.
    Limit {
        /// Name of the tenant.
        tenant: String,
        /// Jobs that have not ended, running ones among them.
        #[arg(long, env = "FINETUNED_LIMIT_OPEN_JOBS", value_name = "N")]
        open_jobs: Option<u32>,
        /// Trainings at once; more wait in the queue.
        #[arg(long, env = "FINETUNED_LIMIT_RUNNING_JOBS", value_name = "N")]
        running_jobs: Option<u32>,
        /// Gigabytes (10^9 bytes) of files, checkpoints and adapters.
        #[arg(long, env = "FINETUNED_LIMIT_STORED_GB", value_name = "GB")]
        stored_gb: Option<u32>,
        /// Tokens trained by the jobs that end in a month, by UTC.
        #[arg(long, env = "FINETUNED_LIMIT_TRAINED_TOKENS_A_MONTH", value_name = "N")]
        trained_tokens_a_month: Option<u64>,
        /// Requests a second, counted by each server process for itself.
        #[arg(long, env = "FINETUNED_LIMIT_REQUESTS_PER_SECOND", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        requests_per_second: Option<u32>,
    },
    /// Make a project of a tenant: a tenant of its own called TENANT.PROJECT, which is what `keys create --tenant` takes.
    AddProject {
        /// Name of the tenant.
        tenant: String,
        /// Name of the project.
        project: String,
    },
}

pub async fn run(args: TenantsArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let done = act(&host.store, args.command).await;
    host.close().await;
    done
}

async fn act(store: &Store, command: TenantsCommand) -> anyhow::Result<()> {
    match command {
        TenantsCommand::List => {}
        TenantsCommand::Limit {
            tenant,
            open_jobs,
            running_jobs,
            stored_gb,
            trained_tokens_a_month,
            requests_per_second,
        } => {
            let stored_bytes = stored_gb.map(|gigabytes| u64::from(gigabytes) * 1_000_000_000);
            let quotas = Quotas { open_jobs, running_jobs, stored_bytes, trained_tokens_a_month, requests_per_second };
            store.set_quotas(&tenant, quotas).await?;
        }
        TenantsCommand::AddProject { tenant, project } => {
            let made = store.create_project_by_name(&tenant, &project).await?;
            eprintln!(
                "{} is project {}; `finetuned keys create --tenant {} NAME` makes a key for it",
                made.name, made.id, made.name
            );
        }
    }
    let heading = ["TENANT", "ID", "OPEN JOBS", "RUNNING", "STORED", "TOKENS THIS MONTH", "REQUESTS/S"]
        .map(str::to_owned)
        .to_vec();
    let tenants = store.tenants(None).await?;
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(tenants.iter().map(row)).collect();
    format::table(&rows).iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn row(tenant: &TenantUse) -> Vec<String> {
    let TenantUse { id, name, quotas, open_jobs, running_jobs, stored_bytes, trained_tokens_this_month } = tenant;
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used,
    };
    vec![
        name.clone(),
        id.to_string(),
        of(open_jobs.to_string(), quotas.open_jobs.map(|limit| limit.to_string())),
        of(running_jobs.to_string(), quotas.running_jobs.map(|limit| limit.to_string())),
        of(format::bytes(*stored_bytes), quotas.stored_bytes.map(format::bytes)),
        of(trained_tokens_this_month.to_string(), quotas.trained_tokens_a_month.map(|limit| limit.to_string())),
        quotas.requests_per_second.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()),
    ]
}
