//! Joint runs: two and three processes on this machine against a single one, and what they say if
//! one of them fails.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tch::Tensor;

use crate::common::place::{Place, tiny};
use crate::common::{Npz, largest_difference, repository};

/// A port that nothing uses.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// One rank, as a user starts it by hand.
fn rank(place: &Place, port: u16, rank: usize, size: usize, line: &str) -> Command {
    let mut command = place.prism();
    command
        .args(line.split_whitespace())
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", size.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(ranks: Vec<Child>) -> Vec<Output> {
    let ended = ranks.into_iter().map(|rank| rank.wait_with_output());
    ended.map(Result::unwrap).collect()
}

/// Runs all ranks with the words of `line`.
fn run(place: &Place, size: usize, line: &str) -> Vec<Output> {
    let port = free_port();
    let ranks = (0..size).map(|number| rank(place, port, number, size, line).spawn().unwrap());
    ended(ranks.collect())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The errors of all ranks. There must be one line.
fn the_error(ranks: &[Output]) -> String {
    let said: String = ranks.iter().map(|rank| text(&rank.stderr)).collect();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    errors[0].to_string()
}

/// The array of all ranks, one after another.
fn joined(place: &Place, size: usize, name: &str) -> Tensor {
    let part = |rank| Npz::open(place.path(&format!("out/a.{rank:04}.npz"))).tensor(name);
    Tensor::cat(&(0..size).map(part).collect::<Vec<_>>(), 0)
}

/// A summary without what differs between any two runs.
fn summary(file: &Path) -> Value {
    let mut summary: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    summary.as_object_mut().unwrap().remove("seconds");
    let files = summary["files"].as_array_mut().unwrap();
    files.retain(|file| !file.as_str().unwrap().contains("npz"));
    files.sort_by_key(|file| file.as_str().unwrap().to_string());
    summary
}

/// Each way of making maps: files and arrays of two and three ranks are those of one.
#[test]
fn ranks_make_the_map_of_one_process() {
    let outputs = "--input photos --output-dir out --per-image --report out/p.html --json out/s.json --save-basis out/b.safetensors --save-arrays out/a.npz --cluster=out/c.bin --truth truth.csv";
    for (network, ways, images) in [
        ("tiny_resnet_traced", "", 7),
        ("tiny_resnet_traced", "--inclusive --saliency gradcam", 5),
        ("tiny_vgg_traced", "--exclusive --hooks torchprism", 7),
        (
            "tiny_vgg_traced",
            "--saliency exct-backp --target 1 --split-rgb",
            2,
        ),
    ] {
        let single = Place::with_images(images);
        fs::write(single.path("truth.csv"), "000.png,1\n001.png,0\n").unwrap();
        let line = format!("{} {outputs} {ways}", tiny(network));
        let (lines, notes) = single.succeed(&line);
        for size in [2, 3] {
            let place = Place::with_images(images);
            fs::write(place.path("truth.csv"), "000.png,1\n001.png,0\n").unwrap();
            let ranks = run(&place, size, &line);
            let what = format!("{network} {ways}, {size} ranks");
            for rank in &ranks {
                assert!(rank.status.success(), "{what}: {}", text(&rank.stderr));
            }
            assert_eq!(text(&ranks[0].stdout), lines, "{what}");
            assert!(
                ranks[1..]
                    .iter()
                    .all(|rank| rank.stdout.is_empty() && rank.stderr.is_empty())
            );
            let said = text(&ranks[0].stderr);
            let remarks = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| !line.contains("wrote"));
                lines
                    .filter(|line| !line.contains("joining"))
                    .map(String::from)
                    .collect()
            };
            assert_eq!(remarks(&said), remarks(&notes), "{what}");

            let one = Npz::open(single.path("out/a.npz"));
            // libtorch's float32 depends on how many images go through the network at once.
            for name in [
                "maps",
                "features",
                "input",
                "components",
                "logits",
                "probabilities",
            ] {
                let (ours, its) = (joined(&place, size, name), one.tensor(name));
                let off = largest_difference(&ours, &its);
                assert!(off <= 1e-5, "{what}: {name} differs by {off}");
                if name == "maps" {
                    let colours = |maps: &Tensor| maps.narrow(1, 0, 3);
                    let off = largest_difference(&colours(&ours), &colours(&its));
                    assert!(off <= 1e-6, "{what}: colours differ by {off}");
                }
            }
            for (path, _) in single.listing() {
                let name = path.display().to_string();
                let is_picture = [".jpg", ".png", ".html", ".bin"]
                    .iter()
                    .any(|end| name.ends_with(end));
                if is_picture && name.contains("out") {
                    let [a, b] =
                        [&single, &place].map(|place| fs::read(place.path(&name)).unwrap());
                    assert!(a == b, "{what}: {name} differs");
                }
            }
            let [a, b] = [&single, &place].map(|place| summary(&place.path("out/s.json")));
            assert_eq!(difference(&a, &b, ""), None, "{what}");
            let saved = place.try_run("report out/s.json");
            let said = text(&saved.stderr);
            assert!(
                said.contains("in several files, one for each rank"),
                "{said}"
            );
        }
    }
}

