#![allow(clippy::unwrap_used)]

use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_partial_json, header, method, path},
};

use super::*;

fn outbound() -> Outbound {
    Outbound::new(vec!["127.0.0.1".parse().unwrap()])
}

async fn ask(server: &MockServer, outbound: &Outbound) -> Result<ChatReply, ChatError> {
    let turns = [ChatTurn { role: "user", content: "Which?".into() }];
    let key = SecretString::from("sk-secret");
    let url = format!("{}/v1/", server.uri());
    let call = ChatCall {
        url: &url,
        api_key: Some(&key),
        model: "m",
        turns: &turns,
        max_tokens: 9,
        temperature: 0.0,
        seed: 3,
    };
    call.send(outbound).await
}

#[tokio::test]
async fn a_reply_is_read_with_what_it_took() {
    let server = MockServer::start().await;
    let reply = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "{}"}}],
                       "usage": {"total_tokens": 12}});
    let wanted = json!({"model": "m", "messages": [{"role": "user", "content": "Which?"}], "max_tokens": 9, "seed": 3,
                        "response_format": {"type": "json_object"}});
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", "Bearer sk-secret"))
        .and(body_partial_json(wanted))
        .respond_with(ResponseTemplate::new(200).set_body_json(reply))
        .mount(&server)
        .await;
    assert_eq!(ask(&server, &outbound()).await.unwrap(), ChatReply { text: "{}".into(), tokens: 12 });
    let refused = ask(&server, &Outbound::new(Vec::new())).await.unwrap_err();
    assert!(matches!(refused, ChatError::Outbound(OutboundError::Refused)) && !refused.is_passing(), "{refused}");
}

#[tokio::test]
async fn what_passes_is_told_from_what_stays() {
    for (answer, passes, wait) in [
        (ResponseTemplate::new(429).insert_header("retry-after", "7"), true, Some(Duration::from_secs(7))),
        (ResponseTemplate::new(503), true, None),
        (ResponseTemplate::new(401).set_body_string("wrong key sk-secret"), false, None),
        (ResponseTemplate::new(200).set_body_string("hello"), false, None),
        (ResponseTemplate::new(200).set_body_json(json!({"choices": []})), false, None),
        (ResponseTemplate::new(200).set_body_bytes(vec![b' '; MOST_BYTES + 1]), false, None),
        (ResponseTemplate::new(302).insert_header("location", "/elsewhere"), false, None),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let error = ask(&server, &outbound()).await.unwrap_err();
        assert_eq!((error.is_passing(), error.wait()), (passes, wait), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("sk-secret"), "{error:?}");
    }
    // Nobody listens on a port that was just let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri = format!("http://127.0.0.1:{port}");
    let turns = [];
    let call =
        ChatCall { url: &uri, api_key: None, model: "m", turns: &turns, max_tokens: 1, temperature: 0.0, seed: 0 };
    let error = call.send(&outbound()).await.unwrap_err();
    assert!(error.is_passing() && matches!(error, ChatError::Outbound(OutboundError::Connect(_))), "{error:?}");
}
