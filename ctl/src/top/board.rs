//! The picture: a view drawn into any buffer of characters.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use config::admin::response::{ServiceStatus, SlotState, SlotStatus, Status};
use config::name::Slot;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::sample::{Pace, Place, Quantile};

/// As many of the last happenings are shown, and kept.
pub const RECENT: usize = 6;

/// A picture is no narrower than this where it is printed.
const WIDTH: u16 = 80;

/// All that is shown.
#[derive(Debug, Clone)]
pub struct View {
    /// Where the proxy is, as in `docker at ssh://production`.
    pub place: String,
    /// The moment of the picture.
    pub now: SystemTime,
    /// What the proxy says.
    pub status: Status,
    /// What happened on each slot since the look before; empty at the first.
    pub paces: BTreeMap<Place, Pace>,
    /// What the table has no column for: bakes, pauses, canaries, locks.
    pub notes: Vec<String>,
    /// What happened, the latest first.
    pub recent: Vec<String>,
    /// Why the numbers are old.
    pub trouble: Option<String>,
    /// So many rows of the table are above the first that is shown.
    pub scroll: usize,
}

/// Draws the view; what has no room is left out, and the last line says which keys there are.
pub fn draw(view: &View, area: Rect, buffer: &mut Buffer) {
    let rows = rows(view);
    let notes = notes(view);
    let recent = recent(view);
    // Notes may have a third, and the table has half at least: it can be scrolled.
    let room = area.height.saturating_sub(3);
    let high = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let notes_height = high(notes.len()).min(room / 3);
    let left = room - notes_height;
    let table_height = high(rows.len() + 1).min(left.saturating_sub(high(recent.len())).max(room / 2)).min(left);
    let parts = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(table_height),
        Constraint::Length(notes_height),
        Constraint::Length(high(recent.len()).min(left - table_height)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [head, middle, beside, below, _, foot] = parts.areas(area);
    Paragraph::new(heading(view)).render(head, buffer);
    table(view, rows, middle, buffer);
    Paragraph::new(notes).render(beside, buffer);
    Paragraph::new(recent).render(below, buffer);
    Paragraph::new("q quits, arrows scroll").style(Style::new().add_modifier(Modifier::DIM)).render(foot, buffer);
}

/// Returns the whole view as text, as wide as asked for and as high as it needs.
pub fn text(view: &View, width: u16) -> String {
    // So high that neither the third of the notes nor anything else binds.
    let height = 8 + 3 * (rows(view).len() + notes(view).len() + recent(view).len());
    let area = Rect::new(0, 0, width.max(WIDTH), u16::try_from(height).unwrap_or(u16::MAX));
    let mut buffer = Buffer::empty(area);
    draw(view, area, &mut buffer);
    let line = |y: u16| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    // The last line is for those who have keys.
    let mut text = (0..area.height - 1).map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned();
    text.push('\n');
    text
}

fn heading(view: &View) -> Line<'static> {
    let status = &view.status;
    let requests: f64 = view.paces.values().map(|pace| pace.requests).sum();
    let up = humantime::parse_rfc3339(&status.started).ok().and_then(|started| view.now.duration_since(started).ok());
    let mut text = format!("bgproxy {}", status.version.version);
    if let Some(up) = up {
        text += &format!(", up {}", short(up));
    }
    text += &format!(", {} connections", status.connections);
    if !view.paces.is_empty() {
        text += &format!(", {}/s", rate(requests));
    }
    // The only part whose length we don't know.
    text += &format!(", {}", view.place);
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn table(view: &View, rows: Vec<Row<'static>>, area: Rect, buffer: &mut Buffer) {
    if rows.is_empty() {
        return Paragraph::new("no services yet").render(area, buffer);
    }
    let shown = usize::from(area.height.saturating_sub(1));
    let skipped = view.scroll.min(rows.len().saturating_sub(shown));
    let right = |text: &'static str| Line::from(text).right_aligned();
    let heading = Row::new([
        Line::from("SERVICE"),
        Line::from("SLOT"),
        Line::from("STATE"),
        Line::from("HEALTH"),
        right("REQ/S"),
        right("P99"),
        right("ERR/S"),
        right("FLIGHT"),
        Line::from("IMAGE"),
    ]);
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Fill(3),
    ];
    let table = Table::new(rows.into_iter().skip(skipped), widths)
        .header(heading.style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(1);
    Widget::render(table, area, buffer);
}

/// Both slots of every service, but for those with nothing in them beside one with something.
fn rows(view: &View) -> Vec<Row<'static>> {
    let mut rows = Vec::new();
    for service in &view.status.services {
        let is_shown = |slot: &Slot| service.slots.get(*slot).state != SlotState::Empty;
        let mut slots: Vec<Slot> = Slot::BOTH.into_iter().filter(is_shown).collect();
        if slots.is_empty() {
            slots.push(Slot::Blue);
        }
        for (index, slot) in slots.into_iter().enumerate() {
            rows.push(row(view, service, slot, index == 0));
        }
    }
    rows
}

