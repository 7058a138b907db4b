//! What is remembered of one client: the messages that a new connection upstream needs.

mod document;
mod key;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use unstall::Message;

use self::{
    document::{merged, with_elements},
    key::{Key, keys},
};

use super::{
    limits,
    pool::Share,
    rules::{Act, Match, Rule, Rules},
};

/// The remembered messages of one client, in the order in which they were first remembered.
#[derive(Debug)]
pub(super) struct Memory {
    rules: Arc<Rules>,
    kept: BTreeMap<u64, Kept>,
    /// Under which number each key is kept.
    keys: HashMap<Key, u64>,
    next: u64,
    share: Share,
    /// The client has sent a message.
    begun: bool,
}

/// A remembered message. With `each`, as much of it as was not replaced or forgotten.
struct Kept {
    message: Message,
    rule: usize,
    /// Its keys, and where the element of each key is in the lists of `each`.
    parts: HashMap<Key, Box<[usize]>>,
    /// How many keys it had at first.
    whole: usize,
}

impl fmt::Debug for Kept {
    /// Its message may have a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("rule", &self.rule)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

/// A message to send again.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) message: Message,
    /// The number of its rule.
    pub(super) rule: usize,
}

/// How a message of the client counts when the connection upstream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    /// The new connection gets what it said.
    Yes,
    /// Nobody knows whether upstream has it, unless it was never written.
    No,
    /// As `No`, and it does no harm.
    MayBeLost,
}

/// There is no room for a message that has to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// In the memory of this client.
    Client,
    /// In all of them together.
    All,
}

impl Memory {
    /// `share`: of what is remembered of all clients.
    pub(super) fn new(rules: Arc<Rules>, share: Share) -> Memory {
        Memory {
            rules,
            kept: BTreeMap::new(),
            keys: HashMap::new(),
            next: 0,
            share,
            begun: false,
        }
    }

    /// Takes note of a message that the client has sent.
    pub(super) fn note(&mut self, message: &Message) -> Result<Covered, Full> {
        let rules = self.rules.clone();
        let first = !std::mem::replace(&mut self.begun, true);
        let Some(found) = rules.matching(message, first) else {
            return Ok(Covered::No);
        };
        match found.rule.act {
            Act::MayBeLost => return Ok(Covered::MayBeLost),
            Act::Remember { group, merge } => self.remember(group, merge, message, &found)?,
            Act::Forget { group } => self.forget(group, &found)?,
        }
        Ok(Covered::Yes)
    }

    /// How a message counts that was noted, and that upstream did not get.
    pub(super) fn covered(&self, message: &Message) -> Covered {
        let found = self.rules.matching(message, false);
        match found.map(|found| found.rule.act) {
            Some(Act::Remember { .. } | Act::Forget { .. }) => Covered::Yes,
            Some(Act::MayBeLost) => Covered::MayBeLost,
            // It may have been the first one.
            None if self.kept.values().any(|kept| kept.message == *message) => Covered::Yes,
            None => Covered::No,
        }
    }

    /// The messages to send again.
    pub(super) fn replays(&self) -> Vec<Replay> {
        let mut replays = Vec::new();
        for kept in self.kept.values() {
            let rule = kept.rule;
            let of_rule = |message| Replay { message, rule };
            match kept.parts.len() == kept.whole {
                true => replays.push(of_rule(kept.message.clone())),
                false => replays.extend(kept.rest(self.rules.rule(rule)).map(of_rule)),
            }
        }
        replays
    }

    fn remember(
        &mut self,
        group: usize,
        merge: bool,
        message: &Message,
        found: &Match<'_>,
    ) -> Result<(), Full> {
        let parts = keys(group, found).ok_or(Full::Client)?;
        if parts.is_empty() {
            return Ok(());
        }
        let mut message = message.clone();
        let mut place = None;
        for key in parts.keys() {
            let Some(number) = self.keys.get(key).copied() else {
                continue;
            };
            if merge && let Some(earlier) = self.kept.get(&number) {
                message = merged(&earlier.message, &found.document);
            }
            if self.forget_key(key) {
                place = place.into_iter().chain([number]).min();
            }
        }
        let cost = message.len() + parts.keys().map(Key::cost).sum::<usize>();
        let fits = self.keys.len() + parts.len() <= limits::REMEMBERED_KEYS
            && self.share.bytes() + cost <= limits::REMEMBERED_BYTES;
        if !fits {
            return Err(Full::Client);
        }
        if !self.share.draw(cost) {
            return Err(Full::All);
        }
        let number = place.unwrap_or(self.next);
        self.next += 1;
        self.keys
            .extend(parts.keys().map(|key| (key.clone(), number)));
        let whole = parts.len();
        let rule = found.number;
        self.kept.insert(
            number,
            Kept {
                message,
                rule,
                parts,
                whole,
            },
        );
        Ok(())
    }

