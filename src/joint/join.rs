//! How the ranks of a joint run find each other.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::watch::{STORE_TIMEOUT, Watch};
use super::world::World;
use super::{Group, Ranks};
use crate::error::{Hint, hinted};
use crate::hooks::{RawRanks, RawStore};
use crate::notices::Notices;

/// The longest wait for other ranks.
const JOINING: Duration = Duration::from_secs(60);
/// After this time a rank says what it waits for.
const SOON: Duration = Duration::from_secs(2);
/// The longest wait for a message: none. Ranks that are lost are noticed by their signs of life.
const WAITING: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a rank tells the others of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    /// The host's name.
    host: String,
    /// The host, and the processors that the rank may use: ranks with the same ones share them.
    processors: String,
    /// The address of this rank, and that of the meeting place, as seen from here.
    address: IpAddr,
    meeting: IpAddr,
}

/// Joins the other ranks.
///
/// # Errors
/// Returns an error if the meeting place is not known or not reached, or if a rank does not come
/// within a minute.
pub fn join(world: &World, notices: Notices) -> Result<Group> {
    let place = format!("{}:{}", world.host, world.port);
    let text = format!("joining {} of {} at {place}", world.rank + 1, world.size);
    let joined = Arc::new(AtomicBool::new(false));
    match world.rank {
        0 => notices.note(&text),
        _ => say_later(notices, text, &joined),
    }
    let result = meet(world, &place);
    joined.store(true, Ordering::SeqCst);
    result
}

fn say_later(notices: Notices, text: String, joined: &Arc<AtomicBool>) {
    let joined = joined.clone();
    thread::spawn(move || {
        thread::sleep(SOON);
        if !joined.load(Ordering::SeqCst) {
            notices.note(&text);
        }
    });
}

fn meet(world: &World, place: &str) -> Result<Group> {
    let meeting = address_of(&world.host, world.port)?;
    let (host, processors) = this_host();
    let card = Card {
        processors: format!("{processors} {}", own_processors()),
        address: route_to(meeting).ok_or_else(|| unreachable(world, "there is no route to it"))?,
        meeting: meeting.ip(),
        host,
    };
    let serves = world.rank == 0 && !world.has_store;
    if !serves {
        wait_for(meeting, world)?;
    }
    let listener = serves.then(|| listen(world, meeting, &card.host));
    let (at, port) = (meeting.ip().to_string(), world.port);
    let open = |listener, prefix: &str| {
        let store = RawStore::open(&at, port, listener, prefix, JOINING);
        store.map_err(|_| unreachable(world, "nothing answers as a store there"))
    };
    let prefix = format!("prism/{}/{}", world.attempt, world.size);
    let serving = open(listener.transpose()?, &prefix)?;
    let run = run_number(&serving, world, place)?;
    let store = open(None, &format!("{prefix}/{run}"))?;
    store.set(&card_key(world.rank), &serde_json::to_vec(&card)?)?;
    let cards = cards(&store, world, place).inspect_err(|_| {
        let _ = serving.set(&left_key(run), b"yes");
    })?;

    let own = reachable(&cards, world.rank).to_string();
    let hosts = cards.iter().map(|card| card.host.clone()).collect();
    let for_messages = store.connect(JOINING)?;
    let for_watch = store.connect(STORE_TIMEOUT)?;
    let watch = Arc::new(Watch::new(world.rank, hosts, for_watch, serving)?);
    watch.start();
    super::remember(&watch);
    let raw = RawRanks::join(
        &for_messages,
        world.rank,
        world.size,
        &own,
        JOINING,
        WAITING,
    );
    let raw = raw.map_err(|error| {
        super::leave_to_watch();
        anyhow!("the ranks do not reach each other ({own} is the address of this one): {error:#}")
    })?;
    let sharing = cards
        .iter()
        .filter(|other| other.processors == card.processors);
    Ok(Group(Some(Ranks {
        rank: world.rank,
        size: world.size,
        local_rank: world.local_rank,
        sharing: sharing.count(),
        raw,
        watch,
    })))
}

