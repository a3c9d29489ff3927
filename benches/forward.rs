//! A run that captures every hook, beside the bare forward pass, the plain candle expressions, and a
//! run after one that differs in its last token.

use std::sync::Arc;

use actscope::hooks::HookFilter;
use actscope::model::Ops;
use actscope::{Input, Model, Run};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn forward(c: &mut Criterion) {
    let model = Arc::new(Model::demo());
    let plain = model.net.clone().with_ops(Ops::Plain).unwrap();
    let mut group = c.benchmark_group("forward, demo model");
    for n in [16u32, 64, 256] {
        let ids: Vec<u32> = (0..n).map(|i| i * 31 % 2048).collect();
        group.bench_with_input(BenchmarkId::new("bare", n), &ids, |b, ids| {
            b.iter(|| model.net.run(ids, &mut ()).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("bare, plain", n), &ids, |b, ids| {
            b.iter(|| plain.run(ids, &mut ()).unwrap());
        });
        let keep = HookFilter::all(model.config());
        group.bench_with_input(BenchmarkId::new("every hook", n), &ids, |b, ids| {
            b.iter(|| Run::new(&model, Input::ids(ids.clone()), keep.clone(), ()).unwrap());
        });
        let before = Run::all(&model, Input::ids(ids.clone())).unwrap();
        let mut edited = ids;
        edited[n as usize - 1] += 1;
        group.bench_with_input(BenchmarkId::new("last token edited", n), &edited, |b, ids| {
            b.iter(|| before.then(Input::ids(ids.clone()), keep.clone(), ()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
