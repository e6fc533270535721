//! `finetuned keys`: who may call.

use clap::{Args, Subcommand};
use finetuned_protocol::ids::KeyId;
use finetuned_store::{ApiKey, Store};
use secrecy::ExposeSecret;

use crate::{args::StoreArgs, format, host::Host};

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Create a key and show it, this once.
    Create {
        /// Tenant that the key acts for; made where it is new.
        #[arg(long, env = "FINETUNED_TENANT", default_value = "default")]
        tenant: String,
        /// Name to know the key by, such as who or what uses it.
        name: String,
    },
    /// List keys with their last use.
    List,
    /// Revoke a key for good.
    Revoke {
        /// Id of the key, as the list shows it.
        id: KeyId,
    },
}

pub async fn run(args: KeysArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let done = act(&host.store, args.command).await;
    host.close().await;
    done
}

async fn act(store: &Store, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create { tenant, name } => {
            let first = !store.any_key_exists().await?;
            let key = store.create_key(&tenant, &name).await?;
            eprintln!("{} of tenant {tenant}; it is shown this once:", key.id);
            println!("{}", key.secret.expose_secret());
            if first {
                eprintln!("From now on every request needs a key, and `finetuned serve` may listen beyond loopback.");
            }
        }
        KeysCommand::List => {
            let keys = store.list_keys().await?;
            let heading = ["ID", "TENANT", "NAME", "KEY", "CREATED", "LAST USED"].map(str::to_owned).to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(heading).chain(keys.iter().map(row)).collect();
            format::table(&rows).iter().for_each(|line| println!("{line}"));
        }
        KeysCommand::Revoke { id } => {
            let key = store.revoke_key(id).await?;
            println!("{} ({}) of tenant {} is revoked", key.id, key.name, key.tenant_name);
        }
    }
    Ok(())
}

fn row(key: &ApiKey) -> Vec<String> {
    let used = match (key.revoked_at, key.last_used_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) => format::minute(at),
        (None, None) => "never".to_owned(),
    };
    let name = key.name.clone();
    vec![
        key.id.to_string(),
        key.tenant_name.clone(),
        name,
        key.hint.clone() + "…",
        format::minute(key.created_at),
        used,
    ]
}
