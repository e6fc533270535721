//! Whose turn it is: of the tenants that wait, the one that was given the fewest tokens (start-time fair queuing: Goyal et
//! al. 1996), and of its requests the earliest. A tenant that comes anew starts where the others are, not with what it saved.

use std::collections::BTreeMap;

use finetuned_protocol::ids::TenantId;

use super::answer::Answer;

/// More requests than this do not wait; of one tenant, fewer.
const MOST_WAITING: usize = 1024;
const MOST_WAITING_OF_ONE: usize = 256;
/// Tenants whose turn is remembered.
const MOST_TENANTS: usize = 4096;

#[derive(Default)]
pub struct Queue {
    waiting: Vec<Answer>,
    given: BTreeMap<TenantId, u64>,
    /// What the tenant whose turn it was last had been given.
    now: u64,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more request of a tenant may wait.
    pub fn has_room(&self, tenant: TenantId) -> bool {
        let own = self.waiting.iter().filter(|answer| answer.tenant == tenant).count();
        self.waiting.len() < MOST_WAITING && own < MOST_WAITING_OF_ONE
    }

    pub fn push(&mut self, answer: Answer) {
        if self.given.len() > MOST_TENANTS {
            let waiting = &self.waiting;
            self.given.retain(|tenant, _| waiting.iter().any(|answer| answer.tenant == *tenant));
        }
        let given = self.given.entry(answer.tenant).or_default();
        *given = (*given).max(self.now);
        self.waiting.push(answer);
    }

    /// Puts back what was under way already, before everything else.
    pub fn push_front(&mut self, answer: Answer) {
        self.waiting.insert(0, answer);
    }

    fn turn(&self) -> Option<usize> {
        let given = |answer: &Answer| self.given.get(&answer.tenant).copied().unwrap_or(0);
        let mut turns = self.waiting.iter().enumerate();
        if let Some(index) = self.waiting.iter().position(|answer| answer.begun) {
            return Some(index);
        }
        turns.by_ref().min_by_key(|(index, answer)| (given(answer), *index)).map(|(index, _)| index)
    }

    /// Whose turn it is.
    pub fn peek(&self) -> Option<&Answer> {
        self.turn().map(|index| &self.waiting[index])
    }

    pub fn pop(&mut self) -> Option<Answer> {
        let answer = self.waiting.remove(self.turn()?);
        self.now = self.now.max(self.given.get(&answer.tenant).copied().unwrap_or(0));
        Some(answer)
    }

    /// Notes tokens that were computed for a tenant.
    pub fn charge(&mut self, tenant: TenantId, tokens: u64) {
        *self.given.entry(tenant).or_default() += tokens;
    }

    /// Lets go of a request that nobody waits for.
    pub fn cancel(&mut self, id: u64) {
        self.waiting.retain(|answer| answer.id != id);
    }
}
