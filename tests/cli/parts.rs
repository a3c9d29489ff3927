//! `attribute`, `neighbours`, `circuit`, `neuron` and `find`.

use serde_json::Value;

use super::{PROMPT, assert_refused, rows, stdout, tiny};

fn object(args: &[&str], keys: &[&str]) -> Value {
    let value: Value = serde_json::from_str(&stdout(args)).unwrap();
    assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    value
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

const PARTS: [&str; 6] = ["position", "token", "versus", "logit", "parts", "residue"];

#[test]
fn attribute() {
    let plain = object(&["attribute", PROMPT, "--json"], &PARTS);
    let top = rows(&stdout(&["top", PROMPT, "--json"]), &["rank", "id", "text", "logit", "prob"]);
    assert_eq!((&plain["token"], &plain["versus"]), (&top[0]["id"], &Value::Null));
    assert!((number(&plain["logit"]) - number(&top[0]["logit"])).abs() < 1e-5);
    let (first, second) = (top[0]["id"].to_string(), top[1]["id"].to_string());
    let args = ["attribute", PROMPT, "--json", "--token", &first, "--versus", &second];
    let difference = object(&args, &PARTS);
    let apart = number(&top[0]["logit"]) - number(&top[1]["logit"]);
    assert!((number(&difference["logit"]) - apart).abs() < 1e-4);
    for answer in [plain, difference] {
        let parts = answer["parts"].as_array().unwrap();
        assert_eq!(parts.len(), 3 + 4 * (6 + 3));
        assert_eq!(
            parts[0].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["component", "layer", "head", "value"]
        );
        let sum: f64 = parts.iter().map(|part| number(&part["value"])).sum();
        assert!((sum + number(&answer["residue"]) - number(&answer["logit"])).abs() < 1e-4);
    }
}

#[test]
fn attribute_neurons_positions_and_interventions() {
    let keys = [&PARTS[..], &["neurons"]].concat();
    let args = ["attribute", PROMPT, "--position", "2", "--neurons", "3", "-k", "5", "--json"];
    let answer = object(&args, &keys);
    let neurons = answer["neurons"].as_array().unwrap();
    assert_eq!(neurons.len(), 5);
    assert_eq!(
        neurons[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["layer", "neuron", "post", "value"]
    );
    assert!(neurons.windows(2).all(|n| number(&n[0]["value"]).abs() >= number(&n[1]["value"]).abs()));
    let answer = object(&["attribute", PROMPT, "--ablate", "mlp:2", "--json"], &PARTS);
    let parts = answer["parts"].as_array().unwrap();
    assert_eq!(parts.iter().filter(|part| part["component"] == "intervention").count(), 4);
    let table = stdout(&["attribute", PROMPT, "--neurons", "1", "-k", "3"]);
    assert_eq!(table.lines().count(), 2 + 39 + 3 + 3);
    assert!(table.contains("MLP 0") && table.contains("neurons of MLP 1"));
}

#[test]
fn neighbours() {
    let near = rows(&stdout(&["neighbours", " sea", "-k", "4", "--json"]), &["rank", "id", "text", "cosine"]);
    assert_eq!((near.len(), &near[0]["text"]), (4, &Value::from(" water")));
    assert!(near.windows(2).all(|n| number(&n[0]["cosine"]) >= number(&n[1]["cosine"])));
    let near = rows(&stdout(&["neighbours", "7", "--of", "wpe", "--json"]), &["rank", "position", "cosine"]);
    assert!(near.iter().all(|n| n["position"] != 7));
    let args = ["neighbours", "2", PROMPT, "--of", "resid_post.1", "--json"];
    assert_eq!(rows(&stdout(&args), &["rank", "id", "text", "cosine"]).len(), 10);
}

#[test]
fn circuits_and_neurons() {
    let keys = ["layer", "head", "kind", "singular_values", "directions"];
    for (kind, sides) in [("ov", ["reads", "writes"]), ("qk", ["queries", "keys"])] {
        let answer = object(&["circuit", "1.5", "--kind", kind, "--json", "-k", "4"], &keys);
        assert_eq!(answer["singular_values"].as_array().unwrap().len(), 32);
        let directions = answer["directions"].as_array().unwrap();
        assert_eq!(directions.len(), 3);
        assert_eq!(directions[1]["value"], answer["singular_values"][1]);
        for end in sides.iter().flat_map(|side| ["top", "bottom"].map(|end| &directions[0][*side][end])) {
            assert_eq!(end.as_array().unwrap().len(), 4);
        }
    }
    let keys = ["layer", "neuron", "bias", "norm_in", "norm_out", "reads", "writes"];
    let answer = object(&["neuron", "2.117", "--json"], &keys);
    assert_eq!(answer["reads"]["top"].as_array().unwrap().len(), 10);
    assert!(stdout(&["neuron", "2.117"]).contains("activated by"));
    assert!(stdout(&["circuit", "0.0", "--kind", "qk"]).contains("queries +"));
}

#[test]
fn find() {
    let answer = object(&["find", PROMPT, "-k", "3", "--json"], &["n_values", "values", "rows", "channels"]);
    let values = answer["values"].as_array().unwrap();
    assert_eq!(values.len(), 3);
    assert!(values.windows(2).all(|x| number(&x[0]["value"]).abs() >= number(&x[1]["value"]).abs()));
    assert!(answer["rows"][0]["norm"].is_number() && answer["channels"][0]["layers"].is_array());
    assert!(stdout(&["find", PROMPT]).contains("resid_post"));
}

#[test]
fn charts_of_parts_and_circuits() {
    for what in [
        &["attribution", PROMPT][..],
        &["ov"],
        &["qk"],
        &["wpe"],
        &["wte"],
        &["neuron", "--neuron", "2.117"],
        &["neighbours", "--row", " sea"],
        &["neighbours", "--row", "7", "--of", "wpe"],
        &["neighbours", "--row", "3", "--of", "resid_post.2", PROMPT],
    ] {
        let drawn = stdout(&[&["render"], what, &["--color", "never", "--width", "90"]].concat());
        assert!(drawn.lines().count() > 6, "{drawn}");
        assert_eq!(drawn.contains("BOS"), what.contains(&PROMPT), "the weights are of no prompt: {drawn}");
    }
    // What is drawn is what is said.
    let said = stdout(&["neighbours", " sea", "-k", "3"]);
    let drawn = stdout(&["render", "neighbours", "--row", " sea", "--color", "never", "--width", "90"]);
    for line in said.lines().skip(1) {
        assert!(drawn.contains(line.split_whitespace().nth(2).unwrap()), "{line}: {drawn}");
    }
    assert!(
        stdout(&["render", "attribution", PROMPT, "--token", "5", "--versus", "6", "-o", "-"])
            .contains("minus")
    );
}

#[test]
fn what_there_is_not_names_what_there_is() {
    for (args, words) in [
        (&["attribute", "a", "--position", "9"][..], "position 9 is out of range (only 0)"),
        (&["attribute", "a", "--token", "2048"], "(0 to 2047)"),
        (&["attribute", "a", "--versus", "two words"], "not one token"),
        (&["attribute", "a", "--neurons", "4"], "layer 4 is out of range (0 to 3)"),
        (&["neighbours", "256", "--of", "wpe"], "position 256 is out of range (0 to 255)"),
        (&["neighbours", "x", "--of", "wpe"], "`x` is not a position"),
        (&["neighbours", "1", "a", "--of", "resid_post.0"], "position 1 is out of range (only 0)"),
        (&["neighbours", "0", "a", "--of", "pattern.0"], "shape ends in C"),
        (&["neighbours", "0", "a"], "leave the prompt out"),
        (&["neighbours", "0", "--of", "resid_pots.0"], "no prompt given"),
        (&["circuit", "4.0"], "layer 4 is out of range (0 to 3)"),
        (&["circuit", "0.6"], "head 6 is out of range (0 to 5)"),
        (&["circuit", "06"], "such as 1.5"),
        (&["neuron", "0.768"], "neuron 768 is out of range (0 to 767)"),
        (&["find"], "no prompt given"),
        (&["render", "ov", PROMPT], "leave the prompt out"),
        (&["render", "neuron"], "use --neuron"),
        (&["render", "neighbours"], "use --row"),
        (&["render", "neighbours", "--row", "1", "--of", "resid_post.1"], "no prompt given"),
    ] {
        assert_refused(args, 2, &[words]);
    }
    let model = tiny("untied");
    assert_refused(&["neighbours", "sea", "--model", &model], 2, &["no tokenizer"]);
    stdout(&["neighbours", "5", "--model", &model, "--json"]);
    stdout(&["circuit", "2.3", "--model", &model, "--json"]);
    stdout(&["attribute", "--token-ids", "5,17", "--model", &model, "--json"]);
}
