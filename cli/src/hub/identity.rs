//! Who a visitor is, what it may do, and how its publishers are kept apart from those of others.

use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use unstall_topics::{Filter, Grants, Permit, Publisher, Topic};

/// Who a visitor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The hub asks nobody.
    Anybody,
    /// The token says it.
    Named(String),
    /// The hash of a token that does not say it.
    Token(Vec<u8>),
}

/// What a visitor may do.
#[derive(Debug)]
pub(super) struct Pass {
    grants: Grants,
    identity: Identity,
    is_operator: bool,
}

impl Pass {
    pub(super) fn new(grants: Grants, identity: Identity) -> Pass {
        Pass {
            grants,
            identity,
            is_operator: false,
        }
    }

    /// Says whether the visitor may see how the hub is doing. By default it may not.
    pub(super) fn operator(mut self, is_operator: bool) -> Pass {
        self.is_operator = is_operator;
        self
    }

    /// Whether the visitor may see how the hub is doing.
    pub(super) fn is_operator(&self) -> bool {
        self.is_operator
    }

    /// The visitor's name, if its token has one.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.identity {
            Identity::Named(name) => Some(name),
            Identity::Anybody | Identity::Token(_) => None,
        }
    }

    /// The publisher that an idempotency key stands for. It publishes one message.
    ///
    /// Whoever finds a key with the same publisher could swallow that message. So the hash is one
    /// that nobody can aim at, and each part of it has its length before it: no other identity,
    /// topic or key gives the same bytes.
    pub(super) fn publisher_of(&self, topic: &Topic, key: &[u8]) -> Publisher {
        Publisher {
            id: self.hashed(b"http", &[topic.as_str().as_bytes(), key]),
            epoch: 1,
        }
    }

    fn hashed(&self, domain: &[u8], parts: &[&[u8]]) -> [u8; 16] {
        let (kind, identity): (&[u8], &[u8]) = match &self.identity {
            Identity::Anybody => (b"anybody", b""),
            Identity::Named(name) => (b"named", name.as_bytes()),
            Identity::Token(hash) => (b"token", hash),
        };
        let mut context = Context::new(&SHA256);
        for part in [domain, kind, identity].iter().chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut id = [0; 16];
        let hash = context.finish();
        id.iter_mut()
            .zip(hash.as_ref())
            .for_each(|(to, from)| *to = *from);
        // All zero means no publisher.
        id[0] |= 1;
        id
    }
}

impl Permit for Pass {
    fn may_publish(&self, topic: &Topic) -> bool {
        self.grants.may_publish(topic)
    }

    fn may_subscribe(&self, filter: &Filter) -> bool {
        self.grants.may_subscribe(filter)
    }

    fn expires(&self) -> Option<SystemTime> {
        self.grants.expires()
    }

    /// A visitor with a name has publishers of its own. Without one, nothing stays the same when its
    /// token is renewed, so the id that it drew has to be secret enough.
    fn publisher(&self, publisher: Publisher) -> Publisher {
        match self.identity {
            Identity::Named(_) => Publisher {
                id: self.hashed(b"websocket", &[&publisher.id]),
                epoch: publisher.epoch,
            },
            Identity::Anybody | Identity::Token(_) => publisher,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(identity: Identity) -> Pass {
        Pass::new(Grants::all(), identity)
    }

    #[test]
    fn another_identity_topic_or_key_is_another_publisher() {
        let named = |name: &str| pass(Identity::Named(name.to_owned()));
        let topic = |name: &str| Topic::new(name).unwrap();
        let ids = [
            pass(Identity::Anybody).publisher_of(&topic("a"), b"key"),
            pass(Identity::Token(b"ann".to_vec())).publisher_of(&topic("a"), b"key"),
            named("ann").publisher_of(&topic("a"), b"key"),
            named("anna").publisher_of(&topic("a"), b"key"),
            named("ann").publisher_of(&topic("ak"), b"ey"),
            named("ann").publisher_of(&topic("a"), b"key2"),
        ];
        for (at, one) in ids.iter().enumerate() {
            assert!(ids.iter().skip(at + 1).all(|other| one.id != other.id));
        }
        let again = named("ann").publisher_of(&topic("a"), b"key");
        assert_eq!(again.id, ids[2].id, "and the same is the same");
    }

    #[test]
    fn a_visitor_with_a_name_cannot_take_the_publisher_of_another() {
        let ann = pass(Identity::Named("ann".into()));
        let eve = pass(Identity::Named("eve".into()));
        let drawn = Publisher {
            id: [7; 16],
            epoch: 3,
        };
        let (of_ann, of_eve) = (ann.publisher(drawn), eve.publisher(drawn));
        assert_ne!(of_ann.id, of_eve.id);
        assert_eq!((of_ann, of_ann.epoch), (ann.publisher(drawn), 3));
        // Nor that of an idempotency key.
        let keyed = ann.publisher_of(&Topic::new("a").unwrap(), b"key");
        assert_ne!(ann.publisher(keyed).id, keyed.id);
        assert_eq!(pass(Identity::Anybody).publisher(drawn), drawn);
    }
}
