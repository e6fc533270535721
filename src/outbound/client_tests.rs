//! Calls to a listener on loopback, which is refused unless allowed.
#![allow(clippy::unwrap_used)]

use axum::{Router, http::StatusCode, response::Redirect, routing::post};

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

/// A server on loopback; its port.
async fn listening() -> u16 {
    let routes = Router::new()
        .route("/ok", post(|| async { StatusCode::NO_CONTENT }))
        .route("/elsewhere", post(|| async { Redirect::temporary("/ok") }))
        .route("/slow", post(|| async { tokio::time::sleep(Duration::from_secs(60)).await }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

fn outbound(allowed: &[&str]) -> Outbound {
    Outbound::new(allowed.iter().map(|text| text.parse().unwrap()).collect())
}

async fn status(outbound: &Outbound, url: &str, deadline: Duration) -> Result<u16, OutboundError> {
    Ok(outbound.request(Method::POST, url, deadline)?.send().await?.status().as_u16())
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
    let port = listening().await;
    // `https`, so that the text alone is no reason to refuse: what counts is where `localhost` leads.
    let url = format!("https://localhost:{port}/ok");
    assert!(outbound(&[]).check(&url).is_ok());
    let refused = status(&outbound(&[]), &url, DEADLINE).await;
    assert!(matches!(refused, Err(OutboundError::Refused)), "{refused:?}");
    assert!(matches!(outbound(&[]).look_up(&url).await, Err(OutboundError::Refused)));
    assert!(outbound(&["127.0.0.0/8", "::1"]).look_up(&url).await.is_ok());
    assert!(outbound(&[]).look_up("https://1.1.1.1/").await.is_ok());
    // An address that is allowed is reached under any name; here TLS fails, beyond the filter.
    let reached = status(&outbound(&["127.0.0.0/8", "::1"]), &url, DEADLINE).await;
    assert!(matches!(reached, Err(OutboundError::Connect(_))), "{reached:?}");
    let url = format!("http://localhost:{port}/ok");
    assert_eq!(status(&outbound(&["localhost"]), &url, DEADLINE).await.unwrap(), 204);
}

#[tokio::test]
async fn literal_addresses_are_refused_too() {
    let port = listening().await;
    let url = format!("http://127.0.0.1:{port}/ok");
    assert!(matches!(status(&outbound(&[]), &url, DEADLINE).await, Err(OutboundError::Refused)));
    assert_eq!(status(&outbound(&["127.0.0.1"]), &url, DEADLINE).await.unwrap(), 204);
    for url in
        ["https://10.0.0.1/", "https://[::1]/", "https://0x7f000001/", "https://127.1/", "https://[::ffff:10.0.0.1]/"]
    {
        assert!(matches!(outbound(&[]).check(url), Err(OutboundError::Refused)), "{url}");
    }
}

#[tokio::test]
async fn redirects_are_answers_and_slowness_ends() {
    let port = listening().await;
    let outbound = outbound(&["127.0.0.1"]);
    let at = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    assert_eq!(status(&outbound, &at("elsewhere"), DEADLINE).await.unwrap(), 307);
    let slow = status(&outbound, &at("slow"), Duration::from_millis(100)).await;
    assert!(matches!(slow, Err(OutboundError::Timeout)), "{slow:?}");
}

#[test]
fn a_url_is_https_without_credentials() {
    let outbound = outbound(&[]);
    assert!(outbound.check("https://example.com/hook?x=1").is_ok());
    for url in
        ["", "example.com", "ftp://example.com/", "http://example.com/", "https://a:b@example.com/", "file:///etc"]
    {
        assert!(matches!(outbound.check(url), Err(OutboundError::Url(_))), "{url}");
    }
}
