//! Shows a deployment while it happens: a spinner with finished steps above it, plain lines, or JSON.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Instant;

use trackbed_api::{Event, LogLine};

use crate::human;
use crate::output::{Ink, Output, ResultLost};

/// How a deployment is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Lines of talk, with a spinner when somebody looks.
    Lines,
    /// One JSON object per event.
    Json,
}

/// A deployment as it is shown.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    style: Style,
    begun: Instant,
    /// When steps started, by the box's clock.
    started_at: RefCell<BTreeMap<String, i64>>,
    /// The step under way, and since when by our clock.
    current: RefCell<Option<(String, Instant)>>,
    frame: Cell<usize>,
}

impl<'a> Progress<'a> {
    /// Begins to show.
    pub(crate) fn new(output: &'a Output, style: Style) -> Self {
        Self {
            output,
            style,
            begun: Instant::now(),
            started_at: RefCell::default(),
            current: RefCell::default(),
            frame: Cell::new(0),
        }
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &Event) -> Result<(), ResultLost> {
        if self.style == Style::Json {
            return self.output.json(event);
        }
        let mut started_at = self.started_at.borrow_mut();
        match event.kind.as_str() {
            "started" => {
                started_at.insert(event.step.clone(), event.at);
                *self.current.borrow_mut() = Some((event.step.clone(), Instant::now()));
            }
            "done" | "failed" => *self.current.borrow_mut() = None,
            _ => {}
        }
        let since = started_at.get(&event.step).copied();
        let shown = if self.output.talk_is_seen { Shown::Terminal } else { Shown::Plain };
        if let Some((ink, mark, rest)) = event_line(event, since, shown) {
            self.output.talk(format!("{} {rest}", self.output.ink_talk(ink, mark)).trim_end());
        }
        drop(started_at);
        self.spin();
        Ok(())
    }

    /// Shows a line of the build.
    pub(crate) fn build_line(&self, line: &LogLine) {
        if self.style == Style::Lines {
            // A progress bar writes over itself: its last state counts.
            let last = line.text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
            self.output.talk(self.output.ink_talk(Ink::Dim, &format!("  | {}", human::plain(last))));
            self.spin();
        }
    }

    /// Says something aside.
    pub(crate) fn note(&self, text: &str) {
        if self.style == Style::Lines {
            self.output.talk(text);
        }
    }

    /// Moves the spinner on.
    pub(crate) fn tick(&self) {
        self.frame.set(self.frame.get() + 1);
        self.spin();
    }

    fn spin(&self) {
        if self.style == Style::Json || !self.output.talk_is_seen {
            return;
        }
        const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        let current = self.current.borrow();
        let (step, since) = match current.as_ref() {
            Some((step, since)) => (step.as_str(), *since),
            None => ("waiting", self.begun),
        };
        let ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let frame = self.output.ink_talk(Ink::Good, FRAMES[self.frame.get() % FRAMES.len()]);
        self.output.status(format!("{frame} {step} {}", human::duration(ms)));
    }
}

/// To whom an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// A spinner says what is under way.
    Terminal,
    /// Only lines do.
    Plain,
}

/// Puts an event in a line: how it looks, its mark, and the text behind it. A failure is told once, at the end.
fn event_line(event: &Event, started_at: Option<i64>, shown: Shown) -> Option<(Ink, &'static str, String)> {
    let message = human::plain(event.message.trim());
    let says_more = !message.is_empty() && message != event.step;
    match event.kind.as_str() {
        "started" if shown == Shown::Terminal => None,
        "started" if says_more => Some((Ink::Dim, "…", format!("{}: {message}", event.step))),
        "started" => Some((Ink::Dim, "…", event.step.clone())),
        "done" => {
            let took = started_at.map(|since| format!(" {}", human::duration(event.at - since)));
            let more = if says_more { format!("  {message}") } else { String::new() };
            Some((Ink::Good, "✓", format!("{}{}{more}", event.step, took.unwrap_or_default())))
        }
        "warning" => Some((Ink::Odd, "!", message)),
        "failed" => None,
        _ => (!message.is_empty()).then_some((Ink::Dim, "·", message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, message: &str, shown: Shown) -> Option<String> {
        let event = Event {
            sequence: 1,
            at: 2200,
            step: "build".to_owned(),
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        event_line(&event, Some(1000), shown).map(|(_, mark, rest)| format!("{mark} {rest}"))
    }

    #[test]
    fn events_become_lines() {
        assert_eq!(line("done", "", Shown::Terminal).unwrap(), "✓ build 1.2 s");
        assert_eq!(line("done", "3 layers reused", Shown::Plain).unwrap(), "✓ build 1.2 s  3 layers reused");
        assert_eq!(line("started", "", Shown::Terminal), None);
        assert_eq!(line("started", "build", Shown::Plain).unwrap(), "… build");
        assert_eq!(line("warning", "odd\x1b[2J", Shown::Plain).unwrap(), "! odd\\u{1b}[2J");
        assert_eq!(line("note", "reading", Shown::Plain).unwrap(), "· reading");
        assert_eq!(line("failed", "no", Shown::Plain), None);
    }
}
