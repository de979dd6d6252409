//! Three brokers that are one cluster: the first is the controller too, the others can be killed.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::{Kafka, LIMIT, block_on};
use crate::environment;
use crate::wait::wait_until;

/// Any 16 bytes in base64.
const ID: &str = "c2x1aWNlLXRlc3RzLTAwMQ";
/// Every partition is on all three, with each of the two that can be killed as leader of half of them.
const REPLICAS: [[i32; 3]; 4] = [[2, 3, 1], [3, 1, 2], [2, 1, 3], [3, 2, 1]];

/// A cluster of three; it ends when dropped.
pub struct Cluster {
    brokers: Vec<Kafka>,
}

/// Who leads a partition and who has all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub leader: i32,
    pub in_sync: Vec<i32>,
}

impl Cluster {
    /// Starts one. `None`, said loudly, where the environment names no Kafka to take the jars from.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(original) = environment::kafka_folder() else {
            environment::say("SKIPPED: tests with a cluster of Kafka need SLUICE_TEST_KAFKA_FOLDER");
            return None;
        };
        let common = [
            "offsets.topic.replication.factor=3",
            "offsets.topic.num.partitions=4",
            // Who is dead is missed soon.
            "broker.session.timeout.ms=3000",
            "broker.heartbeat.interval.ms=500",
        ]
        .map(str::to_owned);
        let first = Kafka::start(&original, "cluster-1", &common, ID);
        let controller = first.port + 1;
        let more = |number: u8| {
            let mut settings = common.to_vec();
            settings.extend([
                format!("node.id={number}"),
                "process.roles=broker".to_owned(),
                format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller}"),
                "listeners=PLAINTEXT://127.0.0.1:@PORT@".to_owned(),
                "advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@".to_owned(),
            ]);
            Kafka::start(&original, &format!("cluster-{number}"), &settings, ID)
        };
        let cluster = Self { brokers: vec![first, more(2), more(3)] };
        wait_until("three brokers", LIMIT, || match cluster.brokers_known() {
            Ok(3) => Ok(()),
            other => Err(other),
        });
        Some(cluster)
    }

    /// `host:port` of each, as a client is told.
    #[must_use]
    pub fn address(&self) -> String {
        self.brokers.iter().map(Kafka::address).collect::<Vec<_>>().join(",")
    }

    /// Creates a topic of four partitions, of which two brokers must have whatever is acknowledged.
    ///
    /// # Panics
    ///
    /// When the cluster refuses.
    pub fn create_topic(&self, name: &str) {
        let replicas: Vec<&[i32]> = REPLICAS.iter().map(<[i32; 3]>::as_slice).collect();
        let topic = NewTopic::new(name, 4, TopicReplication::Variable(&replicas))
            .set("min.insync.replicas", "2")
            .set("max.message.bytes", "4194304");
        let admin = self.admin();
        let results = block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(LIMIT))));
        for result in results.expect("Kafka answers") {
            result.unwrap_or_else(|(topic, error)| panic!("Kafka did not create {topic}: {error}"));
        }
        self.wait_until_whole(name);
    }

    /// How each partition of a topic stands.
    ///
    /// # Errors
    ///
    /// The cluster does not say.
    pub fn standing(&self, topic: &str) -> Result<Vec<Standing>, String> {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), Duration::from_secs(5));
        let metadata = metadata.map_err(|error| error.to_string())?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.map(|part| Standing { leader: part.leader(), in_sync: part.isr().to_vec() }).collect())
    }

    /// Waits until every broker has all of a topic.
    pub fn wait_until_whole(&self, topic: &str) {
        wait_until("all replicas in sync", LIMIT, || match self.standing(topic) {
            Ok(all) if all.len() == 4 && all.iter().all(|part| part.in_sync.len() == 3) => Ok(()),
            other => Err(other),
        });
    }

    /// Kills a broker but the first as `kill -9` does, and waits until others lead what it led.
    ///
    /// # Panics
    ///
    /// When it leads nothing of the topic: its death would show nothing.
    pub fn kill_leader(&self, broker: i32, topic: &str) {
        let led = |all: &[Standing]| all.iter().filter(|part| part.leader == broker).count();
        let before = self.standing(topic).expect("the cluster answers");
        assert!(led(&before) > 0, "broker {broker} leads nothing: {before:?}");
        self.brokers[Self::place(broker)].kill9();
        wait_until("other leaders", LIMIT, || match self.standing(topic) {
            Ok(all) if led(&all) == 0 && all.iter().all(|part| part.leader > 0) => Ok(()),
            other => Err(other),
        });
    }

    /// Starts a broker again with its data.
    pub fn start_again(&mut self, broker: i32) {
        self.brokers[Self::place(broker)].start_again();
    }

    fn place(broker: i32) -> usize {
        usize::try_from(broker - 1).expect("brokers count from one")
    }

    fn brokers_known(&self) -> Result<usize, String> {
        let metadata = self.admin().inner().fetch_metadata(None, Duration::from_secs(5));
        metadata.map(|metadata| metadata.brokers().len()).map_err(|error| error.to_string())
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().expect("an admin client")
    }
}
