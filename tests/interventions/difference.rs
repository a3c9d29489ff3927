//! Changed − base of everything that is shown of a run.

use std::sync::Arc;

use actscope::analysis::View;
use actscope::analysis::attribution::{Attribution, Neuron};
use actscope::analysis::base::{DIFFERENCE, Minus, WithBase};
use actscope::analysis::compare::{Alignment, difference};
use actscope::analysis::heads::{Atlas, Exclude, Metric};
use actscope::analysis::lens::{Lens, Show, hooks};
use actscope::analysis::logits::{Next, Sampling};
use actscope::analysis::walk::{At, Cell, Page, Piece, steps};
use actscope::hooks::HookName;
use actscope::interventions::Intervention;
use actscope::picture::chart::Chart;
use actscope::{Input, Interventions, Model, Run};
use proptest::prelude::*;

use super::{changed, list, reference};

fn values(chart: &Chart) -> Vec<f32> {
    (0..chart.values.n_rows).flat_map(|row| chart.values.row(row)).collect()
}

fn pages(run: &Run, base: &Run, position: usize) -> Vec<Page> {
    let at = |step| At { step, position, head: 1, key: 0, column: 3, sampling: Sampling::default() };
    steps(run.config()).into_iter().map(|step| Page::with_base(run, Some(base), at(step)).unwrap()).collect()
}

/// Every number that a difference shows, under a name.
fn numbers(run: &Run, base: &Run, position: usize) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    let alignment = Alignment::new(&run.tokens, &base.tokens);
    for hook in HookName::all(run.config()).into_iter().filter(|hook| run.tensor(*hook).is_some()) {
        let apart = difference(View::hook(hook, 1), (run, base), &alignment).unwrap();
        all.push((hook.to_string(), (0..apart.n_rows).flat_map(|row| apart.row(row)).collect()));
    }
    let atlas = Atlas::with_base(run, Some(base), Exclude::default()).unwrap();
    for metric in Metric::ALL {
        all.push((format!("{metric:?}"), values(&atlas.shown(|atlas| atlas.chart(metric)))));
    }
    let lens = Lens::with_base(run, Some(base), &hooks(run.config()), 0..run.n_tokens(), None, 2).unwrap();
    for show in Show::ALL {
        all.push((format!("{show:?}"), values(&lens.shown(|lens| lens.chart(run, show)))));
    }
    let attribution = Attribution::with_base(run, Some(base), position, None, None).unwrap();
    all.push(("attribution".into(), values(&attribution.chart(run))));
    let logit = attribution.shown(|of| of.logit) as f32;
    all.push(("logit".into(), vec![logit, attribution.shown(|of| of.residue) as f32]));
    let neurons = attribution.neurons((run, Some(base)), 0, 5).unwrap();
    all.push(("neurons".into(), neurons.iter().map(|n| n.shown(|n| n.value) as f32).collect()));
    let next = Next::with_base(run, Some(base), position, 9).unwrap();
    all.push(("entropy".into(), vec![next.shown(|next| next.entropy_bits) as f32]));
    all.push(("next".into(), (0..9).map(|i| next.shown(|next| next.top[i].prob)).collect()));
    for page in pages(run, base, position) {
        let with_delta = |name: &String| name.starts_with("Δ ");
        for operand in page.operands().filter(|operand| with_delta(&operand.name)) {
            all.push((format!("{}: {}", page.name, operand.name), operand.values.clone()));
        }
        for table in &page.tables {
            let cells = table.rows.iter().flat_map(|row| row.cells.iter().zip(&table.columns[1..]));
            let number = |(cell, name): (&Cell, &String)| match cell {
                Cell::Number(x) if with_delta(name) => Some(*x),
                _ => None,
            };
            all.push((format!("{}: {}", page.name, table.title), cells.filter_map(number).collect()));
        }
        let facts = page.facts.iter().filter(|fact| with_delta(&fact.name));
        let fact = |cell: &Cell| if let Cell::Number(x) = cell { *x } else { panic!("{cell:?}") };
        all.push((format!("{}: facts", page.name), facts.map(|fact_| fact(&fact_.value)).collect()));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_change_that_is_off_makes_no_difference(
        ids in proptest::collection::vec(0u32..2048, 1..9),
        change in proptest::sample::select(vec!["zero head:1.5", "scale mlp:0=9", "mean layer:2"]),
    ) {
        let model = Arc::new(Model::demo());
        let base = Run::all(&model, Input::ids(&*ids)).unwrap();
        let off = list(&[change]).0.into_iter().map(|one| Intervention { on: false, ..one });
        let off = Interventions(off.collect());
        let run = Run::all(&model, Input::ids(&*ids).with_interventions(off)).unwrap();
        for (name, numbers) in numbers(&run, &base, ids.len() - 1) {
            let wrong = numbers.iter().find(|x| x.to_bits() != 0 && **x != f32::NEG_INFINITY);
            prop_assert!(wrong.is_none(), "{}: {:?}", name, wrong);
        }
    }
}

