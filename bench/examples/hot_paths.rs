//! Moves messages over one of unstall's hot paths, both sides on one thread: what
//! `bench/instructions` counts.

use std::{env, error::Error, mem};

use tokio::{join, runtime};

#[path = "../../lib/tests/allocations_stay_low/hot_paths.rs"]
mod hot_paths;
use hot_paths::{each, many, opened, recv, recv_batch};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "hot_paths PATH BYTES COUNT, where PATH is plain, session or batch";

fn main() -> Result<()> {
    let [_, path, size, count] = &env::args().collect::<Vec<_>>()[..] else {
        return Err(USAGE.into());
    };
    let (size, count) = (size.parse()?, count.parse()?);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(transfer(path, size, count))?;
    // Dropped, it would end the session, which gives back what is not acknowledged: more or less of
    // it, as the last acknowledgement came. That isn't the path.
    mem::forget(runtime);
    Ok(())
}

async fn transfer(path: &str, size: usize, count: u64) -> Result<()> {
    let (client, server) = opened(path != "plain").await;
    let (sender, _receives_nothing) = server.split();
    let (_sends_nothing, receiver) = client.split();
    _ = match path {
        "plain" => join!(each(sender, size, count), recv(receiver, size, count)),
        "session" => join!(many(sender, size, count), recv(receiver, size, count)),
        "batch" => join!(many(sender, size, count), recv_batch(receiver, size, count)),
        _ => return Err(USAGE.into()),
    };
    Ok(())
}
