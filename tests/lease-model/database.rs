//! What Postgres holds of one task, and what each write does to it.

/// A kind of write that a worker makes under its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Heartbeat,
    /// Events, metrics and progress.
    Report,
    Checkpoint,
    Finish,
    Fail,
    /// Fulfils a pause.
    Suspend,
    /// Gives the task back at a shutdown or after a crash.
    Release,
}

impl Write {
    pub const ALL: [Self; 7] =
        [Self::Heartbeat, Self::Report, Self::Checkpoint, Self::Finish, Self::Fail, Self::Suspend, Self::Release];

    /// Whether its sender has nothing more to do afterwards.
    pub fn ends(self) -> bool {
        matches!(self, Self::Finish | Self::Fail | Self::Suspend | Self::Release)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    Queued,
    Held,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl TaskState {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What went wrong; no order of events may bring any of it about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrongs {
    /// A task that had ended became something else.
    pub ended_twice: bool,
    /// Something of a replaced holder was recorded after something of its successor.
    pub out_of_order: bool,
    /// A lease was renewed by somebody who does not hold it.
    pub renewed_by_another: bool,
    /// A holder lost its task while its lease was good and nobody asked for it.
    pub robbed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    pub up: bool,
    pub state: TaskState,
    pub epoch: u8,
    pub holder: Option<usize>,
    /// The lease was renewed within its expiry.
    pub fresh: bool,
    /// One expiry has passed since the database came up: silence means something.
    pub settled: bool,
    pub pause_requested: bool,
    /// The epoch whose reports and checkpoints were recorded last.
    pub recorded: u8,
    pub wrongs: Wrongs,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            up: true,
            state: TaskState::Queued,
            epoch: 0,
            holder: None,
            fresh: false,
            settled: true,
            pause_requested: false,
            recorded: 0,
            wrongs: Wrongs::default(),
        }
    }
}

impl Database {
    /// A worker takes the task: the epoch rises.
    pub fn claim(&mut self, worker: usize) -> bool {
        if !self.up || self.state != TaskState::Queued {
            return false;
        }
        self.state = TaskState::Running;
        self.epoch += 1;
        self.holder = Some(worker);
        self.fresh = true;
        true
    }

    /// The scan finds a lease that expired.
    pub fn take_back(&mut self) -> bool {
        let may = self.up && self.settled && self.state == TaskState::Running && !self.fresh;
        if may {
            self.give_up();
        }
        may
    }

    /// A person cancels: the epoch rises, so that the holder's next write is refused.
    pub fn cancel(&mut self) -> bool {
        let may = self.up && !self.state.is_terminal();
        if may {
            self.end(TaskState::Cancelled);
            self.epoch += 1;
        }
        may
    }

    pub fn pause(&mut self) -> bool {
        match self.state {
            TaskState::Queued if self.up => self.state = TaskState::Held,
            TaskState::Running if self.up && !self.pause_requested => self.pause_requested = true,
            _ => return false,
        }
        true
    }

    pub fn resume(&mut self) -> bool {
        match self.state {
            TaskState::Held if self.up => self.state = TaskState::Queued,
            TaskState::Running if self.up && self.pause_requested => self.pause_requested = false,
            _ => return false,
        }
        true
    }

    /// A write of `worker` arrives, which it sent under `epoch`. Gives whether it was taken.
    pub fn write(&mut self, worker: usize, epoch: u8, write: Write, fenced: bool) -> bool {
        if fenced && epoch != self.epoch {
            return false;
        }
        let holds = self.holder == Some(worker) && epoch == self.epoch;
        match write {
            Write::Heartbeat => {
                self.wrongs.renewed_by_another |= !holds;
                self.fresh = true;
            }
            Write::Report | Write::Checkpoint => {
                self.wrongs.out_of_order |= epoch < self.recorded || self.state.is_terminal();
                self.recorded = epoch;
            }
            Write::Finish => self.leave(holds, |database| database.end(TaskState::Done)),
            Write::Fail => self.leave(holds, |database| database.end(TaskState::Failed)),
            Write::Suspend | Write::Release => self.leave(holds, Self::give_up),
        }
        true
    }

    /// The holder's last write: the epoch rises with it.
    fn leave(&mut self, holds: bool, how: impl FnOnce(&mut Self)) {
        self.wrongs.robbed |= !holds && self.holder.is_some() && self.fresh;
        how(self);
        self.epoch += u8::from(holds && self.state.is_terminal());
    }

    fn end(&mut self, state: TaskState) {
        self.wrongs.ended_twice |= self.state.is_terminal();
        self.state = state;
        self.holder = None;
        self.pause_requested = false;
    }

    /// Back to the queue, or held where a pause was asked for; the epoch rises.
    fn give_up(&mut self) {
        self.wrongs.ended_twice |= self.state.is_terminal();
        self.state = if self.pause_requested { TaskState::Held } else { TaskState::Queued };
        self.pause_requested = false;
        self.holder = None;
        self.epoch += 1;
    }
}
