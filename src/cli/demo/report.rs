//! Base against tuned, as tables.

use finetuned_protocol::evaluation::{AnswerPair, AnswersReport, EvaluationReport, PairedComparison};

use crate::format;

/// Loss, perplexity, accuracy and ROUGE-L of both models.
pub fn figures(evaluation: &EvaluationReport) -> Vec<String> {
    let EvaluationReport { base, tuned, answers, .. } = evaluation;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row = |name: &str, base: String, tuned: String| vec![format!("  {name}"), base, tuned];
    let mut rows = vec![
        row("", "base".to_owned(), "tuned".to_owned()),
        row("loss", format!("{:.3}", base.loss), format!("{:.3}", tuned.loss)),
        row("perplexity", format!("{:.1}", base.perplexity), format!("{:.1}", tuned.perplexity)),
        row("token accuracy", percent(base.token_accuracy), percent(tuned.token_accuracy)),
    ];
    if let Some(AnswersReport { rouge_l, base_ended_share, tuned_ended_share, .. }) = answers {
        rows.push(row("ROUGE-L", format!("{:.3}", rouge_l.base), format!("{:.3}", rouge_l.tuned)));
        rows.push(row("answers that ended by themselves", percent(*base_ended_share), percent(*tuned_ended_share)));
    }
    let mut lines = format::table(&rows);
    if base.loss > 0.0 {
        lines.push(format!("  held-out loss is at {:.0} % of the base model's", 100.0 * tuned.loss / base.loss));
    }
    lines.extend(answers.iter().map(|answers| interval(answers.rows, &answers.rouge_l)));
    lines
}

fn interval(rows: u32, rouge_l: &PairedComparison) -> String {
    let PairedComparison { difference, low, high, confidence, verdict, .. } = rouge_l;
    let verdict = verdict.as_str().replace('_', " ");
    let confidence = confidence * 100.0;
    format!(
        "  ROUGE-L differs by {difference:+.3} ({confidence:.0} % interval {low:+.3} to {high:+.3} over {}): {verdict}",
        format::count(u64::from(rows), "row")
    )
}

/// The first few held-out prompts with both answers beside each other.
pub fn samples(evaluation: &EvaluationReport, most: usize, width: usize) -> Vec<String> {
    let answers = evaluation.answers.iter().flat_map(|answers| &answers.answers);
    answers.take(most).flat_map(|pair| sample(pair, width)).collect()
}

fn sample(pair: &AnswerPair, width: usize) -> Vec<String> {
    let heading = |name: &str, ended: bool| if ended { name.to_owned() } else { format!("{name} (cut at the limit)") };
    let mut lines = vec![
        String::new(),
        format!("  row {}: {}", pair.line, format::one_line(&pair.prompt, width)),
        format!("  wanted: {}", format::one_line(&pair.reference, width)),
    ];
    let base = (&*heading("base", pair.base_ended), &*pair.base);
    let tuned = (&*heading("tuned", pair.tuned_ended), &*pair.tuned);
    lines.extend(format::side_by_side(base, tuned, width - 4).into_iter().map(|line| format!("    {line}")));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    fn evaluation() -> EvaluationReport {
        let likelihood = |loss: f64| {
            json!({"loss": loss, "perplexity": loss.exp(), "token_accuracy": 0.25,
            "supervised_tokens": 90, "rows": 29})
        };
        serde_json::from_value(json!({
            "held_out_source": "split", "held_out_rows": 29, "base": likelihood(4.5), "tuned": likelihood(2.0), "history": [],
            "answers": {"rows": 24, "max_new_tokens": 48, "base_ended_share": 0.5, "tuned_ended_share": 1.0,
                "rouge_l": {"base": 0.1, "tuned": 0.3, "difference": 0.2, "low": 0.05, "high": 0.31, "confidence": 0.95,
                    "resamples": 10000, "seed": 1, "verdict": "better"},
                "answers": [{"line": 3, "prompt": "Who wrote Hamlet?", "reference": "Shakespeare", "base": "It is a play",
                    "tuned": "Shakespeare", "base_ended": false, "tuned_ended": true, "base_rouge_l": 0, "tuned_rouge_l": 1}]}
        }))
        .unwrap()
    }

    #[test]
    fn both_models_stand_in_one_table() {
        let expected = [
            "                                      base    tuned",
            "  loss                               4.500    2.000",
            "  perplexity                          90.0      7.4",
            "  token accuracy                    25.0 %   25.0 %",
            "  ROUGE-L                            0.100    0.300",
            "  answers that ended by themselves  50.0 %  100.0 %",
            "  held-out loss is at 44 % of the base model's",
            "  ROUGE-L differs by +0.200 (95 % interval +0.050 to +0.310 over 24 rows): better",
        ];
        assert_eq!(figures(&evaluation()), expected);
    }

    #[test]
    fn answers_stand_beside_each_other() {
        let expected = [
            "",
            "  row 3: Who wrote Hamlet?",
            "  wanted: Shakespeare",
            "    base (cut at the limit)    | tuned",
            "    It is a play               | Shakespeare",
        ];
        assert_eq!(samples(&evaluation(), 3, 60), expected);
    }
}
