//! A chat room: each message goes to all.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{
        many,
        stamps::{look_at, now, stamped},
        words::{hear, say},
    },
    CLIENT_SWITCHES, CLIENT_WAKE_UPS, SERVER_SWITCHES, SERVER_WAKE_UPS,
};
use crate::{
    Result,
    args::Measure,
    engine::{Batching, Link, Rx, Tx, ended},
    job::Report,
    latency::Latencies,
    meter::Meter,
    payload::{Tally, is_word, word},
    shared::Shared,
    table::Column,
};

const SIZE: usize = 200;
/// What the room's task has not yet sent on.
const QUEUE_MESSAGES: usize = 1024;
/// Each member says two a second.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) members: u32,
    /// From each member.
    messages: u32,
    period: Duration,
}

impl Plan {
    fn said(&self) -> u64 {
        u64::from(self.members) * u64::from(self.messages)
    }

    fn deliveries(&self) -> u64 {
        self.said() * u64::from(self.members)
    }
}

pub(super) const COLUMNS: &[Column] = &[
    Column::new("p50 µs", 0, |run| run.client.figure("p50_us"))
        .with_ratio()
        .with_pairs(),
    Column::new("p99 µs", 0, |run| run.client.figure("p99_us"))
        .with_ratio()
        .with_pairs(),
    Column::new("server ns", 0, |run| run.server.cpu_ns_per_message()).with_ratio(),
    Column::new("client ns", 0, |run| run.client.cpu_ns_per_message()).with_ratio(),
    CLIENT_SWITCHES,
    CLIENT_WAKE_UPS,
    SERVER_SWITCHES,
    SERVER_WAKE_UPS,
    Column::new("client MiB", 1, |run| run.client.peak_mib()),
    Column::new("server MiB", 1, |run| run.server.peak_mib()),
];

pub(super) fn case(args: &Measure) -> (String, Plan) {
    let plan = match args.quick {
        true => Plan {
            members: 10,
            messages: 4,
            period: Duration::from_millis(20),
        },
        false => Plan {
            members: 200,
            // The first seconds of a room tell nothing.
            messages: (args.seconds.max(2.0) / PERIOD.as_secs_f64()) as u32,
            period: PERIOD,
        },
    };
    let title = format!(
        "chat room of {}, times and switches a delivery",
        plan.members
    );
    (title, plan)
}

/// Each connection has a task that reads, and what is usual before its writer; one task more is the
/// room.
pub(super) async fn server<L: Link>(
    links: Vec<L>,
    batching: Batching,
    plan: Plan,
) -> Result<Report> {
    let open = Meter::prepare();
    let (tell, mut said) = mpsc::channel(QUEUE_MESSAGES);
    let mut members = Vec::new();
    let mut reading = JoinSet::new();
    for link in links {
        let (member, rx) = link.share(batching);
        members.push(member);
        reading.spawn(listen(rx, tell.clone()));
    }
    drop(tell);
    let mut room = Room { members, words: 0 };
    // All are there.
    room.until_words(&mut said, plan.members).await?;
    let meter = open.start();
    room.send(&word()).await?;
    // All have received everything.
    room.until_words(&mut said, 2 * plan.members).await?;
    let report = meter.stop(plan.deliveries());
    room.send(&word()).await?;
    // An end before they have heard that would be a loss to them.
    let _ = timeout(Duration::from_secs(1), reading.join_all()).await;
    Ok(report)
}

/// Passes on what a member says, until it leaves.
async fn listen(mut rx: impl Rx, room: mpsc::Sender<Bytes>) {
    loop {
        let mut heard = Vec::new();
        let mut take = |message: &[u8]| heard.push(Bytes::copy_from_slice(message));
        if rx.receive(&mut take).await.is_err() {
            return;
        }
        for message in heard {
            if room.send(message).await.is_err() {
                return;
            }
        }
    }
}

struct Room {
    members: Vec<Shared>,
    words: u32,
}

impl Room {
    /// Sends on what is said until so many words have come.
    async fn until_words(&mut self, said: &mut mpsc::Receiver<Bytes>, words: u32) -> Result<()> {
        while self.words < words {
            let message = said.recv().await.ok_or_else(ended)?;
            match is_word(&message) {
                true => self.words += 1,
                false => self.send(&message).await?,
            }
        }
        Ok(())
    }

    async fn send(&self, message: &Bytes) -> Result<()> {
        for member in &self.members {
            member.send(message).await?;
        }
        Ok(())
    }
}

