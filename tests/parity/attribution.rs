//! Attribution and weights against Hugging Face transformers in float64: `fixtures/make_attribution.py`.

use std::sync::Arc;

use actscope::analysis::View;
use actscope::analysis::attribution::{Attribution, Component};
use actscope::analysis::weights::{Circuit, Ends, NeuronTokens, Scored, Spectrum, nearest};
use actscope::hooks::Site;
use actscope::picture::Matrix;
use actscope::{Input, Model, Run};
use proptest::prelude::*;
use serde_json::Value;

use super::{fixtures, load};

/// 1e-4 relative, of numbers below 1 absolute.
#[track_caller]
fn assert_near(got: f64, want: &Value, what: &str) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{what}: {got}, the reference has {want}");
}

/// Index and score, line by line; where two scores are alike either may come first.
#[track_caller]
fn assert_ranked(got: &[(usize, f64)], want: &Value, what: &str) {
    let want = want.as_array().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for ((index, score), line) in got.iter().zip(want) {
        assert_near(*score, &line[1], what);
        let same = want.iter().find(|line| line[0] == *index);
        assert_near(*score, same.map_or(&line[1], |line| &line[1]), what);
        assert!(same.is_some() || line == want.last().unwrap(), "{what}: {index} is not in the reference");
    }
}

fn with_reference(check: impl Fn(&Run, &Value)) {
    let json = std::fs::read(fixtures().join("attribution.json")).unwrap();
    let models: Value = serde_json::from_slice(&json).unwrap();
    let models = models.as_object().unwrap();
    assert_eq!(models.len(), 3);
    for (name, reference) in models {
        let model = Arc::new(if name == "demo" { Model::demo() } else { load(name) });
        let ids: Vec<u32> = serde_json::from_value(reference["token_ids"].clone()).unwrap();
        check(&Run::all(&model, Input::ids(ids)).unwrap(), reference);
    }
}

#[test]
fn every_part_is_the_references() {
    with_reference(|run, reference| {
        for want in reference["attributions"].as_array().unwrap() {
            let id = |name: &str| want[name].as_u64().map(|id| id as u32);
            let position = want["position"].as_u64().unwrap() as usize;
            let got = Attribution::new(run, position, id("token"), id("versus")).unwrap();
            assert_near(got.logit, &want["logit"], "logit");
            let parts = want["parts"].as_array().unwrap();
            assert_eq!(got.parts.len(), parts.len());
            for (part, want) in got.parts.iter().zip(parts) {
                assert_eq!(want["component"], part.component.name());
                assert_eq!(want["layer"].as_u64().map(|l| l as usize), part.component.layer());
                assert_eq!(want["head"].as_u64().map(|h| h as usize), part.component.head());
                assert_near(part.value, &want["value"], &part.component.to_string());
            }
            let layer = want["neurons"]["layer"].as_u64().unwrap() as usize;
            let neurons = got.neurons(run, layer, 8).unwrap();
            let values: Vec<_> = neurons.iter().map(|n| (n.neuron, n.value)).collect();
            let lines = want["neurons"]["neurons"].as_array().unwrap();
            assert_ranked(
                &values,
                &lines.iter().map(|l| serde_json::json!([l[0], l[2]])).collect(),
                "neurons",
            );
            for (n, line) in neurons.iter().zip(lines).filter(|(n, line)| line[0] == n.neuron) {
                assert_near(n.post.into(), &line[1], "post");
            }
        }
    });
}

/// What is changed after the last block is no rounding.
#[test]
fn interventions_at_the_end_are_a_part_of_their_own() {
    let model = Arc::new(load("untied"));
    let input = Input::ids([5, 17, 96, 7]);
    let without = Attribution::new(&Run::all(&model, input.clone()).unwrap(), 3, Some(8), None).unwrap();
    for change in ["scale ln_final_normalized=3", "scale ln_final_out=3", "scale logits@3=3"] {
        let changes = [change.parse::<actscope::interventions::Change>().unwrap()].into_iter().collect();
        let run = Run::all(&model, input.clone().with_interventions(changes)).unwrap();
        let found = Attribution::new(&run, 3, Some(8), None).unwrap();
        let of_change = found.value(Component::FinalChange).unwrap();
        assert!(
            (of_change - (found.logit - without.logit)).abs() < 1e-4 && of_change.abs() > 0.01,
            "{change}"
        );
        assert_eq!(found.residue, 0.0);
        let sum: f64 = found.parts.iter().map(|part| part.value).sum();
        assert!((sum - found.logit).abs() < 1e-9, "{change}");
    }
    // Probabilities come after the logits, and blocks have parts of their own.
    for change in ["scale probs=3", "scale resid_post.2=3", "zero mlp:1"] {
        let changes = [change.parse::<actscope::interventions::Change>().unwrap()].into_iter().collect();
        let run = Run::all(&model, input.clone().with_interventions(changes)).unwrap();
        let found = Attribution::new(&run, 3, Some(8), None).unwrap();
        assert_eq!(found.value(Component::FinalChange), None, "{change}");
        assert!(found.residue.abs() < 1e-4, "{change}");
    }
}

