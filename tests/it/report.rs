//! The report page in a real browser. `make test-browser` runs these tests.

use std::fs;

use crate::common::browser::Browser;
use crate::common::place::{Place, tiny};
use crate::common::{Npz, data};
use serde_json::json;

#[test]
#[ignore = "needs chromedriver: make test-browser"]
fn the_page_works_in_a_browser() {
    let browser = Browser::start();
    let place = Place::new();
    let labels = "ant\nbee\ncat\ndog\nemu\nfox\ngnu\nhen\nibis\nred_fox\n";
    fs::write(place.path("labels.txt"), labels).unwrap();
    fs::copy(place.path("photos/a.png"), place.path("photos/x & <y>.png")).unwrap();
    let lines = place.run(
        // With so large a contrast the images have different classes.
        "--quiet --input photos --std 0.02,0.02,0.02 --labels labels.txt --saliency gradcam \
         --report page.html --json run.json",
    );
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.path("run.json")).unwrap()).unwrap();
    browser.open(&place.path("page.html"));

    let count = lines.lines().count();
    browser.until(
        "return document.querySelectorAll('.card:not([hidden])').length",
        &json!(count),
    );
    // All pictures load, and nothing else is fetched.
    browser.script("for (const i of document.images) i.loading = 'eager'");
    browser.until(
        "return [...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)",
        &json!(true),
    );
    let fetched = browser.script(
        "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length",
    );
    assert_eq!(fetched, 0);
    let alts = browser.script("return [...document.querySelectorAll('.card img')].map(i => i.alt)");
    assert!(alts.as_array().unwrap().iter().all(|alt| alt != ""));
    assert!(alts.to_string().contains("x & <y>.png"), "{alts}");

    // The slider moves all maps.
    browser.click("button[data-view=overlay]");
    let opacity = "return getComputedStyle(document.querySelector('.card .map .picture')).opacity";
    browser.script(
        "const s = document.getElementById('opacity'); s.value = 0.25; \
         s.dispatchEvent(new Event('input', {bubbles: true}))",
    );
    browser.until(opacity, &json!("0.25"));
    browser.type_into("#opacity", "\u{e014}"); // one step to the right
    browser.until(opacity, &json!("0.26"));

    // One component alone, and saliency.
    browser.click("button[data-component=green]");
    browser.until(
        "return getComputedStyle(document.querySelector('.card .map .picture')).filter.includes('green')",
        &json!(true),
    );
    let source = "return document.querySelector('.card .map .picture').src";
    let map = browser.script(source);
    browser.click("button[data-component=saliency]");
    assert_ne!(browser.script(source), map);
    browser.click("button[data-component=all]");
    browser.until(source, &map);

    // The search shows the images of one class.
    let top = |line: &'_ str| {
        let class = line.split(['\t', ':']).nth(1);
        class.unwrap().to_string()
    };
    let class = top(&lines);
    let of_class = lines.lines().filter(|line| top(line) == class).count();
    assert!(of_class < count, "the images are of one class: {lines}");
    let search = |text: &str| {
        browser.script(&format!(
            "const s = document.getElementById('search'); s.value = {text:?}; \
             s.dispatchEvent(new Event('input', {{bubbles: true}}))"
        ));
    };
    // Class names are searched, also with blanks; other classes of an image count as well.
    let having = lines.lines().filter(|line| line.contains(&class)).count();
    search(&class.replace('_', " "));
    let visible = "return document.querySelectorAll('.card').length";
    browser.until(visible, &json!(having));
    let shown = browser.script("return document.getElementById('shown').textContent");
    let expected = match having == count {
        true => format!("{count} images"),
        false => format!("{having} of {count} images"),
    };
    assert_eq!(shown, expected);
    search("x & <y>");
    browser.until(visible, &json!(1));
    search("");
    browser.until(visible, &json!(count));

    // Groups have the name of the top class.
    let choose = |select: &str, value: &str| {
        browser.script(&format!(
            "const s = document.getElementById({select:?}); s.value = {value:?}; \
             s.dispatchEvent(new Event('change', {{bubbles: true}}))"
        ));
    };
    choose("group", "class");
    let heading = format!("{} · {of_class} image", class.replace('_', " "));
    browser.until(
        &format!("return [...document.querySelectorAll('.heading')].some(h => h.textContent.startsWith({heading:?}))"),
        &json!(true),
    );
    choose("group", "none");

    // A click opens an image, a key shows the next one, Escape closes it and restores the focus.
    browser.click(".card .open");
    browser.until(
        "return document.getElementById('viewer').open",
        &json!(true),
    );
    let title = "return document.getElementById('viewer-title').textContent";
    let first = browser.script(title);
    assert!(first.as_str().unwrap().contains("a.png"), "{first}");
    browser.type_into("#viewer-close", "\u{e00f}");
    browser.until(
        "return document.getElementById('viewer-title').textContent.includes('b.png')",
        &json!(true),
    );
    browser.type_into("#viewer-close", "\u{e00c}");
    browser.until(
        "return document.getElementById('viewer').open",
        &json!(false),
    );
    browser.until(
        "return document.activeElement.classList.contains('open')",
        &json!(true),
    );

    // The viewer zooms.
    browser.script("document.querySelector('.card .open').click()");
    browser.click("[aria-label='Zoom in']");
    browser.until(
        "return getComputedStyle(document.querySelector('.stage .map .zoom')).transform",
        &json!("matrix(1.5, 0, 0, 1.5, 0, 0)"),
    );
    browser.type_into("#viewer-close", "\u{e00c}");

    // The variance figure says what the summary says.
    let alt = browser.script("return document.querySelector('.run img').alt");
    let first = format!(
        "1: {:.0} %",
        100.0 * summary["variance_ratio"][0].as_f64().unwrap()
    );
    assert!(alt.as_str().unwrap().contains(&first), "{alt}");
}

