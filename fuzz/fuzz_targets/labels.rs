//! Names of classes, as text and as JSON.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::labels::Labels;
use prism_fuzz::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    for name in ["a.txt", "a.json"] {
        let Ok(labels) = Labels::read(&PLACE.file(name, bytes)) else {
            continue;
        };
        assert!(!labels.is_empty());
        let titles = labels.titles();
        assert_eq!(titles.len(), labels.len());
        // One line and one column each.
        let plain = |title: &String| !title.contains(|c: char| c.is_whitespace() || c.is_control());
        assert!(titles.iter().all(plain), "{titles:?}");
        let _ = labels.find(&titles[0]);
    }
});
