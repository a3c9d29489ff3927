//! The explorer through its real update and draw, by key sequences.

mod atlas;
mod beside;
mod broken;
mod difference;
mod features;
mod gradients;
mod harness;
mod heads;
mod lab;
mod pictures;
mod places;
mod walk;

use std::sync::Arc;

use actscope::hooks::Site;
use actscope::model::{LoadOptions, Source};
use actscope::tui::app::{Focus, Screen};
use actscope::tui::theme::{Depth, Theme};
use actscope::{Input, Model};
use harness::{Explorer, PROMPT, assert_snapshot, demo};
use proptest::prelude::*;
use ratatui::crossterm::event::MouseEventKind;

fn explorer(size: (u16, u16)) -> Explorer {
    Explorer::new(PROMPT, size, Theme::default())
}

pub fn snapshot(name: &str, size: (u16, u16), keys: &str) {
    let mut explorer = explorer(size);
    explorer.keys(keys);
    assert_snapshot(name, &explorer);
}

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (160, 48);

macro_rules! snapshots {
    ($($name:ident: $size:ident $keys:literal;)*) => { $(
        #[test]
        fn $name() { snapshot(stringify!($name), $size, $keys); }
    )* };
}

mod parts;

snapshots! {
    tokens_80x24: SMALL "right right right";
    tokens_160x48: LARGE "right right right";
    embedding_80x24: SMALL "2 right right down down down";
    embedding_160x48: LARGE "2 right right down down down";
    stages_80x24: SMALL "3 } down down right right";
    stages_160x48: LARGE "3 } down down right right";
    stages_numbers: LARGE "3 enter right right down z z z z z z";
    stages_scores: LARGE "3 / a t t n _ s c o r e s . 2 enter ] enter down down down right";
    stages_each_row: SMALL "3 r r r p";
    attention_80x24: SMALL "4 } ] down down down right";
    attention_160x48: LARGE "4 } } ] ] down down down down right";
    attention_scaled: LARGE "4 s s down down right";
    logits_80x24: SMALL "5 right right right down";
    logits_160x48: LARGE "5 end down down T T <";
    continuations_80x24: SMALL "ctrl-g";
    help: SMALL "?";
    help_searched: SMALL "? z o o m";
    palette: SMALL ": t e m p";
    find: SMALL "/ q . 2";
    find_nothing: SMALL "/ q q q q";
    editing: SMALL "e space A n d enter backspace backspace";
    exporting: SMALL "3 x tab";
    generated: SMALL "1 end t t t t t t t t t t g g";
    with_bos: SMALL "B";
    about: SMALL "I";
}

#[test]
fn light_theme() {
    let mut explorer = Explorer::new(PROMPT, LARGE, Theme { light: true, ..Theme::default() });
    explorer.keys("4 down down");
    assert_snapshot("light", &explorer);
}

#[test]
fn no_colours() {
    let mut explorer = Explorer::new(PROMPT, SMALL, Theme { depth: Depth::Mono, ..Theme::default() });
    explorer.keys("3 enter down right");
    assert_snapshot("mono", &explorer);
    let buffer = explorer.draw();
    assert!(buffer.content.iter().all(|c| c.fg == ratatui::style::Color::Reset && c.bg == c.fg));
    // Glyphs have no halves: every row that is shown has a line.
    explorer.resize(100, 40);
    for position in 0..explorer.run().n_tokens() {
        explorer.find(&format!("{position:>2} {}", explorer.run().token_text(position)));
    }
}

#[test]
fn colours_of_256() {
    let mut explorer = Explorer::new(PROMPT, SMALL, Theme { depth: Depth::Indexed, ..Theme::default() });
    explorer.keys("3");
    assert_snapshot("indexed", &explorer);
}

#[test]
fn downloads_show_how_far_they_are() {
    use actscope::engine::Event;
    use actscope::model::Progress;
    use actscope::tui::app::App;
    use actscope::tui::update::{Message, update};
    let mut app = App::new("openai-community/gpt2".into(), Input::text(PROMPT), Theme::default(), SMALL);
    let progress = Progress::Download {
        file: "model.safetensors".into(),
        done: 137_000_000,
        total: Some(548_000_000),
        rate: Some(12.5e6),
    };
    update(&mut app, Message::Engine(Event::Loading(progress)));
    assert_snapshot("downloading", &Explorer::before_loading(app));
}

#[test]
fn an_empty_prompt_says_what_to_do() {
    let mut e = Explorer::new("", SMALL, Theme::default());
    assert!(e.shows("nothing to run: the prompt is empty") && e.shows("press e to type one"));
    e.keys("1 2 3 4 5 down right enter z g G x / esc").keys("e").text("Now");
    assert_eq!(e.run().prompt_text(), "Now");
}

