//! Files of torch.export and ONNX that were changed on purpose: each is refused in a line, within
//! bounds of time and memory. What is small is among the rows of the table of refusals, too.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::common::data;
use crate::common::place::Place;

/// The limits of a run: seconds, and kilobytes of addresses.
const BOUNDS: [&str; 5] = ["timeout", "--kill-after=1", "60", "bash", "-c"];
const MOST_MEMORY: &str = "ulimit -v 6000000; exec \"$0\" \"$@\"";

/// A small network with its two first operators in the wrong order.
fn entries() -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(File::open(data("exported/bad_cycle.pt2")).unwrap()).unwrap();
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let (name, mut bytes) = (entry.name().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        entries.push((name, bytes));
    }
    entries
}

/// Writes the network with a changed description.
fn write(file: &Path, change: impl Fn(&mut Value)) {
    let mut archive = ZipWriter::new(File::create(file).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, mut bytes) in entries() {
        if name.ends_with("models/model.json") {
            let mut program: Value = serde_json::from_slice(&bytes).unwrap();
            nodes(&mut program).swap(0, 1);
            change(&mut program);
            bytes = serde_json::to_vec(&program).unwrap();
        }
        archive.start_file(name, stored).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
}

fn nodes(program: &mut Value) -> &mut Vec<Value> {
    let nodes = &mut program["graph_module"]["graph"]["nodes"];
    nodes.as_array_mut().unwrap()
}

fn node(operator: &str, inputs: &Value, output: &str) -> Value {
    json!({"target": format!("torch.ops.aten.{operator}"), "inputs": inputs, "metadata": {},
           "outputs": [{"as_tensor": {"name": output}}]})
}

fn tensor(argument: &str, name: &str) -> Value {
    json!({"name": argument, "arg": {"as_tensor": {"name": name}}})
}

/// Multiplies what the convolution makes by the sum of `size` ones.
fn times_ones(program: &mut Value, size: &Value) {
    let fill = json!({"name": "fill_value", "arg": {"as_float": 1.0}});
    let size = json!({"name": "size", "arg": {"as_ints": size}});
    let made = [
        node("full.default", &json!([size, fill]), "ones"),
        node("sum.default", &json!([tensor("self", "ones")]), "sum"),
        node(
            "mul.Tensor",
            &json!([tensor("self", "conv2d"), tensor("other", "sum")]),
            "scaled",
        ),
    ];
    nodes(program).splice(1..1, made);
    nodes(program)[4]["inputs"] = json!([tensor("self", "scaled")]);
}

/// Puts `count` operators in a row behind the first one.
fn lengthen(program: &mut Value, count: usize) {
    let link = |index: usize| {
        let before = match index {
            0 => "conv2d".to_string(),
            index => format!("link{}", index - 1),
        };
        node(
            "relu.default",
            &json!([tensor("self", &before)]),
            &format!("link{index}"),
        )
    };
    nodes(program).splice(1..1, (0..count).map(link));
    let last = format!("link{}", count - 1);
    nodes(program)[count + 1]["inputs"] = json!([tensor("self", &last)]);
}

/// A run of prism within the bounds.
fn bounded(place: &Place, network: &str) -> Command {
    let mut command = place.prism_after(&[&BOUNDS[..], &[MOST_MEMORY]].concat());
    command.args(["--model", network, "--input", "photos/a.png"]);
    command.env("OMP_NUM_THREADS", "1");
    command.env("RAYON_NUM_THREADS", "1");
    command
}

fn expect(change: impl Fn(&mut Value), status: i32, parts: &[&str]) {
    let place = Place::new();
    write(&place.path("net.pt2"), change);
    let mut command = bounded(&place, "net.pt2");
    if status == 0 {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        return;
    }
    place.expect(command, status, parts);
}

#[test]
fn the_network_itself_runs() {
    expect(|_| {}, 0, &["wrote results/PRISM_net.jpg"]);
    expect(|program| lengthen(program, 2_000), 0, &["wrote"]);
}

#[test]
fn many_operators_are_refused() {
    let chain = |count: usize| move |program: &mut Value| lengthen(program, count);
    // libtorch's interpreter calls itself for each of a row.
    expect(chain(15_000), 1, &["it has 15004 operators", "up to 10000"]);
    expect(chain(60_000), 1, &["it has 60004 operators", "up to 20000"]);
}

#[test]
fn large_tensors_are_refused() {
    for (size, part) in [
        (json!([1_i64 << 40]), "the memory is not enough"),
        (json!([1_i64 << 62, 1_i64 << 62]), "cannot take images"),
        (json!([-1]), "cannot take images"),
    ] {
        expect(|program| times_ones(program, &size), 1, &["net.pt2", part]);
    }
}

#[test]
fn odd_names_are_shown_in_a_line() {
    let renamed =
        |name: &'static str| move |program: &mut Value| nodes(program)[1]["target"] = json!(name);
    let unknown = "does not run its operator";
    expect(
        renamed("torch.ops.aten.relu\nx.default"),
        1,
        &[unknown, "relu\\nx"],
    );
    expect(renamed("torch.ops.aten.\u{1b}[31m.default"), 1, &[unknown]);
    expect(renamed(""), 1, &[unknown]);
    let long = |program: &mut Value| {
        nodes(program)[1]["target"] =
            json!(format!("torch.ops.aten.{}.default", "x".repeat(99_999)));
    };
    expect(long, 1, &[unknown, "xxx"]);
    let read = |program: &mut Value| {
        nodes(program)[1]["inputs"] = json!([tensor("self", "a\nb\u{7}")]);
    };
    expect(read, 1, &["reads 'a\\nb", "which nothing before makes"]);
    // The path of a module is a name of a layer.
    let path = |program: &mut Value| {
        nodes(program)[0]["metadata"] = json!({"nn_module_stack": "L,a\n\u{1b}[31mb,c"});
    };
    expect(path, 0, &["wrote"]);
}

#[test]
fn graphs_within_graphs_are_refused() {
    let nested = |count: usize| {
        move |program: &mut Value| {
            let mut inner = json!({"inputs": [], "outputs": [], "nodes": []});
            for _ in 0..count {
                let held =
                    json!([{"name": "", "arg": {"as_graph": {"name": "g", "graph": inner}}}]);
                let node =
                    json!({"target": "torch.ops.higher_order.wrap", "inputs": held, "outputs": []});
                inner = json!({"inputs": [], "outputs": [], "nodes": [node]});
            }
            let first = inner["nodes"][0].clone();
            nodes(program).insert(0, first);
        }
    };
    expect(nested(5), 0, &["wrote"]);
    expect(nested(12), 1, &["within more than 8 others"]);
    expect(nested(40), 1, &["model.json is damaged"]);
}

/// A field of a message of protocol buffers, whose bytes are behind their length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut made = vec![(number << 3) | 2];
    let mut length = bytes.len();
    while length > 127 {
        made.push(length as u8 | 128);
        length >>= 7;
    }
    made.push(length as u8);
    made.extend(bytes);
    made
}