/// Where two values differ by more than 1e-5.
fn difference(a: &Value, b: &Value, place: &str) -> Option<String> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let off = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
            (off > 1e-5).then(|| format!("{place}: {a} and {b}"))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(at, (a, b))| difference(a, b, &format!("{place}/{at}")))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            (a.iter()).find_map(|(key, a)| difference(a, &b[key], &format!("{place}/{key}")))
        }
        (a, b) => (a != b).then(|| format!("{place}: {a} and {b}")),
    }
}

/// More ranks than images, arrays as input, a basis, and images that cannot be read.
#[test]
fn parts_may_be_small_or_empty() {
    let place = Place::with_images(2);
    let line = format!(
        "{} --input photos --save-basis b.safetensors",
        tiny("tiny_resnet_traced")
    );
    let (lines, _) = place.succeed(&line);
    let ranks = run(&place, 3, &format!("{line} --output-dir three"));
    assert_eq!(text(&ranks[0].stdout), lines, "{}", text(&ranks[0].stderr));
    // The files name their commands, so pixels are compared.
    let same = |one: &str, other: &str| {
        let name = "PRISM_tiny_resnet_traced.jpg";
        let figure = |folder: &str| image::open(place.path(folder).join(name)).unwrap();
        figure(one) == figure(other)
    };
    assert!(same("results", "three"));

    let based = format!(
        "{} --input photos --basis b.safetensors",
        tiny("tiny_resnet_traced")
    );
    let (lines, _) = place.succeed(&based);
    let ranks = run(&place, 2, &format!("{based} --output-dir based"));
    assert_eq!(text(&ranks[0].stdout), lines);
    assert!(same("results", "based"));

    fs::write(place.path("photos/000.png"), b"no image").unwrap();
    let skipping = format!(
        "{} --input photos --skip-bad-images",
        tiny("tiny_resnet_traced")
    );
    let ranks = run(&place, 2, &skipping);
    assert_eq!(text(&ranks[0].stdout).lines().count(), 1);
    fs::write(place.path("photos/001.png"), b"no image").unwrap();
    let ranks = run(&place, 2, &skipping);
    assert!(the_error(&ranks).contains("none of the images can be read"));
}

#[test]
fn arrays_of_ranks_have_the_same_shapes_and_earlier_ones_are_told() {
    let place = Place::with_images(1);
    let line = format!(
        "{} --input photos --figures none --save-arrays a.npz --arrays input,features",
        tiny("tiny_vgg_traced")
    );
    let shape = |rank: usize, name: &str| {
        Npz::open(place.path(&format!("a.{rank:04}.npz")))
            .tensor(name)
            .size()
    };
    let ranks = run(&place, 3, &line);
    assert!(ranks[0].status.success(), "{}", text(&ranks[0].stderr));
    let mut counts: Vec<i64> = (0..3).map(|rank| shape(rank, "input")[0]).collect();
    counts.sort();
    assert_eq!(counts, [0, 0, 1]);
    for rank in 0..3 {
        assert_eq!(shape(rank, "input")[1..], [3, 64, 64]);
    }
    let ranks = run(&place, 2, &line);
    let said = text(&ranks[0].stderr);
    let warning = "also has arrays of an earlier run, 1 in number, such as ./a.0002.npz";
    assert!(said.contains(warning), "{said}");
}

