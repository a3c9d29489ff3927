//! The text of one change; or, from `[` on, a saved list of changes. Both must read back the same.
#![no_main]

use actscope::interventions::{Change, Interventions};
use actscope::{Input, Run};
use actscope_fuzz::plain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let changes: Interventions = if text.trim_start().starts_with('[') {
        let Ok(changes) = Interventions::from_json(text) else { return };
        assert_eq!(Interventions::from_json(&changes.to_json()).as_ref(), Ok(&changes));
        changes
    } else {
        let Ok(change) = text.parse::<Change>() else { return };
        assert_eq!(change.to_string().parse::<Change>().ok().as_ref(), Some(&change));
        [change].into_iter().collect()
    };
    let _ = Run::all(plain(), Input::ids([1, 0, 15]).with_interventions(changes));
});
