//! Several continuations of a prompt, sampled side by side.

use super::logits::Sampling;
use crate::error::{Error, Result};
use crate::hooks::HookFilter;
use crate::run::Run;

/// Tokens that may follow a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuation {
    pub tokens: Vec<u32>,
    /// The sum of their log-probabilities in nats, whatever the temperature.
    pub log_prob: f64,
}

impl Continuation {
    /// `n_samples` continuations of `run`, `n_tokens` long, the likeliest first; one forward pass computes the
    /// next token of all. The first that is sampled is what tokens drawn one by one would be. `step`
    /// receives how many tokens of each are there, and how many there will be.
    ///
    /// # Errors
    /// Those of [`Sampling::draw`] and of `step`, and [`Error::Usage`] if the context has no room.
    pub fn several(
        run: &Run,
        (n_samples, n_tokens): (usize, usize),
        sampling: &Sampling,
        mut step: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let (length, n_positions) = (run.n_tokens(), run.config().n_positions);
        if length + n_tokens > n_positions {
            return Err(Error::usage(format!(
                "no room for {n_tokens} more tokens: the prompt has {length}, and the model takes {n_positions}"
            )));
        }
        let keep = HookFilter::new(&["k.*", "v.*", "logits"], run.config())?;
        let of = |sample: usize| Sampling {
            // Far from the seeds of the next lengths, which are the seeds that follow.
            seed: sampling.seed.wrapping_add((sample as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ..*sampling
        };
        let mut found = vec![Self { tokens: Vec::new(), log_prob: 0.0 }; n_samples];
        let mut runs: Vec<Run> = Vec::new();
        for at in 0..n_tokens {
            step(at, n_tokens)?;
            let mut next = Vec::with_capacity(n_samples);
            for (sample, one) in found.iter_mut().enumerate() {
                let before = runs.get(sample).unwrap_or(run);
                let (id, log_prob) = of(sample).drawn(before)?;
                one.tokens.push(id);
                one.log_prob += log_prob;
                next.push((Some(before), before.input.followed_by([id], before)));
            }
            // Nothing follows the last.
            if at + 1 < n_tokens {
                runs = Run::several_after(&run.model, next, &keep)?;
            }
        }
        found.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::analysis::logits::surprises;
    use crate::{Input, Model};

    #[test]
    fn continuations_are_what_one_by_one_would_draw() {
        let model = Arc::new(Model::demo());
        for changes in [None, Some("zero head:2.3".parse().unwrap())] {
            let input = Input::text("The man said to the").with_interventions(changes.into_iter().collect());
            let run = Run::all(&model, input).unwrap();
            let sampling = Sampling { top_k: Some(20), seed: 3, ..Sampling::default() };
            let mut said = Vec::new();
            let several = Continuation::several(&run, (5, 6), &sampling, |at, of| {
                said.push((at, of));
                Ok(())
            });
            let several = several.unwrap();
            assert_eq!(said, (0..6).map(|at| (at, 6)).collect::<Vec<_>>());
            assert!(several.is_sorted_by(|a, b| a.log_prob >= b.log_prob));
            assert!(several.windows(2).any(|pair| pair[0].tokens != pair[1].tokens));
            let mut plain = run.clone();
            for _ in 0..6 {
                let input = plain.input.followed_by([sampling.draw(&plain).unwrap()], &plain);
                plain = Run::all(&model, input).unwrap();
            }
            let tokens = &plain.tokens[run.n_tokens()..];
            assert!(several.iter().any(|one| one.tokens == tokens));
            for one in &several {
                let ids: Vec<_> = run.tokens.iter().chain(&one.tokens).copied().collect();
                let input = Input::ids(ids).with_interventions(run.input.interventions.clone());
                let whole = Run::all(&model, input).unwrap();
                let surprises = surprises(&whole).into_iter().skip(run.n_tokens()).flatten();
                let nats = surprises.map(|one| f64::from(one.bits)).sum::<f64>() * std::f64::consts::LN_2;
                assert!((nats + one.log_prob).abs() < 1e-4, "{nats} {}", one.log_prob);
            }
        }
    }

    #[test]
    fn a_full_context_and_a_stop_are_errors() {
        let model = Arc::new(Model::demo());
        let run = Run::all(&model, Input::ids(vec![5; model.config().n_positions - 3])).unwrap();
        let several = |n, step: fn(usize, usize) -> Result<()>| {
            Continuation::several(&run, (2, n), &Sampling::default(), step)
        };
        assert!(several(3, |_, _| Ok(())).is_ok());
        assert!(several(4, |_, _| Ok(())).unwrap_err().to_string().starts_with("no room for 4 more tokens"));
        assert!(matches!(several(3, |_, _| Err(Error::Cancelled)), Err(Error::Cancelled)));
    }
}