/// Files that the command names may differ on other machines, here in other working folders.
#[test]
fn ranks_must_have_the_same_files_and_folders() {
    let place = Place::with_images(2);
    let photos = place.path("photos").display().to_string();
    let stored = format!(
        "{} --input {photos} --save-arrays other/a.safetensors --arrays input",
        tiny("tiny_vgg_traced")
    );
    fs::create_dir(place.path("other")).unwrap();
    place.succeed(&stored);
    // The same size, and one bit of the values differs.
    let mut bytes = fs::read(place.path("other/a.safetensors")).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(place.path("a.safetensors"), bytes).unwrap();
    fs::write(place.path("truth.csv"), "000.png,1\n001.png,0\n").unwrap();
    fs::write(place.path("other/truth.csv"), "000.png,1\n001.png,2\n").unwrap();
    let model = format!("{} --output-dir out", tiny("tiny_vgg_traced"));
    let error_of = |line: &str| {
        let port = free_port();
        let ranks = [0, 1].map(|number| {
            let mut started = rank(&place, port, number, 2, line);
            let folder = ["", "other"][number];
            started.current_dir(place.path(folder)).spawn().unwrap()
        });
        the_error(&ended(ranks.into()))
    };
    for line in [
        format!("{model} --input {photos} --truth truth.csv"),
        format!(
            "{} --input a.safetensors",
            model.replace("--image-size 64", "")
        ),
    ] {
        let error = error_of(&line);
        assert!(
            error.contains("rank 1 (") && error.contains("other contents in a file"),
            "{error}"
        );
    }
    let error = error_of(&format!("{model} --input {photos}"));
    assert!(
        error.contains("the folder out of rank 1 (") && error.contains("that all ranks see"),
        "{error}"
    );
    for folder in ["out", "other/out"] {
        assert!(!place.path(folder).exists(), "{folder}");
    }
}

#[test]
fn one_rank_says_why_all_end() {
    let place = Place::with_images(6);
    fs::create_dir(place.path("old")).unwrap();
    fs::write(place.path("old/PRISM_tiny_vgg_traced.jpg"), b"old").unwrap();
    let good = format!(
        "{} --input photos --output-dir old",
        tiny("tiny_vgg_traced")
    );
    let start = |lines: [&str; 2]| {
        let port = free_port();
        let ranks = (0..2).map(|number| {
            rank(&place, port, number, 2, lines[number])
                .spawn()
                .unwrap()
        });
        let begun = Instant::now();
        let ranks = ended(ranks.collect());
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(ranks.iter().all(|rank| !rank.status.success()));
        assert_eq!(place.names("old"), ["PRISM_tiny_vgg_traced.jpg"]);
        assert_eq!(
            fs::read(place.path("old/PRISM_tiny_vgg_traced.jpg")).unwrap(),
            b"old"
        );
        the_error(&ranks)
    };
    let other = format!("{good} --overlay 0.5");
    assert!(start([&good, &other]).contains("other options than rank 0"));
    // A list of one name that differs, as a file does on another machine.
    let listed = good.replace("--input photos", "--input -");
    for (lists, said) in [
        (
            ["photos/000.png\nphotos/001.png\n", "photos/000.png\n"],
            "finds 1 images, and rank 0 finds 2",
        ),
        (
            ["photos/000.png\n", "photos/001.png\n"],
            "finds other images than rank 0",
        ),
    ] {
        let port = free_port();
        let started = (0..2).map(|number| {
            let mut started = waiting_rank(&place, port, number, 2, &listed);
            started
                .stdin
                .take()
                .unwrap()
                .write_all(lists[number].as_bytes())
                .unwrap();
            started
        });
        let error = the_error(&ended(started.collect()));
        assert!(error.contains("rank 1") && error.contains(said), "{error}");
    }
    let missing = good.replace("tiny_vgg_traced.pt", "missing.pt");
    assert!(start([&missing, &missing]).contains("missing.pt"));

    // A damaged image of the last part: its header is right.
    let image = fs::read(place.path("photos/005.png")).unwrap();
    fs::write(place.path("photos/005.png"), &image[..image.len() / 2]).unwrap();
    let error = start([&good, &good]);
    assert!(
        error.contains("(rank 1): cannot read the image photos/005.png"),
        "{error}"
    );
}

/// A list on standard input that does not end keeps a rank waiting.
fn waiting_rank(place: &Place, port: u16, number: usize, size: usize, line: &str) -> Child {
    let mut command = rank(place, port, number, size, line);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_rank_that_is_killed_or_stopped_ends_the_run() {
    for (signal, victim) in [("KILL", 1), ("STOP", 1), ("KILL", 0), ("TERM", 2)] {
        let place = Place::with_images(3);
        let line = format!("{} --input -", tiny("tiny_vgg_traced"));
        let port = free_port();
        let ranks = (0..3).map(|number| waiting_rank(&place, port, number, 3, &line));
        let mut ranks: Vec<Child> = ranks.collect();
        let _lists: Vec<_> = ranks.iter_mut().map(|rank| rank.stdin.take()).collect();
        std::thread::sleep(Duration::from_secs(2)); // they have joined
        let killed = ranks.remove(victim);
        let id = killed.id().to_string();
        let send = |signal: &str| {
            Command::new("kill")
                .args([&format!("-{signal}"), &id])
                .status()
        };
        assert!(send(signal).unwrap().success());
        let begun = Instant::now();
        let others = ended(ranks);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "{signal}: {took:?}");
        let error = the_error(&others);
        let said = match (signal, victim) {
            ("TERM", _) => "(rank 2): signal 15 ended it",
            (_, 0) => "(rank 0) cannot be reached",
            _ => "(rank 1): no sign of life",
        };
        assert!(error.contains(said), "{signal}: {error}");
        let _ = send("CONT");
        let killed = killed.wait_with_output().unwrap();
        assert!(!killed.status.success());
        assert!(!place.path("results").exists(), "{signal}");
    }
}

