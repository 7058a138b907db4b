//! Opens a stream as a log, or makes it.

use std::{sync::Arc, time::Duration};

use async_nats::{ConnectOptions, ServerAddr};
use tokio::sync::mpsc;
use unstall_proto::topics::{Durability, LogId};

use super::{
    JetStream,
    api::{Api, Failure, Info, NO_DISK, NO_MEMORY, NO_STREAM, STREAM_EXISTS, nanos},
    following,
    limits::{DUPLICATE_WINDOW, HEADER_BYTES, MIN_DUPLICATE_WINDOW, ONCE_MARGIN},
    link::Link,
    publishing::Publishing,
    settings,
    shared::Shared,
    subjects::Subjects,
};

/// JetStream is in the account's name space under this prefix.
const API: &str = "$JS.API";

/// Stream metadata came with nats-server 2.10.
const OLDEST_SERVER: (i64, i64, i64) = (2, 10, 0);

/// How a stream is opened as a log, or made if it is not there.
///
/// Made by [`JetStream::builder`]. What says "of a new stream" has no effect on one that is there.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    servers: Vec<String>,
    stream: String,
    prefix: Option<String>,
    options: ConnectOptions,
    domain: Option<String>,
    may_create: bool,
    servers_sync: bool,
    new: NewStream,
}

/// What a stream is made with.
#[derive(Clone, Debug)]
pub(super) struct NewStream {
    pub(super) replicas: u8,
    pub(super) max_bytes: Option<u64>,
    pub(super) max_age: Option<Duration>,
    pub(super) duplicate_window: Duration,
    pub(super) in_memory: bool,
}

impl Default for NewStream {
    fn default() -> NewStream {
        NewStream {
            replicas: 1,
            max_bytes: None,
            max_age: None,
            duplicate_window: DUPLICATE_WINDOW,
            in_memory: false,
        }
    }
}

/// A stream cannot be opened as a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Something that was given to the builder is not valid.
    #[error("{0}")]
    Invalid(String),
    /// No server can be reached, or it refuses this client. Try again later, or correct the
    /// addresses or credentials.
    #[error("cannot connect to any server of NATS: {0}")]
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// The server is too old.
    #[error("the server of NATS has version {version}, and a log needs 2.10 or newer; update it")]
    ServerTooOld {
        /// What it said.
        version: String,
    },
    /// There is no such stream, and [`Builder::create`] is off.
    #[error("there is no stream {stream}; make it, or let it be made here")]
    NoStream {
        /// Its name.
        stream: String,
    },
    /// The stream is there and cannot be a log. Change these settings, or choose another stream.
    #[error("the stream {stream} cannot be a log: {}", faults.join("; "))]
    NotALog {
        /// Its name.
        stream: String,
        /// What is wrong, a sentence for each setting. Each begins with the setting's name.
        faults: Vec<String>,
    },
    /// JetStream does not answer, or refuses: it is not enabled, it has no leader, a limit of the
    /// account.
    #[error("JetStream cannot be used: {0}")]
    JetStream(String),
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> OpenError {
        OpenError::JetStream(failure.to_string())
    }
}

impl Builder {
    pub(super) fn new(servers: Vec<String>, stream: String) -> Builder {
        Builder {
            servers,
            stream,
            prefix: None,
            options: ConnectOptions::new().name("unstall-topics"),
            domain: None,
            may_create: true,
            servers_sync: false,
            new: NewStream::default(),
        }
    }

