//! Whose fault it is that a record is not on Kafka: every error code of librdkafka, sorted one by one.
//!
//! Pure. What can go away by itself librdkafka mostly waits for, or retries without end (`message.timeout.ms=0`): such a
//! code is in the table for the case that it is reported all the same.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{DeliveryFault, SendError};

/// Who is at fault, and so what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nobody that could be told: the broker is away or asks for time. Records wait in the producer.
    Wait,
    /// The cluster is between two states, such as a leader that moves. The same record passes a moment later.
    Retry,
    /// The record, or another one of its batch: a dead letter once it is known to be this one.
    Record,
    /// The topic or the cluster, or what we may do there: no record for it would fare better. It stops.
    Destination,
    /// The producer's own state: it is done for, and another one sends the same record.
    Producer,
    /// Not about producing (groups, transactions, administration): it is not expected, and treated as the producer's.
    Foreign,
}

/// Who is at fault; a code that a newer librdkafka may bring is the producer's, since that loses nothing.
pub(super) fn blame(code: RDKafkaErrorCode) -> Blame {
    sorted(code).unwrap_or(Blame::Producer)
}

/// The table; a test holds every code of the library against it.
#[expect(clippy::too_many_lines, reason = "one line per code is the point")]
fn sorted(code: RDKafkaErrorCode) -> Option<Blame> {
    use RDKafkaErrorCode as C;
    Some(match code {
        // Local: no connection, or no address for it. librdkafka connects again with its own backoff.
        C::BrokerTransportFailure | C::AllBrokersDown | C::Resolve | C::NodeUpdate | C::WaitCache
        // The producer's queue has no room; delivery reports make some.
        | C::QueueFull
        // Quotas are waited for: the broker holds the connection back meanwhile.
        | C::ThrottlingQuotaExceeded => Blame::Wait,

        // The leader moves, or a broker comes or goes: fresh metadata tells where the partition is.
        C::LeaderNotAvailable
        | C::NotLeaderForPartition
        | C::BrokerNotAvailable
        | C::ReplicaNotAvailable
        | C::FencedLeaderEpoch
        | C::UnknownLeaderEpoch
        | C::StaleBrokerEpoch
        | C::DestroyBroker
        | C::UnknownBroker
        | C::ListenerNotFound
        | C::PreferredLeaderNotAvailable
        | C::EligibleLeadersNotAvailable
        | C::RebootstrapRequired
        // Replicas are missing: the record is safe once they are back, and not before (`min.insync.replicas`).
        | C::NotEnoughReplicas
        | C::NotEnoughReplicasAfterAppend
        | C::ISRInsufficient
        // The disk of a replica failed: another one takes over.
        | C::KafkaStorageError
        // Nobody knows whether it arrived; the sequence number makes the repeat harmless.
        | C::RequestTimedOut
        | C::OperationTimedOut
        | C::TimedOutQueue
        | C::MessageTimedOut
        | C::NetworkException
        // Damaged on the way: the broker's checksum did not hold.
        | C::InvalidMessage
        // Who gives producer ids is not there yet.
        | C::CoordinatorLoadInProgress
        | C::CoordinatorNotAvailable
        | C::NotCoordinator
        | C::WaitingForCoordinator
        | C::NotController
        | C::Retry => Blame::Retry,

        // Larger than the topic or the broker takes.
        C::MessageSizeTooLarge | C::MessageBatchTooLarge | C::InvalidMessageSize
        // The broker read it and will not have it: no key on a compacted topic, a time out of the topic's range.
        | C::InvalidRecord | C::InvalidTimestamp
        // A rule of the operator's on the broker or on a proxy before it.
        | C::PolicyViolation
        | C::KeySerialization | C::ValueSerialization => Blame::Record,

        // There is no such topic or partition, or not the one that was known.
        C::UnknownTopic
        | C::UnknownPartition
        | C::UnknownTopicOrPartition
        | C::UnknownTopicId
        | C::InvalidTopic
        | C::ReadOnly
        // The broker could not create it by itself.
        | C::InvalidPartitions
        | C::InvalidReplicationFactor
        | C::InvalidReplicaAssignment
        | C::InvalidConfig
        // We may not.
        | C::TopicAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed
        | C::SecurityDisabled
        // Nobody believes who we say we are, or we do not believe the broker.
        | C::Authentication
        | C::SaslAuthenticationFailed
        | C::UnsupportedSASLMechanism
        | C::IllegalSASLState
        | C::DelegationTokenAuthDisabled
        | C::DelegationTokenNotFound
        | C::DelegationTokenAuthorizationFailed
        | C::DelegationTokenExpired
        | C::PrincipalDeserializationFailure
        | C::SSL
        // The broker, or the topic's format, does not know what our records need.
        | C::InvalidRequiredAcks
        | C::UnsupportedVersion
        | C::UnsupportedFeature
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType
        | C::UnknownProtocol => Blame::Destination,

        // It said so itself.
        C::Fatal
        | C::GaplessGuarantee
        | C::Inconsistent
        | C::State
        // It was emptied or destroyed: by us, or after a fatal error.
        | C::PurgeQueue
        | C::PurgeInflight
        | C::BrokerDestroy
        // Its sequence is broken, or the broker has forgotten it.
        | C::OutOfOrderSequenceNumber
        | C::DuplicateSequenceNumber
        | C::UnknownProducerId
        | C::InvalidProducerEpoch
        | C::InvalidProducerIdMapping
        | C::ProducerFenced
        | C::Fenced
        // Not this record's fault but another one's in the batch.
        | C::InvalidDifferentRecord
        // What it sent or got made no sense.
        | C::InvalidRequest
        | C::InvalidArgument
        | C::BadMessage
        | C::Underflow
        | C::InvalidType
        | C::Partial
        | C::CriticalSystemResource
        | C::Interrupted
        | C::NotImplemented
        | C::Application
        | C::Fail
        | C::Unknown => Blame::Producer,

        // No error.
        C::NoError | C::Noop
        // Consuming.
        | C::PartitionEOF
        | C::OffsetOutOfRange
        | C::OffsetNotAvailable
        | C::NoOffset
        | C::AutoOffsetReset
        | C::LogTruncation
        | C::BadCompression
        | C::KeyDeserialization
        | C::ValueDeserialization
        | C::FetchSessionIdNotFound
        | C::InvalidFetchSessionEpoch
        | C::FileSystem
        // Groups.
        | C::UnknownGroup
        | C::ExistingSubscription
        | C::AssignPartitions
        | C::RevokePartitions
        | C::AssignmentLost
        | C::PollExceeded
        | C::Conflict
        | C::InProgress
        | C::PreviousInProgress
        | C::Outdated
        | C::OffsetMetadataTooLarge
        | C::IllegalGeneration
        | C::InconsistentGroupProtocol
        | C::InvalidGroupId
        | C::UnknownMemberId
        | C::InvalidSessionTimeout
        | C::RebalanceInProgress
        | C::InvalidCommitOffsetSize
        | C::GroupAuthorizationFailed
        | C::NonEmptyGroup
        | C::GroupIdNotFound
        | C::MemberIdRequired
        | C::GroupMaxSizeReached
        | C::FencedInstanceId
        | C::GroupSubscribedToTopic
        | C::UnstableOffsetCommit
        | C::FencedMemberEpoch
        | C::UnreleasedInstanceId
        | C::UnsupportedAssignor
        | C::StaleMemberEpoch
        // Transactions, of which there are none.
        | C::NotConfigured
        | C::InvalidTransactionalState
        | C::InvalidTransactionTimeout
        | C::ConcurrentTransactions
        | C::TransactionCoordinatorFenced
        // Administration, and brokers among each other.
        | C::NoEnt
        | C::TopicAlreadyExists
        | C::StaleControllerEpoch
        | C::OperationNotAttempted
        | C::LogDirNotFound
        | C::ReassignmentInProgress
        | C::NoReassignmentInProgress
        | C::DelegationTokenOwnerMismatch
        | C::DelegationTokenRequestNotAllowed
        | C::InvalidPrincipalType
        | C::TopicDeletionDisabled
        | C::ElectionNotNeeded
        | C::ResourceNotFound
        | C::DuplicateResource
        | C::UnacceptableCredential
        | C::InconsistentVoterSet
        | C::InvalidUpdateVersion
        | C::FeatureUpdateFailed
        | C::UnknownSubscriptionId
        | C::TelemetryTooLarge => Blame::Foreign,

        _ => return None,
    })
}

