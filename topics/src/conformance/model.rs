//! A store does what a simple model does, whatever happens in whatever order.

use std::{
    collections::HashMap,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use unstall_proto::{
    Kind,
    topics::{Offset, Publisher, Topic},
};

use super::{Stores, places::latest, tools::*};
use crate::store::{Appended, Publication, Seek, Store, StoreError, Stored};

const TOPICS: [&str; 8] = ["a", "a.b", "a.c", "a.b.c", "b", "b.b", "b.c", "c"];
const FILTERS: [&str; 12] = [
    ">", "a", "a.b", "a.*", "a.>", "*", "*.b", "*.*", "b.>", "c", "none", "*.*.*",
];
const STEPS: usize = 60;
const TIME: Duration = Duration::from_secs(3);

/// Random appends, reads, searches, removals and restarts give what a model of a few lines gives.
///
/// # Panics
/// If it does not hold. The seed was printed before.
pub async fn it_does_what_a_simple_model_does(stores: &dyn Stores) {
    let number = |name| {
        env::var(name)
            .ok()
            .map(|it: String| it.parse::<u64>().unwrap())
    };
    let (first, count) = match (number("UNSTALL_SEED"), number("UNSTALL_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (0, count.unwrap_or(u64::MAX)),
    };
    let begin = Instant::now();
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        // Without a count, as many as a normal run of the tests has time for.
        if count == u64::MAX && begin.elapsed() > TIME {
            break;
        }
        println!("UNSTALL_SEED={seed}");
        let mut world = World {
            store: empty(stores).await,
            random: Rng::with_seed(seed),
            written: Vec::new(),
            publishers: HashMap::new(),
            ids: [publisher(1), publisher(1), publisher(1)],
        };
        for _ in 0..STEPS {
            world.step(stores).await;
        }
    }
}

struct World {
    store: Arc<dyn Store>,
    random: Rng,
    /// What has to be in the log.
    written: Vec<Stored>,
    /// The highest number of each publisher, and the offset of each.
    publishers: HashMap<[u8; 16], HashMap<u64, Offset>>,
    ids: [Publisher; 3],
}

impl World {
    async fn step(&mut self, stores: &dyn Stores) {
        match self.random.u32(..100) {
            0..35 => self.append().await,
            35..60 => self.read().await,
            60..75 => self.read_latest().await,
            75..85 => self.seek().await,
            85..94 => self.remove().await,
            _ => self.reopen(stores).await,
        }
        let bounds = self.store.bounds().await.unwrap();
        let first = self.written.first().map(|it| it.offset);
        assert_eq!(bounds.first, first.unwrap_or(offset(bounds.last.get() + 1)));
    }

    async fn append(&mut self) {
        let size = self.random.usize(..20);
        let batch: Vec<_> = (0..size).map(|_| self.publication()).collect();
        let answers = self.store.append(batch.clone()).await.unwrap();
        assert_eq!(answers.len(), size);
        let known = self.written.len();
        for (publication, answer) in batch.into_iter().zip(answers) {
            let numbers = publication.publisher.map(|(publisher, number)| {
                (self.publishers.entry(publisher.id).or_default(), number)
            });
            match numbers {
                Some((numbers, number)) if numbers.contains_key(&number) => {
                    let Appended::Before(told) = answer else {
                        panic!("{publication:?} was stored before, but: {answer:?}");
                    };
                    assert!(told.is_none() || told == Some(numbers[&number]));
                }
                numbers => {
                    let stored = stored(publication, answer);
                    if let Some((numbers, number)) = numbers {
                        numbers.insert(number, stored.offset);
                    }
                    self.written.push(stored);
                }
            }
        }
        learn_times(&*self.store, &mut self.written[known..]).await;
    }

    /// A message, perhaps one that was published before.
    fn publication(&mut self) -> Publication {
        let topic = self.random.choice(TOPICS).unwrap();
        // Some are so long that a few of them are more than is read at once.
        let longest = match self.random.u32(..20) {
            0 => 400_000,
            _ => 300,
        };
        let payload = vec![b'x'; self.random.usize(..longest)];
        let kind = match self.random.bool() {
            true => Kind::Text,
            false => Kind::Binary,
        };
        let mut publication = Publication::new(Topic::new(topic).unwrap(), kind, payload);
        publication.is_final = self.random.u32(..10) == 0;
        if self.random.bool() {
            let publisher = self.random.choice(self.ids).unwrap();
            let known = self.publishers.get(&publisher.id);
            let highest = known.map_or(0, |numbers| numbers.len() as u64);
            // Within a batch the next number may come several times, which is a duplicate.
            let number = match self.random.u32(..4) {
                0 if highest > 0 => self.random.u64(1..=highest),
                _ => highest + 1,
            };
            publication.publisher = Some((publisher, number));
        }
        publication
    }

    /// A filter, and two places in order.
    fn range(&mut self) -> (&'static str, (Offset, Offset)) {
        let name = self.random.choice(FILTERS).unwrap();
        let last = self.written.last().map_or(0, |it| it.offset.get());
        let places = [self.random.u64(..=last), self.random.u64(..=last)];
        let (after, through) = (places[0].min(places[1]), places[0].max(places[1]));
        match self.random.bool() {
            true => (name, (Offset::START, offset(last))),
            false => (name, (offset(after), offset(through))),
        }
    }

    fn chunk(&mut self) -> usize {
        self.random
            .choice([1, 300, 5_000, 200_000, usize::MAX])
            .unwrap()
    }

    async fn read(&mut self) {
        let (name, (after, through)) = self.range();
        let max_bytes = self.chunk();
        let found = read_between(&*self.store, name, (after, through), max_bytes).await;
        let mut expected = matching(&self.written, name);
        expected.retain(|it| after < it.offset && it.offset <= through);
        assert_eq!(found, expected, "{name} from {after} to {through}");
    }

    async fn read_latest(&mut self) {
        let (name, (after, through)) = self.range();
        let max_bytes = self.chunk();
        let found = latest_between(&*self.store, name, (after, through), max_bytes).await;
        let expected = latest(&self.written, name, after, through);
        assert_eq!(found, expected, "{name} from {after} to {through}");
    }

    async fn seek(&mut self) {
        let end = self.store.bounds().await.unwrap().last;
        let name = self.random.choice(FILTERS).unwrap();
        let all = matching(&self.written, name);
        let count = self.random.u32(1..30);
        let last = Seek::Last {
            filter: filter(name),
            count,
        };
        let sought = self.store.seek(last).await.unwrap();
        let found = read_between(&*self.store, name, (sought, end), usize::MAX).await;
        let missing = all.len().saturating_sub(count as usize);
        assert_eq!(found, all[missing..], "the last {count} of {name}");
        if let Some(some) = self.random.choice(&self.written) {
            let sought = self.store.seek(Seek::Since(some.time)).await.unwrap();
            let mut expected = self.written.clone();
            expected.retain(|it| it.time >= some.time);
            let found = read_between(&*self.store, ">", (sought, end), usize::MAX).await;
            assert_eq!(found, expected, "since {:?}", some.time);
        }
    }

    async fn remove(&mut self) {
        let through = match self.random.u32(..6) {
            0 => Offset::MAX,
            _ => {
                let some = self.random.choice(&self.written);
                some.map_or(Offset::START, |it| it.offset)
            }
        };
        match self.store.remove_through(through).await {
            Ok(()) => self.written.retain(|it| it.offset > through),
            Err(StoreError::Unsupported(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn reopen(&mut self, stores: &dyn Stores) {
        // The last handle is given away, so another log takes its place meanwhile.
        let spare = empty(stores).await;
        let store = std::mem::replace(&mut self.store, spare);
        match stores.reopen(store, roomy()).await {
            Some(store) => self.store = store,
            None => {
                self.written.clear();
                self.publishers.clear();
            }
        }
    }
}