/// What the page shows of an image: for each place whether it is lit.
const LIT: &str = "const canvas = document.querySelector(`.card[data-index='${image}'] .pane.map canvas`); \
    if (canvas.hidden) return null; \
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); \
    return Array.from({ length: canvas.width * canvas.height }, (_, at) => data[4 * at + 3] < 100);";

#[test]
#[ignore = "needs chromedriver: make test-browser"]
fn similar_places_light_up_as_computed_apart() {
    let browser = Browser::start();
    let place = Place::bare();
    let similar = Npz::open(data("similar.npz"));
    let numbers = |name: &str| Vec::<f32>::try_from(similar.tensor(name).view([-1])).unwrap();
    let at: Vec<usize> = numbers("place").iter().map(|&at| at as usize).collect();
    let size = similar.tensor("cosines").size();
    let [count, height, width] = [0, 1, 2].map(|axis| size[axis] as usize);
    let all = numbers("cosines");
    let cosines: Vec<&[f32]> = all.chunks(height * width).collect();
    let input = data("expected").join("tiny_mobilenet.npz");
    place.succeed(&format!(
        "--quiet {} --input {} --report page.html",
        tiny("tiny_mobilenet_scripted"),
        input.display()
    ));
    browser.open(&place.path("page.html"));
    let middle = |index: usize, of: usize| (index as f64 + 0.5) / of as f64;
    let pane = format!(".card[data-index='{}'] .pane.map", at[0]);
    let spot = (middle(at[2], width), middle(at[1], height));
    let lit = |image: usize| browser.script(&format!("const image = {image}; {LIT}"));
    let expected = |image: usize, least: f64| {
        let lit = cosines[image]
            .iter()
            .map(|&cosine| f64::from(cosine) >= least);
        json!(lit.collect::<Vec<_>>())
    };
    let share = |image: usize| {
        let lit = cosines[image].iter().filter(|&&cosine| cosine >= 0.5);
        100.0 * lit.count() as f64 / (height * width) as f64
    };

    let threshold = |least: f64| {
        browser.script(&format!(
            "const t = document.getElementById('threshold'); t.value = {least}; \
             t.dispatchEvent(new Event('input', {{bubbles: true}}))"
        ));
    };

    // The pointer lights up the similar places of all images, and leaves them again.
    assert_eq!(lit(0), json!(null));
    threshold(0.5);
    browser.hover(&pane, spot);
    for image in 0..count {
        browser.until(
            &format!("const image = {image}; {LIT}"),
            &expected(image, 0.5),
        );
    }
    browser.hover("h1", (0.5, 0.5));
    browser.until(&format!("const image = 0; {LIT}"), &json!(null));

    // A click ranks the images by their share of the feature.
    browser.click_at(&pane, spot);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| share(b).total_cmp(&share(a)));
    assert_ne!(
        order,
        (0..count).collect::<Vec<_>>(),
        "the run's order would prove nothing"
    );
    browser.until(
        "return [...document.querySelectorAll('.card')].map(c => Number(c.dataset.index))",
        &json!(order),
    );
    for image in 0..count {
        let text = browser.script(&format!(
            "return document.querySelector(\".card[data-index='{image}'] .share-of\").textContent"
        ));
        let shown = format!("{} % of its places", share(image).round());
        assert!(
            text.as_str().unwrap().starts_with(&shown),
            "{text}, not {shown}"
        );
    }

    // The address restores the view, also in a new page; the keyboard moves the point.
    let address = browser.script("return location.hash");
    browser.script("location.hash = ''");
    browser.until(&format!("const image = 0; {LIT}"), &json!(null));
    browser.script(&format!("location.hash = {address}"));
    for image in 0..count {
        browser.until(
            &format!("const image = {image}; {LIT}"),
            &expected(image, 0.5),
        );
    }
    threshold(0.25);
    browser.until(&format!("const image = 2; {LIT}"), &expected(2, 0.25));
    let pictures = format!(".card[data-index='{}'] .pictures", at[0]);
    browser.type_into(&pictures, "\u{e014}");
    let column = "return document.querySelector('.card .pane.map .cell:not([hidden])').style.left";
    let right = 100.0 * (at[2] + 1) as f64 / width as f64;
    browser.until(column, &json!(format!("{right}%")));

    // Also in the viewer, where arrows elsewhere go to the next image.
    browser.script("document.querySelector('.card .open').click()");
    let title = browser.script("return document.getElementById('viewer-title').textContent");
    browser.type_into(".stage .pictures", "\u{e014}\u{e014}");
    browser.until(
        "return document.querySelectorAll('.stage .cell:not([hidden])').length",
        &json!(2),
    );
    let still = browser.script("return document.getElementById('viewer-title').textContent");
    assert_eq!(still, title);
    browser.type_into("#viewer-close", "\u{e014}");
    let next = browser.script("return document.getElementById('viewer-title').textContent");
    assert_ne!(next, title);
    browser.click("#viewer-close");

    // An address that fits no page leaves the page alive.
    browser.script(
        "location.hash = '#open=1.5&selection=-5,1.5&component=saliency&only=wrong&opacity='",
    );
    let count_shown = "return document.querySelectorAll('.card').length";
    browser.until(count_shown, &json!(count));
    browser.script("location.hash = '#open=0'");
    browser.until(
        "return document.getElementById('viewer').open",
        &json!(true),
    );
    browser.click("#viewer-close");

    // A lasso around all images of the cluster map selects them.
    browser.script("document.getElementById('clear').click()");
    browser.click("#chart-toggle");
    let around = [
        (0.01, 0.01),
        (0.99, 0.01),
        (0.99, 0.99),
        (0.01, 0.99),
        (0.01, 0.02),
    ];
    browser.drag("#field", &around, true);
    browser.until(
        "return document.querySelectorAll('.card.selected').length",
        &json!(count),
    );
    let copied = browser.script("return document.getElementById('copy').textContent");
    assert_eq!(copied, format!("Copy {count} selected"));
    // Around one of them, that one.
    let mark = browser.script(
        "const m = document.querySelector(\".mark[data-index='0']\"), f = m.parentElement.getBoundingClientRect(), \
         b = m.getBoundingClientRect(); \
         return [(b.left - f.left) / f.width, (b.top - f.top) / f.height, b.width / f.width]",
    );
    let [left, top, side] = [0, 1, 2].map(|index| mark[index].as_f64().unwrap());
    let around = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.35)];
    let around = around.map(|(x, y)| (left + x * side, top + y * side));
    browser.drag("#field", &around, true);
    browser.until(
        "return [...document.querySelectorAll('.card.selected')].map(c => Number(c.dataset.index))",
        &json!([0]),
    );
}

