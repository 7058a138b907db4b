//! What people meet: tokio's default runtime, nothing pinned, one await a message.

mod echo;
mod push;
mod room;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::task;

use super::Workload;
use crate::{
    Result,
    args::Measure,
    contestants::{self, Contestant, NATURAL_REFERENCE, Visit},
    engine::Engine,
    job::{Outcome, Report, Runtime},
    table::Column,
};

// The columns that all cases have alike. All of them are per message.
const CLIENT_SWITCHES: Column = Column::new("client switches", 3, |run| {
    run.client.switches_per_message()
});
const CLIENT_WAKE_UPS: Column = Column::new("wake-ups", 3, |run| run.client.wake_ups_per_message());
const SERVER_SWITCHES: Column = Column::new("server switches", 3, |run| {
    run.server.switches_per_message()
});
const SERVER_WAKE_UPS: Column = Column::new("wake-ups", 3, |run| run.server.wake_ups_per_message());

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Plan {
    Push(push::Plan),
    Echo(echo::Plan),
    Room(room::Plan),
}

pub(crate) struct Natural;

impl Workload for Natural {
    const NAME: &'static str = "natural";
    const ABOUT: &'static str = "what people meet who write `send(message).await` and \
        `recv().await`: tokio's default runtime with a thread for each core, nothing pinned, a \
        task for each connection, one await a message. First one request and then messages from \
        server to client (the rate is the client's, from its request to its last message). Then \
        round trips of 64 bytes, one and 64 in flight, each timed from its send to its answer. \
        Then a chat room of 200 bytes a message: each of its members says two a second, and each \
        message goes to all; the time is from before its send until a member has received it. A \
        context switch is counted for each thread that waited or was preempted (getrusage); a \
        wake-up follows each wait";
    const NOT_SHOWN: &'static str = "how fast an engine can go where it has cores of its own and \
        messages in batches (see stream, up, echo); a network that loses or delays, TLS, machines \
        with more cores; server and client here share all cores, and where both are busy the \
        system's scheduler decides which waits";
    const REFERENCE: &'static str = NATURAL_REFERENCE;
    const COLUMNS: &'static [Column] = push::COLUMNS;
    const RUNTIME: Runtime = Runtime::Default;
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let push = push::cases(args).into_iter();
        let push = push.map(|(title, plan)| (title, Plan::Push(plan)));
        let echo = echo::cases(args).into_iter();
        let echo = echo.map(|(title, plan)| (title, Plan::Echo(plan)));
        let (title, plan) = room::case(args);
        push.chain(echo)
            .chain([(title, Plan::Room(plan))])
            .collect()
    }

    fn columns(plan: &Plan) -> &'static [Column] {
        match plan {
            Plan::Push(_) => push::COLUMNS,
            Plan::Echo(_) => echo::COLUMNS,
            Plan::Room(_) => room::COLUMNS,
        }
    }

    fn contestants() -> &'static [Contestant] {
        contestants::NATURAL
    }

    async fn visit<V: Visit>(contestant: &str, visit: V) -> Result<V::Done> {
        contestants::with_natural(contestant, visit).await
    }

    fn calibrated(plan: Plan, reference: &Outcome, seconds: f64) -> Plan {
        let rate = reference.client.rate();
        let count = ((rate * seconds) as u64).max(4);
        match plan {
            Plan::Push(plan) => Plan::Push(push::Plan { count, ..plan }),
            Plan::Echo(plan) => Plan::Echo(plan.counting(count)),
            // Its load is given.
            Plan::Room(plan) => Plan::Room(plan),
        }
    }

    fn plan_for(plan: Plan, contestant: &Contestant) -> Plan {
        match plan {
            Plan::Push(plan) if waits_each(contestant) => Plan::Push(plan.spared()),
            Plan::Echo(plan) if waits_each(contestant) => Plan::Echo(plan.spared()),
            plan => plan,
        }
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let batching = E::BATCHING;
        match plan {
            Plan::Push(plan) => {
                let link = E::accept(&mut server).await?;
                task::spawn(push::server(link, batching, plan)).await?
            }
            Plan::Echo(plan) => {
                let link = E::accept(&mut server).await?;
                task::spawn(echo::server(link, batching, plan)).await?
            }
            Plan::Room(plan) => {
                let mut links = Vec::new();
                for _ in 0..plan.members {
                    links.push(E::accept(&mut server).await?);
                }
                task::spawn(room::server(links, batching, plan)).await?
            }
        }
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let batching = E::BATCHING;
        match plan {
            Plan::Push(plan) => {
                let link = E::connect(server).await?;
                task::spawn(push::client(link, plan)).await?
            }
            Plan::Echo(plan) => {
                let link = E::connect(server).await?;
                task::spawn(echo::client(link, batching, plan)).await?
            }
            Plan::Room(plan) => {
                let mut links = Vec::new();
                for _ in 0..plan.members {
                    links.push(E::connect(server).await?);
                }
                task::spawn(room::client(links, plan)).await?
            }
        }
    }
}

/// Whether it writes each message by itself, and so is far slower than the reference where messages
/// are short.
fn waits_each(contestant: &Contestant) -> bool {
    contestant.name != NATURAL_REFERENCE && !contestant.name.starts_with("unstall")
}
