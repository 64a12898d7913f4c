//! Saved runs that are read back: true classes, comparisons of two runs, and conditions.

use std::fs;

use prism::saved::{SavedImages, SavedRun};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::common::place::{Place, network};
use crate::common::{Npz, assert_near};

/// Runs a tiny network and saves the run as `NAME.json` and `NAME.npz`; returns the summary.
fn save(place: &Place, name: &str, of: &str, words: &str) -> Value {
    let model = network(of);
    place.succeed(&format!(
        "--quiet --image-size 64 --model {model} --json {name}.json --save-arrays {name}.npz {words}"
    ));
    read(place, &format!("{name}.json"))
}

fn read(place: &Place, file: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap()
}

/// Compares two runs; returns the comparison as JSON.
fn compare(place: &Place, words: &str) -> Value {
    let (stdout, _) = place.succeed(&format!("compare --quiet --json - {words}"));
    serde_json::from_str(&stdout).unwrap()
}

fn number(json: &Value, name: &str) -> f64 {
    json[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {json}"))
}

/// The softmax of the logits of a run, and the index of the largest of each image.
fn classes(place: &Place, name: &str) -> (Tensor, Vec<i64>) {
    let logits = Npz::open(place.path(&format!("{name}.npz"))).tensor("logits");
    let top = Vec::<i64>::try_from(logits.argmax(1, false)).unwrap();
    (logits.softmax(1, Kind::Double), top)
}

/// Rows of places, `[Nhw,d]`, of the saved components, averaged over blocks of `block` places.
fn rows(place: &Place, name: &str, block: i64) -> Tensor {
    let all = Npz::open(place.path(&format!("{name}.npz"))).tensor("components");
    let all = all.to_kind(Kind::Double);
    let [n, d, h, w] = all.size()[..] else {
        panic!()
    };
    let blocks = all.reshape([n, d, h / block, block, w / block, block]);
    let means = blocks.mean_dim([3i64, 5].as_slice(), false, Kind::Double);
    means.permute([0, 2, 3, 1]).reshape([-1, d])
}

/// Linear CKA by the Gram matrices of all pairs of rows, as Kornblith et al. define it.
fn by_gram_matrices(x: &Tensor, y: &Tensor) -> f64 {
    let n = x.size()[0];
    let centre = Tensor::eye(n, (Kind::Double, tch::Device::Cpu)) - 1.0 / n as f64;
    let gram = |rows: &Tensor| centre.matmul(&rows.matmul(&rows.tr())).matmul(&centre);
    let (k, l) = (gram(x), gram(y));
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    dot(&k, &l) / (dot(&k, &k) * dot(&l, &l)).sqrt()
}

#[test]
fn components_are_saved_and_begin_with_the_features() {
    let place = Place::new();
    save(&place, "run", "tiny_resnet_traced", "--input photos");
    let npz = Npz::open(place.path("run.npz"));
    let (features, components) = (npz.tensor("features"), npz.tensor("components"));
    assert_near(
        &components.narrow(1, 0, 3),
        &features,
        1e-5,
        "the first three",
    );
    // The tiny network has no more channels than components, so they have all of the length.
    let length = components
        .square()
        .sum_dim_intlist(1, true, Kind::Float)
        .sqrt();
    assert_near(&length, &npz.tensor("lengths"), 1e-3, "lengths");
    // The features of groups have the length 1 then.
    let summary = read(&place, "run.json");
    for group in summary["key"]["groups"].as_array().unwrap() {
        let feature = group["feature"].as_array().unwrap().iter();
        let square: f64 = feature.map(|part| part.as_f64().unwrap().powi(2)).sum();
        assert!((square - 1.0).abs() < 1e-3, "{square}");
    }
    // Uncorrelated, and their variances are the ratios.
    let rows = rows(&place, "run", 1);
    let centred = &rows - rows.mean_dim([0i64].as_slice(), true, Kind::Double);
    let products = centred.tr().matmul(&centred);
    let variances = products.diag(0);
    let off = (&products - variances.diag_embed(0, 0, 1)).abs().max();
    assert!(off.double_value(&[]) < 1e-4 * variances.max().double_value(&[]));
    let ratios = npz.tensor("variance_ratio");
    let count = variances.size()[0].min(ratios.size()[0]);
    let first = &variances / variances.get(0) * ratios.get(0);
    assert_near(
        &first.narrow(0, 0, count),
        &ratios.narrow(0, 0, count),
        1e-4,
        "ratios",
    );
}

#[test]
fn two_networks_are_compared() {
    let place = Place::new();
    save(&place, "a", "tiny_vgg_traced", "--input photos");
    save(&place, "b", "tiny_resnet_traced", "--input photos");
    let found = compare(&place, "a.json b.json");
    let ((p, top_a), (q, top_b)) = (classes(&place, "a"), classes(&place, "b"));
    let is_other: Vec<bool> = top_a.iter().zip(&top_b).map(|(a, b)| a != b).collect();
    let others = is_other.iter().filter(|other| **other).count();
    assert!(others > 0, "the test needs a change");
    assert_eq!(number(&found, "top1_changed"), others as f64 / 3.0);
    let change = |image: usize| {
        let place = [image as i64, top_a[image]];
        (p.double_value(&place) - q.double_value(&place)).abs()
    };
    let mean = (0..3).map(change).sum::<f64>() / 3.0;
    assert!((number(&found, "probability_change") - mean).abs() < 1e-6);

    let listed = found["changed"].as_array().unwrap();
    assert_eq!(listed.len(), others);
    for ((_, (a, b)), image) in is_other
        .iter()
        .zip(top_a.iter().zip(&top_b))
        .filter(|(other, _)| **other)
        .zip(listed)
    {
        assert_eq!(image["a"]["id"], *a);
        assert_eq!(image["b"]["id"], *b);
    }

    // Both grids are brought to the coarser one.
    let sides = ["a", "b"].map(|name| {
        let npz = Npz::open(place.path(&format!("{name}.npz")));
        npz.tensor("components").size()[2]
    });
    let coarser = sides[0].min(sides[1]);
    let [x, y] = [0, 1].map(|side| rows(&place, ["a", "b"][side], sides[side] / coarser));
    assert_eq!(found["places"], 3 * coarser * coarser);
    let wanted = by_gram_matrices(&x, &y);
    assert!(wanted < 0.95, "{wanted}");
    assert!(
        (number(&found, "cka") - wanted).abs() < 1e-9,
        "{wanted}: {found}"
    );
    // From this side and from the other.
    let back = compare(&place, "b.json a.json");
    for name in ["cka", "cka_debiased", "top1_changed"] {
        assert!(
            (number(&found, name) - number(&back, name)).abs() < 1e-12,
            "{name}"
        );
    }
}

#[test]
fn a_run_is_like_itself_and_images_may_be_elsewhere_and_fewer() {
    let place = Place::new();
    fs::create_dir_all(place.path("more/x")).unwrap();
    for name in ["a.png", "c.jpg"] {
        fs::copy(
            place.path(&format!("photos/{name}")),
            place.path(&format!("more/x/{name}")),
        )
        .unwrap();
    }
    save(&place, "a", "tiny_vgg_traced", "--input photos");
    save(&place, "b", "tiny_vgg_traced", "--input more/x");
    let same = compare(&place, "a.json a.json");
    for (name, wanted) in [
        ("top1_changed", 0.0),
        ("probability_change", 0.0),
        ("cka", 1.0),
        ("cka_debiased", 1.0),
    ] {
        assert!((number(&same, name) - wanted).abs() < 1e-12, "{name}");
    }
    let (_, stderr) = place.succeed("compare a.json b.json");
    assert!(stderr.contains("matched by their file names"), "{stderr}");
    let found = compare(&place, "a.json b.json");
    assert_eq!(
        (&found["images"], &found["only_a"], &found["only_b"]),
        (&2.into(), &1.into(), &0.into())
    );
    // The components of the second run are of its two images alone: others, but nearly the same space.
    assert!(number(&found, "top1_changed") == 0.0 && number(&found, "cka") > 0.9);
}

#[test]
fn arrays_are_found_when_the_run_has_moved() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    save(
        &place,
        "out/a",
        "tiny_vgg_traced",
        "--input photos --save-basis out/b.safetensors",
    );
    fs::rename(place.path("out"), place.path("moved")).unwrap();
    let found = compare(&place, "moved/a.json moved/a.json");
    assert_eq!(found["images"], 3);
    fs::rename(place.path("moved/a.npz"), place.path("elsewhere.npz")).unwrap();
    let found = compare(
        &place,
        "moved/a.json moved/a.json --arrays-a elsewhere.npz --arrays-b elsewhere.npz",
    );
    assert_eq!(number(&found, "cka"), 1.0);
    // Also as safetensors, with the basis listed after the arrays.
    let model = network("tiny_vgg_traced");
    place.succeed(&format!(
        "-q --image-size 64 --model {model} photos --json s.json --save-arrays s.safetensors --save-basis b.safetensors"
    ));
    let found = compare(&place, "s.json moved/a.json --arrays-b elsewhere.npz");
    assert!((number(&found, "cka") - 1.0).abs() < 1e-9);
}

