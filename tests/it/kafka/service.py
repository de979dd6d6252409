"""A service behind Kafka in Python: reads COUNT orders in a group, answers each, and prints what it read, a JSON line each.

Usage: service.py BROKER ORDERS REPLIES COUNT
"""

import json
import sys

from kafka import KafkaConsumer, KafkaProducer

broker, orders, replies, count = sys.argv[1:]

consumer = KafkaConsumer(
    orders,
    bootstrap_servers=broker,
    group_id=f"{orders}-service",
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    consumer_timeout_ms=60_000,
)
producer = KafkaProducer(bootstrap_servers=broker, acks="all")


def answer(record, headers):
    order = json.loads(record.value)
    subject = headers["ce_subject"]
    is_refused = order["customerId"].startswith("refuse")
    if is_refused:
        kind, body = "ConsumerRejected", {"problems": [{"code": "not-today", "title": "Not today"}]}
    else:
        kind, body = "ConsumerValidated", {}
    cloud_event = {
        "ce_specversion": "1.0",
        "ce_id": f"{subject}-consumer",
        "ce_type": kind,
        "ce_source": "/python/consumers",
        "ce_subject": subject,
    }
    producer.send(
        replies,
        key=record.key,
        value=json.dumps(body).encode(),
        headers=[(name, value.encode()) for name, value in cloud_event.items()],
    )
    # The plainest form: no CloudEvent at all.
    producer.send(
        replies,
        value=json.dumps({"type": "OrderDetailsValidated"}).encode(),
        headers=[("sluice-order-id", subject.encode())],
    )


seen = 0
for record in consumer:
    headers = {name: value.decode() for name, value in record.headers}
    answer(record, headers)
    shown = {
        "key": record.key.decode(),
        "headers": headers,
        "value": record.value.decode(),
        "timestamp": record.timestamp,
    }
    print(json.dumps(shown))
    seen += 1
    if seen == int(count):
        break
producer.flush()
consumer.commit()
consumer.close()
