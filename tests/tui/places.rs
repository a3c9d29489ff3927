//! Going places, copying, and what keys and clicks do besides.

use actscope::hooks::Site;
use actscope::tui::app::{Focus, Screen};
use actscope::tui::theme::Theme;

use ratatui::crossterm::event::MouseEventKind;
use unicode_width::UnicodeWidthStr;

use super::harness::{Explorer, PROMPT, assert_snapshot};
use super::{LARGE, SMALL};

fn explorer(keys: &str) -> Explorer {
    let mut explorer = Explorer::new(PROMPT, LARGE, Theme::default());
    explorer.keys(keys);
    explorer
}

#[test]
fn the_palette_goes_to_places_by_name() {
    let mut e = explorer("3 :");
    e.text("position 7").keys("enter");
    assert_eq!((e.app.screen, e.app.selection.position), (Screen::Stages, 7));
    e.keys(":").text("channel 100\n");
    assert_eq!(e.app.selection.column, 100);
    e.keys("4 :").text("head 2.3\n");
    assert_eq!((e.app.selection.layer, e.app.selection.head), (2, 3));
    assert!(e.shows("head 2.3"));
    e.keys(":").text("token ' sea'\n");
    assert_eq!(e.run().token_text(e.app.selection.position), "·sea");
    e.keys(":").text("position 400");
    assert!(e.shows("no position 400: the last is 14"), "{}", e.lines().join("\n"));
    e.keys("enter");
    assert!(e.app.overlay.is_some(), "there is nothing to choose");
}

#[test]
fn one_goes_back_and_forth_and_marks() {
    let mut e = explorer("3 down down down 4 ] 5");
    let hook = e.app.selection.hook;
    e.keys("ctrl-o");
    assert_eq!((e.app.screen, e.app.selection.head), (Screen::Attention, 1));
    e.keys("backspace");
    assert_eq!((e.app.screen, e.app.selection.hook), (Screen::Stages, hook));
    e.keys("ctrl-n");
    assert_eq!(e.app.screen, Screen::Attention);
    e.keys("ctrl-n");
    assert_eq!(e.app.screen, Screen::Logits);
    e.keys("ctrl-n");
    assert!(e.shows("this is where you came back from"));
    e.keys("'");
    assert!(e.shows("no marks yet"));
    e.keys("\" 1 \" '");
    assert_eq!(e.app.screen, Screen::Logits);
    e.keys("'");
    assert_eq!(e.app.screen, Screen::Tokens);
    e.keys("\"");
    assert!(e.shows("the mark here is gone"));
    // The places are of another prompt now.
    e.keys("end e ctrl-a backspace S e a esc ctrl-o");
    assert!(e.app.selection.position < e.run().n_tokens());
}

#[test]
fn what_is_under_the_cursor_is_copied() {
    let mut e = explorer("3 enter down right right y");
    assert!(e.shows("actscope render resid_pre.0 --model=demo --token-ids="), "{}", e.lines().join("\n"));
    assert_snapshot("copy_160x48", &e);
    e.keys("enter");
    let row = e.run().tensor(Site::ResidPre.at(0)).unwrap().get(1).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(e.app.copied, Some(("value", row[2].to_string())));
    e.keys("y").text("row").keys("enter");
    let (what, text) = e.app.copied.take().unwrap();
    let numbers: Vec<f32> = text.split(", ").map(|x| x.parse().unwrap()).collect();
    assert_eq!((what, numbers), ("row", row));
    e.keys("8 y").text("command").keys("enter");
    let (_, text) = e.app.copied.take().unwrap();
    assert!(text.starts_with("actscope render lens --show=top --model=demo"), "{text}");
    // With what was changed.
    e.keys("4 a y").text("command").keys("enter");
    assert!(e.app.copied.take().unwrap().1.contains(" --ablate=head:0.0"));
}

#[test]
fn a_key_that_does_nothing_says_why() {
    let mut e = explorer("z");
    assert!(e.shows("z is `zoom-in` on Stages, not on Tokens"), "{}", e.lines().join("\n"));
    e.keys("%");
    assert!(e.shows("% does nothing: ? lists the keys"));
}

#[test]
fn the_keys_of_a_screen_are_shown_and_the_next_one_is_obeyed() {
    let mut e = explorer("3 space");
    assert_snapshot("keys_160x48", &e);
    e.keys("4");
    assert_eq!((e.app.screen, e.app.overlay.is_some()), (Screen::Attention, false));
    e.keys("space esc");
    assert_eq!((e.app.screen, e.app.overlay.is_some()), (Screen::Attention, false));
    e.keys("space");
    let (x, y) = e.find("Logits");
    let other = e.lines().iter().rposition(|line| line.contains(" Logits")).unwrap() as u16;
    e.click(x.max(10), if y < 3 { other } else { y });
    assert!(e.app.overlay.is_none());
    let mut small = Explorer::new(PROMPT, SMALL, Theme::default());
    small.keys("5 space");
    assert_snapshot("keys_80x24", &small);
}