#[test]
fn the_likeliest_token_is_the_default() {
    with_reference(|run, reference| {
        for want in reference["attributions"].as_array().unwrap() {
            let position = want["position"].as_u64().unwrap() as usize;
            let got = Attribution::new(run, position, None, None).unwrap();
            let logits = View::hook(Site::Logits.once(), 0).matrix(run).unwrap().row(position);
            assert!(logits.iter().all(|x| *x <= logits[got.token as usize]));
        }
    });
}

#[test]
fn neighbours_are_the_references() {
    with_reference(|run, reference| {
        let pairs = |found: Vec<actscope::analysis::weights::Neighbour>| -> Vec<_> {
            found.into_iter().map(|n| (n.row, n.cosine)).collect()
        };
        let net = &run.model.net;
        let wte = Matrix::of(&net.wte.all().unwrap()).unwrap();
        for (name, table) in [("wte", wte.clone()), ("wpe", Matrix::of(&net.wpe).unwrap())] {
            let want = &reference["neighbours"][name];
            let row = want[0].as_u64().unwrap() as usize;
            assert_ranked(&pairs(nearest(&table.row(row), &table, 8, Some(row))), &want[1], name);
        }
        let want = &reference["neighbours"]["resid_post"];
        let hook = Site::ResidPost.at(want[0].as_u64().unwrap() as usize);
        let row = View::hook(hook, 0).matrix(run).unwrap().row(want[1].as_u64().unwrap() as usize);
        assert_ranked(&pairs(nearest(&row, &wte, 8, None)), &want[2], "resid_post");
    });
}

#[test]
fn interventions_are_parts_of_their_own() {
    let model = Arc::new(load("untied"));
    let changes = ["zero mlp:1", "scale head:0.2=3", "add resid_mid.2:1-0=0.5"];
    let changes: actscope::Interventions =
        changes.iter().map(|text| text.parse::<actscope::interventions::Change>().unwrap()).collect();
    let run = Run::all(&model, Input::ids([5, 17, 96, 7]).with_interventions(changes)).unwrap();
    let found = Attribution::new(&run, 3, None, None).unwrap();
    assert!(found.residue.abs() < 1e-4, "{}", found.residue);
    let value = |component| found.value(component).unwrap();
    let mlp = value(Component::Mlp(1)) + value(Component::MlpBias(1));
    assert!((value(Component::Change(1)) + mlp).abs() < 1e-4 && mlp.abs() > 0.01, "what was zeroed");
    assert!(value(Component::Change(0)).abs() < 1e-4, "a scaled z is the head's own");
    assert!(value(Component::Change(2)).abs() > 0.01, "what was added");
    let without = Run::all(&model, Input::ids([5, 17, 96, 7])).unwrap();
    let without = Attribution::new(&without, 3, None, None).unwrap();
    assert_eq!(without.parts.len(), Component::all(3, 4).len());
    assert!(without.parts.iter().map(|part| part.component).eq(Component::all(3, 4)));
}

fn assert_ends(got: &Ends, want: &Value, what: &str) {
    let pairs = |list: &[Scored]| list.iter().map(|s| (s.id as usize, s.score)).collect::<Vec<_>>();
    assert_ranked(&pairs(&got.top), &want["top"], what);
    assert_ranked(&pairs(&got.bottom), &want["bottom"], what);
}

