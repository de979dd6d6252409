//! Questions to Kafka about offsets, and setting the group back. Everything here blocks.
//!
//! The group is set back where a database was restored from a backup: it has lost replies that the group counts as read.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Consuming, Position};

/// How long a question about where a partition begins may take.
const START_LIMIT: Duration = Duration::from_secs(5);

/// A moment up to which Kafka may take to answer.
#[derive(Clone, Copy)]
struct Until(Instant);

impl Until {
    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// How far the partitions of these topics reach, by fresh metadata.
pub(super) fn ends(consumer: &Consuming, topics: &[String], limit: Duration) -> KafkaResult<Vec<Position>> {
    let until = Until(Instant::now() + limit);
    let question = partitions(consumer, topics, Offset::End, until)?;
    if question.count() == 0 {
        return Ok(Vec::new());
    }
    let answer = consumer.offsets_for_times(question, until.left())?;
    let position = |topic: &str, partition, offset| match offset {
        Offset::Offset(next_offset) => Ok(Position { topic: topic.to_owned(), partition, next_offset }),
        _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)),
    };
    answer
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            position(element.topic(), element.partition(), element.offset())
        })
        .collect()
}

/// How far the group has read the partitions of these topics; those of which it has read nothing are left out.
pub(super) fn committed(consumer: &Consuming, topics: &[String], limit: Duration) -> KafkaResult<Vec<Position>> {
    let until = Until(Instant::now() + limit);
    let question = partitions(consumer, topics, Offset::Invalid, until)?;
    if question.count() == 0 {
        return Ok(Vec::new());
    }
    let answer = consumer.committed_offsets(question, until.left())?;
    let mut positions = Vec::new();
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(next_offset) = element.offset() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            positions.push(Position { topic, partition, next_offset });
        }
    }
    Ok(positions)
}

/// Every partition of these topics. A topic that does not exist has none.
fn partitions(
    consumer: &Consuming,
    topics: &[String],
    offset: Offset,
    until: Until,
) -> KafkaResult<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), until.left())?;
        for found in metadata.topics() {
            match found.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => continue,
                Some(code) => return Err(KafkaError::MetadataFetch(code)),
            }
            for partition in found.partitions() {
                all.add_partition_offset(found.name(), partition.id(), offset)?;
            }
        }
    }
    Ok(all)
}

/// Where reading starts: at the group's offset where the partition still has it, else at its beginning.
pub(super) fn starts(consumer: &Consuming, partitions: &[(String, i32)]) -> KafkaResult<Vec<Position>> {
    let mut question = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        question.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(question, START_LIMIT)?;
    let mut starts = Vec::with_capacity(partitions.len());
    for element in committed.elements() {
        let (topic, partition) = (element.topic().to_owned(), element.partition());
        let (low, high) = consumer.fetch_watermarks(&topic, partition, START_LIMIT)?;
        let next_offset = match element.offset() {
            Offset::Offset(offset) if (low..=high).contains(&offset) => offset,
            _ => low,
        };
        starts.push(Position { topic, partition, next_offset });
    }
    Ok(starts)
}

/// Commits offsets for a group without members, as a consumer that is none.
pub(super) fn set_back(settings: &ClientConfig, positions: &[Position]) -> KafkaResult<()> {
    let mut settings = settings.clone();
    settings.remove("group.instance.id");
    let consumer: BaseConsumer = settings.create()?;
    let mut offsets = TopicPartitionList::with_capacity(positions.len());
    for Position { topic, partition, next_offset } in positions {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next_offset))?;
    }
    consumer.commit(&offsets, CommitMode::Sync)
}
