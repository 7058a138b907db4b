//! Who is on a connection, and what it may do: the hook, its permit, and when that ends.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use unstall_proto::topics::{AccessToken, LogInfo, RejectReason, ServerReject, SubscriptionEnd};

use super::{Answer, Serving};
use crate::{
    access::{self, Denied, Given, NotGiven, Visitor},
    defaults::{HELLO_TIMEOUT, ONCE_MARGIN},
    link::Lost,
};

impl Serving {
    /// The next moment at which something is due: the client has to say who it is, or its permit ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.permit {
            Some(permit) => {
                let left = permit.expires?.duration_since(SystemTime::now());
                // The clock of the system may be set.
                let left = left.unwrap_or_default().min(Duration::from_secs(86_400));
                Some(Instant::now() + left)
            }
            None if self.is_entering => None,
            None => Some(self.since + HELLO_TIMEOUT),
        }
    }

    pub(super) fn on_time(&mut self) -> Result<(), Lost> {
        let silent = self.permit.is_none() && self.since.elapsed() >= HELLO_TIMEOUT;
        self.look_at_permit();
        match silent {
            true => Err(Lost(None)),
            false => Ok(()),
        }
    }

    /// Asks the hook.
    pub(super) fn enter(&mut self, token: AccessToken) {
        self.is_entering = true;
        let (access, request) = (self.node.access.clone(), self.request.clone());
        self.asked.push(Box::pin(async move {
            let visitor = Visitor::new(token.as_str(), request.as_deref());
            Answer::Entered(access::enter(&*access, visitor).await)
        }));
    }

    pub(super) fn entered(&mut self, permit: Result<Given, NotGiven>) {
        self.is_entering = false;
        let is_new = self.permit.is_none();
        match permit {
            Ok(permit) => {
                let ended: Vec<_> = self
                    .server
                    .subscriptions()
                    .filter(|(_, filter)| !permit.may_subscribe(filter))
                    .map(|(key, _)| key)
                    .collect();
                self.permit = Some(permit);
                for key in ended {
                    self.end(key, SubscriptionEnd::NotAllowed, "");
                }
                if is_new {
                    self.welcome();
                }
            }
            Err(why) => self.not_entered(is_new, &why),
        }
    }

    pub(super) fn not_entered(&mut self, is_new: bool, why: &NotGiven) {
        let (reject, end, text) = match why {
            NotGiven::Denied(Denied(text)) => {
                let (reject, end) = (RejectReason::NotAllowed, SubscriptionEnd::NotAllowed);
                (reject, end, text.as_str())
            }
            NotGiven::Unavailable(text) => {
                let (reject, end) = (RejectReason::Unavailable, SubscriptionEnd::Unavailable);
                (reject, end, *text)
            }
        };
        if is_new {
            let reject = ServerReject::new(reject, Duration::ZERO, text);
            return self.server.reject(reject);
        }
        self.permit = Some(Given::nothing());
        self.server.end_all(end, text);
        self.interests.clear();
    }

    pub(super) fn welcome(&mut self) {
        let log = self.log();
        if let Some(why) = log.ended().cloned() {
            let reject = ServerReject::new(RejectReason::Unavailable, Duration::ZERO, &why);
            return self.server.reject(reject);
        }
        let bounds = log.tail.bounds();
        let durability = log.store.durability();
        let once = log.store.once();
        let once = once.map(|once| once.saturating_sub(once / ONCE_MARGIN));
        let info = LogInfo::new(log.store.id(), bounds.first, bounds.last, durability).once(once);
        self.server.welcome(&info);
    }

    /// Ends what the permit allowed, if it has expired.
    pub(super) fn look_at_permit(&mut self) {
        if self.permit.as_ref().is_some_and(Given::has_expired) {
            self.permit = Some(Given::nothing());
            self.server.expire();
            self.interests.clear();
        }
    }
}
