#![allow(clippy::unwrap_used)]

use super::*;

/// Rules and pointers of a question and its answer.
fn found(prompt: &str, completion: &str) -> Vec<String> {
    let example = Example::PromptCompletion { prompt: prompt.into(), completion: completion.into() };
    let mut findings = Vec::new();
    ContentChecks::new().row(&example, RowFormat::PromptCompletion, 7, &mut findings);
    findings.iter().map(|finding| format!("{} {} {}", finding.line, finding.pointer, finding.rule)).collect()
}

#[test]
fn plain_talk_has_no_findings() {
    let number = "Call 0800 123 456 by 2024-01-31 12:00; the order is 1234567890123456.";
    assert!(found("What is the capital of France?", "Paris.").is_empty());
    assert!(found("What about it, then?", number).is_empty());
    assert!(found("a@b", "see @home, me@, @you.com and x@y").is_empty());
}

#[test]
fn answers_that_teach_little() {
    let prompt = "Tell me the whole story of the lighthouse.";
    assert_eq!(found(prompt, "A"), ["7 /completion answer_short"]);
    assert_eq!(found(prompt, &format!("{prompt} It was built in 1850.")), ["7 /completion answer_repeats_prompt"]);
    assert_eq!(found(prompt, &"the light goes round and ".repeat(30)), ["7 /completion answer_repetitive"]);
    let varied: Vec<String> = (0..200).map(|word| format!("word{word}")).collect();
    assert!(found(prompt, &varied.join(" ")).is_empty());
}

#[test]
fn secrets_are_found_and_not_repeated() {
    for secret in [
        concat!("AKIA", "IOSFODNN7EXAMPLE"),
        concat!("ghp", "_0123456789abcdefghijklmnopqrstuvwxyz"),
        concat!("sk", "-proj-abcdefghijklmnopqrstuvwxyz"),
        concat!("-----BEGIN RSA ", "PRIVATE KEY-----\nMIIE"),
    ] {
        let example = Example::PromptCompletion { prompt: format!("my key is {secret}!"), completion: "Thanks".into() };
        let mut findings = Vec::new();
        ContentChecks::new().row(&example, RowFormat::PromptCompletion, 1, &mut findings);
        let [finding] = &findings[..] else { panic!("{secret}: {findings:?}") };
        assert_eq!((&*finding.rule, &*finding.pointer), ("secret", "/prompt"));
        assert!(!finding.reason.contains(secret), "{}", finding.reason);
    }
}

#[test]
fn personal_data() {
    assert_eq!(found("Write to jane.doe+x@example.co.uk.", "Done"), ["7 /prompt email_address"]);
    // Numbers that card networks publish for tests.
    for number in ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005"] {
        assert_eq!(found("My card?", &format!("It is {number}.")), ["7 /completion card_number"], "{number}");
    }
    assert!(found("My card?", "It is 4111 1111 1111 1112.").is_empty(), "Luhn's check fails");
}

#[test]
fn a_mix_of_languages_is_told() {
    let mix = |german: usize| {
        let mut checks = ContentChecks::new();
        for row in 0..100 {
            let completion = if row < german {
                "Der Hafen liegt im Norden der Stadt und wird seit vielen Jahren kaum noch benutzt."
            } else {
                "The harbour lies in the north of the town and has hardly been used for many years."
            };
            let example = Example::PromptCompletion { prompt: "q".into(), completion: completion.into() };
            checks.row(&example, RowFormat::PromptCompletion, 1, &mut Vec::new());
        }
        let (shares, finding) = checks.finish();
        (shares.iter().map(|share| format!("{} {}", share.language, share.rows)).collect::<Vec<_>>(), finding)
    };
    let (shares, finding) = mix(30);
    assert_eq!(shares, ["eng 70", "deu 30"]);
    let finding = finding.unwrap();
    assert_eq!(finding.rule, "languages_mixed");
    assert!(finding.reason.ends_with("eng 70 %, deu 30 %"));
    assert!(mix(3).1.is_none());
}
