//! Interventions as text: one line each, which parses back to the same change.

use std::fmt;
use std::str::FromStr;

use super::{Change, Direction, Donor, Edge, Intervention, Interventions, Place, Target};
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName, Site};
use crate::text::{exact, plain};

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Head(HookName { site: Site::Z, layer: Some(layer) }, head) => {
                write!(f, "head:{layer}.{head}")
            }
            Self::Head(hook, head) => write!(f, "{}.{head}", hook.short()),
            Self::Neuron { layer, neuron } => write!(f, "neuron:{layer}.{neuron}"),
            Self::Feature { hook, feature } => match hook.layer {
                Some(layer) => write!(f, "feature:{layer}.{}/{feature}", hook.point().short),
                None => write!(f, "feature:{}/{feature}", hook.point().short),
            },
            Self::Layer(layer) => write!(f, "layer:{layer}"),
            Self::Tensor(HookName { site: Site::AttnOut, layer: Some(layer) }) => write!(f, "attn:{layer}"),
            Self::Tensor(HookName { site: Site::MlpOut, layer: Some(layer) }) => write!(f, "mlp:{layer}"),
            Self::Tensor(hook) => f.write_str(&hook.short()),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "`{text}` is not a target: use head:L.H, neuron:L.N, attn:L, mlp:L, layer:L, \
                 position:T, feature:L.NAME/N or a tensor such as resid_pre.3, with @T at its end for one position"
            ))
        };
        if let Some((kind, place)) = text.split_once(':') {
            let read = || {
                Some(match kind {
                    "attn" => Self::Tensor(Site::AttnOut.at(place.parse().ok()?)),
                    "mlp" => Self::Tensor(Site::MlpOut.at(place.parse().ok()?)),
                    "layer" => Self::Layer(place.parse().ok()?),
                    "feature" => {
                        let (hook, feature) = place.rsplit_once('/')?;
                        // The layer first, or a name as everywhere.
                        let layer_first = hook.split_once('.').map(|(layer, name)| format!("{name}.{layer}"));
                        let hook =
                            layer_first.and_then(|name| name.parse().ok()).or_else(|| hook.parse().ok());
                        Self::Feature { hook: hook?, feature: feature.parse().ok()? }
                    }
                    "head" | "neuron" => {
                        let (layer, index) = place.split_once('.')?;
                        let (layer, index) = (layer.parse().ok()?, index.parse().ok()?);
                        match kind {
                            "head" => Self::Head(Site::Z.at(layer), index),
                            _ => Self::Neuron { layer, neuron: index },
                        }
                    }
                    _ => return None,
                })
            };
            return read().ok_or_else(wrong);
        }
        if let Ok(hook) = text.parse::<HookName>() {
            return Ok(Self::Tensor(hook));
        }
        let of_head = || {
            let (tensor, head) = text.rsplit_once('.')?;
            let hook = tensor.parse::<HookName>().ok()?;
            let has_heads = hook.point().axes.contains(&Axis::Head);
            has_heads.then_some(Self::Head(hook, head.parse().ok()?))
        };
        of_head().ok_or_else(wrong)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.target, self.position) {
            (target, None) => write!(f, "{target}"),
            (Target::Tensor(HookName { site: Site::ResidPre, layer: Some(0) }), Some(position)) => {
                write!(f, "position:{position}")
            }
            (target, Some(position)) => write!(f, "{target}@{position}"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |position: &str| {
            let wrong = || {
                Error::usage(format!("`{position}` in `{text}` is not a position: positions count from 0"))
            };
            position.parse().map_err(|_| wrong())
        };
        if let Some(position) = text.strip_prefix("position:") {
            return Ok(Target::Tensor(Site::ResidPre.at(0)).at(number(position)?));
        }
        match text.split_once('@') {
            Some((target, position)) => Ok(target.parse::<Target>()?.at(number(position)?)),
            None => Ok(text.parse::<Target>()?.everywhere()),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, head, query, key } = self;
        write!(f, "{layer}.{head}:{query}->{key}")
    }
}

