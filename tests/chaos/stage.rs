//! The service under fault, and what was measured on it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use finetuned_tests::{Process, Service, ServiceOptions, postgres, rows};
use serde_json::{Value, json};

use crate::link::{Line, Link};

/// Longest that a job may take, faults included, at the shipped times.
const JOB: Duration = Duration::from_secs(400);

pub struct Stage {
    pub service: Service,
    pub expiry: Duration,
    scale: f64,
    link: Link,
    // Removed after the link.
    _link_folder: tempfile::TempDir,
    /// What an undisturbed run of the same job gives.
    pub adapter: Vec<u8>,
    pub losses: Value,
    claims: Vec<Duration>,
    outages: Vec<Duration>,
}

/// Long enough to be struck in its middle, with many checkpoints.
pub fn settings() -> Value {
    json!({
        "max_steps": 700, "batch_size": 4, "checkpoint_every": 50, "evaluate_every": 350, "lora": {"dropout": 0.1},
        "answers": {"rows": 2, "max_new_tokens": 4},
    })
}

pub fn step(job: &Value) -> u64 {
    job["progress"]["step"].as_u64().unwrap_or(0)
}

impl Stage {
    pub async fn set(scale: f64) -> Result<Self> {
        let environment = vec![
            ("FINETUNED_TIME_SCALE".to_owned(), scale.to_string()),
            ("FINETUNED_THREADS".to_owned(), "1".to_owned()),
        ];
        let options = ServiceOptions { without_worker: true, environment, ..Default::default() };
        let mut service = Service::start_with(options).await?;
        service.add_tiny_model()?;
        let link_folder = tempfile::Builder::new().prefix("ftl-").tempdir()?;
        let data = service.data_dir();
        let link = Link::open(link_folder.path(), move || postgres::socket_in(&data))?;
        service.start_worker(&[])?;
        let mut stage = Self {
            service,
            expiry: Duration::from_secs(20).mul_f64(scale),
            scale,
            link,
            _link_folder: link_folder,
            adapter: Vec::new(),
            losses: Value::Null,
            claims: Vec::new(),
            outages: Vec::new(),
        };
        let id = stage.service.tiny_job(&rows::alpaca(48), settings()).await?;
        stage.service.client.wait_for_success(&id, stage.longest()).await?;
        stage.adapter = stage.service.client.adapter_weights(&id).await?;
        stage.losses = stage.losses_of(&id).await?;
        stage.start_far_worker()?;
        Ok(stage)
    }

    pub fn longest(&self) -> Duration {
        JOB.mul_f64(self.scale.max(0.3))
    }

    pub async fn losses_of(&self, id: &str) -> Result<Value> {
        let path = format!("/v1/fine_tuning/jobs/{id}/metrics?names=train_loss");
        let metrics = self.service.client.get(&path).await?.success()?;
        let points = metrics["series"]["train_loss"].as_array().context("no losses")?;
        Ok(points.iter().map(|point| json!([point["step"], point["value"]])).collect())
    }

    fn start_far_worker(&mut self) -> Result<usize> {
        let url = postgres::url_through(&self.service, &self.link.folder)?;
        self.service.start_worker(&[("FINETUNED_DATABASE_URL", &url)])
    }

    /// Workers that run.
    fn alive(&mut self) -> Vec<usize> {
        let workers = self.service.workers.iter_mut().enumerate();
        workers.filter_map(|(place, worker)| matches!(worker.exited(), Ok(None)).then_some(place)).collect()
    }

    /// The worker that claimed a task of this job last.
    pub fn claimant(&self, job: &str) -> Result<&Process> {
        let place = self.claimant_place(job)?;
        Ok(&self.service.workers[place])
    }

