//! Asks and draws: once, or again and again.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tokio::time::Instant;

use super::details;
use super::draw;
use super::view::{View, Wish};
use crate::failure::{Failure, chain};
use crate::status::{Asker, Details, Problem, Status};
use crate::terminal::{Screen, interruption};
use crate::time::later;
use crate::{stdout, table};

/// How soon a key is seen to, and an answer.
const TICK: Duration = Duration::from_millis(50);

/// The server looks at its connections about once a second, and rates need two looks.
const SECOND_LOOK: Duration = Duration::from_millis(1_100);

/// The width without a terminal.
const WIDTH: u16 = 120;

/// Prints what would be on the screen, with all rows.
pub(super) fn once(
    asker: &Asker,
    interval: Duration,
    connection: Option<u64>,
) -> Result<(), Failure> {
    if let Some(id) = connection {
        let details = asker.connection(id).map_err(Failure::because)?;
        let lines = details::lines(id, Some(&details));
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        return stdout::print(&lines.join("\n"));
    }
    let mut view = View::default();
    view.take(asker.status().map_err(Failure::because)?);
    thread::sleep(interval.max(SECOND_LOOK));
    view.take(asker.status().map_err(Failure::because)?);
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    let height = draw::height(&view, asker.base());
    let terminal = Terminal::new(TestBackend::new(width, height));
    let Ok(mut terminal) = terminal;
    let Ok(_) = terminal.draw(|frame| draw::screen(frame, &view, asker.base()));
    let text = table::lines(terminal.backend().buffer());
    // The keys are of no use there.
    let rows = text
        .trim_end()
        .rsplit_once('\n')
        .map_or("", |(rows, _)| rows);
    stdout::print(rows.trim_end())
}

/// What the asking thread brings.
enum Answer {
    Status(Result<Box<Status>, Problem>),
    Details(u64, Result<Box<Details>, Problem>),
}

/// Asks in a thread of its own, so that keys are seen to meanwhile.
fn asking(asker: Asker) -> io::Result<(Sender<Option<u64>>, Receiver<Answer>)> {
    let (ask, questions) = mpsc::channel();
    let (tell, answers) = mpsc::channel();
    thread::Builder::new()
        .name("asking".to_owned())
        .spawn(move || {
            for question in questions {
                let answer = match question {
                    None => Answer::Status(asker.status().map(Box::new)),
                    Some(id) => Answer::Details(id, asker.connection(id).map(Box::new)),
                };
                if tell.send(answer).is_err() {
                    return;
                }
            }
        })?;
    Ok((ask, answers))
}

/// Shows the screen until the user quits.
pub(super) fn live(
    asker: Asker,
    interval: Duration,
    connection: Option<u64>,
) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; use --once or --json in a pipe",
        ));
    }
    let mut view = View::default();
    // What is wrong from the beginning is told without a screen.
    view.take(asker.status().map_err(Failure::because)?);
    if let Some(id) = connection {
        view.details = Some((id, None));
    }
    let ended = show(asker, interval, &mut view);
    ended.map_err(|error| Failure::work(format_args!("the terminal failed: {error}")))
}

fn show(asker: Asker, interval: Duration, view: &mut View) -> io::Result<()> {
    let interrupted = interruption()?;
    let base = asker.base().to_owned();
    let (ask, answers) = asking(asker)?;
    let mut screen = Screen::enter(true)?;
    let mut asked = 0_u32;
    let mut next = Instant::now();
    let mut changed = true;
    loop {
        if asked == 0 && Instant::now() >= next {
            next = later(Instant::now(), interval);
            let _ = ask.send(None);
            asked += 1;
            if let Some((id, _)) = view.details {
                let _ = ask.send(Some(id));
                asked += 1;
            }
        }
        if changed {
            screen.draw(|frame| draw::screen(frame, view, &base))?;
        }
        changed = event::poll(TICK)?;
        if changed {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match view.key(key) {
                    Wish::Quit => return Ok(()),
                    Wish::Details(id) => {
                        let _ = ask.send(Some(id));
                        asked += 1;
                    }
                    Wish::Nothing => {}
                },
                _ => {}
            }
        }
        while let Ok(answer) = answers.try_recv() {
            asked = asked.saturating_sub(1);
            take(view, answer);
            changed = true;
        }
        if interrupted.try_recv() != Err(TryRecvError::Empty) {
            return Ok(());
        }
    }
}

fn take(view: &mut View, answer: Answer) {
    match answer {
        Answer::Status(Ok(status)) => view.take(*status),
        Answer::Details(id, Ok(details)) => view.take_details(id, *details),
        Answer::Status(Err(why)) | Answer::Details(_, Err(why)) => {
            view.problem = Some(chain(&why));
        }
    }
}
