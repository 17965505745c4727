//! Chat: the user's message is stored first, then the reply is streamed and stored.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use rusqlite::Transaction;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};

use crate::App;
use crate::answers::{self, Body, Refusal};
use crate::auth::User;
use crate::database::{DatabaseUnavailable, NOW};
use crate::model::{Conversation, Turn};
use crate::threads;

const MESSAGE_MAX_BYTES: usize = 16 * 1024;
const RECENT_TURNS: u32 = 40;
/// How often a silent stream says that it is still there.
const PING: Duration = Duration::from_secs(15);

pub async fn chat(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
    body: Body,
) -> Result<impl IntoResponse, Refusal> {
    let id = threads::parse_id(&id)?;
    let message = answers::text_of(body, "message")?;
    if message.len() > MESSAGE_MAX_BYTES {
        let why = format!("Value error, message is longer than {MESSAGE_MAX_BYTES} bytes");
        return Err(Refusal::unfit("value_error", Some("message"), why));
    }
    let question = app.database.write(move |tx| {
        if threads::find(tx, id, &user)?.is_none() {
            return Ok(None);
        }
        let conversation = load_conversation(tx, id, message)?;
        insert_message(tx, id, "user", &conversation.message, false)?;
        Ok(Some(conversation))
    });
    let conversation = question.await?.ok_or_else(Refusal::no_such_thread)?;
    // Stored. The reply is a task of its own: it goes on to its end, and is kept, whatever becomes of this request.
    let (events, heard) = mpsc::channel(1);
    app.replies.spawn(reply(Arc::clone(&app), id, conversation, events));
    let stream = stream::unfold(heard, async |mut heard| {
        let event = heard.recv().await?;
        Some((Ok::<_, Infallible>(event), heard))
    });
    let headers = [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")];
    Ok((headers, Sse::new(stream).keep_alive(KeepAlive::new().interval(PING))))
}

/// Passes a reply on token by token, and stores what was said when it ends, in whatever way.
async fn reply(app: Arc<App>, thread: i64, conversation: Conversation, events: Sender<Event>) {
    let mut reply = app.model.reply(&conversation);
    let mut said = String::new();
    let failure = loop {
        let token = tokio::select! {
            token = reply.next() => token,
            () = events.closed() => break Some("the reply was interrupted".to_owned()),
            () = app.stopping.cancelled() => break Some("the reply was interrupted".to_owned()),
        };
        match token {
            Ok(Some(token)) => {
                said.push_str(&token);
                // To a client that has left, `closed` says so in the next round.
                let _ = events.send(data(json!({"token": token}))).await;
            }
            Ok(None) => break None,
            Err(error) => {
                eprintln!("warning: reply in thread {thread} failed: {}", error.0);
                break Some(error.0);
            }
        }
    };
    let stored = save_reply(&app, thread, said, failure.is_some()).await;
    let last = match (stored, failure) {
        (Ok(id), None) => data(json!({"message_id": id})).event("done"),
        (Ok(id), Some(failure)) => data(json!({"error": failure, "message_id": id})).event("error"),
        (Err(DatabaseUnavailable(reason)), _) => {
            eprintln!("error: the reply in thread {thread} could not be stored: {reason}");
            data(json!({"error": "the reply could not be stored", "message_id": null})).event("error")
        }
    };
    let _ = events.send(last).await;
}

fn data(value: Value) -> Event {
    Event::default().data(value.to_string())
}

/// Stores the reply and returns its id; a reply without a single word is not stored.
async fn save_reply(
    app: &App,
    thread: i64,
    content: String,
    interrupted: bool,
) -> Result<Option<i64>, DatabaseUnavailable> {
    if content.is_empty() {
        return Ok(None);
    }
    let insert = app.database.write(move |tx| insert_message(tx, thread, "assistant", &content, interrupted));
    insert.await.map(Some)
}

fn insert_message(
    tx: &Transaction,
    thread: i64,
    role: &str,
    content: &str,
    interrupted: bool,
) -> rusqlite::Result<i64> {
    let insert = format!(
        "INSERT INTO messages (thread_id, role, content, interrupted, created_at) VALUES (?1, ?2, ?3, ?4, {NOW})"
    );
    tx.execute(&insert, (thread, role, content, interrupted))?;
    Ok(tx.last_insert_rowid())
}

fn load_conversation(tx: &Transaction, thread: i64, message: String) -> rusqlite::Result<Conversation> {
    let count = "SELECT count(*) FROM messages WHERE thread_id = ?1";
    let earlier_messages = tx.query_row(count, [thread], |row| row.get(0))?;
    let newest_first = "SELECT role, content FROM messages WHERE thread_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut recent_turns = tx
        .prepare(newest_first)?
        .query_map((thread, RECENT_TURNS), |row| Ok(Turn { role: row.get(0)?, content: row.get(1)? }))?
        .collect::<Result<Vec<_>, _>>()?;
    recent_turns.reverse();
    Ok(Conversation { message, recent_turns, earlier_messages })
}
