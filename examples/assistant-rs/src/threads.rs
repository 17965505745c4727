//! Threads: create one, list them, read one with its messages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde::Serialize;

use crate::App;
use crate::answers::{self, Body, Refusal};
use crate::auth::User;
use crate::database::{NOW, TOLD_CREATED_AT};

const TITLE_MAX_CHARS: usize = 200;

#[derive(Serialize)]
pub struct Thread {
    id: i64,
    title: String,
    created_at: String,
}

#[derive(Serialize)]
pub struct Message {
    id: i64,
    role: String,
    content: String,
    created_at: String,
    /// Shown only when true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
}

#[derive(Serialize)]
pub struct ThreadWithMessages {
    #[serde(flatten)]
    thread: Thread,
    messages: Vec<Message>,
}

pub async fn create(
    State(app): State<Arc<App>>,
    user: User,
    body: Body,
) -> Result<(StatusCode, Json<Thread>), Refusal> {
    let title = answers::text_of(body, "title")?;
    if title.chars().count() > TITLE_MAX_CHARS {
        let message = format!("String should have at most {TITLE_MAX_CHARS} characters");
        return Err(Refusal::unfit("string_too_long", Some("title"), message));
    }
    let insert = format!(
        "INSERT INTO threads (owner, title, created_at) VALUES (?1, ?2, {NOW})
         RETURNING id, title, {TOLD_CREATED_AT}"
    );
    let thread = app.database.write(move |tx| tx.query_row(&insert, (user.id, title), thread_of)).await?;
    Ok((StatusCode::CREATED, Json(thread)))
}

pub async fn list(State(app): State<Arc<App>>, user: User) -> Result<Json<Vec<Thread>>, Refusal> {
    let newest_first =
        format!("SELECT id, title, {TOLD_CREATED_AT} FROM threads WHERE owner = ?1 ORDER BY id DESC");
    let threads = app.database.read(move |tx| {
        tx.prepare(&newest_first)?.query_map([user.id], thread_of)?.collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(threads.await?))
}

pub async fn read(
    State(app): State<Arc<App>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<ThreadWithMessages>, Refusal> {
    let id = parse_id(&id)?;
    let oldest_first = format!(
        "SELECT id, role, content, {TOLD_CREATED_AT}, interrupted FROM messages WHERE thread_id = ?1 ORDER BY id"
    );
    let found = app.database.read(move |tx| {
        let Some(thread) = find(tx, id, &user)? else { return Ok(None) };
        let messages =
            tx.prepare(&oldest_first)?.query_map([id], message_of)?.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(ThreadWithMessages { thread, messages }))
    });
    found.await?.map(Json).ok_or_else(Refusal::no_such_thread)
}

/// Finds the user's thread; someone else's is as unknown as one that never was.
pub fn find(tx: &Transaction, id: i64, user: &User) -> rusqlite::Result<Option<Thread>> {
    let query = format!("SELECT id, title, {TOLD_CREATED_AT} FROM threads WHERE id = ?1 AND owner = ?2");
    tx.query_row(&query, (id, &user.id), thread_of).optional()
}

/// Reads the id in a path. What is no number, or too large for one, names no thread.
pub fn parse_id(text: &str) -> Result<i64, Refusal> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(Refusal::no_such_thread)
}

fn thread_of(row: &Row) -> rusqlite::Result<Thread> {
    Ok(Thread { id: row.get(0)?, title: row.get(1)?, created_at: row.get(2)? })
}

fn message_of(row: &Row) -> rusqlite::Result<Message> {
    let (id, role, content) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Message { id, role, content, created_at: row.get(3)?, interrupted: row.get(4)? })
}
