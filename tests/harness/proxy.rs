//! A TCP proxy between two parts, so that their connections can be cut, kept from being made, and held: a connection on
//! which nothing passes any more is what a frozen process, or a network that swallows everything, looks like to the peer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

#[derive(Debug, Default)]
struct State {
    is_closed: AtomicBool,
    is_over: AtomicBool,
    connections: Mutex<Connections>,
    holding: Mutex<Holding>,
    /// Raised when connections are let go of.
    let_go: Condvar,
}

/// Which connections are held, and by which words the next one will be.
#[derive(Debug, Default)]
struct Holding {
    words: Option<Vec<u8>>,
    held: BTreeSet<u64>,
}

impl State {
    fn holding(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().expect("no thread panicked")
    }

    /// Returns once what was read on a connection may go on.
    fn pass(&self, connection: u64, bytes: &[u8]) {
        let mut holding = self.holding();
        let said = |words: &Vec<u8>| bytes.windows(words.len()).any(|part| part == words);
        if holding.words.as_ref().is_some_and(said) {
            holding.words = None;
            holding.held.insert(connection);
        }
        while holding.held.contains(&connection) {
            holding = self.let_go.wait(holding).expect("no thread panicked");
        }
    }
}

/// Both ends of each connection, by its number.
#[derive(Debug, Default)]
struct Connections {
    last: u64,
    open: BTreeMap<u64, [TcpStream; 2]>,
}

/// A proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to `target`.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                // What does not connect is closed, as by a server that is not there.
                if !shared.is_closed.load(Ordering::SeqCst) {
                    drop(connect(client, target, &shared));
                }
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds the first connection on which somebody says these words, in one piece: neither they nor anything behind them
    /// passes, in no direction.
    pub fn hold_at(&self, words: &str) {
        self.state.holding().words = Some(words.as_bytes().to_vec());
    }

    /// How many connections are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.holding().held.len()
    }

    /// Lets what is held go on, and holds nothing more.
    pub fn let_go(&self) {
        *self.state.holding() = Holding::default();
        self.state.let_go.notify_all();
    }

    /// Ends every connection; returns how many there were.
    ///
    /// # Panics
    ///
    /// When one of its threads did.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.state.connections.lock().expect("no thread panicked").open);
        for end in open.values().flatten() {
            // It may have ended by itself.
            drop(end.shutdown(Shutdown::Both));
        }
        self.let_go();
        open.len()
    }

    /// Takes no new connection and ends those there are, or takes them again.
    pub fn close(&self, is_closed: bool) {
        self.state.is_closed.store(is_closed, Ordering::SeqCst);
        if is_closed {
            self.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Carries both directions of one connection, each on a thread, until an end or a cut.
fn connect(client: TcpStream, target: SocketAddr, state: &Arc<State>) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    let directions = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    let number = {
        let mut connections = state.connections.lock().expect("no thread panicked");
        connections.last += 1;
        let number = connections.last;
        connections.open.insert(number, [client, server]);
        number
    };
    let is_half_over = Arc::new(AtomicBool::new(false));
    for (from, to) in directions {
        let (state, is_half_over) = (Arc::clone(state), Arc::clone(&is_half_over));
        thread::spawn(move || {
            if carry(&from, &to, |bytes| state.pass(number, bytes)) {
                // The other direction may have more to say.
                drop(to.shutdown(Shutdown::Write));
                if !is_half_over.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
            if let Some(ends) = state.connections.lock().expect("no thread panicked").open.remove(&number) {
                for end in ends {
                    drop(end.shutdown(Shutdown::Both));
                }
            }
        });
    }
    Ok(())
}

/// Carries until the end, each piece once `pass` returns; returns whether the peer just has nothing more to say.
fn carry(mut from: &TcpStream, mut to: &TcpStream, pass: impl Fn(&[u8])) -> bool {
    let mut bytes = [0; 16 << 10];
    loop {
        let Ok(count) = from.read(&mut bytes) else { return false };
        pass(&bytes[..count]);
        if count == 0 {
            return true;
        }
        if to.write_all(&bytes[..count]).is_err() {
            return false;
        }
    }
}

/// A proxy to the server of a URL, and the URL by which it is reached through the proxy.
///
/// # Panics
///
/// When the URL names no user, or no address.
#[must_use]
pub fn behind_a_proxy(url: &str) -> (Proxy, String) {
    let (head, rest) = url.split_once('@').expect("a URL with a user");
    let (address, database) = rest.split_once('/').expect("a URL with a database");
    let proxy = Proxy::start(address.parse().expect("an address"));
    let url = format!("{head}@{}/{database}", proxy.address());
    (proxy, url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_until_the_cut() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap());
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"there").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut five = [0; 5];
        server.read_exact(&mut five).unwrap();
        assert_eq!(&five, b"there");
        assert_eq!(proxy.cut(), 1);
        assert!(!matches!(client.read(&mut five), Ok(1..)));
        proxy.close(true);
        let mut refused = TcpStream::connect(proxy.address()).unwrap();
        assert!(!matches!(refused.read(&mut five), Ok(1..)));
    }
    #[test]
    fn a_connection_is_held_at_the_words_and_others_are_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap());
        let connect = || {
            let client = TcpStream::connect(proxy.address()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let ((mut held, mut held_server), (mut free, mut free_server)) = (connect(), connect());
        proxy.hold_at("stop");
        held.write_all(b"please stop here").unwrap();
        crate::wait_until("the hold", std::time::Duration::from_secs(10), || match proxy.held() {
            1 => Ok(()),
            other => Err(other),
        });
        // Words hold one connection only.
        free.write_all(b"stop").unwrap();
        let mut four = [0; 4];
        free_server.read_exact(&mut four).unwrap();
        held_server.set_nonblocking(true).unwrap();
        assert!(held_server.read(&mut four).is_err(), "nothing has passed");
        held_server.set_nonblocking(false).unwrap();
        proxy.let_go();
        let mut all = [0; 16];
        held_server.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"please stop here");
    }
}