/// Sends a signal to a process that was started here.
fn send(signal: &str, to: &Child) {
    let (signal, id) = (format!("-{signal}"), to.id().to_string());
    let sent = Command::new("kill").args([signal, id]).status();
    assert!(sent.unwrap().success());
}

/// Gives waiting ranks this list.
fn list(ranks: &mut [Child], text: &str) {
    for rank in ranks {
        let mut input = rank.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn a_run_on_the_port_of_another_one_does_not_disturb_it() {
    let place = Place::with_images(2);
    let line = format!("{} --input -", tiny("tiny_vgg_traced"));
    let port = free_port();
    let start = |number| waiting_rank(&place, port, number, 2, &line);
    let mut first = [start(0), start(1)];
    std::thread::sleep(Duration::from_secs(2)); // they have joined
    let begun = Instant::now();
    for (number, said) in [
        (0, format!("port {port} of 127.0.0.1 is in use")),
        (1, format!("another process is rank 1 at 127.0.0.1:{port}")),
    ] {
        let second = rank(&place, port, number, 2, &line).output().unwrap();
        let error = the_error(&[second]);
        assert!(error.contains(&said), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    list(&mut first, "photos/000.png\nphotos/001.png\n");
    for rank in ended(first.into()) {
        assert!(rank.status.success(), "{}", text(&rank.stderr));
    }
}

/// A launcher's store serves all runs of its workers, also those after one that failed.
#[test]
fn runs_in_one_store_follow_each_other() {
    let place = Place::with_images(2);
    let line = format!("{} --input photos", tiny("tiny_vgg_traced"));
    let port = free_port();
    // Its store serves until its other ranks come.
    let mut launcher = rank(&place, port, 0, 2, &line);
    let mut launcher = launcher
        .env("TORCHELASTIC_RESTART_COUNT", "9")
        .spawn()
        .unwrap();
    let worker = |number, line: &str| {
        let mut worker = rank(&place, port, number, 2, line);
        worker.env("TORCHELASTIC_USE_AGENT_STORE", "True");
        worker.spawn().unwrap()
    };
    let run = |line: &str| ended([0, 1].map(|number| worker(number, line)).into());
    let missing = line.replace("tiny_vgg_traced", "missing");
    assert!(the_error(&run(&missing)).contains("missing.pt"));
    for _ in 0..2 {
        for rank in run(&line) {
            assert!(rank.status.success(), "{}", text(&rank.stderr));
        }
    }
    launcher.kill().unwrap();
    launcher.wait().unwrap();
}

#[test]
fn a_rank_that_waits_says_that_rank_0_has_ended() {
    let place = Place::with_images(2);
    let line = format!("{} --input photos", tiny("tiny_vgg_traced"));
    let port = free_port();
    let [mut first, second] = [0, 1]
        .map(|number| rank(&place, port, number, 3, &line))
        .map(|mut rank| rank.spawn().unwrap());
    std::thread::sleep(Duration::from_secs(2)); // both wait for a third one
    first.kill().unwrap();
    first.wait().unwrap();
    let error = the_error(&ended(vec![second]));
    assert!(
        error.contains("rank 0 cannot be reached") && error.contains("has ended"),
        "{error}"
    );
}

#[test]
#[ignore = "takes 15 s: make test-cluster"]
fn a_signal_ends_a_rank_whose_store_is_stopped() {
    let place = Place::with_images(2);
    let line = format!("{} --input -", tiny("tiny_vgg_traced"));
    let port = free_port();
    let [mut first, second] = [0, 1].map(|number| waiting_rank(&place, port, number, 2, &line));
    std::thread::sleep(Duration::from_secs(2)); // they have joined
    send("STOP", &first);
    send("TERM", &second);
    let begun = Instant::now();
    let error = the_error(&ended(vec![second]));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(error.contains("(rank 1): signal 15 ended it"), "{error}");
    first.kill().unwrap();
    first.wait().unwrap();
}

/// More lines than a pipe holds, which nobody reads for longer than a rank may be silent.
#[test]
#[ignore = "takes 15 s: make test-cluster"]
fn a_run_is_complete_before_rank_0_prints() {
    let place = Place::with_images(1);
    let images: Vec<String> = (0..300)
        .map(|number| {
            let name = format!("photos/{}{number:03}.png", "long".repeat(60));
            std::os::unix::fs::symlink("000.png", place.path(&name)).unwrap();
            name
        })
        .collect();
    let line = format!("{} --input - --figures 2", tiny("tiny_vgg_traced"));
    let port = free_port();
    let mut ranks = [0, 1].map(|number| waiting_rank(&place, port, number, 2, &line));
    list(&mut ranks, &images.join("\n"));
    let written = place.path("results/PRISM_tiny_vgg_traced.jpg");
    while !written.exists() {
        assert!(ranks[0].try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(9));
    let [first, second] = ranks.map(|rank| rank.wait_with_output().unwrap());
    for rank in [&first, &second] {
        assert!(rank.status.success(), "{}", text(&rank.stderr));
    }
    let lines = text(&first.stdout);
    assert!(lines.len() > 70_000, "{}", lines.len());
    assert_eq!(lines.lines().count(), 300);
}

#[test]
fn a_single_run_is_not_joint_by_mistake() {
    let place = Place::with_images(2);
    let line = format!("{} --input photos", tiny("tiny_vgg_traced"));
    let with = |variables: &[(&str, &str)], line: &str| {
        let mut prism = place.prism();
        prism
            .args(line.split_whitespace())
            .envs(variables.iter().copied());
        prism.output().unwrap()
    };
    let stray = [("RANK", "0"), ("WORLD_SIZE", "2")];
    let refused = with(&stray, &line);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(
        said.contains("MASTER_ADDR is not") && said.contains("--joint off"),
        "{said}"
    );
    assert!(
        with(&stray, &format!("{line} --joint off"))
            .status
            .success()
    );
    assert!(
        with(
            &[("RANK", "3"), ("WORLD_SIZE", "1")],
            &format!("{line} --joint off")
        )
        .status
        .success()
    );
    assert!(
        with(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], &line)
            .status
            .success()
    );

    // The port is in use, and the host has no such address.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = rank(&place, port, 0, 2, &line).output().unwrap();
    assert!(text(&output.stderr).contains("is in use; set MASTER_PORT"));
    for (host, said) in [
        ("no-such-host.invalid", "is no known host"),
        ("192.0.2.1", "is no address of"),
    ] {
        let mut command = rank(&place, port, 0, 2, &line);
        let output = command.env("MASTER_ADDR", host).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains(said), "{stderr}");
    }
}

/// The commands of docs/clusters.md between lines of that kind, with a tiny network.
fn commands_of_the_page(kind: &str, port: u16) -> String {
    let page = fs::read_to_string(repository("docs/clusters.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    let own = blocks.filter_map(|block| block.strip_prefix(&format!("sh {kind}\n")));
    let text: String = own.collect();
    let network = tiny("tiny_resnet_traced");
    text.replace("--model efficientnet_lite0", &network)
        .replace("29511", &port.to_string())
}

#[test]
fn the_commands_of_the_page_run() {
    let place = Place::with_images(6);
    for name in place.names("photos") {
        let image = image::open(place.path("photos").join(&name)).unwrap();
        let jpeg = place.path("photos").join(name.replace("png", "jpg"));
        image.save(jpeg).unwrap();
        fs::remove_file(place.path("photos").join(&name)).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_prism")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let run = |kind: &str| {
        let script = format!("set -e\n{}", commands_of_the_page(kind, free_port()));
        assert!(script.contains("prism"));
        let mut bash = place.prism_after(&["env", &format!("PATH={path}"), "bash", "-c", &script]);
        let ended = bash.output().unwrap();
        assert!(ended.status.success(), "{}", text(&ended.stderr));
    };
    run("joint");
    let lines = fs::read_to_string(place.path("lines.txt")).unwrap();
    assert_eq!(lines.lines().count(), 6);
    run("shards");
    for shard in ["00", "01"] {
        let summary = summary(&place.path(&format!("out/{shard}.json")));
        assert_eq!(summary["images"].as_array().unwrap().len(), 3, "{shard}");
        assert!(
            place
                .path(&format!("out/{shard}/PRISM_tiny_resnet_traced.jpg"))
                .exists()
        );
    }
}