    /// Forgets every key that agrees with the message. A field that it does not have agrees with any.
    fn forget(&mut self, group: usize, found: &Match<'_>) -> Result<(), Full> {
        for key in keys(group, found).ok_or(Full::Client)?.into_keys() {
            if key.is_whole() {
                self.forget_key(&key);
                continue;
            }
            let agreeing = self.keys.keys().filter(|kept| key.agrees(kept));
            for key in agreeing.cloned().collect::<Vec<_>>() {
                self.forget_key(&key);
            }
        }
        Ok(())
    }

    /// Forgets a key. `true`: it was the last one of its message.
    fn forget_key(&mut self, key: &Key) -> bool {
        let Some(number) = self.keys.remove(key) else {
            return false;
        };
        let Some(kept) = self.kept.get_mut(&number) else {
            return false;
        };
        kept.parts.remove(key);
        let mut freed = key.cost();
        let is_last = kept.parts.is_empty();
        if is_last {
            freed += kept.message.len();
            self.kept.remove(&number);
        }
        self.share.give_back(freed);
        is_last
    }
}

impl Kept {
    /// The messages that say what is left of it.
    fn rest(&self, rule: &Rule) -> impl Iterator<Item = Message> {
        let document = serde_json::from_slice(self.message.as_bytes()).unwrap_or_default();
        let mut left: Vec<&[usize]> = self.parts.values().map(|at| &**at).collect();
        left.sort_unstable();
        let documents = with_elements(document, &rule.each, &left);
        documents
            .into_iter()
            .map(|document| Message::text(document.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::relay::pool::Pools;

    /// Rules with a key and two lists, as a feed with channels and products.
    const RULES: &str = r#"
        [[rule]]
        when = { "/op" = "login" }
        remember = "login"

        [[rule]]
        when = { "/op" = "set" }
        remember = "settings"
        merge = true

        [[rule]]
        when = { "/op" = "subscribe" }
        remember = "streams"
        key = ["/market"]
        each = ["/channels", "/products"]

        [[rule]]
        when = { "/op" = "unsubscribe" }
        forget = "streams"
        key = ["/market"]
        each = ["/channels", "/products"]

        [[rule]]
        when = { "/op" = "ping" }
        may_be_lost = true
    "#;

    fn memory() -> Memory {
        memory_of(&Pools::default())
    }

    fn memory_of(pools: &Pools) -> Memory {
        let rules = Arc::new(Rules::parse(RULES).unwrap());
        Memory::new(rules, pools.remembered.share())
    }

    fn note(memory: &mut Memory, what: Value) -> Result<Covered, Full> {
        memory.note(&Message::text(what.to_string()))
    }

    fn noted(memory: &mut Memory, what: Value) {
        assert_eq!(note(memory, what), Ok(Covered::Yes));
    }

    fn replays(memory: &Memory) -> Vec<Value> {
        let replays = memory.replays().into_iter();
        let parsed = replays.map(|it| serde_json::from_slice(it.message.as_bytes()).unwrap());
        parsed.collect()
    }

    #[test]
    fn a_message_replaces_the_earlier_one_of_its_key_at_its_place() {
        let mut memory = memory();
        noted(&mut memory, json!({"op": "login", "token": 1}));
        noted(&mut memory, json!({"op": "subscribe", "channels": ["a"]}));
        noted(&mut memory, json!({"op": "login", "token": 2}));
        assert_eq!(
            replays(&memory),
            [
                json!({"op": "login", "token": 2}),
                json!({"op": "subscribe", "channels": ["a"]})
            ]
        );
        assert_eq!(
            note(&mut memory, json!({"op": "ping"})),
            Ok(Covered::MayBeLost)
        );
        assert_eq!(note(&mut memory, json!({"op": "buy"})), Ok(Covered::No));
        assert_eq!(replays(&memory).len(), 2);
    }

    #[test]
    fn merged_messages_become_one_in_which_null_stays() {
        let mut memory = memory();
        noted(
            &mut memory,
            json!({"op": "set", "voice": {"name": "a", "speed": 1}}),
        );
        noted(
            &mut memory,
            json!({"op": "set", "voice": {"speed": null}, "list": [1]}),
        );
        noted(&mut memory, json!({"op": "set", "list": [2]}));
        let expected = json!({"op": "set", "voice": {"name": "a", "speed": null}, "list": [2]});
        assert_eq!(replays(&memory), [expected]);
    }

    #[test]
    fn what_is_whole_is_sent_byte_for_byte() {
        let mut memory = memory();
        let text = "{ \"op\":\"subscribe\",\n\"price\": 1.10, \"big\": 123456789012345678901234567890, \"channels\":[\"a\" ]}";
        memory.note(&Message::text(text)).unwrap();
        assert_eq!(memory.replays()[0].message.as_text(), Some(text));
    }

    #[test]
    fn of_lists_only_the_combinations_that_are_left_are_sent() {
        let mut memory = memory();
        let of = |op: &str, channels: &[&str], products: &[&str]| json!({"op": op, "market": 1, "channels": channels, "products": products});
        noted(&mut memory, of("subscribe", &["a", "b", "c"], &["x", "y"]));
        noted(&mut memory, of("unsubscribe", &["b"], &["x"]));
        assert_eq!(
            replays(&memory),
            [
                of("subscribe", &["a", "c"], &["x", "y"]),
                of("subscribe", &["b"], &["y"])
            ]
        );
        // Fields that are not there agree with any.
        noted(&mut memory, json!({"op": "unsubscribe", "channels": "a"}));
        noted(&mut memory, of("subscribe", &["c"], &["z"]));
        assert_eq!(
            replays(&memory),
            [
                of("subscribe", &["b"], &["y"]),
                of("subscribe", &["c"], &["x", "y"]),
                of("subscribe", &["c"], &["z"])
            ]
        );
        noted(&mut memory, json!({"op": "unsubscribe", "market": 2}));
        assert_eq!(replays(&memory).len(), 3);
        noted(&mut memory, json!({"op": "unsubscribe"}));
        assert_eq!((replays(&memory).len(), memory.share.bytes()), (0, 0));
    }

    #[test]
    fn the_last_key_and_the_last_byte_fit_and_one_more_does_not() {
        let mut memory = memory();
        let many =
            |count: usize| json!({"op": "subscribe", "products": (0..count).collect::<Vec<_>>()});
        noted(&mut memory, many(limits::REMEMBERED_KEYS));
        noted(&mut memory, many(limits::REMEMBERED_KEYS));
        let one_more = json!({"op": "subscribe", "products": "one more"});
        assert_eq!(note(&mut memory, one_more), Err(Full::Client));
        assert_eq!(
            note(&mut memory, many(limits::REMEMBERED_KEYS + 1)),
            Err(Full::Client)
        );
        let product = json!({
            "op": "subscribe",
            "channels": (0..1000).collect::<Vec<_>>(),
            "products": (0..1000).collect::<Vec<_>>(),
        });
        assert_eq!(note(&mut memory, product), Err(Full::Client));

        let login = |pad: usize| json!({"op": "login", "pad": "x".repeat(pad)});
        let fixed = login(0).to_string().len() + limits::REMEMBERED_KEY_BYTES;
        let most = limits::REMEMBERED_BYTES - fixed;
        let mut memory = self::memory();
        noted(&mut memory, login(most));
        assert_eq!(memory.share.bytes(), limits::REMEMBERED_BYTES);
        assert_eq!(note(&mut memory, login(most + 1)), Err(Full::Client));
    }

    #[test]
    fn all_clients_together_are_bounded_and_give_back_what_they_had() {
        let pools = Pools::default();
        let login = json!({"op": "login", "pad": "x".repeat(limits::REMEMBERED_BYTES - 1000)});
        let mut clients = Vec::new();
        let full = loop {
            let mut client = memory_of(&pools);
            match note(&mut client, login.clone()) {
                Ok(_) => clients.push(client),
                Err(full) => break full,
            }
        };
        assert_eq!(full, Full::All);
        assert_eq!(
            clients.len(),
            limits::REMEMBERED_TOTAL_BYTES / limits::REMEMBERED_BYTES
        );
        clients.pop();
        let mut client = memory_of(&pools);
        noted(&mut client, login);
        drop((client, clients));
        let mut all = pools.remembered.share();
        assert!(all.draw(limits::REMEMBERED_TOTAL_BYTES));
    }

    #[test]
    fn tokens_are_in_no_debug_output() {
        let mut memory = memory();
        noted(&mut memory, json!({"op": "login", "token": "s3cret"}));
        assert!(!format!("{memory:?}").contains("s3cret"));
    }

    fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(names), 0..4)
    }

    /// The pairs of a channel and a product that messages ask for.
    fn pairs(message: &Value) -> BTreeSet<(String, String)> {
        let list = |name: &str| message[name].as_array().cloned().unwrap_or_default();
        let products = list("products");
        let of = |channel: Value| {
            let products = products.iter().map(Value::to_string);
            products
                .map(move |product| (channel.to_string(), product))
                .collect::<Vec<_>>()
        };
        list("channels").into_iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn what_is_sent_again_asks_for_exactly_what_the_client_asked_for(
            story in prop::collection::vec(
                (any::<bool>(), some_of(&["a", "b", "c"]), some_of(&["x", "y", "z"])),
                0..12,
            ),
        ) {
            let mut memory = memory();
            let mut expected = BTreeSet::new();
            for (subscribes, channels, products) in story {
                let op = if subscribes { "subscribe" } else { "unsubscribe" };
                let message = json!({"op": op, "market": 1, "channels": channels, "products": products});
                prop_assert_eq!(note(&mut memory, message.clone()), Ok(Covered::Yes));
                match subscribes {
                    true => expected.extend(pairs(&message)),
                    false => expected.retain(|pair| !pairs(&message).contains(pair)),
                }
            }
            let again = replays(&memory);
            let asked: Vec<_> = again.iter().flat_map(pairs).collect();
            prop_assert_eq!(asked.len(), expected.len(), "none twice");
            prop_assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), expected);
            prop_assert!(again.iter().all(|message| message["market"] == 1));
            let drawn = memory.share.bytes();
            let kept = memory.kept.values();
            let counted: usize = kept.map(|kept| {
                kept.message.len() + kept.parts.keys().map(Key::cost).sum::<usize>()
            }).sum();
            prop_assert_eq!(drawn, counted);
        }
    }
}