#[test]
fn a_first_prompt_that_cannot_be_run_says_why() {
    let e = Explorer::new(&" word".repeat(300), SMALL, Theme::default());
    assert!(e.shows("the prompt could not be run") && !e.shows("the prompt is empty"));
    let said = e.lines().join(" ");
    assert!(said.contains("holds 256"), "{said}");
}

#[test]
fn too_small_is_said() {
    for (width, height) in [(59, 24), (80, 15), (52, 12), (20, 5)] {
        let said = explorer((width, height)).lines().join(" ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(said, format!("actscope needs 60×16; this is {width}×{height}"));
    }
}

#[test]
fn one_selection_for_all_screens() {
    let mut e = explorer(LARGE);
    e.keys("4 } } ] down down down");
    assert_eq!((e.app.selection.layer, e.app.selection.head, e.app.selection.position), (2, 1, 3));
    e.keys("enter");
    assert_eq!((e.app.screen, e.app.selection.hook), (Screen::Stages, Site::Pattern.at(2)));
    assert!(e.shows("blocks.2.attn.hook_pattern") && e.shows("head 1"));
    let selection = e.app.selection;
    for screen in Screen::ALL {
        e.keys(screen.command().entry().keys[0]).draw();
        assert_eq!((e.app.screen, e.app.selection), (screen, selection));
        assert!(e.shows("token 4 of"), "{screen:?}\n{}", e.lines().join("\n"));
    }
}

#[test]
fn every_number_under_the_cursor_is_the_runs() {
    let mut e = explorer(LARGE);
    e.keys("3 enter");
    for keys in ["right right right", "down down", "end", "home right"] {
        e.keys(keys);
        let (row, column) = (e.app.selection.position, e.app.selection.column);
        let tensor = e.run().cache.get("blocks.0.hook_resid_pre").unwrap();
        let value: f32 = tensor.get(row).unwrap().get(column).unwrap().to_scalar().unwrap();
        let said = format!("[{row}, {column}] = {}", actscope::tui::text::num(value));
        assert!(e.shows(&said), "{said} is not on the screen:\n{}", e.lines().join("\n"));
    }
}

#[test]
fn the_run_follows_as_one_types_and_the_selection_stays() {
    let mut e = explorer(SMALL);
    e.keys("3 } right right");
    let selection = e.app.selection;
    let before = e.run().n_tokens();
    e.keys("e").text(" And then the storm\ncame.");
    assert!(e.run().n_tokens() > before);
    assert_eq!(e.app.selection, selection);
    e.keys("ctrl-z ctrl-z ctrl-z ctrl-z ctrl-z ctrl-z ctrl-z");
    assert!(!e.run().prompt_text().ends_with("came."));
    e.keys("ctrl-a backspace");
    assert!(e.shows("the prompt is empty"), "{}", e.lines().join("\n"));
    assert!(e.app.run.is_some(), "the last run stays");
    e.paste("Pasted\r\ntext");
    assert_eq!(e.run().prompt_text(), "Pasted\ntext");
    e.keys("esc");
    assert!(e.app.overlay.is_none());
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let mut e = explorer(SMALL);
    e.keys("e");
    e.paste(&" word".repeat(300));
    let said = e.lines().join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("256") && said.contains("showing the last run"), "{said}");
    assert_eq!(e.run().prompt_text(), PROMPT);
}

#[test]
fn parts_in_a_second_column_are_clicked() {
    let mut e = Explorer::new(PROMPT, (300, 24), Theme::default());
    e.keys("9");
    let lines = e.lines();
    let second = |line: &String| line.chars().skip(268).collect::<String>();
    let y = (8..20).find(|&y| second(&lines[y]).starts_with(" head ")).unwrap();
    let name: Vec<_> = second(&lines[y]).split_whitespace().take(2).map(str::to_owned).collect();
    e.click(272, y as u16);
    assert!(e.shows(&format!("▸{}", name.join(" "))), "{}", e.lines().join("\n"));
}

#[test]
fn one_of_several_continuations_is_taken() {
    let mut e = explorer(SMALL);
    let before = e.run().tokens.clone();
    e.keys("ctrl-g down enter");
    let after = e.run().tokens.clone();
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 8);
    assert_eq!(e.app.selection.position, after.len() - 1);
    e.keys("ctrl-g esc");
    assert_eq!(e.run().tokens, after);
}