#[test]
#[ignore = "needs chromedriver: make test-browser"]
fn two_runs_are_compared_and_wrong_classes_shown() {
    let browser = Browser::start();
    let place = Place::new();
    let model = |name: &str, words: &str| {
        place.succeed(&format!(
            "--quiet {} --input photos --truth truth.csv --json {name}.json --save-arrays {name}.npz {words}",
            tiny(&format!("tiny_{name}_traced"))
        ))
    };
    // All images are of one class; that of the first run's first image.
    let of_first = place.run("--quiet --input photos/a.png");
    let class = of_first.split('\t').nth(1).unwrap();
    let class = class.split(':').next().unwrap();
    let number = class.trim_start_matches("class ");
    let rows = ["a", "b", "c"].map(|name| format!("{name},{number}\n"));
    fs::write(
        place.path("truth.csv"),
        format!("file,class\n{}", rows.concat()),
    )
    .unwrap();
    let (lines, _) = model("vgg", "--report page.html");
    model("resnet", "");
    let wrong = lines
        .lines()
        .filter(|line| !line.contains(&format!("\t{class}:")))
        .count();
    let tops = |lines: &str| -> Vec<String> {
        let top = |line: &str| line.split(['\t', ':']).nth(1).unwrap().to_string();
        lines.lines().map(top).collect()
    };
    let wrong_tops = tops(&lines).iter().filter(|top| *top != class).count();
    assert!(wrong <= wrong_tops);

    browser.open(&place.path("page.html"));
    let shown = "return document.querySelectorAll('.card').length";
    browser.until(shown, &json!(3));
    let marked = browser.script("return document.querySelectorAll('.truth.wrong').length");
    assert_eq!(marked, wrong_tops);
    let choose = |value: &str| {
        browser.script(&format!(
            "const s = document.getElementById('only'); s.value = {value:?}; \
             s.dispatchEvent(new Event('change', {{bubbles: true}}))"
        ));
    };
    choose("wrong");
    browser.until(shown, &json!(wrong_tops));

    // Side by side: three pictures of each image, and a place lights up in both maps.
    let (text, _) = place.succeed("compare vgg.json resnet.json --report both.html");
    browser.open(&place.path("both.html"));
    browser.until(shown, &json!(3));
    let panes = browser.script("return document.querySelectorAll('.card .pane').length");
    assert_eq!(panes, 9);
    browser.hover(".card[data-index='1'] .pane.map[data-run='1']", (0.3, 0.6));
    let covers = "return [...document.querySelectorAll('.card[data-index=\"1\"] canvas')].map(c => !c.hidden)";
    browser.until(covers, &json!([true, true, true]));
    let cells = "return [...document.querySelectorAll('.cell:not([hidden])')].map(c => c.closest('.card').dataset.index)";
    browser.until(cells, &json!(["1", "1", "1"]));
    let changed = |row: &&str| row.starts_with("top class changed");
    let changed = text.lines().find(changed).unwrap().to_string();
    let count = changed.split_whitespace().rev().nth(3).unwrap();
    choose("changed");
    browser.until(shown, &json!(count.parse::<u32>().unwrap()));
}

