//! The language models behind one interface: a conversation goes in, tokens come out.

use std::time::Duration;

use crate::anthropic::{Anthropic, AnthropicReply};
use crate::settings::Settings;

const QUOTE_MAX_CHARS: usize = 200;

/// The model gave no reply, or broke off in the middle of one.
#[derive(Debug)]
pub struct ModelError(pub String);

/// One message of a conversation.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// What is to be answered.
#[derive(Debug)]
pub struct Conversation {
    pub message: String,
    /// The last turns before the message, oldest first.
    pub recent_turns: Vec<Turn>,
    pub earlier_messages: u32,
}

/// The model that answers in this process.
pub enum Model {
    /// Answers without key or network, the same words for the same conversation.
    BuiltIn {
        token_delay: Duration,
    },
    Anthropic(Anthropic),
}

impl Model {
    /// Chooses by the settings: with a key, a real one.
    pub fn choose(settings: &Settings) -> Result<Self, reqwest::Error> {
        Ok(match &settings.anthropic_api_key {
            Some(key) => {
                Self::Anthropic(Anthropic::new(key, &settings.anthropic_model, &settings.anthropic_base_url)?)
            }
            None => Self::BuiltIn { token_delay: Duration::from_millis(settings.token_delay_ms) },
        })
    }

    /// Begins a reply. Nothing is asked before its first token is waited for.
    pub fn reply(&self, conversation: &Conversation) -> Reply {
        match self {
            Self::BuiltIn { token_delay } => {
                Reply::BuiltIn { tokens: tokens(&built_in_reply(conversation)), token_delay: *token_delay }
            }
            Self::Anthropic(anthropic) => Reply::Anthropic(anthropic.reply(conversation)),
        }
    }
}

/// A reply under way.
pub enum Reply {
    BuiltIn { tokens: std::vec::IntoIter<String>, token_delay: Duration },
    Anthropic(AnthropicReply),
}

impl Reply {
    /// Waits for the next token; there is none after the last.
    pub async fn next(&mut self) -> Result<Option<String>, ModelError> {
        match self {
            Self::BuiltIn { tokens, token_delay } => {
                let Some(token) = tokens.next() else { return Ok(None) };
                tokio::time::sleep(*token_delay).await;
                Ok(Some(token))
            }
            Self::Anthropic(reply) => reply.next().await,
        }
    }
}

/// Splits a text into words, each with the white space behind it.
fn tokens(text: &str) -> std::vec::IntoIter<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut after_space = true;
    for letter in text.trim_start().chars() {
        match tokens.last_mut() {
            Some(token) if letter.is_whitespace() || !after_space => token.push(letter),
            _ => tokens.push(letter.to_string()),
        }
        after_space = letter.is_whitespace();
    }
    tokens.into_iter()
}

fn built_in_reply(conversation: &Conversation) -> String {
    let message = conversation.message.trim();
    let mut quote: String = message.chars().take(QUOTE_MAX_CHARS).collect();
    if quote.len() < message.len() {
        quote.push('…');
    }
    let memory = match conversation.earlier_messages {
        0 => "This is the first message of our thread.".to_owned(),
        1 => "I remember 1 earlier message in this thread.".to_owned(),
        count => format!("I remember {count} earlier messages in this thread."),
    };
    format!(
        "Thank you for writing! You said: “{quote}” {memory} \
         I am the small built-in model, so I can only repeat what I hear, one word at a time. \
         Give me an ANTHROPIC_API_KEY and a real model will answer here instead."
    )
}