#[test]
fn sampled_tokens_are_appended_and_followed() {
    let mut e = explorer(SMALL);
    let before = e.run().tokens.clone();
    e.keys("end g");
    assert_eq!(e.run().tokens[..before.len()], before[..]);
    assert_eq!(e.run().n_tokens(), before.len() + 1);
    assert_eq!(e.app.selection.position, before.len());
    e.keys("G");
    assert_eq!(e.run().n_tokens(), before.len() + 17);
    e.keys("5 down down");
    let chosen = e.app.next().unwrap().of.top[2].id;
    e.keys("enter");
    assert_eq!(e.run().tokens.last(), Some(&chosen));
}

#[test]
fn bos_is_put_before_the_prompt_and_said() {
    let mut e = explorer(SMALL);
    assert!(e.shows("no BOS"));
    e.keys("B");
    assert_eq!(e.run().tokens[0], demo().config().bos_token_id.unwrap());
    assert!(e.shows("· BOS ·") && !e.shows("no BOS"));
}

#[test]
fn the_mouse_selects_scrolls_and_zooms() {
    let mut e = explorer(LARGE);
    let (x, y) = e.find("3 Stages");
    e.click(x, y);
    assert_eq!(e.app.screen, Screen::Stages);
    let (x, y) = e.find("mlp.pre");
    e.click(x, y);
    assert_eq!(e.app.selection.hook, Site::MlpPre.at(0));
    let (x, y) = e.find("·said");
    e.click(x, y);
    assert_eq!(e.app.selection.position, 3, "the token strip");
    let (x, y) = e.find(" 5 ·the");
    e.click(x + 20, y);
    assert_eq!((e.app.focus, e.app.selection.position), (Focus::Map, 5));
    e.mouse(MouseEventKind::ScrollUp, x + 20, y);
    assert_eq!(e.app.zoom, 1);
    e.mouse(MouseEventKind::ScrollDown, x + 20, y);
    assert_eq!(e.app.zoom, 0);
    e.keys("?").text("the prompt as tokens");
    let (x, y) = e.find("screen: the prompt as tokens");
    e.click(x, y);
    assert_eq!(e.app.screen, Screen::Tokens);
}

#[test]
fn exports_from_the_form_are_written_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = explorer(LARGE);
    for (name, everything) in [("map.png", ""), ("map.svg", ""), ("x.npy", ""), ("all.safetensors", "tab")] {
        let path = dir.path().join(name);
        e.keys("3 x").keys(everything).keys("ctrl-u").text(path.to_str().unwrap()).keys("enter");
        assert!(path.metadata().unwrap().len() > 100, "{name}");
        assert!(e.shows("wrote "), "{}", e.lines().join("\n"));
    }
    e.keys("x ctrl-u").text("/no/such/place.npz").keys("enter");
    assert!(e.shows("/no/such/place.npz"), "{}", e.lines().join("\n"));
    e.keys("x ctrl-u").text(dir.path().join("nothing").to_str().unwrap()).keys("enter");
    assert!(e.shows("unknown format"), "{}", e.lines().join("\n"));
}

#[test]
fn without_a_tokenizer_ids_are_edited() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny/plain");
    let model =
        Model::load(&Source::Path(directory.into()), &LoadOptions::default(), &(Arc::new(|_| {}) as _));
    let mut e =
        Explorer::with_model(Arc::new(model.unwrap()), Input::ids([5, 17, 96]), SMALL, Theme::default());
    assert!(e.shows("#17"), "{}", e.lines().join("\n"));
    e.keys("e").text(", 88");
    assert_eq!(e.run().tokens, [5, 17, 96, 88]);
    e.text(", 97");
    assert!(e.shows("token id 97 is out of range (0 to 96)"), "{}", e.lines().join("\n"));
    e.keys("backspace backspace").text("x");
    assert!(e.shows("`x` is not a token id"), "{}", e.lines().join("\n"));
}

#[test]
fn a_file_is_replaced_only_when_asked_and_a_failed_export_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    std::fs::write(&path, "mine").unwrap();
    let mut e = Explorer::new(PROMPT, LARGE, Theme::default());
    e.keys("3 x ctrl-u").text(path.to_str().unwrap()).keys("enter");
    assert!(e.shows("Enter again replaces it") && std::fs::read(&path).unwrap() == b"mine");
    // Another name is asked about anew.
    e.keys("backspace").text("v").keys("enter");
    assert!(e.shows("Enter again replaces it") && std::fs::read(&path).unwrap() == b"mine");
    e.keys("enter");
    assert!(e.shows("wrote ") && std::fs::read(&path).unwrap().len() > 100);
    // What is typed after a failure goes on in the form.
    e.keys("x ctrl-u").text("/no/such/place.csv").keys("enter");
    assert!(e.shows("/no/such/place.csv") && e.shows("Export"), "{}", e.lines().join("\n"));
    e.text("q");
    assert!(e.shows("place.csvq") && e.app.quit.is_none());
    e.keys("esc");
    assert!(!e.shows("Export"));
}

