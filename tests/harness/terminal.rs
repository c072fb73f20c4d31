//! A terminal of the test's own, with a program on it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};

use crate::eventually;

/// A program on a terminal of 80 by 24.
pub struct Terminal {
    child: Child,
    /// Our end.
    keys: File,
    /// The program's end, so that its modes can be looked at.
    end: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program.
    ///
    /// # Panics
    /// Where there is no terminal to be had, or the program can't be started.
    pub fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let end = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&end, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&end).unwrap();
        let copy = || end.try_clone().unwrap();
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm-256color").kill_on_drop(true);
        let child = command.spawn().unwrap();
        let keys = File::from(ours);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, sink) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody holds the other end any more.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                sink.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keys, end, before, shown }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Returns what was written to it, with all that moves the cursor.
    fn written(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until a text stands on it.
    pub async fn shows(&self, text: &str) {
        let is_shown = async || picture(&self.written()).contains(text).then_some(());
        eventually(&format!("`{text}` is shown"), is_shown).await;
    }

    /// Waits for the program's end, and returns its exit code and all that it wrote.
    ///
    /// # Panics
    /// Where it goes on, or left the terminal otherwise than it found it.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let code = eventually("the program ends", async || self.child.try_wait().unwrap()).await.code();
        // Its last words may still be on their way.
        for (what, code) in [("the screen is given back", "\u{1b}[?1049l"), ("the cursor is shown", "\u{1b}[?25h")] {
            eventually(what, async || self.written().contains(code).then_some(())).await;
        }
        let now = tcgetattr(&self.end).unwrap();
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
        (code, self.written())
    }
}

/// Draws what was written: what sets the cursor and what clears is followed, colours are not.
fn picture(written: &str) -> String {
    let mut cells = vec![vec![' '; 80]; 24];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' if rest.clone().next() == Some('[') => {
                rest.next();
                let mut numbers = String::new();
                let command = rest.find(|c| {
                    let is_end = c.is_ascii_alphabetic();
                    numbers.extend((!is_end).then_some(*c));
                    is_end
                });
                match command {
                    Some('H') => {
                        let mut at = numbers.split(';').map(|number| number.parse::<usize>().unwrap_or(1) - 1);
                        (row, column) = (at.next().unwrap_or(0), at.next().unwrap_or(0));
                    }
                    Some('J') => cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            character => {
                if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = character;
                }
                column += 1;
            }
        }
    }
    cells.into_iter().map(|row| row.into_iter().collect::<String>() + "\n").collect()
}