    /// What stands in front of each topic in its subject: `PREFIX.topic`. By default it is the
    /// stream's name. A stream that is there has a prefix already; then it must be the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Builder {
        self.prefix = Some(prefix.into());
        self
    }

    /// Whether the stream is made if it is not there. By default it is.
    pub fn create(mut self, may_create: bool) -> Builder {
        self.may_create = may_create;
        self
    }

    /// How many servers keep each message of a new stream, 1 to 5. By default 1. With 3, one server
    /// may fail.
    pub fn replicas(mut self, replicas: u8) -> Builder {
        self.new.replicas = replicas;
        self
    }

    /// The most bytes of a new stream, as JetStream counts them. The oldest messages go when there
    /// are more. By default there is no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Builder {
        self.new.max_bytes = Some(bytes);
        self
    }

    /// The greatest age of messages of a new stream. By default there is no limit.
    pub fn max_age(mut self, age: Duration) -> Builder {
        self.new.max_age = Some(age);
        self
    }

    /// How long a new stream remembers message ids: at least a minute, by default two. Servers keep
    /// each id of this time in memory. Clients may publish a message again for half a minute less
    /// (see [`Store::once`](crate::store::Store::once)).
    pub fn duplicate_window(mut self, window: Duration) -> Builder {
        self.new.duplicate_window = window;
        self
    }

    /// A new stream is in memory only. Its messages are gone when all its servers have restarted.
    pub fn in_memory(mut self) -> Builder {
        self.new.in_memory = true;
        self
    }

    /// Says that all servers have `sync_interval: always` in their `jetstream` block. Clients of
    /// NATS cannot find this out. Only then is a confirmed message on disk; by default servers
    /// sync every two minutes.
    pub fn servers_sync(mut self, always: bool) -> Builder {
        self.servers_sync = always;
        self
    }

    /// The domain of JetStream, if it is not that of the servers that are connected to.
    pub fn domain(mut self, domain: impl Into<String>) -> Builder {
        self.domain = Some(domain.into());
        self
    }

    /// Credentials, TLS and other options of the client. Its timeouts, ping interval, capacities,
    /// reconnects and event callback are replaced by those of this store.
    pub fn connect_options(mut self, options: ConnectOptions) -> Builder {
        self.options = options;
        self
    }

    /// Connects, and opens the stream or makes it.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong, and what to do.
    pub async fn open(self) -> Result<JetStream, OpenError> {
        let (api, info) = self.stream().await?;
        let not_a_log = |faults| OpenError::NotALog {
            stream: self.stream.clone(),
            faults,
        };
        let mut faults = settings::faults(&info.config);
        let subjects = settings::subjects(&info.config);
        let id = settings::id(&info.config);
        let log_id = log_id(id, &info.created);
        match (&subjects, &self.prefix) {
            (Err(fault), _) => faults.push(format!("subjects: {fault}")),
            (Ok(subjects), Some(prefix)) if prefix != subjects.prefix() => {
                faults.push(format!(
                    "subjects: the prefix is {}, not {prefix}",
                    subjects.prefix()
                ));
            }
            _ => {}
        }
        if log_id.is_none() {
            let id = settings::ID;
            faults.push(format!(
                "metadata has no {id}, which has to be 32 random hexadecimal digits"
            ));
        }
        let (Ok(subjects), Some(id), Some(log_id), true) =
            (subjects, id, log_id, faults.is_empty())
        else {
            return Err(not_a_log(faults));
        };
        Ok(self.start(api, subjects, id, log_id, &info))
    }

    /// Finds the stream, or makes it.
    async fn stream(&self) -> Result<(Api, Info), OpenError> {
        let stream = self.checked_name()?;
        let subjects = Subjects::new(self.prefix.as_deref().unwrap_or(stream));
        let link = self.connect().await?;
        let api = Api {
            link: Arc::new(link),
            stream: stream.into(),
            prefix: match &self.domain {
                Some(domain) => format!("$JS.{domain}.API").into(),
                None => API.into(),
            },
        };
        match api.info().await {
            Ok(info) => return Ok((api, info)),
            Err(Failure::Refused {
                code: NO_STREAM, ..
            }) if self.may_create => {}
            Err(Failure::Refused {
                code: NO_STREAM, ..
            }) => {
                return Err(OpenError::NoStream {
                    stream: stream.into(),
                });
            }
            Err(failure) => return Err(failure.into()),
        }
        let subjects = subjects.map_err(OpenError::Invalid)?;
        let id = format!("{:032x}", u128::from_ne_bytes(random()?));
        let config = settings::new_stream(stream, &subjects, &id, &self.new);
        match api.create(&config).await {
            // Another process has made it a moment ago.
            Err(Failure::Refused {
                code: STREAM_EXISTS,
                ..
            }) => {}
            made => {
                made.map_err(|failure| self.not_made(&failure))?;
            }
        }
        // Asked for again, since the leader decides when it was created.
        let info = api.info().await?;
        Ok((api, info))
    }

    fn not_made(&self, failure: &Failure) -> OpenError {
        let setting = match failure {
            Failure::Refused { code: NO_DISK, .. } => Some("max_file_store"),
            Failure::Refused {
                code: NO_MEMORY, ..
            } => Some("max_memory_store"),
            _ => None,
        };
        let remedy = setting.map(|setting| {
            format!(
                "; servers set aside the max_bytes of every stream: give this one fewer, or raise \
                 their {setting}"
            )
        });
        OpenError::JetStream(format!(
            "the stream {} cannot be made: {failure}{}",
            self.stream,
            remedy.unwrap_or_default()
        ))
    }

    fn checked_name(&self) -> Result<&str, OpenError> {
        let invalid = |why: String| Err(OpenError::Invalid(why));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.stream.is_empty() || self.stream.len() > 128 || !self.stream.chars().all(allowed) {
            return invalid(format!(
                "the stream's name has to be 1 to 128 letters, digits, - and _; {:?} is not",
                self.stream
            ));
        }
        if !(1..=5).contains(&self.new.replicas) {
            return invalid(format!(
                "a stream has 1 to 5 replicas, not {}",
                self.new.replicas
            ));
        }
        if self.new.duplicate_window < MIN_DUPLICATE_WINDOW {
            let least = MIN_DUPLICATE_WINDOW.as_secs();
            return invalid(format!("the duplicate window has to be at least {least} s"));
        }
        if self
            .new
            .max_age
            .is_some_and(|age| age < self.new.duplicate_window)
        {
            return invalid("the greatest age has to be at least the duplicate window".into());
        }
        if self
            .domain
            .as_deref()
            .is_some_and(|domain| !domain.chars().all(allowed))
        {
            return invalid("a domain has letters, digits, - and _ only".into());
        }
        Ok(&self.stream)
    }

    async fn connect(&self) -> Result<Link, OpenError> {
        let mut servers: Vec<ServerAddr> = Vec::new();
        for server in &self.servers {
            // The error does not repeat the address, which may have a password.
            let invalid =
                |error| OpenError::Invalid(format!("an address of NATS is wrong: {error}"));
            servers.push(server.parse().map_err(invalid)?);
        }
        let Some(first) = servers.first() else {
            return Err(OpenError::Invalid(
                "name at least one server of NATS".into(),
            ));
        };
        // Servers that are discovered later have no credentials in their addresses.
        let options = self.options.clone();
        let options = match (first.username(), first.password()) {
            (Some(user), Some(password)) => options.user_and_password(user.into(), password.into()),
            (Some(token), None) => options.token(token.into()),
            _ => options,
        };
        let link = Link::open(servers, options)
            .await
            .map_err(|error| OpenError::Connect(error.into()))?;
        if let Some(client) = link.connected() {
            let (major, minor, patch) = OLDEST_SERVER;
            if !client.is_server_compatible(major, minor, patch) {
                return Err(OpenError::ServerTooOld {
                    version: client.server_info().version,
                });
            }
        }
        Ok(link)
    }

    fn start(
        &self,
        api: Api,
        subjects: Subjects,
        id: &str,
        log_id: LogId,
        info: &Info,
    ) -> JetStream {
        let number = |name| settings::number(&info.config, name);
        let window = Duration::from_nanos(settings::duplicate_window(&info.config));
        let largest = api
            .link
            .connected()
            .map_or(1 << 20, |client| client.max_payload());
        let largest = number("max_msg_size")
            .filter(|&size| size > 0)
            .map_or(largest, |size| {
                largest.min(usize::try_from(size).unwrap_or(usize::MAX))
            });
        let link = api.link.clone();
        let shared = Arc::new(Shared::new(api, subjects.clone(), info));
        let (batches, queue) = mpsc::unbounded_channel();
        let max_message_bytes = largest.saturating_sub(HEADER_BYTES);
        let own_id = format!("{:032x}", fastrand::u128(..));
        let publishing = Publishing::new(subjects, own_id, max_message_bytes);
        let tasks = vec![
            tokio::spawn(publishing.run(queue, link)),
            tokio::spawn(following::follow(shared.clone())),
            tokio::spawn(following::look(shared.clone(), id.to_owned())),
        ];
        JetStream {
            id: log_id,
            durability: durability(info, self.servers_sync),
            once: window.saturating_sub(ONCE_MARGIN),
            max_message_bytes,
            shared,
            batches,
            tasks,
        }
    }
}

