//! Rights on topics, by Kafka's own protocol: `CreateAcls` and `DeleteAcls`, which librdkafka offers to C only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CREATE: i16 = 30;
const DELETE: i16 = 31;
const VERSION: i16 = 1;

const TOPIC: u8 = 2;
const ANY_PATTERN: u8 = 1;
const LITERAL: u8 = 3;
const ANY: u8 = 1;

pub(super) const DENY: u8 = 2;
pub(super) const ALLOW: u8 = 3;

/// What somebody may do to a topic; the numbers are the protocol's.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Describe = 8,
}

pub(super) fn create(address: &str, user: &str, operation: Operation, topic: &str, permission: u8) {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    body.push(TOPIC);
    text(&mut body, topic);
    body.push(LITERAL);
    text(&mut body, &format!("User:{user}"));
    text(&mut body, "*");
    body.extend([operation as u8, permission]);
    let answer = ask(address, CREATE, &body);
    // Correlation, throttle, count; then error and message of the one.
    let error = i16::from_be_bytes([answer[12], answer[13]]);
    assert_eq!(error, 0, "Kafka makes no such right: {}", String::from_utf8_lossy(&answer[14..]));
}

pub(super) fn delete(address: &str, topic: &str) {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    body.push(TOPIC);
    text(&mut body, topic);
    body.push(ANY_PATTERN);
    // Whoever, from wherever.
    body.extend([0xff, 0xff, 0xff, 0xff]);
    body.extend([ANY, ANY]);
    let answer = ask(address, DELETE, &body);
    let error = i16::from_be_bytes([answer[12], answer[13]]);
    assert_eq!(error, 0, "Kafka forgets no rights: {}", String::from_utf8_lossy(&answer[14..]));
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend(text.as_bytes());
}

fn ask(address: &str, request: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(request.to_be_bytes());
    frame.extend(VERSION.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    text(&mut frame, "tests");
    frame.extend(body);
    let mut socket = TcpStream::connect(address).expect("the broker takes connections");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit is not zero");
    socket.write_all(&u32::try_from(frame.len()).expect("a short request").to_be_bytes()).expect("the broker reads");
    socket.write_all(&frame).expect("the broker reads");
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("the broker answers");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut answer).expect("the broker answers in full");
    answer
}
