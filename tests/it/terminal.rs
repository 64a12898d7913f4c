//! What a user sees at a terminal: lines, progress, completions and the manual page.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::place::{Place, tiny};

/// Reads one escaped field back, by the rule of docs/guide.md alone.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            found.push(*first);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something after a backslash");
        rest = after;
        match kind {
            b't' => found.push(b'\t'),
            b'n' => found.push(b'\n'),
            b'r' => found.push(b'\r'),
            b'\\' => found.push(b'\\'),
            b'u' => {
                let end = rest.iter().position(|&b| b == b'}').unwrap();
                let digits = std::str::from_utf8(&rest[1..end]).unwrap();
                let code = u32::from_str_radix(digits, 16).unwrap();
                let c = char::from_u32(code).unwrap();
                found.extend(c.to_string().into_bytes());
                rest = &rest[end + 1..];
            }
            other => panic!("an unknown escape \\{}", char::from(other)),
        }
    }
    found
}

#[test]
fn names_of_any_characters_stay_on_their_line_and_can_be_read_back() {
    let place = Place::new();
    let long = format!("{}\t.png", "long\tand\nhigh ".repeat(16)); // 213 bytes
    let mut names: Vec<Vec<u8>> = [
        "a\tb.png",
        "c\nd.png",
        "e\rf.png",
        "g\\th.png",
        "i\u{1b}[31m.png",
        "j\u{202e}k.png",
        "l\u{2028}m.png",
        long.as_str(),
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    names.push(b"n\xe9o.png".to_vec());
    fs::create_dir(place.path("odd")).unwrap();
    for name in &names {
        let file = Path::new("odd").join(std::ffi::OsStr::from_bytes(name));
        fs::copy(place.path("photos/a.png"), place.root.path().join(file)).unwrap();
    }
    // Names of 200 characters, too; the first synonym is shown.
    let class = |id: usize| format!("{id}\\{}\t\n{}", "n".repeat(150), "x".repeat(48));
    let classes: Vec<String> = (0..10).map(class).collect();
    let labels = serde_json::to_string(&classes).unwrap();
    fs::write(place.path("labels.json"), labels).unwrap();
    let line = format!(
        "{} --input odd --labels labels.json --top 2 --saliency gradcam --target 3",
        tiny("tiny_vgg_traced")
    );
    let output = place.try_run(&line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<&[u8]> = output.stdout.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), names.len() + 1, "{}", lines.len());
    let mut found = Vec::new();
    for line in &lines[..names.len()] {
        let fields: Vec<Vec<u8>> = line.split(|&b| b == b'\t').map(unescaped).collect();
        assert_eq!(fields.len(), 3);
        found.push(fields[0].strip_prefix(b"odd/").unwrap().to_vec());
        let (name, share) = std::str::from_utf8(&fields[1])
            .unwrap()
            .split_once(": ")
            .unwrap();
        let id: usize = name[..1].parse().unwrap();
        assert_eq!(name, class(id).replace(['\t', '\n'], "_"));
        assert!(share.parse::<f64>().is_ok());
        let text = String::from_utf8_lossy(line);
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\t'),
            "{text:?}"
        );
        assert!(!text.contains(['\u{202e}', '\u{2028}']), "{text:?}");
    }
    found.sort();
    names.sort();
    assert_eq!(found, names);
    for line in stderr.split('\n') {
        let is_sane = !line.contains(|c: char| c.is_control()) && line.chars().count() <= 300;
        assert!(is_sane, "{line:?}");
    }
    assert!(stderr.contains("target: class 3"), "{stderr}");
}

#[test]
fn an_error_about_a_long_odd_name_is_one_line_with_its_reason() {
    let place = Place::new();
    fs::create_dir(place.path("odd")).unwrap();
    let name = format!("{}.png", "\t\n".repeat(100));
    fs::write(place.path("odd").join(name), "no image").unwrap();
    let output = place.try_run(&format!("{} --input odd", tiny("tiny_vgg_traced")));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(r" odd/\t\n\t\n"), "{stderr}");
    assert!(stderr.contains(".png: "), "the reason stays: {stderr}");
    assert!(stderr.trim_end().chars().count() <= 300, "{stderr}");
}

