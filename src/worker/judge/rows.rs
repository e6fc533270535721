//! All questions about one row.

use finetuned_evaluation::judge::{Comparison, Points, Question, Seen, Winner, YesNo, majority, outcome};
use finetuned_protocol::{
    evaluation::AnswerPair,
    judge::{AnswerJudgement, JudgeSpec, PairJudgement, Preference, RowJudgement},
};

use super::session::{Halt, Session};

/// Always the likeliest reply.
const SURE: (f64, u64) = (0.0, 0);
/// Votes are drawn, or they would all be the same.
const DRAWN: f64 = 1.0;

/// # Errors
/// [`Halt`].
pub async fn judge_row(session: &Session<'_>, spec: &JudgeSpec, row: &AnswerPair) -> Result<RowJudgement, Halt> {
    let asked = Asked { session, spec, seen: Seen { prompt: &row.prompt, reference: &row.reference } };
    let mut judgement = RowJudgement::default();
    if spec.pairwise {
        let pair = asked.compare(row).await?;
        judgement.unparseable += u32::from(pair.base_first.is_none()) + u32::from(pair.tuned_first.is_none());
        judgement.pairwise = Some(pair);
    }
    (judgement.base, judgement.unparseable) = asked.answer(&row.base, judgement.unparseable).await?;
    (judgement.tuned, judgement.unparseable) = asked.answer(&row.tuned, judgement.unparseable).await?;
    Ok(judgement)
}

struct Asked<'a> {
    session: &'a Session<'a>,
    spec: &'a JudgeSpec,
    seen: Seen<'a>,
}

impl Asked<'_> {
    async fn compare(&self, row: &AnswerPair) -> Result<PairJudgement, Halt> {
        let base_first = Question::Compare { first: &row.base, second: &row.tuned };
        let tuned_first = Question::Compare { first: &row.tuned, second: &row.base };
        let one = self.session.verdict::<Comparison>(&base_first, self.seen, SURE).await?;
        let other = self.session.verdict::<Comparison>(&tuned_first, self.seen, SURE).await?;
        let base_first = one.as_ref().map(|verdict| preferred(verdict.winner, Preference::Base, Preference::Tuned));
        let tuned_first = other.map(|verdict| preferred(verdict.winner, Preference::Tuned, Preference::Base));
        let outcome = outcome(base_first, tuned_first);
        Ok(PairJudgement { base_first, tuned_first, outcome, reason: one.and_then(|verdict| verdict.reason) })
    }

    /// What is said of one answer, and the questions so far that had no verdict.
    async fn answer(&self, answer: &str, mut unparseable: u32) -> Result<(AnswerJudgement, u32), Halt> {
        let mut judgement = AnswerJudgement::default();
        if self.spec.rubric {
            let points = self.session.verdict::<Points>(&Question::Rate { answer }, self.seen, SURE).await?;
            unparseable += u32::from(points.is_none());
            judgement.rubric = points.map(|verdict| verdict.points);
        }
        let criteria = self.spec.criteria.iter().map(|criterion| (criterion.as_str(), criterion.sentence()));
        let categories = self.spec.categories.iter().map(|category| (&*category.name, &*category.criterion));
        for (name, sentence) in criteria.chain(categories) {
            let votes = self.vote(&Question::Holds { answer, sentence }).await?;
            unparseable += votes.iter().filter(|vote| vote.is_none()).count() as u32;
            judgement.holds.extend(majority(&votes, self.spec.votes).map(|holds| (name.to_owned(), holds)));
        }
        Ok((judgement, unparseable))
    }

    /// Votes until the others cannot change what the most of them say.
    async fn vote(&self, question: &Question<'_>) -> Result<Vec<Option<bool>>, Halt> {
        let mut votes = Vec::new();
        let temperature = if self.spec.votes == 1 { 0.0 } else { DRAWN };
        for seed in 0..u64::from(self.spec.votes) {
            let verdict = self.session.verdict::<YesNo>(question, self.seen, (temperature, seed)).await?;
            votes.push(verdict.map(|verdict| verdict.holds));
            if majority(&votes, self.spec.votes).is_some() {
                break;
            }
        }
        Ok(votes)
    }
}

fn preferred(winner: Winner, first: Preference, second: Preference) -> Preference {
    match winner {
        Winner::A => first,
        Winner::B => second,
        Winner::Tie => Preference::Tie,
    }
}
