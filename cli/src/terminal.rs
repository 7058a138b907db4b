//! The terminal as a screen, until it is dropped; and what asks a program in it to end.

use std::io::{self, Stdout, stdout};
use std::sync::mpsc;
use std::thread;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

/// The terminal's alternate screen without a cursor. Dropping it leaves the terminal as it was.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    keys: bool,
}

impl Screen {
    /// `keys`: what is typed is not shown, and comes as events.
    pub(crate) fn enter(keys: bool) -> io::Result<Screen> {
        if keys {
            enable_raw_mode()?;
        }
        let entered = execute!(stdout(), EnterAlternateScreen, Hide);
        // Some terminals do not say how large they are.
        let viewport = match size() {
            Ok((width, height)) if width > 0 && height > 0 => Viewport::Fullscreen,
            _ => Viewport::Fixed(Rect::new(0, 0, 80, 24)),
        };
        let backend = CrosstermBackend::new(stdout());
        let options = TerminalOptions { viewport };
        let terminal = entered.and_then(|()| Terminal::with_options(backend, options));
        match terminal {
            Ok(terminal) => Ok(Screen { terminal, keys }),
            Err(error) => {
                leave(keys);
                Err(error)
            }
        }
    }

    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave(self.keys);
    }
}

fn leave(keys: bool) {
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
    if keys {
        let _ = disable_raw_mode();
    }
}

/// Receives when the user or the system asks the process to end.
pub(crate) fn interruption() -> io::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (sender, receiver) = mpsc::channel();
    // In a thread of its own, because the caller blocks.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(signal());
            let _ = sender.send(());
        })?;
    Ok(receiver)
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).ok();
    let mut hangup = listen(SignalKind::hangup());
    let mut terminate = listen(SignalKind::terminate());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        Some(_) = async { hangup.as_mut()?.recv().await } => {}
        Some(_) = async { terminate.as_mut()?.recv().await } => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}
