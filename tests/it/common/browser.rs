//! A headless browser, driven by ChromeDriver over the WebDriver protocol. The crates for it
//! (thirtyfour, fantoccini) need an asynchronous runtime; these calls need `ureq` alone.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The key of a reference to an element in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page.
pub struct Browser {
    driver: Child,
    /// Address of the session.
    session: String,
}

impl Browser {
    /// Starts ChromeDriver, which finds the browser.
    pub fn start() -> Browser {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let driver = Command::new("chromedriver")
            .args([&format!("--port={port}"), "--log-level=OFF"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let root = format!("http://127.0.0.1:{port}");
        let mut browser = Browser {
            driver,
            session: root.clone(),
        };
        let begun = Instant::now();
        while ureq::get(format!("{root}/status")).call().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no ChromeDriver");
            std::thread::sleep(Duration::from_millis(50));
        }
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1200,900",
        ];
        let started = browser.post(
            "session",
            json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}),
        );
        let id = started["sessionId"].as_str().unwrap();
        browser.session = format!("{root}/session/{id}");
        browser
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        let mut answer = agent
            .post(format!("{}/{path}", self.session))
            .header("content-type", "application/json")
            .send(body.to_string())
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.status(), 200, "{path}: {value}");
        value["value"].clone()
    }

    /// Opens a file.
    pub fn open(&self, file: &Path) {
        self.post("url", json!({"url": format!("file://{}", file.display())}));
    }

    /// Emulates a phone of `width` by `height` pixels in dark mode.
    pub fn become_phone(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 2, "mobile": true});
        let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        for (command, parameters) in [
            ("Emulation.setDeviceMetricsOverride", size),
            ("Emulation.setEmulatedMedia", dark),
        ] {
            let body = json!({"cmd": command, "params": parameters});
            self.post("goog/cdp/execute", body);
        }
    }

    /// Runs the body of a function in the page.
    pub fn script(&self, body: &str) -> Value {
        self.post("execute/sync", json!({"script": body, "args": []}))
    }

    /// Repeats a script until it returns `wanted`.
    pub fn until(&self, body: &str, wanted: &Value) {
        let begun = Instant::now();
        loop {
            let found = self.script(body);
            if found == *wanted {
                return;
            }
            let patient = begun.elapsed() < Duration::from_secs(20);
            assert!(patient, "{body}: {found}, not {wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn element(&self, selector: &str) -> String {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.post("element", body);
        found[ELEMENT].as_str().unwrap().to_string()
    }

    /// Clicks on the first element that the selector finds.
    pub fn click(&self, selector: &str) {
        let path = format!("element/{}/click", self.element(selector));
        self.post(&path, json!({}));
    }

    /// Types into an element; `\u{e014}` is the right arrow, `\u{e00c}` Escape.
    pub fn type_into(&self, selector: &str, text: &str) {
        let path = format!("element/{}/value", self.element(selector));
        self.post(&path, json!({"text": text}));
    }

    /// Moves the pointer along parts (0 to 1) of an element's width and height; with `pressed` its
    /// button is down from the first to the last.
    pub fn drag(&self, selector: &str, path: &[(f64, f64)], pressed: bool) {
        let element = self.element(selector);
        let size = self.script(&format!(
            "const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
             const b = e.getBoundingClientRect(); return [b.width, b.height]"
        ));
        // From the element's middle.
        let from_middle =
            |part: f64, axis: usize| ((part - 0.5) * size[axis].as_f64().unwrap()).round();
        let moves = path.iter().map(|&(x, y)| {
            let (x, y) = (from_middle(x, 0), from_middle(y, 1));
            json!({"type": "pointerMove", "duration": 0, "x": x, "y": y, "origin": {ELEMENT: element}})
        });
        let mut actions: Vec<Value> = moves.collect();
        if pressed {
            actions.insert(1, json!({"type": "pointerDown", "button": 0}));
            actions.push(json!({"type": "pointerUp", "button": 0}));
        }
        self.post(
            "actions",
            json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}),
        );
    }

    /// Points at a part of an element.
    pub fn hover(&self, selector: &str, at: (f64, f64)) {
        self.drag(selector, &[(at.0 / 2.0 + 0.25, at.1), at], false);
    }

    /// Clicks at a part of an element.
    pub fn click_at(&self, selector: &str, at: (f64, f64)) {
        self.drag(selector, &[at], true);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
