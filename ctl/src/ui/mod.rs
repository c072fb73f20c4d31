//! The one printer: stdout carries data, stderr talks.

mod table;

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub use self::table::Table;
use crate::error::Error;
use crate::way::Way;

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tone {
    /// Events and documents as JSON on stdout.
    pub json: bool,
    /// No talk but warnings and errors.
    pub quiet: bool,
    /// Also what is usually not worth a line.
    pub verbose: bool,
}

/// Where everything that a person or a program reads goes out.
pub struct Ui {
    inner: Arc<Mutex<Inner>>,
    /// Whose words these are, where several speak at once.
    label: Option<String>,
    /// Of which host its events are.
    host: Option<String>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether stderr is a terminal: then a progress line is written over the one before.
    in_place: bool,
    /// Whether a whole screen may be drawn: stdout and stdin are a terminal.
    screen: bool,
    colour: bool,
    tone: Tone,
    /// What commands that are suggested need to lead back here.
    way: Way,
    /// The progress line that stands at the end of stderr now.
    progress: Option<String>,
}

impl Ui {
    /// Returns the printer of the real program.
    pub fn terminal() -> Self {
        let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        Self::new(Inner {
            out: Box::new(std::io::stdout()),
            err: Box::new(std::io::stderr()),
            in_place: std::io::stderr().is_terminal(),
            screen: std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
            colour,
            tone: Tone::default(),
            way: Way::default(),
            progress: None,
        })
    }

    /// Returns a printer that keeps what it is given, for tests and for commands that run others.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let ui = Self::new(Inner {
            out: Box::new(captured.out.clone()),
            err: Box::new(captured.err.clone()),
            in_place: false,
            screen: false,
            colour: false,
            tone: Tone::default(),
            way: Way::default(),
            progress: None,
        });
        (ui, captured)
    }

    fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), label: None, host: None }
    }

    /// Returns a printer to the same places that marks what it prints with a host.
    pub fn labelled(&self, host: &str) -> Self {
        self.labelled_as(host, Some(host))
    }

    /// Returns one that marks talk with a label, and events with the host alone: whose service they are they say themselves.
    pub fn labelled_as(&self, label: &str, host: Option<&str>) -> Self {
        let (label, host) = (Some(label.to_owned()), host.map(str::to_owned));
        Self { inner: Arc::clone(&self.inner), label, host }
    }

    fn marked<'l>(&self, line: &'l str) -> Cow<'l, str> {
        self.label.as_ref().map_or(Cow::Borrowed(line), |label| format!("{label}: {line}").into())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the tone, once the arguments are known.
    pub fn set_tone(&self, tone: Tone) {
        self.lock().tone = tone;
    }

    /// Sets where the run works, once the arguments are known.
    pub fn set_way(&self, way: Way) {
        self.lock().way = way;
    }

    /// Returns talk in which every suggested command leads to where the run works.
    fn complete<'l>(&self, line: &'l str) -> Cow<'l, str> {
        if !line.contains("`bgctl ") {
            return line.into();
        }
        let way = self.lock().way.clone();
        match &self.label {
            // Its label is the one of several hosts that it speaks of.
            Some(host) => way.to(host).complete(line),
            None => way.complete(line),
        }
    }

    /// Returns the tone.
    pub fn tone(&self) -> Tone {
        self.lock().tone
    }

    /// Tells whether progress is written over the line before, so that much of it costs nothing.
    pub fn is_live(&self) -> bool {
        self.lock().in_place && self.label.is_none()
    }

    /// Tells whether there is a terminal to draw a whole screen on and to read keys from.
    pub fn has_screen(&self) -> bool {
        self.lock().screen
    }

    /// Prints a line of data.
    pub fn data(&self, line: &str) {
        let line = self.marked(line);
        self.lock().out_line(&line);
    }

    /// Prints text of data that brings its own line ends.
    pub fn text(&self, text: &str) {
        let mut inner = self.lock();
        inner.end_progress();
        // A reader that went away (`bgctl logs | head`) is no failure of ours.
        let _gone = inner.out.write_all(text.as_bytes()).and_then(|()| inner.out.flush());
    }

    /// Prints a JSON document, indented for people.
    pub fn document(&self, value: &impl Serialize) {
        self.lock().out_line(&serde_json::to_string_pretty(value).expect("our own types are JSON"));
    }

    /// Prints a JSON event in one line, in the JSON tone only.
    pub fn event(&self, value: &impl Serialize) {
        let mut inner = self.lock();
        if inner.tone.json {
            let Some(host) = &self.host else {
                return inner.out_line(&serde_json::to_string(value).expect("our own types are JSON"));
            };
            let mut value = serde_json::to_value(value).expect("our own types are JSON");
            if let Some(fields) = value.as_object_mut() {
                fields.insert("host".to_owned(), host.clone().into());
            }
            inner.out_line(&value.to_string());
        }
    }

    /// Says what happens.
    pub fn say(&self, line: &str) {
        let line = self.complete(line);
        let mut inner = self.lock();
        if !inner.tone.quiet {
            inner.err_line(Style::new(), &self.marked(&line));
        }
    }

    /// Says what matters most, in bold.
    pub fn announce(&self, line: &str) {
        let mut inner = self.lock();
        if !inner.tone.quiet {
            inner.err_line(AnsiColor::Green.on_default().bold(), &self.marked(line));
        }
    }

    /// Says what only `-v` wants to know.
    pub fn detail(&self, line: &str) {
        let mut inner = self.lock();
        if inner.tone.verbose {
            inner.err_line(Style::new().dimmed(), &self.marked(line));
        }
    }

    /// Says what someone should look at; never silenced.
    pub fn warn(&self, line: &str) {
        let line = self.complete(line);
        let line = self.marked(&line);
        self.lock().err_line(AnsiColor::Yellow.on_default(), &format!("warning: {line}"));
    }

    /// Says how far a wait has got: over the line before on a terminal, once for each new text in a log.
    pub fn progress(&self, line: &str) {
        let line = &*self.marked(line);
        let mut inner = self.lock();
        if inner.tone.quiet || inner.progress.as_deref() == Some(line) {
            return;
        }
        if inner.in_place && self.label.is_none() {
            let _gone = write!(inner.err, "\r\x1b[K{line}").and_then(|()| inner.err.flush());
        } else {
            inner.err_line(Style::new(), line);
        }
        inner.progress = Some(line.to_owned());
    }

    /// Says why the command failed.
    pub fn error(&self, error: &Error) {
        let message = self.complete(&error.message);
        let details: Vec<Cow<'_, str>> = error.details.iter().map(|line| self.complete(line)).collect();
        let hints: Vec<Cow<'_, str>> = error.hints.iter().map(|hint| self.complete(hint)).collect();
        let mut inner = self.lock();
        inner.err_line(AnsiColor::Red.on_default().bold(), &format!("error: {}", self.marked(&message)));
        for line in details {
            inner.err_line(Style::new(), &format!("  {line}"));
        }
        for hint in hints {
            inner.err_line(AnsiColor::Cyan.on_default(), &format!("hint: {hint}"));
        }
    }
}