/// Each member has a task that says and one that receives.
pub(super) async fn client<L: Link>(links: Vec<L>, plan: Plan) -> Result<Report> {
    let open = Meter::prepare();
    let mut members = Vec::new();
    for link in links {
        let (mut tx, rx) = link.split();
        say(&mut tx).await?;
        members.push((tx, rx));
    }
    for (_, rx) in &mut members {
        hear(rx, &mut Tally::default(), 1).await?;
    }
    let meter = open.start();
    let start = Instant::now();
    let (mut saying, mut receiving) = (JoinSet::new(), JoinSet::new());
    for (place, (tx, rx)) in members.into_iter().enumerate() {
        saying.spawn(speak(tx, place as u32, start, plan.clone()));
        receiving.spawn(receive(rx, plan.clone()));
    }
    // Kept to the end: to some engines a dropped sender is the end of the connection.
    let mut said = many::all(saying).await?;
    let received = many::all(receiving).await?;
    let report = meter.stop(plan.deliveries());
    for tx in &mut said {
        say(tx).await?;
    }
    let mut latencies = Latencies::new()?;
    let order = received[0].1.order;
    for (mut rx, mut heard) in received {
        while heard.words == 0 {
            rx.receive(&mut |message| heard.take(message)).await?;
        }
        heard.verify(&plan, order)?;
        for latency in heard.latencies {
            latencies.record(latency);
        }
    }
    Ok(Report {
        figures: latencies.figures(),
        ..report
    })
}

/// Says a message each period, at another moment than the other members.
async fn speak<T: Tx>(mut tx: T, place: u32, start: Instant, plan: Plan) -> Result<T> {
    let first = start + plan.period * place / plan.members;
    for number in 0..plan.messages {
        sleep_until(first + plan.period * number).await;
        let message = stamped(number * plan.members + place, SIZE);
        tx.send(&message).await?;
    }
    Ok(tx)
}

/// Receives what all say.
async fn receive<R: Rx>(mut rx: R, plan: Plan) -> Result<(R, Heard)> {
    let mut heard = Heard::new(&plan);
    while heard.messages < plan.said() {
        rx.receive(&mut |message| heard.take(message)).await?;
    }
    Ok((rx, heard))
}

/// What a member received.
struct Heard {
    messages: u64,
    words: u32,
    /// The number that each member's next message must have.
    next: Vec<u32>,
    /// Sums up the messages in their order.
    order: u64,
    /// Something was lost, doubled, cut or out of order.
    wrong: bool,
    latencies: Vec<Duration>,
}

impl Heard {
    fn new(plan: &Plan) -> Heard {
        Heard {
            messages: 0,
            words: 0,
            next: (0..plan.members).collect(),
            order: 0,
            wrong: false,
            latencies: Vec::with_capacity(plan.said() as usize),
        }
    }

    fn take(&mut self, message: &[u8]) {
        if is_word(message) {
            self.words += 1;
            return;
        }
        self.messages += 1;
        let (number, made) = look_at(message);
        self.latencies.push(now().saturating_sub(made));
        self.order = self.order.rotate_left(5) ^ u64::from(number);
        let members = self.next.len();
        let next = &mut self.next[number as usize % members];
        self.wrong |= *next != number || message.len() != SIZE;
        *next += members as u32;
    }

    /// Fails unless each member's messages came, all and in order, and all members' in `order`.
    fn verify(&self, plan: &Plan, order: u64) -> Result<()> {
        match !self.wrong && self.messages == plan.said() && self.order == order {
            true => Ok(()),
            false => Err(format!(
                "a member received {} messages of {}, {}",
                self.messages,
                plan.said(),
                match self.wrong {
                    true => "one lost, doubled, cut or out of order",
                    false => "in another order than the first member",
                }
            )
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        members: 2,
        messages: 2,
        period: PERIOD,
    };

    fn heard(numbers: &[u32]) -> Heard {
        let mut heard = Heard::new(&PLAN);
        let messages = numbers.iter().map(|number| stamped(*number, SIZE));
        messages.for_each(|message| heard.take(&message));
        heard
    }

    #[test]
    fn loss_doubling_and_disorder_in_a_room_are_found() {
        let order = heard(&[0, 1, 2, 3]).order;
        assert!(heard(&[0, 1, 2, 3]).verify(&PLAN, order).is_ok());
        for wrong in [
            [0, 1, 2, 2].as_slice(),
            &[2, 1, 0, 3],
            &[0, 1, 3],
            &[1, 0, 2, 3],
        ] {
            assert!(heard(wrong).verify(&PLAN, order).is_err(), "{wrong:?}");
        }
    }
}
