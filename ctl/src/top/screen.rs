//! The terminal while the view is on it.

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::board::{self, View};

/// How often the reader of keys looks whether anybody still wants them.
const GLANCE: Duration = Duration::from_millis(200);

/// What whoever looks wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To leave.
    Quit,
    /// To leave by Ctrl-C, which is no signal while the terminal is ours.
    Interrupt,
    /// To see rows further up.
    Up,
    /// To see rows further down.
    Down,
    /// A new picture: the terminal has another size.
    Redraw,
}

/// The terminal; it is as it was before when this is dropped, and before a panic says its words.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Those of the terminal; it is then as it was before.
    pub fn enter() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                drop(ratatui::try_restore());
                Err(error)
            }
        }
    }

    /// Draws the view.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        self.terminal.draw(|frame| board::draw(view, frame.area(), frame.buffer_mut())).map(drop)
    }

    /// Reads keys, on a thread of its own, until the receiver is dropped or the terminal is gone.
    pub fn wishes(&self) -> mpsc::Receiver<Wish> {
        let (send, receive) = mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            while !send.is_closed() {
                let wish = match event::poll(GLANCE) {
                    Ok(false) => continue,
                    Ok(true) => event::read().map_or(Some(Wish::Quit), |event| wish(&event)),
                    Err(_) => Some(Wish::Quit),
                };
                let Some(wish) = wish else { continue };
                if send.blocking_send(wish).is_err() || wish == Wish::Quit {
                    return;
                }
            }
        });
        receive
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone can't be restored, and nobody sees it.
        drop(self.terminal.show_cursor());
        drop(ratatui::try_restore());
    }
}

fn wish(event: &Event) -> Option<Wish> {
    let key = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        Event::Resize(..) => return Some(Wish::Redraw),
        Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => return None,
    };
    match key {
        KeyEvent { code: KeyCode::Char('c'), modifiers, .. } if modifiers.contains(KeyModifiers::CONTROL) => {
            Some(Wish::Interrupt)
        }
        KeyEvent { code: KeyCode::Char('q') | KeyCode::Esc, .. } => Some(Wish::Quit),
        KeyEvent { code: KeyCode::Up | KeyCode::Char('k'), .. } => Some(Wish::Up),
        KeyEvent { code: KeyCode::Down | KeyCode::Char('j'), .. } => Some(Wish::Down),
        _ => None,
    }
}