#[test]
fn hints_and_the_flow_are_clicked_and_a_double_click_opens() {
    let mut e = explorer("3");
    let (x, y) = e.find("logits ─");
    e.click(x - 2, y);
    assert_eq!(e.app.selection.hook, Site::ResidPost.at(3));
    let (x, y) = e.find("e edit");
    e.click(x + 3, y);
    assert!(e.shows("runs as you type"));
    e.keys("esc 1");
    let (x, y) = e.find("·young ");
    let (_, table) = (x, e.lines().iter().rposition(|line| line.contains("·young")).unwrap() as u16);
    e.click(12, table.max(y));
    assert_eq!(e.app.screen, Screen::Tokens);
    e.click(12, table.max(y));
    assert_eq!(e.app.screen, Screen::Embedding, "its embedding");
}

#[test]
fn a_token_of_the_prompt_is_found_and_edited_where_it_is() {
    let mut e = explorer("/");
    e.text("young");
    assert!(e.shows("·young"), "{}", e.lines().join("\n"));
    e.keys("enter");
    assert_eq!(e.run().token_text(e.app.selection.position), "·young");
    assert_eq!(e.app.focus, Focus::Tree);
    e.keys("e").text("est");
    assert_eq!(e.run().prompt_text(), PROMPT.replace("young", "youngest"));
    e.keys("esc end e").text(" So");
    assert!(e.run().prompt_text().ends_with("calm. So"));
}

#[test]
fn every_head_of_every_block_is_in_one_view() {
    let mut e = explorer("4 m");
    assert_snapshot("all_heads_160x48", &e);
    e.keys("down down right");
    assert_eq!((e.app.selection.layer, e.app.selection.head), (2, 1));
    assert!(e.shows("▸2.1"));
    let (x, y) = e.find(" 3.4");
    e.click(x + 3, y + 2);
    assert_eq!((e.app.selection.layer, e.app.selection.head), (3, 4));
    e.keys("enter");
    assert_eq!(e.app.screen, Screen::Attention);
    assert!(e.shows("head 3.4 of 6"));
    let mut small = Explorer::new(PROMPT, SMALL, Theme::default());
    small.keys("4 m");
    assert_snapshot("all_heads_80x24", &small);
}

#[test]
fn a_character_of_several_tokens_is_shown_once() {
    let mut e = Explorer::new("a漢b", LARGE, Theme::default());
    let parts: Vec<_> = e.run().characters().into_iter().flatten().map(|c| c.to_string()).collect();
    assert_eq!(parts.last().unwrap(), &format!("{0}/{0} of 漢", parts.len()));
    assert_eq!(e.lines()[2].matches('漢').count(), 1);
    e.keys("right");
    assert!(e.shows("1/") && e.shows(" of 漢"), "{}", e.lines().join("\n"));
}

#[test]
fn the_welcome_says_what_to_press_and_goes() {
    use actscope::tui::theme::Theme;
    for (name, size) in [("welcome_80x24", SMALL), ("welcome_160x48", LARGE)] {
        let mut e = Explorer::new(PROMPT, size, Theme::default());
        e.app.welcome();
        assert_snapshot(name, &e);
        e.keys("3");
        assert_eq!((e.app.screen, e.app.overlay.is_some()), (Screen::Stages, false));
    }
}

#[test]
fn earlier_prompts_come_back_in_the_editor() {
    let mut e = explorer("e");
    e.text(" A").keys("esc e").text("B").keys("esc e up");
    assert_eq!(e.run().prompt_text(), "The A old man said to the young man that the sea was calm.");
    e.keys("down");
    assert!(e.run().prompt_text().starts_with("TheB A old"));
}

#[test]
fn what_is_remembered_fits_what_is_there() {
    use actscope::tui::state;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    assert!(state::load(&folder, "demo").first);
    let mut e = explorer("4 ] ] } 3 down down enter end c");
    e.keys("e").text(" more").keys("esc");
    state::save(&folder, &e.app);
    let found = state::load(&folder, "demo");
    assert!(!found.first && found.problem.is_none());
    assert!(state::load(&folder, "another").state.is_none());
    let state = found.state.unwrap();
    assert_eq!(state, state::State::of(&e.app));
    assert_eq!(state.prompts.last().unwrap(), &e.run().prompt_text());
    let mut other = Explorer::new("Hi", LARGE, Theme::default());
    state.restore(&mut other.app);
    state.select(&mut other.app);
    assert_eq!(other.app.screen, Screen::Stages);
    assert_eq!(other.app.selection.hook, e.app.selection.hook);
    assert_eq!(other.app.theme.palette, e.app.theme.palette);
    assert!(other.app.selection.position < other.run().n_tokens());
    other.draw();
}

