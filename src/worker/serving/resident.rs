//! An engine that stays: one base model in memory, requests in, answers out.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use finetuned_protocol::{
    precision::BasePrecision,
    serving::{EngineServing, Refusal, RefusalKind, ServeCommand, ServingEvent, ServingLine},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{WorkerOptions, engine::Engine, environment, tail::last_lines};

/// Longest time until a model is loaded.
const LOAD: Duration = Duration::from_secs(600);
/// An engine that takes no command for so long is taken for dead.
const COMMAND: Duration = Duration::from_secs(60);

/// Which model an engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidentModel {
    pub path: PathBuf,
    pub precision: BasePrecision,
}

/// Who waits for which of the engine's answers.
type Waiting = Arc<Mutex<HashMap<u64, (u64, UnboundedSender<ServingLine>)>>>;

/// A running engine. Dropping it kills it.
pub struct Resident {
    pub model: ResidentModel,
    commands: UnboundedSender<ServeCommand>,
    waiting: Waiting,
    next_id: AtomicU64,
    ended: CancellationToken,
    _life: AbortOnDropHandle<()>,
}

impl Resident {
    /// Starts an engine and waits until its model is loaded.
    ///
    /// # Errors
    /// An engine that cannot be started or ends before; its last words are in the message.
    pub async fn start(options: &WorkerOptions, folder: &Path, model: ResidentModel) -> io::Result<Self> {
        let log = folder.join("engine.log");
        let allowed = environment::allowed(env::vars_os());
        let (engine, stdin, stdout) =
            Engine::start_resident(&options.engine_program, arguments(options, &model), (folder, &log), allowed)
                .await?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = timeout(LOAD, lines.next_line()).await;
        match ready.map_err(io::Error::from).and_then(|line| line)? {
            Some(line) if is_ready(&line) => {}
            _ => {
                let words = last_lines(&log, 5, 4096).join("; ");
                return Err(io::Error::other(format!("the engine did not load the model: {words}")));
            }
        }
        tracing::info!(pid = engine.id(), model = %model.path.display(), "a resident engine answers");
        let (commands, receiver) = unbounded_channel();
        let (waiting, ended) = (Waiting::default(), CancellationToken::new());
        let life = Life {
            engine,
            stdin,
            lines,
            receiver,
            waiting: Arc::clone(&waiting),
            keepalive: options.timings.keepalive,
        };
        let over = ended.clone();
        let life = tokio::spawn(async move {
            life.run().await;
            over.cancel();
        });
        let _life = AbortOnDropHandle::new(life);
        Ok(Self { model, commands, waiting, next_id: AtomicU64::new(1), ended, _life })
    }

    /// Whether it answers no more.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Whether nobody waits for it.
    pub fn is_idle(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sends one answer's command, which `make` gets the id for; its events go to `sender` as those of `choice`.
    pub fn ask(
        &self,
        choice: u64,
        sender: &UnboundedSender<ServingLine>,
        make: impl FnOnce(u64) -> ServeCommand,
    ) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (choice, sender.clone()));
        if self.commands.send(make(id)).is_err() || self.has_ended() {
            give_up(&self.waiting);
        }
        id
    }

    /// Nobody waits for an answer any more.
    pub fn leave(&self, id: u64) {
        if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).is_some() {
            // An engine that has ended needs not be told.
            let _ = self.commands.send(ServeCommand::Cancel { id });
        }
    }
}

fn arguments(options: &WorkerOptions, model: &ResidentModel) -> Vec<OsString> {
    let timeout = options.timings.keepalive_timeout().as_secs_f64().ceil() as u64;
    let named = [
        ("--device", options.device.to_string()),
        ("--threads", options.threads.to_string()),
        ("--base-precision", model.precision.to_string()),
        ("--keepalive-timeout-seconds", timeout.to_string()),
    ];
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--model".into(), model.path.clone().into()];
    arguments.extend(named.into_iter().flat_map(|(name, value)| [OsString::from(name), value.into()]));
    arguments
}

fn is_ready(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(EngineServing::Ready { .. }))
}

/// Tells everyone who waits that nothing comes any more.
fn give_up(waiting: &Waiting) {
    let all = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for (_, (choice, sender)) in all {
        let refusal = Refusal::new(RefusalKind::Internal, "the engine ended while it answered; try again");
        let _ = sender.send(ServingLine { id: choice, event: ServingEvent::Refused(refusal) });
    }
}

/// What runs for as long as the engine does.
struct Life {
    engine: Engine,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    receiver: UnboundedReceiver<ServeCommand>,
    waiting: Waiting,
    keepalive: Duration,
}

impl Life {
    async fn run(mut self) {
        let mut keepalive = interval(self.keepalive);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                line = self.lines.next_line() => match line {
                    Ok(Some(line)) => {
                        self.pass_on(&line);
                        true
                    }
                    _ => false,
                },
                command = self.receiver.recv() => match command {
                    Some(command) => self.tell(&command).await,
                    None => false,
                },
                _ = keepalive.tick() => self.tell(&ServeCommand::Keepalive).await,
            };
            if !told {
                break;
            }
        }
        self.engine.kill();
        match self.engine.wait().await {
            Ok(exit) => tracing::warn!(%exit, "a resident engine has ended"),
            Err(error) => tracing::error!(%error, "a resident engine cannot be waited for"),
        }
        give_up(&self.waiting);
    }

    async fn tell(&mut self, command: &ServeCommand) -> bool {
        let Ok(mut line) = serde_json::to_vec(command) else { return true };
        line.push(b'\n');
        matches!(timeout(COMMAND, self.stdin.write_all(&line)).await, Ok(Ok(())))
    }

    fn pass_on(&self, line: &str) {
        let line = match serde_json::from_str(line) {
            Ok(EngineServing::Line(line)) => line,
            Ok(EngineServing::Ready { .. }) => return,
            Err(error) => {
                tracing::error!(%error, "a resident engine wrote what is no line of ours");
                return;
            }
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((choice, sender)) = waiting.get(&line.id) else { return };
        let is_last = line.event.is_last();
        // Whoever left has said so, or will.
        let _ = sender.send(ServingLine { id: *choice, event: line.event });
        if is_last {
            waiting.remove(&line.id);
        }
    }
}