impl FromStr for Edge {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (head, edge) = text.split_once(':')?;
            let (layer, head) = head.split_once('.')?;
            let (query, key) = edge.split_once("->")?;
            Some(Self {
                layer: layer.parse().ok()?,
                head: head.parse().ok()?,
                query: query.parse().ok()?,
                key: key.parse().ok()?,
            })
        };
        read().ok_or_else(|| {
            // An unquoted > is a redirection in the shell.
            let quote = if text.ends_with('-') { ", in quotes" } else { "" };
            Error::usage(format!(
                "`{text}` is not an edge: use LAYER.HEAD:QUERY->KEY, such as 3.5:7->2{quote}"
            ))
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(place) => write!(f, "zero {place}"),
            Self::Mean(place) => write!(f, "mean {place}"),
            Self::Scale(place, factor) => write!(f, "scale {place}={}", exact(*factor)),
            Self::Add(place, Direction { plus, minus, factor }) => {
                write!(f, "add {place}:{plus}-{minus}")?;
                if *factor == 1.0 { Ok(()) } else { write!(f, "={}", exact(*factor)) }
            }
            Self::Set(place, value) => write!(f, "set {place}={}", exact(*value)),
            Self::Steer(place, factor) => write!(f, "add {place}={}", exact(*factor)),
            Self::Splice(place) => write!(f, "splice {place}"),
            Self::Patch(place, donor) => write!(f, "patch {place} from {donor}"),
            Self::Knockout(edge) => write!(f, "knockout {edge}"),
        }
    }
}

impl fmt::Display for Donor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position} of ")?;
        }
        let ids: Vec<_> = self.tokens.iter().map(ToString::to_string).collect();
        f.write_str(&ids.join(","))
    }
}

impl FromStr for Change {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (action, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        match action {
            "zero" => Self::zero(rest),
            "mean" => Ok(Self::Mean(rest.parse()?)),
            "scale" => Self::scale(rest),
            "set" => Self::set(rest),
            "add" => Self::add(rest),
            "splice" => Self::splice(rest),
            "patch" => Self::patch(rest),
            "knockout" => Ok(Self::Knockout(rest.parse()?)),
            _ => Err(Error::usage(format!(
                "`{text}` is not an intervention: use zero TARGET, mean TARGET, scale TARGET=X, set TARGET=X, \
                 add TARGET:A-B=X, patch TARGET from IDS, splice TENSOR or knockout L.H:Q->K"
            ))),
        }
    }
}

impl Change {
    /// Parses `TARGET`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn zero(text: &str) -> Result<Self> {
        Ok(Self::Zero(text.parse()?))
    }

    /// Parses `TARGET=X`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn scale(text: &str) -> Result<Self> {
        let (place, factor) = text.split_once('=').ok_or_else(|| {
            Error::usage(format!("`{text}` has no factor: use TARGET=X, such as head:3.5=0.5"))
        })?;
        Ok(Self::Scale(place.parse()?, number(factor)?))
    }

    /// Parses `TARGET=X`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn set(text: &str) -> Result<Self> {
        let (place, value) = text.split_once('=').ok_or_else(|| {
            Error::usage(format!("`{text}` has no value: use TARGET=X, such as feature:2.resid_pre/731=4"))
        })?;
        Ok(Self::Set(place.parse()?, number(value)?))
    }

    /// Parses `TENSOR`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn splice(text: &str) -> Result<Self> {
        Ok(Self::Splice(text.parse()?))
    }

    /// Parses `TARGET:A-B`, `TARGET:A-B=X`, or `FEATURE=X`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn add(text: &str) -> Result<Self> {
        let (rest, factor) = text.split_once('=').map_or((text, None), |(rest, x)| (rest, Some(x)));
        if let (Ok(place @ Place { target: Target::Feature { .. }, .. }), Some(factor)) =
            (rest.parse(), factor)
        {
            return Ok(Self::Steer(place, number(factor)?));
        }
        let read = || {
            let (place, rows) = rest.rsplit_once(':')?;
            let (plus, minus) = rows.split_once('-')?;
            Some((place, plus.parse().ok()?, minus.parse().ok()?))
        };
        let (place, plus, minus) = read().ok_or_else(|| {
            Error::usage(format!(
                "`{text}` does not name two rows: use TARGET:A-B, such as resid_pre.3@7:5-2, and =X for X times their \
                 difference, or feature:L.NAME/N=X"
            ))
        })?;
        let factor = factor.map_or(Ok(1.0), number)?;
        Ok(Self::Add(place.parse()?, Direction { plus, minus, factor }))
    }
}

