//! `unstall relay` beside nginx as a proxy for WebSockets, and both beside a direct connection. See
//! bench/README.md, "The relay".

#[path = "../../congestion.rs"]
mod congestion;
#[path = "../../goals.rs"]
mod goals;
#[path = "../../limits.rs"]
mod limits;
#[path = "../../namespace.rs"]
mod namespace;
mod programs;
mod socket;

use std::{path::PathBuf, process::ExitCode, thread::sleep, time::Duration};

use clap::Parser;

use goals::{Table, median};
use programs::Program;
use socket::Socket;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(
    name = "relay",
    about = "Measures `unstall relay` beside nginx, and prints the goal beside each figure"
)]
struct Args {
    /// How often everything is measured. A figure is the median
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Tiny: shows that it still runs; its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// The congestion control of every connection. Where it is not the system's default, it needs
    /// root and `ip`
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// The command `unstall`. Default: the one that was built beside this program
    #[arg(long, value_name = "PROGRAM")]
    unstall: Option<PathBuf>,
}

/// How much is measured.
struct Amounts {
    rounds: usize,
    /// Sizes of messages, how many are pulled, and the part of nginx's rate that is the goal.
    pulls: [(usize, u64, f64); 2],
    round_trips: usize,
    idle: usize,
}

/// The goal of what the relay adds to a round trip, as a part of what nginx adds.
const ADDED: f64 = 1.1;

/// The goal of an idle connection, in KiB.
const IDLE_KIB: f64 = 30.0;

/// Connections that are there before memory is counted.
const WARM: usize = 100;

/// Where messages go through.
struct Way {
    name: &'static str,
    program: Program,
}

/// One figure of each way, in each round.
struct Rounds(Vec<Vec<f64>>);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let amounts = amounts(args);
    congestion::set(&args.congestion);
    // The programs inherit the limit.
    if limits::connections() < 2 * (amounts.idle + WARM) as u64 {
        return Err("the limit of file descriptors is too low (ulimit -n)".into());
    }
    let unstall = match &args.unstall {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("unstall"),
    };
    let ways = ways(&unstall)?;
    let mut table = Table::new("`unstall relay` between `unstall serve` and a client");
    for (bytes, count, goal) in amounts.pulls {
        let figures = rounds(amounts.rounds, &ways, |way| {
            programs::pull(&unstall, &way.program.address, bytes, count)
        })?;
        rates(&mut table, &ways, bytes, &figures, goal);
    }
    let figures = rounds(amounts.rounds, &ways, |way| {
        socket::round_trip(&way.program.address, amounts.round_trips)
    })?;
    latencies(&mut table, &ways, &figures);
    idle(&mut table, &ways, amounts.idle)?;
    table.print(args.quick);
    Ok(())
}

fn amounts(args: &Args) -> Amounts {
    match args.quick {
        true => Amounts {
            rounds: 2,
            pulls: [(64, 5_000, 0.9), (4096, 500, 1.0)],
            round_trips: 100,
            idle: 50,
        },
        false => Amounts {
            rounds: args.rounds.max(1),
            pulls: [(64, 1_000_000, 0.9), (4096, 100_000, 1.0)],
            round_trips: 10_000,
            idle: 1_000,
        },
    }
}

/// Directly, through the relay, and through nginx if there is one.
fn ways(unstall: &std::path::Path) -> Result<Vec<Way>> {
    let direct = Program::unstall(unstall, &["serve", "--plain", "--listen", "127.0.0.1:0"])?;
    let to = format!("ws://{}", direct.address);
    let relay = [
        "relay",
        "--plain",
        "--listen",
        "ws://127.0.0.1:0",
        "--to",
        &to,
    ];
    let relay = Program::unstall(unstall, &relay)?;
    let nginx = Program::nginx(&direct.address)?;
    if nginx.is_none() {
        println!("SKIPPED: nginx is not installed, so the relay is compared with nothing\n");
    }
    let ways = [
        ("direct", Some(direct)),
        ("relay", Some(relay)),
        ("nginx", nginx),
    ];
    let ways = ways.into_iter().filter_map(|(name, program)| {
        let program = program?;
        Some(Way { name, program })
    });
    Ok(ways.collect())
}