#[test]
fn it_starts_on_the_last_token_and_the_selection_follows_its_token() {
    use actscope::engine::Event;
    use actscope::tui::update::Message;
    let mut e = Explorer::new("A man saw", LARGE, Theme::default());
    // As after loading: nothing has run before.
    e.app.run = None;
    e.send(Message::Engine(Event::Loaded(harness::demo())));
    assert_eq!(e.app.selection.position + 1, e.run().n_tokens());
    // The end stays the end, another token stays what it is.
    e.keys("e").text(" the sea");
    assert_eq!(e.app.selection.position + 1, e.run().n_tokens());
    e.keys("esc ,");
    let chosen = e.run().tokens[e.app.selection.position];
    e.keys("e home");
    e.paste("Once, there was rain. ");
    assert_eq!(e.run().tokens[e.app.selection.position], chosen);
}

#[test]
fn the_other_background_is_painted_and_sixteen_colours_are_used() {
    let mut e = Explorer::new(PROMPT, SMALL, Theme::default());
    let paper = |e: &Explorer| e.draw()[(70, 12)].bg;
    assert_eq!(paper(&e), ratatui::style::Color::Reset, "the terminal's own");
    e.keys("b");
    assert_eq!(paper(&e), ratatui::style::Color::Rgb(250, 250, 248));
    e.keys("b");
    assert_eq!(paper(&e), ratatui::style::Color::Reset);
    e.app.theme.depth = actscope::tui::theme::Depth::Sixteen;
    e.keys("3");
    let buffer = e.draw();
    let colours = buffer.content.iter().flat_map(|cell| [cell.fg, cell.bg]);
    let few: std::collections::HashSet<_> = colours.collect();
    assert!(few.len() > 4 && few.len() <= 17, "{few:?}");
    assert!(
        few.iter().all(|color| matches!(
            color,
            ratatui::style::Color::Reset | ratatui::style::Color::Indexed(0..16)
        ))
    );
}

#[test]
fn names_are_found_before_descriptions() {
    let mut e = Explorer::new(PROMPT, LARGE, Theme::default());
    e.keys(":").text("ablate");
    assert!(e.shows("zero") && e.shows("knock") || e.shows("effects"), "{}", e.lines().join("\n"));
    e.keys("ctrl-u").text("goto");
    assert!(e.shows("no matches"), "{}", e.lines().join("\n"));
    e.keys("ctrl-u").text("bos");
    let first = e.lines().into_iter().skip_while(|line| !line.contains("› bos")).nth(2).unwrap();
    assert!(first.contains(" bos "), "{first}");
}

#[test]
fn ids_without_text_are_kept_by_the_editor() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wild/models/nanogpt_padded/ckpt.pt");
    let model = Model::load(&Source::Path(file.into()), &LoadOptions::default(), &(Arc::new(|_| {}) as _));
    let mut e =
        Explorer::with_model(Arc::new(model.unwrap()), Input::ids([9, 60, 8]), SMALL, Theme::default());
    e.keys("e").text(", 7");
    assert_eq!(e.run().tokens, [9, 60, 8, 7]);
    e.keys("ctrl-u").text("9, 8").keys("esc e");
    assert!(e.shows(";:"), "as text again: {}", e.lines().join("\n"));
}

#[test]
fn what_was_odd_about_a_model_is_under_one_key() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wild/models/nanogpt_no_bias/ckpt.pt");
    let model = Model::load(&Source::Path(file.into()), &LoadOptions::default(), &(Arc::new(|_| {}) as _));
    let low = (60, 16);
    let mut e = Explorer::with_model(Arc::new(model.unwrap()), Input::ids([5, 17]), low, Theme::default());
    e.keys("I");
    assert!(e.shows("The model") && e.shows("2 layers · 2 heads"), "{}", e.lines().join("\n"));
    assert!(!e.shows("no biases: they are 0"));
    e.keys("pagedown pagedown pagedown");
    assert!(e.shows("no biases: they are 0"), "{}", e.lines().join("\n"));
    e.keys("up up");
    assert!(!e.shows("no biases: they are 0"), "one key up shows a line above");
    e.keys("esc");
    assert!(!e.shows("The model"));
}