/// What the operator can do about it; empty where there is nothing to do.
pub(super) fn advice(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as C;
    match code {
        C::UnknownTopic | C::UnknownTopicOrPartition | C::UnknownPartition | C::UnknownTopicId => {
            "create the topic, or correct its name in the configuration"
        }
        C::InvalidTopic => "correct the topic's name in the configuration",
        C::InvalidPartitions | C::InvalidReplicationFactor | C::InvalidReplicaAssignment | C::InvalidConfig => {
            "the broker could not create the topic by itself: create it"
        }
        C::TopicAuthorizationFailed => "let the gateway's user WRITE to the topic (and DESCRIBE it)",
        C::ClusterAuthorizationFailed | C::TransactionalIdAuthorizationFailed => {
            "let the gateway's user WRITE to its topics (before Kafka 2.8 also IDEMPOTENT_WRITE to the cluster)"
        }
        C::Authentication | C::SaslAuthenticationFailed | C::DelegationTokenExpired => {
            "correct the user, the password or the mechanism (`sasl.*`) in the configuration"
        }
        C::UnsupportedSASLMechanism | C::IllegalSASLState => {
            "name a mechanism that the broker has (`sasl.mechanism`) in the configuration"
        }
        C::SSL => "see that the certificates and `security.protocol` fit those of the broker",
        C::InvalidRequiredAcks | C::UnsupportedVersion | C::UnsupportedFeature | C::UnsupportedForMessageFormat => {
            "the broker is too old: Sluice needs Apache Kafka 2.1 or newer"
        }
        C::UnsupportedCompressionType => "choose another `compression.type` in the configuration",
        C::MessageSizeTooLarge | C::MessageBatchTooLarge | C::InvalidMessageSize => {
            "raise `max.message.bytes` of the topic, then redrive it"
        }
        C::InvalidTimestamp => "raise `message.timestamp.before.max.ms` of the topic, then redrive it",
        C::InvalidRecord | C::PolicyViolation => {
            "see the rules of the topic (`cleanup.policy`, policies), then redrive it"
        }
        _ => "",
    }
}

