//! *The* table of commands, the source of the keymap, the help, the palette and the README.

use std::sync::LazyLock;

use super::actions as act;
use super::app::App;
use super::atlas;
use super::gradient;
use super::overlays::{AboutPanel, Asked, Changes, Overlay, Picker};
use super::places::{self, Goals};
use super::screens::{self, Screen, attention, compare, heads, lens, stages, walk};
use super::what_if;
use crate::analysis::AttnStage;
use crate::engine::Request;
use crate::interventions::Change;
use crate::picture::colormap::Palette;
use crate::signals::Signal;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub command: Command,
    /// What it is for: a heading of the help.
    pub group: &'static str,
    /// The name in the palette.
    pub name: &'static str,
    /// Keys in the notation of [`super::keymap::Key`].
    pub keys: &'static [&'static str],
    /// Whether it works on every screen, or only on those that list it.
    pub everywhere: bool,
    /// A word for the bottom line; empty: not shown there.
    pub hint: &'static str,
    /// A one-line description.
    pub doc: &'static str,
    /// Runs the command.
    pub run: fn(&mut App) -> Vec<Request>,
}

/// The result of a command: nothing, or requests to the engine.
trait Asks {
    fn asks(self) -> Vec<Request>;
}

impl Asks for () {
    fn asks(self) -> Vec<Request> {
        Vec::new()
    }
}

impl Asks for Vec<Request> {
    fn asks(self) -> Vec<Request> {
        self
    }
}

const ALL: bool = true;
const OWN: bool = false;

/// Going to another block or head.
pub const BLOCKS: &[Command] =
    &[Command::PreviousLayer, Command::NextLayer, Command::PreviousHead, Command::NextHead];
/// Colours of maps.
pub const COLOURS: &[Command] = &[Command::Pooling, Command::Range];
/// Gradients in place of values.
pub const GRADIENTS: &[Command] = &[Command::Gradient, Command::Metric];
/// What if.
pub const CHANGES: &[Command] = &[Command::Zero, Command::Mean, Command::Scale];

macro_rules! commands {
    (|$app:ident| $( $group:literal { $( $command:ident $name:literal [$($key:literal)*] $on:ident $hint:literal $doc:literal => $run:expr; )* } )*) => {
        /// Everything that a key, the palette or the mouse can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Command {
            $( $( $command, )* )*
            /// Go to a screen.
            Show(Screen),
        }

        const ROWS: &[Entry] = &[ $( $( Entry {
            command: Command::$command,
            group: $group,
            name: $name,
            keys: &[ $( $key, )* ],
            everywhere: $on,
            hint: $hint,
            doc: $doc,
            run: |$app| Asks::asks($run),
        }, )* )* ];
    };
}

/// The table of commands, in the order of the help: the screens follow the keys that cycle through
/// them.
pub static COMMANDS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let leafed = ROWS.iter().position(|entry| entry.command == Command::PreviousScreen);
    let (before, after) = ROWS.split_at(leafed.map_or(0, |at| at + 1));
    [before, &screens::COMMANDS, after].concat()
});