#[test]
fn a_condition_that_holds_ends_with_status_3() {
    let place = Place::new();
    save(&place, "a", "tiny_vgg_traced", "--input photos");
    save(&place, "b", "tiny_resnet_traced", "--input photos");
    let status = |conditions: &[&str]| {
        let mut command = place.prism();
        command.args(["compare", "-q", "a.json", "b.json", "--json", "c.json"]);
        for condition in conditions {
            command.args(["--fail-if", condition]);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.stdout.is_empty());
        (output.status.code().unwrap(), stderr)
    };
    assert_eq!(status(&["cka > 1", "images < 3"]), (0, String::new()));
    let (code, stderr) = status(&["cka > 1", "images <= 3", "top1_changed>=0"]);
    assert_eq!(code, 3);
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert!(stderr.contains("failed: images <= 3 (it is 3"), "{stderr}");
    let json = read(&place, "c.json");
    assert_eq!(
        json["failed"],
        serde_json::json!(["images <= 3", "top1_changed>=0"])
    );
}

#[test]
fn true_classes_come_from_folders_and_files() {
    let place = Place::new();
    fs::write(
        place.path("ten.txt"),
        "a\nb\nc\nd\ne\nf\ng\nh\ni\nbig fox, vulpes\n",
    )
    .unwrap();
    let plain = save(&place, "plain", "tiny_vgg_traced", "--input photos");
    assert!(
        plain["images"]
            .as_array()
            .unwrap()
            .iter()
            .all(|image| image["truth"].is_null())
    );
    let (_, top) = classes(&place, "plain");
    // The first image is right, the second one wrong, of the third nothing is known.
    let wrong = (top[1] + 1) % 10;
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "Big_Fox"];
    let csv = format!(
        "file,label\na.png,{}\nphotos/b.png,{wrong}\n",
        names[top[0] as usize]
    );
    fs::write(place.path("t.csv"), csv).unwrap();
    let words = "--input photos --labels ten.txt --truth t.csv";
    let found = save(&place, "t", "tiny_vgg_traced", words);
    let truths: Vec<&Value> = (0..3)
        .map(|image| &found["images"][image]["truth"])
        .collect();
    assert_eq!(truths[0]["id"], top[0]);
    assert_eq!(truths[0]["name"], found["images"][0]["classes"][0]["name"]);
    assert_eq!(truths[1]["id"], wrong);
    assert!(truths[2].is_null());
    let remarks = found["remarks"].to_string();
    assert!(
        remarks.contains("top class equals the truth in 1 of 2 images"),
        "{remarks}"
    );
    assert!(
        remarks.contains("no true class of 1 of 3 images"),
        "{remarks}"
    );

    // By folders: one right, one wrong.
    for (image, class) in [
        ("a.png", names[top[0] as usize]),
        ("b.png", names[wrong as usize]),
    ] {
        fs::create_dir_all(place.path(&format!("set/{class}"))).unwrap();
        let from = place.path(&format!("photos/{image}"));
        fs::copy(from, place.path(&format!("set/{class}/{image}"))).unwrap();
    }
    let words = "--input set/**/*.png --labels ten.txt --truth folder";
    let found = save(&place, "f", "tiny_vgg_traced", words);
    for image in found["images"].as_array().unwrap() {
        let path = image["path"].as_str().unwrap();
        let wanted = if path.ends_with("a.png") {
            top[0]
        } else {
            wrong
        };
        assert_eq!(image["truth"]["id"], wanted, "{path}");
    }
    assert!(found["remarks"].to_string().contains("in 1 of 2 images"));

    // A comparison knows them, also if only one of the runs does.
    let both = compare(&place, "t.json plain.json");
    assert_eq!(
        (number(&both, "accuracy_a"), number(&both, "accuracy_b")),
        (0.5, 0.5)
    );
    assert_eq!(number(&both, "accuracy_change"), 0.0);
    let (table, _) = place.succeed("compare -q t.json plain.json");
    assert!(table.contains("accuracy of B"), "{table}");
}