#[test]
fn circuits_and_neurons_are_the_references() {
    with_reference(|run, reference| {
        let net = &run.model.net;
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        for want in reference["circuits"].as_array().unwrap() {
            let kind = if want["kind"] == "ov" { Circuit::Ov } else { Circuit::Qk };
            let spectrum = Spectrum::new(net, number(&want["layer"]), number(&want["head"]), kind).unwrap();
            let values = want["singular_values"].as_array().unwrap();
            assert_eq!(spectrum.values.len(), values.len());
            for (got, want) in spectrum.values.iter().zip(values) {
                assert_near(*got, want, "singular value");
            }
            assert!(want["rest"].as_f64().unwrap() < 1e-9, "the other singular values are zero");
            let [reads, writes] = spectrum.tokens(net, 0, 8).unwrap();
            assert_ends(&reads, &want["reads"], "reads");
            assert_ends(&writes, &want["writes"], "writes");
        }
        for want in reference["neurons"].as_array().unwrap() {
            let got = NeuronTokens::new(net, number(&want["layer"]), number(&want["neuron"]), 8).unwrap();
            assert_near(got.bias, &want["bias"], "bias");
            assert_ends(&got.reads, &want["reads"], "reads");
            assert_ends(&got.writes, &want["writes"], "writes");
        }
    });
}

#[test]
fn singular_directions_are_of_length_one_and_orthogonal() {
    let model = load("untied");
    for circuit in Circuit::ALL {
        let spectrum = Spectrum::new(&model.net, 2, 3, circuit).unwrap();
        for side in 0..2 {
            for i in 0..spectrum.values.len() {
                for j in 0..=i {
                    let (a, b) = (spectrum.direction(side, i), spectrum.direction(side, j));
                    let dot: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} · {j} = {dot}");
                }
            }
        }
        assert!(spectrum.values.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}

#[test]
fn what_there_is_not_names_what_there_is() {
    let model = Arc::new(load("untied"));
    let run = Run::all(&model, Input::ids([5, 17, 96])).unwrap();
    let found = Attribution::new(&run, 2, None, None).unwrap();
    let net = &model.net;
    for (said, words) in [
        (Attribution::new(&run, 3, None, None).unwrap_err(), "(0 to 2)"),
        (Attribution::new(&run, 0, Some(97), None).unwrap_err(), "(0 to 96)"),
        (Attribution::new(&run, 0, None, Some(97)).unwrap_err(), "(0 to 96)"),
        (found.neurons(&run, 3, 1).unwrap_err(), "layer 3 is out of range (0 to 2)"),
        (Spectrum::new(net, 3, 0, Circuit::Ov).unwrap_err(), "layer 3 is out of range (0 to 2)"),
        (Spectrum::new(net, 0, 4, Circuit::Qk).unwrap_err(), "head 4 is out of range (0 to 3)"),
        (
            Spectrum::new(net, 0, 0, Circuit::Ov).unwrap().tokens(net, 12, 1).unwrap_err(),
            "direction 12 is out of range (0 to 11)",
        ),
        (NeuronTokens::new(net, 0, 192, 1).unwrap_err(), "neuron 192 is out of range (0 to 191)"),
    ] {
        assert_eq!(said.exit_code(), 2);
        assert!(said.to_string().contains(words), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_sum_to_the_logit(
        checkpoint in proptest::sample::select(vec!["", "inner", "inverse", "untied", "eps"]),
        ids in proptest::collection::vec(0u32..97, 1..20),
        position in any::<proptest::sample::Index>(),
        token in proptest::option::of(0u32..97),
        versus in proptest::option::of(0u32..97),
    ) {
        let model = Arc::new(if checkpoint.is_empty() { Model::demo() } else { load(checkpoint) });
        let run = Run::all(&model, Input::ids(ids)).unwrap();
        let found = Attribution::new(&run, position.index(run.n_tokens()), token, versus).unwrap();
        prop_assert!(found.residue.abs() < 1e-4, "{checkpoint}: residue {}", found.residue);
        let sum: f64 = found.parts.iter().map(|part| part.value).sum();
        prop_assert!((sum + found.residue - found.logit).abs() < 1e-9);
        let of_mlp = found.neurons(&run, 1, usize::MAX).unwrap().iter().map(|n| n.value).sum::<f64>();
        let mlp = found.value(Component::Mlp(1)).unwrap();
        prop_assert!((of_mlp - mlp).abs() < 1e-6, "neurons sum to their MLP");
    }
}