/// In each round all ways take their turn, in an order that rotates.
fn rounds(
    count: usize,
    ways: &[Way],
    mut measure: impl FnMut(&Way) -> Result<f64>,
) -> Result<Rounds> {
    let mut rounds = Vec::new();
    for round in 0..count {
        let mut figures = vec![f64::NAN; ways.len()];
        for turn in 0..ways.len() {
            let nth = (round + turn) % ways.len();
            figures[nth] = measure(&ways[nth])?;
        }
        rounds.push(figures);
    }
    Ok(Rounds(rounds))
}

impl Rounds {
    /// The median of what is made of the figures of each round.
    fn median(&self, of: impl Fn(&[f64]) -> f64) -> f64 {
        median(self.0.iter().map(|figures| of(figures)).collect())
    }

    /// The median of each way.
    fn of_each(&self, ways: &[Way], shown: impl Fn(f64) -> String) -> String {
        let each = ways.iter().enumerate().map(|(nth, way)| {
            let median = self.median(|figures| figures[nth]);
            format!("{} {}", way.name, shown(median))
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The places of the ways in a round. nginx is the last one.
const DIRECT: usize = 0;
const RELAY: usize = 1;
const NGINX: usize = 2;

fn has_nginx(ways: &[Way]) -> bool {
    ways.len() > NGINX
}

fn rates(table: &mut Table, ways: &[Way], bytes: usize, figures: &Rounds, goal: f64) {
    let shown = |rate: f64| format!("{:.0}", rate / 1e3);
    let what = format!("{bytes} B, thousands of messages a second");
    table.row(what, figures.of_each(ways, shown));
    if has_nginx(ways) {
        let ratio = figures.median(|it| it[RELAY] / it[NGINX]);
        let what = format!("{bytes} B, relay / nginx");
        let least = format!("at least {goal}");
        table.goal(what, format!("{ratio:.2}"), &least, ratio >= goal);
    }
}

fn latencies(table: &mut Table, ways: &[Way], figures: &Rounds) {
    let shown = |micros: f64| format!("{micros:.0}");
    let what = "round trip of 64 B, one in flight, median in µs";
    table.row(what, figures.of_each(ways, shown));
    if has_nginx(ways) {
        let added = |it: &[f64]| (it[RELAY] - it[DIRECT]) / (it[NGINX] - it[DIRECT]);
        let added = figures.median(added);
        let what = "what the relay adds to it / what nginx adds";
        let most = format!("at most {ADDED}");
        table.goal(what, format!("{added:.2}"), &most, added <= ADDED);
    }
}

/// What the processes hold for connections that wait.
fn idle(table: &mut Table, ways: &[Way], count: usize) -> Result<()> {
    for way in &ways[RELAY..] {
        let opened = |count| -> Result<Vec<Socket>> {
            let sockets = (0..count).map(|_| Socket::connect(&way.program.address));
            let sockets = sockets.collect::<Result<_>>()?;
            // Until both sides are done with the handshakes.
            sleep(Duration::from_secs(1));
            Ok(sockets)
        };
        let _warm = opened(WARM)?;
        let before = way.program.private_kib()?;
        let _idle = opened(count)?;
        let each = (way.program.private_kib()? - before) / count as f64;
        let (what, figure) = (
            format!("an idle connection, {}, KiB", way.name),
            format!("{each:.1}"),
        );
        match way.name {
            "relay" => {
                let most = format!("at most {IDLE_KIB}");
                table.goal(what, figure, &most, each <= IDLE_KIB);
            }
            _ => table.row(what, figure),
        }
    }
    Ok(())
}
