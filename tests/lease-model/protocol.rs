//! Everything that can happen, one step at a time.

use stateright::{Model, Property};

use crate::database::{Database, TaskState, Write};

/// Epochs beyond this are not tried: what can go wrong does so within two changes of holder.
const MOST_EPOCHS: u8 = 5;
/// Writes under way at once.
const MOST_UNDER_WAY: usize = 2;
const WORKERS: usize = 2;

/// The protocol, as it is or with the fence of one kind of write left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protocol {
    pub unfenced: Option<Write>,
}

type Reached = fn(&Protocol, &State) -> bool;

/// What a worker believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    Idle,
    /// It runs the task under this epoch.
    Working(u8),
    /// Its process is stopped in the middle of that; continued, it knows nothing of the time that passed.
    Stopped(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub database: Database,
    pub workers: [Worker; WORKERS],
    /// Sent, and not arrived: by whom, under which epoch, what.
    pub under_way: Vec<(usize, u8, Write)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Claim(usize),
    Send(usize, Write),
    /// The write at this place arrives, and its sender hears the answer.
    Arrive(usize),
    Lose(usize),
    Kill(usize),
    Stop(usize),
    Continue(usize),
    /// An expiry passes without a renewal.
    Expire,
    TakeBack,
    Pause,
    Resume,
    Cancel,
    DatabaseGoes,
    DatabaseComes,
    /// An expiry passes after the database came.
    Settle,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { database: Database::default(), workers: [Worker::Idle; WORKERS], under_way: Vec::new() }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for worker in 0..WORKERS {
            match state.workers[worker] {
                Worker::Idle => steps.push(Step::Claim(worker)),
                Worker::Working(_) => {
                    steps.extend([Step::Kill(worker), Step::Stop(worker)]);
                    if state.under_way.len() < MOST_UNDER_WAY {
                        steps.extend(Write::ALL.map(|write| Step::Send(worker, write)));
                    }
                }
                Worker::Stopped(_) => steps.extend([Step::Kill(worker), Step::Continue(worker)]),
            }
        }
        for place in 0..state.under_way.len() {
            steps.extend([Step::Arrive(place), Step::Lose(place)]);
        }
        steps.extend([Step::Expire, Step::TakeBack, Step::Pause, Step::Resume, Step::Cancel]);
        steps.extend([Step::DatabaseGoes, Step::DatabaseComes, Step::Settle]);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let database = &mut state.database;
        let happened = match step {
            Step::Claim(worker) => {
                let claimed = database.claim(worker);
                if claimed {
                    state.workers[worker] = Worker::Working(database.epoch);
                }
                claimed
            }
            Step::Send(worker, write) => state.send(worker, write),
            Step::Arrive(place) => self.arrive(&mut state, place),
            Step::Lose(place) => {
                state.under_way.remove(place);
                true
            }
            Step::Kill(worker) => {
                state.workers[worker] = Worker::Idle;
                true
            }
            Step::Stop(worker) => state.turn(worker, Worker::Stopped),
            Step::Continue(worker) => state.turn(worker, Worker::Working),
            Step::Expire => std::mem::take(&mut database.fresh),
            Step::TakeBack => database.take_back(),
            Step::Pause => database.pause(),
            Step::Resume => database.resume(),
            Step::Cancel => database.cancel(),
            Step::DatabaseGoes => std::mem::take(&mut database.up),
            Step::DatabaseComes if !database.up => {
                database.up = true;
                database.settled = false;
                true
            }
            Step::Settle if database.up && !database.settled => {
                database.settled = true;
                true
            }
            Step::DatabaseComes | Step::Settle => false,
        };
        happened.then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a task ends once", |_, state: &State| !state.database.wrongs.ended_twice),
            Property::always("what is recorded follows the epochs", |_, state: &State| {
                !state.database.wrongs.out_of_order
            }),
            Property::always("only the holder renews", |_, state: &State| !state.database.wrongs.renewed_by_another),
            Property::always("nobody is robbed of a good lease", |_, state: &State| !state.database.wrongs.robbed),
            Property::always("a running task has a holder, and no other has", |_, state: &State| {
                (state.database.state == TaskState::Running) == state.database.holder.is_some()
            }),
            // Whoever works under the current epoch is the holder: two never do.
            Property::always("one works under the current epoch", |_, state: &State| {
                let working = |worker: &&Worker| matches!(worker, Worker::Working(epoch) | Worker::Stopped(epoch) if *epoch == state.database.epoch);
                state.workers.iter().filter(working).count() <= 1
            }),
        ];
        // Without these, a model in which nothing happens would pass.
        let reached: [(&'static str, Reached); 5] = [
            ("a task can be done", |_, state| state.database.state == TaskState::Done),
            ("a task can be held", |_, state| state.database.state == TaskState::Held),
            ("a task can be cancelled", |_, state| state.database.state == TaskState::Cancelled),
            ("a second worker can take over", |_, state| state.database.holder == Some(1) && state.database.epoch > 2),
            (
                "a stopped worker can wake up replaced",
                |_, state| matches!(state.workers, [Worker::Working(old), Worker::Working(new)] if old < new),
            ),
        ];
        properties.extend(reached.map(|(name, condition)| Property::sometimes(name, condition)));
        properties
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.database.epoch <= MOST_EPOCHS
    }
}

impl Protocol {
    fn arrive(&self, state: &mut State, place: usize) -> bool {
        if !state.database.up {
            return false;
        }
        let (worker, epoch, write) = state.under_way.remove(place);
        let taken = state.database.write(worker, epoch, write, self.unfenced != Some(write));
        // A refusal, or the end of the task, sends the worker home, if it is still at that attempt.
        if (!taken || write.ends()) && state.workers[worker] == Worker::Working(epoch) {
            state.workers[worker] = Worker::Idle;
        }
        true
    }
}

impl State {
    fn send(&mut self, worker: usize, write: Write) -> bool {
        let Worker::Working(epoch) = self.workers[worker] else { return false };
        let sent = (worker, epoch, write);
        // A worker waits for the answer to one call of a kind before it makes the next.
        if self.under_way.contains(&sent) {
            return false;
        }
        self.under_way.push(sent);
        true
    }

    fn turn(&mut self, worker: usize, into: fn(u8) -> Worker) -> bool {
        match self.workers[worker] {
            Worker::Working(epoch) | Worker::Stopped(epoch) => self.workers[worker] = into(epoch),
            Worker::Idle => return false,
        }
        true
    }
}
