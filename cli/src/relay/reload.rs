//! SIGHUP: the relay reads its files again. If all of them are good, new clients get what they say. If not, all
//! stays as it was. Clients that are there keep their connections and their routes in any case.

use std::{sync::Arc, time::Duration};

use tokio::task::spawn_blocking;
use unstall::ServerCertificate;

use super::{
    door::Door,
    options::Process,
    plan::{Plan, Source},
    record::Recorders,
    routes::Facts,
    systemd,
};
use crate::{failure::Failure, serve::ReloadAsked};

/// What of a running relay can be replaced, and what it is compared with.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) source: Source,
    pub(super) recorders: Recorders,
    pub(super) door: Arc<Door>,
    pub(super) certificate: Option<Arc<ServerCertificate>>,
    /// As it was at the start.
    pub(super) process: Process,
    pub(super) facts: Facts,
    /// The most that connecting upstream may take, because a handshake ends then.
    pub(super) connect_timeout: Duration,
}

impl Reload {
    /// Reloads whenever it is asked to.
    pub(super) async fn run(&self, mut asked: ReloadAsked) {
        loop {
            asked.recv().await;
            systemd::reloading();
            let status = match self.reload().await {
                Ok(()) => {
                    tracing::info!("reloaded: new clients get the new settings");
                    "reloaded".to_owned()
                }
                Err(failure) => {
                    let why = failure.into_reason();
                    tracing::error!("the reload failed, and all stays as it was: {why}");
                    format!("the last reload failed: {why}")
                }
            };
            systemd::reloaded(&status);
        }
    }

    async fn reload(&self) -> Result<(), Failure> {
        let (source, facts) = (self.source.clone(), self.facts.clone());
        // Reading files blocks.
        let plan = spawn_blocking(move || source.plan(Some(&facts))).await;
        let mut plan: Plan = plan.map_err(Failure::work)??;
        plan.open(&self.recorders).await?;
        for name in self.process.fixed(&plan.process) {
            tracing::error!("`{name}` has changed: that needs a restart of the relay");
        }
        if plan.connect_timeout() > self.connect_timeout {
            tracing::error!(
                "`connect-timeout` has become longer: more than {:?} needs a restart of the relay",
                self.connect_timeout
            );
        }
        if let Some((certificate, new)) = self.certificate.as_ref().zip(plan.certificate.take()) {
            certificate.renew(new);
        }
        self.door.replace(plan.current());
        Ok(())
    }
}
