//! The page of `actscope report`, in a real browser and without scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const PROMPT: &str =
    "The old man said to the <b>young</b> man & \"left\" </script><script>document.title='x'</script>";

fn actscope(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(env!("CARGO_BIN_EXE_actscope")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn page() -> String {
    String::from_utf8(actscope(&["report", PROMPT, "-o", "-"])).unwrap()
}

fn browser() -> Option<PathBuf> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// The document of a page after its scripts ran; `None` if the browser does not start here.
fn dom(browser: &Path, folder: &Path, page: &str) -> Option<String> {
    let file = folder.join("page.html");
    fs::write(&file, page).unwrap();
    let data = format!("--user-data-dir={}", folder.join("data").display());
    let done = Command::new("timeout")
        .arg("60")
        .arg(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", &data])
        .arg("--disable-dev-shm-usage")
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&done.stdout).into_owned()).filter(|dom| !dom.is_empty())
}

/// The text of the first element that starts with `open`.
fn inside<'a>(page: &'a str, open: &str, close: &str) -> &'a str {
    let (_, rest) = page.split_once(open).unwrap_or_else(|| panic!("no {open}"));
    rest.split_once(close).unwrap().0
}

#[test]
fn without_scripts_the_page_has_the_numbers_of_the_run() {
    let page = page();
    // Nothing is fetched, and nothing of the prompt is markup.
    for link in ["http:", "https:", "src=\"/", "@import", "url("] {
        assert!(!page.contains(link), "{link}");
    }
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert!(!page.contains("<b>") && !page.contains("document.title='x'<"));
    let tokens: Value = serde_json::from_slice(&actscope(&["tokens", PROMPT, "--json"])).unwrap();
    let ids: Vec<_> = tokens.as_array().unwrap().iter().map(|token| token["id"].to_string()).collect();
    let table = inside(&page, "<table id=\"token-table\">", "</table>");
    assert_eq!(table.matches("<tr>").count(), ids.len() + 1);
    for (position, id) in ids.iter().enumerate() {
        assert!(table.contains(&format!("<td class=\"r\">{id}</td>")), "{position}");
    }
    let parts: Value = serde_json::from_slice(&actscope(&["attribute", PROMPT, "--json"])).unwrap();
    let attribution = inside(&page, "<table id=\"attribution-table\">", "</table>");
    assert!(attribution.matches("<tr>").count() >= 32, "{parts}");
    let found: Value = serde_json::from_slice(&actscope(&["find", PROMPT, "--json"])).unwrap();
    let first = found["values"][0]["hook"].as_str().unwrap();
    assert!(inside(&page, "<table id=\"largest-table\">", "</table>").contains(first), "{first}");
    assert!(inside(&page, "<h2 id=\"origin\">", "</dl>").contains("weights sha256"));
}

#[test]
fn in_a_browser_heads_and_tokens_are_chosen() {
    let Some(browser) = browser() else {
        eprintln!("skipped: needs chromium");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ask = "<script>
        document.querySelector('[data-head=\"2.3\"]').click();
        const token = document.querySelector('#queries [data-position=\"4\"]');
        token.dispatchEvent(new MouseEvent('mouseenter'));
        const read = [...document.querySelectorAll('#reads li')].map((li) => [+li.dataset.key, +li.dataset.value]);
        const canvas = document.getElementById('map');
        const pixel = canvas.getContext('2d').getImageData(0, 0, 1, 1).data;
        const said = {title: document.title, which: document.getElementById('which').textContent, read,
            pressed: [...document.querySelectorAll('[aria-pressed=true]')].map((x) => x.dataset.head ?? x.dataset.position),
            alpha: pixel[3], side: canvas.width, hidden: document.getElementById('interactive').hidden};
        const out = document.createElement('pre');
        out.id = 'said';
        out.textContent = encodeURIComponent(JSON.stringify(said));
        document.body.append(out);
    </script></body>";
    let Some(shown) = dom(&browser, folder.path(), &page().replace("</body>", ask)) else {
        eprintln!("skipped: chromium does not start");
        return;
    };
    let said = inside(&shown, "<pre id=\"said\">", "</pre>");
    let said: Value = serde_json::from_str(&decoded(said)).unwrap();
    assert!(
        said["title"].as_str().unwrap().starts_with("actscope: The old man"),
        "no script of the prompt ran"
    );
    assert!(said["which"].as_str().unwrap().starts_with("head 2.3: "));
    assert_eq!(said["pressed"], serde_json::json!(["2.3", "4"]));
    assert_eq!((&said["alpha"], &said["hidden"]), (&Value::from(255), &Value::from(false)));
    // The numbers are those of an export.
    let exported = actscope(&["export", PROMPT, "--hooks=pattern.2", "-o", "-"]);
    let exported: Value = serde_json::from_slice(&exported).unwrap();
    let row = &exported["tensors"]["blocks.2.attn.hook_pattern"][3][4];
    let mut wanted: Vec<_> =
        row.as_array().unwrap()[..5].iter().map(|x| x.as_f64().unwrap()).enumerate().collect();
    wanted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let read = said["read"].as_array().unwrap();
    assert_eq!(read.len(), 5);
    for (read, (key, value)) in read.iter().zip(wanted) {
        assert_eq!(read[0], key);
        assert!((read[1].as_f64().unwrap() - value).abs() < 1e-5, "{read} {value}");
    }
}

#[test]
fn what_is_not_a_number_says_so() {
    let Some(browser) = browser() else {
        eprintln!("skipped: needs chromium");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // A query that may read nothing.
    let without: Vec<_> = (0..=6).map(|key| format!("--knockout=2.1:6->{key}")).collect();
    let mut arguments = vec!["report", "A query that may read nothing at all", "-o", "-"];
    arguments.extend(without.iter().map(String::as_str));
    let ask = "<script>
        document.querySelector('[data-head=\"2.1\"]').click();
        document.querySelector('#queries [data-position=\"6\"]').click();
        const pixel = document.getElementById('map').getContext('2d').getImageData(3, 6, 1, 1).data;
        const out = document.createElement('pre');
        out.id = 'said';
        out.textContent = [...document.querySelectorAll('#reads li')].map((li) => li.lastChild.textContent).join() + [...pixel];
        document.body.append(out);
    </script></body>";
    let page = String::from_utf8(actscope(&arguments)).unwrap();
    let Some(shown) = dom(&browser, folder.path(), &page.replace("</body>", ask)) else {
        eprintln!("skipped: chromium does not start");
        return;
    };
    let said = inside(&shown, "<pre id=\"said\">", "</pre>");
    assert_eq!(said, format!("{}255,0,255,255", ["NaN"; 7].join(",")));
}

/// What `encodeURIComponent` made.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_page_is_refused_under_another_name() {
    let done =
        Command::new(env!("CARGO_BIN_EXE_actscope")).args(["report", "Hi", "-o", "x.pdf"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&done.stderr),
        "actscope: x.pdf: use a name that ends in .html, or -\n"
    );
}