#[test]
fn classes_of_other_networks_are_compared_by_name_if_they_have_one() {
    let place = Place::new();
    fs::write(place.path("one.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
    fs::write(place.path("two.txt"), "j\ni\nh\ng\nf\ne\nd\nc\nb\na\n").unwrap();
    save(
        &place,
        "a",
        "tiny_vgg_traced",
        "--input photos --labels one.txt --top 10",
    );
    save(
        &place,
        "b",
        "tiny_vgg_traced",
        "--input photos --labels two.txt --top 10",
    );
    let (stdout, stderr) = place.succeed("compare a.json b.json");
    assert!(stderr.contains("compared by their names"), "{stderr}");
    assert!(stdout.contains("3 of 3 images"), "{stdout}");
    // The same class has another probability, that of the mirrored number.
    let (p, top) = classes(&place, "a");
    let change = |image: usize| {
        let at = |class: i64| p.double_value(&[image as i64, class]);
        (at(top[image]) - at(9 - top[image])).abs()
    };
    let mean = (0..3).map(change).sum::<f64>() / 3.0;
    let found = compare(&place, "a.json b.json");
    assert!((number(&found, "probability_change") - mean).abs() < 1e-6);
}

#[test]
fn a_saved_run_has_its_maps_and_its_photographs_again() {
    let place = Place::new();
    save(
        &place,
        "a",
        "tiny_vgg_traced",
        "--input photos --exclusive --upsampling bilinear --saliency gradcam --report a.html",
    );
    let npz = Npz::open(place.path("a.npz"));
    let run = SavedRun::open(&place.path("a.json"), None).unwrap();
    assert_eq!((run.count(), run.map_size()), (3, [64, 64]));
    for index in 0..3 {
        let at = index as i64;
        let (map, saliency) = (run.map(index).unwrap(), run.saliency(index).unwrap());
        let left_out = npz.tensor("left_out").get(at).unsqueeze(0);
        assert_near(
            &map.isnan().to_kind(Kind::Float).narrow(0, 0, 1),
            &left_out,
            0.0,
            "left out",
        );
        assert_near(
            &map.nan_to_num(0.0, None, None).narrow(0, 0, 3),
            &(npz.tensor("maps").get(at) * (-&left_out + 1.0)).narrow(0, 0, 3),
            0.0,
            "map",
        );
        assert_near(
            &saliency.unwrap(),
            &npz.tensor("saliency").get(at).get(0),
            0.0,
            "saliency",
        );
    }

    // The page is the same again, byte for byte.
    let again = place.succeed("report a.json --output again.html");
    assert!(!again.1.contains("photographs"), "{}", again.1);
    let pages = ["a.html", "again.html"].map(|page| fs::read_to_string(place.path(page)).unwrap());
    assert!(pages[0] == pages[1], "the page of the saved run differs");

    // Of 33x21 pixels; as the network saw it if the photograph is gone or another one.
    let ratio =
        |picture: &image::RgbImage| f64::from(picture.width()) / f64::from(picture.height());
    let picture = |images: &mut SavedImages<'_>, index: usize| {
        let (jpeg, size) = images.photograph(index).unwrap();
        let picture = image::load_from_memory(&jpeg).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), size);
        picture
    };
    let there = picture(&mut SavedImages::of(&run, 1e6), 1);
    assert!((ratio(&there) - 33.0 / 21.0).abs() < 0.01);
    let other = image::RgbImage::from_pixel(50, 40, image::Rgb([200, 30, 90]));
    other.save(place.path("photos/a.png")).unwrap();
    fs::remove_file(place.path("photos/b.png")).unwrap();
    let mut images = SavedImages::of(&run, 1e6);
    let pictures: Vec<_> = (0..3).map(|index| picture(&mut images, index)).collect();
    let [remark] = images.remarks().try_into().unwrap();
    for part in [
        "of 3 photographs 1 gone and 1 others now",
        "the first: photos/a.png",
    ] {
        assert!(remark.text.contains(part), "{}", remark.text);
    }
    assert_eq!(ratio(&pictures[1]), 1.0);
    // The mean colour is that of the photograph.
    let mean = |picture: &image::RgbImage| {
        let sum: f64 = picture.as_raw().iter().map(|&byte| f64::from(byte)).sum();
        sum / picture.as_raw().len() as f64
    };
    assert!((mean(&pictures[1]) - mean(&there)).abs() < 3.0);
    assert!(
        (ratio(&pictures[2]) - 1.0).abs() > 0.01,
        "the third is there"
    );
}
