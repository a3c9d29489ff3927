//! *The* table of commands: the keymap, the help, the palette and the README derive from it.

use super::app::Screen;

/// One row of the table.
#[derive(Debug)]
pub struct Entry {
    pub command: Command,
    /// As typed in the palette.
    pub name: &'static str,
    /// Keys in the notation of [`super::keymap::Key`].
    pub keys: &'static [&'static str],
    /// The screens where it does something; empty: all.
    pub screens: &'static [Screen],
    /// One line for people.
    pub doc: &'static str,
    /// A word for the key line at the bottom; empty: not shown there.
    pub hint: &'static str,
}

macro_rules! commands {
    ($( $command:ident $name:literal [$($key:literal)*] [$($screen:ident)*] $hint:literal $doc:literal; )*) => {
        /// Everything a key, the palette or the mouse can ask for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Command { $( $command, )* }

        /// The table of commands, in the order of the help.
        pub const COMMANDS: &[Entry] = &[ $( Entry {
            command: Command::$command,
            name: $name,
            keys: &[ $( $key, )* ],
            screens: &[ $( Screen::$screen, )* ],
            doc: $doc,
            hint: $hint,
        }, )* ];
    };
}

commands! {
    // command         name               keys                       screens                 hint        doc
    Help               "help"             ["?" "f1"]                 []                      "help"      "show all keys; type to search";
    Palette            "commands"         [":"]                      []                      "command"   "run a command by name";
    Find               "find"             ["/"]                      []                      "find"      "find a tensor by its hook name";
    Edit               "edit"             ["e"]                      []                      "edit"      "edit the prompt; the run follows as you type";
    FindExtremes       "find-extremes"    ["F"]                      []                      ""          "find the largest values, rows and channels of the run";
    Export             "export"           ["x"]                      []                      "export"    "write what is on screen, or everything, to a file";
    Generate           "generate"         ["g"]                      []                      "sample"          "append one sampled token";
    GenerateMany       "generate-many"    ["G"]                      []                      ""          "append sixteen sampled tokens, one by one";
    ToggleBos          "bos"              ["B"]                      []                      ""          "put the beginning-of-text token before the prompt, or not";
    Changes            "changes"          ["i"]                      []                      "what if"   "all that is changed: switch, add, edit, name, delete, save, load";
    Back               "back"             ["esc"]                    []                      ""          "stop what is running, or leave the map";
    Quit               "quit"             ["q" "ctrl-c"]             []                      "quit"      "leave actscope";
    Suspend            "suspend"          ["ctrl-z"]                 []                      ""          "go back to the shell until fg; where a prompt is edited, undo";

    NextScreen         "next-screen"      ["tab"]                    []                      ""          "go to the next screen";
    PreviousScreen     "previous-screen"  ["shift-tab"]              []                      ""          "go to the previous screen";
    Tokens             "tokens"           ["1"]                      []                      ""          "screen: the prompt as tokens";
    Embedding          "embedding"        ["2"]                      []                      ""          "screen: rows of wte and wpe, and their sum";
    Stages             "stages"           ["3"]                      []                      ""          "screen: every tensor in data-flow order";
    Attention          "attention"        ["4"]                      []                      ""          "screen: every head's attention map";
    Logits             "logits"           ["5"]                      []                      ""          "screen: what may come next";
    Walk               "walk"             ["6"]                      []                      ""          "screen: one token followed through the network, step by step";
    Heads              "heads"            ["7"]                      []                      ""          "screen: every head by what it does";
    Lens               "lens"             ["8"]                      []                      ""          "screen: what each layer would already answer";
    Attribution        "attribution"      ["9"]                      []                      ""          "screen: which component wrote how much of a logit";
    Compare            "compare"          ["0"]                      []                      ""          "screen: two prompts, their difference, and patching";
    Weights            "weights"          ["w"]                      []                      ""          "screen: what the weights say by themselves";

    Left               "left"             ["left" "h"]               []                      ""          "move left: token, column, or key";
    Right              "right"            ["right" "l"]              []                      ""          "move right: token, column, or key";
    Up                 "up"               ["up" "k"]                 []                      ""          "move up: tensor, row, query, or candidate";
    Down               "down"             ["down" "j"]               []                      ""          "move down: tensor, row, query, or candidate";
    PageUp             "page-up"          ["pageup" "ctrl-u"]        []                      ""          "move up by ten";
    PageDown           "page-down"        ["pagedown" "ctrl-d"]      []                      ""          "move down by ten";
    First              "first"            ["home" "^"]               []                      ""          "go to the first token, column, or key";
    Last               "last"             ["end" "$"]                []                      ""          "go to the last token, column, or key";
    PreviousToken      "previous-token"   [","]                      []                      ""          "select the token before, on any screen";
    NextToken          "next-token"       ["."]                      []                      ""          "select the next token, on any screen";
    PreviousLayer      "previous-layer"   ["{"]                      [Stages Attention Compare Walk Attribution Weights] "layer"     "the same tensor, or step, one block before";
    NextLayer          "next-layer"       ["}"]                      [Stages Attention Compare Walk Attribution Weights] "layer"     "the same tensor, or step, one block after";
    PreviousHead       "previous-head"    ["["]                      [Stages Attention Compare Walk Attribution Weights] "head"      "the head before";
    NextHead           "next-head"        ["]"]                      [Stages Attention Compare Walk Attribution Weights] "head"      "the next head";

    Open               "open"             ["enter"]                  []                      ""          "Tokens: its embedding; Embedding, Attention: in Stages; Stages: into the map; Logits: append; Heads: its map; Lens: in Stages; Walk: the step's tensor, or append";
    ZoomIn             "zoom-in"          ["z" "+"]                  [Stages]                "zoom"      "fewer values, larger; down to printed numbers";
    ZoomOut            "zoom-out"         ["Z" "-"]                  [Stages]                ""          "more values";
    ZoomReset          "zoom-reset"       ["="]                      [Stages]                ""          "the whole tensor";
    Pooling            "pooling"          ["p"]                      [Stages Embedding Attention Logits Compare Weights] "" "pool by largest |x| or by mean";
    Range              "range"            ["r"]                      [Stages Embedding Attention Logits Compare Attribution Weights] "range" "colour range: robust, full, or each row by itself";
    AttentionStage     "attention-stage"  ["s"]                      [Attention]             "stage"     "scores, scaled, masked, or pattern";
    Jump               "walk-jump"        ["s"]                      [Walk]                  "jump"      "go to a step by number or name";
    Play               "walk-play"        ["p"]                      [Walk]                  "play"      "go from step to step by itself, or stop";
    Slower             "walk-slower"      ["-"]                      [Walk]                  ""          "play slower";
    Faster             "walk-faster"      ["+"]                      [Walk]                  ""          "play faster";
    Versus             "versus"           ["v"]                      [Attribution Compare]           "versus"    "choose a token whose logit is taken off";
    Parts              "parts"            ["a"]                      [Logits]                "parts"     "what wrote the logit of the selected candidate";
    Follow             "follow"           ["f"]                      [Logits]                "follow"    "the selected candidate in the Lens: its rank and probability after each layer";
    WeightsMode        "weights-mode"     ["m"]                      [Weights]               "mode"      "next: wte, wpe, residual, OV, QK, neuron";
    Palettes           "colours"          ["c"]                      []                      ""          "next pair of colour maps";
    Background         "background"       ["b"]                      []                      ""          "dark or light background";

    NextNumber         "next-number"      ["m"]                      [Heads Lens]            "number"    "the next number about heads, or that the lens shows";
    PreviousNumber     "previous-number"  ["M"]                      [Heads Lens]            ""          "the number before";
    RandomTokens       "random-tokens"    ["s"]                      [Heads]                 "random tokens" "measure heads on random tokens twice in a row, or on the prompt";
    ReseedRandom       "reseed-random"    ["S"]                      [Heads]                 ""          "other random tokens";
    FilterHeads        "filter"           ["f"]                      [Heads]                 "filter"    "rank all heads, those of the layer, or the strong ones";
    AblateHeads        "effects"          ["u"]                      [Heads]                 "effects"    "run the prompt without each head and MLP in turn: what the prediction loses";
    ChooseToken        "choose-token"     ["t"]                      [Lens Attribution Weights Compare] "token"  "a token of your choice: followed through the layers, whose logit, or whose row";
    FinalAnswer        "final-answer"     ["T"]                      [Lens Attribution]      ""          "what the network answers in the end, and no other token";

    Zero               "zero"             ["a"]                      [Tokens Embedding Stages Attention Heads] "zero" "what if this were 0: the head, neuron, tensor, block or position under the cursor";
    Mean               "mean"             ["A"]                      [Tokens Embedding Stages Attention Heads] ""     "what if this were its mean over the prompt";
    Scale              "scale"            ["*"]                      [Tokens Embedding Stages Attention Heads] ""     "what if this were multiplied";
    Knockout           "knock-out"        ["K"]                      [Stages Attention]      "cut"       "what if this query did not read this key";
    Direction          "direction"        ["d"]                      [Tokens Embedding Stages Attention] ""    "mark a row; on another, add the difference of the two";
    PromptB            "prompt-b"         ["n"]                      [Compare]               "prompt B"  "edit the second prompt";
    CompareMode        "compare-mode"     ["m"]                      [Compare]               "mode"      "a tensor, or a patch sweep: resid_pre, attn_out, mlp_out, heads";
    CompareShown       "compare-shown"    ["s"]                      [Compare]               "A, B"      "the tensor of A, of B, or A − B";
    Patch              "patch"            ["a"]                      [Compare]               "patch"     "what if B had this of A: B becomes the prompt, with the row or cell under the cursor taken from A";
    Swap               "swap-prompts"     ["N"]                      [Compare]               ""          "B becomes the prompt, and the prompt B";
    ShownSide          "difference"       ["D"]                      []                      ""          "on screen: changed, base, or changed − base";

    Cooler             "temperature-down" ["t"]                      [Logits Walk]           "temp"      "temperature down by 0.1; 0 always takes the likeliest";
    Warmer             "temperature-up"   ["T"]                      [Logits Walk]           "temp"      "temperature up by 0.1";
    FewerK             "top-k-down"       ["<"]                      [Logits]                "top-k"     "sample from fewer tokens";
    MoreK              "top-k-up"         [">"]                      [Logits]                "top-k"     "sample from more tokens, up to all";
    LessP              "top-p-down"       ["("]                      [Logits]                "top-p"     "sample from less probability mass";
    MoreP              "top-p-up"         [")"]                      [Logits]                "top-p"     "sample from more probability mass, up to all";
    Reseed             "reseed"           ["S"]                      [Logits]                "seed"      "another seed for sampling";
}

impl Command {
    /// This command's row of the table.
    pub fn entry(self) -> &'static Entry {
        &COMMANDS[self as usize]
    }
}

impl Entry {
    /// Whether the command does something on `screen`.
    pub fn works_on(&self, screen: Screen) -> bool {
        self.screens.is_empty() || self.screens.contains(&screen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_in_the_order_of_the_commands_and_names_are_unique() {
        let mut names = HashSet::new();
        for (i, entry) in COMMANDS.iter().enumerate() {
            assert_eq!(entry.command as usize, i);
            assert!(names.insert(entry.name), "{} twice", entry.name);
        }
    }
}
