//! Joint runs as on several hosts: torchrun, and network namespaces joined by a cable. All need
//! root or PyTorch, so `make test-cluster` runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::place::{Place, tiny};
use crate::common::repository;

const FIGURE: &str = "out/PRISM_tiny_resnet_traced.jpg";
const PORT: &str = "29611";

fn line(more: &str) -> String {
    let network = tiny("tiny_resnet_traced");
    format!("{network} --output-dir out {more}")
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}: network namespaces need root");
}

/// Two hosts: network namespaces with a cable between them, each with its own names of hosts.
struct Hosts {
    names: [String; 2],
}

impl Hosts {
    fn new(addresses: [&str; 2], known: [&str; 2]) -> Hosts {
        let own = std::process::id();
        let names = ["a", "b"].map(|side| format!("prism{own}{side}"));
        let hosts = Hosts { names };
        for (name, known) in hosts.names.iter().zip(known) {
            ip(&format!("netns add {name}"));
            fs::create_dir_all(hosts.folder(name)).unwrap();
            fs::write(hosts.folder(name).join("hosts"), known).unwrap();
            ip(&format!("-n {name} link set lo up"));
        }
        let [a, b] = &hosts.names;
        ip(&format!(
            "link add cable netns {a} type veth peer name cable netns {b}"
        ));
        for (name, address) in hosts.names.iter().zip(addresses) {
            // Without duplicate address detection an IPv6 address can be used at once.
            let at_once = if address.contains(':') { " nodad" } else { "" };
            ip(&format!(
                "-n {name} address add {address} dev cable{at_once}"
            ));
            ip(&format!("-n {name} link set cable up"));
        }
        hosts
    }

    /// What `ip netns exec` shows in place of the files of /etc.
    fn folder(&self, name: &str) -> PathBuf {
        Path::new("/etc/netns").join(name)
    }

    /// Cuts the cable.
    fn cut(&self) {
        ip(&format!("-n {} link set cable down", self.names[1]));
    }

    /// One rank, on the host of its number, whose name is host0 or host1.
    fn rank(&self, place: &Place, number: usize, master: &str, line: &str) -> Command {
        let rename = format!("hostname host{number} && exec \"$@\"");
        let netns = ["ip", "netns", "exec", &self.names[number]];
        let named = ["unshare", "--uts", "sh", "-c", &rename, "sh"];
        let mut command = place.prism_after(&[&netns[..], &named[..]].concat());
        command
            .args(line.split_whitespace())
            .env("RANK", number.to_string())
            .env("WORLD_SIZE", "2")
            .env("MASTER_ADDR", master)
            .env("MASTER_PORT", PORT)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
            let _ = fs::remove_dir_all(self.folder(name));
        }
    }
}

fn ended(ranks: Vec<Child>) -> Vec<Output> {
    let ended = ranks.into_iter().map(|rank| rank.wait_with_output());
    ended.map(Result::unwrap).collect()
}

fn said(rank: &Output) -> String {
    String::from_utf8(rank.stderr.clone()).unwrap()
}

/// The same pixels; the files name their commands.
fn same_figure(one: &Place, other: &Place) {
    let [one, other] = [one, other].map(|place| image::open(place.path(FIGURE)).unwrap());
    assert!(one == other, "the figures differ");
}

#[test]
#[ignore = "needs root: make test-cluster"]
fn two_hosts_make_the_map_of_one() {
    let single = Place::with_images(5);
    let (lines, _) = single.succeed(&line("--input photos"));
    let v4 = ["10.98.0.1/24", "10.98.0.2/24"];
    let v6 = ["fd98::1/64", "fd98::2/64"];
    for (addresses, master, known) in [
        (v4, "10.98.0.1", ["", ""]),
        (v6, "fd98::1", ["", ""]),
        // Debian's installer gives a host's own name a loopback address.
        (v4, "first", ["127.0.1.1 first\n", "10.98.0.1 first\n"]),
    ] {
        let hosts = Hosts::new(addresses, known);
        let place = Place::with_images(5);
        let ranks = [0, 1].map(|number| {
            let mut rank = hosts.rank(&place, number, master, &line("--input photos"));
            rank.spawn().unwrap()
        });
        let ranks = ended(ranks.into());
        for rank in &ranks {
            assert!(rank.status.success(), "{master}: {}", said(rank));
        }
        assert_eq!(String::from_utf8_lossy(&ranks[0].stdout), lines);
        same_figure(&single, &place);
    }
}