/// The code in words, and what can be done about it.
pub(super) fn reason(code: RDKafkaErrorCode) -> String {
    match advice(code) {
        "" => code.to_string(),
        advice => format!("{code}: {advice}"),
    }
}

/// What a failed delivery means; `is_alone` where the record was the only one of its batch.
pub(super) fn delivery(code: RDKafkaErrorCode, is_alone: bool) -> DeliveryFault {
    match blame(code) {
        Blame::Record if is_alone => DeliveryFault::Refused(reason(code)),
        Blame::Record => DeliveryFault::Broken(format!("its batch was refused: {code}")),
        Blame::Destination => DeliveryFault::Stopped(reason(code)),
        Blame::Wait | Blame::Retry | Blame::Producer | Blame::Foreign => DeliveryFault::Broken(code.to_string()),
    }
}

/// What it means that a record was not taken; there it is always alone.
pub(super) fn refusal(error: &KafkaError) -> SendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
        Some(code) => match blame(code) {
            Blame::Record => SendError::Refused(reason(code)),
            Blame::Destination => SendError::Stopped(reason(code)),
            Blame::Wait | Blame::Retry | Blame::Producer | Blame::Foreign => SendError::Broken(code.to_string()),
        },
        // The topic's name holds a zero byte.
        None => SendError::Stopped(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    /// The library's marks at the ends of its lists: no codes.
    const MARKS: [RDKafkaRespErr; 3] = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__BEGIN,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__END,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_END_ALL,
    ];

    #[test]
    fn every_code_of_the_library_is_sorted() {
        let codes = (-300..1_000).filter_map(|number| RDKafkaRespErr::try_from(number).ok());
        let codes: Vec<RDKafkaRespErr> = codes.filter(|code| !MARKS.contains(code)).collect();
        assert!(codes.len() > 150, "only {} codes were found", codes.len());
        let missing: Vec<_> =
            codes.into_iter().map(RDKafkaErrorCode::from).filter(|code| sorted(*code).is_none()).collect();
        assert!(missing.is_empty(), "give these a place in `sorted`: {missing:?}");
    }

    #[test]
    fn each_kind_of_error_is_blamed_on_the_right_one() {
        use RDKafkaErrorCode as C;
        for (code, expected) in [
            (C::AllBrokersDown, Blame::Wait),
            (C::BrokerTransportFailure, Blame::Wait),
            (C::NotLeaderForPartition, Blame::Retry),
            (C::NotEnoughReplicas, Blame::Retry),
            (C::RequestTimedOut, Blame::Retry),
            (C::MessageTimedOut, Blame::Retry),
            (C::MessageSizeTooLarge, Blame::Record),
            (C::MessageBatchTooLarge, Blame::Record),
            (C::InvalidRecord, Blame::Record),
            (C::InvalidTimestamp, Blame::Record),
            (C::InvalidDifferentRecord, Blame::Producer),
            (C::UnknownTopic, Blame::Destination),
            (C::UnknownPartition, Blame::Destination),
            (C::UnknownTopicOrPartition, Blame::Destination),
            (C::TopicAuthorizationFailed, Blame::Destination),
            (C::ClusterAuthorizationFailed, Blame::Destination),
            (C::Authentication, Blame::Destination),
            (C::UnsupportedForMessageFormat, Blame::Destination),
            (C::Fatal, Blame::Producer),
            (C::GaplessGuarantee, Blame::Producer),
            (C::PurgeQueue, Blame::Producer),
            (C::PurgeInflight, Blame::Producer),
            (C::OutOfOrderSequenceNumber, Blame::Producer),
            (C::NoOffset, Blame::Foreign),
        ] {
            assert_eq!(blame(code), expected, "{code:?}");
        }
    }

    /// Where somebody has to act, the message says how.
    #[test]
    fn who_is_to_act_is_told_what_to_do() {
        let codes = (-300..1_000).filter_map(|number| RDKafkaRespErr::try_from(number).ok());
        for code in codes.filter(|code| !MARKS.contains(code)).map(RDKafkaErrorCode::from) {
            let is_told = !advice(code).is_empty();
            match blame(code) {
                Blame::Wait | Blame::Retry | Blame::Producer | Blame::Foreign => assert!(!is_told, "{code:?}"),
                Blame::Record | Blame::Destination => {}
            }
        }
        let said = reason(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert!(said.contains("Topic authorization failed") && said.contains("let the gateway's user WRITE"), "{said}");
    }

    #[test]
    fn only_a_record_that_was_alone_is_refused() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        assert!(matches!(delivery(code, true), DeliveryFault::Refused(_)));
        assert!(matches!(delivery(code, false), DeliveryFault::Broken(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::TopicAuthorizationFailed, false), DeliveryFault::Stopped(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::PurgeQueue, true), DeliveryFault::Broken(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::NotLeaderForPartition, true), DeliveryFault::Broken(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::NoOffset, true), DeliveryFault::Broken(_)));
    }

    #[test]
    fn a_full_queue_is_no_fault() {
        let refusal = |code| refusal(&KafkaError::MessageProduction(code));
        assert_eq!(refusal(RDKafkaErrorCode::QueueFull), SendError::Full);
        assert!(matches!(refusal(RDKafkaErrorCode::MessageSizeTooLarge), SendError::Refused(_)));
        assert!(matches!(refusal(RDKafkaErrorCode::UnknownTopic), SendError::Stopped(_)));
        assert!(matches!(refusal(RDKafkaErrorCode::Fatal), SendError::Broken(_)));
    }
}