#[test]
fn every_command_of_the_palette_runs_on_every_screen() {
    use actscope::tui::command::COMMANDS;
    for screen in Screen::ALL {
        let mut e = Explorer::new("Call me", SMALL, Theme::default());
        for entry in COMMANDS.iter().filter(|entry| entry.name != "quit") {
            e.keys("esc esc").keys(screen.command().entry().keys[0]);
            assert_eq!(e.app.screen, screen);
            e.keys(":").text(entry.name).keys("enter");
            assert!(e.app.quit.is_none(), "{}", entry.name);
            e.draw();
        }
    }
}

#[test]
fn esc_cancels_a_run_that_is_going_on() {
    use actscope::engine::{Event, Said};
    use actscope::tui::update::Message;
    let mut e = explorer(SMALL);
    e.app.activity = Some(actscope::tui::app::Activity::Running { layer: 1, n_layer: 4, left: 0 });
    e.send(Message::Tick);
    assert!(e.shows("block 1 of 4") && e.shows("Esc cancel"));
    let id = e.app.job_id;
    e.keys("esc");
    assert!(e.app.job_id > id && e.app.activity.is_none() && e.shows("cancelled"));
    // What the cancelled job still says is not heard.
    e.send(Message::Engine(Event::Job { id, said: Said::Layer { layer: 3, n_layer: 4 } }));
    assert!(e.app.activity.is_none());
}

/// Any key of any command but those that leave, every third one that of a screen.
fn any_key() -> impl Strategy<Value = &'static str> {
    use actscope::tui::command::COMMANDS;
    let stays = COMMANDS.iter().filter(|entry| !["quit", "suspend"].contains(&entry.name));
    let keys: Vec<_> = stays.flat_map(|entry| entry.keys).copied().collect();
    let screens = Screen::ALL.map(|screen| screen.command().entry().keys[0]).to_vec();
    prop_oneof![2 => proptest::sample::select(keys), 1 => proptest::sample::select(screens)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_keys_make_it_panic(
        sizes in proptest::collection::vec((0u16..400, 0u16..120), 1..4),
        keys in proptest::collection::vec(any_key(), 0..24),
    ) {
        let mut e = Explorer::new("Call me Ishmael. 漢字 🙂\tand\u{7}", sizes[0], Theme::default());
        for (i, key) in keys.iter().enumerate() {
            e.keys(key);
            if let Some(&(width, height)) = sizes.get(i % 7) {
                e.resize(width, height);
            }
            e.draw();
        }
    }
}

#[test]
fn the_smallest_sizes_never_panic() {
    let mut e = explorer((0, 0));
    for (width, height) in
        (0..70).map(|n| (n, n / 3)).chain((14..20).flat_map(|h| [(60, h), (61, h), (400, h)]))
    {
        e.resize(width, height);
        let screens = Screen::ALL.map(|screen| screen.command().entry().keys[0]);
        for key in screens.into_iter().chain(["?", "esc", "e", "esc", "x", "esc"]) {
            e.keys(key);
            e.draw();
        }
    }
}

/// The README's tables of keys and settings are those of the program; `ACTSCOPE_UPDATE=1` writes it anew.
#[test]
fn the_readme_lists_the_keys() {
    use actscope::tui::command::COMMANDS;
    use actscope::tui::keymap::Keys;
    use std::fmt::Write;
    let mut table = String::from("| keys | command | screens | what it does |\n|---|---|---|---|\n");
    for entry in COMMANDS.iter() {
        let keys: Vec<_> = Keys(entry.keys).to_string().split(' ').map(|key| format!("`{key}`")).collect();
        let screens: Vec<_> = entry.screens().map(Screen::name).collect();
        let screens = if screens.is_empty() { "all".to_owned() } else { screens.join(", ") };
        let cells = [&keys.join(" "), entry.name, &screens, entry.doc].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    let mut settings = String::from("| setting | default | what it is |\n|---|---|---|\n");
    for setting in actscope::tui::settings::SETTINGS {
        let _ = writeln!(settings, "| `{}` | `{}` | {} |", setting.name, setting.default, setting.doc);
    }
    readme_has("keys", &table);
    readme_has("settings", &settings);
}

fn readme_has(what: &str, table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (open, close) = (format!("<!-- {what} -->\n"), format!("<!-- /{what} -->"));
    let (before, rest) = readme.split_once(&open).expect("the README has a place for the table");
    let (now, after) = rest.split_once(&close).unwrap();
    if std::env::var_os("ACTSCOPE_UPDATE").is_some() {
        std::fs::write(path, format!("{before}{open}{table}{close}{after}")).unwrap();
    } else {
        assert_eq!(now, table, "run the tests once with ACTSCOPE_UPDATE=1");
    }
}