fn row(view: &View, service: &ServiceStatus, slot: Slot, is_first: bool) -> Row<'static> {
    let status = service.slots.get(slot);
    let pace = view.paces.get(&(service.name.clone(), slot)).filter(|_| status.state != SlotState::Empty);
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let errors = pace.map_or(0.0, |pace| pace.errors);
    let alarm = if errors > 0.0 { Style::new().fg(Color::Red).add_modifier(Modifier::BOLD) } else { Style::new() };
    Row::new([
        Cell::from(if is_first { service.name.to_string() } else { String::new() }),
        Cell::from(slot.to_string()),
        Cell::from(Span::styled(status.state.as_str(), colour(status.state))),
        Cell::from(health(status)),
        right(pace.map_or_else(dash, |pace| rate(pace.requests))),
        right(pace.and_then(|pace| pace.p99).map_or_else(dash, quantile)),
        right(pace.map_or_else(dash, |pace| rate(pace.errors))).style(alarm),
        right(status.in_flight.to_string()),
        Cell::from(status.image.as_deref().map_or_else(dash, image)),
    ])
}

fn notes(view: &View) -> Vec<Line<'static>> {
    let yellow = Style::new().fg(Color::Yellow);
    let trouble = view.trouble.iter().map(|text| {
        let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        Line::styled(text.clone(), alarm)
    });
    let warnings = view.status.warnings.iter().map(|text| Line::styled(format!("warning: {text}"), yellow));
    let notes = view.notes.iter().map(|text| Line::from(text.clone()));
    let mut lines: Vec<Line<'static>> = trouble.chain(warnings).chain(notes).collect();
    if !lines.is_empty() {
        lines.insert(0, Line::default());
    }
    lines
}

fn recent(view: &View) -> Vec<Line<'static>> {
    if view.recent.is_empty() {
        return Vec::new();
    }
    let dim = Style::new().add_modifier(Modifier::DIM);
    let heading = [Line::default(), Line::styled("LAST", dim)];
    heading.into_iter().chain(view.recent.iter().take(RECENT).map(|text| Line::from(text.clone()))).collect()
}

fn dash() -> String {
    "-".to_owned()
}

fn colour(state: SlotState) -> Style {
    match state {
        SlotState::Live => Style::new().fg(Color::Green).add_modifier(Modifier::BOLD),
        SlotState::Starting | SlotState::Ready | SlotState::Draining => Style::new().fg(Color::Yellow),
        SlotState::Unhealthy => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        SlotState::Empty | SlotState::Warm => Style::new().add_modifier(Modifier::DIM),
    }
}

fn health(slot: &SlotStatus) -> String {
    if slot.endpoints.is_empty() {
        return dash();
    }
    let healthy = slot.endpoints.iter().filter(|endpoint| endpoint.healthy).count();
    format!("{healthy}/{}", slot.endpoints.len())
}

/// Writes a number of a second: a slow one with its tenths.
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 999_999.5 => format!("{rate:.0}"),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

fn quantile(quantile: Quantile) -> String {
    match quantile {
        Quantile::About(took) => milliseconds(took),
        Quantile::Over(took) => format!(">{}", milliseconds(took)),
    }
}

fn milliseconds(took: Duration) -> String {
    match took.as_secs_f64() * 1000.0 {
        slow if slow >= 1000.0 => format!("{:.1}s", slow / 1000.0),
        middle if middle >= 10.0 => format!("{middle:.0}ms"),
        fast => format!("{fast:.1}ms"),
    }
}

/// Writes a time by its two largest units.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Drops the registry and folders of an image's name: what is left tells the versions apart.
fn image(reference: &str) -> String {
    reference.rsplit('/').next().unwrap_or(reference).to_owned()
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