/// Waits until something listens there: libtorch itself would wait for several times as long.
fn wait_for(meeting: SocketAddr, world: &World) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect_timeout(&meeting, SOON).is_err() {
        if begun.elapsed() > JOINING {
            let seconds = JOINING.as_secs();
            return Err(unreachable(
                world,
                &format!("nothing listens there after {seconds} s"),
            ));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn card_key(rank: usize) -> String {
    format!("card/{rank}")
}

/// Set once a rank has waited for the others in vain.
fn left_key(run: u64) -> String {
    format!("left/{run}")
}

/// The number of this run, from 0: each process takes the first one that no process of its rank has
/// taken, and that nobody has left. A launcher's store can serve several runs, one after another; that
/// of rank 0 serves one, so a second process of a rank is of another run on the same port.
fn run_number(store: &RawStore, world: &World, place: &str) -> Result<u64> {
    let own = RandomState::new().hash_one(process::id()).to_string();
    let mut run = 0;
    loop {
        let key = format!("run/{}/{run}", world.rank);
        let is_own = store.claim(&key, own.as_bytes())? == own.as_bytes();
        if is_own && store.peek(&[left_key(run)])?.is_none() {
            return Ok(run);
        }
        if !world.has_store {
            let text = format!(
                "another process is rank {} at {place}; if another run uses that port, set MASTER_PORT to another one",
                world.rank
            );
            return Err(hinted(text, Hint::JointOff));
        }
        run += 1;
    }
}

/// What all ranks tell of themselves.
fn cards(store: &RawStore, world: &World, place: &str) -> Result<Vec<Card>> {
    let keys: Vec<String> = (0..world.size).map(card_key).collect();
    let values = store.wait(&keys, JOINING).map_err(|_| {
        let mut missing = Vec::new();
        for (rank, key) in keys.iter().enumerate() {
            match store.peek(std::slice::from_ref(key)) {
                Ok(Some(_)) => {}
                Ok(None) => missing.push(rank.to_string()),
                Err(_) => return unreachable(world, "it has ended, or the network is lost"),
            }
        }
        let (count, seconds) = (world.size - missing.len(), JOINING.as_secs());
        let first: Vec<String> = missing.iter().take(8).cloned().collect();
        let text = format!(
            "only {count} of {} ranks came to {place} within {seconds} s; missing: {}",
            world.size,
            first.join(", ")
        );
        hinted(text, Hint::JointOff)
    })?;
    let cards = values.iter().map(|value| serde_json::from_slice(value));
    cards.collect::<Result<_, _>>().map_err(|_| {
        let text = "something else than this version of prism uses the store";
        unreachable(world, text)
    })
}

/// The address at which the others reach a rank. A host may know itself by a loopback address only,
/// which the others see by another one if the ranks meet there.
fn reachable(cards: &[Card], rank: usize) -> IpAddr {
    let own = &cards[rank];
    if !own.address.is_loopback() {
        return own.address;
    }
    let seen = cards.iter().map(|card| card.meeting);
    let mut seen = seen.filter(|address| !address.is_loopback());
    seen.next().unwrap_or(own.address)
}

fn unreachable(world: &World, reason: &str) -> anyhow::Error {
    let World { host, port, .. } = world;
    let text = format!("rank 0 cannot be reached at {host}:{port}: {reason}");
    hinted(text, Hint::JointOff)
}

fn address_of(host: &str, port: u16) -> Result<SocketAddr> {
    let found = (host, port).to_socket_addrs();
    let mut found = found.map_err(|_| anyhow!("MASTER_ADDR {host} is no known host"))?;
    found
        .next()
        .ok_or_else(|| anyhow!("MASTER_ADDR {host} has no address"))
}

/// The address of this host from which packets go there. Nothing is sent.
fn route_to(there: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match there {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The socket of the store: at MASTER_ADDR alone, or, if that is the name of a host that knows itself
/// by a loopback address, at all addresses.
fn listen(world: &World, meeting: SocketAddr, name: &str) -> Result<TcpListener> {
    let World { host, port, .. } = world;
    let is_literal = host.parse::<IpAddr>().is_ok() || host == "localhost";
    let address = match (meeting.ip().is_loopback() && !is_literal, meeting) {
        (false, meeting) => meeting.ip(),
        (true, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (true, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    TcpListener::bind((address, *port)).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow!("port {port} of {host} is in use; set MASTER_PORT to another one on all ranks")
        }
        ErrorKind::AddrNotAvailable => {
            anyhow!("MASTER_ADDR {host} is no address of {name}, which is rank 0")
        }
        _ => anyhow!("rank 0 cannot listen at {host}:{port}: {error}"),
    })
}

/// The name of this host, and what identifies it.
fn this_host() -> (String, String) {
    let read = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.trim().to_string()
    };
    let name = read("/proc/sys/kernel/hostname");
    let boot = read("/proc/sys/kernel/random/boot_id");
    match name.is_empty() {
        true => ("unknown host".to_string(), boot),
        false => (name.clone(), format!("{name} {boot}")),
    }
}

/// The processors that this process may use, as Linux lists them.
fn own_processors() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_string()
}
