//! Kill anything, at any moment: jobs under faults drawn from a seed, on the real programs and a real Postgres.
//!
//! `make chaos SEED=n COUNT=k` runs k rounds; `make test` a few. Each round trains a job while one worker reaches Postgres
//! directly and another through a proxy, disturbs them, and then holds the outcome to a run that nobody disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod link;
mod round;
mod stage;

use std::time::Instant;

use anyhow::Result;
use faults::{Fault, Random};
use stage::Stage;

/// Rounds of `make test`: each fault once. `make chaos` runs as many as it is told.
const FEW: u64 = Fault::ALL.len() as u64;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_whatever_is_done_to_them() -> Result<()> {
    let (seed, count) = (setting("CHAOS_SEED", 1), setting("CHAOS_COUNT", FEW));
    let mut stage = Stage::set(setting("CHAOS_SCALE", 0.1)).await?;
    let start = Instant::now();
    for number in seed..seed + count {
        // One fault of each kind in turn, and what else the seed draws.
        let mut random = Random::new(number);
        let mut faults = vec![Fault::ALL[number as usize % Fault::ALL.len()]];
        faults.extend((0..random.below(2)).map(|_| Fault::ALL[random.below(Fault::ALL.len() as u64) as usize]));
        println!("seed {number}: {faults:?}");
        if let Err(error) = round::run(&mut stage, &faults, &mut random).await {
            stage.keep_logs();
            anyhow::bail!("seed {number} with {faults:?}: {error:#}");
        }
    }
    stage.check_leaks().await?;
    println!("{count} rounds in {:?}", start.elapsed());
    stage.print_figures();
    Ok(())
}