impl Change {
    /// Parses `TARGET from IDS` or `TARGET from T of IDS`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the expected syntax.
    pub fn patch(text: &str) -> Result<Self> {
        let read = || {
            let (place, donor) = text.split_once(" from ")?;
            let (position, ids) = match donor.split_once(" of ") {
                Some((position, ids)) => (Some(position.trim().parse().ok()?), ids),
                None => (None, donor),
            };
            let tokens = ids.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>().ok()?;
            Some((place.trim(), Donor { tokens, position }))
        };
        let (place, donor) = read().ok_or_else(|| {
            Error::usage(format!(
                "`{text}` does not name another prompt: use TARGET from IDS, such as resid_pre.3@7 from 464,2068,7586, and \
                 from T of IDS for its position T"
            ))
        })?;
        Ok(Self::Patch(place.parse()?, donor))
    }
}

/// A factor.
fn number(text: &str) -> Result<f32> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite());
    number.ok_or_else(|| Error::usage(format!("`{text}` is not a finite number")))
}

impl TryFrom<String> for Change {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Change> for String {
    fn from(change: Change) -> Self {
        change.to_string()
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({})", plain(name), self.change),
            None => write!(f, "{}", self.change),
        }
    }
}

/// The active changes, on one line.
impl fmt::Display for Interventions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.active().map(ToString::to_string).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn target() -> impl Strategy<Value = Target> {
        let hook = proptest::sample::select(HookName::all(&Config::gpt2()));
        let heads: Vec<_> = [Site::Q, Site::K, Site::V, Site::Z, Site::Result].map(|site| site.at(11)).into();
        prop_oneof![
            hook.prop_map(Target::Tensor),
            (proptest::sample::select(heads), 0usize..99).prop_map(|(hook, head)| Target::Head(hook, head)),
            (0usize..99, 0usize..9999).prop_map(|(layer, neuron)| Target::Neuron { layer, neuron }),
            (0usize..99).prop_map(Target::Layer),
        ]
    }

    fn change() -> impl Strategy<Value = Change> {
        let place = (target(), proptest::option::of(0usize..99))
            .prop_map(|(target, position)| Place { target, position });
        let factor = proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO;
        (place, factor, 0usize..99, 0usize..99, 0u8..6).prop_map(|(place, factor, a, b, kind)| match kind {
            0 => Change::Zero(place),
            1 => Change::Mean(place),
            2 => Change::Scale(place, factor),
            3 => Change::Add(place, Direction { plus: a, minus: b, factor }),
            4 => {
                Change::Patch(place, Donor { tokens: vec![a as u32; b + 1], position: (a < b).then_some(a) })
            }
            _ => Change::Knockout(Edge { layer: a, head: b, query: b, key: a }),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(change in change()) {
            prop_assert_eq!(change.to_string().parse::<Change>().unwrap(), change);
        }

        #[test]
        fn no_text_is_more_than_refused(text in "(zero|mean|scale|add|patch|knockout|)[ :@=.,>a-z0-9é-]{0,24}") {
            let _ = text.parse::<Change>();
        }
    }

    #[test]
    fn lists_are_saved_with_names_and_switches() {
        let mut list: Interventions =
            ["zero head:1.5", "scale mlp:2@3=0.5"].iter().map(|s| s.parse::<Change>().unwrap()).collect();
        list.0[0].name = Some("induction".into());
        list.0[1].on = false;
        let json = list.to_json();
        assert_eq!(
            json,
            "[\n{\"change\":\"zero head:1.5\",\"on\":true,\"name\":\"induction\"},\n\
             {\"change\":\"scale mlp:2@3=0.5\",\"on\":false}\n]\n"
        );
        assert_eq!(Interventions::from_json(&json).unwrap(), list);
        assert_eq!(list.to_string(), "induction (zero head:1.5)");
        let said = Interventions::from_json("[{\"change\": \"zero hed:1.5\"}]").unwrap_err();
        assert!(said.contains("hed:1.5") && said.contains("line 1"), "{said}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_there_is() {
        let config = Config::gpt2();
        let said = |text: &str| {
            let change = text.parse::<Change>();
            change.and_then(|change| change.check(&config, 9)).unwrap_err().to_string()
        };
        for (text, words) in [
            ("zero head:12.0", "layer 12 is out of range (0 to 11)"),
            ("zero head:3.12", "head 12 is out of range (0 to 11)"),
            ("zero q.3.12", "head 12 is out of range (0 to 11)"),
            ("mean neuron:0.3072", "neuron 3072 is out of range (0 to 3071)"),
            ("zero layer:12", "layer 12 is out of range (0 to 11)"),
            ("zero position:9", "position 9 is out of range (0 to 8)"),
            ("scale mlp:3@9=2", "position 9 is out of range (0 to 8)"),
            ("add resid_pre.3:9-2", "position 9 is out of range (0 to 8)"),
            ("knockout 3.5:7->8", "query 7 never reads key 8, which comes later"),
            ("knockout 3.5:9->2", "position 9 is out of range (0 to 8)"),
            ("knockout 3.5:7-", "in quotes"),
            ("zero pattern.3", "knockout L.H:Q->K"),
            ("zero hed:3.5", "use head:L.H"),
            ("zero head:3", "use head:L.H"),
            ("zero mlp.3", "use head:L.H"),
            ("zero mlp:3@x", "`x` in `mlp:3@x` is not a position"),
            ("scale head:3.5", "TARGET=X"),
            ("scale head:3.5=nan", "`nan` is not a finite number"),
            ("add resid_pre.3", "two rows"),
            ("drop head:3.5", "use zero TARGET"),
            ("patch head:3.5", "TARGET from IDS"),
            ("patch head:3.5 from 1,x", "TARGET from IDS"),
            ("patch resid_pre.3@5 from 1,2", "position 5 is out of range (0 to 1) in the prompt"),
            ("patch resid_pre.3@5 from 2 of 1,2", "position 2 is out of range (0 to 1) in the prompt"),
            ("patch resid_pre.3 from 1 of 1,2", "add @T to the target"),
            ("patch pattern.3 from 1,2", "knockout L.H:Q->K"),
        ] {
            assert!(said(text).contains(words), "{text}: {}", said(text));
        }
    }

    #[test]
    fn the_first_tensor_and_what_stays_causal() {
        let list =
            |texts: &[&str]| texts.iter().map(|s| s.parse::<Change>().unwrap()).collect::<Interventions>();
        assert_eq!(list(&["zero mlp:2", "knockout 1.0:3->2"]).first(), Some(Site::AttnScores.at(1)));
        assert_eq!(list(&["zero layer:2"]).first(), Some(Site::AttnOut.at(2)));
        assert_eq!(list(&["zero embed"]).first(), Some(Site::Embed.once()));
        assert!(list(&["zero head:1.5", "add resid_pre.1@5:5-2"]).is_causal());
        assert!(!list(&["mean head:1.5"]).is_causal());
        assert!(!list(&["add resid_pre.1@4:5-2"]).is_causal());
        assert!(!list(&["add resid_pre.1:5-2"]).is_causal());
    }
}