#[test]
fn a_change_differs_by_as_much_as_its_runs() {
    let (model, reference) = reference("demo");
    let base = Run::all(&model, Input::ids(&*reference.clean)).unwrap();
    let run = changed(&model, &reference.clean, &["zero head:1.5", "scale mlp:2=2"]);
    let last = run.n_tokens() - 1;
    assert!(numbers(&run, &base, last).iter().flat_map(|(_, numbers)| numbers).any(|x| *x != 0.0));

    let [a, b] = [&run, &base].map(|run| Atlas::new(run, Exclude::default()).unwrap());
    let shown = Atlas::with_base(&run, Some(&base), Exclude::default()).unwrap();
    for metric in Metric::ALL {
        let of = |atlas: &Atlas| values(&atlas.chart(metric));
        assert_eq!(values(&shown.shown(|atlas| atlas.chart(metric))), of(&a).minus(&of(&b)));
    }

    // Both runs follow the token that base answers with, at each position its own.
    let lens = Lens::with_base(&run, Some(&base), &hooks(run.config()), 0..last + 1, None, 1).unwrap();
    let before = lens.base.as_ref().unwrap();
    assert!(lens.of.readings.iter().zip(&before.readings).all(|(a, b)| a.token.id == b.token.id));
    assert_eq!(*before, Lens::new(&base, &hooks(run.config()), 0..last + 1, None, 1).unwrap());

    let attribution = Attribution::with_base(&run, Some(&base), last, None, None).unwrap();
    let apart = attribution.shown(Attribution::clone);
    assert_eq!(attribution.of.token, attribution.base.as_ref().unwrap().token);
    let sum: f64 = apart.parts.iter().map(|part| part.value).sum();
    assert!((sum + apart.residue - apart.logit).abs() < 1e-9 && apart.logit != 0.0);
    assert!(attribution.chart(&run).title.ends_with(DIFFERENCE));
    let neurons = attribution.neurons((&run, Some(&base)), 2, 7).unwrap();
    let size = |n: &WithBase<Neuron>| n.shown(|n| n.value).abs();
    assert!(neurons.is_sorted_by(|a, b| size(a) >= size(b)) && size(&neurons[6]) > 0.0);
}

#[test]
fn a_step_of_the_walk_adds_up_in_differences_too() {
    let (model, reference) = reference("demo");
    let base = Run::all(&model, Input::ids(&*reference.clean)).unwrap();
    let run = changed(&model, &reference.clean, &["zero head:1.5"]);
    let last = run.n_tokens() - 1;
    let number = |cell: &Cell| if let Cell::Number(x) = cell { *x } else { 0.0 };
    let mut seen = 0;
    for page in pages(&run, &base, last) {
        let multiplies = page.parts.iter().any(|part| matches!(part, Piece::Sign("×")));
        let all = page.operands().all(|operand| operand.name.starts_with("Δ "));
        assert!(!(all && multiplies), "{}: differences do not multiply", page.name);
        for table in
            page.tables.iter().filter(|table| table.rows.iter().any(|row| row.marked && row.index.is_none()))
        {
            let cells: Vec<_> = table.rows.iter().map(|row| number(row.cells.last().unwrap())).collect();
            let (total, parts) = cells.split_last().unwrap();
            let size = parts.iter().map(|x| x.abs()).sum::<f32>();
            assert!((parts.iter().sum::<f32>() - total).abs() <= 1e-5 * size, "{}: {cells:?}", page.name);
            assert!(table.rows.len() <= 8 + 3, "{}: {} rows", page.name, table.rows.len());
            seen += 1;
        }
        assert!(page.check.holds(), "the check is that of the changed run: {}", page.name);
    }
    // q, attention output, pre, and MLP output of every block, its scores, and the logits.
    assert_eq!(seen, 5 * 4 + 1);
}
