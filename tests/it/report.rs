//! The report page in a real browser. `make test-browser` runs these tests.

use std::fs;

use crate::common::browser::Browser;
use crate::common::place::Place;
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
    let opacity = "return getComputedStyle(document.querySelector('.card .map')).opacity";
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
        "return getComputedStyle(document.querySelector('.card .map')).filter.includes('green')",
        &json!(true),
    );
    let source = "return document.querySelector('.card .map').src";
    let map = browser.script(source);
    browser.click("button[data-component=saliency]");
    assert_ne!(browser.script(source), map);
    browser.click("button[data-component=all]");
    browser.until(source, &map);

    // The filter shows the images of one class.
    let top = |line: &'_ str| {
        let class = line.split(['\t', ':']).nth(1);
        class.unwrap().to_string()
    };
    let class = top(&lines);
    let of_class = lines.lines().filter(|line| top(line) == class).count();
    assert!(of_class < count, "the images are of one class: {lines}");
    let choose = |index: &str| {
        browser.script(&format!(
            "const f = document.getElementById('filter'); f.selectedIndex = {index}; \
             f.dispatchEvent(new Event('change', {{bubbles: true}}))"
        ));
    };
    let readable = class.replace('_', " ");
    choose(&format!(
        "[...f.options].findIndex(o => o.textContent.startsWith({:?}))",
        format!("{readable} (")
    ));
    let visible = "return [...document.querySelectorAll('.card')].filter(c => !c.hidden).length";
    browser.until(visible, &json!(of_class));
    let shown = browser.script("return document.getElementById('shown').textContent");
    assert_eq!(shown, format!("{of_class} of {count} images"));
    choose("0");
    browser.until(visible, &json!(count));

    // A click opens an image, a key shows the next one, Escape closes it and restores the focus.
    browser.click(".card .open");
    browser.until(
        "return document.getElementById('viewer').open",
        &json!(true),
    );
    let title = "return document.getElementById('viewer-title').textContent";
    let first = browser.script(title);
    assert!(first.as_str().unwrap().contains("a.png"), "{first}");
    browser.type_into("#viewer-close", "\u{e014}");
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

    // The chart shows the value under the pointer.
    browser.hover("#variance .u-over", 0.02);
    let ratio = summary["variance_ratio"][0].as_f64().unwrap() * 100.0;
    browser.until(
        &format!(
            "const t = document.getElementById('variance-value').textContent; \
             return [...t.matchAll(/[\\d.]+/g)].some(n => Math.abs(Number(n[0]) - {ratio}) < 0.06)"
        ),
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
    for (input, count, pictures) in [("photos/a.png", 1, 0), ("many", 70, 140)] {
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