/// A node of ONNX that reads `inputs`.
fn onnx_node(operator: &str, inputs: &[&str]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| field(1, input.as_bytes()));
    let named = [field(2, b"made"), field(4, operator.as_bytes())];
    field(1, &inputs.chain(named.concat()).collect::<Vec<u8>>())
}

/// Writes a network of ONNX with further nodes before its own.
fn write_onnx(file: &Path, nodes: &[u8]) {
    let input = std::fs::read(data("onnx/same_pool.onnx")).unwrap();
    // Its graph is behind the version, in two bytes each.
    let (version, rest) = input.split_at(2);
    assert_eq!(rest[0], (7 << 3) | 2);
    let length = usize::from(rest[1] & 127) | (usize::from(rest[2]) << 7);
    let (graph, rest) = rest[3..].split_at(length);
    let graph = field(7, &[nodes, graph].concat());
    std::fs::write(file, [version, &graph, rest].concat()).unwrap();
}

#[test]
fn large_nodes_and_many_nodes_of_onnx_are_refused() {
    let place = Place::new();
    let file = place.path("net.onnx");
    write_onnx(&file, &onnx_node("Relu", &["x"]).repeat(1_000_000));
    place.expect(bounded(&place, "net.onnx"), 1, &["more than 20000 nodes"]);
    // It would be 300,000 operators.
    write_onnx(&file, &onnx_node("Max", &vec!["x"; 300_000]));
    let parts = ["(Max of opset 17)", "makes more than 100000 operators"];
    place.expect(bounded(&place, "net.onnx"), 1, &parts);
}

#[cfg(unix)]
#[test]
fn weights_of_onnx_in_a_pipe_are_refused() {
    let place = Place::new();
    let network = data("onnx/bad_external_absent.onnx");
    std::fs::copy(network, place.path("net.onnx")).unwrap();
    let pipe = place.path("absent.data");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    place.expect(bounded(&place, "net.onnx"), 1, &["which is no plain file"]);
}
