//! Replies of Anthropic's Messages API, read event by event.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::model::{Conversation, ModelError, Turn};

const VERSION: &str = "2023-06-01";
const MAX_TOKENS: u32 = 2_048;
/// For the connection, and then for each piece of the reply.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest line of a reply; theirs are a few hundred bytes.
const LINE_MAX_BYTES: usize = 1 << 20;

/// A model of Anthropic's.
pub struct Anthropic {
    client: Client,
    api_key: String,
    model: String,
    url: String,
}

impl Anthropic {
    pub fn new(api_key: &str, model: &str, base_url: &str) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: Client::builder().connect_timeout(TIMEOUT).read_timeout(TIMEOUT).build()?,
            api_key: api_key.to_owned(),
            model: model.to_owned(),
            url: format!("{}/v1/messages", base_url.trim_end_matches('/')),
        })
    }

    /// Prepares the question; it is asked when the first token is waited for.
    pub fn reply(&self, conversation: &Conversation) -> AnthropicReply {
        let mut turns = conversation.recent_turns.clone();
        turns.push(Turn { role: "user".to_owned(), content: conversation.message.clone() });
        let body = json!({"model": self.model, "max_tokens": MAX_TOKENS, "messages": turns, "stream": true});
        let request = self.client.post(&self.url).header("x-api-key", &self.api_key);
        AnthropicReply {
            request: Some(request.header("anthropic-version", VERSION).json(&body)),
            response: None,
            unread: Vec::new(),
        }
    }
}

/// A reply under way.
pub struct AnthropicReply {
    request: Option<RequestBuilder>,
    response: Option<Response>,
    /// What has arrived and is not a whole line yet, or not read yet.
    unread: Vec<u8>,
}

impl AnthropicReply {
    /// Waits for the next token; there is none after `message_stop`.
    pub async fn next(&mut self) -> Result<Option<String>, ModelError> {
        if let Some(request) = self.request.take() {
            let response = request.send().await.map_err(unreadable)?;
            if response.status() != 200 {
                let status = response.status().as_u16();
                return Err(ModelError(format!("Anthropic answered with status {status}")));
            }
            self.response = Some(response);
        }
        loop {
            let Some(line) = self.next_line().await? else {
                return Err(ModelError("Anthropic's reply ended early".to_owned()));
            };
            let Some(data) = line.strip_prefix("data:") else { continue };
            let event: Value = serde_json::from_str(data).map_err(unreadable)?;
            match event["type"].as_str() {
                Some("message_stop") => return Ok(None),
                Some("error") => {
                    let kind = event["error"]["type"].as_str().unwrap_or("error");
                    return Err(ModelError(format!("Anthropic broke off: {kind}")));
                }
                Some("content_block_delta") if event["delta"]["type"] == "text_delta" => {
                    let text = event["delta"]["text"].as_str().unwrap_or_default();
                    return Ok(Some(text.to_owned()));
                }
                _ => {}
            }
        }
    }

    async fn next_line(&mut self) -> Result<Option<String>, ModelError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if self.unread.len() > LINE_MAX_BYTES {
                return Err(unreadable("a line is too long"));
            }
            let Some(chunk) = response.chunk().await.map_err(unreadable)? else { return Ok(None) };
            self.unread.extend_from_slice(&chunk);
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> ModelError {
    ModelError(format!("cannot read Anthropic's reply: {error}"))
}
