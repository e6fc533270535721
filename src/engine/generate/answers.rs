//! Answers as they are written.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use finetuned_model::{Answer, TokenScores};
use finetuned_protocol::generation::{FinishReason, GenerationAnswer, TokenLogprob};
use finetuned_weights::TextTokenizer;

use super::requests::Asked;

/// # Errors
/// Ids that the tokenizer refuses.
pub fn written(
    asked: &[Asked],
    answers: Vec<Answer>,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<Vec<GenerationAnswer>> {
    let one = |(asked, answer): (&Asked, Answer)| {
        let text = match &asked.options.stop {
            Some(stop) => stop.cut(&answer.ids)?.0,
            None => tokenizer.decode(&answer.ids, true)?,
        };
        let scores = answer.ids.iter().zip(&answer.scores);
        let logprobs = scores.map(|(&id, scores)| logprob(id, scores, tokenizer)).collect::<anyhow::Result<_>>()?;
        Ok(GenerationAnswer {
            id: asked.id.clone(),
            text,
            output_ids: answer.ids,
            finish_reason: if answer.ended { FinishReason::Stop } else { FinishReason::Length },
            prompt_tokens: asked.ids.len() as u64,
            logprobs: asked.options.log_probabilities.map(|_| logprobs),
        })
    };
    asked.iter().zip(answers).map(one).collect()
}

fn logprob(id: u32, scores: &TokenScores, tokenizer: &TextTokenizer) -> anyhow::Result<TokenLogprob> {
    let one = |id: u32, logprob: f64, top_logprobs: Vec<TokenLogprob>| -> anyhow::Result<TokenLogprob> {
        Ok(TokenLogprob { token: tokenizer.decode(&[id], false)?, token_id: id, logprob, top_logprobs })
    };
    let top = scores.top.iter().map(|&(id, logprob)| one(id, logprob, Vec::new())).collect::<anyhow::Result<_>>()?;
    one(id, scores.log_probability, top)
}

/// # Errors
/// The disk's.
pub fn save(path: &Path, answers: &[GenerationAnswer]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for answer in answers {
        serde_json::to_writer(&mut file, answer)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