commands! { |app|
    // command      name               keys                      on    hint       doc, and what it does
    "The program" {
    Help            "help"             ["?" "f1"]                ALL   "help"     "show all keys; type to search"
                    => app.overlay = Some(Overlay::Picker(Picker::help(app.screen, &app.keymap)));
    Palette         "commands"         [":"]                     ALL   "command"  "run a command by name"
                    => app.overlay = Some(Overlay::Picker(Picker::commands(app.screen, &app.keymap, Goals::of(app))));
    Keys            "keys"             ["space"]                 ALL   ""         "show the keys of this screen; the next key does what it says"
                    => app.overlay = Some(Overlay::Keys);
    Find            "find"             ["/"]                     ALL   "find"     "find a tensor by its hook name; on Tokens, a token of the prompt"
                    => act::find(app);
    Edit            "edit"             ["e"]                     ALL   "edit"     "edit the prompt; the model runs as you type"
                    => app.overlay = app.editor(&app.input.prompt).map(Overlay::Editor);
    Examples        "examples"         ["E"]                     ALL   ""         "show what the neuron, head, channel or feature under the cursor does on a corpus"
                    => atlas::show(app);
    FindExtremes    "find-extremes"    ["F"]                     ALL   ""         "find the largest values, rows and channels of the run"
                    => act::find_extremes(app);
    Export          "export"           ["x"]                     ALL   "export"   "write what is on screen, or everything, to a file"
                    => act::export(app);
    Generate        "generate"         ["g"]                     ALL   "sample"   "append one sampled token"
                    => app.generate(1);
    GenerateMany    "generate-many"    ["G"]                     ALL   ""         "append sixteen sampled tokens, one by one"
                    => app.generate(16);
    Continuations   "continuations"    ["ctrl-g"]                ALL   ""         "sample twelve continuations of eight tokens, and choose one"
                    => app.offer(8);
    ToggleBos       "bos"              ["B"]                     ALL   ""         "toggle the beginning-of-text token before the prompt"
                    => { app.input.bos = !app.input.bos; app.start_run() };
    Changes         "changes"          ["i"]                     ALL   "what if"  "list the changes: switch, add, edit, name, delete, save, load"
                    => app.overlay = Some(Overlay::Changes(Changes::default()));
    About           "about"            ["I"]                     ALL   ""         "show what the model is: sizes, tokenizer, hash, and what was unusual"
                    => app.overlay = Some(Overlay::About(AboutPanel::default()));
    Copy            "copy"             ["y"]                     ALL   ""         "copy the value, row, token, hook name, or the command that shows the same"
                    => act::copy(app);
    WentBack        "go-back"          ["ctrl-o" "backspace"]    ALL   ""         "go back to what you looked at before"
                    => places::back(app);
    WentForth       "go-forward"       ["ctrl-n"]                ALL   ""         "go forward again"
                    => places::forth(app);
    Mark            "mark"             ["\""]                    ALL   ""         "mark what you look at, or remove its mark"
                    => places::mark(app);
    NextMark        "next-mark"        ["'"]                     ALL   ""         "go to the next mark"
                    => places::next_mark(app);
    Back            "back"             ["esc"]                   ALL   ""         "stop what is running, or leave the map"
                    => act::back(app);
    Quit            "quit"             ["q" "ctrl-c"]            ALL   "quit"     "quit actscope"
                    => app.quit = Some(Ok(()));
    Suspend         "suspend"          ["ctrl-z"]                ALL   ""         "suspend to the shell until fg; in the prompt editor, undo"
                    => app.signalled(Signal::Stop);
    }

    "Screens" {
    NextScreen      "next-screen"      ["tab"]                   ALL   ""         "go to the next screen"
                    => app.screen = app.screen.step(1);
    PreviousScreen  "previous-screen"  ["shift-tab"]             ALL   ""         "go to the previous screen"
                    => app.screen = app.screen.step(-1);
    }

    "Moving" {
    Left            "left"             ["left" "h"]              ALL   ""         "move left: token, column, or key"
                    => act::go(app, -1, 0);
    Right           "right"            ["right" "l"]             ALL   ""         "move right: token, column, or key"
                    => act::go(app, 1, 0);
    Up              "up"               ["up" "k"]                ALL   ""         "move up: tensor, row, query, or candidate"
                    => act::go(app, 0, -1);
    Down            "down"             ["down" "j"]              ALL   ""         "move down: tensor, row, query, or candidate"
                    => act::go(app, 0, 1);
    PageUp          "page-up"          ["pageup" "ctrl-u"]       ALL   ""         "move up by ten"
                    => act::go(app, 0, -10);
    PageDown        "page-down"        ["pagedown" "ctrl-d"]     ALL   ""         "move down by ten"
                    => act::go(app, 0, 10);
    First           "first"            ["home" "^"]              ALL   ""         "go to the first token, column, or key"
                    => act::go(app, -act::MOST, 0);
    Last            "last"             ["end" "$"]               ALL   ""         "go to the last token, column, or key"
                    => act::go(app, act::MOST, 0);
    PreviousToken   "previous-token"   [","]                     ALL   ""         "select the previous token, on any screen"
                    => act::go_token(app, -1);
    NextToken       "next-token"       ["."]                     ALL   ""         "select the next token, on any screen"
                    => act::go_token(app, 1);
    PreviousLayer   "previous-layer"   ["{"]                     OWN   "layer"    "the same tensor or step, one block earlier; on Features, the dictionary before"
                    => act::go_layer(app, -1);
    NextLayer       "next-layer"       ["}"]                     OWN   "layer"    "the same tensor or step, one block later; on Features, the next dictionary"
                    => act::go_layer(app, 1);
    PreviousHead    "previous-head"    ["["]                     OWN   "head"     "the previous head"
                    => app.go_head(-1);
    NextHead        "next-head"        ["]"]                     OWN   "head"     "the next head"
                    => app.go_head(1);
    }

    "Maps" {
    Open            "open"             ["enter"]                 ALL   ""         "open what the bottom line names"
                    => app.screen.scene().open(app);
    ZoomIn          "zoom-in"          ["z" "+"]                 OWN   "zoom"     "show fewer values, larger, down to printed numbers"
                    => stages::zoom(app, 1);
    ZoomOut         "zoom-out"         ["Z" "-"]                 OWN   ""         "show more values"
                    => stages::zoom(app, -1);
    ZoomReset       "zoom-reset"       ["="]                     OWN   ""         "show the whole tensor"
                    => (app.zoom, app.origin) = (0, (0, 0));
    Pooling         "pooling"          ["p"]                     OWN   ""         "pool by largest |x|, or by mean"
                    => act::next_pooling(app);
    Range           "range"            ["r"]                     OWN   "range"    "colour range: robust, full, or each row by itself"
                    => act::next_range(app);
    Gradient        "gradient"         ["R"]                     OWN   "gradient" "show values, gradients of the metric, or gradient × value; on Tokens, what each token accounts for; on Attribution, total effects"
                    => app.screen.scene().turn_gradient(app);
    Metric          "metric"           ["Q"]                     OWN   ""         "choose the metric: what gradients are of"
                    => gradient::ask(app);
    AttentionStage  "attention-stage"  ["s"]                     OWN   "stage"    "scores, scaled, masked, or pattern"
                    => app.stage = act::turned(&AttnStage::ALL, app.stage, 1);
    }
    "The walk" {
    AllHeads        "all-heads"        ["m"]                     OWN   "all heads" "show the maps of every head of every block, or of one head"
                    => attention::show_all(app);
    Jump            "walk-jump"        ["s"]                     OWN   "jump"     "go to a step by number or name"
                    => walk::jump(app);
    Play            "walk-play"        ["p"]                     OWN   "play"     "play: advance through the steps automatically, or stop"
                    => walk::play(app);
    Slower          "walk-slower"      ["-"]                     OWN   ""         "play slower"
                    => walk::pace(app, -1);
    Faster          "walk-faster"      ["+"]                     OWN   ""         "play faster"
                    => walk::pace(app, 1);
    }
    "Tokens and views" {
    FeaturesMode    "features-mode"    ["m"]                     OWN   "all"      "list the features of the selected token, or those of the whole prompt"
                    => app.screen.scene().turn(app, 1);
    Versus          "versus"           ["v"]                     OWN   "versus"   "choose a token whose logit to subtract"
                    => act::ask_token(app, Asked::Versus);
    Parts           "parts"            ["a"]                     OWN   "parts"    "show what contributes to the logit of the selected candidate"
                    => act::parts(app);
    Follow          "follow"           ["f"]                     OWN   "follow"   "follow the selected candidate through the layers, in the Lens"
                    => lens::follow(app, app.candidate());
    WeightsMode     "weights-mode"     ["m"]                     OWN   "mode"     "next view: wte, wpe, residual, OV, QK, neuron"
                    => app.screen.scene().turn(app, 1);
    }
    "Colours" {
    Palettes        "colours"          ["c"]                     ALL   ""         "switch to the next pair of colour maps"
                    => { app.theme.palette = act::turned(&Palette::ALL, app.theme.palette, 1); app.note(format!("colours: {}", app.theme.palette.name())) };
    Background      "background"       ["b"]                     ALL   ""         "switch between dark and light background"
                    => (app.theme.light, app.theme.paints) = (!app.theme.light, !app.theme.paints);
    }

    "Heads and the lens" {
    NextNumber      "next-number"      ["m"]                     OWN   "number"   "show the next number about heads or in the lens"
                    => app.screen.scene().turn(app, 1);
    PreviousNumber  "previous-number"  ["M"]                     OWN   ""         "show the previous number"
                    => app.screen.scene().turn(app, -1);
    RandomTokens    "random-tokens"    ["s"]                     OWN   "random tokens" "measure heads on repeated random tokens, or on the prompt"
                    => app.screens.heads.random = !app.screens.heads.random;
    ReseedRandom    "reseed-random"    ["S"]                     OWN   ""         "use other random tokens"
                    => heads::reseed(app);
    FilterHeads     "filter"           ["f"]                     OWN   "filter"   "rank all heads, the heads of the layer, or the strong heads"
                    => heads::next_filter(app);
    AblateHeads     "effects"          ["u"]                     OWN   "effects"  "ablate each head and MLP in turn, and show the effect on the prediction"
                    => heads::ablate(app);
    ChooseToken     "choose-token"     ["t"]                     OWN   "token"    "choose a token: to follow through the layers, for its logit, or for its row"
                    => act::ask_token(app, Asked::Token);
    NextLens        "next-lens"        ["L"]                     OWN   "lens"     "another lens: the logit lens, a tuned or a Jacobian lens"
                    => lens::next_lens(app);
    VersusLens      "versus-lens"      ["V"]                     OWN   ""         "subtract what another lens reads, or nothing"
                    => lens::versus_lens(app);
    FinalAnswer     "final-answer"     ["T"]                     OWN   ""         "go back to the final answer instead of a chosen token"
                    => app.screen.scene().take_token(app, Asked::Token, None);
    }

    "What if" {
    Zero            "zero"             ["a"]                     OWN   "zero"     "what if: ablate the head, neuron, feature, tensor, block or position under the cursor: set it to 0"
                    => what_if::change_place(app, Change::Zero);
    Mean            "mean"             ["A"]                     OWN   ""         "what if: mean-ablate it: set it to its mean over the prompt"
                    => what_if::change_place(app, Change::Mean);
    Scale           "scale"            ["*"]                     OWN   ""         "what if: multiply it by a factor"
                    => what_if::scale(app);
    Knockout        "knock-out"        ["K"]                     OWN   "cut"      "what if: stop this query from reading this key"
                    => what_if::knock_out(app);
    Direction       "direction"        ["d"]                     OWN   ""         "mark a row; on another row, add the difference of the two"
                    => what_if::direction(app);
    }
    "Two prompts" {
    PromptB         "prompt-b"         ["n"]                     OWN   "prompt B" "edit the second prompt"
                    => compare::edit(app);
    CompareMode     "compare-mode"     ["m"]                     OWN   "mode"     "next view: a tensor, or one of the patch sweeps"
                    => app.screen.scene().turn(app, 1);
    CompareShown    "compare-shown"    ["s"]                     OWN   "A, B"     "show the tensor of A, of B, or A − B"
                    => compare::next_shown(app);
    Patch           "patch"            ["a"]                     OWN   "patch"    "what if: make B the prompt, with the row or cell under the cursor taken from A"
                    => compare::patch(app);
    Edges           "edges"            ["W"]                     OWN   ""         "show which connections between heads and MLPs tell A from B, as a graph"
                    => compare::edges(app);
    Swap            "swap-prompts"     ["N"]                     OWN   ""         "swap the prompt and prompt B"
                    => compare::swap(app);
    }
    "Differences" {
    ShownSide       "difference"       ["D"]                     ALL   ""         "show the changed run, the base, or changed − base"
                    => what_if::next_side(app);
    }

    "Sampling" {
    Cooler          "temperature-down" ["t"]                     OWN   "temp"     "temperature down by 0.1; 0 always picks the likeliest token"
                    => act::warm(app, -0.1);
    Warmer          "temperature-up"   ["T"]                     OWN   "temp"     "temperature up by 0.1"
                    => act::warm(app, 0.1);
    FewerK          "top-k-down"       ["<"]                     OWN   "top-k"    "sample from fewer tokens"
                    => app.sampling.top_k = Some(act::step_k(app.sampling.top_k, false).unwrap_or(1));
    MoreK           "top-k-up"         [">"]                     OWN   "top-k"    "sample from more tokens, up to all"
                    => app.sampling.top_k = act::step_k(app.sampling.top_k, true);
    LessP           "top-p-down"       ["("]                     OWN   "top-p"    "sample from less probability mass"
                    => app.sampling.top_p = Some((app.sampling.top_p.unwrap_or(1.0) - 0.05).max(0.05));
    MoreP           "top-p-up"         [")"]                     OWN   "top-p"    "sample from more probability mass, up to all"
                    => app.sampling.top_p = app.sampling.top_p.map(|p| p + 0.05).filter(|p| *p < 0.999);
    Reseed          "reseed"           ["S"]                     OWN   "seed"     "use another seed for sampling"
                    => app.sampling.seed += 1;
    }
}

