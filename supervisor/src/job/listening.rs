//! Where guards find their leader: its addresses, a port and a secret, as text in a variable of their environment.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// How long a guard tries one of its leader's addresses.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a guard tries all of them.
const ROUNDS: u32 = 3;
/// An address that no machine has, to learn which of our own a packet to the outside would bear.
/// *Source:* RFC 5737, section 3.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A listening leader.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) secret: [u8; 16],
    addresses: Vec<IpAddr>,
}

impl Listening {
    /// Listens for guards on this machine, and on these.
    pub(super) fn new(hosts: &[String]) -> io::Result<Listening> {
        let addresses = if hosts.is_empty() { vec![LOOPBACK] } else { addresses(hosts) };
        let listener = match hosts {
            [] => TcpListener::bind((LOOPBACK, 0))?,
            // With both versions of the protocol, where the system has both.
            _ => TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?,
        };
        listener.set_nonblocking(true)?;
        let mut secret = [0; 16];
        getrandom(&mut secret, GetRandomFlags::empty())?;
        Ok(Listening { listener, secret, addresses })
    }

    /// What guards need to know, in one word: also in which variable their launcher tells their rank.
    pub(super) fn text(&self, rank_variable: &str) -> io::Result<String> {
        let port = self.listener.local_addr()?.port();
        let secret: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        Ok(format!("{rank_variable}/{secret}/{port}/{}", addresses.join(",")))
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The addresses under which these machines reach this one, and its loopback: a route's own end says which.
fn addresses(hosts: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let of_hosts = hosts.iter().flat_map(|host| (host.as_str(), 9).to_socket_addrs().into_iter().flatten());
    for target in of_hosts.map(|target| target.ip()).chain([OUTSIDE]) {
        found.extend(source_for(target).filter(|source| !found.contains(source)));
    }
    found.retain(|address| !address.is_loopback());
    found.push(LOOPBACK);
    found
}

/// Which address of ours a packet to `target` would bear. Nothing is sent.
fn source_for(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((target, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// What a guard knows of its leader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) rank_variable: String,
    pub(super) secret: [u8; 16],
    addresses: Vec<SocketAddr>,
}

impl Leader {
    /// Reads what [`Listening::text`] wrote.
    pub(super) fn parse(text: &str) -> Option<Leader> {
        let mut parts = text.splitn(4, '/');
        let rank_variable = parts.next()?.to_owned();
        let (digits, port, addresses) = (parts.next()?, parts.next()?, parts.next()?);
        let mut secret = [0; 16];
        if digits.len() != 2 * secret.len() || !digits.is_ascii() {
            return None;
        }
        for (byte, at) in secret.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
        }
        let port = port.parse().ok()?;
        let addresses = addresses.split(',').map(|ip| Some(SocketAddr::new(ip.parse().ok()?, port)));
        Some(Leader { rank_variable, secret, addresses: addresses.collect::<Option<_>>()? })
    }

    /// Connects to whichever address answers; else why none does.
    pub(super) fn connect(&self) -> Result<TcpStream, String> {
        let mut why = Vec::new();
        for round in 1..=ROUNDS {
            why.clear();
            for address in &self.addresses {
                match TcpStream::connect_timeout(address, CONNECT_MAX) {
                    Ok(socket) => return Ok(socket),
                    Err(error) => why.push(format!("{address}: {error}")),
                }
            }
            std::thread::sleep(Duration::from_millis(200) * round);
        }
        Err(why.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Leader, Listening};

    #[test]
    fn a_guard_reads_what_its_leader_says_and_reaches_it() {
        for hosts in [&[][..], &["localhost".to_owned(), "no.such.host.invalid".to_owned()][..]] {
            let listening = Listening::new(hosts).unwrap();
            let leader = Leader::parse(&listening.text("PMI_RANK").unwrap()).unwrap();
            assert_eq!((&*leader.rank_variable, leader.secret), ("PMI_RANK", listening.secret));
            leader.connect().unwrap();
        }
    }

    #[test]
    fn damaged_words_are_refused() {
        let whole = format!("R/{}/80/127.0.0.1", "0a".repeat(16));
        assert!(Leader::parse(&whole).is_some());
        for cut in 0..whole.len() - 1 {
            assert_eq!(Leader::parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(Leader::parse(&whole.replace('0', "é")), None);
    }
}