#[test]
fn many_files_are_summed_up() {
    let place = Place::with_images(5);
    let line = format!(
        "{} --input photos --per-image --report page.html",
        tiny("tiny_vgg_traced")
    );
    let (_, stderr) = place.succeed(&line);
    let wrote: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("wrote "))
        .collect();
    let files = "PRISM_var_tiny_vgg_traced.jpg, PRISM_tiny_vgg_traced.jpg";
    assert_eq!(wrote.len(), 2, "{stderr}");
    assert!(
        wrote[0].starts_with("prism: wrote 12 files in results/: "),
        "{stderr}"
    );
    for part in files.split(", ").chain(["PRISM_tiny_vgg_traced/ (10)"]) {
        assert!(wrote[0].contains(part), "{part}: {stderr}");
    }
    assert_eq!(wrote[1], "prism: wrote page.html");
    assert_eq!(place.names("results/PRISM_tiny_vgg_traced").len(), 10);
}

/// A run whose standard streams are a terminal of 80 columns.
fn on_a_terminal(place: &Place, line: &str) -> String {
    let script = "import os, pty, sys, fcntl, struct, termios
pid, end = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        data = os.read(end, 65536)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let mut python = place.prism_after(&["python3", "-c", script]);
    let output: Output = python
        .args(line.split_whitespace())
        .env("TERM", "xterm")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn progress_is_shown_from_the_first_stage_on_a_terminal_alone() {
    let place = Place::with_images(30);
    let line = format!("{} --input photos --batch-size 1", tiny("tiny_vgg_traced"));
    let shown = on_a_terminal(&place, &line);
    let at = |part: &str| {
        shown
            .find(part)
            .unwrap_or_else(|| panic!("no {part} in {shown:?}"))
    };
    assert!(at("loading tiny_vgg_traced.pt") < at("hooking"));
    assert!(at("hooking") < at("decoding and forwarding"));
    assert!(at("decoding and forwarding") < at("wrote results/"));
    assert!(!shown.contains("inf"), "{shown:?}");
    // The last line of a stage is erased before a message.
    let last = &shown[..at("prism: wrote")];
    assert!(
        last.ends_with("\x1b[2K") || last.ends_with('\r'),
        "{last:?}"
    );
    let quiet = on_a_terminal(&place, &format!("{line} --quiet"));
    for part in ["loading", "hooking", "forwarding", "\x1b"] {
        assert!(!quiet.contains(part), "{part}: {quiet:?}");
    }
    let (_, piped) = place.succeed(&line);
    for part in ["loading", "hooking", "forwarding", "\x1b", "\r"] {
        assert!(!piped.contains(part), "{part}: {piped:?}");
    }
}

#[test]
fn without_a_network_those_that_are_here_are_named_before_any_download() {
    let place = Place::new();
    fs::create_dir(place.path("models")).unwrap();
    for file in [
        "resnet18.safetensors",
        "efficientnet_lite1.pth",
        "mine.pt",
        "other.pth",
    ] {
        fs::write(place.path("models").join(file), "weights").unwrap();
    }
    // 138,357,544 values of 4 bytes.
    for command in ["--input photos", "layers"] {
        let mut prism = place.prism();
        prism.args(command.split(' ')).env_remove("PRISM_OFFLINE");
        prism.env("PRISM_WEIGHTS_URL", "http://127.0.0.1:9");
        place.expect(
            prism,
            2,
            &[
                "no network was chosen",
                "vgg16",
                "553 MB",
                "here are efficientnet_lite1, resnet18, mine (",
                "--model NAME",
                "--model vgg16 downloads",
            ],
        );
    }
    // A network that is named is looked for, and downloaded.
    let mut prism = place.prism();
    prism
        .args(["layers", "--model", "vgg16"])
        .env_remove("PRISM_OFFLINE");
    prism.env("PRISM_WEIGHTS_URL", "http://127.0.0.1:9");
    place.expect(
        prism,
        1,
        &["http://127.0.0.1:9/vgg16-397923af.pth cannot be downloaded"],
    );
}

#[test]
fn the_cluster_file_follows_the_output_folder_unless_it_is_named() {
    let place = Place::new();
    let run = |options: &str| {
        let line = format!("{} {options}", tiny("tiny_vgg_traced"));
        place.succeed(&line).1
    };
    // The word after the option is an image.
    for (options, file) in [
        ("--cluster photos/a.png", "2cluster.bin"),
        (
            "--cluster photos/a.png --output-dir out",
            "out/2cluster.bin",
        ),
        (
            "--output-dir out --cluster=colours/x.bin photos/a.png",
            "colours/x.bin",
        ),
        ("photos/a.png --cluster=y.bin", "y.bin"),
    ] {
        let before = place.listing();
        let stderr = run(options);
        let next = format!("prism som {file}\n");
        assert!(stderr.contains(&next), "{options}: {stderr}");
        let mut found = place.listing();
        found.retain(|path, _| !before.contains_key(path));
        let bins: Vec<_> = found
            .keys()
            .filter(|path| path.extension() == Some("bin".as_ref()))
            .collect();
        assert_eq!(bins, [&place.path(file)], "{options}");
    }
    // The command names the classes as the run did.
    let names: String = (0..10).map(|class| format!("kind {class}\n")).collect();
    std::fs::write(place.path("names.txt"), names).unwrap();
    let stderr = run("photos/a.png --cluster=z.bin --labels names.txt");
    let next = "prism som z.bin --labels names.txt\n";
    assert!(stderr.contains(next), "{stderr}");
    place.succeed("som z.bin --labels names.txt --grid 4 --quiet --output z.svg");
    let drawn = std::fs::read_to_string(place.path("z.svg")).unwrap();
    assert!(drawn.contains(">kind_"), "{drawn}");
    let stdout = place.succeed("som out/2cluster.bin --grid 4 --quiet").0;
    assert!(stdout.starts_with("quantisation error: "), "{stdout}");
    let mut prism = place.prism();
    prism.args(tiny("tiny_vgg_traced").split(' '));
    prism.args(["photos/a.png", "--cluster", "-o", "it's here"]);
    let stderr = prism.output().unwrap().stderr;
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(
        stderr.contains(r#"prism som 'it'"'"'s here/2cluster.bin'"#),
        "{stderr}"
    );
}

/// What a shell prints, or nothing if it is not installed.
fn shell(place: &Place, name: &str, script: &str) -> Option<Vec<String>> {
    let mut command = Command::new(name);
    command
        .args(["-c", script])
        .current_dir(place.path("."))
        .env("HOME", place.path("."));
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_whitespace().map(String::from).collect())
}

#[test]
fn completions_offer_networks_and_files() {
    let place = Place::bare();
    fs::write(place.path("vnet.pt"), "").unwrap();
    for name in ["bash", "zsh", "fish"] {
        fs::write(
            place.path(name),
            place.succeed(&format!("completions {name}")).0,
        )
        .unwrap();
    }
    let vggs = [
        "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    ];
    let all = [vggs.as_slice(), &["vnet.pt"]].concat();
    for words in [
        "prism --model v",
        "prism layers -m v",
        "prism photos --model = v",
    ] {
        let script = format!(
            "source ./bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             _prism prism v \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        assert_eq!(shell(&place, "bash", &script).unwrap(), all, "{words}");
    }
    for (words, expected) in [
        ("prism --model v", all.as_slice()),
        ("prism layers --model v", all.as_slice()),
        ("prism photos --model v", all.as_slice()),
        ("prism som --labels im", &["imagenet"]),
    ] {
        let script = format!("source ./fish; complete -C '{words}'");
        if let Some(found) = shell(&place, "fish", &script) {
            assert_eq!(found, expected, "{words}");
        }
    }
    let zsh = fs::read_to_string(place.path("zsh")).unwrap();
    let models: Vec<&str> = zsh
        .lines()
        .filter(|line| line.starts_with("'--model="))
        .collect();
    assert_eq!(models.len(), 2);
    for line in models {
        assert!(
            line.contains(" vgg16 ") && line.contains("_files"),
            "{line}"
        );
    }
}

#[test]
fn the_manual_page_is_plain_roff_with_whole_examples() {
    let place = Place::bare();
    let page = place.succeed("man").0;
    assert!(page.is_ascii());
    fs::write(place.path("prism.1"), &page).unwrap();
    let example = "prism photos/ --model resnet50 --cluster && prism som --labels imagenet";
    assert!(page.contains(&example.replace('-', "\\-")), "{page}");
    let mut groff = Command::new("groff");
    groff
        .args(["-man", "-Tutf8", "-ww", "-P-cbou"])
        .arg(place.path("prism.1"));
    let Ok(output) = groff.output() else {
        return; // not installed
    };
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let quoted = "prism './photos/*.jpg' --model efficientnet_lite0";
    for line in [example, quoted] {
        assert!(
            text.lines().any(|shown| shown.trim() == line),
            "{line}: {text}"
        );
    }
}
