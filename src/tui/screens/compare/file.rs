//! What another program computed, in place of prompt B.

use std::sync::Arc;

use super::Shown;
use crate::engine::{Beside, FromFile, Second};
use crate::hooks::Axis;
use crate::tui::app::{App, Screen};

/// Opens what another program computed, in place of prompt B.
pub fn beside(app: &mut App, beside: Beside) {
    (app.screen, app.screens.compare.file) = (Screen::Compare, Some(Arc::new(beside)));
}

/// A file was read: the cursor goes to the first tensor that is off.
pub(super) fn opened(app: &mut App, file: &FromFile) {
    let check = &file.check;
    let Some(first) = check.first_off.map(|first| &check.tensors[first]) else {
        if !file.hooks.contains(&app.selection.hook) {
            app.select_hook(file.hooks[0]);
        }
        app.note(format!("all of {} is within {:e} of the reference", file.name, check.tolerance));
        return;
    };
    let hook = file.hooks.iter().find(|hook| hook.to_string() == first.name);
    if let Some(hook) = hook {
        app.select_hook(*hook);
        let at = &first.difference.at;
        let of = |axis: Axis| {
            hook.point().axes.iter().position(|one| *one == axis).and_then(|i| at.get(i).copied())
        };
        let s = &mut app.selection;
        s.position = of(Axis::Pos).unwrap_or(s.position);
        s.head = of(Axis::Head).unwrap_or(s.head);
        s.key = of(Axis::Key).unwrap_or(s.key);
        s.column = at.last().copied().unwrap_or(s.column);
    } else {
        app.select_hook(file.hooks[0]);
    }
    let looks =
        check.diagnoses.first().map_or_else(String::new, |one| format!(": it looks like {}", one.says));
    app.note(format!("the first that is off in {} is {}{looks}", file.name, first.name));
}

/// The file, if what is to be shown of it is not in it.
pub(super) fn lacking<'a>(app: &App, second: &'a Second) -> Option<&'a FromFile> {
    let file = second.file.as_deref().filter(|_| app.screens.compare.shown != Shown::A)?;
    let has = app.selection.made.is_none() && file.hooks.contains(&app.selection.hook);
    (!has).then_some(file)
}