#[test]
#[ignore = "needs root: make test-cluster"]
fn the_store_listens_at_its_address_alone() {
    let hosts = Hosts::new(["10.98.0.1/24", "10.98.0.2/24"], ["", ""]);
    let place = Place::with_images(2);
    let mut rank = hosts.rank(&place, 0, "10.98.0.1", &line("--input photos"));
    let mut rank = rank.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2)); // it waits for the other rank
    let seen = Command::new("ip")
        .args([
            "netns",
            "exec",
            &hosts.names[0],
            "cat",
            "/proc/net/tcp",
            "/proc/net/tcp6",
        ])
        .output()
        .unwrap();
    rank.kill().unwrap();
    rank.wait().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    // Columns: number, own address and port, the other's, state; 0A listens.
    let fields = seen
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let listens = fields
        .filter(|row| row.get(3) == Some(&"0A"))
        .map(|row| row[1].to_string());
    let port: u16 = PORT.parse().unwrap();
    let own = format!("{:08X}:{port:04X}", u32::from_le_bytes([10, 98, 0, 1]));
    assert_eq!(listens.collect::<Vec<_>>(), [own]);
}

#[test]
#[ignore = "needs root: make test-cluster"]
fn a_cut_cable_ends_both() {
    let hosts = Hosts::new(["10.98.0.1/24", "10.98.0.2/24"], ["", ""]);
    let place = Place::with_images(3);
    let ranks = [0, 1].map(|number| {
        let mut rank = hosts.rank(&place, number, "10.98.0.1", &line("--input -"));
        rank.stdin(Stdio::piped()).spawn().unwrap()
    });
    // Lists that do not end keep the ranks waiting.
    let mut ranks = Vec::from(ranks);
    let _lists: Vec<_> = ranks.iter_mut().map(|rank| rank.stdin.take()).collect();
    std::thread::sleep(Duration::from_secs(3)); // they have joined
    hosts.cut();
    let begun = Instant::now();
    let ranks = ended(ranks);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    for (rank, other) in ranks.iter().zip(["host1 (rank 1)", "host0 (rank 0)"]) {
        let said = said(rank);
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("error")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert!(errors[0].contains(other), "{said}");
        assert!(!rank.status.success());
    }
    assert!(!place.path("out").exists());
}

#[test]
#[ignore = "needs PyTorch: make test-cluster"]
fn torchrun_starts_the_ranks() {
    let torchrun = repository("target/pytorch/bin/torchrun");
    let single = Place::with_images(5);
    let (lines, _) = single.succeed(&line("--input photos"));
    let place = Place::with_images(5);
    let torchrun = torchrun.to_str().unwrap();
    let start = |line: &str| {
        let words = ["--standalone", "--nproc-per-node", "2", "--no-python"];
        let mut command = place.prism_after(&[&[torchrun][..], &words[..]].concat());
        command.args(line.split_whitespace()).output().unwrap()
    };
    let joint = start(&line("--input photos"));
    assert!(joint.status.success(), "{}", said(&joint));
    assert_eq!(String::from_utf8_lossy(&joint.stdout), lines);
    same_figure(&single, &place);

    fs::write(place.path("photos/004.png"), b"no image").unwrap();
    let failed = start(&line("--input photos").replace("dir out", "dir bad"));
    assert!(!failed.status.success());
    let said = said(&failed);
    assert_eq!(said.matches("prism: error:").count(), 1, "{said}");
    assert!(!place.path("bad").exists());
}
