//! Redis over a Unix socket: a server of our own without persistence, and a client that speaks its protocol.
//!
//! The client writes a request with one call and reads the answer through a buffer, as the C client does.

use super::{Ends, Plan, Store};
use crate::beside::{Killed, program};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server, killed in the end; its folder goes with it.
pub(crate) struct Server {
    _process: Killed,
    folder: TempDir,
}

impl Server {
    /// A server that answers.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) fn start() -> Result<Self, String> {
        Command::new("redis-server").arg("--version").output().map_err(|error| error.to_string())?;
        let folder =
            tempfile::Builder::new().prefix("bench-redis-").tempdir().map_err(|it| it.to_string())?;
        let path = folder.path().to_str().ok_or("a folder whose name is no UTF-8")?;
        let socket = format!("{path}/socket");
        let options = ["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"];
        let places = ["--unixsocket", &socket, "--dir", path];
        let words = [&["redis-server"], &options[..], &places[..]].concat();
        let child = program(&words).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let process = Killed(child.map_err(|error| error.to_string())?);
        let server = Self { _process: process, folder };
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if started.elapsed().as_secs() > 10 {
                return Err("redis-server does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// What `Redis::attach` takes.
    pub(crate) fn address(&self) -> String {
        let socket = self.folder.path().join("socket");
        socket.to_str().expect("checked at the start").to_owned()
    }
}

/// A client.
pub(crate) struct Redis {
    answers: BufReader<UnixStream>,
    request: Vec<u8>,
    value: Vec<u8>,
    /// One request per key, all sent before the first answer is read, instead of one for all.
    pub(crate) pipeline: bool,
}

impl Redis {
    pub(crate) fn attach(address: &str) -> Self {
        let stream = UnixStream::connect(Path::new(address)).expect("the server lives");
        Self { answers: BufReader::new(stream), request: Vec::new(), value: Vec::new(), pipeline: false }
    }

    /// A client of a server that has forgotten all values.
    pub(crate) fn fresh(server: &Server, pipeline: bool, plan: Plan) -> Self {
        let mut redis = Self { pipeline, ..Self::attach(&server.address()) };
        redis.ask(&[b"FLUSHALL"]);
        redis.send();
        redis.line();
        redis.value.reserve(plan.size);
        redis
    }

    /// Adds a request to what is to be sent.
    fn ask(&mut self, words: &[&[u8]]) {
        write!(self.request, "*{}\r\n", words.len()).expect("memory takes it");
        for word in words {
            write!(self.request, "${}\r\n", word.len()).expect("memory takes it");
            self.request.extend_from_slice(word);
            self.request.extend_from_slice(b"\r\n");
        }
    }

    fn send(&mut self) {
        self.answers.get_mut().write_all(&self.request).expect("the server reads");
        self.request.clear();
    }

    /// One line of an answer: the number behind its mark, if it is one.
    fn line(&mut self) -> i64 {
        self.value.clear();
        self.answers.read_until(b'\n', &mut self.value).expect("the server answers");
        let line = str::from_utf8(&self.value).expect("a line of text").trim_end();
        assert!(!line.starts_with('-') && !line.is_empty(), "redis says {line:?}");
        line[1..].parse().unwrap_or(0)
    }

    /// Reads a value to `self.value`.
    fn bulk(&mut self) {
        let length = usize::try_from(self.line()).expect("every key is there");
        self.value.resize(length + 2, 0);
        self.answers.read_exact(&mut self.value).expect("the server answers");
        self.value.truncate(length);
    }

    fn fetch(&mut self, key: u64) {
        self.ask(&[b"GET", &key.to_ne_bytes()]);
        self.send();
        self.bulk();
    }
}

/// A counter is text and lives under another name.
fn counter(key: u64) -> [u8; 9] {
    let mut name = [b'c'; 9];
    name[1..].copy_from_slice(&key.to_ne_bytes());
    name
}

impl Store for Redis {
    fn get(&mut self, key: u64) -> u64 {
        self.fetch(key);
        Ends::of(&self.value).0
    }

    fn set(&mut self, key: u64, value: u64) {
        self.put(key, &value.to_ne_bytes());
    }

    fn pinned(&mut self, key: u64) -> Ends {
        self.fetch(key);
        Ends::of(&self.value)
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        self.ask(&[b"SET", &key.to_ne_bytes(), value]);
        self.send();
        self.line();
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        self.ask(&[b"INCR", &counter(key)]);
        self.send();
        self.line() as u64 - 1
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        if self.pipeline {
            keys.iter().for_each(|key| self.ask(&[b"GET", &key.to_ne_bytes()]));
            self.send();
        } else {
            let names: Vec<[u8; 8]> = keys.iter().map(|key| key.to_ne_bytes()).collect();
            let words: Vec<&[u8]> =
                std::iter::once(&b"MGET"[..]).chain(names.iter().map(|name| &name[..])).collect();
            self.ask(&words);
            self.send();
            self.line();
        }
        for _ in keys {
            self.bulk();
            values.push(Ends::of(&self.value).0);
        }
    }
}
