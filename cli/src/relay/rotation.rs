//! How a client goes over to another plain connection upstream: after one was lost, or before one is too
//! old.

use std::{
    future::pending,
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use tokio::time::sleep_until;
use unstall::CloseCode;

use super::{
    ending::Farewell,
    leg::{Fresh, Leg, Turn, stands_still},
    lock,
    passing::Pair,
    renewal::{Plan, Redialing},
};

impl Pair<'_> {
    /// Makes a connection upstream in the place of one that was lost.
    pub(super) async fn again(&self, lost: &Leg) -> Result<Fresh, Option<Farewell>> {
        let mut redialing = Redialing::new(self.relaying, &self.client, lost)?;
        let redial = async {
            loop {
                redialing.wait().await;
                if let Some(mut fresh) = redialing.attempt().await? {
                    match self.prepare(&mut fresh).await {
                        Ok(()) => return Ok(fresh),
                        Err(why) => redialing.failed(&fresh.leg, &why),
                    }
                }
            }
        };
        tokio::select! {
            biased;
            _ = self.client.ended() => Err(None),
            fresh = redial => fresh.map_err(Some),
        }
    }

    /// Sends what is remembered of the client on a new connection.
    async fn prepare(&self, fresh: &mut Fresh) -> Result<(), String> {
        let (Some(memory), Some(rules)) = (&self.memory, self.relaying.policy.rules()) else {
            return Ok(());
        };
        if let Some(greeting) = &rules.greeting {
            let greeted = fresh.answer(greeting).await;
            greeted.map_err(|why| format!("waiting for the greeting of the rules: {why}"))?;
        }
        let replays = lock(memory).replays();
        let count = replays.len();
        for (index, replay) in replays.into_iter().enumerate() {
            if index > 0 {
                tokio::time::sleep(rules.pause).await;
            }
            let sent = fresh.leg.sender.send(replay.message).await;
            sent.map_err(|error| error.to_string())?;
            if let Some(answer) = &rules.rule(replay.rule).answer {
                let number = replay.rule + 1;
                let answered = fresh.answer(answer).await;
                answered
                    .map_err(|why| format!("waiting for the answer of rule {number}: {why}"))?;
            }
        }
        tracing::info!("messages sent again: {count}");
        fresh
            .leg
            .sender
            .flush()
            .await
            .map_err(|error| error.to_string())
    }

    /// Goes over to another connection before this one is too old. The other one is then in `next`.
    /// Never resolves.
    pub(super) async fn go_over_in_time(
        &self,
        leg: &Leg,
        turn: &Turn,
        next: &Mutex<Option<Fresh>>,
    ) {
        match self.relaying.policy.max_age {
            // A session goes on over the next connection, whoever ends this one.
            Some(_) if leg.sender.is_session() => {}
            Some(max_age) => {
                // In a box, so that other connections need no memory for it.
                if let Some(plan) = Plan::new(leg.since, max_age, fastrand::f64()) {
                    Box::pin(self.go_over(leg, turn, next, plan)).await;
                }
            }
            None => {}
        }
        pending().await
    }

    async fn go_over(&self, leg: &Leg, turn: &Turn, next: &Mutex<Option<Fresh>>, plan: Plan) {
        sleep_until(plan.begin).await;
        let mut redialing = match Redialing::new(self.relaying, &self.client, leg) {
            Ok(redialing) if self.may_go_over(leg) => redialing,
            _ => {
                stands_still(&self.messages, plan.quiet, plan.latest).await;
                return self.end(leg, Farewell::of_age()).await;
            }
        };
        loop {
            // The connection that is there still serves, so what cannot be used is no harm.
            if let Ok(Some(mut fresh)) = redialing.attempt().await {
                stands_still(&self.messages, plan.quiet, plan.latest).await;
                if !turn.pause().await {
                    return;
                }
                match self.prepare(&mut fresh).await {
                    Ok(()) => {
                        *lock(next) = Some(fresh);
                        // What upstream sends until it closes still passes.
                        let why = "the relay goes on over another connection";
                        let _ = leg.close(CloseCode::NORMAL, why).await;
                        return;
                    }
                    Err(why) => redialing.failed(&fresh.leg, &why),
                }
                turn.resume();
            }
            redialing.wait().await;
        }
    }

    /// Whether the client misses nothing over another connection, or can be told.
    fn may_go_over(&self, leg: &Leg) -> bool {
        let policy = self.relaying.policy;
        policy.gap_message.is_some()
            || policy.is_snapshot()
            || self.is_unused(leg.uncovered.load(Relaxed))
    }

    async fn end(&self, leg: &Leg, farewell: Farewell) {
        let _ = self.verdict.set(farewell);
        let _ = leg.close(CloseCode::NORMAL, "").await;
    }
}