#[test]
#[ignore = "needs chromedriver: make test-browser"]
fn a_page_without_its_folder_says_so() {
    let browser = Browser::start();
    let place = Place::with_images(70);
    place.run("--quiet --input photos --report page.html");
    fs::rename(place.path("page_files"), place.path("elsewhere")).unwrap();
    browser.open(&place.path("page.html"));
    let notes = "return document.getElementById('missing').textContent.startsWith('The folder page_files that belongs to this page is missing')";
    browser.until(notes, &json!(true));
    fs::rename(place.path("elsewhere"), place.path("page_files")).unwrap();
    browser.open(&place.path("page.html"));
    browser.until(
        "return document.getElementById('missing').hidden && canPoint",
        &json!(true),
    );
}

#[test]
#[ignore = "needs chromedriver: make test-browser"]
fn small_and_large_pages_fit_a_phone_in_dark_mode() {
    let browser = Browser::start();
    browser.become_phone(390, 844);
    let place = Place::new();
    fs::create_dir(place.path("many")).unwrap();
    for index in 0..70 {
        let name = format!("many/a rather long name of a photograph number {index}.png");
        fs::copy(place.path("photos/a.png"), place.path(&name)).unwrap();
    }
    for (input, count, pictures) in [("photos/a.png", 1, 0), ("many", 70, 141)] {
        place.run(&format!("--quiet --input {input} --report page.html"));
        browser.open(&place.path("page.html"));
        browser.until(
            "return document.querySelectorAll('.card:not([hidden])').length",
            &json!(count),
        );
        // The page is as wide as the screen, and the last image can be scrolled to.
        let width = browser.script("return document.documentElement.scrollWidth");
        assert_eq!(width, 390, "of {count} images");
        browser.script("[...document.querySelectorAll('.card')].at(-1).scrollIntoView()");
        browser.until(
            "return [...[...document.querySelectorAll('.card')].at(-1).querySelectorAll('img')]\
             .every(i => i.complete && i.naturalWidth > 0)",
            &json!(true),
        );
        // Light on dark.
        let colours = browser.script(
            "const s = getComputedStyle(document.body), c = getComputedStyle(document.querySelector('.card')); \
             return [s.backgroundColor, c.color].map(x => x.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0))",
        );
        let [ground, ink] = [0, 1].map(|index| colours[index].as_f64().unwrap());
        assert!(ground < 150.0 && ink > 550.0, "{colours}");
        // Small pages are one file, large ones have a folder beside them.
        let files = place.path("page_files");
        let written = fs::read_dir(files).map_or(0, Iterator::count);
        assert_eq!(written, pictures, "of {count} images");
    }
}