impl Command {
    /// This command's row of the table.
    ///
    /// # Panics
    /// Never: every command has a row.
    pub fn entry(self) -> &'static Entry {
        COMMANDS.iter().find(|entry| entry.command == self).expect("every command has a row")
    }
}

impl Entry {
    /// Whether the command works on `screen`.
    pub fn works_on(&self, screen: Screen) -> bool {
        self.everywhere || screen.scene().commands().iter().any(|some| some.contains(&self.command))
    }

    /// The screens where it works; empty if it works everywhere.
    pub fn screens(&self) -> impl Iterator<Item = Screen> {
        Screen::ALL.into_iter().filter(|screen| !self.everywhere && self.works_on(*screen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_command_works_somewhere() {
        let mut names = HashSet::new();
        for entry in COMMANDS.iter() {
            assert!(names.insert(entry.name), "{} twice", entry.name);
            assert_eq!(entry.command.entry().name, entry.name);
            assert!(entry.everywhere || entry.screens().next().is_some(), "{} nowhere", entry.name);
        }
        for screen in Screen::ALL {
            let own = screen.scene().commands().concat();
            assert!(own.iter().all(|command| !command.entry().everywhere), "{screen:?}");
            assert_eq!(own.iter().collect::<HashSet<_>>().len(), own.len(), "{screen:?}");
        }
    }
}
