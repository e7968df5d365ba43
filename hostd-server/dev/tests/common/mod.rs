//! Requests to an API over a simulated host.

use serde_json::{Value, json};
use std::rc::Rc;
use tessera_hostd::{
    api::Api,
    http::{Body, Method, Request},
};

/// Asks with a token, if there is one; a query may follow the path. Answers with the status and what came.
pub async fn ask_raw(api: &Rc<Api>, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Vec<u8>) {
    let mut headers = vec![("content-type".into(), "application/json".into())];
    if !token.is_empty() {
        headers.push(("authorization".into(), format!("Bearer {token}")));
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let request = Request {
        method,
        path: format!("/api/v1{path}"),
        query: query.into(),
        headers,
        peer: "192.0.2.1".into(),
        secure: true,
        body: body.map_or(Body::Empty, |body| Body::Bytes(body.to_string().into_bytes())),
    };
    let answer = api.answer(request).await;
    match answer.body {
        Body::Bytes(bytes) => (answer.status, bytes),
        _ => (answer.status, Vec::new()),
    }
}

/// The same; null is what is no JSON.
pub async fn ask(api: &Rc<Api>, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let (status, bytes) = ask_raw(api, token, method, path, body).await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// A token for somebody.
pub async fn log_in(api: &Rc<Api>, user: &str, password: &str) -> String {
    let body = json!({ "user": user, "password": password, "bearer": true });
    let (_, answer) = ask(api, "", Method::Post, "/session", Some(body)).await;
    answer["token"].as_str().unwrap().into()
}
