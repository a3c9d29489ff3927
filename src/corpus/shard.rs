//! Shards: which documents a process takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of several equal parts of a corpus: every `of`th document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// From 1.
    pub index: u64,
    pub of: u64,
}

impl Shard {
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Whether it has the document of this number, from 0.
    pub fn has(self, document: u64) -> bool {
        document % self.of == self.index - 1
    }

    /// What the scheduler says: Slurm's arrays, Kubernetes's indexed jobs, RANK and WORLD_SIZE.
    ///
    /// # Errors
    /// A sentence, where nothing is said, or not all.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(value) = variable(name) else { return Ok(None) };
            value.trim().parse().map(Some).map_err(|_| format!("{name} is `{value}`, which is no number"))
        };
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.filter(|step| *step > 0).unwrap_or(1);
            let of = number("SLURM_ARRAY_TASK_COUNT")?.ok_or("SLURM_ARRAY_TASK_COUNT is not set")?;
            let index = id.checked_sub(first).map(|from_first| from_first / step + 1);
            return index.map(|index| Self { index, of }).and_then(Self::checked).ok_or_else(|| {
                format!("the array has tasks that do not follow each other: use one such as --array=1-{of}")
            });
        }
        if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            let of = number("JOB_COMPLETIONS")?.or(number("WORLD_SIZE")?);
            let of = of.ok_or(
                "JOB_COMPLETION_INDEX is set, but not JOB_COMPLETIONS: Kubernetes does not say how many there are, so \
                 the job's file has to",
            )?;
            return Self { index: index + 1, of }
                .checked()
                .ok_or_else(|| format!("JOB_COMPLETION_INDEX is {index}, of {of}"));
        }
        match (number("RANK")?, number("WORLD_SIZE")?) {
            (Some(rank), Some(of)) => Self { index: rank + 1, of }
                .checked()
                .ok_or_else(|| format!("RANK is {rank} and WORLD_SIZE {of}")),
            _ => Err(
                "nothing says which shard this is: SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, or RANK with \
                      WORLD_SIZE; give --shard I/N"
                    .into(),
            ),
        }
    }

    fn checked(self) -> Option<Self> {
        (self.of >= 1 && (1..=self.of).contains(&self.index)).then_some(self)
    }
}

/// `2/4`
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (index, of) = text.split_once('/')?;
            Self { index: index.parse().ok()?, of: of.parse().ok()? }.checked()
        };
        read().ok_or_else(|| format!("`{text}` is no shard: expected I/N, from 1/N to N/N, or auto"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_is_in_one_shard() {
        for of in 1..9 {
            for document in 0..40 {
                let has = (1..=of).filter(|&index| Shard { index, of }.has(document));
                assert_eq!(has.count(), 1);
            }
        }
    }

    #[test]
    fn a_shard_is_read_and_printed() {
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
        for bad in ["", "2", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert!(bad.parse::<Shard>().unwrap_err().contains("is no shard"), "{bad}");
        }
    }

    #[test]
    fn the_scheduler_is_asked() {
        let of = |set: &[(&str, &str)]| {
            Shard::of_environment(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
            .map(|shard| shard.to_string())
        };
        let slurm = |id, min, count| {
            of(&[
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", min),
                ("SLURM_ARRAY_TASK_COUNT", count),
            ])
        };
        assert_eq!(slurm("1", "1", "4").unwrap(), "1/4");
        assert_eq!(slurm("3", "0", "4").unwrap(), "4/4");
        assert!(slurm("7", "1", "4").unwrap_err().contains("--array=1-4"));
        assert!(slurm("x", "1", "4").unwrap_err().contains("SLURM_ARRAY_TASK_ID is `x`"));
        assert!(of(&[("SLURM_ARRAY_TASK_ID", "1")]).unwrap_err().contains("COUNT"));
        assert_eq!(of(&[("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "3")]).unwrap(), "1/3");
        assert!(of(&[("JOB_COMPLETION_INDEX", "0")]).unwrap_err().contains("JOB_COMPLETIONS"));
        assert_eq!(of(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap(), "2/2");
        assert!(of(&[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err().contains("RANK is 2"));
        assert!(of(&[]).unwrap_err().contains("--shard I/N"));
    }
}
