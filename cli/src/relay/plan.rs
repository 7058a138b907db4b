//! From what a relay is told to what it does: everything is checked, and each file is read, before anything
//! changes. A start, a reload and `--check` do the same.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use unstall::{Budget, ServerCertificate, TrustedProxies};

use super::{
    door::Current,
    file,
    options::{Process, in_memory},
    pool::Pools,
    record::Recorders,
    routes::{Facts, Planned, Route, Routes},
};
use crate::{failure::Failure, serve::read_token};

/// What a relay is told, by a file or by the command line.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) process: Process,
    pub(super) routes: Vec<Planned>,
}

/// Where the settings are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    CommandLine(Box<Settings>),
    File(PathBuf),
}

/// What a relay will do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) process: Process,
    pub(super) facts: Facts,
    pub(super) token: Option<Arc<str>>,
    pub(super) certificate: Option<ServerCertificate>,
    routes: Vec<(Planned, Route)>,
}

impl Source {
    /// Reads and checks everything. `running`: the facts of the process, if it runs already.
    pub(super) fn plan(&self, running: Option<&Facts>) -> Result<Plan, Failure> {
        let settings = match self {
            Source::CommandLine(settings) => (**settings).clone(),
            Source::File(file) => file::read(file)?,
        };
        let plan = Plan::new(settings, running);
        plan.map_err(|failure| match self {
            Source::CommandLine(_) => failure,
            Source::File(file) => failure.of(file.display()),
        })
    }
}

impl Plan {
    fn new(settings: Settings, running: Option<&Facts>) -> Result<Plan, Failure> {
        let Settings { process, routes } = settings;
        process.check()?;
        let facts = running.cloned().unwrap_or_else(|| Facts {
            options: process.options(),
            budget: Budget::new(in_memory(process.limits.memory)),
            pools: Pools::default(),
            secure: process.clients.tls.is_on(),
        });
        let token = process.clients.token.as_deref().map(read_token);
        let routes = routes.into_iter().map(|planned| {
            let route = planned.route(&facts)?;
            Ok((planned, route))
        });
        Ok(Plan {
            token: token.transpose()?.map(Arc::from),
            certificate: process.clients.tls.read()?,
            routes: routes.collect::<Result<_, Failure>>()?,
            process,
            facts,
        })
    }

    /// Opens the logs of recordings. Afterwards nothing can fail any more.
    pub(super) async fn open(&mut self, recorders: &Recorders) -> Result<(), Failure> {
        for (planned, route) in &mut self.routes {
            route.recorder = recorders.recorder(&planned.options.record).await?;
        }
        Ok(())
    }

    /// What requests get from now on.
    pub(super) fn current(self) -> Current {
        let routes = self.routes.into_iter().map(|(_, route)| route);
        Current {
            token: self.token,
            routes: Routes::new(routes.collect()),
        }
    }

    /// The longest that a connection upstream may take.
    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        let timeouts = self.routes.iter();
        let timeouts = timeouts.map(|(planned, _)| planned.options.reach.connect_timeout);
        timeouts.max().unwrap_or_default()
    }

    /// What it does, in lines for a reader. No secret is in it.
    pub(super) fn told(self) -> String {
        let clients = &self.process.clients;
        let mut text = format!("listens on {}", clients.shown());
        let token = clients
            .token
            .as_ref()
            .map(|_| ", for clients with the token");
        text += token.unwrap_or_default();
        for route in self.current().routes.iter() {
            let _ = write!(text, "\n{route}");
        }
        text
    }
}

impl Process {
    /// Checks what is of the whole process.
    fn check(&self) -> Result<(), Failure> {
        let clients = &self.clients;
        if clients.listen.secure && !clients.tls.is_on() {
            let why = "--listen says wss://, so it needs --tls-cert and --tls-key";
            return Err(Failure::usage(why));
        }
        self.proxies().map(|_| ())
    }

    /// The proxies that are believed, if there are any.
    pub(super) fn proxies(&self) -> Result<Option<TrustedProxies>, Failure> {
        let proxies = &self.clients.trusted_proxies;
        let read = (!proxies.is_empty()).then(|| TrustedProxies::new(proxies));
        let read = read.transpose().map_err(Failure::usage)?;
        Ok(read.map(TrustedProxies::x_forwarded_for))
    }
}