#[test]
fn a_view_is_written_and_leads_back() {
    use actscope::tui::view::SavedView;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.toml");
    let mut e = explorer("4 } ] a down down right");
    e.keys("x tab ctrl-u").text(path.to_str().unwrap()).keys("enter");
    assert!(e.shows("shows the same"), "{}", e.lines().join("\n"));
    let text = std::fs::read_to_string(&path).unwrap();
    let view = SavedView::read(&text).unwrap();
    assert_eq!(view.model, "demo");
    let input = view.input().unwrap();
    assert_eq!(input.prompt, e.app.input.prompt);
    assert_eq!(input.interventions.to_string(), e.app.input.interventions.to_string());
    assert!(text.contains("changes = [\"zero head:1.1\"]"), "{text}");
    let mut other = Explorer::with_model(super::harness::demo(), input, LARGE, Theme::default());
    view.look.restore(&mut other.app);
    view.look.select(&mut other.app);
    assert_eq!((other.app.screen, other.app.selection), (e.app.screen, e.app.selection));
}

#[test]
fn the_mouse_alone_is_enough() {
    let mut e = explorer("4");
    let click = |e: &mut Explorer, text: &str| {
        let (x, y) = e.find(text);
        e.click(x, y);
    };
    click(&mut e, "scaled");
    assert!(e.shows("[scaled]"));
    click(&mut e, "softmax");
    assert!(e.shows("[softmax]"));
    // The feet of overlays, with keys and what they do.
    e.keys("i");
    click(&mut e, "+ new");
    e.text("zero head:0.1");
    click(&mut e, "Enter accept");
    e.keys("+").text("zero mlp:2").keys("enter");
    assert_eq!(e.app.input.interventions.0.len(), 2);
    let on = |e: &Explorer| e.app.input.interventions.0.iter().map(|one| one.on).collect::<Vec<_>>();
    click(&mut e, "● zero head:0.1");
    assert_eq!(on(&e), [false, true]);
    let (x, y) = e.find("● zero mlp:2");
    let x = x + 3;
    e.click(x, y);
    assert_eq!(on(&e), [false, true], "selected");
    e.click(x, y);
    assert_eq!(on(&e), [false, false], "a double click switches");
    e.mouse(MouseEventKind::ScrollUp, x, y);
    click(&mut e, "d delete");
    let left: Vec<_> = e.app.input.interventions.0.iter().map(|one| one.change.to_string()).collect();
    assert_eq!(left, ["zero mlp:2"]);
    click(&mut e, "Esc close");
    assert!(e.app.overlay.is_none());
    e.keys("x");
    click(&mut e, "every tensor of the run");
    assert!(e.shows("run.difference.safetensors") || e.shows("run.safetensors"));
    click(&mut e, "Esc close");
    e.keys("?").text("the prompt as tokens");
    click(&mut e, "Enter run");
    assert_eq!(e.app.screen, Screen::Tokens);
    e.keys("?");
    let before = e.draw();
    e.mouse(MouseEventKind::ScrollDown, 50, 20);
    assert!(e.draw() != before, "the next line is selected");
    // Outside of it, nothing happens.
    e.click(0, 0);
    assert!(e.app.overlay.is_some());
}

/// Frames stay where they are: a line is as long as the screen for every terminal, whatever is typed.
#[test]
fn borders_hold_with_joined_selected_and_right_to_left_text() {
    for text in [
        "👩‍👩‍👧 and 👩‍👩‍👧",
        "♻️ ♻ ♻️",
        "שלום עולם",
        "مرحبا بالعالم",
        "漢字かな",
        "é e\u{301} ñ",
        "a\u{200b}b\u{2028}c",
    ] {
        for size in [(80, 24), (160, 48)] {
            let mut e = Explorer::new(text, size, Theme::default());
            for keys in ["", "e", "end", "esc 3", "4", "5", "8", "0", "w"] {
                e.keys(keys);
                let buffer = e.draw();
                for (y, line) in e.lines().iter().enumerate() {
                    // A wide character is followed by an empty cell.
                    let mut x = 0;
                    while x < buffer.area.width {
                        let width = buffer[(x, y as u16)].symbol().width().max(1) as u16;
                        for beside in x + 1..x + width {
                            let symbol = buffer[(beside, y as u16)].symbol();
                            assert!(symbol.trim().is_empty(), "{text} {keys}: {line}");
                        }
                        x += width;
                    }
                    assert_eq!(x, buffer.area.width, "{text} {keys}: {line}");
                }
            }
            e.keys("1 e");
            let (left, top) = e.find("╭─ Prompt");
            let right = e.app.size.0 - 2;
            let buffer = e.draw();
            for y in top + 1..e.find("╰─ runs as you type").1 {
                assert_eq!((buffer[(left, y)].symbol(), buffer[(right, y)].symbol()), ("│", "│"), "{text}");
            }
        }
    }
}