/// The log's identity: the id in the metadata, and when the stream was made. A stream that is made
/// anew with copied settings is another log.
fn log_id(id: Option<&str>, created: &str) -> Option<LogId> {
    let LogId(id) = id?.parse().ok()?;
    let created = u128::from(nanos(created)?);
    Some(LogId((u128::from_be_bytes(id) ^ created).to_be_bytes()))
}

fn durability(info: &Info, servers_sync: bool) -> Durability {
    let replicas = settings::number(&info.config, "num_replicas").unwrap_or(1);
    let in_memory = info
        .config
        .get("storage")
        .is_some_and(|storage| storage == "memory");
    match (replicas > 1, in_memory, servers_sync) {
        (false, true, _) => Durability::Memory,
        (false, false, true) => Durability::Disk,
        (false, false, false) => Durability::DiskLater,
        (true, false, true) => Durability::QuorumDisk,
        (true, true, _) | (true, false, false) => Durability::Quorum,
    }
}

fn random() -> Result<[u8; 16], OpenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        OpenError::Invalid(format!("the system has no random numbers: {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_made_anew_with_copied_settings_is_another_log() {
        let id = Some("000102030405060708090a0b0c0d0e0f");
        let first = log_id(id, "2026-11-29T13:27:42.123456789Z");
        assert!(first.is_some());
        assert_eq!(first, log_id(id, "2026-11-29T13:27:42.123456789Z"));
        assert_ne!(first, log_id(id, "2026-11-29T13:27:42.123456790Z"));
        assert_eq!(log_id(Some("short"), "2026-11-29T13:27:42Z"), None);
        assert_eq!(log_id(None, "2026-11-29T13:27:42Z"), None);
    }
}
