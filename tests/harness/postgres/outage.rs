//! A server of a test's own that crashes, comes back, and runs out of disk.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::{Database, LIMIT, Running, Server, wait_until_it_answers};
use crate::disk::SmallDisk;

impl Server {
    /// Stops it as a crash does (`pg_ctl stop -m immediate`): nothing is finished, nobody is told, its log is all there is.
    ///
    /// # Panics
    ///
    /// When it is not one of the test's own.
    pub fn crash(&self) {
        self.tell("stop");
        let address = self.address();
        crate::wait_until("the end of PostgreSQL", LIMIT, || match TcpStream::connect(address) {
            Ok(_) => Err("it still listens"),
            Err(_) => Ok(()),
        });
    }

    /// Starts it again with its data, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it is not one of the test's own.
    pub fn start_again(&self) {
        self.tell("start");
        wait_until_it_answers(&format!("{}/postgres", self.admin), &self.folder);
    }

    /// A database all of which lies on a small disk; the server's log does not.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    #[must_use]
    pub fn database_on(&'static self, disk: &SmallDisk) -> Database {
        let folder = disk.path().join("tablespace");
        std::fs::create_dir(&folder).expect("the disk takes folders");
        if rustix::process::getuid().is_root() {
            let chown = Command::new("chown").arg("postgres:").arg(disk.path()).arg(&folder).status();
            assert!(chown.is_ok_and(|status| status.success()), "there is no user postgres");
        }
        self.run(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
        let database = self.database();
        self.run(&format!("ALTER DATABASE {} SET TABLESPACE small", database.name()));
        database
    }

    fn address(&self) -> SocketAddr {
        let address = self.admin.rsplit_once('@').expect("a URL with a user").1;
        address.parse().expect("an address")
    }

    fn tell(&self, word: &str) {
        let mut running = self.running.lock().expect("no thread panicked");
        running.first_mut().expect("a server of the test's own").tell(word);
    }
}

impl Running {
    fn tell(&mut self, word: &str) {
        let input = self.child.stdin.as_mut().expect("it listens");
        writeln!(input, "{word}").expect("it listens");
    }
}