impl Inner {
    fn out_line(&mut self, line: &str) {
        self.end_progress();
        // As in `text`: a reader that went away is no failure.
        let _gone = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    fn err_line(&mut self, style: Style, line: &str) {
        self.end_progress();
        let written =
            if self.colour { writeln!(self.err, "{style}{line}{style:#}") } else { writeln!(self.err, "{line}") };
        let _gone = written.and_then(|()| self.err.flush());
    }

    fn end_progress(&mut self) {
        if self.progress.take().is_some() && self.in_place {
            let _gone = write!(self.err, "\r\x1b[K");
        }
    }
}

/// What a captured printer was given.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    out: Buffer,
    err: Buffer,
}

impl Captured {
    /// Returns what went to stdout.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// Returns what went to stderr.
    pub fn stderr(&self) -> String {
        self.err.text()
    }
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_to_stdout_and_talk_to_stderr() {
        let (ui, captured) = Ui::captured();
        ui.data("data");
        ui.say("talk");
        ui.progress("waiting");
        ui.progress("waiting");
        ui.warn("look");
        assert_eq!(captured.stdout(), "data\n");
        assert_eq!(captured.stderr(), "talk\nwaiting\nwarning: look\n");
    }

    #[test]
    fn quiet_silences_talk_but_neither_warnings_nor_errors() {
        let (ui, captured) = Ui::captured();
        ui.set_tone(Tone { quiet: true, ..Tone::default() });
        ui.say("talk");
        ui.progress("waiting");
        ui.warn("look");
        ui.error(&Error::usage("no").detail("more").hint("so"));
        assert_eq!(captured.stderr(), "warning: look\nerror: no\n  more\nhint: so\n");
    }

    #[test]
    fn several_that_speak_at_once_are_told_apart() {
        let (ui, captured) = Ui::captured();
        let shop = ui.labelled("web1");
        shop.say("talk");
        shop.warn("look");
        shop.data("data");
        ui.set_tone(Tone { json: true, ..Tone::default() });
        shop.event(&serde_json::json!({"event": "b"}));
        assert_eq!(captured.stderr(), "web1: talk\nwarning: web1: look\n");
        ui.labelled_as("worker", None).event(&serde_json::json!({"event": "c"}));
        let events = "{\"event\":\"b\",\"host\":\"web1\"}\n{\"event\":\"c\"}\n";
        assert_eq!(captured.stdout(), format!("web1: data\n{events}"));
    }

    #[test]
    fn a_suggested_command_leads_to_the_host_that_is_spoken_of() {
        let (ui, captured) = Ui::captured();
        let global = crate::global::Global { host: Some("web1,web2".to_owned()), ..crate::global::Global::default() };
        ui.set_way(Way::of(&global));
        ui.labelled("web2").error(&Error::usage("no proxy").hint("`bgctl up` starts one"));
        ui.warn("old: `bgctl up --upgrade`");
        let said = "error: web2: no proxy\nhint: `bgctl up --host web2` starts one\n\
            warning: old: `bgctl up --upgrade --host web1,web2`\n";
        assert_eq!(captured.stderr(), said);
    }

    #[test]
    fn events_are_printed_in_the_json_tone_only() {
        let (ui, captured) = Ui::captured();
        ui.event(&serde_json::json!({"event": "a"}));
        ui.set_tone(Tone { json: true, ..Tone::default() });
        ui.event(&serde_json::json!({"event": "b"}));
        assert_eq!(captured.stdout(), "{\"event\":\"b\"}\n");
    }
}