    fn claimant_place(&self, job: &str) -> Result<usize> {
        let claims = |worker: &Process| {
            let log = worker.log_text();
            let lines = log.lines().filter(|line| line.contains("claimed") && line.contains(job));
            lines.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).next_back()
        };
        let latest =
            self.service.workers.iter().enumerate().filter_map(|(place, worker)| Some((claims(worker)?, place)));
        latest.max().map(|(_, place)| place).context("no worker has claimed the job")
    }

    fn count_claims(&self, job: &str) -> usize {
        let claims = |log: String| log.lines().filter(|line| line.contains("claimed") && line.contains(job)).count();
        self.service.workers.iter().map(|worker| claims(worker.log_text())).sum()
    }

    /// Kills the worker that runs the job, and notes how long the job waits for the next.
    pub async fn kill_claimant(&mut self, job: &str) -> Result<()> {
        let place = self.claimant_place(job)?;
        let before = self.count_claims(job);
        self.service.workers[place].kill()?;
        let death = Instant::now();
        self.replace_workers()?;
        while self.count_claims(job) == before {
            ensure!(death.elapsed() < 3 * self.expiry + Duration::from_secs(10), "not claimed again");
            if self.service.client.job(job).await.is_ok_and(|job| job["status"] == "succeeded") {
                // It had nothing left to do but to say so.
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.claims.push(death.elapsed());
        Ok(())
    }

    /// Starts workers for those that died, one near and one behind the link.
    pub fn replace_workers(&mut self) -> Result<()> {
        while self.alive().len() < 2 {
            let place = if self.service.workers.len().is_multiple_of(2) {
                self.service.start_worker(&[])?
            } else {
                self.start_far_worker()?
            };
            println!("  worker {place} starts");
        }
        Ok(())
    }

    pub async fn kill_server(&mut self) -> Result<()> {
        let start = Instant::now();
        self.service.server.kill()?;
        self.service.restart_server().await?;
        self.outages.push(start.elapsed());
        Ok(())
    }

    pub async fn disturb_line(&self, line: Line, time: Duration) -> Result<()> {
        self.link.set(line);
        tokio::time::sleep(time).await;
        self.link.set(Line::Good);
        Ok(())
    }

    /// Changes the largest blob that was written last: the weights or moments of the newest checkpoint.
    pub fn damage_newest_checkpoint(&self, _job: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let newest = files(&self.service.data_dir().join("blobs"))
            .into_iter()
            .filter(|(_, bytes, _)| *bytes > 10_000)
            .max_by_key(|(_, _, modified)| *modified);
        let (path, ..) = newest.context("no blob is stored")?;
        let mut bytes = std::fs::read(&path)?;
        change(&mut bytes);
        std::fs::write(&path, bytes)?;
        Ok(())
    }

    pub async fn no_engine_left(&self) -> Result<()> {
        let start = Instant::now();
        while !self.service.engines()?.is_empty() {
            ensure!(start.elapsed() < 2 * self.expiry + Duration::from_secs(5), "an engine was left behind");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Nothing lies in the blob store that nothing refers to, once garbage was collected; what is referred to stays.
    pub async fn check_leaks(&mut self) -> Result<()> {
        let told = self.service.run(&["gc", "--min-age-hours", "0"])?;
        println!("gc: {}", told.trim());
        let rest = self.service.run(&["gc", "--min-age-hours", "0", "--dry-run"])?;
        ensure!(rest.starts_with("0 blobs"), "left after a collection: {rest}");
        let jobs = self.service.client.get("/v1/fine_tuning/jobs?limit=100").await?.success()?;
        for job in jobs["data"].as_array().context("no list")? {
            let weights = self.service.client.adapter_weights(job["id"].as_str().unwrap_or_default()).await?;
            ensure!(weights == self.adapter, "an adapter is gone or another after a collection: {job:#}");
        }
        Ok(())
    }

    pub fn print_figures(&mut self) {
        self.claims.sort();
        self.outages.sort();
        let at = |times: &[Duration], share: f64| {
            times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied()
        };
        println!(
            "from SIGKILL of a worker to the next claim: {} kills, median {:?}, p99 {:?}, worst {:?}",
            self.claims.len(),
            at(&self.claims, 0.5),
            at(&self.claims, 0.99),
            self.claims.last()
        );
        println!(
            "from SIGKILL of the server until it answers: {} kills, worst {:?}",
            self.outages.len(),
            self.outages.last()
        );
        let lost = |worker: &Process| worker.log_text().matches("the lease was lost").count();
        println!("attempts whose lease was lost: {}", self.service.workers.iter().map(lost).sum::<usize>());
    }

    /// Prints the ends of all logs.
    pub fn keep_logs(&self) {
        let logs = self.service.workers.iter().chain([&self.service.server]);
        for process in logs {
            let text = process.log_text();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {}\n{}", process.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Path, bytes and time of change of each file below a folder.
fn files(folder: &std::path::Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let below = entries.flatten().flat_map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => files(&entry.path()),
        Ok(metadata) => metadata.modified().map(|time| (entry.path(), metadata.len(), time)).into_iter().collect(),
        Err(_) => Vec::new(),
    });
    below.collect()
}
