//! Which GPUs does a rank see? Those that the engine has chosen for it, by the names that they have on its machine.

use serde::{Deserialize, Serialize};

/// The variable that shows a process its GPUs.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// GPUs of one machine for ranks on it, each of which takes as many from the front as it is its due.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Devices {
    /// The machine's name; empty for the leader's.
    pub host: String,
    /// How many each rank takes.
    pub per_rank: u32,
    /// Which; one that several ranks share stands there for each of them.
    pub ids: Ids,
}

/// GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// Their names as the engine's process has them, and what Slurm calls them on their machine.
    Named(Vec<(String, String)>),
    /// Places among those that a rank's guard sees.
    Places(Vec<u32>),
}

impl Default for Ids {
    fn default() -> Self {
        Ids::Places(Vec::new())
    }
}

impl Ids {
    /// Takes so many from the front; `None` if there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Option<Ids> {
        match self {
            Ids::Named(ids) if ids.len() >= count => Some(Ids::Named(ids.drain(..count).collect())),
            Ids::Places(ids) if ids.len() >= count => Some(Ids::Places(ids.drain(..count).collect())),
            _ => None,
        }
    }

    /// What the rank's variable is to be, with the environment that the launcher has given its guard. A step of Slurm
    /// may number what it has anew, and then says which they are.
    pub(super) fn visible(&self, env: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let list = |name: &str| -> Option<Vec<String>> {
            let text = env(name)?;
            let words = text.split(',').map(|word| word.trim().to_owned());
            Some(words.filter(|word| !word.is_empty()).collect())
        };
        let shown = list(VISIBLE);
        let names: Result<Vec<String>, String> = match self {
            Ids::Named(ids) => {
                let marks = list("SLURM_STEP_GPUS").unwrap_or_default();
                let shown = shown.filter(|shown| shown.len() == marks.len()).unwrap_or_default();
                let of_step = |mark: &String| {
                    let at = marks.iter().position(|other| other == mark)?;
                    shown.get(at).cloned()
                };
                Ok(ids.iter().map(|(name, mark)| of_step(mark).unwrap_or_else(|| name.clone())).collect())
            }
            Ids::Places(places) => {
                let name = |place: &u32| match &shown {
                    None => Ok(place.to_string()),
                    Some(shown) => shown.get(*place as usize).cloned().ok_or_else(|| {
                        format!(
                            "it is to have GPU {place} (from 0) of its machine, which shows it {}",
                            shown.len()
                        )
                    }),
                };
                places.iter().map(name).collect()
            }
        };
        Ok(names?.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;

    fn check(ids: &Ids, env: &[(&str, &str)], expected: &str) {
        let of = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let visible = ids.visible(of);
        assert_eq!(visible.unwrap_or_else(|why| why), expected);
    }

    #[test]
    fn ranks_see_gpus_by_their_machines_names() {
        let pair = |(name, mark): (&str, &str)| (name.to_owned(), mark.to_owned());
        let named = Ids::Named([("0", "2"), ("1", "3")].map(pair).to_vec());
        check(&named, &[], "0,1");
        check(&named, &[("CUDA_VISIBLE_DEVICES", "5")], "0,1");
        let step = [("SLURM_STEP_GPUS", "1,2,3"), ("CUDA_VISIBLE_DEVICES", "0,1,2")];
        check(&named, &step, "1,2");
        check(&Ids::Named(vec![pair(("GPU-a", "GPU-a"))]), &step, "GPU-a");
        let places = Ids::Places(vec![1, 0]);
        check(&places, &[], "1,0");
        check(&places, &[("CUDA_VISIBLE_DEVICES", "4, 6,7")], "6,4");
        let why = "it is to have GPU 1 (from 0) of its machine, which shows it 1";
        check(&places, &[("CUDA_VISIBLE_DEVICES", "0")], why);
    }

    #[test]
    fn each_rank_takes_its_own() {
        let mut ids = Ids::Places(vec![0, 0, 1]);
        assert_eq!((ids.take(2), ids.take(2)), (Some(Ids::Places(vec![0, 0])), None));
        assert_eq!(ids.take(1), Some(Ids::Places(vec![1])));
    }
}
